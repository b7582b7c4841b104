"""Errors as problem documents (RFC 9457) that name the field and the rule."""

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from tenants.errors import (
    ConflictError,
    DomainError,
    InvalidInputError,
    NotFoundError,
    QuotaExceededError,
    UnavailableError,
)

log = structlog.get_logger(__name__)

_RETRY_AFTER = "5"
_METHODS = ["GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE", "PATCH"]


def problem(status: HTTPStatus, detail: str, headers: dict[str, str] | None = None, **extra: Any) -> JSONResponse:
    """A problem document; its type is about:blank, so the title is the status' own phrase."""
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail, **extra}
    return JSONResponse(body, status.value, headers=headers, media_type="application/problem+json")


def add_handlers(app: FastAPI) -> None:
    """Turn what the domain raises into problem documents."""

    @app.exception_handler(DomainError)
    async def domain_error(_request: Request, error: DomainError) -> JSONResponse:
        match error:
            case InvalidInputError():
                return problem(
                    HTTPStatus.UNPROCESSABLE_ENTITY, str(error), errors=[{"field": error.field, "rule": error.rule}]
                )
            case NotFoundError():
                return problem(HTTPStatus.NOT_FOUND, str(error))
            case ConflictError():
                return problem(HTTPStatus.CONFLICT, str(error))
            case QuotaExceededError():
                wait = {"Retry-After": str(math.ceil(error.retry_after))}
                return problem(HTTPStatus.TOO_MANY_REQUESTS, str(error), wait)
            case UnavailableError():
                return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), {"Retry-After": _RETRY_AFTER})
        log.error("unexpected domain error", error=str(error))
        return problem(HTTPStatus.BAD_GATEWAY, str(error))

    @app.exception_handler(DBAPIError)
    async def database_error(_request: Request, error: DBAPIError) -> JSONResponse:
        log.error("database", error=type(error).__name__)
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, "the database cannot be reached", {"Retry-After": _RETRY_AFTER})

    @app.exception_handler(RequestValidationError)
    async def validation_error(_request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            {"field": ".".join(map(str, item["loc"][1:])) or "body", "rule": item["msg"]} for item in error.errors()
        ]
        detail = "; ".join(f"{item['field']}: {item['rule']}" for item in errors)
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        return problem(HTTPStatus(error.status_code), error.detail, headers)


def answer_unknown_paths(app: FastAPI) -> None:
    """Below /v1 a path that is none is a problem, and so is a method that its path does not know. Called last."""
    routes = list(app.routes)

    @app.api_route("/v1/{path:path}", methods=_METHODS, include_in_schema=False)
    async def unknown(path: str, request: Request) -> JSONResponse:
        allowed = [method for method in _METHODS if _knows(routes, request.scope, method)]
        if allowed:
            said = f"{request.method} is not known at /v1/{path}"
            return problem(HTTPStatus.METHOD_NOT_ALLOWED, said, {"Allow": ", ".join(allowed)})
        return problem(HTTPStatus.NOT_FOUND, f"there is nothing at /v1/{path}")


def _knows(routes: Sequence[BaseRoute], scope: Scope, method: str) -> bool:
    return any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
