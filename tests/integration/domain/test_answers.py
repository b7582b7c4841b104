"""Answers of tenants' servers, however broken: a status that was read counts. And where they come from no LHC."""

from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest
from pydantic import SecretStr

from config.settings import Settings
from tenants.conversations import operator_messages
from tenants.conversations.reports import OperatorMessage
from tenants.core.errors import InvalidInputError
from tenants.core.naming import AccountKind, AccountName
from tenants.delivery import circuits, history
from tenants.delivery.circuits import CircuitState
from tenants.delivery.claim_work import claim_next
from tenants.delivery.worker import deliver
from tenants.lifecycle import registry, requests
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.registry import TenantSpec
from tenants.outbound.lhc import LhcClient
from tenants.outbound.poster import Answer
from tenants.outbound.webhooks import WebhookClient, signing_key
from tenants.status.diagnostics import WrongError, check_tenant
from tenants.store.models import CallbackMessage, MessageState, Tenant
from tests.world.odd_server import ANSWERS, OddServer, odd_server
from tests.world.registry import Clock, World

SETTINGS = Settings(
    signing_master_key=SecretStr("master"), webhook_networks=(ip_network("127.0.0.0/8"),), callback_timeout=0.3
)
KEY = signing_key(SETTINGS, "acme", 1)
NO_ADDRESS = "callback_url: must be given: the tenant's name holds two dashes in a row"
WORDS = "what the operator wrote"


@pytest.fixture
async def server() -> AsyncIterator[OddServer]:
    async with odd_server() as server:
        yield server


async def answers(kind: str, server: OddServer, times: int = 1) -> list[Answer]:
    """To a message and a presence in LHC's format, and to a webhook; each so many times."""
    lhc, webhooks = LhcClient(SETTINGS, Clock()), WebhookClient(SETTINGS, Clock())
    url = f"{server.url}/{kind}"
    try:
        return [
            answer
            for _ in range(times)
            for answer in (
                await lhc.post_message(url, WORDS.encode()),
                await lhc.post_status(url, '{"action":"ping"}'),
                await webhooks.post(url, event_id="evt_1", body=b"{}", keys=[KEY]),
            )
        ]
    finally:
        await lhc.close()
        await webhooks.close()


@pytest.mark.parametrize("kind", ANSWERS)
async def test_a_status_that_was_read_counts(kind: str, server: OddServer) -> None:
    status = ANSWERS[kind].status
    for answer in await answers(kind, server, times=2):
        assert answer.http_status == status
        if status is None:
            assert answer.error
        elif status < 300:
            assert answer.error is None
        else:
            assert (answer.error or "").startswith(f"HTTP {status}")
    # after a 500 LHC is asked whether it takes anything, for each of its four calls
    assert server.asked[kind] == (10 if status == 500 else 6)


async def test_what_is_said_of_an_answer_repeats_nothing_of_it(server: OddServer) -> None:
    told = {
        kind: await answers(kind, server) for kind in ("chunk-garbage", "bad-header-name", "another-protocol", "page")
    }
    said = str([(answer.error, answer.warning) for some in told.values() for answer in some])
    assert not any(word in said for word in ("Powered", "ESMTP", "Welcome", server.url))


async def test_what_is_strange_about_an_answer_that_counts_is_a_warning(server: OddServer) -> None:
    async def of(kind: str) -> list[str | None]:
        return [answer.warning for answer in await answers(kind, server)]

    assert await of("control") == [None] * 3
    (message, status, webhook) = await of("page")
    assert (
        message == status == "a web page with a title came back, not LHC's empty answer: is callback_url LHC's address?"
    )
    assert webhook is None, "what a webhook's receiver answers is its own affair"
    assert (await of("php-error"))[0] == "PHP reports a fatal error: LHC may not have kept it"
    assert (await of("truncated"))[2] == "received, but the answer ended early, or breaks the rules of HTTP"
    assert (await of("hangs-after-head"))[2] == "received, but no end of the answer within 0.3 s"


BOB = AccountName(AccountKind.OPERATOR, "bob", "acme")


async def write(world: World, body: str, visitor: int = 1, instance: str = "acme") -> CallbackMessage:
    """Bob writes, and what is due is done. Returns what is known of his message."""
    bob = AccountName(AccountKind.OPERATOR, "bob", instance)
    receiver = AccountName(AccountKind.VISITOR, str(visitor), instance)
    number = len(await history.messages(world.services.database, instance))
    told = OperatorMessage(f"{instance}-{number}", bob, receiver, body, host="localhost")
    await operator_messages.store_messages(world.services, [told])
    while piece := await claim_next(world.services, instance):
        await deliver(world.services, piece)
    return (await history.messages(world.services.database, instance))[-1]


async def test_a_web_page_in_lhcs_place_is_told_everywhere_and_posted_to_once(world: World, server: OddServer) -> None:
    await world.open_tenant("acme", callback_url=f"{server.url}/page/index.php")
    message = await write(world, "hello")
    assert message.state is MessageState.DELIVERED
    assert server.paths == ["/page/index.php/xmppservice/processmessage"]
    _, (attempt,) = await history.message(world.services.database, "acme", message.id)
    assert "a web page with a title" in (attempt.warning or "")
    async with world.services.database.read() as session:
        assert await history.latest_warning(session, "acme") == attempt.warning
    with pytest.raises(WrongError, match="a web page with a title") as wrong:
        await check_tenant(world.services, "acme")
    assert "callback_url" in wrong.value.advice
    await registry.put(world.services, "acme", TenantSpec({"callback_url": server.url}), Cause("test"))
    await write(world, "control", visitor=2)
    async with world.services.database.read() as session:
        assert await history.latest_warning(session, "acme") is None


async def test_doctor_asks_for_lhcs_page_itself(world: World, server: OddServer) -> None:
    await world.open_tenant("acme")

    async def found(kind: str) -> str:
        url = f"{server.url}/{kind}/xmppservice/operatorstatus/?a=b#c"
        await registry.put(world.services, "acme", TenantSpec({"callback_url": url}), Cause("test"))
        return await check_tenant(world.services, "acme")

    for kind, says in (("302", "XMPP extension is disabled"), ("404", "no such page"), ("410", "given up")):
        with pytest.raises(WrongError, match=says):
            await found(kind)
    assert "answers (200" in await found("control")
    assert server.paths == [f"/{kind}/xmppservice/processmessage?a=b" for kind in ("302", "404", "410", "control")]


async def test_a_tenant_whose_name_gives_no_address_needs_one(world: World, server: OddServer) -> None:
    for name in ("a--b", "xn--acme"):
        for make in (registry.put, registry.create):
            with pytest.raises(InvalidInputError, match=NO_ADDRESS):
                await make(world.services, name, TenantSpec(), Cause("test"))
        await world.open_tenant(name, callback_url=server.url)
        with pytest.raises(InvalidInputError, match=NO_ADDRESS):
            await registry.put(world.services, name, TenantSpec({"callback_url": None}), Cause("test"))
        with pytest.raises(InvalidInputError, match=NO_ADDRESS):
            await requests.change_address(world.services, name, Cause("test"), None)


async def test_one_that_is_there_already_is_shown_and_loses_nothing(world: World, server: OddServer) -> None:
    await world.open_tenant("a--b", callback_url=server.url)
    async with world.services.database.write() as session:
        (await session.get_one(Tenant, "a--b")).callback_url = None
    message = await write(world, "control", instance="a--b")
    assert (message.state, message.last_error) == (
        MessageState.PENDING,
        "the tenant's name gives no address, since a part of it would be empty: set its callback_url",
    )
    with pytest.raises(WrongError) as wrong:
        await check_tenant(world.services, "a--b")
    assert wrong.value.advice == "set its callback_url"
    # other settings can be changed as before
    await registry.put(world.services, "a--b", TenantSpec({"idle_hours": 3}), Cause("test"))
    await registry.put(world.services, "a--b", TenantSpec({"callback_url": server.url}), Cause("test"))
    world.clock.now += 60
    message = await write(world, "control", instance="a--b")
    assert message.state is MessageState.DELIVERED
    assert (await circuits.view(world.services, "a--b")).state is CircuitState.CLOSED
