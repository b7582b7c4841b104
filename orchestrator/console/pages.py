"""What pages that are no tables have in common."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.templating import Jinja2Templates
from starlette_admin.views import CustomView


class Page(CustomView):
    """A page of our own, or what one fetches and posts; not in the menu, unless it says so."""

    add_to_menu = False
    templates: Jinja2Templates
    """starlette-admin sets them before it serves the page."""

    def _answer(self, request: Request, template: str, context: dict[str, Any]) -> Response:
        return self.templates.TemplateResponse(request, template, context)


def instance_name_of(request: Request) -> str:
    """The tenant that the path names."""
    name: str = request.path_params["instance_name"]
    return name
