"""
Scans, from the artifact to the first answer, and what can be told of them after.

Every scan belongs to this service, never to the request that asked for it. What its first answer
leaves open is a promise, which L{ctsd.scanning.promises} keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ctsd.artifacts import digest as digest_of
from ctsd.artifacts import is_empty, shaped
from ctsd.errors import Unavailable, UnknownArtifact
from ctsd.interfaces.scanning import IScanIds, IScans
from ctsd.interfaces.store import IScanStore
from ctsd.model import (
    FILE,
    ROOT_SERVICE,
    Artifact,
    ScanState,
    ScanView,
)
from ctsd.scanning.first_answers import FirstAnswers, slow
from ctsd.scanning.flight import Flight
from ctsd.scanning.following import Following
from ctsd.scanning.live import LiveScan
from ctsd.scanning.membership import Membership
from ctsd.scanning.recent import RecentViews
from ctsd.scanning.rules import Rules
from ctsd.scanning.source import Source
from ctsd.scanning.upkeep import Upkeep
from ctsd.scanning.views import Views

_T = TypeVar("_T")

#: What stands for the digest of an artifact whose type or shape we don't know.
UNKNOWN_DIGEST = bytes(16)

#: An unknown type, or a value of another shape, is logged so often.
UNKNOWN_WARNING_SECS = 3600.0
#: So many kinds of these are told apart.
MAX_WARNED = 200


@implementer(IScans)
class Scanner:
    """See L{IScans}."""

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        store: IScanStore,
        ids: IScanIds,
        rules: Rules,
        flight: Flight,
        views: Views,
        first_answers: FirstAnswers,
        upkeep: Upkeep,
        recent: RecentViews,
        membership: Membership,
        following: Following,
    ) -> None:
        self._clock = clock
        self._store = store
        self._ids = ids
        self._rules = rules
        self._flight = flight
        self._views = views
        self._first_answers = first_answers
        self._upkeep = upkeep
        self._recent = recent
        self._membership = membership
        self._following = following
        self._warned: dict[str, float] = {}

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
            self._first_answers.discard_file(artifact)
            return fail(Failure())

    def view(self, *, service: str, scan_id: str) -> Deferred[ScanView]:
        """See L{IScans}."""
        recent = self._recent.get(service, scan_id)
        if recent is not None:
            return succeed(recent)
        try:
            issued = self._ids.issued(service=service, scan_id=scan_id)
            live = self._flight.get(scan_id)
            if live is not None and live.durable and self._knows(live):
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
            return self._first_answers.begin(service, artifact, UNKNOWN_DIGEST, (), {})
        if not digest:
            return self._first_answers.begin(service, artifact, digest, sources, {})
        if is_empty(artifact):
            return self._first_answers.begin(service, artifact, digest, (), {})
        key = (service, digest)
        equal = self._flight.by_key.get(key)
        if equal is not None and (self._knows(equal) or not equal.durable):
            return self._join(equal, artifact)
        if not self._upkeep.ready or key in self._flight.unfinished:
            known = Deferred.fromCoroutine(self._submit_known(service, artifact, digest, sources))
            return known.addTimeout(
                self._rules.limits.post_deadline_secs, self._clock, onTimeoutCancel=_store_is_slow
            )
        return self._first_answers.begin(service, artifact, digest, sources, {})

    def _knows(self, live: LiveScan) -> bool:
        """Whether nobody else can have gone on with a scan that is in memory."""
        return self._membership.sure or live.private

    def _join(self, equal: LiveScan, artifact: Artifact) -> Deferred[ScanView]:
        self._first_answers.discard_file(artifact)
        if equal.durable and equal.answered:
            return succeed(self._views.of_live(equal))
        return equal.wait()

    async def _submit_known(
        self, service: str, artifact: Artifact, digest: bytes, sources: Sequence[Source]
    ) -> ScanView:
        """An artifact of which the store may have an unfinished scan."""
        started = self._clock.seconds()
        try:
            await self._upkeep.until_ready()
            found = await self._store.find(service=service, digest=digest)
            if found is not None and found.state is ScanState.OPEN:
                self._first_answers.discard_file(artifact)
                return await self._following.first_answer(found, since=started)
        except BaseException:
            self._first_answers.discard_file(artifact)
            raise
        if found is None:
            self._flight.unfinished.discard((service, digest))
        equal = self._flight.by_key.get((service, digest))
        if equal is not None and (self._knows(equal) or not equal.durable):
            return await self._join(equal, artifact)
        good = {
            search.searcher: search.outcome
            for search in (found.searches if found is not None else ())
            if search.outcome is not None and search.outcome.good
        }
        return await self._first_answers.begin(service, artifact, digest, sources, good)

    # -- small things

    def _warn_unknown(self, what: str) -> None:
        now = self._clock.seconds()
        if now - self._warned.get(what, -UNKNOWN_WARNING_SECS) < UNKNOWN_WARNING_SECS:
            return
        if len(self._warned) >= MAX_WARNED:
            self._warned.clear()
        self._warned[what] = now
        self._log.warn("An artifact was not searched: {what}", what=what)


def _store_is_slow(result: ScanView | Failure, secs: float) -> ScanView:
    if isinstance(result, Failure) and result.check(CancelledError):
        raise slow()
    assert isinstance(result, ScanView)
    return result
