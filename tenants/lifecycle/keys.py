"""A tenant's keys: the one that opens our API for its LHC, and the one that signs its webhooks."""

from tenants.core.digests import matches
from tenants.core.errors import InvalidInputError, NotFoundError
from tenants.lifecycle import audit, requests, states
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.request_schemas import MAX_OVERLAP
from tenants.outbound import webhooks
from tenants.process.services import Services
from tenants.store.models import Operation, OperationKind, Tenant


async def opens(services: Services, instance_name: str, key: str) -> bool:
    """Whether this is the tenant's own key, or the one before it while both are good; compared in constant time.

    The key of a destroyed tenant still opens: its LHC goes on to remove accounts, and must be told that they are gone.
    """
    async with services.database.read() as session:
        tenant = await session.get(Tenant, instance_name)
    return tenant is not None and key_opens(tenant, key, services.clock())


def key_opens(tenant: Tenant, key: str, now: float) -> bool:
    """`opens`, of a tenant that was read already."""
    previous = tenant.previous_key_digest if now < (tenant.previous_key_until or 0) else None
    # both are compared in any case, so that the time tells nothing
    return matches(tenant.instance_name, key, tenant.key_digest) | matches(tenant.instance_name, key, previous)


async def rotate_keys(
    services: Services, instance_name: str, cause: Cause, *, key_digest: str, overlap: float
) -> Operation:
    """Start giving the tenant a new key, whose digest this is; the present one opens for `overlap` seconds more.

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: it is being destroyed, or another rotation is under way.
        InvalidInputError: the overlap is no such time.
    """
    if not 0 <= overlap <= MAX_OVERLAP:
        raise InvalidInputError("overlap_seconds", f"must be from 0 to {MAX_OVERLAP:.0f}")
    given = {"key_digest": key_digest, "overlap": overlap}
    return await requests.start(services, instance_name, OperationKind.ROTATE_KEYS, cause, given=given)


async def rotate_signing_key(services: Services, instance_name: str, cause: Cause, *, overlap: float) -> str:
    """Sign the tenant's webhooks with a new key from now on, which this gives; for `overlap` seconds with both.

    Raises:
        NotFoundError: there is no such tenant.
        InvalidInputError: the overlap is no such time.
        UnavailableError: no master key is set.
    """
    if not 0 <= overlap <= MAX_OVERLAP:
        raise InvalidInputError("overlap_seconds", f"must be from 0 to {MAX_OVERLAP:.0f}")
    now = services.clock()
    async with services.database.write() as session:
        tenant = await session.get(Tenant, instance_name, with_for_update=True)
        if tenant is None or tenant.state not in states.LIVE:
            raise NotFoundError(f"there is no tenant '{instance_name}'")
        key = webhooks.signing_key(services.settings, instance_name, tenant.signing_version + 1)
        tenant.signing_version += 1
        tenant.previous_signing_until = now + overlap
        audit.record(session, now, cause, "signing key rotated", instance_name=instance_name)
    return key
