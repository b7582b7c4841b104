"""Workflows as tasks that a control panel may send by name: see docs/celery.md.

Each only opens the operation's row, and answers with it: the work follows in `operations.advance`. A request that
breaks a rule is the task's failure, with the rule as its message, and changes nothing. Secrets never travel as
arguments: who sends a key or a password sends its digest or verifier.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from celery import shared_task

from config import task_names
from tasks.runtime import run
from tenants import addresses, importing, reconcile, registry
from tenants.errors import DomainError, InvalidInputError
from tenants.models import Operation, OperationKind
from tenants.secrets import check_digest
from tenants.services import Services
from tenants.specs import check_first_operator, check_settings
from tenants.states import Cause

Result = dict[str, Any]

_ACTOR = "celery"
_BULK_LIMIT = 1000
_DEFAULT_OVERLAP = 3600.0
_OF_MANY = (OperationKind.SUSPEND, OperationKind.RESUME, OperationKind.DESTROY)
_INTERFACE: dict[str, Any] = {
    # the only tasks whose results somebody waits for
    "ignore_result": False,
    # a request that breaks a rule is the sender's mistake: told to him, no alarm of ours
    "throws": (DomainError,),
}


@shared_task(name=task_names.PROVISION, **_INTERFACE)
def provision(
    instance_name: str,
    settings: dict[str, Any] | None = None,
    key_digest: str | None = None,
    operator: dict[str, Any] | None = None,
    reason: str | None = None,
) -> Result:
    """Create the tenant if need be and start its provisioning; one that exists gets the settings.

    `operator`: the first operator's account, as `username`, `nick` and SCRAM verifier.
    """

    async def start(services: Services) -> Result:
        spec = registry.TenantSpec(
            _settings(settings),
            key_digest=_digest_or_none(key_digest),
            operator=operator and check_first_operator(operator),
        )
        created = await registry.put(services, instance_name, spec, _cause(reason), own_key=False)
        return _result(instance_name, created.operation)

    return run(start)


@shared_task(name=task_names.SUSPEND, **_INTERFACE)
def suspend(instance_name: str, reason: str | None = None) -> Result:
    """Start to suspend the tenant; no operation when it is suspended."""
    return run(_requested(instance_name, OperationKind.SUSPEND, reason))


@shared_task(name=task_names.RESUME, **_INTERFACE)
def resume(instance_name: str, reason: str | None = None) -> Result:
    """Start to resume the tenant; no operation when it is active."""
    return run(_requested(instance_name, OperationKind.RESUME, reason))


@shared_task(name=task_names.DESTROY, **_INTERFACE)
def destroy(instance_name: str, reason: str | None = None) -> Result:
    """Start the tenant's end."""
    return run(_requested(instance_name, OperationKind.DESTROY, reason))


@shared_task(name=task_names.CHANGE_ADDRESS, **_INTERFACE)
def change_address(instance_name: str, callback_url: str | None = None, reason: str | None = None) -> Result:
    """Start to move the tenant's callbacks; without a URL to the one that its name gives."""

    async def start(services: Services) -> Result:
        url = _settings({"callback_url": callback_url})["callback_url"]
        return _result(
            instance_name, await registry.change_address(services, instance_name, _cause(reason), callback_url=url)
        )

    return run(start)


@shared_task(name=task_names.ROTATE_KEYS, **_INTERFACE)
def rotate_keys(
    instance_name: str, key_digest: str, overlap_seconds: float = _DEFAULT_OVERLAP, reason: str | None = None
) -> Result:
    """Start to give the tenant the key of that digest; the present one opens for `overlap_seconds` more."""

    async def start(services: Services) -> Result:
        operation = await registry.rotate_keys(
            services,
            instance_name,
            _cause(reason),
            key_digest=check_digest("key_digest", key_digest),
            overlap=overlap_seconds,
        )
        return _result(instance_name, operation)

    return run(start)


@shared_task(name=task_names.IMPORT, **_INTERFACE)
def import_tenant(
    instance_name: str,
    settings: dict[str, Any] | None = None,
    key_digest: str | None = None,
    reason: str | None = None,
) -> Result:
    """Start to read a tenant that exists in ejabberd into the registry."""

    async def start(services: Services) -> Result:
        spec = registry.TenantSpec(_settings(settings), key_digest=_digest_or_none(key_digest))
        created = await importing.start(services, instance_name, _cause(reason), spec, own_key=False)
        return _result(instance_name, created.operation)

    return run(start)


@shared_task(name=task_names.RECONCILE, **_INTERFACE)
def reconcile_tenants(instance_name: str | None = None, *, dry_run: bool = False, reason: str | None = None) -> Result:
    """Start to compare one tenant, or all, with ejabberd, and to mend what differs."""

    async def start(services: Services) -> Result:
        operation = await reconcile.start(services, _cause(reason), instance_name, dry_run=dry_run)
        return _result(operation.instance_name, operation)

    return run(start)


@shared_task(name=task_names.BULK, **_INTERFACE)
def bulk(kind: str, instance_names: list[str], reason: str | None = None) -> Result:
    """Start to suspend, resume or destroy each of the tenants: what came of each, by name."""

    async def start(services: Services) -> Result:
        if kind not in _OF_MANY:
            raise InvalidInputError("kind", f"must be one of {', '.join(_OF_MANY)}")
        if len(instance_names) > _BULK_LIMIT:
            raise InvalidInputError("instance_names", f"must be at most {_BULK_LIMIT}")
        outcomes = await registry.request_many(services, instance_names, OperationKind(kind), _cause(reason))
        return {
            name: {"error": str(outcome)} if isinstance(outcome, DomainError) else _result(name, outcome)
            for name, outcome in outcomes
        }

    return run(start)


def _requested(instance_name: str, kind: OperationKind, reason: str | None) -> Callable[[Services], Awaitable[Result]]:
    async def start(services: Services) -> Result:
        return _result(instance_name, await registry.request(services, instance_name, kind, _cause(reason)))

    return start


def _settings(values: dict[str, Any] | None) -> dict[str, Any]:
    checked = check_settings(values or {})
    addresses.check_no_password(checked.get("callback_url"))
    return checked


def _cause(reason: str | None) -> Cause:
    return Cause(_ACTOR, reason)


def _digest_or_none(key_digest: str | None) -> str | None:
    return None if key_digest is None else check_digest("key_digest", key_digest)


def _result(instance_name: str, operation: Operation | None) -> Result:
    return {
        "instance_name": instance_name,
        "operation_id": operation.id if operation else None,
        "kind": operation.kind.value if operation else None,
        "state": operation.state.value if operation else None,
    }
