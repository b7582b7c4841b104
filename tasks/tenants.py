"""Workflows as tasks that a control panel may send by name: see docs/celery.md.

Each only opens the operation's row, and answers with it: the work follows in `operations.advance`. Arguments are
checked as those of the API are (`tenants.lifecycle.request_schemas`). A request that breaks a rule is the task's
failure, with field and rule as its message, and changes nothing. Secrets never travel as arguments: who sends a key or
a password sends its digest or verifier.
"""

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

from celery import Task, shared_task

from config import task_names
from tasks.runtime import run
from tasks.shown import ShownRequest
from tenants.access import idempotency
from tenants.access.idempotency import StoredAnswer
from tenants.core.digests import digest
from tenants.core.errors import DomainError, InvalidInputError, NotFoundError
from tenants.lifecycle import keys, registry, request_schemas, requests
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.request_schemas import (
    ChangeAddress,
    Import,
    ManyTenants,
    Move,
    OneTenant,
    Provision,
    Reconcile,
    Request,
    RotateKeys,
)
from tenants.outbound import callback_urls
from tenants.process.services import Services
from tenants.store.models import Operation, OperationKind
from tenants.workflows import imports, move, reconcile

Result = dict[str, Any]
Asked = TypeVar("Asked", bound=Request)

_ACTOR = "celery"


def _task(name: str, schema: type[Asked]) -> Callable[[Callable[[Services, Asked, Cause], Awaitable[Result]]], Any]:
    """A task of that name, whose arguments are checked by the schema.

    The task takes any arguments: if its signature refused some, that would count as an error of ours, and raise an
    alarm. The broker may deliver a task again an hour later, when another tenant bears the name: so its answer is kept,
    and given again.
    """

    def make(start: Callable[[Services, Asked, Cause], Awaitable[Result]]) -> Any:
        def task(self: Task[..., Result], *positional: object, **arguments: object) -> Result:
            if positional:
                raise InvalidInputError("arguments", "must be given by name")
            asked = request_schemas.check(schema, arguments)
            task_id = digest(_ACTOR, str(self.request.id))

            async def once(services: Services) -> Result:
                known = await idempotency.recall(services.database, _ACTOR, task_id)
                if known is not None:
                    result: Result = json.loads(known.body)
                    return result
                result = await start(services, asked, Cause(_ACTOR, asked.reason))
                await idempotency.keep(services, _ACTOR, task_id, StoredAnswer(HTTPStatus.OK, {}, json.dumps(result)))
                return result

            return run(once)

        task.__doc__ = start.__doc__
        return shared_task(
            name=name,
            bind=True,
            # the only tasks whose results somebody waits for
            ignore_result=False,
            # a request that breaks a rule is the sender's mistake: the sender is told, and no alarm is raised here
            throws=(DomainError,),
            Request=ShownRequest,
        )(task)

    return make


@_task(task_names.PROVISION, Provision)
async def provision(services: Services, asked: Provision, cause: Cause) -> Result:
    """Create the tenant if need be and start its provisioning; one that exists gets the settings."""
    spec = registry.TenantSpec(_changes(asked), key_digest=asked.key_digest, operator=asked.first_operator())
    created = await registry.put(services, asked.instance_name, spec, cause, own_key=False)
    return _result(asked.instance_name, created.operation)


@_task(task_names.SUSPEND, OneTenant)
async def suspend(services: Services, asked: OneTenant, cause: Cause) -> Result:
    """Start to suspend the tenant; no operation when it is suspended."""
    return await _requested(services, asked, OperationKind.SUSPEND, cause)


@_task(task_names.RESUME, OneTenant)
async def resume(services: Services, asked: OneTenant, cause: Cause) -> Result:
    """Start to resume the tenant; no operation when it is active."""
    return await _requested(services, asked, OperationKind.RESUME, cause)


@_task(task_names.DESTROY, OneTenant)
async def destroy(services: Services, asked: OneTenant, cause: Cause) -> Result:
    """Start the tenant's end; of one that has ended, the operation that ended it."""
    try:
        return await _requested(services, asked, OperationKind.DESTROY, cause)
    except NotFoundError:
        ended = await requests.last_end(services, asked.instance_name)
        if ended is None:
            raise
        return _result(asked.instance_name, ended)


@_task(task_names.CHANGE_ADDRESS, ChangeAddress)
async def change_address(services: Services, asked: ChangeAddress, cause: Cause) -> Result:
    """Start to move the tenant's callbacks; without a URL to the one that its name gives."""
    url = str(asked.callback_url) if asked.callback_url else None
    callback_urls.check_no_password(url)
    return _result(asked.instance_name, await requests.change_address(services, asked.instance_name, cause, url))


@_task(task_names.MOVE, Move)
async def move_tenant(services: Services, asked: Move, cause: Cause) -> Result:
    """Start to move the tenant to another XMPP host; no operation when it lives there."""
    return _result(asked.instance_name, await move.start(services, asked.instance_name, asked.xmpp_host, cause))


@_task(task_names.ROTATE_KEYS, RotateKeys)
async def rotate_keys(services: Services, asked: RotateKeys, cause: Cause) -> Result:
    """Start to give the tenant the key of that digest; the present one opens for `overlap_seconds` more."""
    operation = await keys.rotate_keys(
        services, asked.instance_name, cause, key_digest=asked.key_digest, overlap=asked.overlap_seconds
    )
    return _result(asked.instance_name, operation)


@_task(task_names.IMPORT, Import)
async def import_tenant(services: Services, asked: Import, cause: Cause) -> Result:
    """Start to read a tenant that exists in ejabberd into the registry."""
    spec = registry.TenantSpec(_changes(asked), key_digest=asked.key_digest)
    created = await imports.start(services, asked.instance_name, cause, spec, own_key=False)
    return _result(asked.instance_name, created.operation)


@_task(task_names.RECONCILE, Reconcile)
async def reconcile_tenants(services: Services, asked: Reconcile, cause: Cause) -> Result:
    """Start to compare one tenant, or all, with ejabberd, and to mend what differs."""
    operation = await reconcile.start(services, cause, asked.instance_name, dry_run=asked.dry_run)
    return _result(operation.instance_name, operation)


@_task(task_names.BULK, ManyTenants)
async def bulk(services: Services, asked: ManyTenants, cause: Cause) -> Result:
    """Start to suspend, resume or destroy each of the tenants: what came of each, by name."""
    kind = OperationKind(asked.kind)
    outcomes = dict(await requests.request_many(services, asked.instance_names, kind, cause))
    for name, outcome in outcomes.items():
        if kind is OperationKind.DESTROY and isinstance(outcome, NotFoundError):
            outcomes[name] = await requests.last_end(services, name) or outcome
    return {
        name: {"error": str(outcome)} if isinstance(outcome, DomainError) else _result(name, outcome)
        for name, outcome in outcomes.items()
    }


async def _requested(services: Services, asked: OneTenant, kind: OperationKind, cause: Cause) -> Result:
    return _result(asked.instance_name, await requests.request(services, asked.instance_name, kind, cause))


def _changes(asked: Import) -> dict[str, Any]:
    changes = asked.settings.changes() if asked.settings else {}
    callback_urls.check_no_password(changes.get("callback_url"))
    return changes


def _result(instance_name: str, operation: Operation | None) -> Result:
    return {
        "instance_name": instance_name,
        "operation_id": operation.id if operation else None,
        "kind": operation.kind.value if operation else None,
        "state": operation.state.value if operation else None,
    }
