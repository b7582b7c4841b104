"""The names of all Celery tasks. They are an interface: a control panel may send `tenants.*` tasks by name."""

PROVISION = "tenants.provision"
DESTROY = "tenants.destroy"
ADVANCE = "operations.advance"
SWEEP_OPERATIONS = "operations.sweep"
DELIVER = "callbacks.deliver"
SWEEP_CALLBACKS = "callbacks.sweep"
EXPIRE_ACCOUNTS = "accounts.expire"
