"""The panel's API keeps what its OpenAPI document says, whatever is sent to it."""

import asyncio
import sys
from pathlib import Path

import httpx

from bench.testbed.panel import Panel
from bench.testbed.system import System

SECONDS = 240
"""For all requests; a machine of its own needs some 20."""
LEFT_OUT = {
    # what a name, a password or an operation's state allows is more than a schema can say
    "positive_data_acceptance",
    # a tenant may be named "bulk", so /v1/tenants/bulk knows the methods of both
    "allow_header_conformance",
}


async def test_every_answer_is_as_the_document_says(system: System) -> None:
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{system.endpoints['api']}/openapi.json"),
        *("--header", f"Authorization: Bearer {system.endpoints['panel_token']}"),
        # a stream lasts as long as its operation
        *("--include-path-regex", "^/v1/", "--exclude-path-regex", "/events$"),
        *("--phases", "coverage,fuzzing", "--max-examples", "3", "--generation-deterministic", "--workers", "1"),
        *("--exclude-checks", ",".join(LEFT_OUT)),
        *("--continue-on-failure", "--no-color", "--request-timeout", "20"),
    ]
    async with asyncio.timeout(SECONDS):
        process = await asyncio.create_subprocess_exec(
            *command, cwd=system.state, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
    assert process.returncode == 0, said.decode()


async def test_the_document_tells_of_what_holds_everywhere(panel: Panel) -> None:
    async with httpx.AsyncClient(base_url=panel.http.base_url) as http:
        document = (await http.get("/openapi.json")).json()
        assert (await http.get("/docs")).status_code == 200
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if not path.startswith("/v1/"):
                continue
            place = f"{method} {path}"
            assert {"401", "403", "422", "503"} <= set(operation["responses"]), place
            assert operation["description"], place
            assert operation["security"], place
            names = {parameter["name"] for parameter in operation.get("parameters", [])}
            assert ("Idempotency-Key" in names) is (method == "post"), place
