"""Goes on with promised scans of which something is due, or whose time is over."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from twisted.internet.interfaces import IReactorTime

from ctsd.interfaces.scanning import ISpool
from ctsd.interfaces.store import IScanStore
from ctsd.model import Ended, Outcome, Scan, ScanState
from ctsd.scanning.flight import Flight
from ctsd.scanning.live import LiveScan, needs_file, questions_for
from ctsd.scanning.membership import Membership
from ctsd.scanning.promises import Promises
from ctsd.scanning.rules import Rules
from ctsd.scanning.searches import Searches
from ctsd.scanning.source import Answered, Ask, Source
from ctsd.scanning.views import Views

#: A scan whose file is not here waits so long for a node that has it: one that only restarts.
FILE_SECS = 60.0
#: ... unless more of them wait already.
MAX_ELSEWHERE = 1000

#: From this takeover on a search runs alone in a child process.
SUSPECT_TAKEOVERS = 2


class Resuming:
    """Asks again, or ends, what waited."""

    def __init__(
        self,
        *,
        clock: IReactorTime,
        store: IScanStore,
        flight: Flight,
        views: Views,
        promises: Promises,
        searches: Searches,
        membership: Membership,
        spool: ISpool,
        rules: Rules,
    ) -> None:
        self._clock = clock
        self._store = store
        self._flight = flight
        self._views = views
        self._promises = promises
        self._searches = searches
        self._membership = membership
        self._spool = spool
        self._rules = rules
        self._elsewhere: dict[str, float] = {}

    @property
    def elsewhere(self) -> int:
        """How many scans that are due wait for a node that has their file."""
        return len(self._elsewhere)

    async def without_elsewhere(self, due: Sequence[Scan]) -> list[Scan]:
        """
        Those of the scans that are due which this node should take up: not those whose file it
        can't see, but perhaps another one, which then has a little time to do so.
        """
        now = self._store.now()
        files = {
            scan.id: scan.artifact.file.path
            for scan in due
            if scan.artifact is not None
            and scan.artifact.file is not None
            and now < scan.deadline
            and self._wants_file(scan)
        }
        missing = await self._spool.missing(paths=files.values()) if files else set()
        away = [scan_id for scan_id, path in files.items() if path in missing][:MAX_ELSEWHERE]
        since = self._elsewhere
        self._elsewhere = {scan_id: since.get(scan_id, now) for scan_id in away}
        waiting = {one for one, at in self._elsewhere.items() if now - at < FILE_SECS}
        return [scan for scan in due if scan.id not in waiting]

    def _wants_file(self, scan: Scan) -> bool:
        assert scan.artifact is not None
        sources = self._rules.services.get(scan.service, ())
        return needs_file(questions_for(scan.artifact, scan.digest, sources), sources)

    async def take_up(self, scan: Scan) -> None:
        """
        Go on with a scan that the store has given us (L{IScanStore.hold}).

        :raises StoreError: the store is away.
        """
        live = self._flight.get(scan.id)
        if live is None and not scan.digest:
            # A password, and the process that knew it is gone.
            await self._store.end(
                scan_id=scan.id, state=ScanState.INCOMPLETE, holder=self._membership.holder
            )
            return
        if live is None:
            live = self._views.revived(scan)
            live.holder = self._membership.holder
        ours = {one.searcher for one in scan.searches if one.holder == live.holder}
        await self._work_on(live, ours)

    async def take_up_private(self) -> None:
        """
        Go on with what waits in memory alone: in the store nothing of it is due.

        :raises StoreError: the store is away.
        """
        now = self._store.now()
        for live in self._flight.scans():
            if live.private and live.durable:
                dues = {name: part.due for name, part in live.parts.items()}
                due = [name for name, at in dues.items() if at is not None and at <= now]
                if due or now >= live.deadline:
                    await self._work_on(live, due)

    async def _work_on(self, live: LiveScan, due: Collection[str]) -> None:
        """Ask these searchers, but for those that are being asked; or end what is over."""
        if live.ended or self._flight.stopping:
            return
        state = ScanState.INCOMPLETE if self._store.now() >= live.deadline else live.state
        if state is not ScanState.OPEN:
            await self._promises.end(live, state)
            return
        questions = questions_for(live.artifact, live.digest, live.sources.values())
        asked = frozenset(questions)
        for name, part in live.parts.items():
            if part.since is not None or name not in due:
                continue
            self._flight.adopt(live)
            part.since, part.due = self._clock.seconds(), None
            if name not in questions:
                self._promises.record(live, name, _NO_LONGER_ASKED)
                continue
            ask = Ask(scan_id=live.id, questions=questions[name], asked=asked)
            self._again(live, live.sources[name], ask)

    def _again(self, live: LiveScan, source: Source, ask: Ask) -> None:
        if source.local:
            self._promises.record(live, source.name, self._searches.run_now(source, ask))
            return
        alone = live.parts[source.name].takeovers >= SUSPECT_TAKEOVERS
        self._searches.run(source, ask, alone=alone).addCallback(
            lambda answered: self._promises.record(live, source.name, answered)
        )


#: A searcher that is no longer there, or no longer wants this type of artifact.
_NO_LONGER_ASKED = Answered(Outcome(Ended.FAILED, reason="no longer configured", final=True))
