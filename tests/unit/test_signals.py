"""What operators' clients say without words: read, gathered for a moment, and told to the domain."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from bench.testbed.waiting import until
from config.settings import Settings
from tenants.conversations.reports import Receipt, Typing
from tenants.core.naming import AccountKind, AccountName, Naming
from tenants.core.text import clean
from tenants.process.services import Services, open_services
from xmpp_pool import signal_inbox, stanzas
from xmpp_pool.signal_inbox import Signals
from xmpp_pool.stanzas import CHAT_STATES_NS, RECEIPTS_NS, Signal

STATES = ["active", "composing", "paused", "inactive", "gone"]
BOB, VISITOR = "bob.acme@x/desk", "visitor.1.acme@x"


def handed(*elements: str, sender: str = BOB, receiver: str = VISITOR) -> ET.Element:
    """A signal as the bridge module hands it over."""
    return ET.fromstring(
        "<message xmlns='jabber:component:accept' from='x' to='acme@lhc.x'><forwarded xmlns='urn:xmpp:forward:0'>"
        f"<message xmlns='jabber:client' type='chat' from={quoteattr(sender)} to={quoteattr(receiver)}>"
        f"{''.join(elements)}</message></forwarded></message>"
    )


def state(name: str) -> str:
    return f"<{name} xmlns='{CHAT_STATES_NS}'/>"


def received(message_id: str) -> str:
    return f"<received xmlns='{RECEIPTS_NS}' id={quoteattr(message_id)}/>"


@given(st.none() | st.sampled_from(STATES), st.none() | st.text(st.characters()).map(clean))
def test_a_signal_is_read_exactly(name: str | None, message_id: str | None) -> None:
    # an attribute's white space is not its own (XML 1.0, 3.3.3)
    message_id = None if message_id is None else "".join(message_id.split())
    elements = ([state(name)] if name else []) + ([] if message_id is None else [received(message_id)])
    read = stanzas.read_signal(handed("<thread>t</thread>", *elements, "<x xmlns='urn:other'/>"))
    assert read == Signal(BOB, VISITOR, name == "composing" if name else None, message_id)


def test_only_the_elements_of_the_message_itself_count() -> None:
    nested = f"<x xmlns='urn:other'>{state('composing')}{received('1')}</x>"
    foreign = f"<composing xmlns='urn:other'/><received xmlns='urn:other' id='1'/><request xmlns='{RECEIPTS_NS}'/>"
    read = stanzas.read_signal(handed(nested, foreign, f"<received xmlns='{RECEIPTS_NS}'/>"))
    assert read == Signal(BOB, VISITOR, None, None)


@pytest.mark.parametrize(
    "stanza",
    [
        "<message/>",
        "<message><forwarded xmlns='urn:xmpp:forward:0'/></message>",
        "<message><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'/></forwarded></message>",
        "<message><message xmlns='jabber:client' from='a@x' to='b@x'/></message>",
    ],
)
def test_another_form_is_no_signal(stanza: str) -> None:
    with pytest.raises(ValueError, match="no forwarded message"):
        stanzas.read_signal(ET.fromstring(stanza))


@pytest.mark.parametrize("composing", [True, False])
def test_what_we_write_is_not_kept(composing: bool) -> None:
    message = ET.fromstring(stanzas.typing("visitor.1.acme@x/lhc", "bob.acme@x/desk", composing=composing))
    name = "composing" if composing else "paused"
    assert [child.tag for child in message] == [f"{{{CHAT_STATES_NS}}}{name}", "{urn:xmpp:hints}no-store"]
    assert (message.get("from"), message.get("to")) == ("visitor.1.acme@x/lhc", "bob.acme@x/desk")


def name_of(jid: str) -> AccountName:
    return Naming(hosting=True).parse_username(jid.partition("@")[0])


class Domain:
    """Stands where the domain does, and keeps what it is told; fails as a database does as long as it is `down`."""

    def __init__(self) -> None:
        self.typing_told: list[Typing] = []
        self.receipts_told: list[list[Receipt]] = []
        self.down = False
        self.refused = 0

    async def typing(self, _services: Services, sign: Typing) -> None:
        self._answer()
        self.typing_told.append(sign)

    async def receipt(self, _services: Services, receipts: Sequence[Receipt]) -> None:
        self._answer()
        self.receipts_told.append(list(receipts))

    def _answer(self) -> None:
        if self.down:
            self.refused += 1
            raise OperationalError("statement", {}, Exception("the database is away"))


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Domain:
    domain = Domain()
    monkeypatch.setattr(signal_inbox, "signals", domain)
    return domain


@pytest.fixture
async def collector(tmp_path: Path) -> AsyncIterator[Signals]:
    """Asks of the services nothing but the host's name and the rules of names."""

    async def wake(task: str, **arguments: str | int) -> None:
        raise AssertionError(task, arguments)

    settings = Settings(
        _env_file=None, xmpp_host="x", hosting=True, database_url=f"sqlite+aiosqlite:///{tmp_path}/none.db"
    )
    async with open_services(settings, wake) as services:
        yield Signals(services)


@asynccontextmanager
async def running(collector: Signals) -> AsyncIterator[None]:
    task = asyncio.create_task(collector.run())
    yield
    assert not task.done(), task
    task.cancel()


async def test_of_typing_the_latest_is_told_and_of_receipts_all(collector: Signals, domain: Domain) -> None:
    for name in ("composing", "paused", "composing", "paused"):
        collector.receive(handed(state(name)))
    collector.receive(handed(state("composing"), received("both"), receiver="visitor.2.acme@x"))
    for number in range(3):
        collector.receive(handed(received(f"m{number}")))
    bob, one, two = name_of(BOB), name_of(VISITOR), name_of("visitor.2.acme@x")
    assert (bob.kind, one.kind) == (AccountKind.OPERATOR, AccountKind.VISITOR)
    async with running(collector):
        await until(lambda: len(domain.typing_told) == 2, "both conversations are told")
        assert domain.typing_told == [
            Typing(bob, one, composing=False, host="x"),
            Typing(bob, two, composing=True, host="x"),
        ]
        ids = ["m0", "m1", "m2"]
        assert domain.receipts_told == [
            [Receipt(bob, two, "both", host="x"), *(Receipt(bob, one, id_, host="x") for id_ in ids)]
        ]


async def test_that_nobody_types_is_news_only_after_somebody_did(
    collector: Signals, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal_inbox, "_LIMIT", 2)
    bob, one = name_of(BOB), name_of(VISITOR)
    async with running(collector):
        for name in ("active", "inactive", "gone", "paused"):
            collector.receive(handed(state(name)))
        collector.receive(handed(state("composing")))
        await until(lambda: len(domain.typing_told) == 1, "that Bob types is told")
        collector.receive(handed(state("active")))
        await until(lambda: len(domain.typing_told) == 2, "that he does no longer, too")
        collector.receive(handed(state("gone")))
        for number in (2, 3, 4):  # of so many we cannot know who types
            collector.receive(handed(state("composing"), receiver=f"visitor.{number}.acme@x"))
            await until(lambda number=number: domain.typing_told[-1].receiver.ident == str(number), "told")  # type: ignore[misc]
        collector.receive(handed(state("paused"), receiver="visitor.2.acme@x"))
        collector.receive(handed(state("paused"), receiver="visitor.4.acme@x"))
        await until(lambda: not domain.typing_told[-1].composing, "the end is told")
    assert domain.typing_told[:2] == [
        Typing(bob, one, composing=True, host="x"),
        Typing(bob, one, composing=False, host="x"),
    ]
    assert [(sign.receiver.ident, sign.composing) for sign in domain.typing_told[2:]] == [
        ("2", True),
        ("3", True),
        ("4", True),
        ("4", False),
    ]


@pytest.mark.parametrize(
    ("sender", "receiver"),
    [
        ("bob.other@x/desk", VISITOR),
        ("visitor.2.acme@x/lhc", VISITOR),
        (BOB, "ann.acme@x"),
        ("bob.acme@elsewhere/desk", VISITOR),
        (BOB, "visitor.1.acme@elsewhere"),
        ("x", VISITOR),
    ],
)
async def test_a_signal_of_others_is_dropped(collector: Signals, domain: Domain, sender: str, receiver: str) -> None:
    with capture_logs() as logs:
        collector.receive(handed(state("composing"), received("forged"), sender=sender, receiver=receiver))
    assert [line["event"] for line in logs] == ["signal refused"]
    collector.receive(handed(received("real")))
    async with running(collector):
        await until(lambda: domain.receipts_told, "the real one is told")
    assert domain.receipts_told == [[Receipt(name_of(BOB), name_of(VISITOR), "real", host="x")]]
    assert domain.typing_told == []


async def test_what_waits_is_bounded(collector: Signals, domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal_inbox, "_LIMIT", 3)
    with capture_logs() as logs:
        for number in range(1, 6):
            both = state("composing"), received(f"m{number}")
            collector.receive(handed(*both, receiver=f"visitor.{number}.acme@x"))
        # of a conversation that waits already the latest counts all the same
        collector.receive(handed(state("paused"), receiver="visitor.1.acme@x"))
        async with running(collector):
            await until(lambda: len(domain.typing_told) >= 3, "three are told")
    assert [one.message_id for one in domain.receipts_told[0]] == ["m1", "m2", "m3"]
    assert [(one.receiver.ident, one.composing) for one in domain.typing_told] == [
        ("1", False),
        ("2", True),
        ("3", True),
    ]
    assert [(line["event"], line["receipts"], line["typing"]) for line in logs] == [("signals dropped", 2, 2)]


async def test_a_database_that_is_away_ends_nothing(collector: Signals, domain: Domain) -> None:
    domain.down = True
    async with running(collector):
        with capture_logs() as logs:
            collector.receive(handed(received("lost")))
            await until(lambda: domain.refused, "the domain refuses")
            await until(lambda: logs, "the log says so")
        assert (logs[0]["event"], logs[0]["receipts"]) == ("signals lost", 1)
        domain.down = False
        collector.receive(handed(received("next")))
        await until(lambda: domain.receipts_told, "it goes on")
    assert [one.message_id for one in domain.receipts_told[0]] == ["next"]
