"""The live conversation view: a tenant's messages while they pass by; see `tenants.conversations.live_view`."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.routing import route

from orchestrator.console.access import COOKIE, cause_of, need, person_of, services_of
from orchestrator.console.pages import Page, instance_name_of
from tenants.access import console_sessions
from tenants.conversations import live_view
from tenants.conversations.live_view import Line, Way
from tenants.core.errors import ConflictError, DomainError, UnavailableError
from tenants.lifecycle import audit, registry
from tenants.store.models import Role

_MOST, _MOST_OF_ONE = 20, 5
"""Live views in one process at most: of all people, and of one person."""
_LONGEST_SECONDS = 900.0
_BEGUN = format_sse_event(event="begun", data_str="")
"""Seconds between signs of life when no message passes, so that a lost connection is noticed."""
_ASK_SECONDS = 2.0
"""Seconds after which a view ends at the latest when it was switched off, or its viewer was logged out."""


class ConversationPage(Page):
    """What is being said at a tenant."""

    path = "/conversation/{instance_name}"

    def __init__(self) -> None:
        super().__init__()
        self._looking: Counter[str] = Counter()

    @route("", name="conversation")
    async def index(self, request: Request) -> Response:
        """The page, on which nothing is seen before it is asked for."""
        need(request, Role.SUPPORT)
        tenant = await registry.get(services_of(request), instance_name_of(request))
        context = {"title": f"Conversations of {tenant.instance_name}", "tenant": tenant}
        return self._answer(request, "conversation.html", context)

    @route("/lines", name="conversation-lines")
    async def lines(self, request: Request) -> Response:
        """Server-sent events: `begun`, `said` with HTML, `ended` with the reason. Each is in the audit log."""
        need(request, Role.SUPPORT)
        instance_name = instance_name_of(request)
        await _check_switch(request)
        if self._looking[person_of(request).actor] >= _MOST_OF_ONE or self._looking.total() >= _MOST:
            raise UnavailableError("Too many look already; try again soon.")
        await audit.note(
            services_of(request), cause_of(request), instance_name, "live view", "looked at what is being said"
        )
        return EventSourceResponse(self._stream(request))

    async def _stream(self, request: Request) -> AsyncIterator[bytes]:
        actor = person_of(request).actor
        self._looking[actor] += 1
        try:
            async for event in self._events(request):
                yield event
        except DomainError as error:
            yield format_sse_event(event="ended", data_str=str(error))
        finally:
            self._looking[actor] -= 1
            if not self._looking[actor]:
                del self._looking[actor]

    async def _events(self, request: Request) -> AsyncIterator[bytes]:
        template = self.templates.get_template("parts/said.html")
        begun_at = asked_at = time.monotonic()
        async with aclosing(live_view.listen(services_of(request), instance_name_of(request))) as heard:
            async for lines in heard:
                now = time.monotonic()
                if now - begun_at > _LONGEST_SECONDS:
                    raise ConflictError("It has been fifteen minutes.")
                if now - asked_at > _ASK_SECONDS:
                    await _ask(request)
                    asked_at = now
                if lines:
                    yield format_sse_event(event="said", data_str=template.render(said=together(lines), Way=Way))
                else:
                    yield _BEGUN


@dataclass(slots=True)
class Said:
    """A message, and everybody who got it."""

    at: float
    sender: str
    receivers: list[str]
    body: str
    way: Way


def together(lines: Sequence[Line]) -> list[Said]:
    """What goes to several operators as one."""
    said: list[Said] = []
    for line in lines:
        last = said[-1] if said else None
        if last and (last.sender, last.body) == (line.sender, line.body) and line.receiver not in last.receivers:
            last.receivers.append(line.receiver)
        else:
            said.append(Said(line.at, line.sender, [line.receiver], line.body, line.way))
    return said


async def _ask(request: Request) -> None:
    """Whether it may go on.

    Raises:
        DomainError: it may not.
    """
    await _check_switch(request)
    person = await console_sessions.who(services_of(request), request.cookies.get(COOKIE, ""))
    if person is None or not person.may(Role.SUPPORT):
        raise ConflictError("You are not logged in any more.")


async def _check_switch(request: Request) -> None:
    tenant = await registry.get(services_of(request), instance_name_of(request))
    if not tenant.live_view:
        raise ConflictError(f"The live view of {tenant.instance_name} is off.")
