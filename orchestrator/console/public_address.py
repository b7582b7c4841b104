"""Where people find the console: its links and redirects lead there, whatever host a request names."""

from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_PATHS = ("/console", "/onboarding")


class PublicAddress:
    """ASGI middleware: pages for people are at one address alone, and know that they are.

    Whoever can choose the host of a request could else choose where its links and redirects lead. Calls of LHC and of
    the panel hold no links, and come under many names: they are not looked at.

    Args:
        app: the application around which it is.
        public_url: of the settings. Without it pages are shown at `localhost` and at addresses in digits, which no
            stranger's name in DNS can be.
    """

    def __init__(self, app: ASGIApp, public_url: str) -> None:
        self._app = app
        self._public_url = public_url
        self._public = urlsplit(public_url)
        if public_url and (self._public.scheme not in {"http", "https"} or not self._public.hostname):
            raise ValueError("ORCHESTRATOR_PUBLIC_URL is to be as https://orchestrator.example.com")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_PATHS):
            await self._app(scope, receive, send)
        elif not self._is_ours(Headers(scope=scope).get("host", "")):
            await PlainTextResponse(self._elsewhere(), HTTPStatus.MISDIRECTED_REQUEST)(scope, receive, send)
        else:
            await self._app(self._as_people_see_it(scope), receive, send)

    def _is_ours(self, host: str) -> bool:
        """By the name alone: a proxy may leave out its own port."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name == self._public.hostname if self._public_url else name == "localhost" or _is_in_digits(name)

    def _as_people_see_it(self, scope: Scope) -> Scope:
        if not self._public_url:
            return scope
        seen = {**scope, "scheme": self._public.scheme, "headers": list(scope["headers"])}
        MutableHeaders(scope=seen)["host"] = self._public.netloc
        return seen

    def _elsewhere(self) -> str:
        if self._public_url:
            return f"This is at {self._public_url} alone. A web server before it has to pass the host on."
        return "Under this name it is not shown: set ORCHESTRATOR_PUBLIC_URL to where people find it."


def _is_in_digits(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
