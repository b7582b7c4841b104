"""What operators ought to see of a visitor, by what LHC was told that the system has taken. Pure."""

from dataclasses import dataclass, field

_ON_ITS_WAY = 3.0
"""Seconds: a presence that arrives may have been sent so long ago, before the visitor came back."""
_ROUNDING = 1.0


@dataclass(slots=True)
class Visitor:
    """A visitor's own story.

    Attributes:
        window: seconds that one activity keeps the visitor online.
        status: of the latest page view that was accepted.
        begun: the status of one that has not been answered yet; operators may see it or not.
        activities: beginnings of the accepted page views and messages.
    """

    username: str
    window: float
    status: str | None = None
    begun: str | None = None
    activities: list[float] = field(default_factory=list)

    def page_view_begins(self, status: str) -> None:
        self.begun = status

    def page_view_accepted(self, begun_at: float) -> None:
        self.status, self.begun = self.begun, None
        self.activities.append(begun_at)

    def message_accepted(self, begun_at: float) -> None:
        self.activities.append(begun_at)

    def online(self, now: float) -> bool:
        """Whether the time that the latest activity gave is not over yet."""
        return any(activity + self.window > now for activity in self.activities)

    def may_be_seen_as(self, status: str | None, now: float) -> bool:
        """Whether an operator may see that status now; None is offline."""
        if not self.online(now):
            return status is None
        return status is not None and status in {self.status, self.begun}

    def must_be_online(self, at: float) -> bool:
        """Whether a presence of type unavailable that arrived at that time was wrong whenever it was sent."""
        return any(activity + _ON_ITS_WAY < at < activity + self.window - _ROUNDING for activity in self.activities)
