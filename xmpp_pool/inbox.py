"""Messages of operators: stored in batches, answered to the bridge module only when they are committed."""

import asyncio
from xml.etree import ElementTree as ET

import structlog
from sqlalchemy.exc import DBAPIError

from tenants.callbacks import OperatorMessage, store_messages
from tenants.errors import InvalidInputError
from tenants.naming import AccountKind, local_part
from tenants.services import Services
from xmpp_pool.gateway import Reply
from xmpp_pool.stanzas import read_forwarded

log = structlog.get_logger(__name__)

_LIMIT = 5000
"""Messages waiting for the database at most; what comes beyond is refused, and the operator is told."""
_BATCH = 200


class Inbox:
    """Takes diverted messages from the gateway; `run` stores them in the order of their arrival."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._waiting: asyncio.Queue[tuple[OperatorMessage, Reply]] = asyncio.Queue(_LIMIT)

    def receive(self, iq: ET.Element, reply: Reply) -> None:
        """Check the message and queue it, or refuse it."""
        try:
            message = self._read(iq)
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
            batch = [await self._waiting.get()]
            while len(batch) < _BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            try:
                await store_messages(self._services, [message for message, _ in batch])
                outcome = None
            except DBAPIError as error:
                log.error("messages not stored", count=len(batch), error=type(error).__name__)  # noqa: TRY400 - the statement holds what people wrote
                outcome = "internal-server-error"
            for _, reply in batch:
                reply(outcome)

    def _read(self, iq: ET.Element) -> OperatorMessage:
        settings, naming = self._services.settings, self._services.naming
        forwarded = read_forwarded(iq, settings.component_jid)
        sender = naming.parse_username(local_part(forwarded.sender, settings.xmpp_host, "from"), "from")
        receiver = naming.parse_username(local_part(forwarded.receiver, settings.xmpp_host, "to"), "to")
        if sender.kind is not AccountKind.OPERATOR or receiver.kind is AccountKind.OPERATOR:
            raise ValueError("not a message of an operator to a visitor")
        if sender.instance != receiver.instance:
            raise ValueError("a message to another tenant")
        return OperatorMessage(forwarded.stanza_id, sender, receiver, forwarded.body)
