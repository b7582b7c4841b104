"""Page views without a server: what operators read of one, and what the memory of a process may answer."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from tenants.core.digests import digest
from tenants.core.errors import UnavailableError
from tenants.core.naming import AccountKind, Naming
from tenants.process.cache import Cache
from tenants.process.rate_limits import CallLimiter
from tenants.process.services import Services
from tenants.shards.queues import QueueUnavailableError
from tenants.store.models import Account, Tenant, TenantState
from tenants.visitors import page_views, presence
from tenants.visitors.page_view_request import PageViewRequest
from tenants.visitors.page_views import Recalled

NAME = "visitor.1.acme"
PASSWORD = "0123456789abcdef0123"
NOW, WINDOW = 1_000_000.0, 300.0


def test_operators_read_a_line_for_each_thing_that_is_known() -> None:
    view = PageViewRequest(page="Shop", city="Berlin", country="Germany", visits=3)
    assert view.status() == "Page: Shop\n| Location: Berlin, Germany\n| Visits: 3"
    assert PageViewRequest().status() == "-"


def test_a_value_cannot_look_like_another_line() -> None:
    assert PageViewRequest(page="Shop\n| Visits: 99").status() == "Page: Shop | Visits: 99"


@pytest.mark.parametrize(
    "body",
    ['{"page": 1}', '{"visits": "3"}', '{"visits": -1}', '{"nick": ""}', '{"unknown": 1}', '{"page": "\\u0000"}', "["],
)
def test_what_breaks_a_rule_is_refused(body: str) -> None:
    with pytest.raises(ValidationError):
        PageViewRequest.model_validate_json(body)


def clock() -> float:
    return NOW


def process(calls_per_second: float = 1) -> tuple[Services, Recalled]:
    """A process that knows one visitor, who is online as `nick` with the status `here`."""
    tenant = Tenant(
        instance_name="acme",
        incarnation="1",
        state=TenantState.ACTIVE,
        xmpp=True,
        visitor_tracking=True,
        online_seconds=WINDOW,
        calls_per_second=calls_per_second,
    )
    account = Account(username=NAME, instance_name="acme", kind=AccountKind.VISITOR)
    cache = Cache(clock)
    cache.tenants.keep("acme", tenant, NOW)
    cache.keep_account(tenant, account, digest(NAME, PASSWORD))
    cache.keep_session(NAME, "nick", "here", NOW + 60, 1)
    limiter = CallLimiter(cast("Any", None), clock, default_rate=1)
    services = SimpleNamespace(cache=cache, clock=clock, calls=limiter, naming=Naming(hosting=True))
    known = page_views.recall(cast("Services", services), NAME)
    assert known is not None
    return cast("Services", services), known


async def view(services: Services, known: Recalled, status: str = "here", password: str = PASSWORD) -> float | None:
    return await page_views.view_known_page(services, known, password=password, nick="nick", status=status)


async def test_no_news_is_noted_in_memory_alone() -> None:
    services, known = process()
    assert await view(services, known) == NOW + WINDOW
    assert [one.username for one in services.cache.take_renewed()] == [NAME]


async def test_a_wrong_password_is_not_counted() -> None:
    services, known = process()
    assert await view(services, known, password="another") is None
    assert await view(services, known) is not None, "one call in a second may come"
    assert await view(services, known) is None, "a second one goes to the door that refuses it"


async def test_whoever_changed_meanwhile_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def show_known(*_: object) -> float:
        raise UnavailableError("the account has another password")

    monkeypatch.setattr(presence, "show_known", show_known)
    services, known = process()
    assert await view(services, known, status="elsewhere") is None
    assert page_views.recall(services, NAME) is None


async def test_when_the_pool_cannot_be_told_the_caller_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def show_known(*_: object) -> float:
        raise QueueUnavailableError("the broker is away")

    monkeypatch.setattr(presence, "show_known", show_known)
    services, known = process()
    with pytest.raises(QueueUnavailableError):
        await view(services, known, status="elsewhere")
    assert page_views.recall(services, NAME) is not None


async def test_the_visitors_of_a_shut_tenant_are_not_recalled() -> None:
    services, known = process()
    known.tenant.state = TenantState.SUSPENDING
    assert page_views.recall(services, NAME) is None
