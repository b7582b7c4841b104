"""Who may use the console, and how people log in: by a password, a panel token, or a link that works once."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates
from starlette_admin.auth import AdminUser, AuthProvider, login_not_required
from starlette_admin.exceptions import LoginFailed

from orchestrator.api.http.addresses import counted_as
from orchestrator.api.http.metrics import count_failed_login
from tenants.access import console_sessions, console_users, one_time_links
from tenants.access.console_sessions import SESSION_SECONDS, Person
from tenants.lifecycle.audit import Cause
from tenants.process.services import Services
from tenants.store.models import Purpose, Role

COOKIE = "orchestrator_console"
_NAME_LIMIT, _ADDRESS_LIMIT = RateLimitItemPerMinute(10, 5), RateLimitItemPerMinute(50, 5)
"""Attempts to log in that each API process allows, for one name and from one address."""


def services_of(request: Request) -> Services:
    """The services of this process."""
    services: Services = request.app.state.services
    return services


def person_of(request: Request) -> Person:
    """Who is logged in."""
    person: Person = request.state.person
    return person


def cause_of(request: Request, reason: str | None = None) -> Cause:
    """The cause of what is done in this request: the person who is logged in."""
    return Cause(person_of(request).actor, reason)


def address_of(request: Request) -> str:
    """Where the request comes from: what a trusted proxy says, else who is connected."""
    return request.client.host if request.client else "?"


def need(request: Request, role: Role) -> None:
    """Refuse with 403 who has not that role at least."""
    if not person_of(request).may(role):
        raise HTTPException(HTTPStatus.FORBIDDEN, f"This needs the role {role}.")


class Access(AuthProvider):
    """Login, logout and the sessions between, for starlette-admin."""

    def __init__(self) -> None:
        super().__init__(allow_routes=["enter"])
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def authenticate(self, request: Request) -> AdminUser | None:
        cookie = request.cookies.get(COOKIE)
        if cookie is None or request.url.path.startswith(f"{request.scope['root_path']}/static/"):
            return None
        person = await console_sessions.who(services_of(request), cookie)
        if person is None:
            return None
        request.state.person = person
        return AdminUser(username=f"{person.actor.removeprefix('console:')} ({person.role})")

    async def login(self, username: str, password: str, remember_me: bool, request: Request) -> Response | None:
        """With name and password; or without a name, with a panel token in the password's place."""
        name, services = username.strip(), services_of(request)
        await self._admit(request, name)
        if name:
            cookie = await console_users.log_in(services, name, password, address_of(request))
        else:
            cookie = await console_users.log_in_by_token(services, password.strip(), address_of(request))
        if cookie is None:
            count_failed_login("refused")
            raise LoginFailed("Name or password is wrong." if name else "This is no panel token.")
        return _let_in(request, cookie)

    async def logout(self, request: Request) -> Response | None:
        await console_sessions.log_out(services_of(request).database, request.cookies.get(COOKIE, ""))
        response = RedirectResponse(request.url_for("console:login"), HTTPStatus.SEE_OTHER)
        response.delete_cookie(COOKIE, path=request.scope["root_path"])
        return response

    def get_routes(self, templates: Jinja2Templates) -> list[Route]:
        @login_not_required
        async def enter(request: Request) -> Response:
            """The page of a login link. What only fetches it, as a mail server may, does not use it up."""
            secret = request.path_params["secret"]
            if request.method == "POST":
                await self._admit(request, "")
                cookie = await console_users.log_in_by_link(services_of(request), secret, address_of(request))
                if cookie is not None:
                    return _let_in(request, cookie)
                count_failed_login("refused")
            link = await one_time_links.find(services_of(request), Purpose.LOGIN, secret)
            status = HTTPStatus.OK if link else HTTPStatus.GONE
            return templates.TemplateResponse(request, "enter.html", {"link": link}, status)

        return [*super().get_routes(templates), Route("/enter/{secret}", enter, methods=["GET", "POST"], name="enter")]

    async def _admit(self, request: Request, name: str) -> None:
        keys: Sequence[tuple[Any, str, str]] = [(_ADDRESS_LIMIT, "address", counted_as(address_of(request)))]
        if name:
            keys = [*keys, (_NAME_LIMIT, "name", name[: console_users.LONGEST_NAME])]
        for limit, kind, key in keys:
            if not await self._limiter.hit(limit, kind, key):
                count_failed_login("paused")
                raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, "Too many attempts; try again in five minutes.")


def _let_in(request: Request, cookie: str) -> Response:
    response = RedirectResponse(_wanted(request), HTTPStatus.SEE_OTHER)
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=int(SESSION_SECONDS),
        path=request.scope["root_path"],
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    return response


def _wanted(request: Request) -> str:
    """The page that was asked for before the login, when it is one of ours."""
    index = str(request.url_for("console:index"))
    wanted = request.query_params.get("next", "")
    return wanted if wanted.startswith(index) else index
