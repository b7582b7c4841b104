"""Errors reach Sentry with their tenant, and without secrets or what people write: seen at a real HTTP receiver."""

import asyncio
import gzip
import os
import subprocess
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench.testbed.waiting import until

PROGRAM = """
import httpx, sentry_sdk, structlog
from config.settings import Settings
from orchestrator import telemetry
settings = Settings.load()
telemetry.set_up_logging(settings)
telemetry.set_up_sentry(settings)

def deliver(password):
    body = "what a visitor wrote"
    raise RuntimeError("cannot reach redis://:redis-password@127.0.0.1:1/0")

with structlog.contextvars.bound_contextvars(instance_name="acme", operation_id="op-1"):
    sentry_sdk.set_context("request", {"secret_key": "tenant-key", "headers": {"Authorization": "Bearer panel-token"}})
    try:
        deliver("visitor-password")
    except RuntimeError:
        sentry_sdk.capture_exception()
sentry_sdk.flush(10)
# under another name: what goes to Sentry itself bears no trace
httpx.post(settings.sentry_dsn.get_secret_value().replace("127.0.0.1", "localhost") + "/callback")
"""


async def test_an_error_is_reported_with_its_tenant_and_without_secrets(free_port: int) -> None:
    envelopes: list[str] = []
    called_back: list[set[str]] = []

    async def receive(request: Request) -> JSONResponse:
        if request.url.path.endswith("/callback"):
            called_back.append(set(request.headers))
            return JSONResponse({})
        body = await request.body()
        envelopes.append(
            (gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body).decode()
        )
        return JSONResponse({})

    app = Starlette(routes=[Route("/{path:path}", receive, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=free_port, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server._serve())  # noqa: SLF001 - without taking over this program's signals
    await until(lambda: server.started, "the receiver starts")
    env = {**os.environ, "ORCHESTRATOR_SENTRY_DSN": f"http://public@127.0.0.1:{free_port}/1"}
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(program.communicate(), 60)
    server.should_exit = True
    await serving
    assert program.returncode == 0, errors.decode()
    report = "\n".join(envelopes)
    assert "RuntimeError" in report
    assert '"instance_name":"acme"' in report
    assert '"operation_id":"op-1"' in report
    for secret in ("redis-password", "visitor-password", "tenant-key", "panel-token", "what a visitor wrote"):
        assert secret not in report
    (headers,) = called_back
    assert headers.isdisjoint({"baggage", "sentry-trace"})
