"""Every verb of L{IStore}, for whatever engine runs its steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from ctsd.interfaces.store import IStore
from ctsd.model import Scan, ScanState, Search, Threat
from ctsd.records import Changes, Finds
from ctsd.store import import_steps, node_steps, scan_steps, shared_steps, threat_steps
from ctsd.store.aging import Aging
from ctsd.store.rows import refuse_passwords
from ctsd.store.steps import MakeSteps, bound, number

T = TypeVar("T")

#: How many threats one transaction removes.
_DELETE_LIMIT = 500


@implementer(IStore)
class Verbs(ABC):
    """
    A store whose engine runs steps: the engine says how to read and how to write.

    :ivar threat_secs: how long a searcher's threat stays that comes without a date.
    :ivar aging: what L{age} does.
    """

    threat_secs: float
    aging: Aging
    _wall_clock: Callable[[], float]

    @abstractmethod
    def _read(self, make: MakeSteps[T]) -> Deferred[T]:
        """Run steps that only read, on one state of the database."""

    @abstractmethod
    def _write(self, make: MakeSteps[T], *, durable: bool = True) -> Deferred[T]:
        """Run steps that write; fires when they are committed, and durable when they have to be."""

    @abstractmethod
    def secret(self) -> bytes:
        """See L{IScanStore.secret}."""

    @abstractmethod
    def full(self) -> str:
        """See L{IScanStore.full}."""

    @abstractmethod
    def remember(self, *, scan: Scan, finds: Sequence[Finds] = ()) -> None:
        """See L{IScanStore.remember}."""

    def now(self) -> float:
        """See L{IStoreTime}."""
        return self._wall_clock()

    def changed(self, *, what: str) -> Deferred[None]:
        """See L{ctsd.interfaces.store.INews.changed}; here nobody tells."""
        return Deferred()

    def hears(self) -> bool:
        """See L{ctsd.interfaces.store.INews.hears}."""
        return False

    # Scans

    def promise(self, *, scan: Scan, finds: Sequence[Finds] = ()) -> Deferred[Scan | None]:
        """See L{IScanStore.promise}."""
        return self._write(
            bound(
                scan_steps.promise,
                scan,
                finds,
                now=self.now(),
                threat_secs=self.threat_secs,
            )
        )

    def load(self, *, scan_id: str) -> Deferred[Scan | None]:
        """See L{IScanStore.load}."""
        return self._read(bound(scan_steps.load, scan_id))

    def find(self, *, service: str, digest: bytes) -> Deferred[Scan | None]:
        """See L{IScanStore.find}."""
        if not digest:
            return succeed(None)
        return self._read(bound(scan_steps.find, service, digest))

    def unfinished(
        self, *, since: float = 0.0, until: float = math.inf, limit: int = 200_000
    ) -> Deferred[set[tuple[str, bytes]]]:
        """See L{IScanStore.unfinished}."""
        return self._read(bound(scan_steps.unfinished, since, until, limit))

    def hold(self, *, scan_ids: Sequence[str], holder: str) -> Deferred[list[Scan]]:
        """See L{IScanStore.hold}."""
        return self._write(bound(scan_steps.hold, scan_ids, holder, self.now()))

    def record(
        self,
        *,
        scan_id: str,
        search: Search,
        state: ScanState,
        holder: str,
        finds: Sequence[Finds] = (),
    ) -> Deferred[bool]:
        """See L{IScanStore.record}."""
        return self._write(
            bound(
                scan_steps.record,
                scan_id,
                search,
                state,
                finds,
                holder,
                now=self.now(),
                threat_secs=self.threat_secs,
            )
        )

    def end(self, *, scan_id: str, state: ScanState, holder: str) -> Deferred[bool]:
        """See L{IScanStore.end}."""
        return self._write(bound(scan_steps.end, scan_id, state, holder))

    def reopen(self, *, scan_id: str, deadline: float) -> Deferred[Scan | None]:
        """See L{IScanStore.reopen}; there is none of a password, either."""
        return self._write(bound(scan_steps.reopen, scan_id, deadline, self.now()))

    def due(self, *, now: float, holder: str, limit: int) -> Deferred[list[Scan]]:
        """See L{IScanStore.due}."""
        return self._read(bound(scan_steps.due, now, holder, limit))

    def files(self) -> Deferred[set[Path]]:
        """See L{IScanStore.files}."""
        return self._read(scan_steps.files)

    def age(self, *, now: float) -> Deferred[int]:
        """
        See L{IScanStore.age}; what people entered goes when its own date has passed.

        After the wall clock has jumped, only C{max_bytes} removes anything for an hour.
        """
        return Deferred.fromCoroutine(self.aging.run(now))

    # Nodes

    def register(self, *, name: str, secs: float) -> Deferred[str]:
        """See L{INodeStore.register}."""
        return self._write(bound(node_steps.register, name, secs, self.now()))

    def beat(self, *, holder: str, secs: float) -> Deferred[bool]:
        """See L{INodeStore.beat}."""
        return self._write(bound(node_steps.beat, holder, secs, self.now()), durable=False)

    def take_over(self, *, holder: str) -> Deferred[int]:
        """See L{INodeStore.take_over}; asked often, so it writes only when there is a reason."""
        return Deferred.fromCoroutine(self._take_over(holder))

    async def _take_over(self, holder: str) -> int:
        if not await self._read(bound(node_steps.overdue, holder, self.now())):
            return 0
        return await self._write(bound(node_steps.take_over, holder, self.now()))

    def held(self, *, holder: str) -> Deferred[set[tuple[str, str]]]:
        """See L{INodeStore.held}."""
        return self._read(bound(node_steps.held, holder))

    def let_go(self, *, searches: Sequence[tuple[str, str]], holder: str) -> Deferred[None]:
        """See L{INodeStore.let_go}."""
        return self._write(bound(node_steps.let_go, searches, holder, self.now()))

    def leave(self, *, holder: str) -> Deferred[None]:
        """See L{INodeStore.leave}."""
        return self._write(bound(node_steps.leave, holder, self.now()))

    # Threats

    def add(self, *, threats: Sequence[Threat]) -> Deferred[list[int]]:
        """See L{IThreatStore.add}."""
        try:
            refuse_passwords(threats)
        except ValueError as error:
            return fail(error)
        return self._write(
            bound(threat_steps.add, threats, now=self.now(), threat_secs=self.threat_secs)
        )

    def open_import(self) -> Deferred[int]:
        """See L{IThreatStore.open_import}."""
        return self._write(bound(import_steps.open_import, self.now()))

    def add_to_import(self, *, import_id: int, threats: Sequence[Threat]) -> Deferred[int]:
        """See L{IThreatStore.add_to_import}."""
        try:
            refuse_passwords(threats)
        except ValueError as error:
            return fail(error)
        return self._write(
            bound(
                import_steps.add_to_import,
                import_id,
                threats,
                now=self.now(),
                threat_secs=self.threat_secs,
            ),
            durable=False,
        )

    def finish_import(self, *, import_id: int) -> Deferred[int]:
        """See L{IThreatStore.finish_import}."""
        return self._write(bound(import_steps.finish_import, import_id))

    def abandon_import(self, *, import_id: int) -> Deferred[int]:
        """See L{IThreatStore.abandon_import}."""
        return Deferred.fromCoroutine(self._abandon(import_id))

    async def _abandon(self, import_id: int) -> int:
        if not await self._write(bound(import_steps.abandon_import, import_id)):
            return 0
        return await self.aging.clear_import(import_id)

    def threats(self, *, after: int = 0, limit: int = 1000) -> Deferred[list[Threat]]:
        """See L{IThreatStore.threats}."""
        return self._read(bound(threat_steps.threats, after, limit))

    def threat(self, *, threat_id: int) -> Deferred[Threat | None]:
        """See L{IThreatStore.threat}."""
        return self._read(bound(threat_steps.threat, threat_id))

    def delete(self, *, threat_ids: Sequence[int]) -> Deferred[int]:
        """See L{IThreatStore.delete}; many go in several transactions."""
        return Deferred.fromCoroutine(self._delete(sorted(set(threat_ids))))

    async def _delete(self, threat_ids: Sequence[int]) -> int:
        count = 0
        for start in range(0, len(threat_ids), _DELETE_LIMIT):
            ids = threat_ids[start : start + _DELETE_LIMIT]
            count += await self._write(bound(threat_steps.delete, ids, self.now()))
        return count

    def version(self) -> Deferred[int]:
        """See L{IThreatStore.version}."""
        return self._read(bound(number, "version"))

    def changes(self, *, since: int, limit: int = 1000) -> Deferred[Changes]:
        """See L{IThreatStore.changes}."""
        return self._read(bound(threat_steps.changes, since, limit))

    # What is shared

    def lease(self, *, name: str, holder: str, secs: float) -> Deferred[int | None]:
        """See L{IShared.lease}."""
        return self._write(bound(shared_steps.lease, name, holder, secs, self.now()))

    def release(self, *, name: str, holder: str) -> Deferred[None]:
        """See L{IShared.release}."""
        return self._write(bound(shared_steps.release, name, holder, self.now()))

    def count(self, *, name: str, window_secs: float, amount: int = 1) -> Deferred[int]:
        """See L{IShared.count}."""
        return self._write(
            bound(shared_steps.count, name, window_secs, amount, self.now()), durable=False
        )

    def get(self, *, key: str) -> Deferred[bytes | None]:
        """See L{IShared.get}."""
        return self._read(bound(shared_steps.get, key, self.now()))

    def put(self, *, key: str, value: bytes, secs: float) -> Deferred[None]:
        """See L{IShared.put}."""
        return self._write(bound(shared_steps.put, key, value, secs, self.now()))

    def drop(self, *, key: str) -> Deferred[None]:
        """See L{IShared.drop}."""
        return self._write(bound(shared_steps.drop, key))
