"""One tenant's page: what is there, what it is told, and what is done to its operators and messages."""

from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette_admin.flash import flash
from starlette_admin.routing import route

from orchestrator.api.http.views import OperationView
from orchestrator.console.access import cause_of, need, person_of, services_of
from orchestrator.console.pages import Page, instance_name_of
from tenants.access import one_time_links
from tenants.accounts import operators
from tenants.conversations import bounces
from tenants.core.digests import digest, new_key
from tenants.core.errors import DomainError
from tenants.core.naming import STANDALONE_INSTANCE
from tenants.delivery import history, send
from tenants.lifecycle import keys, registry
from tenants.outbound import callback_urls
from tenants.status import attention, tenant_summary
from tenants.store.models import Role, Tenant

_KEY_OVERLAP = 3600.0
"""Seconds that the previous key still opens."""


class TenantParts(Page):
    """What the page of a tenant fetches and posts. The page itself is the detail page of the table."""

    path = "/tenant/{instance_name}"

    @route("", name="tenant")
    async def index(self, request: Request) -> Response:
        """An address with readable names in it."""
        return RedirectResponse(_page(request))

    @route("/live", name="live-tenant")
    async def live(self, request: Request) -> Response:
        """The part that changes."""
        return self._answer(request, "parts/tenant.html", await look(request, instance_name_of(request)))

    @route("/key", methods=["POST"], name="tenant-key")
    async def key(self, request: Request) -> Response:
        """A new key, shown in this answer and never again."""
        need(request, Role.ADMIN)
        instance_name, key = instance_name_of(request), new_key()
        await keys.rotate_keys(
            services_of(request),
            instance_name,
            cause_of(request),
            key_digest=digest(instance_name, key),
            overlap=_KEY_OVERLAP,
        )
        tenant = await registry.get(services_of(request), instance_name)
        context = {"instance_name": instance_name, "lines": settings_of_lhc(request, tenant, key)}
        return self._answer(request, "key.html", {"title": f"Key of {instance_name}", **context})

    @route("/operators", methods=["POST"], name="tenant-add-operator")
    async def add_operator(self, request: Request) -> Response:
        """A new operator: with a password that nobody knows, until one is set on the page of the invitation."""
        need(request, Role.MANAGER)
        username = str((await request.form()).get("username", "")).strip()
        tenant = await registry.get(services_of(request), instance_name_of(request))
        try:
            secret = await operators.add_and_invite(services_of(request), tenant, username, cause_of(request))
        except DomainError as error:
            flash(request, str(error), "error")
            return _back(request)
        return self._show_invitation(request, username, secret)

    @route("/operators/{username}/invite", methods=["POST"], name="tenant-invite")
    async def invite(self, request: Request) -> Response:
        """A link to the page where the operator sets a password; shown in this answer and never again."""
        need(request, Role.MANAGER)
        username = request.path_params["username"]
        secret = await operators.invite(services_of(request), instance_name_of(request), username, cause_of(request))
        return self._show_invitation(request, username, secret)

    def _show_invitation(self, request: Request, username: str, secret: str) -> Response:
        context = {
            "title": f"Invitation of {username}",
            "instance_name": instance_name_of(request),
            "username": username,
            "link": f"{_root(request)}/onboarding/{secret}",
            "days": one_time_links.ONBOARDING_SECONDS / 86400,
        }
        return self._answer(request, "invited.html", context)

    @route("/operators/{username}/kick", methods=["POST"], name="tenant-kick")
    async def kick(self, request: Request) -> Response:
        """End the operator's connections."""
        need(request, Role.SUPPORT)
        username = request.path_params["username"]
        ended = await operators.kick(services_of(request), instance_name_of(request), username, cause_of(request))
        flash(request, f"{username} is disconnected ({ended} devices).", "success")
        return _back(request)

    @route("/replay", methods=["POST"], name="tenant-replay")
    async def replay(self, request: Request) -> Response:
        """Try all dead messages again, and send what came back again."""
        need(request, Role.SUPPORT)
        dead = await history.replay_all(services_of(request), instance_name_of(request), cause_of(request))
        back = await bounces.replay_all(services_of(request), instance_name_of(request), cause_of(request))
        flash(request, f"{dead} dead messages are tried again; {back} that came back were sent again.", "success")
        return _back(request)


async def look(request: Request, instance_name: str) -> dict[str, Any]:
    """What the page shows.

    Raises:
        NotFoundError: there is no such tenant.
    """
    services = services_of(request)
    seen = await tenant_summary.read(services, instance_name)
    where = send.base(services.settings, seen.tenant)
    flower = services.settings.flower_url
    return {
        "seen": seen,
        "needed": await attention.look(services, instance_name),
        "now": services.clock(),
        "operations": [OperationView.of(operation) for operation in seen.operations],
        "callback": None if where is None else callback_urls.shown(where),
        "lines": settings_of_lhc(request, seen.tenant, None),
        "flower": f"{flower}/tasks?search={quote(f'kwargs:instance_name={instance_name}')}" if flower else None,
        "is_support": person_of(request).may(Role.SUPPORT),
        "is_manager": person_of(request).may(Role.MANAGER),
        "is_admin": person_of(request).may(Role.ADMIN),
    }


def settings_of_lhc(request: Request, tenant: Tenant, key: str | None) -> list[tuple[str, str]]:
    """The lines of the extension's settings in this tenant's LHC; without the key, which is shown but once."""
    settings, instance_name = services_of(request).settings, tenant.instance_name
    root = _root(request)
    own = "" if instance_name == STANDALONE_INSTANCE and not settings.hosting else f"/t/{instance_name}"
    shown = key or "(shown when it is made)"
    return [
        ("handler", "node"),
        ("node_api_server", root + own),
        ("secret_key", shown),
        ("rpc_server", f"{root}{own}/rpc"),
        ("rpc_username", instance_name),
        ("rpc_password", shown),
        ("rpc_account_host", tenant.xmpp_host),
        ("xmpp_host", tenant.xmpp_host),
    ]


def _root(request: Request) -> str:
    """Where people and LHC find this API: as it is set, else as the browser found it."""
    return services_of(request).settings.public_url or f"{request.url.scheme}://{request.url.netloc}"


def _page(request: Request) -> str:
    return str(request.url_for("console:detail", key="tenants").include_query_params(pk=instance_name_of(request)))


def _back(request: Request) -> Response:
    return RedirectResponse(_page(request), HTTPStatus.SEE_OTHER)
