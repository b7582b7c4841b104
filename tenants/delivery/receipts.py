"""Tells operators' clients what became of their messages, if they ask: by receipts (XEP-0184) and markers (XEP-0333).

Nobody else could: a visitor has no client. A message has arrived when the tenant's server has it and that is recorded.
A receipt that the broker does not take is lost, and one that is given twice is shown once (`<once/>`).
"""

import hashlib
from enum import StrEnum

import structlog

from tenants.core.errors import UnavailableError
from tenants.process.services import Services
from tenants.shards.commands import SendReceipt
from tenants.store.models import CallbackMessage, Tenant

log = structlog.get_logger(__name__)


class Progress(StrEnum):
    """How far an operator's message has come."""

    RECEIVED = "received"
    DISPLAYED = "displayed"


async def confirm(services: Services, tenant: Tenant, message: CallbackMessage) -> None:
    """The tenant's server has the message, which is recorded."""
    receipt = of_message(tenant, message, Progress.RECEIVED)
    if receipt is None:
        return
    try:
        await services.commands.publish(receipt)
    except UnavailableError as error:
        log.warning("a receipt is lost", instance_name=tenant.instance_name, error=str(error))


def of_message(tenant: Tenant, message: CallbackMessage, progress: Progress) -> SendReceipt | None:
    """What its client is to be told of that; None when it does not ask for it."""
    asks, client_id = message.asks, message.client_id
    if asks is None or client_id is None:
        return None
    wants_receipt = asks["receipt"] and progress is Progress.RECEIVED
    if not (wants_receipt or asks["markers"]):
        return None
    return SendReceipt(
        instance_name=message.instance_name,
        incarnation=tenant.incarnation,
        username=message.receiver,
        operator=message.sender,
        resource=asks["resource"],
        of=client_id,
        received=wants_receipt,
        marker=progress.value if asks["markers"] else None,
        receipt_id=f"{progress}-{hashlib.blake2b(message.stanza_id.encode(), digest_size=12).hexdigest()}",
    )
