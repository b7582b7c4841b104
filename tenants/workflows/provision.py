"""Steps that make a tenant: its two shared rosters, and its first operator. Each may run twice."""

from tenants.accounts import accounts
from tenants.core.errors import DomainError
from tenants.core.naming import AccountKind, AccountName, RosterKind
from tenants.core.scram import Verifier
from tenants.ejabberd import rosters
from tenants.lifecycle.engine import Run, Step


def _create_roster(kind: RosterKind) -> Step:
    async def run(run: Run) -> None:
        naming = run.services.naming
        group = rosters.group_of(naming, run.instance_name, kind)
        await (await run.ejabberd()).create_roster(group, rosters.wanted(naming, run.instance_name, kind))

    return Step(f"create_{kind}_roster", run)


async def verify_rosters(run: Run) -> None:
    naming, ejabberd = run.services.naming, await run.ejabberd()
    for kind in RosterKind:
        group = rosters.group_of(naming, run.instance_name, kind)
        if await ejabberd.roster(group) != rosters.wanted(naming, run.instance_name, kind):
            raise DomainError(f"shared roster {group} is not as it was created")


async def create_operator(run: Run) -> None:
    """The first operator's account, which the panel gave with a verifier of its password."""
    given = run.input["operator"]
    name = AccountName(AccountKind.OPERATOR, given["username"], run.instance_name)
    await accounts.install_operator(run.services, name, Verifier.read(given["scram"], "operator.scram"), given["nick"])


ROSTERS = (
    # in this order: ejabberd >= 24.06 refuses a displayed group that does not exist
    _create_roster(RosterKind.VISITORS),
    _create_roster(RosterKind.OPERATORS),
)
