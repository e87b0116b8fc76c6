"""
The first answer of a scan: made here and now when every searcher answers from memory; else within
the time that a C{POST} may take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ctsd.errors import Unavailable
from ctsd.interfaces.scanning import IScanIds, ISpool
from ctsd.interfaces.store import IScanStore
from ctsd.model import FILE, NOTHING, Artifact, Outcome, Scan, ScanState, ScanView, Search
from ctsd.records import Finds
from ctsd.scanning.asking import ask_local
from ctsd.scanning.flight import Flight
from ctsd.scanning.following import Following
from ctsd.scanning.live import LiveScan, needs_file, questions_for, search_row
from ctsd.scanning.promises import Promises
from ctsd.scanning.recent import RecentViews
from ctsd.scanning.reliability import Reliability
from ctsd.scanning.rules import Asked, Rules
from ctsd.scanning.scan_log import ScanLog
from ctsd.scanning.searches import Searches
from ctsd.scanning.source import Answered, Ask, Question, Source
from ctsd.scans import Part, hits_of, state_of

_T = TypeVar("_T")


class FirstAnswers:
    """Starts scans, and waits for what their first answers may wait for."""

    def __init__(
        self,
        *,
        clock: IReactorTime,
        store: IScanStore,
        ids: IScanIds,
        spool: ISpool,
        scan_log: ScanLog,
        rules: Rules,
        reliability: Reliability,
        flight: Flight,
        promises: Promises,
        searches: Searches,
        recent: RecentViews,
        following: Following,
        shared: bool,
    ) -> None:
        """
        :param shared: whether other processes may use the store: then a scan that asks somebody
            who is not local is promised before it starts, and joins an equal one of theirs. Alone,
            where equal scans meet in memory, it is written when its first answer leaves something
            open: most don't, and what dies with the process before that was promised to nobody.
            So are the scans of passwords, which never join.
        """
        self._clock = clock
        self._store = store
        self._ids = ids
        self._spool = spool
        self._scan_log = scan_log
        self._rules = rules
        self._reliability = reliability
        self._flight = flight
        self._promises = promises
        self._searches = searches
        self._recent = recent
        self._following = following
        self._shared = shared

    def begin(
        self,
        service: str,
        artifact: Artifact,
        digest: bytes,
        sources: Sequence[Source],
        known: Mapping[str, Outcome],
    ) -> Deferred[ScanView]:
        """
        Start a scan: local searchers answer here and now, the others are started.

        :param digest: of the artifact; empty for passwords.
        :param known: outcomes that need not be asked for again, by the searcher's name.
        :return: fires with the first answer.
        :raises Unavailable: too many scans are in flight.
        """
        if len(self._flight) >= self._rules.limits.max_scans:
            raise Unavailable("too many scans in flight", retry_secs=30)
        started = self._clock.seconds()
        now = self._store.now()
        scan_id = self._ids.mint(service=service, now=now)
        finds: list[Finds] = []
        if sources and not known and artifact.file is None and artifact.type != FILE:
            asked = self._rules.asked(service, artifact.type)
            if asked.at_once:
                known = self._ask_at_once(scan_id, artifact, digest, asked, finds)
                told = [outcome for outcome in known.values() if outcome is not NOTHING]
                is_all = len(known) == len(asked.sources)
                if is_all and (not told or all(outcome.good for outcome in told)):
                    searches = asked.nothing
                    if told:
                        searches = tuple(
                            [Search(searcher=one, outcome=known[one], tries=1) for one in known]
                        )
                    hits = tuple([hit for outcome in told for hit in outcome.hits])
                    view = ScanView(id=scan_id, finished=True, hits=hits)
                    self._finish(service, artifact, digest, now, searches, finds, view, started)
                    return succeed(view)
        questions = questions_for(artifact, digest, sources)
        names = frozenset(questions)
        parts: dict[str, Part] = {}
        remote: list[tuple[Source, Ask]] = []
        for source in sources:
            name = source.name
            if name not in questions:
                continue
            part = parts[name] = Part(name, source.required, known.get(name))
            if part.outcome is not None:
                part.tries = 1
                continue
            ask = Ask(scan_id=scan_id, questions=questions[name], asked=names)
            if source.local:
                part.outcome, part.tries = self._ask_local(source, ask, finds), 1
            elif source.looks_first and self._finds_nothing(source, artifact):
                part.outcome, part.tries = NOTHING, 1
                # It needs no file any more.
                del questions[name]
            else:
                remote.append((source, ask))
        if not remote and state_of(parts.values()) is ScanState.COMPLETE:
            self.discard_file(artifact)
            view = ScanView(id=scan_id, finished=True, hits=hits_of(parts.values()))
            searches = tuple([search_row(part, "") for part in parts.values()])
            self._finish(service, artifact, digest, now, searches, finds, view, started)
            return succeed(view)
        live = LiveScan(
            id=scan_id,
            service=service,
            digest=digest,
            artifact=artifact,
            created=now,
            deadline=now + self._deadline_secs(questions, sources),
            started=started,
            sources={source.name: source for source in sources if source.name in parts},
            parts=parts,
            finds=finds,
        )
        return self._start(live, remote)

    def _ask_at_once(
        self,
        scan_id: str,
        artifact: Artifact,
        digest: bytes,
        asked: Asked,
        finds: list[Finds],
    ) -> dict[str, Outcome]:
        """What is known without waiting; of who has to be waited for there is nothing in it."""
        question = Question(artifact.type, artifact.value, None, "", digest)
        ask = Ask(scan_id=scan_id, questions=(question,), asked=asked.names)
        known = {}
        for source in asked.sources:
            if source.looks_first and self._finds_nothing(source, artifact):
                known[source.name] = NOTHING
            elif source.local:
                known[source.name] = self._ask_local(source, ask, finds)
        return known

    def _finds_nothing(self, source: Source, artifact: Artifact) -> bool:
        term = artifact.value if artifact.file is None else artifact.file
        try:
            sure = source.searcher.finds_nothing(artifact.type, term)
        except Exception:
            # It is asked, and what is wrong with it is told by that.
            return False
        if sure:
            self._reliability.note(source.name, NOTHING)
        return sure

    def _ask_local(self, source: Source, ask: Ask, finds: list[Finds]) -> Outcome:
        answered = ask_local(source, ask)
        if answered.finds:
            finds += answered.finds
        self._reliability.note(source.name, answered.outcome)
        return answered.outcome

    def _start(self, live: LiveScan, remote: Sequence[tuple[Source, Ask]]) -> Deferred[ScanView]:
        """Start what does not answer at once, and wait for it as long as a first answer may."""
        answer = live.wait()
        self._flight.adopt(live)
        later = self._clock.callLater
        live.timers += [
            later(secs, self._consider, live, secs)
            for secs in (self._rules.limits.first_answer_secs, self._rules.limits.last_call_secs)
        ]
        deadline = later(self._rules.limits.post_deadline_secs, self._too_late, live)
        answer.addBoth(_cancelling(deadline))
        for source, _ in remote:
            live.parts[source.name].since = live.started
        if self._shared and not live.private:
            live.holding = True
            Deferred.fromCoroutine(self._promise_first(live, remote))
            return answer
        self._run(live, remote)
        self._consider(live)
        return answer

    def _run(self, live: LiveScan, remote: Sequence[tuple[Source, Ask]]) -> None:
        for source, ask in remote:
            self._searches.run(source, ask).addCallback(self._answered, live, source)

    async def _promise_first(self, live: LiveScan, remote: Sequence[tuple[Source, Ask]]) -> None:
        try:
            equal = await self._promises.write(live)
            if equal is None:
                self._run(live, remote)
                self._consider(live)
                return
            view = await self._following.first_answer(equal, since=live.started)
        except Exception:
            live.stop_timers()
            live.answer(Failure())
            return
        live.stop_timers()
        live.answer(view)

    def _answered(self, answered: Answered, live: LiveScan, source: Source) -> None:
        if live.promised:
            self._promises.record(live, source.name, answered)
            return
        if live.ended:
            # It is not required, and late.
            return
        part = live.parts[source.name]
        part.outcome, part.since, part.tries = answered.outcome, None, part.tries + 1
        live.finds += answered.finds
        self._consider(live)

    def _consider(self, live: LiveScan, waited_secs: float = 0.0) -> None:
        """Answer, unless there is still reason to wait."""
        live.waited_secs = max(live.waited_secs, waited_secs)
        if live.ended or (live.promised and not (live.durable and live.holding)):
            return
        if live.running:
            waited = live.waited_secs
            if waited < self._rules.limits.first_answer_secs:
                return
            wants_more = live.state is not ScanState.COMPLETE
            if wants_more and live.waits_for_sync() and waited < self._rules.limits.last_call_secs:
                return
        live.stop_timers()
        if live.promised:
            self._promises.answer(live)
            return
        if live.state is not ScanState.COMPLETE:
            self._promises.promise(live).addBoth(live.answer)
            return
        live.ended = True
        self._flight.release(live)
        view = ScanView(id=live.id, finished=True, hits=hits_of(live.parts.values()))
        self.discard_file(live.artifact)
        searches = tuple([search_row(part, "") for part in live.parts.values()])
        self._finish(
            live.service,
            live.artifact,
            live.digest,
            live.created,
            searches,
            live.finds,
            view,
            live.started,
        )
        live.answer(view)

    def _too_late(self, live: LiveScan) -> None:
        live.answer(Failure(slow()))

    def _finish(
        self,
        service: str,
        artifact: Artifact,
        digest: bytes,
        created: float,
        searches: tuple[Search, ...],
        finds: Sequence[Finds],
        view: ScanView,
        started: float,
    ) -> None:
        """A scan that ends in its first answer: it is written just after."""
        self._store.remember(
            scan=Scan(
                id=view.id,
                service=service,
                state=ScanState.COMPLETE,
                created=created,
                deadline=created,
                digest=digest,
                searches=searches,
            ),
            finds=finds,
        )
        self._recent.add(service, view, private=not digest)
        self._scan_log.add(
            scan_id=view.id,
            service=service,
            artifact=artifact,
            outcome="found" if view.hits else "nothing",
            hits=len(view.hits),
            secs=self._clock.seconds() - started,
        )

    def discard_file(self, artifact: Artifact) -> None:
        """No scan needs the file of this artifact."""
        if artifact.file is not None:
            self._spool.remove(paths=[artifact.file.path])

    def _deadline_secs(
        self, asked: Mapping[str, tuple[Question, ...]], sources: Sequence[Source]
    ) -> float:
        if needs_file(asked, sources):
            return min(self._rules.limits.keep_file_secs, self._rules.limits.scan_deadline_secs)
        return self._rules.limits.scan_deadline_secs


def slow() -> Unavailable:
    """The store has not answered in the time that a C{POST} has."""
    return Unavailable("the store is slow", retry_secs=30)


def _cancelling(call: IDelayedCall) -> Callable[[_T], _T]:
    def cancel(result: _T) -> _T:
        if call.active():
            call.cancel()
        return result

    return cancel
