"""One node of several keeps a feed current: who has its lease."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.errors import StoreError
from ctsd.feeds.copies import Busy
from ctsd.feeds.waits import wait_for
from ctsd.interfaces.store import IShared

_T = TypeVar("_T")

#: How long a node that died keeps its turn.
LEASE_SECS = 30.0


class Turns:
    """Leases of feeds, for nodes that share a store and the directory of the copies."""

    _log = Logger()

    def __init__(self, *, shared: IShared, holder: str, clock: IReactorTime) -> None:
        """
        :param holder: this process, as no other one is called.
        """
        self._shared = shared
        self._holder = holder
        self._clock = clock

    def run(self, name: str, work: Callable[[int], Deferred[_T]]) -> Deferred[_T]:
        """
        Do something about a feed while no other node does.

        :param work: is given the fencing token; it is cancelled when the lease can't be kept.
        :return: fires with its result.
        :raises Busy: (in the Deferred, as all) another node has the lease, or took it over.
        :raises StoreError: nobody knows who has it.
        """
        return Deferred.fromCoroutine(self._run(name, work))

    async def _run(self, name: str, work: Callable[[int], Deferred[_T]]) -> _T:
        lease = f"feed/{name}"
        token = await self._lease(lease)
        if token is None:
            raise Busy("another node is updating it")
        running = work(token)
        keeping = _Keeping(lambda: self._lease(lease), self._clock, running.cancel)
        keeping.start()
        try:
            return await running
        except CancelledError:
            if keeping.is_lost:
                raise Busy("another node may have taken it over") from None
            raise
        finally:
            keeping.stop()
            # It ends by itself, if it can't be given back.
            released = self._shared.release(name=lease, holder=self._holder)
            released.addErrback(self._not_released, lease)

    def _lease(self, lease: str) -> Deferred[int | None]:
        asked = self._shared.lease(name=lease, holder=self._holder, secs=LEASE_SECS)
        # Who gives up must not have the store cancel what it does: that may block.
        return wait_for(asked)

    def _not_released(self, failure: Failure, lease: str) -> None:
        self._log.info("{lease} was not given back: {error}", lease=lease, error=failure.value)


class _Keeping:
    """
    Renews a lease.

    :ivar is_lost: whether it may have ended.
    """

    def __init__(
        self,
        lease: Callable[[], Deferred[int | None]],
        clock: IReactorTime,
        lost: Callable[[], object],
    ) -> None:
        self.is_lost = False
        self._lease = lease
        self._clock = clock
        self._lost = lost
        self._until = clock.seconds() + LEASE_SECS
        self._loop = LoopingCall(self._renew)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin."""
        self._loop.start(LEASE_SECS / 4, now=False)

    def stop(self) -> None:
        """Renew it no more."""
        if self._loop.running:
            self._loop.stop()

    def _renew(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._renew_once())

    async def _renew_once(self) -> None:
        asked = self._clock.seconds()
        try:
            # A store that does not answer must not keep us from noticing that our time is over.
            token = await self._lease().addTimeout(LEASE_SECS / 8, self._clock)
        except (StoreError, TimeoutError):
            token = None
            if self._clock.seconds() < self._until - LEASE_SECS / 4:
                return
        if token is not None:
            self._until = asked + LEASE_SECS
            return
        self.is_lost = True
        self.stop()
        self._lost()
