"""Values that make no sense, wherever the console takes one: each is told so, and none is an error of ours."""

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from tenants.core.chunks import chunks
from tests.world.console import Address, Browser, addresses, site, tables

CONSOLE = site()
TABLES = tables(CONSOLE)
KEYED = {"text": "tenants", "number": "deliveries"}
"""A table of each sort of key."""

NUMBERS = ("-1", "nan", "1e999", "9" * 30, str(2**63), "٣")
WORDS = ("", "abc", "a\0b", "\ud800", "'{{7*7}}", "a" * 5_000)
FILTERS = ("(" * 1_500, "((a__eq=b)", "a__eq=", "__eq=1", "instance_name__eq", "state__eq=x", "state__in=active,x")
VALUES = (*NUMBERS, *WORDS)
AT_ONCE = 8


@dataclass(frozen=True)
class Request:
    """One request of a browser. `form`: of a POST, but for the token that forms have."""

    method: str
    path: str
    form: Mapping[str, str] = field(default_factory=dict, hash=False)


def asked(method: str, path: str, parameter: str, value: str, **others: str) -> Request:
    query = urlencode({**others, parameter: value}, errors="surrogatepass")
    return Request(method, f"{path}?{query}")


def of_paths() -> Iterator[Request]:
    """Each part of each address."""
    for address in addresses(CONSOLE):
        if (address.method, address.name) == ("POST", "enter"):
            continue  # few attempts are let through
        names = names_in(address.path)
        # an empty part of a path is another path
        for name, value in itertools.product(names, filter(None, VALUES)):
            others = {other: "tenants" if other == "key" else "x" for other in names}
            part = quote(value, safe="", errors="surrogatepass")
            yield Request(address.method, address.path.format(**{**others, name: part}))


def names_in(path: str) -> list[str]:
    return [part.strip("{}") for part in path.split("/") if part.startswith("{")]


def of_queries() -> Iterator[Request]:
    """Each parameter of each address."""
    for address in addresses(CONSOLE):
        keys = KEYED.values() if "{key}" in address.path else ("",)
        for key in keys:
            path = address.path.format(**{**dict.fromkeys(names_in(address.path), "x"), "key": key})
            for parameter, others in parameters(address, key):
                for value in (*VALUES, *FILTERS) if parameter == "filter" else VALUES:
                    yield asked(address.method, path, parameter, value, **others)


def parameters(address: Address, key: str) -> Iterable[tuple[str, dict[str, str]]]:
    """Each parameter that is read there, with those others that let it be read."""
    match address.name:
        case "login" if address.method == "GET":
            return [("next", {})]
        case "list":
            return [(name, {}) for name in ("page", "page_size", "sort", "q", "filter", "cols", "_origin")]
        case "detail" | "edit" | "inline-edit-row":
            return [("pk", {})]
        case "inline-edit":
            return [("pk", {"field": "instance_name"}), ("field", {"pk": "x"})]
        case "relation-lookup":
            return [(name, {}) for name in ("pks", "skip", "limit", "q")]
        case "action":
            return [("name", {}), ("pks", {"name": "export"}), ("_list_query", {"name": "export", "all": "1"})]
        case "row-action":
            handlers = TABLES[key]._row_actions_handlers  # noqa: SLF001 - no public way
            return [("name", {"pk": "x"}), *(("pk", {"name": name}) for name in handlers)]
        case "create":
            return [("_origin", {})]
    return []


def of_filters() -> Iterator[Request]:
    """Each filter of each sort of field."""
    seen = set()
    for table in TABLES.values():
        for one in table._all_fields:  # noqa: SLF001 - no public way
            for filter_class in table.get_filter_registry().filters_for(one):
                if filter_class not in seen:
                    seen.add(filter_class)
                    for value in (*NUMBERS, "", "abc", "a,b"):
                        text = f"{one.name}__{filter_class.name}={value}"
                        yield asked("GET", f"/console/{table.key}/list", "filter", text)


def of_forms() -> Iterator[Request]:
    """Each field of each form; none of them is complete otherwise, so nothing is made."""
    forms = {
        "/console/tenants/create": ("instance_name", "callback_url", "idle_hours", "max_accounts", "routing", "xmpp"),
        "/console/users/create": ("name", "role", "password"),
        "/console/tenant/x/operators": ("username",),
        "/console/_api/tenants/action?name=import": ("instance_name",),
        "/console/_api/tenants/row-action?name=destroy&pk=x": ("confirmed",),
        "/console/_api/audit/import": ("format", "file"),
        "/onboarding/x": ("password", "again"),
    }
    for path, names in forms.items():
        yield Request("POST", path)
        for name, value in itertools.product(names, ("nan", "9" * 400, "\0", "\ud800", "٣", "[]", "a" * 5_000)):
            yield Request("POST", path, {name: value})
    export = "/console/_api/audit/action?name=export&all=1"
    for name, value in itertools.product(("format", "scope", "filename", "fields"), VALUES):
        yield Request("POST", export, {"format": "csv", "scope": "page", name: value})


async def failures(browser: Browser, requests: Iterable[Request]) -> list[tuple[Request, int]]:
    """Those that were answered as an error of ours; each has been asked."""
    token = await browser.csrf()

    async def ask(request: Request) -> tuple[Request, int]:
        form = urlencode({"csrftoken": token, **request.form}, errors="surrogatepass")
        options = {"content": form, "headers": {"Content-Type": "application/x-www-form-urlencoded"}}
        given = options if request.method == "POST" else {}
        answer = await browser.http.request(request.method, request.path, follow_redirects=False, **given)  # type: ignore[arg-type]
        return request, answer.status_code

    found: list[tuple[Request, int]] = []
    for batch in chunks(list(dict.fromkeys(requests)), AT_ONCE):
        found += await asyncio.gather(*map(ask, batch))
    assert found
    return [(request, status) for request, status in found if status >= 500]


async def test_no_part_of_an_address_is_an_error_of_ours(admin: Browser) -> None:
    assert await failures(admin, (one for one in of_paths() if not one.path.endswith("/logout"))) == []


async def test_no_parameter_is_an_error_of_ours(admin: Browser) -> None:
    assert await failures(admin, of_queries()) == []


async def test_no_filter_is_an_error_of_ours(admin: Browser) -> None:
    assert await failures(admin, of_filters()) == []


async def test_no_form_is_an_error_of_ours(admin: Browser) -> None:
    assert await failures(admin, of_forms()) == []
