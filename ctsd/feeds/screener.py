"""
What screens what feeds have found: the warninglists, and the allow list as the store has it.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.errors import StoreError
from ctsd.feeds.allowed import AllowedValues, AllowList, allowed_values
from ctsd.feeds.screening import Screening
from ctsd.feeds.warninglists import Warninglists
from ctsd.interfaces.threads import InThread


class Screener(Service):
    """
    Makes the L{Screening} of each search. It reads the allow list every C{refresh_secs}, so that
    no search waits for the store; while the store is away, what was read last counts.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        lists: Callable[[], Warninglists],
        allow_list: AllowList,
        clock: IReactorTime,
        in_thread: InThread,
        now: Callable[[], float],
        marking: Container[str] = (),
        refresh_secs: float = 10.0,
    ) -> None:
        """
        :param lists: the lists as they are now: of L{ctsd.feeds.list_files.ListFiles}, say.
        :param now: POSIX seconds by the store's clock.
        :param marking: see L{Screening}.
        """
        self._lists = lists
        self._allow_list = allow_list
        self._in_thread = in_thread
        self._now = now
        self._marking = marking
        self._refresh_secs = refresh_secs
        self._data: bytes | None = None
        self._allowed = AllowedValues()
        self._trouble = ""
        self._loop = LoopingCall(self._turn)
        self._loop.clock = clock
        self._reading: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin to read the allow list."""
        super().startService()
        self._loop.start(self._refresh_secs).addErrback(self._fault)

    async def stop(self) -> None:
        """Read it no more."""
        if self._loop.running:
            self._loop.stop()
        if self._reading is not None:
            reading = self._reading
            reading.cancel()
            await reading

    def stopService(self) -> Deferred[None]:
        """Fires when nothing runs any more."""
        super().stopService()
        return Deferred.fromCoroutine(self.stop())

    def is_shared_host(self, host: str) -> bool:
        """See L{Warninglists.is_shared_host}; for L{ctsd.feeds.indicators.Indicators}."""
        return self._lists().is_shared_host(host)

    def screening(self) -> Screening:
        """For one search that begins now."""
        return Screening(
            lists=self._lists(),
            allowed=self._allowed,
            now=self._now(),
            marking=self._marking,
        )

    def _turn(self) -> Deferred[None]:
        self._reading = Deferred.fromCoroutine(self._read()).addErrback(self._fault)
        return self._reading

    async def _read(self) -> None:
        try:
            data = await self._allow_list.data()
            if data != self._data:
                self._allowed = await self._in_thread(allowed_values, data)
                self._data = data
        except (StoreError, ValueError) as error:
            trouble = error.reason if isinstance(error, StoreError) else str(error)
            if trouble != self._trouble:
                self._log.error("The allow list: {trouble}; the last one counts", trouble=trouble)
            self._trouble = trouble
            return
        self._trouble = ""

    def _fault(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("A fault while reading the allow list", failure)
