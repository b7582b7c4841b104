"""What a tenant tells of a page view: the rules for it, and the text that operators read beside the visitor's name."""

from pydantic import BaseModel, ConfigDict, Field

from tenants.core.text import DEFAULT_NICK, XmlText

DEFAULT_STATUS = "-"
"""The status of a visitor of whom nothing is known."""
_BETWEEN = "\n| "
"""Between two lines, as LHC's extension writes it."""


class PageViewRequest(BaseModel):
    """What is known of a page view; operators read it as the visitor's status."""

    model_config = ConfigDict(extra="forbid")

    nick: XmlText = Field(DEFAULT_NICK, min_length=1, max_length=200)
    page: XmlText | None = Field(None, max_length=2000, description="Title or address of the page.")
    referrer: XmlText | None = Field(None, max_length=2000)
    country: XmlText | None = Field(None, max_length=100)
    city: XmlText | None = Field(None, max_length=100)
    time_zone: XmlText | None = Field(None, max_length=100)
    visits: int | None = Field(None, strict=True, ge=0, le=2**31 - 1)
    department: XmlText | None = Field(None, max_length=100)

    def status(self) -> str:
        """The text that operators read: a line for each thing that is known."""
        place = ", ".join(part for part in (self.city, self.country) if part)
        named = {
            "Page": self.page,
            "Referrer": self.referrer,
            "Location": place or None,
            "Time zone": self.time_zone,
            "Visits": self.visits,
            "Department": self.department,
        }
        # each value becomes one line, so that no text in it looks like another line of ours
        lines = [f"{name}: {' '.join(str(value).split())}" for name, value in named.items() if value is not None]
        return _BETWEEN.join(lines) or DEFAULT_STATUS
