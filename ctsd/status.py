"""What the daemon is made of and what it is doing, for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from ctsd.catalogue import Found
from ctsd.errors import NoSuchScan
from ctsd.interfaces.scanning import IScanIds, IStatus
from ctsd.interfaces.store import IScanStore
from ctsd.model import Scan
from ctsd.scanning.flight import Flight
from ctsd.scanning.live import LiveScan
from ctsd.scanning.source import Source
from ctsd.sources import Sources
from ctsd.states import Failing, SearcherState, SearchState


@implementer(IStatus)
class Status:
    """
    See L{IStatus}.

    :param sources: the searchers that there are now; they change when the configuration is read
        again.
    :param failing: which searchers fail, see L{ctsd.scanning.reliability.Reliability}.
    """

    def __init__(
        self,
        *,
        sources: Callable[[], Sources],
        flight: Flight,
        store: IScanStore,
        ids: IScanIds,
        failing: Callable[[], Mapping[str, Failing]] = dict,
    ) -> None:
        self._sources = sources
        self._failing = failing
        self._flight = flight
        self._store = store
        self._ids = ids

    def searchers(self) -> tuple[SearcherState, ...]:
        """See L{IStatus}."""
        sources = self._sources()
        failing = self._failing()
        return (
            *(_state_of(source, failing.get(source.name)) for source in sources.all()),
            *map(_off, sources.off),
        )

    def services(self) -> Mapping[str, tuple[str, ...]]:
        """See L{IStatus}."""
        return {
            service: tuple(source.name for source in sources)
            for service, sources in self._sources().services.items()
        }

    def searches(self, *, service: str, scan_id: str) -> Deferred[tuple[SearchState, ...]]:
        """See L{IStatus}."""
        return Deferred.fromCoroutine(self._searches(service, scan_id))

    async def _searches(self, service: str, scan_id: str) -> tuple[SearchState, ...]:
        # The id's tag says that the scan is of this service.
        self._ids.issued(service=service, scan_id=scan_id)
        now = self._store.now()
        live = self._flight.get(scan_id)
        if live is not None:
            return _of_live(live, now)
        scan = await self._store.load(scan_id=scan_id)
        if scan is None:
            raise NoSuchScan(f"no scan {scan_id}")
        if not scan.digest and not scan.searches:
            raise NoSuchScan(f"nothing is kept of scan {scan_id}")
        return _of_stored(scan, self._sources().services.get(service, ()), now)


def _state_of(source: Source, failing: Failing | None) -> SearcherState:
    return SearcherState(
        name=source.name,
        mode="async" if source.asynchronous else "sync",
        required=source.required,
        loading=source.loading(),
        trouble="; ".join(filter(None, (source.trouble(), str(failing or "")))),
        failing=failing,
        about=source.describe(),
    )


def _off(found: Found) -> SearcherState:
    return SearcherState(
        name=found.name,
        mode=found.mode or "",
        why_off=found.why_off,
        broken=found.broken,
        required=found.required,
    )


def _of_live(live: LiveScan, now: float) -> tuple[SearchState, ...]:
    return tuple(
        SearchState(
            searcher=name,
            required=part.required,
            outcome=part.outcome,
            tries=part.tries,
            running=part.since is not None,
            due_in_secs=None if part.due is None else max(part.due - now, 0.0),
        )
        for name, part in live.parts.items()
    )


def _of_stored(scan: Scan, sources: Sequence[Source], now: float) -> tuple[SearchState, ...]:
    required = {source.name: source.required for source in sources}
    return tuple(
        SearchState(
            searcher=search.searcher,
            required=required.get(search.searcher, True),
            outcome=search.outcome,
            tries=search.tries,
            running=bool(search.holder),
            due_in_secs=None if search.due is None else max(search.due - now, 0.0),
        )
        for search in scan.searches
    )
