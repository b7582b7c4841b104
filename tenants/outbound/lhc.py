"""Callbacks to an LHC instance in the `lhc` format: byte for byte what its extension expects."""

import json
import re
import string
from dataclasses import replace
from http import HTTPStatus
from urllib.parse import quote

from config.settings import Settings
from tenants.core.clock import Clock
from tenants.core.errors import InvalidInputError
from tenants.outbound.addresses import AnyHost
from tenants.outbound.poster import Answer, Poster, explained

_SERVICE_PATH = "/xmppservice"
_MESSAGE_PATH = f"{_SERVICE_PATH}/processmessage"
_STATUS_PATH = f"{_SERVICE_PATH}/operatorstatus"
_UNESCAPED = string.ascii_letters + string.digits + "_.-/:"
_NO_ADDRESS = (
    "must be given: the tenant's name holds two dashes in a row, so it gives no address (every dash becomes a dot)"
)
_MEANINGS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "the web server wants a login; callback_url may hold one",
    HTTPStatus.FORBIDDEN: "the web server does not let us in",
    HTTPStatus.NOT_FOUND: "there is no such page; callback_url is not LHC's address, or the XMPP extension is missing",
    HTTPStatus.GONE: "the address is given up; mend callback_url",
}
NOBODY = "nobody at all"
"""The sender of a message that LHC takes and ignores: no operator can be called so."""
_LEADS_ELSEWHERE = "it leads elsewhere; the XMPP extension is disabled there, or callback_url is not LHC's address"
_TITLE = re.compile(rb"<title[\s>]", re.IGNORECASE)
_PHP_ERROR = re.compile(rb"(Fatal|Parse) error(</b>)?:")


def callback_base(settings: Settings, instance_name: str, callback_url: str | None) -> str | None:
    """Where the tenant's LHC is: the registry's URL, else made from the instance name, every dash of it a dot.

    None: its name gives no address, since a part of it would be empty.
    """
    if callback_url:
        return callback_url
    if "--" in instance_name:
        return None
    port = f":{settings.callback_port}" if settings.callback_port else ""
    address = instance_name.replace("-", ".") + "." if settings.hosting else ""
    return f"{settings.callback_protocol}{address}{settings.callback_base_domain}{port}"


def check_address(settings: Settings, instance_name: str, callback_url: str | None) -> None:
    """Raise InvalidInputError when neither the URL nor the name says where the tenant's LHC is."""
    if callback_base(settings, instance_name, callback_url) is None:
        raise InvalidInputError("callback_url", _NO_ADDRESS)


def message_page(base: str) -> str:
    """The page of LHC's that takes messages."""
    return _page(base, _MESSAGE_PATH)


def _page(base: str, path: str) -> str:
    """A page below an address. That may be of one of the two pages already; a query comes behind the path."""
    address, _, query = base.partition("#")[0].partition("?")
    root = address.rstrip("/")
    for own in (_MESSAGE_PATH, _STATUS_PATH, _SERVICE_PATH):
        root = root.removesuffix(own).rstrip("/")
    return f"{root}{path}?{query}" if query else root + path


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


def strange(beginning: bytes) -> str | None:
    """What is strange about an answer that begins so: both pages of LHC's answer nothing. None: nothing is."""
    if _TITLE.search(beginning):
        return "a web page with a title came back, not LHC's empty answer: is callback_url LHC's address?"
    if _PHP_ERROR.search(beginning):
        return "PHP reports a fatal error: LHC may not have kept it"
    return None


class LhcClient:
    """Posts callbacks. LHC answers 200 also when it ignored one: a success is "received", no more."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._poster = Poster(settings, clock, AnyHost())
        self._server = settings.xmpp_host

    async def close(self) -> None:
        await self._poster.close()

    async def reach(self, base: str) -> Answer:
        """Ask for the page that takes messages: without one, LHC answers nothing."""
        return _judged(await self._poster.reach(message_page(base)))

    async def post_message(self, base: str, body: bytes) -> Answer:
        """Post an operator's message, or presence in a room."""
        answer = await self._post_form(base, body)
        return _judged(await self._with_others(base, answer))

    async def post_status(self, base: str, body: str) -> Answer:
        """Post an operator's status."""
        headers = {"Content-Type": "application/json"}
        answer = await self._poster.post(_page(base, _STATUS_PATH), body.encode(), headers)
        return _judged(await self._with_others(base, answer))

    async def _post_form(self, base: str, body: bytes) -> Answer:
        return await self._poster.post(message_page(base), body, {"Content-Type": "application/x-www-form-urlencoded"})

    async def _with_others(self, base: str, answer: Answer) -> Answer:
        """After a 500: LHC says so of a chat, visitor or room that it does not know, and of anything when it is broken.

        It does all that it does with a message until it looks for the operator: then it says 200, and does no more.
        """
        if answer.http_status != HTTPStatus.INTERNAL_SERVER_ERROR:
            return answer
        unknown = message_body(body="", sender=NOBODY, receiver="visitor.0.chat", server=self._server)
        return replace(answer, takes_others=(await self._post_form(base, unknown)).error is None)


def _judged(answer: Answer) -> Answer:
    """The answer in words that help who reads them."""
    if answer.error is None:
        return replace(answer, warning=strange(answer.beginning) or answer.warning, beginning=b"")
    return explained(answer, _MEANINGS, _LEADS_ELSEWHERE)


def _percent(value: str) -> str:
    # `quote` always keeps `~` too, which LHC's old sender encoded
    return quote(value, safe=_UNESCAPED, errors="replace").replace("~", "%7E")
