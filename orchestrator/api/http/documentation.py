"""The OpenAPI document: what holds for many endpoints, and cannot be read from their signatures."""

from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from orchestrator.api.http.problems import PREFIX, Problem
from orchestrator.api.http.views import document_problem
from tenants.access import idempotency

_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Makes the request safe to repeat for a day: it is answered as the first time, without secrets.",
    "schema": {"type": "string", "minLength": 1, "maxLength": idempotency.LONGEST_KEY},
}


def complete(app: FastAPI) -> None:
    """Add the schema of problem documents, what a bad body is answered, and the key of `POST` requests."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = app.openapi_schema
        if document is None:
            document = generate()
            _complete(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _complete(document: dict[str, Any]) -> None:
    _, problem = TypeAdapter.json_schemas(
        [("problem", "serialization", TypeAdapter(Problem))], ref_template="#/components/schemas/{model}"
    )
    document["components"]["schemas"] |= problem["$defs"]
    for path, methods in document["paths"].items():
        if not path.startswith(PREFIX):
            continue
        for method, operation in methods.items():
            if "requestBody" in operation:
                operation["responses"] |= {str(status): document_problem(status) for status in (400, 413, 415)}
            if method == "post":
                operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
                operation["responses"].setdefault("409", document_problem(409))
