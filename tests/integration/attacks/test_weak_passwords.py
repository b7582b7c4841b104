"""Passwords that are guessed first are accepted nowhere where a person chooses one."""

import os
import subprocess

import pytest

from bench.testbed.panel import Panel
from bench.testbed.system import ORCHESTRATOR, System, domain_of
from tenants.access import console_users, one_time_links
from tenants.access.passwords import check_chosen
from tenants.core.errors import InvalidInputError
from tenants.lifecycle.audit import Cause
from tenants.store.models import Role
from tests.world.tenant import Tenant

SHORT = "must have 8 to 256 characters"
COMMON = "must not be one of the commonest passwords, which are guessed first"
NAMED = "must not be the name of the account or of the tenant"
WEAK = {
    "1": SHORT,
    "hunter2": SHORT,
    "x" * 257: SHORT,
    "password": COMMON,
    "Passw0rd": COMMON,
    "IloveYou": COMMON,
    "1234567890": COMMON,
    "qwertyuiop": COMMON,
    "........": COMMON,
    "bob.guessed": NAMED,
    "BOB.guessed": NAMED,
}


@pytest.mark.parametrize(("password", "rule"), WEAK.items(), ids=lambda value: value[:12])
def test_what_is_guessed_first_is_refused(password: str, rule: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_chosen(password, unlike=("bob", "guessed", "bob.guessed"))
    assert (refused.value.field, refused.value.rule) == ("password", rule)


@pytest.mark.parametrize(
    "password", ["correct horse", "operator-pw", "сложный пароль", "🐎🔋📎🐎🔋📎🐎🔋", "0123456789abcdef0123"]
)
def test_what_is_long_and_not_common_is_taken(password: str) -> None:
    assert check_chosen(password) == password


async def test_the_api_names_the_field_and_the_rule(panel: Panel, tenant: Tenant) -> None:
    operator = f"/v1/tenants/{tenant.name}/operators/bob"
    for password in ("1", "password", f"bob.{tenant.name}"):
        refused = await panel.http.put(operator, json={"password": password})
        assert (refused.status_code, [error["field"] for error in refused.json()["errors"]]) == (422, ["password"])
        assert refused.json()["errors"][0]["rule"] in {SHORT, COMMON, NAMED}
    assert (await panel.http.get(operator)).status_code == 404
    first = {"operator": {"username": "bob", "password": "password1"}}
    refused = await panel.http.put("/v1/tenants/guessed-first", json=first)
    assert (refused.status_code, refused.json()["errors"]) == (422, [{"field": "operator.password", "rule": COMMON}])
    assert (await panel.http.get("/v1/tenants/guessed-first")).status_code == 404


def test_the_command_line_refuses_it(system: System) -> None:
    done = subprocess.run(
        [ORCHESTRATOR, "tenant", "create", "guessed-at", "--operator", "bob", "--password-stdin"],
        env={**os.environ, "ORCHESTRATOR_STATE_DIR": str(system.state), "COLUMNS": "200"},
        input="password\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert f"password: {COMMON}" in done.stderr


async def test_people_at_the_console_need_a_longer_one(system: System) -> None:
    async with domain_of(system) as services:
        for password, rule in (
            ("elevenchars", "12 to 256"),
            ("qwertyuiop123", "commonest"),
            ("carla the admin", "name"),
        ):
            with pytest.raises(InvalidInputError, match=rule):
                await console_users.put_user(services, "carla the admin", Role.ADMIN, password, Cause("test"))


async def test_an_invitation_is_not_used_up_by_a_weak_one(panel: Panel, tenant: Tenant) -> None:
    await tenant.lhc.new_operator("bob", "operator-pw")
    async with domain_of(tenant.system) as services:
        link = await one_time_links.make_onboarding(services, tenant.name, "bob", Cause("test"))
    for password in ("hunter2", "password123"):
        page = await panel.http.post(f"/onboarding/{link}", data={"password": password, "again": password})
        assert page.status_code == 422
        assert "The password must" in page.text
    good = await panel.http.post(f"/onboarding/{link}", data={"password": "correct horse", "again": "correct horse"})
    assert good.status_code == 200
