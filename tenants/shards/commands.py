"""The commands that the pool carries out for a tenant, and the shard on whose queue they go.

Commands are JSON on one durable queue per shard. They carry all they need, so that the pool asks no database on its
hot path, and each may be handled twice: a repeated message keeps its stanza id.
"""

import hashlib

import msgspec


class Command(msgspec.Struct, frozen=True, tag_field="command", kw_only=True):
    """Base: every command concerns one tenant.

    `incarnation`: of the tenant that is meant, since another one may bear its name when the command is carried out.
    None: sent by the version before this one, while both run.
    """

    instance_name: str
    incarnation: str | None = None


class ShowVisitor(Command, frozen=True, tag="show", kw_only=True):
    """The visitor or chat is online until `online_until` (Unix seconds), with this nick and status.

    `version` is the session row's. A command of an older version than is known says nothing new.
    """

    username: str
    nick: str
    status: str
    online_until: float
    version: int


class SendMessage(Command, frozen=True, tag="message", kw_only=True):
    """A message of the visitor to an operator. `message_id` becomes the stanza's id (RFC 6120, 8.1.3).

    `replaces`: the id of the message that reads so now (XEP-0308); `retracts`: of the one that was taken back
    (XEP-0424).
    """

    username: str
    operator: str
    body: str
    message_id: str
    replaces: str | None = None
    retracts: str | None = None


class SendToRoom(Command, frozen=True, tag="room", kw_only=True):
    """A message to a room, written elsewhere. `room`, `sender`: local parts in ejabberd; `nick`: the name shown."""

    room: str
    sender: str
    nick: str
    body: str
    message_id: str


class ShowTyping(Command, frozen=True, tag="typing", kw_only=True):
    """The visitor began to write to the operator, or ceased to (XEP-0085).

    `told_until` (Unix seconds): after this it is of no use any more.
    """

    username: str
    operator: str
    composing: bool
    told_until: float


class SendReceipt(Command, frozen=True, tag="receipt", kw_only=True):
    """What became of a message that the operator wrote to the visitor, for the client that wrote it.

    `of`: what that client calls the message; `received`: it has arrived (XEP-0184); `marker`: how far it has come
    (XEP-0333), `received` or `displayed`; `receipt_id` becomes the stanza's id.
    """

    username: str
    operator: str
    resource: str
    of: str
    received: bool
    marker: str | None
    receipt_id: str


class SendReactions(Command, frozen=True, tag="reactions", kw_only=True):
    """The visitor's reactions to a message of the operator, all of them (XEP-0444). `of`: what its client calls it."""

    username: str
    operator: str
    of: str
    reactions: list[str]
    stanza_id: str


class CloseVisitor(Command, frozen=True, tag="close", kw_only=True):
    """The visitor or chat is gone: operators see them leave at once."""

    username: str


class CloseTenant(Command, frozen=True, tag="close-tenant", kw_only=True):
    """All of the tenant's visitors are gone."""


AnyCommand = (
    ShowVisitor | SendMessage | SendToRoom | ShowTyping | SendReceipt | SendReactions | CloseVisitor | CloseTenant
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)


def encode(command: AnyCommand) -> bytes:
    """The command as it travels."""
    return _encoder.encode(command)


def decode(body: bytes | str) -> AnyCommand:
    """Read a command.

    Raises:
        msgspec.DecodeError: the body is none of the commands.
    """
    return _decoder.decode(body)


def shard_of(instance_name: str, shard_count: int) -> int:
    """The shard a tenant belongs to: the same in every process and on every machine, for ever."""
    digest = hashlib.blake2b(instance_name.encode(), digest_size=8).digest()
    return int.from_bytes(digest) % shard_count


def queue_name(shard: int) -> str:
    """The name of the shard's queue."""
    return f"shard.{shard:04d}"
