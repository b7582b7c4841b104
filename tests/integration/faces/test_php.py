"""What PHP's own encoders make of texts that are none: it arrives with U+FFFD in both faces, and is no fault."""

import json
import random
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import System
from bench.testbed.waiting import until
from tenants.core.text import clean
from tests.world.php import Php, running_php
from tests.world.tenant import Tenant, tenants_of

PASSWORD = "0123456789abcdef0123"
MARKUP, ALL = ["markup"], None
"""xmlrpc's option `escaping`: as the extension has it; and what PHP does without options, which is Latin-1."""
TEXTS = {
    "vertical tab": (b"one\x0btwo", "one\ufffdtwo"),
    "form feed": (b"\x0cpage", "\ufffdpage"),
    "escape": (b"\x1b[1mbold", "\ufffd[1mbold"),
    "bell": (b"ring\x07", "ring\ufffd"),
    "noncharacters": ("a\ufffeb\uffffc".encode(), "a\ufffdb\ufffdc"),
    "delete": (b"a\x7fb", "a\x7fb"),
    "line ends": (b"a\r\nb\rc\n", "a\nb\nc\n"),
    "markup": (b"<b> & ]]> &#11; &amp; \"'", "<b> & ]]> &#11; &amp; \"'"),
    "emoji": ("👋ž\u0085".encode(), "👋ž\u0085"),
}
BROKEN = {
    "half a character": (b"half \xc3", "half \ufffd"),
    "surrogate": (b"half \xed\xa0\xbd", "half \ufffd\ufffd\ufffd"),
    "Latin-1": (b"f\xfcr", "f\ufffdr"),
    "too long a form": (b"\xc0\xaf", "\ufffd\ufffd"),
    "beyond Unicode": (b"\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"),
}


CONNECT = Path(__file__).parents[3] / "docs" / "connect-lhc.md"
EXTENSION = """
class erLhcoreClassInstance { static $one; static function getInstance() { return self::$one; } }
class Extension { private $instanceManual = false; function settings() { return include $GLOBALS['argv'][1]; } }
foreach (array_slice($argv, 2) as $address) {
    erLhcoreClassInstance::$one = (object) ['address' => $address];
    echo json_encode((new Extension)->settings()), "\n";
}
"""
"""As the extension reads its settings."""


@pytest.fixture(scope="module")
async def acme(system: System, receiver: Receiver, panel: Panel) -> AsyncIterator[Tenant]:
    async with tenants_of(system, receiver, panel) as make:
        yield await make()


@pytest.fixture(scope="module")
async def bob(acme: Tenant) -> Operator:
    return await acme.operator_online()


@pytest.fixture(scope="module")
async def php() -> AsyncIterator[Php]:
    async with running_php() as process:
        yield process


async def write_by_rpc(php: Php, tenant: Tenant, text: bytes, escaping: list[str] | None = MARKUP) -> None:
    """A visitor's message as the extension writes it with `handler = rpc`; it is accepted."""
    credentials = {"user": tenant.name, "server": tenant.host, "password": tenant.key}
    addresses = {"from": f"visitor.7.{tenant.name}@{tenant.host}", "to": f"bob.{tenant.name}@{tenant.host}"}
    message = {"type": "chat", **addresses, "subject": ""}
    url = f"{tenant.lhc_url}/rpc"
    assert await php.rpc(url, credentials, "send_message", message, text=("body", text), escaping=escaping) == (
        False,
        {"res": 0},
    )


async def write_by_json(php: Php, tenant: Tenant, text: bytes) -> tuple[int, str]:
    message = {
        "jid": f"visitor.9.{tenant.name}@{tenant.host}",
        "pass": PASSWORD,
        "host": tenant.host,
        "operator_username": f"bob.{tenant.name}@{tenant.host}",
        "nick": "John",
    }
    status, answer = await php.json(tenant.lhc_url, "/xmpp-send-message", tenant.key, message, ("message", text))
    return status, answer


def faults_in_log(tenant: Tenant) -> list[str]:
    log = (tenant.system.state / "logs" / "api.log").read_text()
    return [line for line in log.splitlines() if f'"{tenant.name}"' in line]


@pytest.mark.parametrize("case", [*TEXTS, *BROKEN])
async def test_a_message_by_xml_rpc_arrives(php: Php, acme: Tenant, bob: Operator, case: str) -> None:
    text, expected = (TEXTS | BROKEN)[case]
    await write_by_rpc(php, acme, f"{case}: ".encode() + text)
    await bob.reads(f"{case}: {expected}")


@pytest.mark.parametrize("case", ["vertical tab", "escape", "markup", "line ends"])
async def test_a_message_with_numbers_for_characters_arrives(php: Php, acme: Tenant, bob: Operator, case: str) -> None:
    """Without options PHP writes `&#11;` for a vertical tab, and says that it is Latin-1."""
    text, expected = TEXTS[case]
    await write_by_rpc(php, acme, f"numbers, {case}: ".encode() + text, ALL)
    await bob.reads(f"numbers, {case}: {expected}")


async def test_whatever_bytes_it_sends_arrive(php: Php, acme: Tenant, bob: Operator) -> None:
    chosen = random.Random(1)
    for number in range(30):
        text = f"bytes {number}: ".encode() + chosen.randbytes(40)
        await write_by_rpc(php, acme, text)
        # PHP's own string ends where C's would
        await bob.reads(clean(text.partition(b"\0")[0].decode(errors="replace")))


async def test_messages_by_json_arrive(php: Php, acme: Tenant, bob: Operator) -> None:
    zero = {"zero": (b"a\x00b", "a\ufffdb")}
    for case, (text, expected) in (TEXTS | zero).items():
        assert await write_by_json(php, acme, f"as JSON, {case}: ".encode() + text) == (200, "ok")
        await bob.reads(f"as JSON, {case}: {expected}")


async def test_a_text_that_php_cannot_encode_is_told_in_the_log(php: Php, acme: Tenant) -> None:
    """`json_encode` makes nothing of it, and the extension sends that: no key, no names, no message."""
    assert await write_by_json(php, acme, b"half \xc3") == (403, "Forbidden")
    wanted = "no key, or a wrong one", '"is_empty": true'
    # supervisord writes the file, soon
    await until(lambda: [line for line in faults_in_log(acme) if all(part in line for part in wanted)], "it is logged")


async def test_a_new_nick_by_xml_rpc_arrives(php: Php, acme: Tenant, bob: Operator) -> None:
    """The stanza that names a chat is escaped XML within XML; a fault there would end the chat's beginning."""
    visitor = acme.lhc.name("visitor.8")
    await acme.lhc.new_visitor("visitor.8", PASSWORD)
    credentials = {"user": acme.name, "server": acme.host, "password": acme.key}
    for nick, expected in ((b"Jo\x0bhn", "Jo\ufffdhn"), (b"Jo&#11;hn", "Jo\ufffdhn"), (b"J\xc3 #8", "J\ufffd #8")):
        stanza = b" <presence><nick xmlns='http://jabber.org/protocol/nick'>" + nick + b"</nick></presence>"
        arguments = {"host": acme.host, "user": visitor, "resource": "lhc"}
        url = f"{acme.lhc_url}/rpc"
        answer = await php.rpc(url, credentials, "send_stanza_c2s", arguments, text=("stanza", stanza), escaping=MARKUP)
        assert answer == (False, {"res": 0})
        await bob.sees(visitor, nick=expected)


async def test_a_fault_is_told_in_the_log_without_its_text(php: Php, acme: Tenant) -> None:
    credentials = {"user": acme.name, "server": acme.host, "password": acme.key}
    for method in ("send_message", "no-such-method"):
        url = f"{acme.lhc_url}/rpc"
        arguments = {"type": "chat", "the secret argument": "x"}
        fault, _ = await php.rpc(
            url, credentials, method, arguments, text=("body", b"the secret text"), escaping=MARKUP
        )
        assert fault

    def of_unknown_method() -> list[str]:
        return [line for line in faults_in_log(acme) if '"fault"' in line and '"unknown"' in line]

    await until(of_unknown_method, "the later fault is logged")
    told = [line for line in faults_in_log(acme) if '"fault"' in line]
    assert ['"send_message"' in line for line in told[-2:]] == [True, False]
    assert '"unknown"' in told[-1]
    assert not any("secret" in line for line in told)


def test_the_documented_settings_open_each_instances_own_door(tmp_path: Path) -> None:
    page = re.search(r"```php\n(.*?)```", CONNECT.read_text(), re.DOTALL)
    assert page is not None
    (tmp_path / "keys.php").write_text("<?php return array('shop-acme' => 'its own');")
    settings = tmp_path / "settings.ini.php"
    settings.write_text(page[1].replace("/etc/lhc/orchestrator-keys.php", str(tmp_path / "keys.php")))
    told = subprocess.run(
        ["php", "-r", EXTENSION, "--", settings, "Shop.acme", "new.one", ""],
        capture_output=True,
        check=True,
        timeout=20,
    )
    own, new, manager = (json.loads(line) for line in told.stdout.splitlines())
    server = "https://orchestrator.example.com"
    names = ("node_api_server", "secret_key", "rpc_server", "rpc_username", "rpc_password")
    assert [own[name] for name in names] == [
        *(f"{server}/t/shop-acme", "its own", f"{server}/t/shop-acme/rpc", "shop-acme", "its own")
    ]
    everywhere = [server, "the hosting key", f"{server}/rpc", "admin", "the hosting-wide XML-RPC password"]
    assert [new[name] for name in names] == [manager[name] for name in names] == everywhere
