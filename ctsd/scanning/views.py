"""What can be told about a scan after its first answer, wherever it is: memory or store."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ctsd.errors import LostScan, NoSuchScan
from ctsd.interfaces.store import IScanStore
from ctsd.model import Artifact, Scan, ScanState, ScanView
from ctsd.scanning.live import LiveScan, part_of
from ctsd.scanning.recent import RecentViews
from ctsd.scanning.reliability import Reliability
from ctsd.scanning.rules import Rules
from ctsd.scans import RESEND_SECS, final_view

#: A GET for an id without a row that is younger than this waits for its row.
YOUNG_SECS = 5.0
#: ... for so long, looking so often.
YOUNG_WAIT_SECS = 1.0
YOUNG_LOOK_SECS = 0.1


class Views:
    """Makes the L{ScanView}s of scans that were answered before."""

    def __init__(
        self,
        *,
        clock: IReactorTime,
        store: IScanStore,
        recent: RecentViews,
        reliability: Reliability,
        rules: Rules,
    ) -> None:
        self._clock = clock
        self._store = store
        self._recent = recent
        self._reliability = reliability
        self._rules = rules

    def of_live(self, live: LiveScan) -> ScanView:
        """A promised scan that is not finished."""
        return live.open_view(
            now=self._store.now(),
            monotonic=self._clock.seconds(),
            usual=self._reliability.usual_secs,
        )

    def of_stored(self, scan: Scan) -> ScanView:
        """
        A scan as the store has it.

        :raises LostScan: see L{ctsd.interfaces.scanning.IScans.view}.
        """
        live = self.revived(scan)
        if scan.state is ScanState.OPEN:
            return self.of_live(live)
        parts = tuple(live.parts.values())
        view = final_view(scan.id, parts, scan.state, self._rules.limits.when_incomplete)
        if scan.state is ScanState.COMPLETE:
            # Who asks once asks again, and this answer does not change any more.
            self._recent.add(scan.service, view)
        return view

    async def of_id(self, service: str, scan_id: str, issued: float) -> ScanView:
        """
        A scan that is not in memory; one that ended incomplete is opened again, once it should
        have been sent again.

        :param issued: when its id was minted, POSIX seconds in store time.
        :raises LostScan: see L{ctsd.interfaces.scanning.IScans.view}.
        :raises NoSuchScan: it is older than what is retained.
        """
        scan = await self._store.load(scan_id=scan_id)
        looks = 0
        while scan is None and looks * YOUNG_LOOK_SECS < YOUNG_WAIT_SECS:
            # Another process may be about to write it.
            if self._store.now() - issued > YOUNG_SECS:
                break
            await deferLater(self._clock, YOUNG_LOOK_SECS)
            looks += 1
            scan = await self._store.load(scan_id=scan_id)
        if scan is None:
            if self._store.now() - issued <= self._rules.limits.retention_secs:
                raise LostScan("this scan's answer is lost; send the artifact again")
            raise NoSuchScan(f"no scan {scan_id}")
        if scan.service != service:
            raise NoSuchScan(f"no scan {scan_id} of this service")
        if not scan.digest:
            raise LostScan("only the process that ran this scan could tell its answer")
        return await self._again(scan)

    async def _again(self, scan: Scan) -> ScanView:
        try:
            return self.of_stored(scan)
        except LostScan as lost:
            now, artifact = self._store.now(), scan.artifact
            opens_in = scan.deadline + RESEND_SECS - now
            if artifact is None or artifact.file is not None:
                raise
            if opens_in > 0:
                raise LostScan(lost.reason, retry_secs=max(int(opens_in), 1)) from None
        again = await self._store.reopen(
            scan_id=scan.id, deadline=now + self._rules.limits.scan_deadline_secs
        )
        return self.of_stored(again or scan)

    def revived(self, scan: Scan) -> LiveScan:
        """
        A stored scan, for the searchers that there are now. One that is gone, and has not
        answered, is still missed.
        """
        sources = {source.name: source for source in self._rules.services.get(scan.service, ())}
        return LiveScan(
            id=scan.id,
            service=scan.service,
            digest=scan.digest,
            artifact=scan.artifact or Artifact("", ""),
            created=scan.created,
            deadline=scan.deadline,
            started=self._clock.seconds(),
            sources=sources,
            parts={
                search.searcher: part_of(
                    search,
                    required=search.searcher not in sources or sources[search.searcher].required,
                )
                for search in scan.searches
            },
            promised=True,
            durable=True,
            answered=True,
        )
