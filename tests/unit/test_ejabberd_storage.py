"""Which storages of ejabberd are refused, and with what advice."""

import pytest

from config.ejabberd_storage import EjabberdStorage, objection

KEPT = ("accounts", "rosters", "members", "rooms", "vcards", "offline_messages", "last_activity", "contacts")
IN_MEMORY = dict.fromkeys(("routes", "sessions", "running_rooms"), "mnesia")


def places(everything: str, **differing: str) -> dict[str, str]:
    return dict.fromkeys(KEPT, everything) | IN_MEMORY | differing


@pytest.mark.parametrize("storage", EjabberdStorage)
def test_all_of_one_kind_is_well(storage: EjabberdStorage) -> None:
    assert objection(places(storage), storage) is None
    assert objection(places(storage), None) is None
    assert objection(places(storage, vcards="none"), storage) is None


@pytest.mark.parametrize(
    ("found", "says", "advice"),
    [
        (
            places("sql", rosters="mnesia"),
            "a mixture, which was not tried: accounts (sql), rosters (mnesia)",
            "default_db",
        ),
        (places("mnesia", accounts="ejabberd_auth_ldap"), "accounts (ejabberd_auth_ldap)", "auth_method"),
        (places("sql", routes="redis", sessions="redis"), "routes (redis), sessions (redis)", "default_ram_db"),
        (places("mnesia"), "in mnesia; ORCHESTRATOR_EJABBERD_STORAGE says sql", "default_db"),
    ],
)
def test_any_other_is_refused(found: dict[str, str], says: str, advice: str) -> None:
    wrong = objection(found, EjabberdStorage.SQL)
    assert wrong is not None
    assert says in wrong[0]
    assert advice in wrong[1]
