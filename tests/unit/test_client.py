"""The client of the tenant's API: it needs nothing of the servers, and reads what the API's document says."""

import subprocess
import sys
from importlib.metadata import distribution, distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from pydantic import BaseModel

from orchestrator.api.app import create_app
from orchestrator.client import answers

DISTRIBUTION = "lhc-xmpp-orchestrator"
PROGRAM = """
import asyncio, importlib.abc, sys

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in missing or name.startswith("orchestrator.") and ".client" not in name:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

missing = sys.argv[1].split(",")
sys.meta_path.insert(0, NotInstalled())
from orchestrator.client import TenantClient

async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 19\\r\\nConnection: close\\r\\n\\r\\n" + b'{"connections": 42}')
    writer.close()

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with TenantClient(f"http://127.0.0.1:{port}", "acme", "token") as acme:
        print(await acme.kick_operator("bob"))

asyncio.run(main())
"""
MODELS = [model for model in vars(answers).values() if isinstance(model, type) and model.__module__ == answers.__name__]


def needed(name: str, found: set[str]) -> set[str]:
    """The distribution and all that it needs, without extras."""
    if name not in found:
        found.add(name)
        for requirement in map(Requirement, distribution(name).requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed(requirement.name, found)
    return found


def modules_of(name: str) -> set[str]:
    """The modules and packages at the top of a distribution."""
    return {Path(file).parts[0].partition(".")[0] for file in distribution(name).files or []}


def test_it_works_with_nothing_installed_but_what_it_needs() -> None:
    names = needed(DISTRIBUTION, set()) - {DISTRIBUTION}
    assert {"fastapi", "sqlalchemy", "starlette"}.isdisjoint(name.lower() for name in names)
    there = {module for name in names for module in modules_of(name)}
    missing = {module for other in distributions() for module in modules_of(other.name)} - there
    assert {"fastapi", "sqlalchemy"} < missing
    missing |= {"config", "tasks", "tenants", "xmpp_pool"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, ",".join(missing)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("42\n", ""), done.stderr


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The schemas of the API's document by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHESTRATOR_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        schemas: dict[str, Any] = create_app().openapi()["components"]["schemas"]
    return schemas


def fields_of(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """What is said of each field but its title and text; of a state, that it is a string."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(one) for one in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            name = value["$ref"].rpartition("/")[2]
            return {"type": "string"} if "enum" in schemas.get(name, {}) else name
        return {key: plain(one) for key, one in value.items() if key not in {"title", "description"}}

    return {name: plain(value) for name, value in schema["properties"].items()}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_it_reads_what_the_apis_document_says(model: type[BaseModel], documented: dict[str, Any]) -> None:
    said, read = documented[model.__name__], model.model_json_schema()
    assert fields_of(read, documented) == fields_of(said, documented)
    assert read["required"] == said["required"]
