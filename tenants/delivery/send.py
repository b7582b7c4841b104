"""Tells a tenant of one event, in the tenant's own format: LHC's callbacks, or signed webhooks."""

import json
from datetime import UTC, datetime
from typing import Any

from config.settings import Settings
from tenants.core.naming import AccountKind, Naming
from tenants.delivery import outbox, plain_lines
from tenants.delivery.outbox import Event
from tenants.outbound import webhooks
from tenants.outbound.lhc import callback_base, message_body, presence_body
from tenants.outbound.poster import Answer
from tenants.process.services import Services
from tenants.store.models import CallbackMessage, EventFormat, OperatorPresence, Tenant

_OF_ACTION = {
    "connect": Event.OPERATOR_CONNECTED,
    "disconnect": Event.OPERATOR_DISCONNECTED,
    "ping": Event.OPERATOR_PING,
}
_NOWHERE = Answer("the tenant's name gives no address, since a part of it would be empty: set its callback_url", 0.0)


async def tell(services: Services, tenant: Tenant, message: CallbackMessage) -> Answer:
    """Tell of an event of a conversation."""
    where = base(services.settings, tenant)
    if where is None:
        return _NOWHERE
    if tenant.event_format is EventFormat.WEBHOOK:
        of = _room_data if message.event in outbox.IN_ROOMS else _conversation_data
        data = of(services.naming, message)
        payload = {"type": message.event, "timestamp": _rfc3339(message.created_at), "data": data}
        return await _post(services, tenant, where, webhooks.event_id(message.stanza_id), payload)
    form = _lhc_form(tenant, message)
    if form is None or not outbox.is_told(tenant, Event(message.event)):
        # LHC's extension knows nothing of it: it was kept while the tenant had the other format, or nothing was said
        return Answer(None, 0.0)
    return await services.lhc.post_message(where, form)


def _lhc_form(tenant: Tenant, message: CallbackMessage) -> bytes | None:
    if message.event in {Event.ROOM_JOINED, Event.ROOM_LEFT}:
        joined = message.event == Event.ROOM_JOINED
        return presence_body(available=joined, sender=message.sender, room=message.receiver, server=tenant.xmpp_host)
    line = plain_lines.of_event(message.event, message.body or "", message.detail or {}, tenant.language)
    if not line:
        return None
    return message_body(
        body=line,
        sender=message.sender,
        receiver=message.receiver,
        server=tenant.xmpp_host,
        kind="groupchat" if message.event == Event.ROOM_MESSAGE else "chat",
    )


async def tell_presence(services: Services, tenant: Tenant, presence: OperatorPresence, pending: str) -> Answer:
    """Tell of an operator's presence; `pending` is how LHC is told of it."""
    where = base(services.settings, tenant)
    if where is None:
        return _NOWHERE
    if tenant.event_format is EventFormat.LHC:
        return await services.lhc.post_status(where, pending)
    status = json.loads(pending)
    operator = services.naming.parse_username(presence.username).ident
    data: dict[str, Any] = {"operator": operator}
    if status["action"] == "ping":
        data["connection"] = status["user"]
    payload = {"type": _OF_ACTION[status["action"]], "timestamp": _rfc3339(services.clock()), "data": data}
    # the next tenant of the name has the same operators, and counts from the beginning
    source = f"{presence.username}/{tenant.incarnation}/{presence.version}/{pending}"
    return await _post(services, tenant, where, webhooks.event_id(source), payload)


def _conversation_data(naming: Naming, message: CallbackMessage) -> dict[str, Any]:
    visitor = naming.parse_username(message.receiver)
    data: dict[str, Any] = {"operator": naming.parse_username(message.sender).ident, "username": message.receiver}
    if visitor.kind is AccountKind.VISITOR:
        data["visitor_id"] = visitor.ident
    else:
        data["chat_id"] = visitor.ident
    detail = dict(message.detail or {})
    changed = detail.pop("changes", message.stanza_id)
    data |= detail
    if message.event in {*outbox.MESSAGES, Event.MESSAGE_UPDATED}:
        data["message"] = message.body or ""
    if message.event in {*outbox.MESSAGES, Event.MESSAGE_UPDATED, Event.MESSAGE_RETRACTED}:
        data["message_id"] = None if changed is None else webhooks.event_id(changed)
    if message.event == Event.MESSAGE_REACTION:
        data["reactions"] = (message.body or "").splitlines()
    return data


def _room_data(naming: Naming, message: CallbackMessage) -> dict[str, Any]:
    data: dict[str, Any] = {
        "operator": naming.parse_username(message.sender).ident,
        "room": message.receiver,
        **(message.detail or {}),
    }
    if message.event == Event.ROOM_MESSAGE:
        data |= {"message": message.body or "", "message_id": webhooks.event_id(message.stanza_id)}
    return data


async def _post(services: Services, tenant: Tenant, where: str, event_id: str, payload: dict[str, Any]) -> Answer:
    payload["data"]["instance_name"] = tenant.instance_name
    return await services.webhooks.post(
        where,
        event_id=event_id,
        body=json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode(),
        keys=webhooks.signing_keys(services.settings, tenant, services.clock()),
    )


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def base(settings: Settings, tenant: Tenant) -> str | None:
    """Where the tenant is told: its own URL, or that of its LHC; None: nothing says where."""
    return callback_base(settings, tenant.instance_name, tenant.callback_url)
