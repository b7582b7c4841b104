"""The text of a visitor's status, from what a page view tells of: what operators see beside the visitor's name."""

from dataclasses import dataclass

from tenants.visitors.presence import DEFAULT_STATUS

_BETWEEN = "\n| "
"""Between two lines, as LHC's extension writes it."""


@dataclass(frozen=True, slots=True)
class PageView:
    """What is known of a page view. What is None is not shown."""

    page: str | None = None
    referrer: str | None = None
    country: str | None = None
    city: str | None = None
    time_zone: str | None = None
    visits: int | None = None
    department: str | None = None


def render(view: PageView) -> str:
    """The status text: a line for each thing that is known."""
    place = ", ".join(part for part in (view.city, view.country) if part)
    named = {
        "Page": view.page,
        "Referrer": view.referrer,
        "Location": place or None,
        "Time zone": view.time_zone,
        "Visits": view.visits,
        "Department": view.department,
    }
    # a value is one line: nothing in it can look like another one of ours
    lines = [f"{name}: {' '.join(str(value).split())}" for name, value in named.items() if value is not None]
    return _BETWEEN.join(lines) or DEFAULT_STATUS
