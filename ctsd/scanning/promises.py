"""
Keeps what a 303 promised: every searcher of the scan is asked until it has answered or the scan's
deadline has passed, whatever happens to the process in between.

While searches of a promised scan run here, it is in memory; while it only waits, it is a row.
"""

from __future__ import annotations

from contextlib import suppress

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.errors import LostScan, StoreError, Unavailable
from ctsd.interfaces import IScanStore, ISpool
from ctsd.model import Ended, Outcome, Scan, ScanState, ScanView
from ctsd.scanning.asking import ask_local
from ctsd.scanning.flight import Flight
from ctsd.scanning.live import LiveScan, questions_for, search_row
from ctsd.scanning.recent import RecentViews
from ctsd.scanning.reliability import Reliability
from ctsd.scanning.rules import Rules
from ctsd.scanning.running import Runner
from ctsd.scanning.scan_log import ScanLog
from ctsd.scanning.source import Answered, Ask, Source
from ctsd.scanning.views import Views
from ctsd.scans import backoff_secs, final_view, state_of

#: From this takeover on a search runs alone in a child process.
SUSPECT_TAKEOVERS = 2
#: So many children may die of a search.
MAX_DEATHS = 2
#: When the store could not be told who runs a search, it is tried again after that.
HOLD_RETRY_SECS = 5.0


class Promises:
    """Writes promises, and works on them."""

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        store: IScanStore,
        flight: Flight,
        views: Views,
        runner: Runner,
        spool: ISpool,
        scan_log: ScanLog,
        recent: RecentViews,
        reliability: Reliability,
        rules: Rules,
        holder: str,
    ) -> None:
        self._clock = clock
        self._store = store
        self._flight = flight
        self._views = views
        self._runner = runner
        self._spool = spool
        self._scan_log = scan_log
        self._recent = recent
        self._reliability = reliability
        self._rules = rules
        self._holder = holder

    async def let_go(self) -> None:
        """Write that nobody runs what runs here, and give it up: the next start takes it up."""
        now = self._store.now()
        letting_go = [
            self._store.record(
                scan_id=live.id,
                search=evolve(search_row(part, ""), due=now),
                state=ScanState.OPEN,
            ).addErrback(self._not_let_go, live.id)
            for live in self._flight.scans()
            if live.promised and not live.ended
            for part in live.parts.values()
            if part.since is not None
        ]
        self._runner.stop()
        await gatherResults(letting_go)

    def _not_let_go(self, failure: Failure, scan_id: str) -> None:
        self._log.failure(
            "Scan {scan_id} could not be let go; it is taken over at the next start",
            failure,
            scan_id=scan_id,
        )

    def run(self, source: Source, ask: Ask, *, alone: bool = False) -> Deferred[Answered]:
        """Ask a searcher, and learn how long that usually takes."""
        started = self._clock.seconds()

        def learn(answered: Answered) -> Answered:
            # What is given up because we end says nothing about the source.
            if not self._flight.stopping:
                self._reliability.took(source.name, self._clock.seconds() - started)
                self._reliability.note(source.name, answered.outcome)
            return answered

        return self._runner.ask(source, ask, alone=alone).addCallback(learn)

    def promise(self, live: LiveScan) -> Deferred[ScanView]:
        """
        Make a scan durable.

        :return: fires with what to answer, then.
        :raises StoreError: it could not be written. The scan is dropped.
        :raises LostScan: it has ended incomplete already, and is to be sent again.
        """
        live.promised = True
        return Deferred.fromCoroutine(self._promise(live))

    async def _promise(self, live: LiveScan) -> ScanView:
        await live.lock.acquire()
        try:
            full = self._store.full()
            if full:
                raise Unavailable(full)
            now = self._store.now()
            for part in live.parts.values():
                if part.since is None and part.outcome is not None and not part.outcome.good:
                    part.due = _due(part.outcome, part.tries, now)
            finds, live.finds = live.finds, []
            await self._store.promise(scan=live.row(self._holder), finds=finds)
            live.durable = True
        except Exception:
            live.ended = True
            self._flight.release(live)
            self._remove_file(live)
            raise
        finally:
            live.lock.release()
        if not live.private:
            self._flight.unfinished.add(live.key)
        return self._settle(live, live.state)

    def _settle(self, live: LiveScan, state: ScanState) -> ScanView:
        """What to tell of a scan whose state was just written."""
        if state is not ScanState.OPEN:
            return self._ended(live, state)
        if live.private:
            self._wake_at_due(live)
        elif not live.running:
            self._flight.release(live)
        return self._views.of_live(live)

    def _wake_at_due(self, live: LiveScan) -> None:
        """What waits in memory alone is not found in the store when it is due."""
        live.stop_timers()
        dues = [part.due for part in live.parts.values() if part.due is not None]
        secs = max(min([*dues, live.deadline]) - self._store.now(), 0.0)
        live.timers.append(self._clock.callLater(secs, self._work_on_safely, live))

    def _work_on_safely(self, live: LiveScan) -> None:
        Deferred.fromCoroutine(self._work_on(live)).addErrback(
            lambda failure: self._log.failure(
                "Scan {scan_id} could not go on", failure, scan_id=live.id
            )
        )

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
                try:
                    await self._store.record(
                        scan_id=live.id,
                        search=search_row(new, ""),
                        state=state,
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
                    wait_secs = min(wait_secs * 2, 60.0)
                    continue
                live.parts[searcher] = new
                self._show(live, live.state)
                return
        finally:
            live.lock.release()

    def _show(self, live: LiveScan, state: ScanState) -> None:
        with suppress(LostScan):  # whoever asks for it is told
            self._settle(live, state)

    async def take_up(self, scan: Scan) -> None:
        """Go on with a stored scan that is due, or over."""
        live = self._flight.get(scan.id)
        if live is not None:
            await self._work_on(live)
        elif not scan.digest:
            # A password, and the process that knew it is gone.
            await self._store.end(scan_id=scan.id, state=ScanState.INCOMPLETE)
        else:
            await self._work_on(self._views.revived(scan))

    async def _work_on(self, live: LiveScan) -> None:
        """Ask what is due, or end what is over."""
        if live.ended or self._flight.stopping:
            return
        now = self._store.now()
        state = ScanState.INCOMPLETE if now >= live.deadline else live.state
        if state is not ScanState.OPEN:
            await self._store.end(scan_id=live.id, state=state)
            self._show(live, state)
            return
        questions = questions_for(live.artifact, live.digest, live.sources.values())
        asked = frozenset(questions)
        for name, part in live.parts.items():
            if part.since is not None or part.due is None or part.due > now:
                continue
            self._flight.adopt(live)
            part.since, part.due = self._clock.seconds(), None
            if name not in questions:
                self.record(live, name, _NO_LONGER_ASKED)
                continue
            ask = Ask(scan_id=live.id, questions=questions[name], asked=asked)
            self._again(live, live.sources[name], ask)

    def _again(self, live: LiveScan, source: Source, ask: Ask) -> None:
        part = live.parts[source.name]

        async def again() -> None:
            try:
                await self._store.hold(scan_id=live.id, searcher=source.name, holder=self._holder)
            except StoreError:
                part.since, part.due = None, self._store.now() + HOLD_RETRY_SECS
                return
            if source.local:
                answered = ask_local(source, ask)
                self._reliability.note(source.name, answered.outcome)
            else:
                alone = part.takeovers >= SUSPECT_TAKEOVERS
                answered = await self.run(source, ask, alone=alone)
            self.record(live, source.name, answered)

        Deferred.fromCoroutine(again()).addErrback(
            lambda failure: self._log.failure(
                "Searching again failed in scan {scan_id}", failure, scan_id=live.id
            )
        )

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


#: A searcher that is no longer there, or no longer wants this type of artifact.
_NO_LONGER_ASKED = Answered(Outcome(Ended.FAILED, reason="no longer configured", final=True))


def _due(outcome: Outcome, tries: int, now: float) -> float | None:
    """When to ask again after an outcome, if ever."""
    if outcome.good or outcome.final:
        return None
    return now + backoff_secs(outcome, tries)
