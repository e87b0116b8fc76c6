"""How a store gets rid of what is old or too much, a little at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ctsd.store import aging_steps, import_steps
from ctsd.store.steps import MakeSteps, bound
from ctsd.store.wall import WallWatch


class _Write(Protocol):
    def __call__(self, make: MakeSteps[Any], *, durable: bool = True) -> Deferred[Any]: ...


@define(kw_only=True, eq=False)
class Aging:
    """
    Removes rows in small transactions, between which other writes find their place.

    :ivar write: runs steps in a transaction.
    :ivar used_bytes: fires with how much of the database is in use.
    :ivar monotonic: seconds by a clock that nobody can set.
    :ivar retention_secs: finished scans that were created longer ago go.
    :ivar max_bytes: above this the oldest finished scans go, however young.
    :ivar tombstone_secs: how long a deletion is told to those who follow the changes.
    :ivar import_secs: an import that nobody finished or touched for so long goes.
    :ivar lease_secs: how long a lease that has ended is kept: while it is, its holder gets the
        same fencing token again.
    :ivar batch: how many rows one transaction removes at most.
    :ivar too_big: empty, or why there is no room although all that may go has gone.
    """

    _log = Logger()

    write: _Write
    used_bytes: Callable[[], Deferred[int]]
    monotonic: Callable[[], float]
    retention_secs: float
    max_bytes: int
    tombstone_secs: float = 7 * 86400.0
    import_secs: float = 86400.0
    lease_secs: float = 86400.0
    batch: int = 500
    watch: WallWatch = field(factory=WallWatch)
    too_big: str = field(default="", init=False)

    async def run(self, now: float) -> int:
        """
        Remove what is to be removed now; how many scans and threats went.

        :param now: POSIX seconds in store time.
        :raises StoreError: some of it could not be removed.
        """
        count = 0
        if self.watch.steady(wall=now, monotonic=self.monotonic()):
            count += await self._old(now)
        return count + await self._too_much()

    async def _old(self, now: float) -> int:
        batch = self.batch
        count = await self._all(bound(aging_steps.finished_scans, now - self.retention_secs, batch))
        count += await self._all(bound(aging_steps.expired_threats, now, batch))
        stale = bound(aging_steps.stale_imports, now - self.import_secs)
        for import_id in await self.write(stale, durable=False):
            count += await self.clear_import(import_id)
        await self.write(aging_steps.empty_imports, durable=False)
        await self._all(bound(aging_steps.tombstones, now - self.tombstone_secs, batch))
        await self._all(bound(aging_steps.expired_shared, now, self.lease_secs, batch))
        return count

    async def clear_import(self, import_id: int) -> int:
        """Remove an abandoned import; how many threats it had."""
        return await self._all(bound(import_steps.clear_import, import_id, self.batch))

    async def _all(self, make: MakeSteps[int]) -> int:
        total = 0
        while count := await self.write(make, durable=False):
            total += count
            if count < self.batch:
                break
        return total

    async def _too_much(self) -> int:
        total = 0
        oldest = bound(aging_steps.finished_scans, None, self.batch)
        while (used := await self.used_bytes()) > self.max_bytes:
            count = await self.write(oldest, durable=False)
            if not count:
                break
            total += count
        if total:
            self._log.warn(
                "{count} finished scans went early: the store was above its {max_bytes} bytes",
                count=total,
                max_bytes=self.max_bytes,
            )
        if used <= self.max_bytes:
            self.too_big = ""
        else:
            self.too_big = (
                f"the store holds {used} of at most {self.max_bytes} bytes (store.max_bytes),"
                " and no finished scan is left that could go"
            )
            self._log.error("{reason}", reason=self.too_big)
        return total
