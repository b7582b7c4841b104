"""The bridge module's admin commands for rooms (`config/ejabberd/lhc_bridge_room_admin.erl`).

`mod_muc_admin`'s own answer before a room is on disk, refuse what is done already, and list the rooms of everybody.
Names are local parts. Each command reads back what it did, and may be repeated.
"""

from collections.abc import Mapping, Sequence

from tenants.core.chunks import chunks
from tenants.ejabberd.bulk import BATCH, RunCommand

_PAGE = 10_000
_SECONDS = 10.0
"""How long one call may take: some milliseconds for each room, and up to 5 s until a removed room has ended."""


class RoomCommands:
    """The commands for one virtual host."""

    def __init__(self, call: RunCommand, host: str) -> None:
        self._call = call
        self._host = host

    async def names(self, suffix: str = "") -> list[str]:
        """The rooms that end in `suffix` (`.instance`, or all), sorted."""
        names: list[str] = []
        while True:
            after = names[-1] if names else ""
            page = await self._call(
                "lhc_rooms", seconds=_SECONDS, host=self._host, suffix=suffix, after=after, limit=_PAGE
            )
            names += map(str, page)
            if len(page) < _PAGE:
                return names

    async def make(self, titles: Mapping[str, str]) -> list[str]:
        """Make those of these rooms that are missing, with these titles. Returns which are missing all the same."""
        rooms = [{"name": name, "title": title} for name, title in titles.items()]
        missing: list[str] = []
        for batch in chunks(rooms, BATCH):
            missing += map(str, await self._call("lhc_make_rooms", seconds=_SECONDS, host=self._host, rooms=batch))
        return missing

    async def remove(self, names: Sequence[str]) -> list[str]:
        """Remove these rooms; who is in one is told. Returns which are left."""
        left: list[str] = []
        for batch in chunks(names, BATCH):
            left += map(str, await self._call("lhc_remove_rooms", seconds=_SECONDS, host=self._host, rooms=list(batch)))
        return left

    async def invite(self, room: str, users: Sequence[str], reason: str) -> None:
        """Invite accounts (XEP-0249) that are not in the room; who is offline finds it at the next login."""
        await self._call(
            "lhc_invite_to_room", seconds=_SECONDS, host=self._host, room=room, users=list(users), reason=reason
        )
