"""One tenant's people and another's: nothing that is sent arrives, and nothing that is answered tells who is there."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self
from xml.etree import ElementTree as ET

import pytest

from bench.testbed.browser import Browser
from bench.testbed.chat_server import ChatServer
from bench.testbed.operator import Operator
from tests.world.component import Component
from tests.world.hostile_client import Client, send, send_all
from tests.world.hostile_stanzas import WORD, stanza

HOST = "localhost"
ROOMS = f"conference.{HOST}"


@dataclass
class People:
    """A tenant with two operators, one of them in its room, and a visitor's browser."""

    tenant: str
    bob: Operator
    ann: Operator
    browser: Browser

    @property
    def room(self) -> str:
        return f"team.{self.tenant}@{ROOMS}"

    @classmethod
    async def of(cls, tenant: str, server: ChatServer, stack: AsyncExitStack) -> Self:
        for operator in ("bob", "ann"):
            await server.new_operator(f"{operator}.{tenant}")
        await server.new_visitor(f"visitor.2.chat.{tenant}")
        await server.command("lhc_make_rooms", host=HOST, rooms=[{"name": f"team.{tenant}", "title": "The team"}])
        browser = await stack.enter_async_context(await server.new_visitor(f"visitor.1.{tenant}"))
        bob = await stack.enter_async_context(server.operator(f"bob.{tenant}"))
        ann = await stack.enter_async_context(server.operator(f"ann.{tenant}"))
        await browser.present("John", "-")
        made = cls(tenant, bob, ann, browser)
        await bob.join(made.room, "Bob")
        await bob.sees(f"visitor.1.{tenant}")
        return made

    async def settle(self, word: str) -> None:
        """Nothing is under way to any of them: what was sent before has arrived before this."""
        self.ann.write(f"bob.{self.tenant}", word)
        self.bob.write(f"ann.{self.tenant}", word)
        self.bob.write(f"visitor.1.{self.tenant}", word)
        self.bob.write(self.room, word, kind="groupchat")
        await self.bob.hears(self.room, word)
        await self.bob.reads(word)
        await self.ann.reads(word)
        await self.browser.reads(f"shown: {word}")  # as the component's end says it

    def heard(self) -> list[str]:
        """All that any of them was sent."""
        return [ET.tostring(one, encoding="unicode") for c in (self.bob, self.ann, self.browser) for one in c.stanzas]


@pytest.fixture(scope="module")
async def people(chat_server: ChatServer) -> AsyncIterator[tuple[People, People, Component]]:
    """The hostile ones, their victims, and the orchestrator's end of the bridge."""
    async with AsyncExitStack() as stack:
        component = await stack.enter_async_context(Component(chat_server))
        yield (
            await People.of("hostiles", chat_server, stack),
            await People.of("victims", chat_server, stack),
            component,
        )


VICTIMS = {
    "an operator": ("bob.victims@localhost", ("bog.victims@localhost", "bob.nowhere@localhost")),
    "an operator's client": (
        "bob.victims@localhost/desk",
        ("bog.victims@localhost/desk", "bob.victims@localhost/disk"),
    ),
    "an operator in capitals": ("BOB.VICTIMS@localhost", ("BOG.VICTIMS@localhost",)),
    "an operator in wide letters": ("ｂｏｂ.victims@localhost", ("ｂｏｇ.victims@localhost",)),
    "a visitor": ("visitor.1.victims@localhost", ("visitor.9.victims@localhost", "visitor.1.nowhere@localhost")),
    "a browser": ("visitor.1.victims@localhost/browser", ("visitor.9.victims@localhost/browser",)),
    "a chat": ("visitor.2.chat.victims@localhost", ("visitor.9.chat.victims@localhost",)),
    "a room": (f"team.victims@{ROOMS}", (f"meat.victims@{ROOMS}", f"team.nowhere@{ROOMS}")),
    "who is in a room": (f"team.victims@{ROOMS}/Bob", (f"meat.victims@{ROOMS}/Bob", f"team.victims@{ROOMS}/Bog")),
    "the orchestrator": ("victims@lhc.localhost", ("nowhere@lhc.localhost",)),
}
"""An address that there is, and others like it that there are not."""
PERHAPS = {"message of type error", "IQ: an answer", "IQ: an error", "presence error"}
"""Errors and answers are not answered."""


@pytest.mark.parametrize("sender", ["bob", "browser"])
async def test_no_stanza_reaches_another_tenant(people: tuple[People, People, Component], sender: str) -> None:
    hostiles, victims, component = people
    client: Client = getattr(hostiles, sender)
    told = len(component.handed), len(component.presences), len(component.signals)
    answers = await send_all(client, [to for there, others in VICTIMS.values() for to in (there, *others)])
    await hostiles.settle(f"{sender}: all is sent")
    await victims.settle(f"{sender}: it is quiet")
    assert [text for text in victims.heard() if WORD in text or "hostiles" in text] == []
    # only what the bridge itself tells: of `settle`
    assert [one.body for one in component.handed[told[0] :] if one.body and sender not in one.body] == []
    assert component.presences[told[1] :] == []
    assert component.signals[told[2] :] == []
    for name, (there, others) in VICTIMS.items():
        for (kind, to), answer in answers.items():
            if to in others:
                assert answer == answers[kind, there], (name, kind, to)
            if to == there and kind.startswith("IQ") and kind not in PERHAPS:
                assert len(answer) == 1, (name, kind)


async def test_no_room_carries_anything_to_another_tenant(people: tuple[People, People, Component]) -> None:
    """mod_muc sends invitations, and their refusals, to whomever they name."""
    hostiles, victims, _ = people
    for client in (hostiles.bob, hostiles.ann, hostiles.browser):
        for to in (hostiles.room, f"{hostiles.room}/Bob", ROOMS):
            for kind in ("mediated invitation", "declined invitation", "direct invitation", "extended addresses"):
                for victim in ("bob.victims@localhost", "visitor.1.victims@localhost"):
                    for message_type in ("", " type='normal'", " type='groupchat'", " type='chat'"):
                        xml = stanza(f"message: {kind}", victim, "r").replace(
                            f"to='{victim}'", f"to='{to}'{message_type}", 1
                        )
                        await send(client, xml)
        await client.taken()
    await hostiles.settle("all is sent to the room")
    await victims.settle("it is quiet still")
    assert [text for text in victims.heard() if WORD in text or "hostiles" in text] == []
