"""Calls of the tenant's own API, one method each; lists are async iterators over all pages."""

from collections.abc import AsyncIterator
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from orchestrator.client.answers import (
    ChatView,
    DeliveryView,
    Kicked,
    LineView,
    OperatorView,
    Problem,
    Replayed,
    ReturnedMessageView,
    RoomView,
    SaidView,
    SigningKey,
    VisitorOnline,
)

Model = TypeVar("Model", bound=BaseModel)

_SECONDS = 30.0


class ApiError(Exception):
    """A call that was refused, or could not be answered.

    Attributes:
        status: of HTTP.
        problem: what the API says (RFC 9457); None when somebody else answered.
        retry_after: seconds after which it is worth trying again, if the answer says so.
    """

    def __init__(self, status: int, problem: Problem | None, retry_after: float | None) -> None:
        super().__init__(f"{status}: {problem.detail if problem else 'no answer of the API'}")
        self.status = status
        self.problem = problem
        self.retry_after = retry_after


class TenantClient:
    """Calls for one tenant, with its own token. All methods raise `ApiError`, or `httpx.TransportError` without answer.

    Args:
        url: the API server's.
        token: of the scope `tenant`.
    """

    def __init__(self, url: str, instance_name: str, token: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=f"{url}/v1/tenants/{quote(instance_name, safe='')}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=_SECONDS,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._http.aclose()

    async def put_operator(self, username: str, **wanted: Any) -> OperatorView:
        """Create the operator, or change it; fields as in `OperatorRequest`."""
        return await self._call(OperatorView, "PUT", _path("operators", username), wanted)

    async def operator(self, username: str) -> OperatorView:
        """The operator, and where it is online."""
        return await self._call(OperatorView, "GET", _path("operators", username))

    def operators(self) -> AsyncIterator[OperatorView]:
        """All operators by name."""
        return self._all(OperatorView, "/operators", "operators")

    async def delete_operator(self, username: str) -> None:
        """Remove the operator."""
        await self._send("DELETE", _path("operators", username))

    async def kick_operator(self, username: str) -> int:
        """End the operator's connections. Returns how many there were."""
        return (await self._call(Kicked, "POST", _path("operators", username, "kick"))).connections

    async def view_page(self, visitor_id: str, **view: Any) -> VisitorOnline:
        """The visitor is on a page; fields as in `PageViewRequest`."""
        return await self._call(VisitorOnline, "POST", _path("visitors", visitor_id, "pageviews"), view)

    async def start_chat(self, chat_id: str, **wanted: Any) -> ChatView:
        """Begin a chat, or find the one of that number; fields as in `ChatRequest`."""
        return await self._call(ChatView, "POST", "/chats", {"chat_id": chat_id, **wanted})

    async def chat(self, chat_id: str) -> ChatView:
        """The chat as it is now."""
        return await self._call(ChatView, "GET", _path("chats", chat_id))

    def chats(self, state: str | None = None) -> AsyncIterator[ChatView]:
        """All chats, or those in a state, oldest first."""
        return self._all(ChatView, "/chats", "chats", **_given(state=state))

    async def write(self, chat_id: str, message: str, message_id: str | None = None) -> LineView:
        """The visitor writes. With a `message_id` of yours the call may be repeated."""
        wanted = {"message": message, "message_id": message_id}
        return await self._call(LineView, "POST", _path("chats", chat_id, "messages"), wanted)

    async def edit(self, chat_id: str, message_id: str, message: str) -> LineView:
        """The visitor corrects what was written."""
        return await self._call(
            LineView, "PATCH", _path("chats", chat_id, "messages", message_id), {"message": message}
        )

    async def retract(self, chat_id: str, message_id: str) -> None:
        """The visitor takes back what was written."""
        await self._send("DELETE", _path("chats", chat_id, "messages", message_id))

    async def confirm(self, chat_id: str, message_id: str, state: str) -> None:
        """An operator's message, by the id that its event told, is `delivered` to the visitor, or `read`."""
        await self._send("POST", _path("chats", chat_id, "messages", message_id, "receipts"), {"state": state})

    async def react(self, chat_id: str, message_id: str, *reactions: str) -> None:
        """The visitor's reactions to a message, all of them; none takes them back.

        An operator's message is known by the id that its event told, the visitor's own by yours.
        """
        body = {"reactions": list(reactions)}
        await self._send("PUT", _path("chats", chat_id, "messages", message_id, "reactions"), body)

    def messages(self, chat_id: str) -> AsyncIterator[LineView]:
        """What was said in the chat, as far as it is kept, oldest first."""
        return self._all(LineView, _path("chats", chat_id, "messages"), "messages")

    async def show_typing(self, chat_id: str, *, composing: bool) -> None:
        """Operators see that the visitor is writing, or no longer."""
        await self._send("POST", _path("chats", chat_id, "typing"), {"composing": composing})

    async def change_chat(self, chat_id: str, nick: str, status: str | None = None) -> ChatView:
        """Give the visitor another nick, or another status."""
        return await self._call(ChatView, "PATCH", _path("chats", chat_id), {"nick": nick, "status": status})

    async def assign_chat(self, chat_id: str, operator: str) -> ChatView:
        """Give the chat to an operator."""
        return await self._call(ChatView, "PUT", _path("chats", chat_id, "owner"), {"operator": operator})

    async def close_chat(self, chat_id: str) -> None:
        """End the chat."""
        await self._send("DELETE", _path("chats", chat_id))

    async def create_room(self, name: str, title: str | None = None) -> RoomView:
        """Make a room for operators."""
        return await self._call(RoomView, "POST", "/rooms", {"name": name, **_given(title=title)})

    async def room(self, name: str) -> RoomView:
        """The room with its members."""
        return await self._call(RoomView, "GET", _path("rooms", name))

    def rooms(self) -> AsyncIterator[RoomView]:
        """All rooms, oldest first."""
        return self._all(RoomView, "/rooms", "rooms")

    async def put_member(self, name: str, operator: str, **wanted: Any) -> RoomView:
        """Note who is to be in the room; `nick`, `invite`."""
        return await self._call(RoomView, "PUT", _path("rooms", name, "members", operator), wanted)

    async def remove_member(self, name: str, operator: str) -> None:
        """Remove a member."""
        await self._send("DELETE", _path("rooms", name, "members", operator))

    async def say(self, name: str, operator: str, message: str, message_id: str | None = None) -> str:
        """Say something in the room that an operator wrote elsewhere. Returns the message's id."""
        wanted = {"operator": operator, "message": message, **_given(message_id=message_id)}
        return (await self._call(SaidView, "POST", _path("rooms", name, "messages"), wanted)).message_id

    async def delete_room(self, name: str) -> None:
        """Remove the room."""
        await self._send("DELETE", _path("rooms", name))

    def deliveries(self, state: str | None = None) -> AsyncIterator[DeliveryView]:
        """What became of events on their way to the tenant, oldest first."""
        return self._all(DeliveryView, "/deliveries", "deliveries", **_given(state=state))

    async def replay_deliveries(self) -> int:
        """Try all dead events again. Returns how many."""
        return (await self._call(Replayed, "POST", "/deliveries/replay")).replayed

    def returned_messages(self) -> AsyncIterator[ReturnedMessageView]:
        """What visitors wrote and no operator got, oldest first."""
        return self._all(ReturnedMessageView, "/returned-messages", "returned_messages")

    async def replay_returned_messages(self) -> int:
        """Send all of those again that were not yet. Returns how many."""
        return (await self._call(Replayed, "POST", "/returned-messages/replay")).replayed

    async def rotate_signing_key(self, overlap_seconds: float = 3600) -> str | None:
        """A new key that webhooks are signed with; for so many seconds both sign."""
        wanted = {"overlap_seconds": overlap_seconds}
        return (await self._call(SigningKey, "POST", "/signing-key", wanted)).signing_key

    async def _call(self, model: type[Model], method: str, path: str, body: dict[str, Any] | None = None) -> Model:
        return model.model_validate_json((await self._send(method, path, body)).content)

    async def _all(self, model: type[Model], path: str, key: str, **query: Any) -> AsyncIterator[Model]:
        """All rows of a list, page by page; `key` is the name of the rows in a page."""
        while True:
            page = (await self._send("GET", path, **query)).json()
            for row in page[key]:
                yield model.model_validate(row)
            if page["next"] is None:
                return
            query["after"] = page["next"]

    async def _send(self, method: str, path: str, body: dict[str, Any] | None = None, **query: Any) -> httpx.Response:
        answer = await self._http.request(method, path, json=body, params=query)
        if answer.is_success:
            return answer
        retry_after = answer.headers.get("Retry-After", "")
        raise ApiError(answer.status_code, _problem(answer), float(retry_after) if retry_after.isdecimal() else None)


def _given(**query: str | None) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _path(*parts: str) -> str:
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _problem(answer: httpx.Response) -> Problem | None:
    if answer.headers.get("content-type", "").partition(";")[0] != "application/problem+json":
        return None
    return Problem.model_validate_json(answer.content)
