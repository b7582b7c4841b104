"""A private ejabberd with the bridge module, alone: no other part of the system."""

import asyncio
import atexit
import os
import re
import resource
import shutil
import subprocess
import tempfile
from configparser import ConfigParser
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from bench.testbed.browser import Browser
from bench.testbed.database import running_postgresql
from bench.testbed.light_client import LightClient
from bench.testbed.operator import Operator
from bench.testbed.rosters import make_roster
from bench.testbed.waiting import until_async
from config.ejabberd_storage import EjabberdStorage
from config.ejabberd_versions import Version
from config.settings import Settings
from orchestrator.launcher import postgresql, servers
from orchestrator.launcher.local import LISTEN_IP, LocalSystem
from tenants.ejabberd.admin_api import call_headers
from tenants.ejabberd.client import Ejabberd

OPERATOR_PASSWORD = "operator-pw"
_XML_RPC = {
    "listen:": """
  - port: {port}
    ip: "127.0.0.1"
    module: ejabberd_http
    backlog: 1024
    request_handlers:
      "/": ejabberd_xmlrpc""",
    "modules:": """
  mod_muc_admin: {{}}""",
    "api_permissions:": """
  "the old way":
    from: ejabberd_xmlrpc
    who:
      access:
        allow:
          acl: private
    what: '*'""",
}
"""What stands below these lines of the configuration for ejabberd's own XML-RPC, which production does without."""
_ENDS_BADLY = {
    "modules:": """
  mod_ends_badly: {{}}""",
    "api_permissions:": """
  "ends on demand":
    from: mod_http_api
    who:
      access:
        allow:
          acl: private
    what:
      - test_end_session
      - test_end_room""",
}
"""The same, for bench/testbed/erlang/mod_ends_badly.erl."""
_MORE_COMMANDS = {
    "api_permissions:": """
  "ejabberd's own, beside the bridge module's":
    from: mod_http_api
    who:
      access:
        allow:
          acl: private
    what:
      - unregister
      - set_nickname
      - srg_list
      - srg_user_add
      - srg_user_del
      - stats_host""",
}
"""The same, for commands that the orchestrator does not call: what its own are compared with."""


class ChatServer:
    """ejabberd as `script/up` runs it, which can be killed and started again.

    Args:
        state: a folder of its own.
        bridge: options of the bridge module that differ from the usual ones, and `rate`, of operators' connections.
        xml_rpc: it has ejabberd's own XML-RPC, at `rpc_url`.
        all_mechanisms: clients may log in by every mechanism that ejabberd knows.
        ends_badly: it has commands that end its processes by a fault.
        compares: the bridge's hooks compare the names that a client gives when it logs in.
        decoy: our authentication module is asked before the one that has the accounts.
        in_haste: clients may send as quickly as they can: what matters is what becomes of each stanza.
        storage: where it keeps everything; by default as `ORCHESTRATOR_EJABBERD_STORAGE` says.
        moving_to: where everything is to be moved to.
    """

    host = "localhost"

    def __init__(
        self,
        state: Path,
        bridge: dict[str, int],
        *,
        xml_rpc: bool = False,
        all_mechanisms: bool = False,
        ends_badly: bool = False,
        compares: bool = True,
        decoy: bool = True,
        in_haste: bool = False,
        storage: EjabberdStorage | None = None,
        moving_to: EjabberdStorage | None = None,
    ) -> None:
        system = LocalSystem.open(state, storage=storage, moving_to=moving_to)
        if system.runs_postgresql:
            # its user may not come to just any folder
            state = Path(tempfile.mkdtemp(prefix="lhc-chat-"))
            atexit.register(shutil.rmtree, state)
            system = LocalSystem.open(state, storage=storage, moving_to=moving_to)
        self._system = system
        self.ports = system.ports
        self.secret = system.secrets["component_secret"]
        self.api_url = f"http://{LISTEN_IP}:{system.ports['ejabberd_api']}/api"
        self.api_secret = system.secrets["ejabberd_api_secret"]
        self._state = state
        self._settings = settings = Settings(
            xmpp_host=self.host,
            component_secret=SecretStr(self.secret),
            ejabberd_api_secret=SecretStr(self.api_secret),
        )
        self.endpoints = system.endpoints(settings)
        self.rpc_url = f"http://{LISTEN_IP}:{self.ports['api']}/"
        self._bridge, self._in_haste = bridge, in_haste
        self._left_out = [
            *(["disable_sasl_mechanisms:"] if all_mechanisms else []),
            *([] if decoy else ["  - decoy "]),
        ]
        differing = [("mod_ends_badly", ends_badly), ("lhc_bridge_identity", not compares)]
        self._sources = [Path(__file__).parent / "erlang" / f"{name}.erl" for name, wanted in differing if wanted]
        self._more = [_MORE_COMMANDS, *([_XML_RPC] if xml_rpc else []), *([_ENDS_BADLY] if ends_badly else [])]
        self._prepare()
        self._process: subprocess.Popen[bytes] | None = None
        self._has_postgresql = False

    def _prepare(self) -> None:
        """The configuration and the bridge module, with what differs."""
        servers.prepare(self._system, self._settings)
        config = self._state / "ejabberd" / "ejabberd.yml"
        lines = config.read_text().splitlines()
        for name, value in self._bridge.items():
            number = next(i for i, line in enumerate(lines) if line.startswith(f"    {name}:"))
            lines[number] = f"    {name}: {value}"
        if self._in_haste:
            lines = [re.sub(r"^(    (\w+_)?rate:).*", r"\1 100000000", line) for line in lines]
        lines = [line for line in lines if not line.startswith(tuple(self._left_out))]
        if self._sources:
            servers.compile_erlang(self._state / "ejabberd" / "lhc_bridge" / "ebin", self._sources)
        for added in self._more:
            for line, below in added.items():
                number = next(i for i, one in enumerate(lines) if one.partition("\n")[0] == line)
                lines[number] += below.format(port=self.ports["api"])
        config.write_text("\n".join(lines) + "\n")

    @property
    def database_of_ejabberd(self) -> str:
        """Where ejabberd's tables are, for psycopg."""
        port = self._system.postgresql_port
        return f"postgresql://orchestrator@/{postgresql.EJABBERD}?host={self._state}/postgresql&port={port}"

    @property
    def log(self) -> str:
        """What ejabberd has logged so far."""
        return (self._state / "logs" / "ejabberd-own.log").read_text()

    def logs(self) -> str:
        """All that there is in the folder of logs, of ejabberd and of its virtual machine."""
        return "".join(path.read_text(errors="replace") for path in (self._state / "logs").iterdir())

    def make_bridge_for(self, version: Version) -> None:
        """Let the bridge say that it was compiled for that version of ejabberd."""
        build = servers.PROJECT / "config" / "ejabberd" / "lhc_bridge_build.erl"
        servers.compile_erlang(self._state / "ejabberd" / "lhc_bridge" / "ebin", [build], made_for=version)

    def keep_in(self, storage: EjabberdStorage) -> None:
        """When it is started again it keeps everything there; both storages are there still."""
        choice = replace(self._system.choice, storage=storage)
        self._system = replace(self._system, choice=choice, moving_to=storage.other)
        self._prepare()

    def _start_postgresql(self) -> None:
        """Once: where ejabberd keeps its data there, until this process ends."""
        port = self._system.postgresql_port
        if port is not None and not self._has_postgresql:
            folder = self._state / "postgresql"
            running = running_postgresql(folder, port)
            running.__enter__()
            atexit.register(running.__exit__, None, None, None)
            servers.prepare_database(self._system)
            self._has_postgresql = True

    async def start(self) -> None:
        """Start it as the process list says, and wait until it is ready."""
        await asyncio.to_thread(self._start_postgresql)
        # not strict, as supervisord is not: a program may say otherwise than what is common to all
        processes = ConfigParser(strict=False, interpolation=None, inline_comment_prefixes=None)
        processes.read(self._state / "supervisord" / "ejabberd.conf")
        program = processes["program:ejabberd"]
        variables = (pair.split("=", 1) for pair in program["environment"].split(","))
        with (self._state / "logs" / "output.log").open("ab") as output:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                ["/bin/sh", "-c", f"exec {program['command']}"],
                cwd=program["directory"],
                env=os.environ | {name: value.strip('"') for name, value in variables},
                stdout=output,
                stderr=output,
            )
        await until_async(self._is_ready, f"ejabberd starts; see {self._state}", 60)

    async def kill(self) -> None:
        """End it without a chance to write anything any more (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait, 10)
            self._process = None

    async def stop(self) -> None:
        """End it in good order."""
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, 30)
            self._process = None

    async def command(self, name: str, /, **arguments: Any) -> Any:
        """An admin command."""
        async with httpx.AsyncClient(timeout=10, verify=False) as http:  # noqa: S501 - plain HTTP; loading CAs takes longer than the call
            headers = call_headers(self.host, self.api_secret)
            response = await http.post(f"{self.api_url}/{name}", json=arguments, headers=headers)
        response.raise_for_status()
        return response.json()

    def client(self) -> Ejabberd:
        """The orchestrator's own client of its admin API; to be closed."""
        return Ejabberd(self.api_url, self.host, self.api_secret)

    async def make_roster(self, group: str, *displayed: str, label: str = "-", description: str = "-") -> None:
        """A shared roster."""
        await make_roster(self.client(), group, *displayed, label=label, description=description)

    async def new_operator(self, username: str) -> None:
        """An account, and its membership in the operators' roster of its tenant."""
        group = f"operators.{username.rpartition('.')[2]}"
        await self.command("register", user=username, host=self.host, password=OPERATOR_PASSWORD)
        if not await self.command("srg_get_info", group=group, host=self.host):
            await self.make_roster(group, label="Operators")
        await self.command("srg_user_add", user=username, host=self.host, group=group, grouphost=self.host)

    def operator(self, username: str, resource: str = "desk", password: str = OPERATOR_PASSWORD) -> Operator:
        """A client of an operator, not yet logged in."""
        return Operator(username, self.host, password, (LISTEN_IP, self.ports["c2s"]), resource)

    async def new_visitor(self, username: str, resource: str = "browser") -> Browser:
        """An account that is no operator's, and a browser that is not logged in yet."""
        await self.command("register", user=username, host=self.host, password=OPERATOR_PASSWORD)
        return self.browser(username, OPERATOR_PASSWORD, resource)

    def browser(self, username: str, password: str, resource: str = "browser") -> Browser:
        """A browser of an account that is there, not logged in yet."""
        return Browser(f"ws://{LISTEN_IP}:{self.ports['websocket']}/ws", username, self.host, password, resource)

    def light(self, username: str, name: str = "light", *, managed: bool = False) -> LightClient:
        """A client that does as little as it can."""
        address = LISTEN_IP, self.ports["c2s"]
        return LightClient(username, self.host, OPERATOR_PASSWORD, address, name, managed=managed)

    def resident_bytes(self) -> int:
        """How much of the machine's memory ejabberd holds now."""
        assert self._process is not None
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    async def refusals(self) -> dict[str, int]:
        """How much the bridge has refused, by kind."""
        return {one["kind"]: int(one["count"]) for one in await self.command("lhc_refusals")}

    async def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"ejabberd has ended; it said:\n{self.logs()[-5000:]}"
        try:
            await self.command("status")
        except (httpx.TransportError, httpx.HTTPStatusError):
            return False  # it listens before the bridge module, which has the secret, is there
        return True
