"""What stores have in common that write in groups: the queue, and a disk that is full."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ctsd.model import Scan
from ctsd.records import Finds
from ctsd.store import node_steps, scan_steps
from ctsd.store.rows import as_kept
from ctsd.store.steps import MakeSteps, bound
from ctsd.store.verbs import Verbs
from ctsd.store.writes import Remembered, Result, Write, WriteQueue

T = TypeVar("T")


class QueuedVerbs(Verbs, Service):
    """A store whose writes go through one queue; the engine says how a group is written."""

    _log = Logger()

    def _set_up_queue(
        self,
        *,
        reactor: Any,
        group_secs: float,
        max_group: int,
        max_queued: int,
        probe_secs: float,
        probe: MakeSteps[None],
    ) -> None:
        """
        :param group_secs: how long an answered scan waits to be written with others.
        :param max_group: how many writes one transaction may hold.
        :param max_queued: how many writes may wait.
        :param probe_secs: how often a full disk is tried again.
        :param probe: a write that changes nothing, to try it with.
        """
        self._reactor = reactor
        self._probe_secs = probe_secs
        self._write_something = probe
        self._disk_full = ""
        self._probe: IDelayedCall | None = None
        self._queue = WriteQueue(
            clock=reactor,
            run=self._run,
            remember=self._remember,
            ended=self._group_ended,
            group_secs=group_secs,
            max_group=max_group,
            max_queued=max_queued,
        )

    @abstractmethod
    def open(self) -> None:
        """
        Make the database, or bring it to the newest schema. Blocks; for the start only.

        :raises StoreError: it can't be used, and why.
        """

    @abstractmethod
    def _run(self, group: Sequence[Write]) -> Deferred[list[Result]]:
        """Write a group, in one transaction; see L{WriteQueue.run}."""

    @abstractmethod
    def _is_full(self, error: BaseException) -> bool:
        """Whether this is, or comes from, the engine's way to say that the disk is full."""

    @property
    def lost(self) -> int:
        """How many answered scans could not be written since the start."""
        return self._queue.lost

    def full(self) -> str:
        """See L{ctsd.interfaces.store.IScanStore.full}."""
        return self._disk_full or self.aging.too_big

    def remember(self, *, scan: Scan, finds: Sequence[Finds] = ()) -> None:
        """See L{ctsd.interfaces.store.IScanStore.remember}."""
        self._queue.put_later((scan, finds))

    def load(self, *, scan_id: str) -> Deferred[Scan | None]:
        """See L{ctsd.interfaces.store.IScanStore.load}; also what still waits to be written."""
        waiting = self._queue.remembered(scan_id)
        if waiting is not None:
            return succeed(as_kept(waiting))
        return super().load(scan_id=scan_id)

    def beat(self, *, holder: str, secs: float) -> Deferred[bool]:
        """
        See L{ctsd.interfaces.store.INodeStore.beat}; past the queue: what waits there must not make
        us look dead.
        """
        beat = Write(bound(node_steps.beat, holder, secs, self.now()), durable=False)
        return self._run([beat]).addCallback(lambda results: bool(results[0][1]))

    def _end_queue(self) -> Deferred[None]:
        """Write what waits, and take nothing more; fires when the engine is idle."""
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        return self._queue.stop()

    def _remember(self, items: Sequence[Remembered]) -> Write:
        def write(some: Sequence[Remembered]) -> Write:
            return Write(
                bound(scan_steps.write_scans, some, now=self.now(), threat_secs=self.threat_secs),
                durable=False,
                # New scans are in nobody's way.
                alone=any(finds for _, finds in some),
            )

        whole = write(items)
        whole.pieces = _Pieces(items, write)
        return whole

    def _write(self, make: MakeSteps[T], *, durable: bool = True) -> Deferred[T]:
        return self._queue.put(Write(make, durable))

    def _group_ended(self, error: BaseException | None) -> None:
        if error is None:
            if self._disk_full:
                self._log.info("the store's disk has room again")
            self._disk_full = ""
        elif self._is_full(error):
            if not self._disk_full:
                self._log.critical("the store's disk is full")
            self._disk_full = "the store's disk is full"
            if self._probe is None and self.running:
                self._probe = self._reactor.callLater(self._probe_secs, self._try_disk)

    def _try_disk(self) -> None:
        self._probe = None
        # What comes of it is told to _group_ended.
        self._write(self._write_something).addErrback(lambda failure: None)


class _Pieces(Sequence[Write]):
    """The writes of scans one by one, made only if they are needed."""

    def __init__(
        self, items: Sequence[Remembered], write: Callable[[Sequence[Remembered]], Write]
    ) -> None:
        self._items = items
        self._write = write

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return self._write([self._items[index]])
