"""PHP's own encoders, which LHC's extension sends with: one process makes all requests of a test."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

_PROGRAM = Path(__file__).with_name("lhc.php")
_SECONDS = 10


class Php:
    """A process of PHP that calls the orchestrator."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def json(self, url: str, endpoint: str, key: str, arguments: dict[str, str], text: tuple[str, bytes]) -> Any:
        """A call of the JSON face. `text`: the argument that may be no UTF-8. Gives HTTP's status and the body."""
        told = await self._ask(url, {"secret_key": key}, arguments, text, endpoint=endpoint)
        return told["status"], told["answer"]

    async def rpc(
        self,
        url: str,
        credentials: dict[str, str],
        method: str,
        arguments: dict[str, str],
        *,
        text: tuple[str, bytes],
        escaping: list[str] | None,
    ) -> Any:
        """A call of XML-RPC. Gives whether it is a fault, or nothing that PHP reads, and what PHP reads."""
        told = await self._ask(url, credentials, arguments, text, method=method, escaping=escaping)
        assert told["status"] == 200
        return told["fault"], told["answer"]

    async def _ask(
        self, url: str, credentials: dict[str, str], arguments: dict[str, str], text: tuple[str, bytes], **more: Any
    ) -> Any:
        key, value = text
        request = {"url": url, "credentials": credentials, "arguments": arguments, "key": key, **more}
        request["text"] = base64.b64encode(value).decode()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request).encode() + b"\n")
        async with asyncio.timeout(_SECONDS):
            line = await stdout.readline()
        assert line, "PHP has ended"
        return json.loads(line)


@asynccontextmanager
async def running_php() -> AsyncIterator[Php]:
    """The process, until the end of the test."""
    process = await asyncio.create_subprocess_exec(
        *("php", "-d", "display_errors=stderr", str(_PROGRAM)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Php(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
