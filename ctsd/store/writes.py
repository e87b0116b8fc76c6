"""
The queue of an engine's writes: what arrives while one group is written is the next group.

A write that somebody waits for goes at once when the writer is idle. Scans that were answered
already wait a few milliseconds for company, for nobody waits for them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.errors import StoreError
from ctsd.model import Scan
from ctsd.records import Finds
from ctsd.store.steps import MakeSteps


@define(eq=False)
class Write:
    """
    One write: it is in the database as a whole or not at all.

    :ivar make: makes its steps, as often as they have to be run.
    :ivar durable: whether it must survive a power loss once it is done.
    :ivar done: fires with what the steps return, if anybody waits.
    :ivar pieces: what it consists of, when a part of it may be written without the rest.
    :ivar alone: whether no other process may write at the same time.
    """

    make: MakeSteps[Any]
    durable: bool = True
    done: Deferred[Any] | None = None
    pieces: Sequence[Write] = ()
    alone: bool = True


#: What became of a write: what its steps returned, or what they raised.
Result = tuple[Write, Any, BaseException | None]


#: A scan to remember, with its finds.
Remembered = tuple[Scan, Sequence[Finds]]


@define(kw_only=True, eq=False)
class WriteQueue:
    """
    Puts writes into groups and hands one group at a time to the engine.

    :ivar run: writes a group; fires with what became of each write, or fails when nothing was
        written.
    :ivar remember: makes one write, with its pieces, of scans to remember.
    :ivar ended: told of every group, with the error when nothing was written.
    :ivar group_secs: how long a scan to remember waits for others.
    :ivar max_group: how many writes, and how many scans to remember, one group may hold.
    :ivar max_queued: how many of each may wait.
    :ivar log_secs: losses are logged at most that often.
    :ivar lost: how many scans to remember were lost since the start.
    """

    _log = Logger()

    clock: IReactorTime
    run: Callable[[Sequence[Write]], Deferred[list[Result]]]
    remember: Callable[[Sequence[Remembered]], Write]
    ended: Callable[[BaseException | None], None]
    group_secs: float
    max_group: int
    max_queued: int
    log_secs: float = 60.0
    lost: int = field(default=0, init=False)
    _waiting: list[Write] = field(factory=list, init=False)
    _remembered: dict[str, Remembered] = field(factory=dict, init=False)
    _in_hand: dict[str, Remembered] = field(factory=dict, init=False)
    _busy: bool = field(default=False, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _drained: Deferred[None] | None = field(default=None, init=False)
    _stopping: bool = field(default=False, init=False)
    _logged: tuple[float, int] | None = field(default=None, init=False)

    def put(self, write: Write) -> Deferred[Any]:
        """
        Write soon.

        :return: fires with what the steps return, once that is committed. Cancelling it cancels
            the wait, never the write.
        :raises StoreError: (in the Deferred) it could not be written, or too much is waiting.
        """
        if self._stopping or len(self._waiting) >= self.max_queued:
            return fail(_refused(self._stopping))
        done: Deferred[Any] = Deferred()
        write.done = done
        self._waiting.append(write)
        if not self._busy:
            self._flush()
        return done

    def put_later(self, item: Remembered) -> None:
        """Write a scan to remember soon; when too many wait, it is lost, counted and logged."""
        remembered = self._remembered
        if self._stopping or len(remembered) >= self.max_queued:
            self._lose(1, _refused(self._stopping))
            return
        remembered[item[0].id] = item
        if not self._busy:
            if len(remembered) >= self.max_group:
                self._flush()
            elif self._timer is None:
                self._timer = self.clock.callLater(self.group_secs, self._time_out)

    def remembered(self, scan_id: str) -> Scan | None:
        """A scan that waits to be written, or is being written right now."""
        item = self._remembered.get(scan_id) or self._in_hand.get(scan_id)
        return item[0] if item is not None else None

    def stop(self) -> Deferred[None]:
        """
        Write what waits, and take nothing more; fires when the writer is idle.

        When a group fails now, what waits after it fails, too: the end must not take for ever.
        """
        self._stopping = True
        if not self._busy:
            if not self._waiting and not self._remembered:
                return succeed(None)
            self._flush()
        if self._drained is None:
            self._drained = Deferred()
        return self._drained

    def _time_out(self) -> None:
        self._timer = None
        if not self._busy:
            self._flush()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._busy = True
        group = self._waiting[: self.max_group]
        del self._waiting[: self.max_group]
        if len(self._remembered) <= self.max_group:
            self._in_hand, self._remembered = self._remembered, {}
        else:
            keys = list(itertools.islice(self._remembered, self.max_group))
            self._in_hand = {key: self._remembered.pop(key) for key in keys}
        if self._in_hand:
            group.insert(0, self.remember(list(self._in_hand.values())))
        try:
            running = self.run(group)
        except Exception:
            running = fail(Failure())
        ending = running.addCallbacks(self._written, self._nothing_written, errbackArgs=(group,))
        ending.addErrback(self._surprise).addCallback(self._next)

    def _written(self, results: list[Result]) -> None:
        self.ended(None)
        for write, value, error in results:
            if write.done is not None:
                if error is None:
                    write.done.callback(value)
                else:
                    write.done.errback(error)
            elif error is not None:
                self._lose(1, error)

    def _nothing_written(self, failure: Failure, group: Sequence[Write]) -> None:
        error = failure.value
        if not isinstance(error, Exception):
            error = StoreError(f"the store's writer broke: {type(error).__name__}")
        self.ended(error)
        if self._stopping:
            group = [*group, *self._waiting]
            self._waiting.clear()
            self._lose(len(self._remembered), error)
            self._remembered.clear()
        for write in group:
            if write.done is not None:
                write.done.errback(error)
            else:
                self._lose(len(write.pieces) or 1, error)

    def _surprise(self, failure: Failure) -> None:
        self._log.failure("a group of writes ended in an unexpected way", failure)

    def _next(self, _: None) -> None:
        self._in_hand = {}
        self._busy = False
        if self._waiting or len(self._remembered) >= self.max_group:
            self._flush()
        elif self._remembered:
            if self._stopping:
                self._flush()
            elif self._timer is None:
                self._timer = self.clock.callLater(self.group_secs, self._time_out)
        elif self._drained is not None:
            self._drained.callback(None)

    def _lose(self, count: int, error: BaseException) -> None:
        if not count:
            return
        self.lost += count
        now = self.clock.seconds()
        if self._logged is not None and now - self._logged[0] < self.log_secs:
            return
        before = self._logged[1] if self._logged is not None else 0
        self._logged = (now, self.lost)
        self._log.error(
            "{count} answered scans could not be written ({lost} since the start): {reason}",
            count=self.lost - before,
            lost=self.lost,
            reason=str(error) if isinstance(error, StoreError) else type(error).__name__,
        )


def _refused(stopping: bool) -> StoreError:
    if stopping:
        return StoreError("the store is closing")
    return StoreError("the store is busy: too many writes are waiting", retry_secs=5)
