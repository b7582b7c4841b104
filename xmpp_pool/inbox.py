"""Stores what operators write to visitors, what they do in rooms, and what came back; then answers the bridge.

Any pool process may store the messages of any tenant, since they are delivered from the database.
"""

import asyncio
from xml.etree import ElementTree as ET

import structlog

from tenants.conversations import bounces, room_reports
from tenants.conversations.live_view import LiveViewPublisher, Way
from tenants.conversations.operator_messages import Stored, store_messages
from tenants.conversations.reports import OperatorMessage, Returned, RoomReport
from tenants.core.batching import next_batch
from tenants.core.errors import InvalidInputError
from tenants.core.naming import AccountKind, AccountName, Naming, domain_of, local_part, rooms_service
from tenants.delivery.outbox import Origin
from tenants.process.services import Services
from tenants.shards.queues import QueueUnavailableError
from tenants.status.traffic import Traffic
from tenants.store.database import DATABASE_AWAY
from xmpp_pool import contents
from xmpp_pool.gateway import Reply
from xmpp_pool.stanzas import Forwarded, ForwardedError, ForwardedPresence, read_forwarded
from xmpp_pool.unshowable import Reason, Unshowable

Report = OperatorMessage | Returned | RoomReport

log = structlog.get_logger(__name__)

_LIMIT = 5000
"""Messages waiting for the database at most; what comes beyond is refused, and the operator is told."""
_BATCH = 200
TOO_MANY_WAIT = "not-allowed"
"""After this condition the bridge tells the operator to try later. After `resource-constraint` it would try itself."""


class Inbox:
    """Takes diverted messages from the gateway; `run` stores them in the order of their arrival."""

    def __init__(self, services: Services, traffic: Traffic, live_view: LiveViewPublisher) -> None:
        self._services = services
        self._traffic = traffic
        self._live_view = live_view
        self._waiting: asyncio.Queue[tuple[Report, Reply]] = asyncio.Queue(_LIMIT)

    def receive(self, iq: ET.Element, reply: Reply) -> None:
        """Check the stanza and queue it, or refuse it."""
        try:
            message = self._read(iq)
            if message is None:
                reply(None)
                return
            if isinstance(message, Unshowable):
                # the bridge module gives it back to the operator
                reply("not-acceptable", message.text)
                return
        except (ValueError, InvalidInputError) as error:
            log.warning("forwarded message refused", error=str(error))
            reply("bad-request")
            return
        try:
            self._waiting.put_nowait((message, reply))
        except asyncio.QueueFull:
            log.error("too many messages wait for the database", limit=_LIMIT)  # noqa: TRY400 - no traceback worth having
            reply("resource-constraint")

    async def run(self) -> None:
        """Store what arrives; until cancelled."""
        while True:
            batch = await next_batch(self._waiting, _BATCH)
            try:
                stored = await self._store([message for message, _ in batch])
            except (*DATABASE_AWAY, QueueUnavailableError) as error:
                log.error("messages not stored", count=len(batch), error=type(error).__name__)  # noqa: TRY400 - the statement holds what people wrote
                for _, reply in batch:
                    reply("internal-server-error")
                continue
            for message, reply in batch:
                # after a refusal the bridge module does not try again, and tells the operator at once why
                refusal = stored.refused.get(message.stanza_id)
                if refusal is None:
                    reply(None, shown=stored.shown.get(message.stanza_id, ""))
                else:
                    reply(TOO_MANY_WAIT if refusal.later else "forbidden", refusal.reason)

    async def _store(self, messages: list[Report]) -> Stored:
        """Store them. Returns what became of them."""
        stored = Stored()
        of_operators = [message for message in messages if isinstance(message, OperatorMessage)]
        if of_operators:
            stored = await store_messages(self._services, of_operators)
            self._traffic.to_visitors += len(of_operators) - len(stored.refused)
            for message in of_operators:
                if message.stanza_id not in stored.refused and message.body:
                    self._show(message)
        in_rooms = [message for message in messages if isinstance(message, RoomReport)]
        if in_rooms:
            stored.refused |= await room_reports.store_reports(self._services, in_rooms)
        came_back = [message for message in messages if isinstance(message, Returned)]
        if came_back:
            await bounces.store(self._services, came_back)
        return stored

    def _show(self, message: OperatorMessage) -> None:
        username = self._services.naming.username
        self._live_view.show(
            message.receiver.instance,
            username(message.sender),
            username(message.receiver),
            message.body,
            Way.TO_VISITOR,
        )

    def _read(self, iq: ET.Element) -> Report | Unshowable | None:
        """What is to be stored, or why it is given back; None if storing it is of no use to anybody."""
        host = str(iq.get("from"))
        forwarded = read_forwarded(iq, self._services.settings.component_jid)
        service = rooms_service(host)
        if isinstance(forwarded, ForwardedError) and domain_of(forwarded.sender) == service:
            # LHC was told that the message is accepted, and cannot be told otherwise any more
            log.error("a message did not reach its room", room=forwarded.sender, condition=forwarded.condition)
            return None
        if domain_of(forwarded.receiver) == service:
            return self._read_room(forwarded, host)
        if isinstance(forwarded, ForwardedPresence):
            raise ValueError("presence that is not in a room")  # noqa: TRY004 - as everything that is not of that form
        operator, visitor = names(self._services.naming, host, forwarded.sender, forwarded.receiver)
        if isinstance(forwarded, ForwardedError):
            return Returned(
                host=host,
                stanza_id=forwarded.stanza_id,
                message_id=forwarded.message_id,
                visitor=visitor,
                operator=operator,
                body=forwarded.body,
                condition=forwarded.condition,
                reason=forwarded.reason,
            )
        content = contents.read(forwarded.element)
        if content is None or isinstance(content, Unshowable):
            return content
        return OperatorMessage(
            forwarded.stanza_id,
            operator,
            visitor,
            content.text,
            _origin(forwarded),
            content,
            for_browser=forwarded.for_browser,
            host=host,
        )

    def _read_room(self, forwarded: Forwarded | ForwardedPresence, host: str) -> RoomReport | None:
        naming = self._services.naming
        operator = naming.parse_username(local_part(forwarded.sender, host, "from"), "from")
        room = naming.parse_room(local_part(forwarded.receiver, rooms_service(host), "to"), "to")
        if operator.kind is not AccountKind.OPERATOR or operator.instance != room.instance:
            raise ValueError("not an operator in a room of the same tenant")
        if isinstance(forwarded, ForwardedPresence):
            return RoomReport(forwarded.stanza_id, operator, room, arrived=forwarded.available, host=host)
        content = contents.read(forwarded.element)
        if isinstance(content, Unshowable):
            # those in the room have it, and what it is that others cannot be shown may be a matter of programs alone
            unshowable = None if content.reason is Reason.UNKNOWN else content.text
            if unshowable is None:
                return None
            return RoomReport(forwarded.stanza_id, operator, room, unshowable=unshowable, host=host)
        if content is None:
            return None
        return RoomReport(forwarded.stanza_id, operator, room, content.text, content=content, host=host)


def _origin(forwarded: Forwarded) -> Origin:
    return Origin(
        message_id=forwarded.message_id,
        resource=forwarded.sender.partition("/")[2],
        wants_receipt=forwarded.wants_receipt,
        is_markable=forwarded.is_markable,
    )


def names(naming: Naming, host: str, sender_jid: str, receiver_jid: str) -> tuple[AccountName, AccountName]:
    """The operator who wrote and the visitor of the same tenant who was written to, both at that host.

    Raises:
        InvalidInputError: a name breaks a rule.
        ValueError: they are no operator and visitor, or not of the same tenant.
    """
    sender = naming.parse_username(local_part(sender_jid, host, "from"), "from")
    receiver = naming.parse_username(local_part(receiver_jid, host, "to"), "to")
    if sender.kind is not AccountKind.OPERATOR or receiver.kind is AccountKind.OPERATOR:
        raise ValueError("not a message of an operator to a visitor")
    if sender.instance != receiver.instance:
        raise ValueError("a message to another tenant")
    return sender, receiver
