"""Takes chat states and receipts of operators' clients, gathered for a moment: so a burst is one piece of work.

What is lost does little harm: of chat states only the latest counts, and a line whose receipt is lost stays `sent`.
"""

import asyncio
from collections import Counter
from xml.etree import ElementTree as ET

import structlog

from tenants.conversations import signals
from tenants.conversations.reports import Receipt, Typing
from tenants.core.errors import InvalidInputError
from tenants.core.naming import AccountName
from tenants.process.services import Services
from tenants.store.database import DATABASE_AWAY
from xmpp_pool.inbox import names
from xmpp_pool.stanzas import read_signal

log = structlog.get_logger(__name__)

_PAUSE = 0.1
_LIMIT = 5000
"""Signals of each kind at most that wait; further ones are dropped."""


_Conversation = tuple[str, AccountName, AccountName]
"""The host, the operator and the visitor."""


class Signals:
    """Takes signals from the gateway; `run` tells the domain."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._typing: dict[_Conversation, Typing] = {}
        self._composing: dict[_Conversation, None] = {}
        """Conversations in which the operator writes just now, as far as we were told; the longest known first."""
        self._receipts: list[Receipt] = []
        self._dropped = Counter[str]()
        self._arrived = asyncio.Event()

    def receive(self, stanza: ET.Element) -> None:
        """Note a signal, or drop it."""
        try:
            signal = read_signal(stanza)
            host = str(stanza.get("from"))
            operator, visitor = names(self._services.naming, host, signal.sender, signal.receiver)
        except (ValueError, InvalidInputError) as error:
            log.warning("signal refused", error=str(error))
            return
        if signal.receipt_of:
            self._note_receipt(Receipt(operator, visitor, signal.receipt_of, host=host))
        if signal.composing is not None:
            self._note_typing(Typing(operator, visitor, signal.composing, host=host))
        self._arrived.set()

    def _note_receipt(self, receipt: Receipt) -> None:
        if len(self._receipts) < _LIMIT:
            self._receipts.append(receipt)
        else:
            self._dropped["receipts"] += 1

    def _note_typing(self, sign: Typing) -> None:
        """Clients also send a state when a window opens or closes: "does not write" is news only after "writes"."""
        conversation = sign.host, sign.sender, sign.receiver
        if not sign.composing and conversation not in self._composing:
            return
        if conversation not in self._typing and len(self._typing) >= _LIMIT:
            self._dropped["typing"] += 1
            return
        self._typing[conversation] = sign
        self._composing.pop(conversation, None)
        if sign.composing:
            self._composing[conversation] = None
        if len(self._composing) > _LIMIT:
            del self._composing[next(iter(self._composing))]

    async def run(self) -> None:
        """Tell what arrives; until cancelled."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(_PAUSE)
            self._arrived.clear()
            receipts, self._receipts = self._receipts, []
            typing, self._typing = self._typing, {}
            dropped, self._dropped = self._dropped, Counter()
            if dropped:
                log.warning("signals dropped", limit=_LIMIT, receipts=dropped["receipts"], typing=dropped["typing"])
            try:
                if receipts:
                    await signals.receipt(self._services, receipts)
                for sign in typing.values():
                    await signals.typing(self._services, sign)
            except DATABASE_AWAY as error:
                log.warning("signals lost", receipts=len(receipts), typing=len(typing), error=type(error).__name__)
