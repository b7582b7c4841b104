"""Callbacks to an LHC instance in the `lhc` format: byte for byte what its extension expects."""

import json
import string
from urllib.parse import quote

from config.settings import Settings
from tenants.core.clock import Clock
from tenants.core.naming import STANDALONE_INSTANCE
from tenants.outbound.addresses import AnyHost
from tenants.outbound.poster import Answer, Poster

_MESSAGE_PATH = "/xmppservice/processmessage"
_STATUS_PATH = "/xmppservice/operatorstatus"
_UNESCAPED = string.ascii_letters + string.digits + "_.-/:"


def callback_base(settings: Settings, instance_name: str, callback_url: str | None) -> str:
    """Where the tenant's LHC is: the registry's URL, else made from the instance name, every dash of it a dot."""
    if callback_url:
        return callback_url.rstrip("/")
    port = f":{settings.callback_port}" if settings.callback_port else ""
    address = "" if instance_name == STANDALONE_INSTANCE else instance_name.replace("-", ".") + "."
    return f"{settings.callback_protocol}{address}{settings.callback_base_domain}{port}"


def message_body(*, body: str, sender: str, receiver: str, server: str, kind: str = "chat") -> bytes:
    """The form of a message to a visitor (`chat`) or in a room (`groupchat`)."""
    return _form({"body": body, "sender": sender, "receiver": receiver, "server": server, "type": kind})


def presence_body(*, available: bool, sender: str, room: str, server: str) -> bytes:
    """The form that tells who came into a room, or left it."""
    status = "available" if available else "unavailable"
    return _form({"status": status, "sender": sender, "receiver": room, "server": server, "type": "presence"})


def _form(fields: dict[str, str]) -> bytes:
    """Every byte is percent-encoded except `A-Za-z0-9_.-/:`."""
    return "&".join(f"{name}={_percent(value)}" for name, value in fields.items()).encode()


def status_body(*, action: str, user: str, server: str | None = None) -> str:
    """The JSON of an operator's status: `connect` and `disconnect` with the server, `ping` with the full JID alone."""
    fields = {"action": action, "user": user}
    if server is not None:
        fields["server"] = server
    return json.dumps(fields, separators=(",", ":"))


class LhcClient:
    """Posts callbacks. LHC answers 200 also when it ignored one: a success is "received", no more."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._poster = Poster(settings, clock, AnyHost())

    async def close(self) -> None:
        await self._poster.close()

    async def reach(self, base: str) -> Answer:
        """Whether anybody answers there."""
        return await self._poster.reach(base)

    async def post_message(self, base: str, body: bytes) -> Answer:
        """Post an operator's message, or presence in a room."""
        return await self._poster.post(
            base + _MESSAGE_PATH, body, {"Content-Type": "application/x-www-form-urlencoded"}
        )

    async def post_status(self, base: str, body: str) -> Answer:
        """Post an operator's status."""
        return await self._poster.post(base + _STATUS_PATH, body.encode(), {"Content-Type": "application/json"})


def _percent(value: str) -> str:
    # `quote` always keeps `~` too, which LHC's old sender encoded
    return quote(value, safe=_UNESCAPED, errors="replace").replace("~", "%7E")
