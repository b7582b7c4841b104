"""The one place that knows how accounts, rosters and addresses are named.

| thing           | standalone             | automated hosting                            |
|-----------------|------------------------|----------------------------------------------|
| operator        | `[username]`           | `[username].[instance_name]`                 |
| online visitor  | `visitor.[id]`         | `visitor.[id].[instance_name]`               |
| direct chat     | `visitor.[id].chat`    | `visitor.[id].chat.[instance_name]`          |
| shared rosters  | `visitors`, `operators`| `visitors.[instance_name]`, `operators.[…]`  |
| room            | `[name]`               | `[name].[instance_name]`                     |
| page operator   | `[name].operator`      | `[name].operator.[instance_name]`            |

Names say nothing of the XMPP host: a tenant lives on one, and its names are at that host alone. So whoever reads an
address asks for the tenant's host, and compares.

An instance name holds no dot and is never `chat`, so what follows the last dot of a hosted username is its instance
and `visitor.2.chat` can only be read one way. Parsing is total: every string is exactly one name, or an
`InvalidInputError` that states the rule it breaks. Building and parsing are inverse to each other.

Rooms (group chats of operators) and those who write in them from LHC's page are named by people, so any local part of
a JID is a name. LHC knows them by what stands before the instance.
"""

import re
import stringprep
from dataclasses import dataclass
from encodings.idna import nameprep
from enum import StrEnum

from tenants.core.errors import ForeignNameError, InvalidInputError
from tenants.core.prepared_text import is_allowed, is_of_one_direction, normalize

MAX_INSTANCE = 63
MAX_USERNAME = 64
MAX_ID_DIGITS = 19
MAX_ROOM = 100
MAX_NICK_BYTES = 1000
"""A resource has 1023 (RFC 6122, 2.4), and the bridge module may add a number."""
STANDALONE_INSTANCE = "standalone"
"""Registry key and bridge address of the one tenant of a standalone system; it appears in no username."""

_INSTANCE = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_USERNAME = re.compile(r"[a-z0-9_+-]+(\.[a-z0-9_+-]+)*")
_IDENTIFIER = re.compile(r"[1-9][0-9]*")
_VISITOR_PREFIX = "visitor"
_VISITOR_PREFIXES = frozenset({_VISITOR_PREFIX, "visitors"})
"""What visitors' names begin with, up to the first dot; the second is an old spelling."""
_ADMINISTRATOR = "admin"
_CHAT = "chat"
_PAGE_OPERATOR = ".operator"
_NO_LOCAL_PART = frozenset("\"&'/:<>@ ")


class AccountKind(StrEnum):
    """Who stands behind an account."""

    OPERATOR = "operator"
    VISITOR = "visitor"
    CHAT = "chat"


class RosterKind(StrEnum):
    """The two shared rosters of a tenant."""

    VISITORS = "visitors"
    OPERATORS = "operators"


@dataclass(frozen=True, slots=True)
class AccountName:
    """An account: the username's parts. `ident` is the operator's username, or the visitor's or chat's number."""

    kind: AccountKind
    ident: str
    instance: str

    @property
    def roster(self) -> RosterKind:
        """The roster that accounts of this kind are members of."""
        return RosterKind.OPERATORS if self.kind is AccountKind.OPERATOR else RosterKind.VISITORS


@dataclass(frozen=True, slots=True)
class RosterName:
    """One of the two shared rosters of an instance."""

    kind: RosterKind
    instance: str


@dataclass(frozen=True, slots=True)
class RoomName:
    """A room of operators: the name that LHC knows it by, and whose it is."""

    name: str
    instance: str


def check_instance(name: str, field: str = "instance_name") -> str:
    """Return `name` when it is a valid instance name, as the address of an LHC instance with dashes for dots.

    Raises:
        InvalidInputError: naming `field` and the rule.
    """
    _check_plain(name, MAX_INSTANCE, field)
    if "." in name:
        raise InvalidInputError(field, "must not contain a dot: write the address with dashes (shop.acme is shop-acme)")
    if not _INSTANCE.fullmatch(name):
        raise InvalidInputError(field, "must be of a-z, 0-9 and dashes, and begin and end with a letter or digit")
    if name == _CHAT:
        raise InvalidInputError(field, "must not be 'chat': that word marks direct chats in usernames")
    return name


def check_operator(username: str, field: str = "username") -> str:
    """Return `username` (without its instance) when an operator may bear it.

    LHC makes operators' accounts for its own users by itself, whatever they are called: `admin`, `visitorcentre`.

    Raises:
        InvalidInputError: naming `field` and the rule.
    """
    _check_plain(username, MAX_USERNAME, field)
    if username.partition(".")[0] in _VISITOR_PREFIXES:
        raise InvalidInputError(
            field, f"an operator's username must not be '{_VISITOR_PREFIX}', nor begin with '{_VISITOR_PREFIX}.'"
        )
    if not _USERNAME.fullmatch(username):
        raise InvalidInputError(field, "must be of a-z, 0-9, _, +, - and single dots between them")
    return username


def _check_plain(name: str, longest: int, field: str) -> None:
    """The rules that all names share; what nodeprep would change is refused rather than changed (RFC 6122, A)."""
    if not name:
        raise InvalidInputError(field, "must not be empty")
    if len(name) > longest:
        raise InvalidInputError(field, f"must be at most {longest} characters long")
    if not name.isascii():
        raise InvalidInputError(field, "must be ASCII")
    if name != name.lower():
        raise InvalidInputError(field, "must be lower case")


def check_identifier(ident: str, field: str = "id") -> str:
    """Return `ident` when it is a visitor's or chat's number in LHC: a positive integer without leading zeros.

    Raises:
        InvalidInputError: naming `field` and the rule.
    """
    if not ident.isascii() or not _IDENTIFIER.fullmatch(ident) or len(ident) > MAX_ID_DIGITS:
        raise InvalidInputError(
            field, f"a visitor's or chat's id must be a positive whole number of at most {MAX_ID_DIGITS} digits"
        )
    return ident


def fold_room(name: str, field: str = "name") -> str:
    """The room's name as ejabberd has it: LHC writes it in any case.

    Raises:
        InvalidInputError: naming `field` and the rule.
    """
    return _fold(name, field)


def is_page_operator(username: str) -> bool:
    """Whether somebody of that name writes in LHC's page: `Name.Surname.operator`, without account or instance.

    A tenant's call that holds such a name always means a person of that tenant; other tenants may use the same name.
    """
    return username.lower().endswith(_PAGE_OPERATOR)


def fold_page_operator(username: str, field: str = "user") -> str:
    """The name of an operator who writes in LHC's page, as ejabberd has it but for the instance.

    Raises:
        InvalidInputError: naming `field` and the rule.
    """
    folded = _fold(username, field)
    if not is_page_operator(folded) or folded == _PAGE_OPERATOR:
        raise InvalidInputError(field, f"must be [name]{_PAGE_OPERATOR}")
    return folded


def page_operator_of(operator: str) -> str:
    """The name under which the operator of that username writes in LHC's page."""
    return f"{operator}{_PAGE_OPERATOR}"


def _fold(name: str, field: str) -> str:
    """The name after nodeprep (RFC 6122, A): nameprep (RFC 3491) folds case and normalises, then more is forbidden."""
    if len(name) > MAX_ROOM:
        raise InvalidInputError(field, f"must be at most {MAX_ROOM} characters long")
    try:
        folded = nameprep(name)
    except UnicodeError:
        raise InvalidInputError(field, "holds a character that no name may hold (RFC 6122, nodeprep)") from None
    if not folded:
        raise InvalidInputError(field, "must not be empty")
    if len(folded) > MAX_ROOM:
        raise InvalidInputError(field, f"must be at most {MAX_ROOM} characters long")
    # table A.1: characters that Unicode 3.2 did not have; some implementations fold them and others do not
    if any(
        char in _NO_LOCAL_PART or stringprep.in_table_c21(char) or stringprep.in_table_a1(char) for char in folded
    ) or folded != nameprep(folded):
        raise InvalidInputError(field, "holds a character that no name may hold (RFC 6122, nodeprep)")
    return folded


def check_direction(local: str, field: str = "name") -> str:
    """Return a local part, unless it mixes letters that are written from right to left with others.

    Raises:
        InvalidInputError: naming `field` and the rule.
    """
    if not is_of_one_direction(local):
        raise InvalidInputError(field, "a name in Hebrew or Arabic cannot stand before the tenant's (RFC 3454, 6)")
    return local


def prepare_nick(nick: str) -> str | None:
    """The name as a room shows it: the resource of an address (resourceprep, RFC 6122, B). None: it is not valid.

    ejabberd does not check it, and the room ends when somebody in it has a name that is no valid resource.
    """
    prepared = normalize(nick)
    if not prepared.strip() or len(prepared.encode(errors="replace")) > MAX_NICK_BYTES:
        return None
    if not all(map(is_allowed, prepared)) or not is_of_one_direction(prepared):
        return None
    return prepared


def mend_nick(nick: str) -> str | None:
    """As `prepare_nick`, but forbidden characters are left out: LHC would not ask again. None: nothing is left."""
    possible = " ".join("".join(filter(is_allowed, nick)).split())
    letters = "".join(char for char in possible if char == " " or stringprep.in_table_d1(char))
    return prepare_nick(nick) or prepare_nick(possible) or prepare_nick(" ".join(letters.split()))


def check_nick(nick: str, field: str = "nick") -> str:
    """Return `nick` as a room shows it.

    Raises:
        InvalidInputError: naming `field` and the rule.
    """
    prepared = prepare_nick(nick)
    if prepared is None:
        raise InvalidInputError(
            field,
            "cannot be a name in a room (RFC 6122, resourceprep): no control characters, no emoji; a name in Hebrew or "
            "Arabic holds no other letters, and begins and ends with one of its own",
        )
    return prepared


@dataclass(frozen=True, slots=True)
class Naming:
    """Builds and parses names for one mode; the mode is a setting of the whole system."""

    hosting: bool

    @property
    def other(self) -> "Naming":
        """The names of the other mode."""
        return Naming(hosting=not self.hosting)

    def is_foreign(self, instance: str) -> bool:
        """Whether the instance is called as one of the other mode, so that its names may be of that."""
        return (instance == STANDALONE_INSTANCE) == self.hosting

    def username(self, account: AccountName) -> str:
        """The account's local part in ejabberd.

        Raises:
            InvalidInputError: a part of the name breaks its rule.
        """
        if account.kind is AccountKind.OPERATOR:
            local = self._check_operator(account.ident, "username")
        else:
            local = f"{_VISITOR_PREFIX}.{check_identifier(account.ident)}"
            if account.kind is AccountKind.CHAT:
                local += f".{_CHAT}"
        return local + self._suffix(account.instance)

    def parse_username(self, username: str, field: str = "user") -> AccountName:
        """Read a username; the old spelling `visitors.…` is accepted for `visitor.…`. Capitals are folded (nodeprep).

        Raises:
            InvalidInputError: it is nobody's name.
        """
        local, instance = self._split(username.lower() if username.isascii() else username, field)
        if local.partition(".")[0] not in _VISITOR_PREFIXES:
            return AccountName(AccountKind.OPERATOR, self._check_operator(local, field), instance)
        match local.split("."):
            case ["visitor" | "visitors", ident]:
                return AccountName(AccountKind.VISITOR, check_identifier(ident, field), instance)
            case ["visitor" | "visitors", ident, "chat"]:
                return AccountName(AccountKind.CHAT, check_identifier(ident, field), instance)
        raise InvalidInputError(
            field,
            "begins as a visitor's name, so it must be visitor.[id] or visitor.[id].chat: no operator may be named so",
        )

    def group(self, roster: RosterName) -> str:
        """The shared roster group's name in ejabberd."""
        return roster.kind + self._suffix(roster.instance)

    def parse_group(self, group: str, field: str = "group") -> RosterName:
        """Read a shared roster group's name; the instance is a part of an address in DNS, and has no case.

        Raises:
            InvalidInputError: it is no tenant's roster.
        """
        kind, dot, instance = group.rpartition(".")
        kind, instance = self._split(f"{kind}.{instance.lower()}" if dot and group.isascii() else group, field)
        if kind not in set(RosterKind):
            raise InvalidInputError(field, "a shared roster is named 'visitors' or 'operators', then the instance")
        return RosterName(RosterKind(kind), instance)

    def room(self, room: RoomName) -> str:
        """The room's local part in ejabberd.

        Raises:
            InvalidInputError: a part of the name breaks its rule.
        """
        name = fold_room(room.name)
        if name != room.name:
            raise InvalidInputError("name", f"must be written '{name}'")
        return name + self._suffix(room.instance)

    def parse_room(self, local: str, field: str = "room") -> RoomName:
        """Read the local part of a room's address in ejabberd.

        Raises:
            InvalidInputError: it is no tenant's room.
        """
        name, instance = self._split(local, field)
        if fold_room(name, field) != name:
            raise InvalidInputError(field, "must be lower case, as ejabberd has it")
        return RoomName(name, instance)

    def page_operator(self, username: str, instance: str) -> str:
        """The local part that an operator writing in LHC's page has in ejabberd; there is no such account."""
        return fold_page_operator(username) + self._suffix(instance)

    def username_suffix(self, instance: str) -> str:
        """What every username of the instance ends in; empty in standalone mode, where all names are its own."""
        return self._suffix(instance)

    def _check_operator(self, username: str, field: str) -> str:
        """As `check_operator`. Without an instance behind it, `admin` may be the server's administrator."""
        if username == _ADMINISTRATOR and not self.hosting:
            raise InvalidInputError(field, f"an operator's username must not be '{_ADMINISTRATOR}'")
        return check_operator(username, field)

    def _suffix(self, instance: str) -> str:
        if self.hosting:
            return f".{check_instance(instance)}"
        if instance != STANDALONE_INSTANCE:
            raise InvalidInputError("instance_name", f"a standalone system has one instance, '{STANDALONE_INSTANCE}'")
        return ""

    def _split(self, name: str, field: str) -> tuple[str, str]:
        if not self.hosting:
            return name, STANDALONE_INSTANCE
        local, dot, instance = name.rpartition(".")
        if not dot:
            raise InvalidInputError(field, "must end in .[instance_name]")
        return local, check_instance(instance, field)


def local_part(jid: str, host: str, field: str = "jid") -> str:
    """The local part of a JID of that domain; a bare local part is taken as one.

    Raises:
        ForeignNameError: the JID is of another domain.
    """
    if "@" in jid and domain_of(jid) != host.lower():
        raise ForeignNameError(field, f"must be an address at {host}")
    return jid.partition("@")[0]


def domain_of(jid: str) -> str:
    """The domain of a JID, in lower case."""
    bare = jid.partition("/")[0]
    return (bare.partition("@")[2] or bare).lower()


def rooms_service(host: str) -> str:
    """The domain of the group chats of that host's operators (`mod_muc` in `config/ejabberd/ejabberd.yml`)."""
    return f"conference.{host}"
