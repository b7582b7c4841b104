"""A system as it is deployed, on the ports of docs/production.md, in a network of its own: for the demo."""

from collections.abc import Callable

SETTINGS = {
    "ORCHESTRATOR_CALLBACK_PROTOCOL": "http://",
    "ORCHESTRATOR_CALLBACK_BASE_DOMAIN": "localhost",
    "ORCHESTRATOR_CALLBACK_PORT": "9980",
    "ORCHESTRATOR_WEBHOOK_NETWORKS": "127.0.0.0/8,::1/128",
}
"""The demo plays the tenants' LHC on the same machine."""
API = "http://127.0.0.1:8000"


def endpoints(certificate: str, secret: Callable[[str], str]) -> dict[str, str | int]:
    """What `script/demo --endpoints` reads. `secret` gives one of the system's secrets by its name."""
    return {
        "api": API,
        "xmpp_host": "xmpp.example.com",
        "c2s_host": "127.0.0.1",
        "c2s_port": 5222,
        "ejabberd_api": "http://127.0.0.1:5281/api",
        "callback_port": 9980,
        "certificate": certificate,
        **{name: secret(name) for name in ("panel_token", "ejabberd_api_secret")},
    }
