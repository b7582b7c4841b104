"""The API's answers as the client reads them, named as in the API's own document (`/openapi.json`).

They are declared once more because the API's own models need the server and the database. A test compares them with the
document. States are plain strings: a later server may have a state that this client does not know.
"""

from datetime import datetime

from pydantic import BaseModel


class ConnectionView(BaseModel):
    """One device of an operator."""

    resource: str
    show: str
    status: str
    online_since: datetime


class OperatorView(BaseModel):
    """An operator, and where it is online."""

    username: str
    lhc_user_id: int | None
    nick: str | None
    departments: list[str] | None
    receives_new_chats: bool
    online: bool
    connections: list[ConnectionView]
    created_at: datetime


class Kicked(BaseModel):
    """How many connections were ended."""

    connections: int


class VisitorOnline(BaseModel):
    """A visitor whom operators see from now on."""

    username: str
    status: str
    online_until: datetime


class ChatView(BaseModel):
    """A chat as it is now."""

    id: int
    chat_id: str
    state: str
    username: str
    nick: str
    department: str | None
    owner: str | None
    created_at: datetime
    accepted_at: datetime | None
    closed_at: datetime | None


class LineView(BaseModel):
    """Something that was said in a chat."""

    id: int
    message_id: str
    sender: str
    state: str
    body: str | None
    created_at: datetime
    arrived_at: datetime | None


class MemberView(BaseModel):
    """Who is to be in a room."""

    operator: str
    nick: str


class RoomView(BaseModel):
    """A room as it is now."""

    id: int
    name: str
    title: str
    address: str
    origin: str
    members: list[MemberView]
    created_at: datetime


class SaidView(BaseModel):
    """A message in a room that was accepted."""

    message_id: str


class DeliveryView(BaseModel):
    """An event on its way to the tenant."""

    id: int
    event: str
    sender: str
    receiver: str
    state: str
    attempts: int
    last_error: str | None
    created_at: datetime
    finished_at: datetime | None


class ReturnedMessageView(BaseModel):
    """A visitor's message that did not reach the operator."""

    id: int
    message_id: str
    visitor: str
    operator: str
    condition: str
    reason: str | None
    created_at: datetime
    replayed_at: datetime | None


class Replayed(BaseModel):
    """How many messages are tried again."""

    replayed: int


class SigningKey(BaseModel):
    """The key that webhooks are signed with."""

    signing_key: str | None


class FieldProblem(BaseModel):
    """A value that breaks a rule."""

    field: str
    rule: str


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = None
