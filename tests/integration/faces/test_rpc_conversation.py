"""The conversations of the extension with `handler = rpc`, as they were recorded: flow by flow, against the system.

Each is held twice: in the words of Python's XML-RPC library, and in those of PHP's. The answers have the shapes of
ejabberd 23.01, which `test_rpc_contract` compares with ejabberd itself.
"""

from typing import Any

import pytest

from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import System
from tests.world.rpc import Encode, Rpc, library_request, php_request, shape
from tests.world.tenant import Tenant

HOST = "localhost"
OPERATOR_PASSWORD = "operator-pw"
PASSWORD = "0123456789abcdef0123"
CHAT_PASSWORD = "fedcba98765432100123"


def struct(**members: Any) -> dict[str, Any]:
    return {"struct": list(members.items())}


def structs(**members: str) -> list[Any]:
    """A struct for each member: how ejabberd writes a tuple."""
    return [struct(**{name: kind}) for name, kind in members.items()]


DONE = struct(res="int")
REGISTERED = struct(res="int", text="string")
ABSENT = struct(informations={"array": []})
INFORMATION = struct(information={"array": structs(key="string", value="string")})
PRESENT = struct(informations={"array": [INFORMATION] * 3})
NOBODY = struct(sessions_info={"array": []})
SESSION = struct(
    session={
        "array": [
            *structs(connection="string", ip="string", port="int", priority="int", node="string", uptime="int"),
            *structs(status="string", resource="string", statustext="string"),
        ]
    }
)


class Extension:
    """The extension of one instance: what it sends in each flow, in its order. Every answer must have its shape."""

    def __init__(self, name: str, rpc: Rpc) -> None:
        self.name = name
        self.rpc = rpc

    def user(self, local: str) -> str:
        return f"{local}.{self.name}"

    def account(self, local: str, **more: str) -> dict[str, str]:
        return {"host": HOST, "user": self.user(local), **more}

    def group(self, kind: str, **more: str) -> dict[str, str]:
        return {"host": HOST, "group": f"{kind}.{self.name}", **more}

    def member(self, local: str, kind: str) -> dict[str, str]:
        return {"user": self.user(local), "host": HOST, "group": f"{kind}.{self.name}", "grouphost": HOST}

    async def instance_created(self) -> None:
        """Each roster is asked for, and made when it is absent; which the second may be no more."""
        displayed = {"visitors": "", "operators": f"operators.{self.name}\\nvisitors.{self.name}"}
        for kind, display in displayed.items():
            told = shape(await self.rpc.answer("srg_get_info", self.group(kind)))
            assert told in [ABSENT, PRESENT]
            if told == ABSENT:
                made = self.group(
                    kind, name=kind.capitalize(), description=f"{kind.capitalize()} of LHC", display=display
                )
                assert shape(await self.rpc.answer("srg_create", made)) == DONE
        for kind in displayed:
            assert shape(await self.rpc.answer("srg_get_info", self.group(kind))) == PRESENT

    async def operator_created(self, local: str) -> None:
        account = self.account(local, password=OPERATOR_PASSWORD)
        assert shape(await self.rpc.answer("register", account)) == REGISTERED
        assert shape(await self.rpc.answer("srg_user_add", self.member(local, "operators"))) == DONE

    async def visitor_came(self, local: str, password: str) -> None:
        """A new visitor, or a new chat. It is not shown by this: the visitor's browser logs in by itself."""
        assert shape(await self.rpc.answer("register", self.account(local, password=password))) == REGISTERED
        assert shape(await self.rpc.answer("srg_user_add", self.member(local, "visitors"))) == DONE

    async def names(self, local: str, nick: str, status: str) -> int:
        """`setNick`: every session of the visitor is told its nick and status. Gives how many there were."""
        answer = await self.rpc.answer("user_sessions_info", self.account(local))
        (name, sessions), *rest = shape(answer)["struct"]
        assert (name, rest) == ("sessions_info", [])
        assert all(session == SESSION for session in sessions["array"])
        told = await self.rpc.call("user_sessions_info", self.account(local))
        stanza = (
            f"\n        <presence>\n          <status>{status}</status>\n"
            f"          <nick xmlns='http://jabber.org/protocol/nick'>{nick}</nick>\n        </presence>\n"
        )
        for session in told["sessions_info"]:
            resource = session["session"][7]["resource"]
            sent = await self.rpc.answer("send_stanza_c2s", self.account(local, resource=resource, stanza=stanza))
            assert shape(sent) == DONE
        return len(told["sessions_info"])

    async def visitor_writes(self, local: str, operator: str, body: str) -> None:
        addresses = {"from": f"{self.user(local)}@{HOST}", "to": f"{self.user(operator)}@{HOST}"}
        message = {"type": "chat", **addresses, "subject": "", "body": body}
        assert shape(await self.rpc.answer("send_message", message)) == DONE

    async def account_ended(self, local: str, kind: str) -> None:
        assert shape(await self.rpc.answer("srg_user_del", self.member(local, kind))) == DONE
        assert shape(await self.rpc.answer("unregister", self.account(local))) == REGISTERED

    async def instance_destroyed(self, accounts: dict[str, str]) -> None:
        """Each roster is deleted twice, and then, one by one, all accounts that the extension knows."""
        for kind in ("visitors", "operators"):
            for _ in range(2):
                assert shape(await self.rpc.answer("srg_delete", self.group(kind))) == DONE
        for local, kind in accounts.items():
            await self.account_ended(local, kind)


class Instance:
    """One LHC instance of the test, with what is needed to see that each flow has had its effect."""

    def __init__(self, extension: Extension, system: System, receiver: Receiver, panel: Panel) -> None:
        self.extension = extension
        self.system = system
        self.panel = panel
        self.tenant = Tenant(system, receiver, panel, {"instance_name": extension.name, "secret_key": ""})

    async def state(self) -> str | None:
        answer = await self.panel.http.get(f"/v1/tenants/{self.extension.name}")
        return answer.json()["state"] if answer.is_success else None


@pytest.fixture(params=[library_request, php_request], ids=["library", "PHP"])
def encode(request: pytest.FixtureRequest) -> Encode:
    chosen: Encode = request.param
    return chosen


@pytest.mark.parametrize("keys", ["hosting-wide", "own"])
async def test_the_life_of_an_instance(
    system: System, receiver: Receiver, panel: Panel, encode: Encode, keys: str
) -> None:
    """From its creation to its end, with the credentials of the hosting company, and with its own."""
    name = f"rpc-{keys[:3]}-{encode.__name__[:3]}"
    rpc = Rpc.hosting(system, encode)
    if keys == "own":
        created = await panel.create(name)
        rpc = Rpc(f"{system.endpoints['api']}/t/{name}/rpc", name, HOST, created["secret_key"], encode)
    instance = Instance(Extension(name, rpc), system, receiver, panel)
    extension, tenant = instance.extension, instance.tenant

    await extension.instance_created()
    assert await instance.state() == "active"

    await extension.operator_created("bob")
    async with tenant.operator("bob") as bob:
        await receiver.status(tenant.connect_body("bob"))
        await visit(instance, bob)

    await extension.instance_destroyed({"bob": "operators", "visitor.7": "visitors", "visitor.3.chat": "visitors"})
    assert await instance.state() is None
    assert await system.users_of(name) == []
    for kind in ("visitors", "operators"):
        assert shape(await rpc.answer("srg_get_info", extension.group(kind))) == ABSENT


async def visit(instance: Instance, bob: Operator) -> None:
    """A visitor comes, begins a chat, writes and is written to, changes the name and goes."""
    extension, receiver = instance.extension, instance.tenant.receiver
    visitor, chat = extension.user("visitor.7"), extension.user("visitor.3.chat")

    await extension.visitor_came("visitor.7", PASSWORD)
    await bob.has_contact(visitor)
    async with instance.tenant.operator("visitor.7", resource="browser", password=PASSWORD) as browser:
        await browser.taken()
        assert await extension.names("visitor.7", "Online visitor", "Kainos &amp; &lt;kita&gt;") == 1
    assert await extension.names("visitor.8", "Nobody", "-") == 0

    # chat started: an account of its own, which is named before it is shown, and the first message
    await extension.visitor_came("visitor.3.chat", CHAT_PASSWORD)
    await bob.has_contact(chat)
    assert await extension.names("visitor.3.chat", "Jonas #3", "first page") == 1
    await extension.visitor_writes("visitor.3.chat", "bob", 'Sveiki! 5 < 6 & "7" 👋\nantra eilutė')
    assert (await bob.reads('Sveiki! 5 < 6 & "7" 👋\nantra eilutė')).username == chat
    await bob.sees(chat, nick="Jonas #3", status="first page")

    # nick changed
    assert await extension.names("visitor.3.chat", "Jonas &lt;J&gt; #3", "first page\n| second page") == 1
    await bob.sees(chat, nick="Jonas <J> #3", status="first page\n| second page")

    # messages both ways, in order
    for number in range(3):
        await extension.visitor_writes("visitor.3.chat", "bob", f"question {number}")
        await bob.reads(f"question {number}")
        answer = f"answer {number} from {extension.name}"
        bob.write(chat, answer)
        callback = await receiver.message(answer)
        assert (callback.form["sender"], callback.form["receiver"]) == (extension.user("bob"), chat)
    questions = [seen.body for seen in bob.messages if seen.body.startswith("question")]
    assert questions == ["question 0", "question 1", "question 2"]

    # chat closed, and once more: its cleanup may meet it again
    for _ in range(2):
        await extension.account_ended("visitor.3.chat", "visitors")
    await bob.has_no_contact(chat)
    await bob.sees(chat, kind="unavailable")
    assert await instance.system.users_of(extension.name) == [extension.user("bob"), visitor]
