"""Whatever is sent as the arguments of a task: it is what the rules allow, or refused with field and rule.

A string where a list belongs was taken letter by letter: `tenants.bulk` with "123" destroyed three tenants.
"""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from celery import Task
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

import tasks.tenants
from bench.testbed.panel import Panel
from bench.testbed.system import System
from config import task_names
from orchestrator.app import app
from tenants.core.errors import DomainError, InvalidInputError
from tenants.lifecycle import incarnations, registry, request_schemas
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.registry import TenantSpec
from tenants.store.models import Operation, OperationState, Tenant, TenantState
from tests.world.celery_client import Client
from tests.world.registry import World, emptied_world

_SCHEMAS: dict[str, type[request_schemas.Request]] = {
    task_names.PROVISION: request_schemas.Provision,
    task_names.SUSPEND: request_schemas.OneTenant,
    task_names.RESUME: request_schemas.OneTenant,
    task_names.DESTROY: request_schemas.OneTenant,
    task_names.CHANGE_ADDRESS: request_schemas.ChangeAddress,
    task_names.MOVE: request_schemas.Move,
    task_names.ROTATE_KEYS: request_schemas.RotateKeys,
    task_names.IMPORT: request_schemas.Import,
    task_names.RECONCILE: request_schemas.Reconcile,
    task_names.BULK: request_schemas.ManyTenants,
}


async def test_a_string_of_names_destroys_nobody(system: System, panel: Panel) -> None:
    names = ("1", "2", "3")
    for name in names:
        await panel.create(name)
    client = Client(system.endpoints["broker_url"])
    try:
        for wrong, rule in (
            ("123", "instance_names: Input should be a valid list"),
            ({"1": "2"}, "instance_names: Input should be a valid list"),
            ([1, 2], "instance_names.0: Input should be a valid string"),
            ([["1"]], "instance_names.0: Input should be a valid string"),
            (None, "instance_names: Input should be a valid list"),
            (["1"] * 1001, "instance_names: List should have at most 1000 items"),
        ):
            client.fails(rule, "tenants.bulk", kind="destroy", instance_names=wrong)
        client.fails("instance_name: Field required", "tenants.destroy")
        client.fails("instance_name: Input should be a valid string", "tenants.destroy", instance_name=["1"])
        client.fails("force: Extra inputs are not permitted", "tenants.destroy", instance_name="1", force=True)
        client.fails("dry_run: Input should be a valid boolean", "tenants.reconcile", dry_run="no")
        client.fails("operator.username: must be a string", "tenants.provision", instance_name="x", operator={})
        with pytest.raises(Exception, match="arguments: must be given by name"):
            client.app.send_task("tenants.destroy", args=["1"], queue="lifecycle").get(timeout=20)
    finally:
        client.app.close()
    for name in names:
        assert (await panel.http.get(f"/v1/tenants/{name}")).json()["state"] == "active"


def test_each_public_task_has_a_schema() -> None:
    assert {name for name in app.tasks if name.startswith("tenants.")} == set(_SCHEMAS)


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70)
_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
)
_LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "instance_name": st.sampled_from(["acme", "shop", "Acme", "a.b", "x" * 64, "\0", "\ud800", "*"]),
    "instance_names": st.lists(st.sampled_from(["acme", "shop", "nobody"]), max_size=4) | st.just("acme"),
    "kind": st.sampled_from(["suspend", "resume", "destroy", "provision"]),
    "key_digest": st.sampled_from(["a" * 64, "A" * 64, "a" * 63]),
    "overlap_seconds": st.sampled_from([0, 3600.5, -1, 1e12, float("nan"), float("inf"), "60", True]),
    "xmpp_host": st.sampled_from(["localhost", "second.example", "x.example", "\0"]),
    "callback_url": st.sampled_from(["https://chat.example.com/x", "ftp://x", "https://", "\0"]),
    "dry_run": st.booleans() | st.just("yes"),
    "reason": st.sampled_from(["a reason", "x" * 501, "\0", "\ud800"]),
    "settings": st.dictionaries(
        st.sampled_from(["online_seconds", "xmpp", "max_accounts", "routing", "callback_url", "colour"]),
        _JSON,
        max_size=3,
    ),
    "operator": st.fixed_dictionaries(
        {}, optional={"username": st.just("bob") | _JSON, "nick": _JSON, "scram": _JSON, "password": _JSON}
    ),
}  # fmt: skip


def _arguments(schema: type[request_schemas.Request]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: _LIKELY[name] | _JSON for name in schema.model_fields}
    needed = {name: fields.pop(name) for name, field in schema.model_fields.items() if field.is_required()}
    some = st.fixed_dictionaries(needed, optional=fields)
    return some | st.dictionaries(st.sampled_from([*schema.model_fields, "force", ""]), _JSON, max_size=4)


_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(["instance_name", "kind", "key_digest", "xmpp_host", "callback_url", "reason"], (str,)),
    **dict.fromkeys(["settings", "operator"], (dict,)),
    "instance_names": (list,),
    "overlap_seconds": (int, float),
    "dry_run": (bool,),
}
"""What each argument is in JSON, or null."""


def _is_typed(name: str, value: Any) -> bool:
    return value is None or (isinstance(value, _TYPES[name]) and (name == "dry_run" or not isinstance(value, bool)))


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


@pytest.mark.parametrize("name", _SCHEMAS)
def test_any_arguments_are_allowed_or_refused_with_field_and_rule(
    name: str,
    portal: BlockingPortal,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the worker's own way to run tasks, against the registry; the arguments as they come out of JSON."""
    task: Task[..., Any] = app.tasks[name]
    caplog.set_level(logging.ERROR)
    with portal.wrap_async_context_manager(emptied_world(database_url)) as world:
        monkeypatch.setattr(tasks.tenants, "run", lambda function: portal.call(function, world.services))
        for instance_name in ("acme", "shop"):
            portal.call(world.open_tenant, instance_name)

        @settings(max_examples=40, suppress_health_check=list(HealthCheck))
        @given(arguments=_arguments(_SCHEMAS[name]))
        def send(arguments: dict[str, Any]) -> None:
            arguments = json.loads(json.dumps(arguments))
            before = portal.call(_rows, world)
            outcome = task.apply(kwargs=arguments)
            if outcome.successful():
                json.dumps(outcome.result)
                assert all(_is_typed(*argument) for argument in arguments.items())
                return
            assert isinstance(outcome.result, DomainError), repr(outcome.result)
            assert portal.call(_rows, world) == before
            if isinstance(outcome.result, InvalidInputError):
                assert outcome.result.field
                assert outcome.result.rule

        send()
    # asyncio tells there of tasks that other tests left
    assert [one for one in caplog.records if one.name != "asyncio"] == []


def test_a_task_that_is_delivered_again_does_not_destroy_the_next_tenant_of_the_name(
    portal: BlockingPortal, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour later, when its worker died before it could say that it was done."""
    destroy: Task[..., Any] = app.tasks[task_names.DESTROY]
    with portal.wrap_async_context_manager(emptied_world(database_url)) as world:
        monkeypatch.setattr(tasks.tenants, "run", lambda function: portal.call(function, world.services))
        portal.call(world.open_tenant, "acme")
        first = destroy.apply(kwargs={"instance_name": "acme"}, task_id="the one")
        portal.call(_make_again, world)
        again = destroy.apply(kwargs={"instance_name": "acme"}, task_id="the one")
        assert (again.successful(), again.result) == (True, first.result)
        assert portal.call(registry.get, world.services, "acme").state is TenantState.PENDING


async def _make_again(world: World) -> None:
    async with world.services.database.write() as session:
        await session.execute(update(Operation).values(state=OperationState.SUCCEEDED, due_at=None))
        await session.execute(update(Tenant).values(state=TenantState.DESTROYING))
        await incarnations.forget(world.services, session, "acme", Cause("test"))
    await registry.put(world.services, "acme", TenantSpec({}), Cause("test"))


async def _rows(world: World) -> list[tuple[Any, ...]]:
    """All that these requests may change."""
    async with world.services.database.read() as session:
        tenants = await session.execute(select(*Tenant.__table__.columns).order_by(Tenant.instance_name))
        operations = await session.execute(select(*Operation.__table__.columns).order_by(Operation.id))
        return [tuple(row) for row in (*tenants, *operations)]
