"""Data that one version of ejabberd has written, and the next one goes on with: for `script/matrix upgrade`.

`begin FOLDER` makes them by the ejabberd of this machine. `go-on FOLDER` starts another machine's ejabberd on them,
finds everything, and leaves as much to the next one.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from bench.testbed.chat_server import ChatServer
from bench.testbed.operator import Operator
from bench.testbed.waiting import until
from config.ejabberd_versions import shown
from tenants.ejabberd.bulk import Kind
from tenants.ejabberd.client import Ejabberd
from tests.world.component import Component

TENANT = "acme"
BOB, ANN, VISITOR, GONE = f"bob.{TENANT}", f"ann.{TENANT}", f"visitor.1.{TENANT}", f"visitor.2.{TENANT}"
ROOM = f"team.{TENANT}"
GROUPS = [f"visitors.{TENANT}", f"operators.{TENANT}"]
VISITOR_PASSWORD = "0123456789abcdef0123"


async def begin(server: ChatServer) -> None:
    """A tenant with one of everything that ejabberd keeps."""
    for group, displayed in zip(GROUPS, ((), GROUPS), strict=True):
        await server.make_roster(group, *displayed, label=group, description="made by the first one")
    for operator in (BOB, ANN):
        await server.new_operator(operator)
    for visitor in (VISITOR, GONE):
        await server.command("register", user=visitor, host=server.host, password=VISITOR_PASSWORD)
    ejabberd = server.client()
    assert await ejabberd.bulk.add_to_roster([VISITOR, GONE], GROUPS[0]) == []
    await ejabberd.bulk.set_nicks({VISITOR: "Ana Ž", GONE: "Nobody"})
    assert await ejabberd.rooms.make({ROOM: "The team"}) == []
    await ejabberd.close()
    async with server.operator(BOB) as bob:
        await bob.has_contact(GONE)
        await bob.edit_contact(VISITOR, "My visitor", "VIP")
        await bob.remove_contact(GONE)
        await bob.taken()


async def leave(server: ChatServer, number: int) -> dict[str, Any]:
    """Let messages wait: a visitor's for an operator who is away, an operator's for the pool. Gives what is kept."""
    async with Component(server) as component:
        component.say(VISITOR, ANN, f"while you were away, {number}", once=f"away-{number}")
        await component.ask("sync")
    async with server.operator(BOB) as bob:
        for body in written(number):
            bob.write(VISITOR, body)
        await bob.taken()
    return await kept(server)


def written(number: int) -> list[str]:
    return [f"{number}, message {message}" for message in range(5)]


async def kept(server: ChatServer) -> dict[str, Any]:
    """All that ejabberd says it has of the tenant."""
    ejabberd = server.client()
    left = await ejabberd.bulk.tenant_left(f".{TENANT}", GROUPS)
    rosters = [
        [one.group, one.label, one.description, list(one.displayed), list(one.members)]
        async for one in ejabberd.bulk.shared_rosters()
    ]
    found = {
        "left": {kind: [one.count, sorted(one.names)] for kind, one in left.items() if kind is not Kind.SESSIONS},
        "rosters": rosters,
        "accounts": await ejabberd.bulk.accounts(f".{TENANT}"),
        "rooms": await ejabberd.rooms.names(f".{TENANT}"),
        "passwords": [
            await ejabberd.check_password(VISITOR, VISITOR_PASSWORD), await ejabberd.check_password(VISITOR, "another"),
        ],
    }  # fmt: skip
    await ejabberd.close()
    return found


async def find(server: ChatServer, number: int) -> None:
    """What was left is there, for people too."""
    async with server.operator(ANN) as ann:
        await ann.reads(f"while you were away, {number}")
        async with Component(server) as component:
            await until(lambda: len(component.stored) >= len(written(number)), "what waited is handed over", 30)
            assert [one.body for one in component.stored] == written(number)
            component.say(VISITOR, ANN, f"after that, {number}", once=f"after-{number}")
            await ann.reads(f"after that, {number}")
        bodies = [one.body for one in ann.messages if one.body]
        assert bodies == [f"while you were away, {number}", f"after that, {number}"]
    async with server.operator(BOB) as bob:
        await look_around(bob, server)


async def look_around(bob: Operator, server: ChatServer) -> None:
    """Contacts, as he has left them; what a visitor is called; the room."""
    contacts = await bob.contacts()
    name, groups = contacts[VISITOR]
    assert (name, "VIP" in groups) == ("My visitor", True), contacts
    assert GONE not in contacts, contacts
    assert "Ana Ž" in (await bob.vcard(VISITOR)).values()
    room = f"{ROOM}@conference.{server.host}"
    await bob.join(room, "Bob")
    bob.write(room, "still here", kind="groupchat")
    await bob.hears(room, "still here")
    bob.leave_room(room, "Bob")
    await bob.taken()


async def version(ejabberd: Ejabberd) -> str:
    """Which one runs; the client is closed."""
    try:
        return shown(await ejabberd.version())
    finally:
        await ejabberd.close()


async def main(what: str, folder: Path) -> None:
    """Do what was asked."""
    server = ChatServer(folder, {})
    await server.start()
    note = folder / "left.json"
    try:
        said = await version(server.client())
        if what == "begin":
            await begin(server)
            before: dict[str, Any] = {"number": 0}
        else:
            before = json.loads(note.read_text())
            there = await kept(server)
            assert there == before["kept"], f"{there} is there, not {before['kept']}"
            await find(server, before["number"])
            # what came of looking around in the room
            async with Component(server) as component:
                await until(lambda: component.stored and component.stored[-1].type == "left", "he has left")
            said = f"all that {before['by']} left is there in {said}"
        number = before["number"] + 1
        left = {"number": number, "by": await version(server.client()), "kept": await leave(server, number)}
        note.write_text(json.dumps(left))
    finally:
        await server.stop()
    print(said)  # noqa: T201 - for who runs it


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
