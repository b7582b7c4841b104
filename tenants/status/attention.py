"""What needs attention: one list, which doctor, console, API, metrics and so the alerts read.

Each kind is one question or a few, which read indexes of what is rare: a system that is well answers them at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tenants.process.services import Services
from tenants.status import attention_messages, attention_tenants, diagnostics
from tenants.status.attention_items import Item, Kind, Scope
from tenants.status.diagnostics import Check, Finding

_PATIENCE = 2.0
"""Seconds for each part of the system, for whoever waits for a page."""
_OF_PARTS = {
    "ejabberd": Kind.EJABBERD,
    "bridge module": Kind.EJABBERD,
    "ejabberd's storage": Kind.EJABBERD,
    "nodes of ejabberd": Kind.NODE,
    "workers": Kind.PROCESS,
    "pools": Kind.PROCESS,
    "clock": Kind.CLOCK,
    "disk": Kind.DISK,
    "certificates": Kind.CERTIFICATE,
    "reconciliation": Kind.DRIFT,
}
_QUESTIONS = {
    Kind.BACKUP: attention_tenants.old_backup,
    Kind.CIRCUIT: attention_messages.open_circuits,
    Kind.LATE: attention_messages.late,
    Kind.DEAD_LETTERS: attention_messages.dead_letters,
    Kind.RETURNED: attention_messages.returned,
    Kind.UNTAKEN: attention_messages.untaken,
    Kind.QUOTA: attention_tenants.quotas,
    Kind.OPERATION: attention_tenants.failed_operations,
    Kind.DRIFT: attention_tenants.drift,
    Kind.LOGIN: attention_tenants.operators_without_login,
}


@dataclass(frozen=True, slots=True)
class Attention:
    """What needs attention.

    Attributes:
        items: the first of each kind, those that are broken before those that are only to be looked at.
        counts: how many there are of each kind.
    """

    items: list[Item]
    counts: dict[Kind, int]

    @property
    def problems(self) -> list[Item]:
        return [item for item in self.items if item.is_problem]

    @property
    def untold(self) -> int:
        """How many more there are than `items`."""
        return sum(self.counts.values()) - len(self.items)


async def look(services: Services, instance_name: str | None = None, *, findings: Sequence[Finding] = ()) -> Attention:
    """What the database knows of, of one tenant or all; and what is wrong of the parts that were examined."""
    items = [_of_part(finding) for finding in findings if finding.ok is False]
    counts = dict.fromkeys(Kind, 0)
    for item in items:
        counts[item.kind] += 1
    scope = Scope(services.clock(), instance_name)
    async with services.database.read() as session:
        for kind, ask in _QUESTIONS.items():
            found, count = await ask(session, scope)
            items += found
            counts[kind] += count
    return Attention(sorted(items, key=lambda item: not item.is_problem), counts)


async def look_at_all(services: Services, further: Sequence[tuple[str, Check]] = ()) -> Attention:
    """`look` at the whole system, its parts included; `further` as in `diagnostics.examine`."""
    findings = await diagnostics.examine(services, further, patience=_PATIENCE)
    return await look(services, findings=findings)


def _of_part(finding: Finding) -> Item:
    kind = _OF_PARTS.get(finding.part, Kind.SETUP)
    return Item(kind, None, f"{finding.part}: {finding.found}.", None, finding.advice, subject=finding.part)
