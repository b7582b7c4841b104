"""Commands that go to no broker."""

from tenants.shards.commands import AnyCommand


class Kept:
    """Where commands go: here there is no pool that would carry them out."""

    def __init__(self) -> None:
        self.commands: list[AnyCommand] = []

    async def publish(self, *commands: AnyCommand) -> None:
        self.commands += commands

    async def check(self) -> None: ...

    async def close(self) -> None: ...
