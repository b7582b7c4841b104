"""What happened in rooms, as the bridge reports it: kept before ejabberd is told that we have it."""

from collections.abc import Sequence
from typing import Any

from tenants.conversations import rooms
from tenants.conversations.contents import Kind
from tenants.conversations.reports import RoomReport
from tenants.core.naming import is_page_operator
from tenants.delivery import outbox, plain_lines
from tenants.delivery.outbox import ConversationEvent
from tenants.lifecycle import admission
from tenants.lifecycle.admission import Refusal
from tenants.process.services import Services
from tenants.store.models import EventFormat, Room, RoomState, Tenant


async def store_reports(services: Services, reports: Sequence[RoomReport]) -> dict[str, Refusal]:
    """Keep what happened, in order, in one transaction; repeats are dropped. Then wake the delivery.

    LHC is told of rooms in which somebody writes from its page; those who get webhooks, of all.

    Returns:
        Why some were not kept, by their stanza ids: no such room (any more), its tenant carries no traffic or has too
        many waiting, or nobody outside the room could read it.
    """
    refused: dict[str, Refusal] = {}
    events: list[ConversationEvent] = []
    async with services.database.write() as session:
        tenants, shut = await admission.hold_many(session, {report.room.instance for report in reports})
        await services.backlog.look(session, tenants)
        found = {
            room: await session.scalar(rooms.of_name(room.instance, room.name))
            for room in {one.room for one in reports}
        }
        for report in reports:
            row = found[report.room]
            if report.room.instance in shut:
                refused[report.stanza_id] = Refusal(shut[report.room.instance])
            elif foreign := admission.stranger(tenants[report.room.instance], report.host):
                refused[report.stanza_id] = Refusal(foreign)
            elif row is None or row.state is RoomState.REMOVING:
                refused[report.stanza_id] = Refusal(f"there is no room '{report.room.name}'")
            elif not _is_told(tenants[report.room.instance], row):
                continue
            elif report.unshowable:
                refused[report.stanza_id] = Refusal(report.unshowable)
            elif full := services.backlog.add(tenants[report.room.instance], report.body):
                refused[report.stanza_id] = Refusal(full, later=True)
            elif (event := _event(tenants[report.room.instance], report)) is not None:
                events.append(event)
        refused = await outbox.without_repeats(session, refused)
        woken = await outbox.note(services, session, events)
    await services.delivery.wake(*woken)
    return refused


def _is_told(tenant: Tenant, room: Room) -> bool:
    return tenant.event_format is EventFormat.WEBHOOK or any(is_page_operator(one.username) for one in room.members)


def _event(tenant: Tenant, report: RoomReport) -> ConversationEvent | None:
    """In a room everything is a line, in both formats; None when it says nothing."""
    content, body = report.content, report.body
    detail: dict[str, Any] = {}
    if content.translations:
        body = content.text_in(tenant.language)
    match content.kind:
        case Kind.EDITS:
            detail = {"is_correction": True}
        case Kind.SHOWS_PLACE:
            detail = {"is_location": True}
        case Kind.RETRACTS:
            body = plain_lines.retraction(tenant.language)
        case Kind.REACTS:
            body = plain_lines.reaction(content.text)
        case Kind.SAYS:
            pass
    if body == "":
        return None
    return ConversationEvent(report.event, report.stanza_id, report.sender, report.room, body, detail)
