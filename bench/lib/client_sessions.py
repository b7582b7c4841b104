"""What a straightforward implementation does: a client session (slixmpp's `ClientXMPP`) for each visitor."""

import asyncio
import gc
import time
from dataclasses import dataclass

from slixmpp import ClientXMPP

from bench.lib.measured import resident_bytes
from bench.lib.watching import Login
from bench.testbed.operator import log_in_without_tls

_LOGIN_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class ClientSessions:
    """So many sessions of one process: bytes of its memory for each, and how many logged in per second, ten at once."""

    count: int
    bytes_each: int
    logins_per_second: float


def log_in_all(logins: list[Login]) -> ClientSessions:
    """Log in with all of them; in a process of its own."""
    return asyncio.run(_log_in_all(logins))


async def _log_in_all(logins: list[Login]) -> ClientSessions:
    # the first one loads what slixmpp loads once
    clients = [await _come(logins[0])]
    gate = asyncio.Semaphore(10)

    async def come(login: Login) -> None:
        async with gate:
            clients.append(await _come(login))

    gc.collect()
    before, started = resident_bytes(), time.monotonic()
    await asyncio.gather(*(come(login) for login in logins[1:]))
    seconds = time.monotonic() - started
    gc.collect()
    taken = resident_bytes() - before
    await asyncio.gather(*(client.disconnect(wait=1) for client in clients))
    count = len(logins) - 1
    return ClientSessions(count, taken // count, round(count / seconds, 1))


async def _come(login: Login) -> ClientXMPP:
    client = ClientXMPP(f"{login.username}@{login.host}", login.password)
    log_in_without_tls(client)
    started = asyncio.Event()
    client.add_event_handler("session_start", lambda _: started.set())
    client.connect("127.0.0.1", login.port)
    async with asyncio.timeout(_LOGIN_SECONDS):
        await started.wait()
    client.send_presence()
    return client
