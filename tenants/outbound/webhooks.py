"""Events posted as JSON and signed as Standard Webhooks (https://www.standardwebhooks.com)."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from standardwebhooks import Webhook

from config.settings import Settings
from tenants.core.clock import Clock
from tenants.core.errors import UnavailableError
from tenants.outbound.addresses import PublicHosts, Resolve, resolve
from tenants.outbound.poster import Answer, Poster, explained
from tenants.store.models import Tenant

_NO_MASTER_KEY = "no signing_master_key is set"
_MEANINGS: dict[int, str] = {
    HTTPStatus.NOT_FOUND: "there is nothing at callback_url",
    HTTPStatus.GONE: "the endpoint is given up; mend callback_url",
}
_LEADS_ELSEWHERE = "redirects are not followed; callback_url must be where it leads"


def signing_key(settings: Settings, instance_name: str, version: int) -> str:
    """The key that the tenant's webhooks are signed with, as its receiver is given it: `whsec_` and base64.

    Derived and never stored: whoever has the master key can tell any tenant's key of any version again.

    Raises:
        UnavailableError: there is no master key.
    """
    master = settings.signing_master_key.get_secret_value().encode()
    if not master:
        raise UnavailableError(_NO_MASTER_KEY)
    key = hmac.digest(master, f"webhook\0{instance_name}\0{version}".encode(), hashlib.sha256)
    return f"whsec_{base64.b64encode(key).decode()}"


def signing_keys(settings: Settings, tenant: Tenant, now: float) -> list[str]:
    """The keys that a request of this moment bears signatures of: the present one, and while they overlap the last.

    Empty when there is no master key.
    """
    if not settings.signing_master_key.get_secret_value():
        return []
    overlap = tenant.signing_version > 1 and now < (tenant.previous_signing_until or 0)
    versions = [tenant.signing_version, tenant.signing_version - 1] if overlap else [tenant.signing_version]
    return [signing_key(settings, tenant.instance_name, version) for version in versions]


def event_id(source: str) -> str:
    """The id that an event bears outside, told from whatever we know it by: the same for each try.

    ASCII without full stops, whatever the source: full stops part it from the rest of what is signed.
    """
    return f"evt_{hashlib.sha256(source.encode()).hexdigest()[:32]}"


class WebhookClient:
    """Posts webhooks, to public addresses and those in `webhook_networks` only. Redirects are not followed.

    Args:
        settings: times, TLS and networks.
        clock: the time that requests are signed with.
        resolve: finds a host's addresses.
    """

    def __init__(self, settings: Settings, clock: Clock, resolve: Resolve = resolve) -> None:
        self._clock = clock
        self._poster = Poster(settings, clock, PublicHosts(settings.webhook_networks, resolve))

    async def close(self) -> None:
        await self._poster.close()

    async def reach(self, url: str) -> Answer:
        """Whether anybody answers there, where webhooks may go."""
        return await self._poster.reach(url)

    async def post(self, url: str, *, event_id: str, body: bytes, keys: Sequence[str]) -> Answer:
        """Post an event, signed with the time of this try. Nothing is sent without a key.

        Args:
            url: the tenant's.
            event_id: see `event_id`; the receiver knows a repeat by it.
            body: JSON in UTF-8.
            keys: see `signing_keys`.
        """
        if not keys:
            return Answer(_NO_MASTER_KEY, 0.0)
        seconds = int(self._clock())
        signed_at = datetime.fromtimestamp(seconds, UTC)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": " ".join(Webhook(key).sign(event_id, signed_at, body.decode()) for key in keys),
        }
        return explained(await self._poster.post(url, body, headers), _MEANINGS, _LEADS_ELSEWHERE)
