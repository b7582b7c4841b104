"""The load: LHC instances, their visitors and their operators, talking through the system all the time.

Whoever talks does what a careful sender does: says a message again until the system has taken it, and only then the
next one. The senders survive whatever happens to the system; a failure is an outcome, not an error.
"""

import asyncio
import itertools
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import httpx
from slixmpp import JID, Message, Presence
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.xmlstream.xmlstream import NotConnectedError

from bench.chaos.ledger import Conversation, Ledger, Way
from bench.chaos.presence import Visitor
from bench.chaos.schedule import Kind
from bench.testbed.lhc import Lhc
from bench.testbed.operator import Operator, SeenPresence
from bench.testbed.panel import Panel
from bench.testbed.receiver import Callback, Receiver
from bench.testbed.system import System
from bench.testbed.waiting import until
from tenants.outbound.lhc import NOBODY

PASSWORD = "0123456789abcdef0123"  # noqa: S105 - of everybody in the load
LONG_WINDOW = 1800.0
SHORT_WINDOW = 20.0
"""Seconds that a page view keeps a visitor online, in all tenants but the last and in the last."""
_PAGE_VIEW_PAUSE = 4.0
_CONFIRM_TIMEOUT = 5.0
_LAST_WORDS = 30.0
"""Seconds: for so long a message that was begun is tried again after the end of the load."""
_MESSAGE_PATH = "/xmppservice/processmessage"
_STATUS_PATH = "/xmppservice/operatorstatus"


class Outcome(Enum):
    """What an attempt came to."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # certainly not taken
    UNCLEAR = "unclear"  # no answer that says so


Attempt = Callable[[], Awaitable[Outcome]]


@dataclass(frozen=True)
class Shape:
    """How much load."""

    tenants: int
    visitors: int
    operators: int
    rate: float
    seconds: float
    seed: int


class Instances:
    """The receiving side of all LHC instances, which can fail."""

    def __init__(self, port: int) -> None:
        self.receiver = Receiver(port)
        self.operator_status: dict[str, str] = {}
        """The latest action that LHC was told of each operator, by username."""
        self._stack = AsyncExitStack()
        self._failing: Kind | None = None
        self._healthy = asyncio.Event()
        self._healthy.set()

    async def start(self) -> None:
        await self._stack.enter_async_context(self.receiver)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def fail(self, kind: Kind, seconds: float) -> None:
        """Fail for so long in that way."""
        self._failing = kind
        self._healthy.clear()
        if kind is Kind.STOPPED:
            await self.stop()
        try:
            await asyncio.sleep(seconds)
        finally:
            if kind is Kind.STOPPED:
                await self.start()
            self._failing = None
            self._healthy.set()

    def listen(self, tenant: str, ledger: Ledger) -> None:
        """Enter what arrives for a tenant into the ledger."""

        async def take(callback: Callback) -> int:
            if self._failing is Kind.FAILING:
                return 500
            if self._failing is Kind.HANGING:
                await self._healthy.wait()
                return 503
            # one of nobody asks whether LHC works: it may come when a fault has just ended
            if callback.path == _MESSAGE_PATH and (form := callback.form)["sender"] != NOBODY:
                place = Conversation(tenant, form["receiver"], form["sender"], Way.TO_VISITOR)
                ledger.arrived(place, form["body"], callback.at)
            elif callback.path == _STATUS_PATH:
                status = json.loads(callback.raw)
                self.operator_status[status["user"].partition("@")[0]] = status["action"]
            return 200

        self.receiver.behaviours[f"{tenant}.localhost"] = take


class Client(Operator):
    """One connection of an operator; tells its desk what it sees as it sees it."""

    def __init__(self, desk: "Desk") -> None:
        super().__init__(desk.username, desk.host, PASSWORD, desk.address)
        self._desk = desk

    async def confirm(self) -> bool:
        """Whether the server has handled what was sent before on this stream, by a ping (XEP-0199)."""
        ping: asyncio.Future[Any] = self._client.plugin["xep_0199"].send_ping(
            JID(self._desk.host), timeout=_CONFIRM_TIMEOUT
        )
        ended: asyncio.Future[Any] = asyncio.ensure_future(self.disconnected.wait())
        try:
            await asyncio.wait({ping, ended}, return_when=asyncio.FIRST_COMPLETED)
            return ping.done() and ping.exception() is None
        finally:
            ping.cancel()
            ended.cancel()

    def give_up(self) -> None:
        """Drop the connection, or the attempt to get one."""
        self._client.cancel_connection_attempt()
        self._client.abort()
        if sender := self._client._run_out_filters:  # noqa: SLF001 - slixmpp ends it in `__del__`, too late for the loop
            sender.cancel()

    def _saw_presence(self, presence: Presence) -> None:
        super()._saw_presence(presence)
        self._desk.saw_presence(self.presences[-1])

    def _saw_message(self, message: Message) -> None:
        super()._saw_message(message)
        seen = self.messages[-1]
        if seen.type == "error":
            self._desk.message_returned(seen.id)
        else:
            self._desk.message_arrived(seen.username, seen.body, seen.at, seen.id)


@dataclass
class Desk:
    """An operator who logs in again whenever the connection is lost.

    Attributes:
        view: the latest presence of each visitor on the present connection.
        flickers: presences of type unavailable from visitors who were online all the time.
    """

    tenant: str
    username: str
    host: str
    nodes: Sequence[tuple[str, tuple[str, int]]]  # of ejabberd, with their addresses; which is tried first is first
    ledger: Ledger
    visitors: dict[str, Visitor]
    view: dict[str, SeenPresence] = field(default_factory=dict)
    flickers: list[tuple[str, str, float]] = field(default_factory=list)
    connections: int = 0
    attempts: int = 0
    _client: Client | None = None
    _former: Client | None = None  # kept for a while: its tasks must end before it is collected
    _accepted: dict[str, tuple[Conversation, int]] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)

    @property
    def address(self) -> tuple[str, int]:
        """Where to log in next: at another node each time, as who has the addresses from DNS."""
        return self.nodes[self.attempts % len(self.nodes)][1]

    @property
    def node(self) -> str:
        """Where the present connection is, or the latest."""
        return self.nodes[(self.attempts - 1) % len(self.nodes)][0]

    @property
    def online(self) -> bool:
        return self._client is not None

    async def stay_online(self) -> None:
        """Be logged in; until cancelled."""
        failures = 0
        try:
            while True:
                failures = 0 if await self.log_in() else failures + 1
                if self._client is not None:
                    await self._client.disconnected.wait()
                    self.drop()
                await asyncio.sleep(random.uniform(0.1, 0.5) * min(8, 1 + failures))
        finally:
            self.drop()

    async def log_in(self) -> bool:
        """Try to log in."""
        self.view.clear()
        client = Client(self)
        self.attempts += 1
        try:
            await client.connect()
        except (AssertionError, PermissionError, IqError, IqTimeout, NotConnectedError):
            client.give_up()
            return False
        except asyncio.CancelledError:
            client.give_up()
            raise
        self._client = client
        self.connections += 1
        return True

    async def log_out(self) -> None:
        """Log out in good order."""
        client, self._client = self._client, None
        if client is not None:
            await client.leave()
            client.give_up()
            self._former = client

    def drop(self) -> None:
        """Drop the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.give_up()
            self._former = client

    async def write(self, conversation: Conversation, number: int) -> Outcome:
        """Try to send a message to a visitor."""
        client = self._client
        if client is None:
            return Outcome.REFUSED
        stanza_id = uuid.uuid4().hex
        try:
            client.write(conversation.visitor, conversation.body(number), message_id=stanza_id)
            confirmed = await client.confirm()
        except NotConnectedError:
            confirmed = False
        if stanza_id in self._refused:
            return Outcome.REFUSED
        if not confirmed:
            return Outcome.UNCLEAR
        self._accepted[stanza_id] = (conversation, number)
        return Outcome.ACCEPTED

    def message_returned(self, stanza_id: str) -> None:
        """The server gives a message back as not delivered."""
        self._refused.add(stanza_id)
        if stanza_id in self._accepted:
            self.ledger.returned(*self._accepted[stanza_id])

    def message_arrived(self, visitor: str, body: str, at: float, stanza_id: str) -> None:
        self.ledger.arrived(Conversation(self.tenant, visitor, self.username, Way.TO_OPERATOR), body, at, stanza_id)

    def saw_presence(self, seen: SeenPresence) -> None:
        visitor = self.visitors.get(seen.username)
        if visitor is None:
            return  # another operator, or oneself
        self.view[seen.username] = seen
        if seen.type == "unavailable" and visitor.must_be_online(seen.at):
            self.flickers.append((self.username, seen.username, seen.at))

    def wrong_views(self, now: float) -> list[str]:
        """What this operator sees and should not."""
        wrong = []
        for username, visitor in self.visitors.items():
            seen = self.view.get(username)
            status = seen.status if seen is not None and seen.type == "available" else None
            if not visitor.may_be_seen_as(status, now):
                wrong.append(
                    f"{self.username} sees {username} as {status!r}, not {visitor.status!r};"
                    f" last active {now - visitor.activities[-1]:.0f} s ago"
                )
        return wrong


class Load:
    """Everybody who talks, and the ledger of what they said."""

    def __init__(self, system: System, shape: Shape) -> None:
        self._system = system
        self._shape = shape
        self._dice = random.Random(shape.seed)
        self._host: str = system.endpoints["xmpp_host"]
        self.instances = Instances(system.endpoints["callback_port"])
        self.outcomes: Counter[str] = Counter()
        self._stopping = asyncio.Event()
        self._turns = itertools.count()
        self._lhcs: dict[str, Lhc] = {}
        self._visitors: dict[str, dict[str, Visitor]] = {}
        self._leaving: dict[str, float] = {}
        conversations = []
        for number in range(1, shape.tenants + 1):
            tenant = f"chaos{number}"
            window = SHORT_WINDOW if number == shape.tenants else LONG_WINDOW
            names = [f"visitor.{visitor}.{tenant}" for visitor in range(1, shape.visitors + 1)]
            self._visitors[tenant] = {name: Visitor(name, window) for name in names}
            for index, name in enumerate(names):
                operator = f"operator{index % shape.operators + 1}.{tenant}"
                conversations += [Conversation(tenant, name, operator, way) for way in Way]
                # some leave early: their time must end while everything is being killed
                early = window == SHORT_WINDOW and index % 2
                self._leaving[name] = shape.seconds * self._dice.uniform(0.2, 0.4) if early else shape.seconds
        self.ledger = Ledger(conversations)
        self._desks: dict[str, Desk] = {}
        self._guests: list[Desk] = []

    @asynccontextmanager
    async def prepared(self) -> AsyncIterator[None]:
        """Within it all accounts are there, the operators are online, and LHC listens."""
        await self.instances.start()
        try:
            endpoints = self._system.endpoints
            async with Panel(endpoints["api"], endpoints["panel_token"]) as panel:
                await asyncio.gather(*(self._prepare(panel, tenant) for tenant in self._visitors))
            async with asyncio.TaskGroup() as group:
                online = [group.create_task(desk.stay_online()) for desk in self._desks.values()]
                await until(lambda: not self.wrong(), f"everything is right at the beginning; {self.wrong()}", 60)
                yield
                for task in online:
                    task.cancel()
        finally:
            await self.instances.stop()

    async def _prepare(self, panel: Panel, tenant: str) -> None:
        visitors = self._visitors[tenant]
        window = next(iter(visitors.values())).window
        created = await panel.create(tenant, online_seconds=window)
        base = f"{self._system.endpoints['api']}/t/{tenant}"
        self._lhcs[tenant] = lhc = Lhc(tenant, base=base, secret_key=created["secret_key"], host=self._host)
        self.instances.listen(tenant, self.ledger)
        locals_ = [f"operator{number}" for number in range(1, self._shape.operators + 1)]
        for local in [*locals_, "guest"]:
            await lhc.new_operator(local, PASSWORD)
            desk = self._desk(tenant, lhc.name(local))
            if local == "guest":
                self._guests.append(desk)
            else:
                self._desks[desk.username] = desk
        for visitor in visitors.values():
            begun = time.monotonic()
            visitor.page_view_begins("-")
            (await lhc.new_visitor(_local(visitor.username), PASSWORD)).raise_for_status()
            visitor.page_view_accepted(begun)

    def _desk(self, tenant: str, username: str) -> Desk:
        endpoints = self._system.endpoints
        nodes = [
            (name.replace("c2s_port", "ejabberd").replace("_", "-"), (endpoints["c2s_host"], port))
            for name, port in sorted(endpoints.items())
            if name.startswith("c2s_port")
        ]
        first = next(self._turns) % len(nodes)
        return Desk(tenant, username, self._host, nodes[first:] + nodes[:first], self.ledger, self._visitors[tenant])

    async def talk(self, stop: asyncio.Event) -> None:
        """Talk until `stop`; what was begun is said to its end, if that can be done soon."""
        begun = time.monotonic()
        talkers = [
            *(self._visit_often(guest) for guest in self._guests),
            *(
                self._look_around(tenant, visitor, begun)
                for tenant, visitors in self._visitors.items()
                for visitor in visitors.values()
            ),
            *(self._converse(conversation, begun) for conversation in self.ledger.conversations),
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(talker) for talker in talkers]
            await stop.wait()
            self._stopping.set()
            _, late = await asyncio.wait(tasks, timeout=_LAST_WORDS)
            for task in late:
                task.cancel()

    def wrong(self) -> list[str]:
        """What operators see and LHC believes, and should not."""
        now = time.monotonic()
        wrong = [text for desk in self._desks.values() for text in desk.wrong_views(now)]
        wrong += [f"{name} is not logged in" for name, desk in self._desks.items() if not desk.online]
        told = self.instances.operator_status
        wrong += [
            f"LHC was told {told.get(name)} of {name}, who is online"
            for name in self._desks
            if told.get(name) not in {"connect", "ping"}
        ]
        wrong += [
            f"LHC was told {told.get(guest.username)} of {guest.username}, who is offline"
            for guest in self._guests
            if told.get(guest.username, "disconnect") != "disconnect"
        ]
        return wrong

    def short_windows_over(self) -> bool:
        """Whether the last tenant's visitors have all gone, so that it can be seen who still shows them."""
        now = time.monotonic()
        return not any(
            visitor.online(now)
            for visitors in self._visitors.values()
            for visitor in visitors.values()
            if visitor.window == SHORT_WINDOW
        )

    async def log_in_anew(self) -> None:
        """Let all operators log out and in again: ejabberd hands over what it still keeps for them."""
        self.ledger.operators_log_in_anew()
        await asyncio.gather(*(desk.log_out() for desk in self._desks.values()))

    @property
    def flickers(self) -> list[tuple[str, str, float]]:
        return [flicker for desk in [*self._desks.values(), *self._guests] for flicker in desk.flickers]

    async def _converse(self, conversation: Conversation, begun: float) -> None:
        interval = len(self.ledger.conversations) / self._shape.rate
        until = begun + self._leaving[conversation.visitor]
        for number in itertools.count(1):
            await self._pause(self._dice.uniform(0.5, 1.5) * interval)
            if self._stopping.is_set() or (conversation.way is Way.TO_OPERATOR and time.monotonic() > until):
                return
            await self._say(conversation, number)

    async def _say(self, conversation: Conversation, number: int) -> None:
        for failures in itertools.count(1):
            self.ledger.sent(conversation, number)
            begun, node = time.monotonic(), self._desks[conversation.operator].node
            if conversation.way is Way.TO_OPERATOR:
                outcome = await self._visitor_writes(conversation, number)
            else:
                outcome = await self._desks[conversation.operator].write(conversation, number)
            self.outcomes[f"{conversation.way}: {outcome.value}"] += 1
            if outcome is Outcome.ACCEPTED:
                self.ledger.accepted(conversation, number, begun, node)
                if conversation.way is Way.TO_OPERATOR:
                    self._visitors[conversation.tenant][conversation.visitor].message_accepted(begun)
                return
            if outcome is Outcome.UNCLEAR:
                self.ledger.unclear(conversation, number)
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(2.0, 0.2 * 2**failures))

    async def _visitor_writes(self, conversation: Conversation, number: int) -> Outcome:
        lhc = self._lhcs[conversation.tenant]
        return await _call(
            lambda: lhc.visitor_writes(
                _local(conversation.visitor), PASSWORD, _local(conversation.operator), conversation.body(number)
            )
        )

    async def _look_around(self, tenant: str, visitor: Visitor, begun: float) -> None:
        lhc = self._lhcs[tenant]
        for page in itertools.count(1):
            await self._pause(self._dice.uniform(0.5, 1.5) * _PAGE_VIEW_PAUSE)
            if self._stopping.is_set() or time.monotonic() - begun > self._leaving[visitor.username]:
                return
            status = f"page {page}"
            visitor.page_view_begins(status)
            for failures in itertools.count(1):
                asked = time.monotonic()
                outcome = await _call(lambda: lhc.page_view(_local(visitor.username), PASSWORD, status=status))  # noqa: B023 - awaited at once
                self.outcomes[f"page view: {outcome.value}"] += 1
                if outcome is Outcome.ACCEPTED:
                    visitor.page_view_accepted(asked)
                    break
                await asyncio.sleep(random.uniform(0.5, 1.0) * min(2.0, 0.2 * 2**failures))

    async def _visit_often(self, guest: Desk) -> None:
        """Log in and out again and again, so that LHC has something to be told; offline in the end."""
        while not self._stopping.is_set():
            try:
                await guest.log_in()
                await self._pause(self._dice.uniform(2, 8))
            finally:
                await guest.log_out()
            await self._pause(self._dice.uniform(1, 4))

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless the load is to end."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


async def _call(request: Callable[[], Awaitable[httpx.Response]]) -> Outcome:
    try:
        answer = await request()
    except httpx.ConnectError:
        return Outcome.REFUSED
    except httpx.HTTPError:
        return Outcome.UNCLEAR
    # a 503 may come of a confirmation that was late, so nothing but `ok` says what became of it
    return Outcome.ACCEPTED if answer.is_success and answer.text == "ok" else Outcome.UNCLEAR


def _local(username: str) -> str:
    """The part of a username before its instance."""
    return username.rpartition(".")[0]
