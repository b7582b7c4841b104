"""Errors as problem documents (RFC 9457) that name the field and the rule."""

import math
from collections.abc import Sequence
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from tenants.core.errors import (
    ConflictError,
    DomainError,
    InvalidInputError,
    NotFoundError,
    QuotaExceededError,
    UnavailableError,
)
from tenants.store.database import DATABASE_AWAY

log = structlog.get_logger(__name__)

PREFIX = "/v1/"
"""Of the panel's API: below it every error is a problem document."""
MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER = {"Retry-After": "5"}
_METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE", "PATCH")


class FieldProblem(BaseModel):
    """A value that breaks a rule."""

    field: str
    rule: str


class Problem(BaseModel):
    """A problem document (RFC 9457); its type is about:blank, so the title is the status' own phrase."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = Field(None, description="What is wrong with which field.")


def describe(error: DomainError) -> Problem:
    """What the domain has raised, as a problem document."""
    match error:
        case InvalidInputError():
            field = FieldProblem(field=error.field, rule=error.rule)
            return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), [field])
        case NotFoundError():
            return _problem(HTTPStatus.NOT_FOUND, str(error))
        case ConflictError():
            return _problem(HTTPStatus.CONFLICT, str(error))
        case QuotaExceededError():
            return _problem(HTTPStatus.TOO_MANY_REQUESTS, str(error))
        case UnavailableError():
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
    log.error("unexpected domain error", error=str(error))
    return _problem(HTTPStatus.BAD_GATEWAY, str(error))


def answer(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """The problem document as an answer."""
    return JSONResponse(problem.model_dump(exclude_none=True), problem.status, headers=headers, media_type=MEDIA_TYPE)


def refuse(status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An answer that tells no more than its status and a sentence."""
    return answer(_problem(status, detail), headers)


def _problem(status: HTTPStatus, detail: str, errors: list[FieldProblem] | None = None) -> Problem:
    return Problem(title=status.phrase, status=status.value, detail=detail, errors=errors)


def add_handlers(app: FastAPI) -> None:
    """Turn what is raised into problem documents."""

    @app.exception_handler(DomainError)
    async def domain_error(_request: Request, error: DomainError) -> JSONResponse:
        match error:
            case QuotaExceededError():
                return answer(describe(error), {"Retry-After": str(max(1, math.ceil(error.retry_after)))})
            case UnavailableError():
                return answer(describe(error), _RETRY_AFTER)
        return answer(describe(error))

    for away in DATABASE_AWAY:
        app.add_exception_handler(away, _database_away)

    @app.exception_handler(RequestValidationError)
    async def validation_error(_request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        if found[0]["type"] == "json_invalid":
            return refuse(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON: {found[0]['ctx']['error']}")
        errors = [FieldProblem(field=_field_name(item["loc"]), rule=item["msg"]) for item in found]
        detail = "; ".join(f"{one.field}: {one.rule}" for one in errors)
        return answer(_problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors))

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        return refuse(HTTPStatus(error.status_code), error.detail, headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, _error: Exception) -> Response:
        # it is raised again behind this answer, and so comes to the log and to Sentry
        said = "something went wrong here; it was recorded"
        if request.url.path.startswith(PREFIX):
            return refuse(HTTPStatus.INTERNAL_SERVER_ERROR, said)
        return PlainTextResponse(said, HTTPStatus.INTERNAL_SERVER_ERROR)


async def _database_away(_request: Request, error: Exception) -> JSONResponse:
    log.error("database", error=type(error).__name__)
    return refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the database cannot be reached", _RETRY_AFTER)


def _field_name(location: Sequence[str | int]) -> str:
    """As its sender knows it. It may be a name that he made up, with a lone surrogate that UTF-8 cannot carry."""
    return ".".join(map(str, location[1:])).encode(errors="replace").decode() or "body"


def answer_unknown_paths(app: FastAPI) -> None:
    """Below /v1 a path that is none is a problem, and so is a method that its path does not know. Called last."""
    app.router.routes.append(Route(f"{PREFIX}{{path:path}}", _Unknown(list(app.routes)), include_in_schema=False))


class _Unknown:
    """An ASGI application and no function, because its route is to answer every method."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        allowed = [method for method in _METHODS if self._knows(scope, method)]
        if allowed:
            said = f"{scope['method']} is not known at {scope['path']}"
            response = refuse(HTTPStatus.METHOD_NOT_ALLOWED, said, {"Allow": ", ".join(allowed)})
        else:
            response = refuse(HTTPStatus.NOT_FOUND, f"there is nothing at {scope['path']}")
        await response(scope, receive, send)

    def _knows(self, scope: Scope, method: str) -> bool:
        return any(route.matches({**scope, "method": method})[0] is Match.FULL for route in self._routes)
