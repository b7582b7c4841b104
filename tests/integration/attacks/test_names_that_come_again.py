"""A name comes again: of a tenant that was destroyed, or of an operator who was removed.

Nothing issued to the one before opens anything of the next, and nothing that was on its way arrives there.
"""

import uuid
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import update

from bench.testbed.lhc import Lhc
from bench.testbed.panel import Panel
from bench.testbed.system import System, domain_of
from bench.testbed.waiting import until, until_async
from orchestrator.api.http.auth import Caller, acts_for_tenant, reads_history, reads_tenant
from tenants.access import one_time_links, tokens
from tenants.accounts import accounts, rows
from tenants.conversations import bounces, operator_presence
from tenants.conversations.reports import Returned
from tenants.core.errors import NotFoundError
from tenants.core.naming import AccountKind, AccountName
from tenants.lifecycle import incarnations, operations, registry
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.registry import TenantSpec
from tenants.process.cache import TENANT_SECONDS
from tenants.process.services import Services
from tenants.shards.commands import CloseVisitor, SendMessage, ShowVisitor
from tenants.store.models import (
    Account,
    OneTimeLink,
    Operation,
    OperationState,
    OperatorPresence,
    Purpose,
    ReturnedMessage,
    Scope,
    Tenant,
    TenantState,
)
from tests.world.registry import World, make_world
from tests.world.tenant import Tenant as Customer
from tests.world.tenant_api import TenantApi, api_of
from xmpp_pool.lives import Lives

_PANEL = Cause("panel")


async def test_a_tenant_gets_nothing_of_the_one_that_bore_its_name(api: TenantApi, system: System) -> None:
    old, panel = api.tenant, api.tenant.panel
    name, dead_address = old.name, "http://127.0.0.1:1/lhc"
    bob = await api.operator("bob")
    # issued: a token (of `api`), a key and the one before it, an invitation, answers that are kept
    first_key, old_key = old.key, await _rotated(panel, name, "rotation-1")
    async with domain_of(system) as services:
        invitation = await one_time_links.make_onboarding(services, name, "bob", _PANEL)
        old_life = (await registry.get(services, name)).incarnation
    # known: a visitor's page view, a chat, a room, what its LHC did not take, what came back
    await api.http.post("/visitors/7/pageviews", json={"nick": "Old", "page": "/old"})
    await bob.sees(old.lhc.name("visitor.7"))
    await api.chat("1", message="An old question")
    await bob.reads("An old question")
    await api.write("1", "An old line", message_id="line-0001")
    await bob.reads("An old line")
    assert (await api.http.post("/rooms", json={"name": "sales"})).status_code == 201
    moved = (await panel.http.post(f"/v1/tenants/{name}/address", json={"callback_url": dead_address})).json()
    await panel.finished(moved["id"])
    bob.write(old.lhc.name("visitor.1.chat"), "An old answer")
    await until_async(lambda: _waits(api), "the answer waits for the tenant's server")

    await panel.destroy(name)
    created = (await panel.http.put(f"/v1/tenants/{name}", json={"routing": "orchestrator"})).json()
    # at once, and once more when it is there
    assert await _what_opens(api, [first_key, old_key], invitation) == []
    await panel.finished(created["operation"]["id"])
    assert await _what_opens(api, [first_key, old_key], invitation) == []
    assert bob.disconnected.is_set()
    assert await _rotated(panel, name, "rotation-1") not in {"None", old_key}, "answered as its predecessor was"

    new = Customer(system, old.receiver, panel, created)
    try:
        await _live_anew(new, old_life)
    finally:
        await new.close()
    assert not old.receiver.messages("An old answer")


async def _live_anew(new: Customer, old_life: str) -> None:
    """The successor has nothing of the former, and what one does there is new."""
    async with api_of(new) as successor:
        for path in ("/chats", "/rooms", "/deliveries", "/operators", "/returned-messages", "/drift"):
            answer = (await successor.http.get(path)).json()
            assert next(iter(answer.values())) == [], (path, answer)
        kinds = {one["kind"] for one in (await successor.http.get("/operations")).json()["operations"]}
        assert kinds == {"provision", "rotate_keys"}
        entries = (await successor.http.get("/audit")).json()["entries"]
        assert not {entry["new_state"] for entry in entries} & {"destroying", "destroyed", "suspending"}

        bob = await successor.operator("bob")
        # what a process of the former life says late
        async with domain_of(new.system) as services:
            late = {"instance_name": new.name, "incarnation": old_life, "username": new.lhc.name("visitor.7")}
            await services.commands.publish(
                ShowVisitor(**late, nick="Old", status="/old", online_until=services.clock() + 60, version=9),
                SendMessage(**late, operator=new.lhc.name("bob"), body="An old word", message_id=uuid.uuid4().hex),
            )
        # the same visitor is not known from before: operators see it, and after what was said late
        viewed = await successor.http.post("/visitors/7/pageviews", json={"nick": "New", "page": "/new"})
        assert viewed.status_code == 202, viewed.text
        assert (await bob.sees(new.lhc.name("visitor.7"))).nick == "New"
        await successor.chat("1", message="A new question")
        await bob.reads("A new question")
        # of the same number as one that the former tenant's operator of the same name had
        await successor.write("1", "A new line", message_id="line-0001")
        await bob.reads("A new line")
        assert not [message for message in bob.messages if "old" in message.body]
        assert "Old" not in {presence.nick for presence in bob.presences}


async def test_an_operator_gets_nothing_of_the_one_who_bore_the_name(api: TenantApi, system: System) -> None:
    tenant = api.tenant
    bob, carol = await api.operator("bob"), await api.operator("carol")
    await api.chat("1", message="For whoever is first")
    await bob.reads("For whoever is first")
    bob.write(tenant.lhc.name("visitor.1.chat"), "That is me")
    await until_async(lambda: _is_owned(api, "1"), "bob has the chat")
    await api.http.post("/rooms", json={"name": "sales"})
    await api.http.put("/rooms/sales/members/bob", json={"nick": "Old Bob"})
    async with domain_of(system) as services:
        invitation = await one_time_links.make_onboarding(services, tenant.name, "bob", _PANEL)
        await bob.leave()
        # it waits in ejabberd for who is away
        await api.write("1", "For the one who was here")
        name = AccountName(AccountKind.OPERATOR, "bob", tenant.name)
        before = await rows.find(services, name)
    bob = tenant.operator("bob")
    await bob.connect(available=False)
    assert (await api.http.delete("/operators/bob")).status_code == 204
    await until(bob.disconnected.is_set, "his session is ended")
    assert (await api.http.put("/operators/bob", json={"password": "another-pw"})).status_code == 201

    async with httpx.AsyncClient(base_url=system.endpoints["api"], timeout=10) as anybody:
        form = {"password": "a password of the one before", "again": "a password of the one before"}
        assert (await anybody.get(f"/onboarding/{invitation}")).status_code == 410
        assert (await anybody.post(f"/onboarding/{invitation}", data=form)).status_code == 410
    await bob.leave()
    stranger = tenant.operator("bob")
    with pytest.raises(PermissionError):
        await stranger.connect()
    await stranger.leave()
    assert before is not None
    async with domain_of(system) as services:
        with pytest.raises(NotFoundError):
            await accounts.change_password(services, name, "of the one before", incarnation=before.incarnation)
    assert await api.owner("1") is None
    assert (await api.http.get("/rooms/sales")).json()["members"] == []
    bob = tenant.operator("bob", password="another-pw")
    async with bob:
        # the chat is for both now: what is said from here on, and what nobody has answered
        await api.write("1", "For whoever is there")
        await bob.reads("For whoever is there")
        await carol.reads("For whoever is there")
        assert "For the one who was here" not in {message.body for message in bob.messages}


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[World]:
    """Another process on the same database."""
    async with make_world(database_url) as made:
        yield made


async def _reborn(services: Services, world: World) -> Tenant:
    """The tenant is destroyed and made again, within no time."""
    await world.enter("acme", TenantState.DESTROYING)
    async with services.database.write() as session:
        await session.execute(update(Operation).values(state=OperationState.SUCCEEDED, due_at=None))
        await incarnations.forget(services, session, "acme", _PANEL)
    await registry.put(services, "acme", TenantSpec({}), _PANEL)
    return await registry.get(services, "acme")


async def test_what_another_process_knows_opens_no_successor(world: World, other: World) -> None:
    services = world.services
    await world.open_tenant("acme")
    _, presented = await tokens.create(
        services, name="product", scope=Scope.TENANT, instance_name="acme", created_by="panel"
    )
    assert await tokens.check(other.services, presented)
    token = await tokens.check(other.services, presented)
    assert token is not None
    caller = Caller(token.name, token.scope, token.instance_name, token.incarnation)
    await reads_tenant(caller, other.services, "acme")
    await _reborn(services, world)
    assert await tokens.check(other.services, presented), "it is known for a moment more"
    for opens in (reads_tenant, reads_history):
        with pytest.raises(NotFoundError):
            await opens(caller, other.services, "acme")
    # who acts holds the tenant, which is not open before all memories are over
    assert TENANT_SECONDS < incarnations.NAME_RESTS
    world.clock.now += incarnations.NAME_RESTS
    other.clock.now += incarnations.NAME_RESTS
    with pytest.raises(NotFoundError):
        await acts_for_tenant(caller, other.services, "acme")
    assert await tokens.check(other.services, presented) is None


async def test_no_two_tenants_of_a_name_sign_with_the_same_key(world: World) -> None:
    await world.open_tenant("acme")
    seen: list[int] = []
    for _ in range(2):
        # a key is made of the name and this number, and a new one of the next
        first = (await registry.get(world.services, "acme")).signing_version
        assert first > max(seen, default=0)
        seen += [first, first + 1]
        async with world.services.database.write() as session:
            (await session.get_one(Tenant, "acme")).signing_version = first + 1
        await _reborn(world.services, world)


async def test_a_successor_is_made_when_all_memories_of_the_former_are_over(world: World) -> None:
    await world.open_tenant("acme")
    await _reborn(world.services, world)
    (operation, *_) = await operations.find(world.services.database, instance_name="acme")
    assert operation.due_at == world.clock() + incarnations.NAME_RESTS


async def test_what_came_after_the_end_is_not_there_for_the_next(world: World) -> None:
    """A link, a presence, a message that came back: written by who did not know yet that the tenant is gone."""
    services, now = world.services, world.clock()
    await world.open_tenant("acme")
    await world.enter("acme", TenantState.DESTROYING)
    async with services.database.write() as session:
        await incarnations.forget(services, session, "acme", _PANEL)
    visitor, bob = AccountName(AccountKind.VISITOR, "1", "acme"), AccountName(AccountKind.OPERATOR, "bob", "acme")
    await bounces.store(
        services, [Returned("r1", "m1", visitor, bob, "words", "not-acceptable", None, host="localhost")]
    )
    async with services.database.write() as session:
        assert await session.get(ReturnedMessage, 1) is None
        session.add(OperatorPresence(username="bob.acme", instance_name="acme", online=True, due_at=now, pending="x"))
        session.add(
            OneTimeLink(
                digest="d", purpose=Purpose.ONBOARDING, instance_name="acme", operator="bob", created_by="x",
                created_at=now, expires_at=now + 60,
            )
        )  # fmt: skip
    await registry.put(services, "acme", TenantSpec({}), _PANEL)
    async with services.database.read() as session:
        assert await session.get(OperatorPresence, "bob.acme") is None
        assert await session.get(OneTimeLink, "d") is None
    assert await operator_presence.online_operators(services.database) == []


async def test_an_invitation_is_for_one_account_alone(world: World) -> None:
    services = world.services
    await world.open_tenant("acme")
    bob = AccountName(AccountKind.OPERATOR, "bob", "acme")
    with pytest.raises(NotFoundError):
        await one_time_links.make_onboarding(services, "acme", "bob", _PANEL)
    for number in range(2):
        await rows.adopt(services, "acme", [bob])
        secret = await one_time_links.make_onboarding(services, "acme", "bob", _PANEL)
        assert await one_time_links.find(services, Purpose.ONBOARDING, secret), number
        async with services.database.write() as session:
            await session.delete(await session.get_one(Account, "bob.acme"))
        assert await one_time_links.find(services, Purpose.ONBOARDING, secret) is None
        await rows.adopt(services, "acme", [bob])
        assert await one_time_links.find(services, Purpose.ONBOARDING, secret) is None
        assert await one_time_links.take(services, Purpose.ONBOARDING, secret) is None


async def test_commands_that_waited_are_not_for_the_successor(world: World) -> None:
    services, seconds = world.services, 100.0
    await world.open_tenant("acme")
    lives = Lives(services, monotonic=lambda: seconds)
    former = (await registry.get(services, "acme")).incarnation
    said = {"instance_name": "acme", "username": "visitor.1.acme"}
    message = {**said, "operator": "bob.acme", "body": "words", "message_id": "m"}
    await lives.learn(["acme", "nobody"])
    assert lives.concerns(SendMessage(**message, incarnation=former))
    assert lives.concerns(SendMessage(**message)), "as a version before sends it"
    assert not lives.concerns(SendMessage(**{**message, "instance_name": "nobody"}, incarnation=former))
    assert lives.concerns(CloseVisitor(instance_name="nobody", username="visitor.1.nobody", incarnation=former))
    present = (await _reborn(services, world)).incarnation
    # learned again before the successor can have an operator
    seconds += incarnations.NAME_RESTS
    await lives.learn(["acme"])
    assert not lives.concerns(SendMessage(**message, incarnation=former))
    assert not lives.concerns(CloseVisitor(**said, incarnation=former))
    assert lives.concerns(SendMessage(**message, incarnation=present))
    await _reborn(services, world)
    await lives.refresh()
    assert not lives.concerns(SendMessage(**message, incarnation=present))


async def _what_opens(api: TenantApi, keys: list[str], invitation: str) -> list[str]:
    """What opens of that which the tenant was issued that there was."""
    old = api.tenant
    answers = {f"the token at '{path}'": await api.http.get(path) for path in ("", "/chats", "/operations", "/audit")}
    answers["the token's page view"] = await api.http.post("/visitors/7/pageviews", json={"nick": "Old"})
    for key in keys:
        lhc = Lhc(old.name, base=old.lhc_url, secret_key=key, host=old.host)
        answers[f"the key {key}"] = await lhc.new_visitor("visitor.8", "0123456789abcdef0123")
    async with httpx.AsyncClient(base_url=old.system.endpoints["api"], timeout=10) as anybody:
        answers["the invitation"] = await anybody.get(f"/onboarding/{invitation}")
    return [what for what, answer in answers.items() if answer.status_code not in {401, 403, 404, 410}]


async def _rotated(panel: Panel, name: str, key: str) -> str:
    """A new key of the tenant's, once it opens; asked for as if for the first time."""
    headers = {"Idempotency-Key": key}
    answer = await panel.http.post(f"/v1/tenants/{name}/rotate-keys", json={"overlap_seconds": 3600}, headers=headers)
    rotated = answer.json()
    await panel.finished(rotated["operation"]["id"])
    return str(rotated["secret_key"])


async def _waits(api: TenantApi) -> bool:
    deliveries = (await api.http.get("/deliveries")).json()["deliveries"]
    return any(one["attempts"] and one["state"] == "pending" for one in deliveries)


async def _is_owned(api: TenantApi, chat_id: str) -> bool:
    return await api.owner(chat_id) == "bob"
