"""Whether we were tested with the ejabberd that runs and its storage, and whether the bridge was compiled for it.

`doctor` asks all three, and each pool process the first two before it serves anybody. (A bridge starts in no other
ejabberd than the one that it was compiled for. Of another version it may be for a moment, while a system is upgraded.)
"""

from config import ejabberd_storage
from config.ejabberd_storage import EjabberdStorage
from config.ejabberd_versions import caution, objection, read_version, shown
from tenants.core.errors import DomainError
from tenants.ejabberd.client import BRIDGE_VERSION, Ejabberd


class UnfitError(DomainError):
    """It is not one to work with.

    Attributes:
        advice: what to change.
    """

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.advice = advice


async def check_version(ejabberd: Ejabberd, accepted: str) -> str:
    """Say which version it is. `accepted`: one that is used although it was not tested.

    Raises:
        UnfitError: it was not tested.
        EjabberdUnavailableError: it cannot be reached.
    """
    version = await ejabberd.version()
    wrong = objection(version, accepted)
    if wrong is not None:
        raise UnfitError(*wrong)
    return f"version {shown(version)}{caution(version)}"


async def check_storage(ejabberd: Ejabberd, wanted: EjabberdStorage | None) -> str:
    """Say where it keeps what it has. `wanted`: where it should, if that is known.

    Raises:
        UnfitError: somewhere that was not tried, or else than wanted.
        EjabberdUnavailableError: it cannot be reached.
    """
    places = await ejabberd.storages()
    wrong = ejabberd_storage.objection(places, wanted)
    if wrong is not None:
        raise UnfitError(*wrong)
    return f"everything is in {places['accounts']}"


async def check_bridge(ejabberd: Ejabberd) -> str:
    """Say which version the bridge is of, and what it was compiled for.

    Raises:
        UnfitError: it is of another version than the one that we work with, or compiled for another ejabberd.
        EjabberdUnavailableError: it cannot be reached.
    """
    version = await ejabberd.bridge_version()
    if version is None:
        raise UnfitError(
            "ejabberd does not know its commands",
            "compile config/ejabberd/*.erl for ejabberd, and load mod_lhc_bridge in ejabberd.yml",
        )
    if version != BRIDGE_VERSION:
        raise UnfitError(f"version {version}, not {BRIDGE_VERSION}", _COMPILE)
    made_for, running = await ejabberd.bridge_made_for(), await ejabberd.version()
    if read_version(f"ejabberd {made_for}") != running:
        raise UnfitError(f"compiled for ejabberd {made_for}, but {shown(running)} runs", _COMPILE)
    return f"version {version}, compiled for ejabberd {made_for}"


_COMPILE = "compile config/ejabberd/*.erl anew, for the ejabberd that runs, and restart it"
