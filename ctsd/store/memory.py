"""
A store without a file and without threads, for tests: the same logic as the real ones, at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ctsd.errors import StoreError
from ctsd.model import Scan
from ctsd.records import Finds
from ctsd.store import scan_steps
from ctsd.store.aging import Aging
from ctsd.store.sqlite_runner import run_group, run_read
from ctsd.store.sqlite_schema import bring_up, read_secret, scripts
from ctsd.store.sqlite_steps import used_bytes
from ctsd.store.steps import MakeSteps, bound
from ctsd.store.verbs import Verbs
from ctsd.store.writes import Write

T = TypeVar("T")


class MemoryStore(Verbs, Service):
    """
    The shipped fake of L{ctsd.interfaces.store.IStore}: every Deferred has fired when it is
    returned.

    Stopping and starting the service keeps everything, as a restart of the daemon would.

    :ivar broken: while true, every verb fails with L{StoreError}, and nothing is remembered.
    :ivar fullness: what L{full} says, beside C{store.max_bytes}.
    :ivar lost: how many scans could not be remembered.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        wall_clock: Callable[[], float] | None = None,
        max_bytes: int = 2**40,
        retention_secs: float = 30 * 86400.0,
        threat_secs: float = 7 * 86400.0,
    ) -> None:
        """
        :param clock: the monotonic clock, and store time unless C{wall_clock} is given.
        :param wall_clock: store time.
        """
        self.broken = False
        self.fullness = ""
        self.lost = 0
        self.threat_secs = threat_secs
        self._wall_clock = wall_clock or clock.seconds
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        bring_up(self._connection, scripts())
        self._secret = read_secret(self._connection)
        self.aging = Aging(
            write=self._write,
            used_bytes=lambda: self._read(used_bytes),
            monotonic=clock.seconds,
            retention_secs=retention_secs,
            max_bytes=max_bytes,
        )

    def open(self) -> None:
        """As of a real store; there is nothing to do."""

    def secret(self) -> bytes:
        """See L{ctsd.interfaces.store.IScanStore.secret}."""
        return self._secret

    def full(self) -> str:
        """See L{ctsd.interfaces.store.IScanStore.full}."""
        return self.fullness or self.aging.too_big

    def remember(self, *, scan: Scan, finds: Sequence[Finds] = ()) -> None:
        """See L{ctsd.interfaces.store.IScanStore.remember}."""
        writing = self._write(
            bound(
                scan_steps.write_scans,
                [(scan, finds)],
                now=self.now(),
                threat_secs=self.threat_secs,
            )
        )
        writing.addErrback(lambda failure: self._lose())

    def _lose(self) -> None:
        self.lost += 1
        self._log.error("an answered scan could not be written ({lost} so far)", lost=self.lost)

    def _read(self, make: MakeSteps[T]) -> Deferred[T]:
        return self._at_once(lambda: run_read(self._connection, make))

    def _write(self, make: MakeSteps[T], *, durable: bool = True) -> Deferred[T]:
        def write() -> T:
            [(_, value, _)] = run_group(self._connection, [Write(make, durable)])
            result: T = value
            return result

        return self._at_once(write)

    def _at_once(self, work: Callable[[], T]) -> Deferred[T]:
        if self.broken:
            return fail(StoreError("the store is broken"))
        try:
            return succeed(work())
        except Exception as error:
            return fail(error)
