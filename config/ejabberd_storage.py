"""Where ejabberd keeps accounts, shared rosters, rooms and all else: what `ejabberd.yml` says of it."""

from dataclasses import dataclass
from enum import StrEnum

from config.ejabberd_versions import Version

_MULTIHOST_SINCE: Version = (25, 10)
"""The option was called `new_sql_schema` before."""


class EjabberdStorage(StrEnum):
    """What all of ejabberd is kept in; a mixture was never tried."""

    MNESIA = "mnesia"
    """Erlang's own database, on the node itself."""
    SQL = "sql"
    """A database of ejabberd's own in PostgreSQL."""


@dataclass(frozen=True, slots=True)
class SqlServer:
    """Where ejabberd's database is. `tables` is the file of the installed version that makes its tables."""

    host: str
    port: int
    password: str
    tables: str


def template_values(server: SqlServer | None, version: Version) -> dict[str, str]:
    """What `ejabberd.yml` leaves open of its storage; without a server all is in Mnesia."""
    multihost = "sql_schema_multihost" if version >= _MULTIHOST_SINCE else "new_sql_schema"
    if server is None:
        nowhere = {"sql_server": "localhost", "sql_port": "5432", "sql_password": "", "sql_tables": ""}
        return {"storage": "mnesia", "accounts": "internal", "use_cache": "true", "sql_multihost": multihost, **nowhere}
    return {
        "storage": "sql",
        "accounts": "sql",
        "use_cache": "false",
        "sql_multihost": multihost,
        "sql_server": server.host,
        "sql_port": str(server.port),
        "sql_password": server.password,
        "sql_tables": server.tables,
    }
