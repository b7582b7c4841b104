"""How many messages go through, by the minute: counted in memory where they pass, and added up in the database."""

from dataclasses import dataclass

from sqlalchemy import delete, select

from tenants.process.services import Services
from tenants.store.models import TrafficMinute

_KEPT_MINUTES = 180


class Traffic:
    """What has passed through this process and is not written down yet."""

    def __init__(self) -> None:
        self.to_operators = self.to_visitors = 0

    async def write(self, services: Services) -> None:
        """Add it to the present minute; kept for the next time when the database is away."""
        to_operators, to_visitors = self.to_operators, self.to_visitors
        if not to_operators and not to_visitors:
            return
        minute = int(services.clock() // 60)
        insert = services.database.insert(TrafficMinute).values(
            minute=minute, to_operators=to_operators, to_visitors=to_visitors
        )
        async with services.database.write() as session:
            await session.execute(
                insert.on_conflict_do_update(
                    index_elements=["minute"],
                    set_={
                        "to_operators": TrafficMinute.to_operators + to_operators,
                        "to_visitors": TrafficMinute.to_visitors + to_visitors,
                    },
                )
            )
            await session.execute(delete(TrafficMinute).where(TrafficMinute.minute < minute - _KEPT_MINUTES))
        self.to_operators -= to_operators
        self.to_visitors -= to_visitors


@dataclass(frozen=True, slots=True)
class Minutes:
    """Messages in each of the last minutes, the present one last."""

    to_operators: list[int]
    to_visitors: list[int]


async def last(services: Services, count: int) -> Minutes:
    """The last `count` minutes."""
    now = int(services.clock() // 60)
    async with services.database.read() as session:
        found = {
            row.minute: row
            for row in await session.scalars(select(TrafficMinute).where(TrafficMinute.minute > now - count))
        }
    rows = [found.get(minute) for minute in range(now - count + 1, now + 1)]
    return Minutes([row.to_operators if row else 0 for row in rows], [row.to_visitors if row else 0 for row in rows])
