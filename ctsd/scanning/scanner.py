"""
Scans, from the artifact to the first answer, and what can be told of them after.

Every scan belongs to this service, never to the request that asked for it. What its first answer
leaves open is a promise, which L{ctsd.scanning.promises} keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ctsd.artifacts import digest as digest_of
from ctsd.artifacts import is_empty, shaped
from ctsd.errors import Unavailable, UnknownArtifact
from ctsd.interfaces import Finds, IScanIds, IScans, IScanStore, ISpool
from ctsd.model import (
    FILE,
    ROOT_SERVICE,
    Artifact,
    Outcome,
    Scan,
    ScanState,
    ScanView,
    Search,
)
from ctsd.scanning.asking import Answered, Ask, Question, Source, ask_local
from ctsd.scanning.flight import Flight
from ctsd.scanning.live import LiveScan, needs_file, questions_for, search_row
from ctsd.scanning.promises import Promises
from ctsd.scanning.recent import RecentViews
from ctsd.scanning.reliability import Reliability
from ctsd.scanning.rules import Asked, Rules
from ctsd.scanning.scan_log import ScanLog
from ctsd.scanning.upkeep import Upkeep
from ctsd.scanning.views import Views
from ctsd.scans import Part, hits_of, state_of

_T = TypeVar("_T")

#: What stands for the digest of an artifact whose type or shape we don't know.
UNKNOWN_DIGEST = bytes(16)

#: An unknown type, or a value of another shape, is logged so often.
UNKNOWN_WARNING_SECS = 3600.0
#: So many kinds of these are told apart.
MAX_WARNED = 200


@implementer(IScans)
class Scanner(Service):
    """See L{IScans}."""

    _log = Logger()

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
        views: Views,
        promises: Promises,
        upkeep: Upkeep,
        recent: RecentViews,
    ) -> None:
        self._clock = clock
        self._store = store
        self._ids = ids
        self._spool = spool
        self._scan_log = scan_log
        self._rules = rules
        self._reliability = reliability
        self._flight = flight
        self._views = views
        self._promises = promises
        self._upkeep = upkeep
        self._recent = recent
        self._warned: dict[str, float] = {}

    def stopService(self) -> None:
        """Start nothing any more; L{Promises} lets go of what runs."""
        super().stopService()
        self._scan_log.flush()

    # -- IScans

    def has_service(self, *, service: str) -> bool:
        """See L{IScans}."""
        return service in self._rules.services

    def takes_files(self, *, service: str) -> bool:
        """See L{IScans}."""
        usable = (FILE, "hash.md5", "hash.sha1", "hash.sha256")
        sources = self._rules.sources(service)
        return any(source.supports(type) for source in sources for type in usable)

    def working(self) -> str:
        """See L{IScans}."""
        trouble = self._upkeep.trouble or self._store.full()
        if trouble:
            return trouble
        for source in self._rules.services[ROOT_SERVICE]:
            if source.local and source.required and source.failed():
                return f"{source.name} has nothing to search in"
        return ""

    def submit(self, *, service: str, artifact: Artifact) -> Deferred[ScanView]:
        """See L{IScans}."""
        try:
            return self._submit(service, artifact)
        except Exception:
            self._discard_file(artifact)
            return fail(Failure())

    def view(self, *, service: str, scan_id: str) -> Deferred[ScanView]:
        """See L{IScans}."""
        recent = self._recent.get(service, scan_id)
        if recent is not None:
            return succeed(recent)
        try:
            issued = self._ids.issued(service=service, scan_id=scan_id)
            live = self._flight.get(scan_id)
            if live is not None and live.durable:
                return succeed(self._views.of_live(live))
        except Exception:
            return fail(Failure())
        return Deferred.fromCoroutine(self._views.of_id(service, scan_id, issued))

    # -- the first answer

    def _submit(self, service: str, artifact: Artifact) -> Deferred[ScanView]:
        sources = self._rules.sources(service)
        if self._flight.stopping:
            raise Unavailable("stopping", retry_secs=5)
        try:
            artifact = shaped(artifact)
            digest = digest_of(artifact.type, artifact.value, artifact.file)
        except UnknownArtifact as unknown:
            self._warn_unknown(str(unknown))
            return self._begin(service, artifact, UNKNOWN_DIGEST, (), {})
        if not digest or is_empty(artifact):
            return self._begin(service, artifact, digest, () if digest else sources, {})
        key = (service, digest)
        equal = self._flight.by_key.get(key)
        if equal is not None:
            return self._join(equal, artifact)
        if not self._upkeep.ready or key in self._flight.unfinished:
            known = Deferred.fromCoroutine(self._submit_known(service, artifact, digest, sources))
            return known.addTimeout(
                self._rules.limits.post_deadline_secs, self._clock, onTimeoutCancel=_store_is_slow
            )
        return self._begin(service, artifact, digest, sources, {})

    def _join(self, equal: LiveScan, artifact: Artifact) -> Deferred[ScanView]:
        self._discard_file(artifact)
        return succeed(self._views.of_live(equal)) if equal.durable else equal.wait()

    async def _submit_known(
        self, service: str, artifact: Artifact, digest: bytes, sources: Sequence[Source]
    ) -> ScanView:
        """An artifact of which the store may have an unfinished scan."""
        try:
            await self._upkeep.until_ready()
            found = await self._store.find(service=service, digest=digest)
            if found is not None and found.state is ScanState.OPEN:
                self._discard_file(artifact)
                return self._views.of_stored(found)
        except BaseException:
            self._discard_file(artifact)
            raise
        equal = self._flight.by_key.get((service, digest))
        if equal is not None:
            return await self._join(equal, artifact)
        good = {
            search.searcher: search.outcome
            for search in (found.searches if found is not None else ())
            if search.outcome is not None and search.outcome.good
        }
        return await self._begin(service, artifact, digest, sources, good)

    def _begin(
        self,
        service: str,
        artifact: Artifact,
        digest: bytes,
        sources: Sequence[Source],
        known: Mapping[str, Outcome],
    ) -> Deferred[ScanView]:
        """Start a scan: local searchers answer here and now, the others are started."""
        if len(self._flight) >= self._rules.limits.max_scans:
            raise Unavailable("too many scans in flight", retry_secs=30)
        started = self._clock.seconds()
        now = self._store.now()
        scan_id = self._ids.mint(service=service, now=now)
        finds: list[Finds] = []
        if sources and not known and artifact.file is None and artifact.type != FILE:
            asked = self._rules.asked(service, artifact.type)
            if asked.local:
                known = self._ask_all_local(scan_id, artifact, digest, asked, finds)
                if all(outcome.good for outcome in known.values()):
                    hits = [hit for outcome in known.values() for hit in outcome.hits]
                    view = ScanView(id=scan_id, finished=True, hits=tuple(hits))
                    searches = tuple(
                        [Search(searcher=one, outcome=known[one], tries=1) for one in known]
                    )
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
            else:
                remote.append((source, ask))
        if not remote and state_of(parts.values()) is ScanState.COMPLETE:
            self._discard_file(artifact)
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
            deadline=now + self._deadline_secs(artifact, questions),
            started=started,
            sources={source.name: source for source in sources if source.name in parts},
            parts=parts,
            finds=finds,
        )
        return self._start(live, remote)

    def _ask_all_local(
        self,
        scan_id: str,
        artifact: Artifact,
        digest: bytes,
        asked: Asked,
        finds: list[Finds],
    ) -> dict[str, Outcome]:
        question = Question(artifact.type, artifact.value, None, "", digest)
        ask = Ask(scan_id=scan_id, questions=(question,), asked=asked.names)
        return {source.name: self._ask_local(source, ask, finds) for source in asked.sources}

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
        for source, ask in remote:
            self._promises.run(source, ask).addCallback(self._answered, live, source)
        self._consider(live)
        return answer

    def _answered(self, answered: Answered, live: LiveScan, source: Source) -> None:
        if live.promised:
            self._promises.record(live, source.name, answered)
            return
        part = live.parts[source.name]
        part.outcome, part.since, part.tries = answered.outcome, None, part.tries + 1
        live.finds += answered.finds
        self._consider(live)

    def _consider(self, live: LiveScan, waited_secs: float = 0.0) -> None:
        """Answer, unless there is still reason to wait."""
        if live.promised or live.ended:
            return
        live.waited_secs = max(live.waited_secs, waited_secs)
        if live.running:
            waited = live.waited_secs
            if waited < self._rules.limits.first_answer_secs:
                return
            wants_more = live.state is not ScanState.COMPLETE
            if wants_more and live.waits_for_sync() and waited < self._rules.limits.last_call_secs:
                return
        live.stop_timers()
        if live.state is not ScanState.COMPLETE:
            self._promises.promise(live).addBoth(live.answer)
            return
        self._flight.release(live)
        view = ScanView(id=live.id, finished=True, hits=hits_of(live.parts.values()))
        self._discard_file(live.artifact)
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
        live.answer(Failure(_slow()))

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

    # -- small things

    def _deadline_secs(
        self, artifact: Artifact, asked: Mapping[str, tuple[Question, ...]]
    ) -> float:
        if needs_file(asked):
            return min(self._rules.limits.keep_file_secs, self._rules.limits.scan_deadline_secs)
        return self._rules.limits.scan_deadline_secs

    def _discard_file(self, artifact: Artifact) -> None:
        if artifact.file is not None:
            self._spool.remove(paths=[artifact.file.path])

    def _warn_unknown(self, what: str) -> None:
        now = self._clock.seconds()
        if now - self._warned.get(what, -UNKNOWN_WARNING_SECS) < UNKNOWN_WARNING_SECS:
            return
        if len(self._warned) >= MAX_WARNED:
            self._warned.clear()
        self._warned[what] = now
        self._log.warn("An artifact was not searched: {what}", what=what)


def _slow() -> Unavailable:
    return Unavailable("the store is slow", retry_secs=30)


def _store_is_slow(result: ScanView | Failure, secs: float) -> ScanView:
    if isinstance(result, Failure) and result.check(CancelledError):
        raise _slow()
    assert isinstance(result, ScanView)
    return result


def _cancelling(call: IDelayedCall) -> Callable[[_T], _T]:
    def cancel(result: _T) -> _T:
        if call.active():
            call.cancel()
        return result

    return cancel
