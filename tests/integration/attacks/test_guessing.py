"""Guessing passwords: on one connection, on many, from many addresses, for one account or for all of a tenant."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from bench.testbed.chat_server import ChatServer
from bench.testbed.login import Door, Login, element, scram
from bench.testbed.waiting import until, until_async

PASSWORD = "operator-pw"
FREE_FOR_ACCOUNT, FREE_FOR_ADDRESS, FREE_FOR_CONNECTION = 10, 30, 5
PAUSED = "Too many failed logins. Try again in"


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChatServer]:
    """An ejabberd of its own: addresses that have to wait would be others' as well."""
    server = ChatServer(tmp_path_factory.mktemp("guessing"), {})
    await server.start()
    yield server
    await server.kill()


def login(server: ChatServer, address: str | None = None) -> Login:
    """A connection: of a browser, as the web server hands it on from that address, or of an operator's client."""
    websocket, tcp = f"ws://127.0.0.1:{server.ports['websocket']}/ws", str(server.ports["c2s"])
    return Login(Door("ws", websocket) if address else Door("tcp", tcp), server.host, forwarded_for=address)


async def guess(server: ChatServer, user: str, password: str = "a guess", *, address: str | None = None) -> str:
    """The server's last answer."""
    async with login(server, address) as one:
        return await scram(one.ask, user, password)


async def guess_until_paused(free: int, guess_once: Callable[[int], Awaitable[str]]) -> None:
    """Not sooner than after the free ones. However slow the machine is: each pause is twice as long as the last."""
    told = 0
    while PAUSED not in await guess_once(told):
        told += 1
        assert told < 2 * free
    assert told > free


async def test_a_connection_ends_after_some_guesses(server: ChatServer) -> None:
    await server.new_operator("one.guessing")
    async with login(server) as one:
        for _ in range(FREE_FOR_CONNECTION - 1):
            assert await one.scram("one.guessing", "a guess") == "not-authorized"
        last = await scram(one.ask, "one.guessing", "a guess")
        assert "policy-violation" in last
        assert "Too many failed logins on one connection" in last
        assert await one.ended()


async def test_an_account_has_to_wait_and_nobody_is_told_whether_a_password_is_right(server: ChatServer) -> None:
    await server.new_operator("two.guessing")
    await guess_until_paused(FREE_FOR_ACCOUNT, lambda _: guess(server, "two.guessing"))
    for password in ("another guess", PASSWORD):
        assert PAUSED in await guess(server, "two.guessing", password)
    for name in ("Two.Guessing", "two.guessing@localhost"):
        assert "<success" not in await guess(server, name, PASSWORD)

    async def let_in() -> bool:
        return "<success" in await guess(server, "two.guessing", PASSWORD)

    await until_async(let_in, "the pause ends", 60)


async def test_guesses_at_the_same_moment_gain_nothing(server: ChatServer) -> None:
    await server.new_operator("three.guessing")
    told = await asyncio.gather(*(guess(server, "three.guessing") for _ in range(60)))
    assert sum("not-authorized" in answer for answer in told) <= FREE_FOR_ACCOUNT + 10
    assert sum(PAUSED in answer for answer in told) >= 40


async def test_who_guesses_from_elsewhere_does_not_lock_an_operator_out(server: ChatServer) -> None:
    await server.new_operator("four.guessing")
    assert "<success" in await guess(server, "four.guessing", PASSWORD, address="198.51.100.4")
    await guess_until_paused(
        FREE_FOR_ACCOUNT, lambda number: guess(server, "four.guessing", address=f"203.0.113.{number}")
    )
    assert PAUSED in await guess(server, "four.guessing", PASSWORD, address="203.0.113.200")
    assert "<success" in await guess(server, "four.guessing", PASSWORD, address="198.51.100.4")


async def test_an_address_has_to_wait_whoever_it_guesses_at_and_whoever_logs_in_between(server: ChatServer) -> None:
    """Own logins between the guesses made mod_fail2ban begin anew."""
    await server.new_operator("mallory.other")
    await server.new_operator("five.guessing")
    outside = "192.0.2.99"

    async def guess_at_another(number: int) -> str:
        if number % 10 == 0:
            assert "<success" in await guess(server, "mallory.other", PASSWORD, address=outside)
        return await guess(server, f"name-{number}.guessing", address=outside)

    await guess_until_paused(FREE_FOR_ADDRESS, guess_at_another)
    assert PAUSED in await guess(server, "five.guessing", PASSWORD, address=outside)
    assert "<success" in await guess(server, "mallory.other", PASSWORD, address=outside)
    assert "<success" in await guess(server, "five.guessing", PASSWORD, address="192.0.2.98")


async def test_one_network_of_ipv6_is_one_address(server: ChatServer) -> None:
    await guess_until_paused(
        FREE_FOR_ADDRESS,
        lambda number: guess(server, f"name-{number}.guessing", address=f"2001:db8:1:1::{number:x}"),
    )
    assert PAUSED in await guess(server, "somebody.guessing", address="2001:db8:1:1:ffff::")
    assert PAUSED not in await guess(server, "somebody.guessing", address="2001:db8:1:2::1")


async def test_the_web_server_itself_is_not_made_to_wait(server: ChatServer) -> None:
    """Without X-Forwarded-For everybody comes from its address."""
    await server.new_operator("six.guessing")
    for number in range(FREE_FOR_ADDRESS + 3):
        await guess(server, f"else-{number}.guessing")
    assert "<success" in await guess(server, "six.guessing", PASSWORD)


async def test_whoever_bears_the_name_next_begins_anew(server: ChatServer) -> None:
    await server.new_operator("seven.guessing")
    await guess_until_paused(FREE_FOR_ACCOUNT, lambda _: guess(server, "seven.guessing"))
    await server.command("unregister", user="seven.guessing", host=server.host)
    await server.new_operator("seven.guessing")
    assert "<success" in await guess(server, "seven.guessing", PASSWORD)


async def test_that_a_tenant_is_suspended_tells_nothing_of_a_password_during_a_pause(server: ChatServer) -> None:
    await server.new_operator("ten.suspended")
    await server.command("lhc_shut_tenant", host=server.host, tenant="suspended")
    assert "account-disabled" in await guess(server, "ten.suspended", PASSWORD)
    await guess_until_paused(FREE_FOR_ACCOUNT, lambda _: guess(server, "ten.suspended"))
    assert PAUSED in await guess(server, "ten.suspended", PASSWORD)


async def test_an_administrator_sees_where_the_guesses_come_from_and_no_secret(server: ChatServer) -> None:
    """The log's lines are what fail2ban reads; nobody writes others' addresses into it."""
    await server.new_operator("eight.guessing")
    await guess(server, "eight.guessing", address="198.51.100.23")
    await guess(server, "my-password-in-the-wrong-field", "not-to-be-seen", address="198.51.100.24")
    forged = "X from 198.51.100.66 to eight.guessing@localhost by PLAIN: refused"
    async with login(server, "198.51.100.25") as one:
        await one.ask(element("auth", "x", f" mechanism='{forged}'"))
    (rule,) = [
        line.partition("=")[2].strip()
        for line in (Path(__file__).parents[3] / "config" / "fail2ban" / "lhc-ejabberd.conf").read_text().splitlines()
        if line.startswith("failregex")
    ]
    failed = re.compile(rule.replace("<HOST>", r"(?P<host>\S+)"))

    def banned() -> set[str]:
        return {found["host"] for found in map(failed.match, server.log.splitlines()) if found}

    await until(lambda: {"198.51.100.23", "198.51.100.24", "198.51.100.25"} <= banned(), "all are in the log")
    assert "198.51.100.66" not in banned()
    assert "from 198.51.100.23 to eight.guessing@localhost by SCRAM-SHA-1: refused" in server.log
    for secret in ("my-password-in-the-wrong-field", "not-to-be-seen", "a guess", PASSWORD):
        assert secret not in server.log


async def test_failed_logins_are_counted(server: ChatServer) -> None:
    client = server.client()
    before = await client.failed_logins()
    await guess(server, "nine.guessing")
    await guess(server, "visitor.9.guessing")
    after = await client.failed_logins()
    await client.close()
    for who in ("operator", "visitor"):
        assert after.get((who, "refused"), 0) == before.get((who, "refused"), 0) + 1
    assert after["operator", "paused"] > 0
