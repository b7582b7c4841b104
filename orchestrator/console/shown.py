"""How values are shown to people: times, ages and small charts. All of it is escaped by the templates."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def when(at: float | None) -> str:
    """A moment, in UTC."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float | None) -> str:
    """How long: in the largest unit that gives a whole number."""
    if seconds is None:
        return ""
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def ago(at: float | None) -> str:
    """How long it is since then."""
    return "" if at is None else f"{span(max(0.0, time.time() - at))} ago"


def setting(value: object) -> str:
    """A tenant's setting."""
    match value:
        case None:
            return "no limit"
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def points(values: Sequence[float], width: int, height: int, highest: float | None = None) -> str:
    """The points of an SVG polyline of these values."""
    top = max(highest or 0, *values, 1)
    step = width / max(1, len(values) - 1)
    return " ".join(
        f"{index * step:.1f},{height - 1 - value / top * (height - 2):.1f}" for index, value in enumerate(values)
    )
