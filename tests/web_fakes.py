"""Fakes of what the web side asks: each keeps its interface's contract, and can be broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from ctsd.errors import CTSDError, NoSuchScan, NoSuchService
from ctsd.interfaces.scanning import IScans, IStatus
from ctsd.model import ROOT_SERVICE, Artifact, EncodedHit, ScanView
from ctsd.states import SearcherState, SearchState

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
