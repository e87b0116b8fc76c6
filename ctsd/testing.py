"""
Fakes that are shipped, for our own tests and for authors of searchers: each keeps its interface's
contract, and adds switches to break it on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from ctsd import artifacts
from ctsd.errors import CTSDError, NoSuchScan, NoSuchService, SearchLater
from ctsd.interfaces import IRecords, IScans, IStatus
from ctsd.model import JSON, ROOT_SERVICE, Artifact, EncodedHit, ScanView
from ctsd.records import NO_MATCHES, Indexed, Matches, Record
from ctsd.states import SearcherState, SearchState
from ctsd.stored import indexed
from ctsd.wire import encode_hit

__all__ = ["A_HIT", "FakeScans", "FakeStatus", "MemoryRecords", "encode_hit"]

#: A hit as L{ctsd.wire} encodes it.
A_HIT = EncodedHit(b'{"props":[{"type":"string","name":"campaign","value":"X"}]}')


@implementer(IScans)
@define(kw_only=True)
class FakeScans:
    """
    Scans that are finished at once, with the same hits for every artifact.

    :ivar services: the names of services, and whether they take files.
    :ivar hits: what every scan finds.
    :ivar retry_secs: not 0: scans are never finished, and this is when to ask again.
    :ivar broken: raised by everything that may fail.
    :ivar not_working: what L{working} says.
    :ivar held: when it is a list, answers are not given but collected there, to be fired.
    :ivar submitted: (service, artifact) of every L{submit}.
    :ivar keep_files: remembers the artifact's file; else it is unlinked, as when a scan ends.
    """

    services: dict[str, bool] = field(factory=lambda: {ROOT_SERVICE: True, "phish": False})
    hits: tuple[EncodedHit, ...] = (A_HIT,)
    retry_secs: int = 0
    broken: Exception | None = None
    not_working: str = ""
    held: list[tuple[Deferred[ScanView], ScanView]] | None = None
    submitted: list[tuple[str, Artifact]] = field(factory=list)
    keep_files: bool = False
    _views: dict[tuple[str, str], ScanView] = field(factory=dict)

    def takes_files(self, *, service: str) -> bool:
        """See L{IScans}."""
        try:
            return self.services[service]
        except KeyError:
            raise NoSuchService(service) from None

    def has_service(self, *, service: str) -> bool:
        """See L{IScans}."""
        return service in self.services

    def working(self) -> str:
        """See L{IScans}."""
        return self.not_working

    def submit(self, *, service: str, artifact: Artifact) -> Deferred[ScanView]:
        """See L{IScans}."""
        self.submitted.append((service, artifact))
        if artifact.file is not None and not self.keep_files:
            artifact.file.path.unlink()
        if service not in self.services:
            return fail(NoSuchService(service))
        if self.broken is not None:
            return fail(self.broken)
        return self._answer(service, f"{len(self.submitted):032x}")

    def view(self, *, service: str, scan_id: str) -> Deferred[ScanView]:
        """See L{IScans}."""
        if self.broken is not None:
            return fail(self.broken)
        known = self._views.get((service, scan_id))
        return succeed(known) if known else fail(NoSuchScan(scan_id))

    def finish(self, *, service: str, scan_id: str) -> None:
        """Let an unfinished scan end."""
        self._views[service, scan_id] = ScanView(id=scan_id, finished=True, hits=self.hits)

    def release(self, error: CTSDError | None = None) -> None:
        """Give the answers that were held, or fail them."""
        held, self.held = self.held or [], None
        for waiting, view in held:
            if error is not None:
                waiting.errback(error)
            else:
                waiting.callback(view)

    def _answer(self, service: str, scan_id: str) -> Deferred[ScanView]:
        view = ScanView(
            id=scan_id,
            finished=not self.retry_secs,
            hits=self.hits,
            retry_secs=self.retry_secs or 5,
        )
        self._views[service, scan_id] = view
        if self.held is None:
            return succeed(view)
        waiting: Deferred[ScanView] = Deferred()
        self.held.append((waiting, view))
        return waiting


def numbered_ids() -> Callable[[str], str]:
    """A C{mint} whose ids are 32 hex digits that count up, for the web side's tests."""
    given = [0]

    def mint(service: str) -> str:
        given[0] += 1
        return f"{given[0]:032x}"

    return mint


@implementer(IStatus)
@define(kw_only=True)
class FakeStatus:
    """
    A status that is what its test says.

    :ivar known: what L{searches} gives, by (service, scan_id).
    :ivar broken: raised by L{searches}.
    """

    all_searchers: tuple[SearcherState, ...] = ()
    all_services: dict[str, tuple[str, ...]] = field(factory=lambda: {ROOT_SERVICE: ()})
    known: dict[tuple[str, str], tuple[SearchState, ...]] = field(factory=dict)
    broken: Exception | None = None

    def searchers(self) -> tuple[SearcherState, ...]:
        """See L{IStatus}."""
        return self.all_searchers

    def services(self) -> Mapping[str, tuple[str, ...]]:
        """See L{IStatus}."""
        return self.all_services

    def searches(self, *, service: str, scan_id: str) -> Deferred[tuple[SearchState, ...]]:
        """See L{IStatus}."""
        if self.broken is not None:
            return fail(self.broken)
        known = self.known.get((service, scan_id))
        return fail(NoSuchScan(scan_id)) if known is None else succeed(known)


@implementer(IRecords)
@define(kw_only=True)
class MemoryRecords:
    """
    A plain list of records, searched one after the other.

    :ivar records: those of one threat of the local database in a row, threats by ascending id.
    :ivar now: what expiries are compared with.
    :ivar later: not empty: nothing was loaded yet, for this reason.
    :ivar wrong: what L{trouble} says.
    """

    records: list[Record] = field(factory=list)
    now: Callable[[], float] = lambda: 0.0
    later: str = ""
    wrong: str = ""

    def find(
        self,
        *,
        type: str,
        value: JSON,
        limit: int,
        wanted: Callable[[Indexed], bool] | None = None,
    ) -> Matches:
        """See L{IRecords}."""
        if self.later:
            raise SearchLater(5, self.later)
        now = self.now()
        found = []
        threats = set()
        for record in self.records:
            if (
                record.type == type
                and record.threat_id not in threats
                and (record.expires is None or record.expires > now)
                and artifacts.matches(type, value, record.value)
            ):
                one = indexed(record)
                if wanted is not None and not wanted(one):
                    continue
                found.append(one)
                if record.threat_id:
                    threats.add(record.threat_id)
        if not found:
            return NO_MATCHES
        return Matches(records=tuple(found[:limit]), more=max(len(found) - limit, 0))

    def trouble(self) -> str:
        """See L{IRecords}."""
        return self.wrong

    def loading(self) -> bool:
        """See L{IRecords}."""
        return bool(self.later) and not self.wrong

    def failed(self) -> bool:
        """See L{IRecords}."""
        return bool(self.later) and bool(self.wrong)

    def describe(self) -> str:
        """See L{IRecords}."""
        return f"{len(self.records):,} records"
