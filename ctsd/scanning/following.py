"""First answers of scans that another node works on."""

from __future__ import annotations

from twisted.internet.defer import TimeoutError
from twisted.internet.interfaces import IReactorTime

from ctsd.errors import Unavailable
from ctsd.interfaces.store import IScanStore
from ctsd.model import Scan, ScanState, ScanView
from ctsd.scanning.rules import Rules
from ctsd.scanning.views import Views

#: How often the store is asked when nobody tells that something has changed.
POLL_SECS = 0.25


class Following:
    """
    Waits for another node's results, as long as a first answer may, and tells what is committed,
    nothing else: what that node says of the same scan, now or later, is no contradiction.
    """

    def __init__(
        self, *, clock: IReactorTime, store: IScanStore, views: Views, rules: Rules
    ) -> None:
        self._clock = clock
        self._store = store
        self._views = views
        self._rules = rules

    async def first_answer(self, scan: Scan, *, since: float | None = None) -> ScanView:
        """
        What to tell of an OPEN scan of the store's, once it has ended, nobody works on it, or it
        was waited for long enough.

        :param since: when the waiting began, if not now, monotonic seconds.
        :raises LostScan: see L{ctsd.interfaces.scanning.IScans.view}.
        :raises Unavailable: the store is away, or the scan is gone.
        """
        started = self._clock.seconds() if since is None else since
        while scan.state is ScanState.OPEN:
            rest = started + self._patience_secs(scan) - self._clock.seconds()
            if rest <= 0:
                break
            scan = await self._next(scan.id, min(rest, POLL_SECS))
        return self._views.of_stored(scan)

    async def of_id(self, scan_id: str) -> ScanView:
        """The same of a scan by its id."""
        return await self.first_answer(await self._load(scan_id))

    async def _next(self, scan_id: str, secs: float) -> Scan:
        changed = self._store.changed(what=scan_id)
        changed.addTimeout(secs, self._clock)
        changed.addErrback(lambda failure: failure.trap(TimeoutError))
        await changed
        return await self._load(scan_id)

    async def _load(self, scan_id: str) -> Scan:
        scan = await self._store.load(scan_id=scan_id)
        if scan is None:
            raise Unavailable(f"scan {scan_id} is gone")
        return scan

    def _patience_secs(self, scan: Scan) -> float:
        """How long a first answer may wait for what runs of this scan."""
        limits = self._rules.limits
        sources = {source.name: source for source in self._rules.services.get(scan.service, ())}
        running = [sources.get(search.searcher) for search in scan.searches if search.holder]
        if not running:
            return 0.0
        if any(source is not None and not source.asynchronous for source in running):
            return limits.last_call_secs
        return limits.first_answer_secs
