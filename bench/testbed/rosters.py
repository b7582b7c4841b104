"""Shared rosters in ejabberd, behind the orchestrator's back.

Its own client makes and reads them, which knows how each version of ejabberd wants it said, and what it answers.
"""

from tenants.ejabberd.client import Ejabberd, Roster


async def make_roster(client: Ejabberd, group: str, *displayed: str, label: str, description: str) -> None:
    """Make the roster, or write over it. The client is closed afterwards."""
    try:
        await client.create_roster(group, Roster(label, description, tuple(sorted(displayed))))
    finally:
        await client.close()


async def find_roster(client: Ejabberd, group: str) -> Roster | None:
    """The roster; None when there is none. The client is closed afterwards."""
    try:
        return await client.roster(group)
    finally:
        await client.close()
