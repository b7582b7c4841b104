"""The names of all Celery tasks.

`tenants.*` are an interface: a control panel may send them by name. Their arguments and results are in
`docs/celery.md` and change only by additions. The others are the system's own.
"""

PROVISION = "tenants.provision"
SUSPEND = "tenants.suspend"
RESUME = "tenants.resume"
DESTROY = "tenants.destroy"
CHANGE_ADDRESS = "tenants.change_address"
MOVE = "tenants.move"
ROTATE_KEYS = "tenants.rotate_keys"
IMPORT = "tenants.import"
RECONCILE = "tenants.reconcile"
BULK = "tenants.bulk"

ADVANCE = "operations.advance"
SWEEP_OPERATIONS = "operations.sweep"

EXPIRE_ACCOUNTS = "accounts.expire"

FORWARD = "chats.forward"
SWEEP_CHATS = "chats.sweep"

DELIVER = "callbacks.deliver"
SWEEP_CALLBACKS = "callbacks.sweep"
PURGE_CALLBACKS = "callbacks.purge"
