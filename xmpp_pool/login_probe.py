"""Tries at the listeners for clients that nobody can log in as somebody else.

A login may name an account to act for beside the one whose password it gives (RFC 4616). The bridge module refuses a
login whose two names differ, before any password is looked at. So the probe needs no account, and it sees what ejabberd
really does, whatever ejabberd.yml says.
"""

import asyncio
import re
import ssl
from base64 import b64encode
from itertools import product

from config.ejabberd_versions import disabled_mechanisms
from tenants.ejabberd.client import Listener
from tenants.lifecycle import served_hosts
from tenants.process.services import Services
from tenants.status.diagnostics import WrongError
from xmpp_pool.handshake import LONGEST, read_until

_OPEN = (
    "<stream:stream to='{host}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
)
_FEATURES = re.compile(rb"<stream:features.*</stream:features>|<stream:features/>", re.DOTALL)
_PROCEED = re.compile(rb"<proceed[^>]*>")
_OUTCOME = re.compile(rb"<failure[^>]*><([\w-]+)|<(success|challenge)")
_MECHANISM = re.compile(r"<mechanism>([^<]*)</mechanism>")
_FOREIGN = b64encode(b"somebody.else\0doctor.who\0no password").decode()
_COMPARED = "invalid-authzid"


async def check(services: Services) -> str:
    """Say how clients may log in; see `tenants.status.diagnostics`.

    Raises:
        WrongError: a client may be somebody else, or a mechanism is offered that is unsafe in this version of ejabberd.
        OSError: a listener cannot be reached.
    """
    listeners = await services.ejabberd.client_listeners()
    if not listeners:
        raise WrongError("there is no listener", "let ejabberd_c2s listen (ejabberd.yml)")
    unwanted = disabled_mechanisms(await services.ejabberd.version())
    for listener, host in product(listeners, await served_hosts.served(services)):
        where = f"port {listener.port}"
        try:
            offered, outcome = await _try_foreign(services, listener, host)
        except EOFError:
            raise WrongError(f"{where} serves no clients of {host}", "mend `hosts`") from None
        if outcome != _COMPARED:
            raise WrongError(
                f"{where}: a client may be somebody else, names are not compared ({outcome})",
                f"load mod_lhc_bridge for {host} (ejabberd.yml)",
            )
        if wrong := [name for name in offered if name in unwanted]:
            raise WrongError(
                f"{where} offers {', '.join(wrong)}", f"disable_sasl_mechanisms: [{', '.join(unwanted)}] (ejabberd.yml)"
            )
    return f"nobody is anybody else at port {', '.join(str(listener.port) for listener in listeners)}"


async def _try_foreign(services: Services, listener: Listener, host: str) -> tuple[list[str], str]:
    """Try to log in as somebody else, with TLS where there is any. Returns the mechanisms offered and the outcome."""
    opening = _OPEN.format(host=host).encode()
    # a listener on any address is reached where the component is served
    address = services.settings.component_addresses[0][0] if listener.ip in {"0.0.0.0", "::"} else listener.ip  # noqa: S104 - read, not bound
    tls = _tls() if listener.tls else None
    reader, writer = await asyncio.open_connection(address, listener.port, limit=LONGEST, ssl=tls)
    try:
        writer.write(opening)
        features = (await read_until(reader, _FEATURES))[0]
        if b"<starttls" in features:
            writer.write(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            await read_until(reader, _PROCEED)
            await writer.start_tls(_tls())
            writer.write(opening)
            features = (await read_until(reader, _FEATURES))[0]
        offered = _MECHANISM.findall(features.decode())
        writer.write(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{_FOREIGN}</auth>".encode())
        outcome = await read_until(reader, _OUTCOME)
    finally:
        writer.transport.abort()
    return offered, (outcome[1] or outcome[2]).decode()


def _tls() -> ssl.SSLContext:
    """Certificates are not checked: they bear another name than the address that is used here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
