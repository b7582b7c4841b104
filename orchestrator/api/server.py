"""How the API is served: uvicorn, with bounds for its connections."""

import resource

import uvicorn

from config.settings import Settings
from orchestrator.api.http.protocol import BoundedProtocol, Connections

_MOST_WAITING = 4000
_MOST_FILES = 65_536
_IDLE_SECONDS = 15
"""How long a connection is kept for its next request. Clients keep theirs for less (httpx: 5 s): where both end it at
once, a request that is on its way is lost."""


def run(settings: Settings, host: str, port: int) -> None:
    """Serve until a signal ends it."""
    BoundedProtocol.everyone = Connections(
        seconds=settings.request_seconds,
        per_address=settings.connections_per_address,
        # the other half is for those whom nobody waits for, the database and the broker
        most=min(_MOST_WAITING, _raise_limit_of_files() // 2),
        unbounded=settings.trusted_proxies,
    )
    uvicorn.run(
        "orchestrator.api.app:create_server",
        factory=True,
        host=host,
        port=port,
        http=BoundedProtocol,
        ws="none",  # whoever asked was upgraded before anybody looked at his token
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=2048,
        # uvicorn would believe this machine
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=5,
    )


def _raise_limit_of_files() -> int:
    """How many files, and so connections, this process may have open; by default 1,024, the system allows for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return wanted if soft == resource.RLIM_INFINITY else soft
