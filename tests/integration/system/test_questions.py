"""What clients ask of contacts (XEP-0012, 0030, 0054, 0092, 0199, 0202), asked of visitors; what discovery names."""

import itertools
from xml.etree import ElementTree as ET

from bench.testbed.operator import Operator
from bench.testbed.waiting import until
from tests.world.tenant import NewTenant, Tenant
from tests.world.visitors import HOST, new_visitor

PASSWORD = "0123456789abcdef0123"
INFO, ITEMS = "http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/disco#items"
QUESTIONS = [
    "<ping xmlns='urn:xmpp:ping'/>",
    "<query xmlns='jabber:iq:version'/>",
    "<query xmlns='jabber:iq:last'/>",
    "<time xmlns='urn:xmpp:time'/>",
    "<vCard xmlns='vcard-temp'/>",
    f"<query xmlns='{INFO}'/>",
    f"<query xmlns='{ITEMS}'/>",
]
NOT_SUPPORTED = "The visitor's client does not support this"
_numbers = itertools.count(1)


async def ask(client: Operator, to: str, question: str, kind: str = "get") -> ET.Element:
    """The answer to a query."""
    stanza_id = f"question-{next(_numbers)}"
    client.send_raw(f"<iq type='{kind}' id='{stanza_id}' to='{to}'>{question}</iq>")
    # a list, as an element without children is false
    (answer,) = await until(
        lambda: [one for one in client.stanzas if one.get("id") == stanza_id], f"{to} answers {question}"
    )
    return answer


async def outcomes(client: Operator, to: str) -> set[str]:
    """What became of all the questions: `result`, or conditions of errors."""
    answers = [await ask(client, to, question) for question in QUESTIONS]
    return {
        "result" if answer.get("type") == "result" else answer.find("{jabber:client}error")[0].tag.rpartition("}")[2]  # type: ignore[index]
        for answer in answers
    }


def text_of(answer: ET.Element) -> str | None:
    """What is said in an error."""
    return answer.findtext("{jabber:client}error/{urn:ietf:params:xml:ns:xmpp-stanzas}text")


def features(answer: ET.Element) -> set[str]:
    return {feature.get("var", "") for feature in answer.iter(f"{{{INFO}}}feature")}


async def test_a_visitor_who_is_shown_online_answers_as_a_contact_that_is_there(
    tenant: Tenant, new_tenant: NewTenant
) -> None:
    bob = await tenant.operator_online()
    eve = await (await new_tenant()).operator_online("eve")
    visitor, absent = (f"{tenant.lhc.name(one)}@{HOST}" for one in ("visitor.1", "visitor.2"))
    await tenant.lhc.new_visitor("visitor.1", PASSWORD, nick="John")
    seen = await bob.sees(tenant.lhc.name("visitor.1"))
    for address in (visitor, seen.jid):
        assert await outcomes(bob, address) == {"result"}
        assert await outcomes(eve, address) == {"forbidden"}
        info = await ask(bob, address, QUESTIONS[5])
        assert {"urn:xmpp:ping", "jabber:iq:version", INFO} <= features(info)
        unknown = await ask(bob, address, f"<query xmlns='{INFO}' node='x'/>")
        assert unknown.find("{jabber:client}error/*") is not None
        refused = await ask(bob, address, "<query xmlns='jabber:iq:version'/>", kind="set")
        assert refused.get("type") == "error"
        strange = await ask(bob, address, "<query xmlns='urn:unheard:of'/>")
        assert [text_of(answer) for answer in (refused, strange)] == [NOT_SUPPORTED] * 2
    assert [item.get("jid") for item in (await ask(bob, visitor, QUESTIONS[6])).iter(f"{{{ITEMS}}}item")] == [seen.jid]
    card = await ask(bob, seen.jid, QUESTIONS[4])
    assert card.findtext("{vcard-temp}vCard/{vcard-temp}FN") == "John"
    assert await outcomes(bob, f"{visitor}/another") == {"service-unavailable"}
    assert text_of(await ask(bob, f"{visitor}/another", QUESTIONS[0])) == "The visitor is not there"
    for address in (absent, f"{absent}/lhc"):
        assert await outcomes(bob, address) == {"service-unavailable"}

    await tenant.lhc.call("/xmpp-unregister", user=tenant.lhc.name("visitor.1"), host=HOST)
    await bob.sees(tenant.lhc.name("visitor.1"), kind="unavailable")
    for address in (visitor, seen.jid):
        assert await outcomes(bob, address) == {"service-unavailable"}


async def test_a_browser_is_answered_for(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    async with await new_visitor(tenant) as browser:
        await browser.present("John", "page 1")
        await bob.sees(tenant.lhc.name("visitor.1"))
        for address in (browser.jid, browser.jid.partition("/")[0]):
            assert await outcomes(bob, address) == {"result"}
        assert "question" not in {(one.get("id") or "").partition("-")[0] for one in browser.stanzas}
    await bob.sees(tenant.lhc.name("visitor.1"), kind="unavailable")
    assert await outcomes(bob, browser.jid) == {"service-unavailable"}
    bare = browser.jid.partition("/")[0]
    assert (await ask(bob, bare, QUESTIONS[4])).get("type") == "result", "the vCard is kept"
    assert (await ask(bob, bare, QUESTIONS[5])).get("type") == "error"


async def test_discovery_names_nothing_that_is_forbidden(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    service = f"conference.{HOST}"
    services = {str(item.get("jid")) for item in (await ask(bob, HOST, QUESTIONS[6])).iter(f"{{{ITEMS}}}item")}
    assert services == {service}
    for address in (HOST, service):
        # that there are rooms is no protocol of queries
        for feature in features(await ask(bob, address, QUESTIONS[5])) - {"http://jabber.org/protocol/muc"}:
            answer = await ask(bob, address, f"<query xmlns='{feature}'/>")
            error = answer.find("{jabber:client}error")
            assert error is None or not error[0].tag.endswith("}forbidden"), (address, feature)
