"""What an API process knows of tenants, tokens and visitors, so that most calls are judged without a database.

A page view that says what was said before, of a visitor who is online, changes nothing but how long the visitor stays
online. Such a one is answered from here, and `tenants.visitors.write_behind` writes the longer windows behind, many at
once. All else goes the slow way, by the database, which also fills this memory. Nothing is refused from here: who is
not known, is shut, or has another key or password is judged by the database.

How far what is known may be from the truth, and what comes of it:

* *Tenant* (state, keys, features, window): as old as `TENANT_SECONDS`. It is read again once a second while it is
  used; without a database it is soon not known any more. So a suspended tenant or a rotated key takes effect within
  that time. What this very process changes (`registry.put`) is forgotten here at once.
* *Host* of a tenant: as old as `TENANT_SECONDS`, too. It is the same until the tenant moves, which closes it for
  longer; and a name rests for longer between two tenants.
* *Token* of the API: the same; what this process revokes is forgotten at once.
* *Quotas*: calls per second are counted for each page view, with the limit of that tenant. The number of visitors
  online does not concern who is online already, nor the number of accounts who has one.
* *Account and password*: the digest that was checked last, in each page view. Each renewal compares it, and that the
  account is active, with the database: after an account was removed, or its password changed, by another process, page
  views are answered `ok` for as long as one renewal may wait, extend nothing, and go the slow way from then on. What
  this process removes or changes is forgotten at once.
* *Session* (nick, status, end, version): as the pool was told last by this process. Another process may have shown the
  visitor with another status meanwhile, or closed it (a tenant that was suspended and resumed, or destroyed and made
  anew); or what was stored could not be told, and was refused. A renewal counts only for the version that is known
  here; else the page view is carried out once more, the slow way, unless a later one was stored
  (`tenants.visitors.write_behind`).
* *Expiry*: a page view counts here only while the stored end is more than `MARGIN` away, so that its renewal is
  written before; later ones go the slow way. An account is touched at most a minute late, while its visitor is online,
  and who is online is not idle.
* *A crash* of this process loses the renewals that were not written yet, those of the last
  `tenants.visitors.write_behind.PAUSE`: by so much those visitors leave early at most, unless they view another page.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tenants.core.clock import Clock
from tenants.core.naming import AccountKind
from tenants.store.models import Account, Tenant, Token

Thing = TypeVar("Thing")

TENANT_SECONDS = 3.0
"""How old what is known of a tenant, or of a token, may be."""
MARGIN = 5.0
"""Seconds before the end of a visitor's window in which page views go the slow way: more than a renewal takes."""
TOUCH_SECONDS = 60.0
"""How late an account's last activity may be: accounts expire after hours."""
_TENANTS = 10_000
_TOKENS = 10_000
_VISITORS = 100_000
"""How many are known at most, of some 700 bytes each; whoever came first is forgotten first."""


@dataclass(slots=True)
class KnownVisitor:
    """A visitor's account, and its session as stored last; `online_until` is 0 as long as there is none."""

    username: str
    instance_name: str
    incarnation: str
    """The tenant's."""
    kind: AccountKind
    password_digest: str
    nick: str = ""
    status: str = ""
    online_until: float = 0.0
    version: int = 0
    seen_until: float = 0.0
    """The end of the window by the last activity: not stored yet when it is later than `online_until`."""
    viewed_until: float = 0.0
    """The same by the last page view, which says where the visitor is; a message does not."""


@dataclass(slots=True)
class _Read(Generic[Thing]):
    thing: Thing
    read_at: float
    used: bool = False
    """Since it was read."""


class Readings(Generic[Thing]):
    """Things as they were read from the database a moment ago, `at_most` so many."""

    def __init__(self, clock: Clock, at_most: int) -> None:
        self._clock = clock
        self._at_most = at_most
        self._read: dict[str, _Read[Thing]] = {}

    def get(self, key: str) -> Thing | None:
        """The thing, when it is known well enough."""
        known = self._read.get(key)
        # an age below zero: the clock was set back
        if known is None or not 0 <= self._clock() - known.read_at < TENANT_SECONDS:
            return None
        known.used = True
        return known.thing

    def keep(self, key: str, thing: Thing, read_at: float) -> None:
        """Remember the thing as it was read at that time."""
        if len(self._read) >= self._at_most:
            self._read.clear()
        self._read[key] = _Read(thing, read_at)

    def forget(self, key: str) -> None:
        """It changed, or may have."""
        self._read.pop(key, None)

    def used(self, older_than: float) -> list[str]:
        """What was asked for since it was read, which is that many seconds ago."""
        read_before = self._clock() - older_than
        return [key for key, known in self._read.items() if known.used and known.read_at < read_before]


class Cache:
    """The memory of one process. Pure data: what is in it was read or written by others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.tenants = Readings[Tenant](clock, _TENANTS)
        """By instance name."""
        self.tokens = Readings[Token](clock, _TOKENS)
        """By id."""
        self.hosts = Readings[str](clock, _TENANTS)
        """The XMPP hosts of tenants, by instance name."""
        self._visitors: dict[str, KnownVisitor] = {}
        self._touched: dict[str, float] = {}
        """When accounts were noted as active by this process; bounded by `_VISITORS`."""
        self._renewed: dict[str, KnownVisitor] = {}
        """Whose longer window is still to be stored; bounded by `_VISITORS`."""

    def visitor(self, username: str, incarnation: str) -> KnownVisitor | None:
        """The visitor of that very tenant, when it is known to be online for long enough."""
        known = self._visitors.get(username)
        if known is None or known.incarnation != incarnation:
            return None
        return known if known.online_until > self._clock() + MARGIN else None

    def keep_account(self, tenant: Tenant, account: Account, password_digest: str) -> None:
        """Remember an active account of the tenant with the password that it has now."""
        known = self._visitors.get(account.username)
        if known is not None and (known.incarnation, known.password_digest) == (tenant.incarnation, password_digest):
            return
        if len(self._visitors) >= _VISITORS:
            del self._visitors[next(iter(self._visitors))]
        self._visitors[account.username] = KnownVisitor(
            account.username, account.instance_name, tenant.incarnation, account.kind, password_digest
        )

    def keep_session(self, username: str, nick: str, status: str, online_until: float, version: int) -> None:
        """Remember the session as it was stored just now, of an account that is known."""
        known = self._visitors.get(username)
        # of two that came at once, the later one is true
        if known is None or online_until < known.online_until:
            return
        known.nick, known.status, known.version = nick, status, version
        known.online_until = online_until
        known.seen_until = max(known.seen_until, online_until)
        known.viewed_until = max(known.viewed_until, online_until)

    def renew(self, visitor: KnownVisitor, online_until: float, *, viewed: bool) -> None:
        """The visitor viewed a page, or wrote, without news: to be stored soon."""
        visitor.seen_until = online_until
        if viewed:
            visitor.viewed_until = online_until
        self._renewed[visitor.username] = visitor

    def take_renewed(self) -> list[KnownVisitor]:
        """Those whose longer window is to be stored, now by the caller."""
        renewed, self._renewed = self._renewed, {}
        return list(renewed.values())

    def give_back(self, visitors: Iterable[KnownVisitor]) -> None:
        """They could not be stored: to be stored soon, unless they were forgotten meanwhile."""
        for visitor in visitors:
            if self._visitors.get(visitor.username) is visitor:
                self._renewed[visitor.username] = visitor

    def is_to_be_touched(self, username: str) -> bool:
        """Whether the account is to be noted as active, now by the caller: the first who asks in `TOUCH_SECONDS`."""
        now = self._clock()
        if 0 <= now - self._touched.get(username, -TOUCH_SECONDS) < TOUCH_SECONDS:
            return False
        if len(self._touched) >= _VISITORS:
            self._touched.clear()
        self._touched[username] = now
        return True

    def drop_renewed(self, instance_name: str) -> None:
        """The tenant is shut: page views that were answered meanwhile are not stored, even if it opens again."""
        self._renewed = {
            name: visitor for name, visitor in self._renewed.items() if visitor.instance_name != instance_name
        }

    def forget_visitor(self, username: str) -> None:
        """The account or its password changed, or may have."""
        self._visitors.pop(username, None)
        self._renewed.pop(username, None)
