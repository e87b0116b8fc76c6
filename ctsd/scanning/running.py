"""
Runs searches under their time limits and slots, whatever they do: wait, block, never end, or kill
their process. What comes out is an L{Answered}, always, and in time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.blocking import DaemonThreads
from ctsd.errors import SearchFailed
from ctsd.model import Ended, Outcome
from ctsd.scanning.asking import ask_blocking, ask_waiting
from ctsd.scanning.source import Answered, Ask, Source


class RunAlone(Protocol):
    """Runs a search in a child process of its own."""

    def __call__(self, source: Source, ask: Ask) -> Deferred[Answered]:
        """Fires when the child has ended; cancelling it ends the child."""


_GIVEN_UP = Answered(Outcome(Ended.FAILED, reason="given up"))

#: A search that found no free slot is tried again so soon, each time: the source has not failed,
#: and ever longer waits would leave slots idle while scans wait for them.
BUSY_RETRY_SECS = 3.0


class Runner:
    """
    Runs searches: coroutines in the reactor, blocking ones in threads, suspects in children.
    """

    _log = Logger()

    def __init__(self, *, clock: IReactorTime, threads: DaemonThreads, run_alone: RunAlone) -> None:
        self._clock = clock
        self._threads = threads
        self._run_alone = run_alone
        self._running: set[Deferred[Answered]] = set()

    def ask(self, source: Source, ask: Ask, *, alone: bool = False) -> Deferred[Answered]:
        """
        Ask any searcher. Fires within its C{timeout_secs} (twice that, when it has to wait for a
        slot) and never fails. Cancelling it gives the search up.

        :param alone: in a child process.
        """
        return Deferred.fromCoroutine(self._ask(source, ask, alone or source.searcher.isolate))

    def stop(self) -> None:
        """Give up everything that runs."""
        for running in list(self._running):
            running.cancel()
        self._threads.stop()

    async def _ask(self, source: Source, ask: Ask, alone: bool) -> Answered:
        try:
            if not await self._slot(source):
                return Answered(
                    Outcome(
                        Ended.FAILED,
                        reason=f"no free slot within {source.timeout_secs:g} s",
                        after_secs=BUSY_RETRY_SECS,
                    )
                )
            return await self._timed(source, *self._started(source, ask, alone))
        except SearchFailed as failed:
            return Answered(Outcome(Ended.FAILED, reason=failed.reason))
        except CancelledError:
            return _GIVEN_UP

    async def _slot(self, source: Source) -> bool:
        """Wait for a slot; whether there was one in time."""
        turn = source.slots.take()
        if turn is None:
            return True
        waited = self._clock.callLater(source.timeout_secs, turn.cancel)
        try:
            await turn
        except CancelledError:
            return False
        finally:
            if waited.active():
                waited.cancel()
        return True

    def _started(
        self, source: Source, ask: Ask, alone: bool
    ) -> tuple[Deferred[Answered], Callable[[], None]]:
        try:
            return self._start(source, ask, alone)
        except Exception as error:
            # No process or thread could be had.
            source.slots.free(overstayed=False)
            self._log.failure("Searcher {searcher} could not be run", searcher=source.name)
            raise SearchFailed(f"could not be run: {type(error).__name__}") from error

    def _start(
        self, source: Source, ask: Ask, alone: bool
    ) -> tuple[Deferred[Answered], Callable[[], None]]:
        """The search, which fires when it has really ended; and what gives it up."""
        if alone:
            running = self._run_alone(source, ask)
        elif source.waits:
            running = Deferred.fromCoroutine(ask_waiting(source, ask))
        else:
            job = self._threads.submit(lambda: ask_blocking(source, ask))
            return job.done, job.give_up
        return running, running.cancel

    def _timed(
        self, source: Source, running: Deferred[Answered], give_up: Callable[[], None]
    ) -> Deferred[Answered]:
        """
        The first of: the search has ended, or its time is over. The slot stays taken until the
        search has really ended.
        """
        over = overstayed = False

        def stop(result: Deferred[Answered]) -> None:
            nonlocal overstayed
            give_up()
            if not over:
                overstayed = True
                source.slots.overstay()

        def too_late() -> None:
            answer.errback(SearchFailed(f"no answer within {source.timeout_secs:g} s"))
            stop(answer)

        def ended(result: Answered | Failure) -> None:
            nonlocal over
            over = True
            self._running.discard(answer)
            source.slots.free(overstayed=overstayed)
            if late.active():
                late.cancel()
            if not answer.called:
                answer.callback(_answered(result))

        answer: Deferred[Answered] = Deferred(stop)
        late = self._clock.callLater(source.timeout_secs, too_late)
        self._running.add(answer)
        running.addBoth(ended)
        return answer


def _answered(result: Answered | Failure) -> Answered:
    if isinstance(result, Answered):
        return result
    if result.check(CancelledError):
        return _GIVEN_UP
    return Answered(Outcome(Ended.FAILED, reason=f"broken: {type(result.value).__name__}"))
