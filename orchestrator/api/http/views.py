"""What several resources of the API show, and the problem documents they may answer with."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.http.problems import MEDIA_TYPE
from tenants.store.models import Operation, OperationKind, OperationState, RequestedStop, StepState


class View(BaseModel):
    """A view that reads its values from a row's attributes."""

    model_config = ConfigDict(from_attributes=True)


PROBLEM_SCHEMA = "#/components/schemas/Problem"
_DESCRIPTIONS = {
    400: "The body is not valid JSON.",
    401: "No token, or one that opens nothing.",
    403: "The token's scope does not allow it.",
    404: "There is no such thing.",
    409: "It contradicts the present state, or what is under way.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    422: "A value breaks a rule; the document names field and rule.",
    429: "Too much at once; see Retry-After.",
    503: "A server behind us is away; see Retry-After.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Documentation of these answers, beside those that every endpoint has."""
    return {status: document_problem(status) for status in sorted({401, 403, 422, 503, *statuses})}


def document_problem(status: int) -> dict[str, Any]:
    """Documentation of the answer with this status; the schema is added by `orchestrator.api.http.documentation`."""
    return {"description": _DESCRIPTIONS[status], "content": {MEDIA_TYPE: {"schema": {"$ref": PROBLEM_SCHEMA}}}}


class StepView(View):
    """One step of a workflow."""

    name: str
    state: StepState
    attempts: int
    done: int
    total: int
    error: str | None
    started_at: datetime | None
    finished_at: datetime | None


class OperationView(View):
    """One run of a workflow."""

    id: str
    instance_name: str
    kind: OperationKind
    state: OperationState
    wanted: RequestedStop | None = Field(description="What was asked for and is not done yet.")
    requested_by: str
    reason: str | None
    bulk_id: str | None
    progress: float = Field(description="From 0 to 1.")
    error: str | None
    result: dict[str, Any] | None
    celery_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    steps: list[StepView]

    @classmethod
    def of(cls, operation: Operation) -> "OperationView":
        """The operation as the panel sees it."""
        steps = operation.steps
        progress = sum(step.done / max(step.total, 1) for step in steps) / len(steps) if steps else 0.0
        return cls(
            **{name: getattr(operation, name) for name in cls.model_fields if name not in {"progress", "steps"}},
            progress=round(progress, 3),
            steps=[StepView.model_validate(step) for step in steps],
        )


def instant(seconds: float) -> datetime:
    """Unix seconds as a moment."""
    return datetime.fromtimestamp(seconds, UTC)
