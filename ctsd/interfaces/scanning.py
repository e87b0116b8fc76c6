"""Scans: what the web side asks for, and what a scan needs beside the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from zope.interface import Interface

from ctsd.model import Artifact, ScanView
from ctsd.states import SearcherState, SearchState

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


class IScans(Interface):
    """What the web side asks for: scans of artifacts, service by service."""

    def takes_files(*, service: str) -> bool:
        """
        Whether a searcher of this service can use an uploaded file or its hashes.

        :raises NoSuchService: when there is no such service.
        """

    def has_service(*, service: str) -> bool:
        """Whether there is a service of this name; C{ROOT_SERVICE} always is."""

    def working() -> str:
        """Empty when scans can be answered: the store works and no index failed; else why not."""

    def submit(*, service: str, artifact: Artifact) -> Deferred[ScanView]:
        """
        Start a scan, or join an equal one.

        The scan belongs to nobody: cancelling the Deferred cancels the wait, never the scan. The
        artifact's file, if any, belongs to the scan from this call on, even when it fails.

        :return: fires within C{post_deadline_secs} with the first answer; when that is not
            finished, the scan is durable.
        :raises NoSuchService: (in the Deferred, as all) there is no such service.
        :raises Unavailable: too much is in flight, or the store is away or full.
        """

    def view(*, service: str, scan_id: str) -> Deferred[ScanView]:
        """
        What is known about a scan now.

        :raises NoSuchScan: this service can't have issued that id.
        :raises LostScan: it was issued and has no answer (any more), or it ended incomplete and
            C{when_incomplete} is C{resend}.
        :raises Unavailable: the store is away.
        """


class IScanIds(Interface):
    """Mints and recognises the ids of scans."""

    def mint(*, service: str, now: float) -> str:
        """A new id, 32 lower-case hex digits, of a scan of this service at C{now} (POSIX s)."""

    def issued(*, service: str, scan_id: str) -> float:
        """
        When this id was issued for this service, POSIX seconds.

        :raises NoSuchScan: it can't have been: wrong shape or wrong tag.
        """


class IStatus(Interface):
    """What the daemon is made of and what it is doing, for the page."""

    def searchers() -> tuple[SearcherState, ...]:
        """Every searcher: those that are on in the order of the configuration, then the others."""

    def services() -> Mapping[str, tuple[str, ...]]:
        """The names of each service's searchers that are on, by the service's name."""

    def searches(*, service: str, scan_id: str) -> Deferred[tuple[SearchState, ...]]:
        """
        How the searchers of a scan stand: those that were asked, in the order of their hits.

        :raises NoSuchScan: (in the Deferred, as all) this service has no such scan, or it is not
            written yet.
        :raises Unavailable: the store is away.
        """


class ISpool(Interface):
    """Where uploaded files lie while a scan needs them."""

    def remove(*, paths: Iterable[Path]) -> None:
        """Unlink files, soon and off the reactor; what is gone already is fine."""

    def missing(*, paths: Iterable[Path]) -> Deferred[set[Path]]:
        """Those of these files that can't be seen from here; looked for off the reactor."""

    def sweep(*, keep: set[Path]) -> None:
        """At the start: unlink what a crash left, but for C{keep}."""
