"""The same calls to ejabberd's own XML-RPC and to ours: answers of the same shape, faults of the same code.

Where ejabberd itself speaks otherwise, ours are held to what was recorded of one that speaks as the extension does.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest

from bench.testbed.chat_server import ChatServer
from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import System
from tests.world.rpc import SPEAKS_AS_THE_EXTENSION, Rpc, as_recorded, post, recorded, shape
from tests.world.tenant import Tenant

HOST = "localhost"
NAME = "contract"
PASSWORD = "operator-pw"

ACCOUNT = {"host": HOST, "user": f"bob.{NAME}"}
NOBODY = {"host": HOST, "user": f"nobody.{NAME}"}
VISITORS = {"host": HOST, "group": f"visitors.{NAME}"}
OPERATORS = {"host": HOST, "group": f"operators.{NAME}"}
MEMBER = {"user": f"bob.{NAME}", "host": HOST, "group": f"operators.{NAME}", "grouphost": HOST}
MESSAGE = {"type": "chat", "from": f"visitor.1.{NAME}@{HOST}", "to": f"bob.{NAME}@{HOST}", "subject": "", "body": "hi"}
PRESENCE = "\n <presence><status>S</status><nick xmlns='http://jabber.org/protocol/nick'>N</nick></presence>\n"
STANZA = {**ACCOUNT, "resource": "desk", "stanza": PRESENCE}

Step = tuple[str, Mapping[str, object]]

BEFORE: list[Step] = [
    ("srg_get_info", VISITORS),
    ("srg_create", {**VISITORS, "name": "Visitors", "description": "Visitors of LHC", "display": ""}),
    (
        "srg_create",
        {
            **OPERATORS,
            "name": "Operators",
            "description": "Operators of LHC",
            "display": f"operators.{NAME}\\nvisitors.{NAME}",
        },
    ),
    ("srg_create", {**VISITORS, "name": "Visitors", "description": "again", "display": ""}),
    ("srg_get_info", VISITORS),
    ("srg_get_info", OPERATORS),
    ("register", {**ACCOUNT, "password": "before"}),
    ("register", {**ACCOUNT, "user": f"bo b.{NAME}", "password": "x"}),
    ("register", {**ACCOUNT, "host": "xmpp.example", "password": "x"}),
    ("register", {**NOBODY, "password": ""}),
    ("srg_user_add", MEMBER),
    ("srg_user_add", MEMBER),
    ("srg_user_add", {**MEMBER, "user": f"nobody.{NAME}"}),
    ("change_password", {**ACCOUNT, "newpass": PASSWORD}),
    ("change_password", {**ACCOUNT, "newpass": ""}),
    ("change_password", {**NOBODY, "newpass": PASSWORD}),
    ("user_sessions_info", ACCOUNT),
    ("user_sessions_info", NOBODY),
    ("send_stanza_c2s", STANZA),
    ("send_message", MESSAGE),
    ("send_message", {**MESSAGE, "from": f"VISITOR.1.{NAME}@{HOST}"}),
    ("send_message", {**MESSAGE, "to": f"nobody.{NAME}@{HOST}"}),
    ("send_message", {**MESSAGE, "from": "@@"}),
    ("send_message", {**MESSAGE, "to": ""}),
    # what is no such call
    ("register", ACCOUNT),
    ("register", {**ACCOUNT, "password": "x", "newpass": "x"}),
    ("register", {**ACCOUNT, "password": 5}),
    ("register", {**ACCOUNT, "password": ["x"]}),
    ("unregister", {}),
]
ONLINE: list[Step] = [
    ("user_sessions_info", ACCOUNT),
    ("send_stanza_c2s", STANZA),
    ("send_stanza_c2s", {**STANZA, "stanza": "<presence"}),
    ("send_stanza_c2s", {**STANZA, "resource": "phone"}),
    ("send_message", MESSAGE),
]
AFTER: list[Step] = [
    ("srg_user_del", MEMBER),
    ("srg_user_del", MEMBER),
    ("srg_user_del", {**MEMBER, "user": f"nobody.{NAME}"}),
    ("unregister", ACCOUNT),
    ("unregister", ACCOUNT),
    ("unregister", {**ACCOUNT, "host": "xmpp.example"}),
    ("srg_delete", VISITORS),
    ("srg_delete", VISITORS),
    ("srg_delete", OPERATORS),
    ("srg_delete", OPERATORS),
    ("srg_get_info", VISITORS),
    ("srg_get_info", OPERATORS),
]


@dataclass
class Side:
    """One of the two who answer."""

    rpc: Rpc
    operator: Callable[[], AbstractAsyncContextManager[Operator]]

    async def shapes(self, steps: list[Step]) -> list[tuple[Step, object]]:
        """What each call is answered, in order."""
        return [(step, shape(await self.rpc.answer(*step))) for step in steps]

    async def told(self) -> list[object]:
        """What it answers to all the calls."""
        before = await self.shapes(BEFORE)
        async with self.operator():
            online = await self.shapes(ONLINE)
        return as_recorded([*before, *online, *await self.shapes(AFTER)])


@pytest.fixture(scope="module")
async def theirs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Side]:
    """Ejabberd itself, with an account whose password opens its XML-RPC."""
    server = ChatServer(tmp_path_factory.mktemp("contract"), {}, xml_rpc=True)
    try:
        await server.start()
        await server.command("register", user="admin", host=HOST, password=PASSWORD)

        @asynccontextmanager
        async def operator() -> AsyncIterator[Operator]:
            async with server.operator(f"bob.{NAME}") as bob:
                await bob.taken()
                yield bob

        yield Side(Rpc(server.rpc_url, "admin", HOST, PASSWORD), operator)
    finally:
        await server.kill()


@pytest.fixture(scope="module")
async def ours(system: System, receiver: Receiver, panel: Panel) -> Side:
    @asynccontextmanager
    async def operator() -> AsyncIterator[Operator]:
        tenant = Tenant(system, receiver, panel, {"instance_name": NAME, "secret_key": ""})
        async with tenant.operator("bob", password=PASSWORD) as bob:
            await bob.taken()
            yield bob

    return Side(Rpc.hosting(system), operator)


async def test_the_same_calls_are_answered_in_the_same_shapes(ours: Side) -> None:
    """Types, names, their order, and the codes of faults."""
    assert await ours.told() == recorded("accounts")


@pytest.mark.skipif(not SPEAKS_AS_THE_EXTENSION, reason="this ejabberd's own XML-RPC is another one")
async def test_what_was_recorded_is_what_ejabberd_answers(theirs: Side) -> None:
    assert await theirs.told() == recorded("accounts")


@pytest.mark.parametrize("wrong", [{"password": "wrong"}, {"user": "nobody"}, {"server": "xmpp.example"}], ids=repr)
async def test_wrong_credentials_are_the_same_fault(ours: Side, theirs: Side, wrong: dict[str, str]) -> None:
    faults = []
    for side in (ours, theirs):
        rpc = Rpc(side.rpc.url, host=HOST, user="x", password="x")
        rpc.credentials = {**side.rpc.credentials, **wrong}
        faults.append(await rpc.fault("user_sessions_info", ACCOUNT))
    assert faults[0] == faults[1] == (-118, "Error -118\nInvalid authentication data")


ANN = {"host": HOST, "user": f"ann.{NAME}", "password": PASSWORD}
STAFF = {"user": f"ann.{NAME}", "host": HOST, "group": "staff", "grouphost": HOST}
"""A group that is no roster of a tenant."""


async def test_where_we_differ_on_purpose(tenant: Tenant) -> None:
    own = Rpc(f"{tenant.lhc_url}/rpc", tenant.name, HOST, tenant.key)
    user = {"user": f"ann.{tenant.name}"}
    for _ in range(2):
        assert (await own.call("register", ANN | user))["res"] == 0
    assert (await own.fault("srg_user_add", STAFF | user))[0] == -118


@pytest.mark.skipif(not SPEAKS_AS_THE_EXTENSION, reason="this ejabberd's own XML-RPC is another one")
async def test_there_ejabberd_differs_from_us(theirs: Side) -> None:
    """So that it is seen when it begins to do as we do."""
    assert (await theirs.rpc.call("register", ANN))["res"] == 0
    code, text = await theirs.rpc.fault("register", ANN)
    assert (code, "already registered" in text) == (-118, True)
    assert await theirs.rpc.call("srg_user_add", STAFF) == {"res": 0}


async def test_both_answer_as_xml_with_200(ours: Side, theirs: Side) -> None:
    for side in (ours, theirs):
        answer = await post(side.rpc.url, b"<methodCall><methodName>register</methodName><params/></methodCall>")
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/xml")
