"""The bridge module's own admin commands, which take many names at once (`config/ejabberd/lhc_bridge_admin.erl`).

With ejabberd's own commands a tenant of ten thousand accounts would be thirty thousand calls, and finding its accounts
a list of everybody's. Each command reads back what it did, so an answer needs no further question; each may be
repeated.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from tenants.core.chunks import chunks
from tenants.core.scram import Verifier
from tenants.core.text import first_of
from tenants.ejabberd import answers

BATCH = 200
"""Names in one call, which then takes ejabberd about a tenth of a second."""
_PAGE = 10_000
"""Names in one answer; to find them ejabberd looks at all accounts of the host, so the fewer pages the better."""
_ROSTER_PAGE = 200
_BULK_SECONDS = 60.0
"""How long one call may take: some milliseconds for each name, and up to 5 s until sessions of removed accounts end."""


IN_USE = "in use"
"""Why an account was not removed: somebody is logged in to it."""


class RunCommand(Protocol):
    """Runs an admin command and gives its decoded answer."""

    async def __call__(self, command: str, *, seconds: float, **arguments: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class SharedRoster:
    """A shared roster group with its members of this host, sorted."""

    group: str
    label: str
    description: str
    displayed: tuple[str, ...]
    members: tuple[str, ...]


class Kind(StrEnum):
    """What ejabberd may hold of a tenant."""

    ACCOUNTS = "accounts"
    ROSTERS = "rosters"
    MEMBERS = "members"
    """Of shared rosters, with or without an account."""
    SESSIONS = "sessions"
    VCARDS = "vcards"
    OFFLINE_MESSAGES = "offline_messages"
    LAST_ACTIVITY = "last_activity"
    CONTACTS = "contacts"
    """In rosters of their own, beside the shared ones."""
    HIDDEN_CONTACTS = "hidden_contacts"
    """Visitors whom an operator has removed from the contacts."""
    ROOMS = "rooms"
    WAITING_MESSAGES = "waiting_messages"
    """To visitors and of rooms, in the bridge's own queue."""
    NODES_AWAY = "nodes_away"
    """Of the cluster: nobody can say what waits there."""


@dataclass(frozen=True, slots=True)
class Left:
    """How many there are, and some of the names."""

    count: int
    names: tuple[str, ...]
    elsewhere: str = ""
    """Where they are kept, if the bridge cannot read them there: then nobody knows how many there are."""

    def __str__(self) -> str:
        if self.elsewhere:
            return f"unknown: kept elsewhere, in {self.elsewhere}"
        return f"{self.count}: {first_of(self.names)}"


@dataclass(frozen=True, slots=True)
class NewMember:
    """An account to be made: a member of that shared roster group, and called so; `nick` empty: called nothing."""

    group: str
    nick: str
    verifier: Verifier


class BulkCommands:
    """The commands for one virtual host."""

    def __init__(self, call: RunCommand, host: str) -> None:
        self._call = call
        self._host = host

    async def remove_users(self, users: Sequence[str]) -> dict[str, str]:
        """Remove the accounts with all that is kept of them; members of shared rosters first, as operators are told.

        Also names that have no account (any more), of which a vCard, offline messages or a membership is left.

        Returns:
            What is left: the name, and what of it. Empty when all are gone.
        """
        left: dict[str, str] = {}
        for batch in chunks(users, BATCH):
            left |= _reasons(await self._run("lhc_remove_users", users=batch))
        return left

    async def remove_idle_users(self, users: Sequence[str]) -> dict[str, str]:
        """`remove_users`, but who is logged in is left, as `IN_USE`."""
        left: dict[str, str] = {}
        for batch in chunks(users, BATCH):
            left |= _reasons(await self._run("lhc_remove_idle_users", users=batch))
        return left

    async def move_users(self, users: Sequence[str], to: str) -> dict[str, str]:
        """Move the accounts with all that is kept of them to another host; operators come first.

        Their tenant must be shut at both, and its shared rosters be there.

        Returns:
            What is left here: the name, and what of it. Empty when all are gone.
        """
        left: dict[str, str] = {}
        for batch in chunks(users, BATCH):
            left |= _reasons(await self._run("lhc_move_users", to=to, users=batch))
        return left

    async def browsers(self) -> list[str]:
        """The visitors who are logged in themselves, sorted."""
        return await self._pages("lhc_browsers", "")

    async def accounts(self, suffix: str = "") -> list[str]:
        """The local parts of the accounts that end in `suffix` (`.instance`, or all), sorted."""
        return await self._pages("lhc_accounts", suffix)

    async def having_accounts(self, users: Sequence[str]) -> set[str]:
        """Those of the users who have an account."""
        there: set[str] = set()
        for batch in chunks(users, BATCH):
            there |= {str(user) for user in await self._run("lhc_known_accounts", users=batch)}
        return there

    async def usernames(self, suffix: str) -> list[str]:
        """The local parts ending in `.instance` of which anything is kept, accounts or not, sorted."""
        return await self._pages("lhc_usernames", suffix)

    async def stray_contacts(self, suffix: str = "") -> list[str]:
        """The names ending in `.instance` (or all) that are in somebody's own contacts and have no account, sorted."""
        return await self._pages("lhc_stray_contacts", suffix)

    async def forget_contacts(self, users: Sequence[str]) -> list[str]:
        """Remove these names from everybody's own contacts. Returns those that stay, as they have an account."""
        there: list[str] = []
        for batch in chunks(users, BATCH):
            there += map(str, await self._run("lhc_forget_contacts", users=batch))
        return there

    async def set_nicks(self, nicks: Mapping[str, str]) -> list[str]:
        """Call these accounts so, in vCards and in the contacts of operators who are online; none without an account.

        Returns:
            Those who were called otherwise.
        """
        changed: list[str] = []
        for batch in chunks(list(nicks.items()), BATCH):
            named = [{"user": user, "nick": nick} for user, nick in batch]
            changed += map(str, await self._run("lhc_set_nicks", nicks=named))
        return changed

    async def shared_rosters(self) -> AsyncIterator[SharedRoster]:
        """All shared rosters of the host by name, two hundred to a call."""
        after = ""
        while page := await self._run("lhc_shared_rosters", after=after, limit=_ROSTER_PAGE):
            for entry in page:
                yield _roster(entry)
            after = str(page[-1]["group"])

    async def shared_roster(self, group: str) -> SharedRoster | None:
        """That one of the shared rosters; None when there is none."""
        answer = await self._run("lhc_shared_roster", group=group)
        return _roster(answer[0]) if answer else None

    async def add_to_roster(self, users: Sequence[str], group: str) -> list[str]:
        """Make them members; operators online get roster pushes, again for those who are members already.

        Returns:
            Those who are no members all the same.

        Raises:
            EjabberdError: there is no such shared roster.
        """
        missing: list[str] = []
        for batch in chunks(users, BATCH):
            missing += map(str, await self._run("lhc_add_to_rosters", group=group, users=batch))
        return missing

    async def remove_from_roster(self, users: Sequence[str], group: str) -> list[str]:
        """Remove the members; operators online get roster pushes. Unknown names are a success.

        Returns:
            Those who are members all the same.
        """
        members: list[str] = []
        for batch in chunks(users, BATCH):
            members += map(str, await self._run("lhc_remove_from_rosters", group=group, users=batch))
        return members

    async def register(self, verifiers: Mapping[str, Verifier]) -> dict[str, str]:
        """Create the accounts, or set the passwords of those that exist, by the verifiers of their passwords.

        Returns:
            For each username `created` or `updated`, or the reason why it is neither.
        """
        results: dict[str, str] = {}
        for batch in chunks(list(verifiers), BATCH):
            # called password because ejabberd keeps an argument of that name out of its log
            accounts = [{"user": user, **verifiers[user].arguments()} for user in batch]
            answer = await self._run("lhc_register_scram", password=accounts)
            results |= {str(entry["user"]): str(entry["result"]) for entry in answer}
        return results

    async def register_members(self, members: Mapping[str, NewMember]) -> dict[str, str]:
        """Create accounts that are members of shared rosters at once.

        Returns:
            For each username `created`; `exists`, which is left as it is; `no_member` when it was created, but there is
            no such roster; or another reason why it was not created.
        """
        results: dict[str, str] = {}
        for batch in chunks(list(members), BATCH):
            accounts = [
                {"user": user, "group": new.group, "nick": new.nick, **new.verifier.arguments()}
                for user, new in ((user, members[user]) for user in batch)
            ]
            # called password: see `register`
            answer = await self._run("lhc_register_members", password=accounts)
            results |= {str(entry["user"]): str(entry["result"]) for entry in answer}
        return results

    async def tenant_left(self, suffix: str, groups: Sequence[str]) -> dict[Kind, Left]:
        """What is left of a tenant: all that ends in `.instance`, those rosters with their members, its messages.

        A standalone system has no suffix: then only the rosters, the rooms and the messages count.

        Returns:
            Only the kinds of which there is something, or nobody knows.
        """
        answer = await self._run("lhc_tenant_left", suffix=suffix, groups=list(groups))
        left = {
            Kind(entry["kind"]): Left(int(entry["count"]), tuple(map(str, entry["names"])), str(entry["elsewhere"]))
            for entry in answer
        }
        return {kind: found for kind, found in left.items() if found.count or found.elsewhere}

    async def forget_tenant(self, suffix: str) -> int:
        """Drop the tenant's messages to visitors that wait in the bridge's queue. Returns how many they were."""
        return int(answers.single(await self._run("lhc_forget_tenant", suffix=suffix), "messages"))

    async def shut_tenant(self, instance_name: str) -> list[str]:
        """Let none of the tenant's people log in, and end their sessions. Returns whose are left."""
        return [str(user) for user in await self._run("lhc_shut_tenant", tenant=instance_name)]

    async def open_tenant(self, instance_name: str) -> None:
        """Let the tenant's people log in again; without effect when they can."""
        await self._run("lhc_open_tenant", tenant=instance_name)

    async def shut_tenants(self) -> set[str]:
        """The tenants whose people cannot log in."""
        return {str(name) for name in await self._run("lhc_shut_tenants")}

    async def _pages(self, command: str, suffix: str) -> list[str]:
        names: list[str] = []
        while True:
            after = names[-1] if names else ""
            page = await self._run(command, suffix=suffix, after=after, limit=_PAGE)
            names += map(str, page)
            if len(page) < _PAGE:
                return names

    async def _run(self, command: str, **arguments: Any) -> Any:
        return await self._call(command, seconds=_BULK_SECONDS, host=self._host, **arguments)


def _roster(entry: Any) -> SharedRoster:
    return SharedRoster(
        group=str(entry["group"]),
        label=str(entry["label"]),
        description=str(entry["description"]),
        displayed=answers.group_names(entry["displayed"]),
        members=tuple(entry["members"]),
    )


def _reasons(answer: Any) -> dict[str, str]:
    """What is left, by username."""
    return {str(entry["user"]): str(entry["reason"]) for entry in answer}
