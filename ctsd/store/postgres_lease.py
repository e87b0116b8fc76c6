"""One daemon a database: the lease by which a second one learns of the first."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ctsd.errors import StoreError
from ctsd.store import shared_steps
from ctsd.store.postgres_runner import Limits, run_now
from ctsd.store.postgres_schema import connected
from ctsd.store.postgres_steps import server_time
from ctsd.store.postgres_target import Target
from ctsd.store.rows import name_digest
from ctsd.store.steps import Query, Steps, bound

#: What the lease is called.
NAME = "daemon"

#: How often it is looked again whether another daemon's lease ends.
_LOOK_SECS = 0.5

_log = Logger(__name__)


def holder() -> Steps[tuple[str, float]]:
    """Who has the lease, and until when (POSIX seconds)."""
    rows = yield Query("SELECT holder, expires FROM leases WHERE name = ?", (name_digest(NAME),))
    return (rows[0][0], rows[0][1]) if rows else ("", 0.0)


def take(
    target: Target,
    *,
    node: str,
    secs: float,
    limits: Limits,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """
    Take the lease. Blocks: when another daemon has it, as long as it takes to see whether it is
    alive, or until its lease has ended.

    :param node: who we are; the same again after a restart, which then need not wait.
    :param secs: for how long.
    :raises StoreError: another daemon is alive; says which.
    """
    before: tuple[str, float] | None = None
    while True:
        with connected(target) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"{limits.local}SELECT value FROM numbers WHERE name = 'writer' FOR UPDATE"
            )
            now = run_now(cursor, server_time)
            if run_now(cursor, bound(shared_steps.lease, NAME, node, secs, now)) is not None:
                return
            found = run_now(cursor, holder)
        if before is None:
            before = found
            _log.warn("{holder} has used this store; waiting whether it is alive", holder=found[0])
        elif found != before:
            raise StoreError(f"{target.name} is used by another ctsd that is running: {found[0]}")
        sleep(_LOOK_SECS)


@define(kw_only=True, eq=False)
class Lease:
    """
    The lease of a daemon that runs: it writes only while it has it.

    :ivar renew: asks for it again; fires with a token, or None when another daemon has it.
    :ivar monotonic: a clock that nobody can set.
    :ivar secs: for how long it is taken.
    :ivar until: until when we have it, by that clock.
    """

    _log = Logger()

    renew: Callable[[], Deferred[int | None]]
    monotonic: Callable[[], float]
    secs: float
    until: float
    _gone: bool = field(default=False, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    def held(self) -> bool:
        """Whether we have it now."""
        return not self._gone and self.monotonic() < self.until

    def keep(self) -> Deferred[None]:
        """
        Have it renewed.

        :raises StoreError: (in the Deferred) that is not possible; when another daemon has it, for
            good: what that one has taken over must not be touched.
        """
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            Deferred.fromCoroutine(self._keep()).addBoth(self._kept)
        return waiting

    def _kept(self, result: Any) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(result)

    async def _keep(self) -> None:
        sent = self.monotonic()
        if not self._gone and await self.renew() is None:
            self._gone = True
            self._log.critical(
                "another ctsd uses this store now: restart this one when that one has ended"
            )
        if self._gone:
            raise StoreError("another ctsd uses this store")
        self.until = sent + self.secs
