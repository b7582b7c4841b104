"""A visitor's browser: it reaches the operators of its live chat with messages, and nobody else with anything."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import pytest

from bench.testbed.browser import Browser
from bench.testbed.chat_server import ChatServer
from bench.testbed.operator import Operator
from bench.testbed.waiting import until
from tests.world.component import Component
from tests.world.hostile_client import conditions, send_all
from tests.world.hostile_stanzas import KINDS, WORD, stanza

HOST = "localhost"
_numbers = itertools.count(1)
SAID = {
    *("message of type chat", "message of type normal", "message: several bodies"),
    *(f"message: {name}" for name in ("chat state active", "chat state gone", "receipt asked for", "receipt")),
    *(f"message: {name}" for name in ("chat marker", "nick")),
}
"""What operators get of a visitor as it is."""
STRIPPED = {
    f"message: {name}"
    for name in (
        *("delayed", "the bridge's mark", "declined invitation", "extended addresses", "markup", "link", "correction"),
        *("to be stored", "encrypted", "captcha"),
    )
}
"""Of these the text alone."""
ELEMENTS = {"body", "subject", "thread", "active", "gone", "request", "received", "displayed", "nick"}
ASKED = {"IQ: ping", "IQ: roster", "IQ: information", "IQ: items", "IQ: session"}
"""What the server answers about itself or the visitor's own account."""
ANSWERED_FOR = {
    f"IQ: {question}" for question in ("ping", "last activity", "version", "time", "vCard", "information", "items")
}
"""What the bridge says for a browser that is asked by an operator."""
UNANSWERED = {"message of type error", "IQ: an answer", "IQ: an error", "presence error"}


@dataclass
class Site:
    """A tenant with an operator in its room, and two visitors' browsers."""

    tenant: str
    bob: Operator
    browser: Browser
    neighbour: Browser


@pytest.fixture
async def site(chat_server: ChatServer) -> AsyncIterator[Site]:
    tenant = f"reach{next(_numbers)}"
    await chat_server.new_operator(f"bob.{tenant}")
    await chat_server.new_operator(f"away.{tenant}")
    await chat_server.command("register", user=f"clerk.{tenant}", host=HOST, password="no operator's")
    await chat_server.command("lhc_make_rooms", host=HOST, rooms=[{"name": f"team.{tenant}", "title": "-"}])
    async with AsyncExitStack() as stack:
        bob = await stack.enter_async_context(chat_server.operator(f"bob.{tenant}"))
        browser = await stack.enter_async_context(await chat_server.new_visitor(f"visitor.1.{tenant}"))
        neighbour = await stack.enter_async_context(await chat_server.new_visitor(f"visitor.2.{tenant}"))
        for one in (browser, neighbour):
            await one.present("John", "-")
        for number in (1, 2):
            await bob.sees(f"visitor.{number}.{tenant}")
        await bob.join(f"team.{tenant}@conference.{HOST}", "Bob")
        yield Site(tenant, bob, browser, neighbour)


def texts(stanzas: Sequence[ET.Element]) -> list[str]:
    return [ET.tostring(one, encoding="unicode") for one in stanzas]


async def test_nothing_reaches_another_visitor_or_whoever_is_no_operator(site: Site, chat_server: ChatServer) -> None:
    tenant = site.tenant
    victims = [
        f"visitor.2.{tenant}@{HOST}",
        f"visitor.2.{tenant}@{HOST}/browser",
        f"visitor.9.{tenant}@{HOST}",
        f"visitor.9.{tenant}@{HOST}/browser",
        f"clerk.{tenant}@{HOST}",
        f"nobody.{tenant}@{HOST}",
        f"admin@{HOST}",
        f"team.{tenant}@conference.{HOST}",
        f"team.{tenant}@conference.{HOST}/Bob",
        f"meat.{tenant}@conference.{HOST}",
        f"conference.{HOST}",
        f"{tenant}@lhc.{HOST}",
        "somebody@xmpp.example",
    ]
    async with Component(chat_server) as component:
        answers = await send_all(site.browser, victims)
        site.bob.write(f"visitor.2.{tenant}", "it is quiet")
        site.bob.write(f"team.{tenant}@conference.{HOST}", "it is quiet", kind="groupchat")
        await site.neighbour.reads("shown: it is quiet")  # as the component's end says it
        await site.bob.hears(f"team.{tenant}@conference.{HOST}", "it is quiet")
        assert [one.body for one in component.handed if WORD in one.body] == []
        assert component.signals == []
    assert [text for text in texts(site.neighbour.stanzas) + texts(site.bob.stanzas) if WORD in text] == []
    for (kind, to), answer in answers.items():
        assert list(conditions(answer)) == ([] if kind in UNANSWERED else ["forbidden"]), (kind, to)
        assert answer == answers[kind, victims[0]], (kind, to)


async def test_operators_get_messages_and_no_more(site: Site) -> None:
    to = f"bob.{site.tenant}@{HOST}"
    before = len(site.bob.stanzas)
    for number, kind in enumerate(sorted(SAID | STRIPPED)):
        await site.browser.send_raw(stanza(kind, to, f"said-{number}"))
    answers = await send_all(site.browser, [to, f"{to}/desk"], [kind for kind in KINDS if kind not in SAID | STRIPPED])
    await site.browser.write(f"bob.{site.tenant}", "that was all")
    await site.bob.reads("that was all")
    got = [one for one in site.bob.stanzas[before:] if (one.get("from") or "").startswith("visitor.1.")]
    # the last one is that that was all
    assert [one.get("id") for one in got[:-1]] == [f"said-{number}" for number in range(len(SAID | STRIPPED))]
    assert {one.get("type", "normal") for one in got} == {"chat", "normal"}
    assert {child.tag.rpartition("}")[2] for one in got for child in one} <= ELEMENTS
    for (kind, _), answer in answers.items():
        assert list(conditions(answer)) == ([] if kind in UNANSWERED else ["forbidden"]), kind
    # who is away gets it later, who is logged in at the very moment does not matter
    await site.browser.write(f"away.{site.tenant}", "for later")
    await site.browser.taken()
    assert site.browser.errors().count("forbidden") == len([one for one in answers.values() if one])


async def test_a_browser_asks_the_server_what_a_page_needs_and_no_more(site: Site) -> None:
    own = f"visitor.1.{site.tenant}@{HOST}"
    kinds = [kind for kind in KINDS if kind.startswith("IQ")]
    answers = await send_all(site.browser, [HOST, own], kinds)
    for (kind, to), answer in answers.items():
        told = list(conditions(answer))
        if kind not in ASKED:
            assert told == ([] if kind in UNANSWERED else ["forbidden"]), (kind, to)
        else:
            assert len(told) == 1, (kind, to)
            assert told != ["forbidden"], (kind, to)
    assert list(conditions(answers["IQ: roster", own])) == ["result"]
    assert list(conditions(answers["IQ: session", own])) == ["result"]
    assert list(conditions(answers["IQ: ping", HOST])) == ["result"]
    # its own presence shows nick and status alone
    await site.browser.send_raw(
        "<presence id='p'><status>on page 2</status><nick xmlns='http://jabber.org/protocol/nick'>Jane</nick>"
        "<delay xmlns='urn:xmpp:delay' stamp='2001-01-01T00:00:00Z'/><x xmlns='http://jabber.org/protocol/muc#user'/></presence>"
    )
    await site.bob.sees(f"visitor.1.{site.tenant}", nick="Jane", status="on page 2")
    (shown,) = [one for one in site.bob.stanzas if one.findtext("{jabber:client}status") == "on page 2"]
    assert {child.tag.rpartition("}")[2] for child in shown} == {"status", "nick"}


async def test_no_contact_is_made(site: Site, chat_server: ChatServer) -> None:
    """Neither by what a browser asks of its own roster nor by what it subscribes to."""
    for kind in ("subscribe", "subscribed", "unsubscribe", "probe"):
        for to in (f"bob.{site.tenant}", f"visitor.2.{site.tenant}", f"visitor.1.{site.tenant}"):
            await site.browser.send_raw(f"<presence type='{kind}' to='{to}@{HOST}'/>")
    await site.browser.send_raw(
        "<iq type='set' id='add'><query xmlns='jabber:iq:roster'>"
        f"<item jid='bob.{site.tenant}@{HOST}' name='Bob'/></query></iq>"
    )
    await site.browser.send_raw("<iq type='get' id='contacts'><query xmlns='jabber:iq:roster'/></iq>")
    await site.browser.taken()
    (roster,) = [one for one in site.browser.stanzas if one.get("id") == "contacts"]
    assert list(roster.iter("{jabber:iq:roster}item")) == []
    left = await chat_server.command("lhc_tenant_left", host=HOST, suffix=f".{site.tenant}", groups=[])
    assert {one["kind"]: one["count"] for one in left}["contacts"] == 0
    assert [one for one in site.bob.stanzas if one.get("type") in {"subscribe", "subscribed", "probe"}] == []


async def test_operators_ask_browsers_nothing_and_only_they_refuse(site: Site, chat_server: ChatServer) -> None:
    """An error to a visitor is an operator's of its live chat; a browser would never answer, so it is answered for."""
    to = f"visitor.1.{site.tenant}@{HOST}"
    answers = await send_all(site.bob, [f"{to}/browser", f"{to}/nowhere"], [one for one in KINDS if "IQ" in one])
    for (kind, address), answer in answers.items():
        if kind not in UNANSWERED:
            is_there = address.endswith("/browser") and kind in ANSWERED_FOR
            assert list(conditions(answer)) == ["result" if is_there else "service-unavailable"], (kind, address)
    async with chat_server.operator(f"clerk.{site.tenant}", password="no operator's") as clerk:
        clerk.write_error(f"visitor.1.{site.tenant}", WORD)
        await clerk.taken()
    async with Component(chat_server):
        site.bob.write(f"visitor.1.{site.tenant}", "that was all")
        await site.browser.reads("shown: that was all")
    assert [one for one in texts(site.browser.stanzas) if WORD in one] == []


async def test_what_comes_back_to_a_browser_is_not_kept(site: Site, chat_server: ChatServer) -> None:
    """As the roster of operators may hold a name without an account: each message to it comes back."""
    ghost = f"ghost.{site.tenant}"
    group = {"group": f"operators.{site.tenant}", "grouphost": HOST}
    await chat_server.command("srg_user_add", user=ghost, host=HOST, **group)
    async with Component(chat_server) as component:
        await site.browser.write(ghost, "from the browser")
        await until(lambda: site.browser.errors() == ["service-unavailable"], "the browser is told")
        component.say(f"visitor.1.{site.tenant}", ghost, "from LHC")
        visitor = f"visitor.1.{site.tenant}"
        await until(lambda: component.bodies(visitor), "LHC is told")
        assert [one.body for one in component.handed if one.visitor == visitor] == ["from LHC"]
