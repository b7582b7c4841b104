"""go-sendxmpp (https://salsa.debian.org/mdosch/go-sendxmpp): sends a line from a script, or prints what comes.

The one of Debian 12 speaks PLAIN alone.
"""

from pathlib import Path

import pytest

from tests.clients.client import OPERATOR_PASSWORD, certificate_of, give
from tests.world.tenant import Tenant
from tests.world.terminal import Terminal

PASSWORD = "0123456789abcdef0123"


@pytest.fixture
async def bob(tenant: Tenant, homes: Path) -> Path:
    """The folder of a user who has written down who he is, and has the certificate."""
    await tenant.lhc.new_operator("bob", OPERATOR_PASSWORD)
    endpoints = tenant.system.endpoints
    home = homes / "bob"
    home.mkdir()
    config = home / "config"
    config.write_text(
        f"username: {tenant.lhc.name('bob')}@{tenant.host}\npassword: {OPERATOR_PASSWORD}\n"
        f"jserver: {endpoints['c2s_host']}\nport: {endpoints['c2s_port']}\n"
    )
    config.chmod(0o600)
    (home / "certificate.pem").write_text(certificate_of(tenant.system))
    give(home)
    return home


async def test_a_line_is_sent_and_one_is_printed(bob: Path, tenant: Tenant) -> None:
    visitor = f"{tenant.lhc.name('visitor.7')}@{tenant.host}"
    await tenant.lhc.new_visitor("visitor.7", PASSWORD, nick="John Smith #12")
    environment = {"SSL_CERT_FILE": str(bob / "certificate.pem")}
    # by its name: it looks for it in the folder that /etc/passwd says
    command = ["go-sendxmpp", "--file", str(bob / "config")]
    async with Terminal([*command, "--listen"], environment) as listening:
        await tenant.receiver.status(tenant.connect_body("bob"))
        await tenant.lhc.visitor_writes("visitor.7", PASSWORD, "bob", "Ar kas nors yra?", nick="John Smith #12")
        await listening.shows(f"{visitor}: Ar kas nors yra\\?")
        async with Terminal([*command, visitor], environment) as sending:
            sending.press("Čia aš!\r\x04")  # the end of what is sent
            assert await sending.ended() == 0, sending.text
    callback = await tenant.receiver.message("Čia aš!")
    assert callback.form["sender"] == tenant.lhc.name("bob")
