"""
Keeps what a 303 promised: every searcher of the scan is asked until it has answered or the scan's
deadline has passed, whatever happens to the process in between.

While searches of a promised scan run here, it is in memory; while it only waits, it is a row, which
L{ctsd.scanning.resuming} takes up.
"""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.errors import LostScan, StoreError, Unavailable
from ctsd.interfaces.scanning import ISpool
from ctsd.interfaces.store import IScanStore
from ctsd.model import Ended, Outcome, Scan, ScanState, ScanView
from ctsd.scanning.flight import Flight
from ctsd.scanning.following import Following
from ctsd.scanning.live import LiveScan, search_row
from ctsd.scanning.membership import Membership
from ctsd.scanning.recent import RecentViews
from ctsd.scanning.rules import Rules
from ctsd.scanning.scan_log import ScanLog
from ctsd.scanning.source import Answered
from ctsd.scanning.views import Views
from ctsd.scans import backoff_secs, final_view, state_of

#: So many children may die of a search.
MAX_DEATHS = 2
#: What can't be written is tried again, ever more rarely, but so often.
_LONGEST_WAIT_SECS = 10.0
#: So often a promise is written, each time under a new epoch.
_TRIES = 3


class Promises:
    """Writes promises, and what comes of them; shows what is written."""

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        store: IScanStore,
        flight: Flight,
        views: Views,
        spool: ISpool,
        scan_log: ScanLog,
        recent: RecentViews,
        rules: Rules,
        membership: Membership,
        following: Following,
    ) -> None:
        self._clock = clock
        self._store = store
        self._flight = flight
        self._views = views
        self._spool = spool
        self._scan_log = scan_log
        self._recent = recent
        self._rules = rules
        self._membership = membership
        self._following = following

    def promise(self, live: LiveScan) -> Deferred[ScanView]:
        """
        Make a scan durable.

        :return: fires with what to answer, then.
        :raises StoreError: it could not be written. The scan is dropped.
        :raises LostScan: it has ended incomplete already, and is to be sent again.
        """
        return Deferred.fromCoroutine(self._promise(live))

    async def _promise(self, live: LiveScan) -> ScanView:
        equal = await self.write(live)
        if equal is not None:
            return await self._following.first_answer(equal, since=live.started)
        if live.ended:
            # A search has answered meanwhile: whoever waited has been told.
            return self._views.of_live(live)
        return self._settle(live, live.state)

    async def write(self, live: LiveScan) -> Scan | None:
        """
        Write a scan's promise. From now on nothing is shown of it that is not written.

        :return: None; or, when there is an equal scan in the store, that one: this one is dropped.
        :raises StoreError: it could not be written. The scan is dropped.
        """
        live.promised = True
        await live.lock.acquire()
        try:
            full = self._store.full()
            if full:
                raise Unavailable(full)
            now = self._store.now()
            for part in live.parts.values():
                if part.since is None and part.outcome is not None and not part.outcome.good:
                    part.due = _due(part.outcome, part.tries, now)
            written = await self._write(live)
            if written.id != live.id:
                self._drop(live)
                return written
            live.finds = []
            live.durable = True
        except Exception:
            self._drop(live)
            # It may have been written all the same.
            self._flight.doubtful = True
            raise
        finally:
            live.lock.release()
        if not live.private:
            self._flight.unfinished.add(live.key)
        return None

    async def _write(self, live: LiveScan) -> Scan:
        for _ in range(_TRIES):
            if not self._membership.holder:
                await self.renew()
            live.holder = self._membership.holder
            written = await self._store.promise(scan=live.row(), finds=live.finds)
            if written is not None:
                return written
            await self.renew()
        raise Unavailable("this node is taken for dead again and again", retry_secs=5)

    def _drop(self, live: LiveScan) -> None:
        live.ended = True
        self._flight.release(live)
        self._remove_file(live)

    async def renew(self) -> None:
        """
        Tell the store that we live. When it had taken us for dead, others have what we were
        working on, and it is forgotten here.

        :raises StoreError: the store is away.
        """
        try:
            await self._membership.beat()
        finally:
            for live in self._flight.scans():
                if live.durable and not live.private and live.holder != self._membership.holder:
                    self._forget(live)

    def _forget(self, live: LiveScan) -> None:
        """Leave a scan to the store, and to whoever works on it now."""
        live.ended = True
        self._flight.release(live)
        if not live.answered:
            Deferred.fromCoroutine(self._following.of_id(live.id)).addBoth(live.answer)

    def _settle(self, live: LiveScan, state: ScanState) -> ScanView:
        """What to tell of a scan whose state was just written."""
        if state is not ScanState.OPEN:
            return self._ended(live, state)
        if not live.running and not live.private:
            self._flight.release(live)
        return self._views.of_live(live)

    def record(self, live: LiveScan, searcher: str, answered: Answered) -> None:
        """A searcher of a promised scan has answered: write it, then show it."""
        if live.ended or self._flight.stopping:
            return
        Deferred.fromCoroutine(self._record(live, searcher, answered)).addErrback(
            lambda failure: self._log.failure(
                "What {searcher} found for scan {scan_id} could not be written",
                failure,
                searcher=searcher,
                scan_id=live.id,
            )
        )

    async def _record(self, live: LiveScan, searcher: str, answered: Answered) -> None:
        part = live.parts[searcher]
        await live.lock.acquire()
        try:
            outcome, deaths = answered.outcome, part.deaths + answered.died
            if deaths >= MAX_DEATHS:
                outcome = Outcome(Ended.FAILED, reason="crashed", final=True)
            wait_secs = 1.0
            while not live.ended and not self._flight.stopping:
                now = self._store.now()
                new = evolve(
                    part,
                    outcome=outcome,
                    tries=part.tries + 1,
                    since=None,
                    due=_due(outcome, part.tries + 1, now),
                    deaths=deaths,
                )
                state = state_of({**live.parts, searcher: new}.values())
                if state is ScanState.COMPLETE and live.holds_back(searcher):
                    state = ScanState.OPEN
                try:
                    written = await self._store.record(
                        scan_id=live.id,
                        search=search_row(new, ""),
                        state=state,
                        holder=live.holder,
                        finds=answered.finds,
                    )
                except StoreError as error:
                    self._log.warn(
                        "Scan {scan_id} waits for the store: {reason}",
                        scan_id=live.id,
                        reason=error.reason,
                    )
                    if now >= live.deadline:
                        raise
                    await deferLater(self._clock, wait_secs)
                    wait_secs = min(wait_secs * 2, _LONGEST_WAIT_SECS)
                    continue
                if live.ended:
                    return
                if not written:
                    self._forget(live)
                    await self.renew()
                    return
                live.parts[searcher] = new
                self._show(live, state)
                return
        finally:
            live.lock.release()

    def answer(self, live: LiveScan) -> None:
        """Give the first answer of a promised scan: what is written of it."""
        if live.state is ScanState.COMPLETE:
            # Who still runs is not required.
            live.holding = False
            Deferred.fromCoroutine(self.end(live, ScanState.COMPLETE)).addErrback(live.answer)
        elif live.running:
            live.answer(self._views.of_live(live))
        else:
            self._show(live, live.state)

    async def end(self, live: LiveScan, state: ScanState) -> None:
        """
        Write that a scan has ended, and show it.

        :raises StoreError: that is not possible.
        """
        ended = await self._store.end(scan_id=live.id, state=state, holder=live.holder)
        if live.ended:
            return
        if ended:
            self._show(live, state)
        else:
            self._forget(live)

    def _show(self, live: LiveScan, state: ScanState) -> None:
        try:
            view: ScanView | Failure = self._settle(live, state)
        except LostScan:
            view = Failure()
        if not live.answered and (live.ended or not live.running):
            live.stop_timers()
            live.answer(view)

    def _ended(self, live: LiveScan, state: ScanState) -> ScanView:
        live.ended = True
        self._flight.release(live)
        if state is ScanState.COMPLETE:
            self._flight.unfinished.discard(live.key)
        self._remove_file(live)
        parts = tuple(live.parts.values())
        hits = sum(len(part.outcome.hits) for part in parts if part.outcome)
        outcome = ("found" if hits else "nothing") if state is ScanState.COMPLETE else state.value
        self._scan_log.add(
            scan_id=live.id,
            service=live.service,
            artifact=live.artifact,
            outcome=outcome,
            hits=hits,
            secs=max(self._store.now() - live.created, 0.0),
        )
        view = final_view(live.id, parts, state, self._rules.limits.when_incomplete)
        if state is ScanState.COMPLETE or live.private:
            self._recent.add(live.service, view, private=live.private)
        return view

    def _remove_file(self, live: LiveScan) -> None:
        if live.artifact.file is not None:
            self._spool.remove(paths=[live.artifact.file.path])


def _due(outcome: Outcome, tries: int, now: float) -> float | None:
    """When to ask again after an outcome, if ever."""
    if outcome.good or outcome.final:
        return None
    return now + backoff_secs(outcome, tries)
