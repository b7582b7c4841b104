"""Where ejabberd keeps accounts, shared rosters, rooms and all else: what `ejabberd.yml` says of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from config.ejabberd_versions import Version, multihost_option

_NOWHERE = "none"
_IN_MEMORY = ("routes", "sessions", "running_rooms")
"""What all nodes know of each other, which is not kept."""
_ALL_OF_ONE = "let default_db and auth_method in ejabberd.yml both say Mnesia, or both SQL, and no module otherwise"


class EjabberdStorage(StrEnum):
    """What all of ejabberd is kept in; a mixture was never tried."""

    MNESIA = "mnesia"
    """Erlang's own database, on the node itself."""
    SQL = "sql"
    """A database of ejabberd's own in PostgreSQL."""

    @property
    def other(self) -> "EjabberdStorage":
        """Where everything is moved to from here."""
        return EjabberdStorage.SQL if self is EjabberdStorage.MNESIA else EjabberdStorage.MNESIA


@dataclass(frozen=True, slots=True)
class SqlServer:
    """Where ejabberd's database is. `tables` is the file of the installed version that makes its tables."""

    host: str
    port: int
    password: str
    tables: str


_NOWHERE_IN_SQL = SqlServer(host="localhost", port=5432, password="", tables="")


def template_values(storage: EjabberdStorage, server: SqlServer | None, version: Version) -> dict[str, str]:
    """What `ejabberd.yml` leaves open of its storage. In Mnesia a server is where everything is to be moved to."""
    is_sql = storage is EjabberdStorage.SQL
    server = server or _NOWHERE_IN_SQL
    return {
        "storage": storage,
        "accounts": "sql" if is_sql else "internal",
        "use_cache": str(not is_sql).lower(),
        "sql_multihost": multihost_option(version),
        "sql_server": server.host,
        "sql_port": str(server.port),
        "sql_password": server.password,
        "sql_tables": server.tables,
    }


def objection(places: Mapping[str, str], wanted: EjabberdStorage | None) -> tuple[str, str] | None:
    """What is wrong with where ejabberd keeps what it has, and what to do; None when that was tried.

    `places`: by kind, as the bridge tells (`lhc_storages`).
    """
    memory = {kind: places[kind] for kind in _IN_MEMORY if places[kind] != EjabberdStorage.MNESIA}
    if memory:
        return f"in a database that was not tried: {_listed(memory)}", "leave out default_ram_db in ejabberd.yml"
    kept = {kind: place for kind, place in places.items() if kind not in _IN_MEMORY and place != _NOWHERE}
    found = set(kept.values())
    if not found <= set(EjabberdStorage):
        strange = {kind: place for kind, place in kept.items() if place not in set(EjabberdStorage)}
        return f"kept where nothing is found: {_listed(strange)}", _ALL_OF_ONE
    if len(found) > 1:
        return f"a mixture, which was not tried: {_listed(kept)}", _ALL_OF_ONE
    if wanted is not None and found != {wanted}:
        return (
            f"in {found.pop()}; ORCHESTRATOR_EJABBERD_STORAGE says {wanted}",
            "mend that, or default_db in ejabberd.yml",
        )
    return None


def _listed(places: Mapping[str, str]) -> str:
    return ", ".join(f"{kind.replace('_', ' ')} ({place})" for kind, place in places.items())
