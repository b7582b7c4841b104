"""Whether ejabberd accepts the component: its listener, its domain and its secret (XEP-0114, 3)."""

import asyncio
import hashlib
import re
from contextlib import suppress

from config.settings import Settings
from tenants.process import leases
from tenants.process.services import Services
from tenants.status.diagnostics import WrongError

LONGEST = 64 * 1024
_ID = re.compile(rb"<stream:stream[^>]* id=['\"]([^'\"]+)['\"]")
_OUTCOME = re.compile(rb"<handshake\s*/>|<handshake></handshake>|<stream:error")
_OPEN = "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='{jid}'>"


async def check(services: Services) -> str:
    """Say how the component is accepted; see `tenants.status.diagnostics`.

    A pool process that serves shards is proof enough. A connection is made only when none does: while it is open,
    ejabberd may send it stanzas that are meant for pool processes.

    Raises:
        WrongError: it is not.
        OSError: nobody listens there.
    """
    if await leases.count_held(services):
        return f"{services.settings.component_jid} is connected"
    for host, port in services.settings.component_addresses:
        await _shake_hands(services.settings, host, port)
    return f"{services.settings.component_jid} is accepted"


async def _shake_hands(settings: Settings, host: str, port: int) -> None:
    reader, writer = await asyncio.open_connection(host, port, limit=LONGEST)
    try:
        writer.write(_OPEN.format(jid=settings.component_jid).encode())
        stream_id = (await read_until(reader, _ID))[1].decode()
        secret = settings.component_secret.get_secret_value()
        digest = hashlib.sha1((stream_id + secret).encode(), usedforsecurity=False).hexdigest()
        writer.write(f"<handshake>{digest}</handshake>".encode())
        outcome = await read_until(reader, _OUTCOME)
    except EOFError:
        raise WrongError(f"{settings.component_jid} is not served there", _ADVICE) from None
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    if b"error" in outcome[0]:
        raise WrongError("the secret is refused", _ADVICE)


_ADVICE = "let ORCHESTRATOR_COMPONENT_SECRET and ejabberd.yml (ejabberd_service) say the same"


async def read_until(reader: asyncio.StreamReader, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
    """Read the stream until the pattern is found. Returns the match.

    Raises:
        EOFError: the stream ended before.
    """
    came = b""
    while (found := pattern.search(came)) is None:
        data = await reader.read(LONGEST)
        if not data or len(came) > LONGEST or (b"<stream:error" in came and pattern is _ID):
            raise EOFError
        came += data
    return found
