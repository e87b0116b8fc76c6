"""The store: scans, nodes, threats, and what processes share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zope.interface import Interface

from ctsd.model import Scan, ScanState, Search, Threat
from ctsd.records import Changes, Finds

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


class IStoreTime(Interface):
    """Dates. For waits there is C{IReactorTime}."""

    def now() -> float:
        """POSIX seconds by the store's clock. Never blocks."""


#: What is told when the local database has changed.
THREATS = "threats"


class INews(IStoreTime):
    """
    What other processes tell each other of a store.

    Not every store has a way to tell, and what is told may be lost: who waits also looks, now and
    then.
    """

    def changed(*, what: str) -> Deferred[None]:
        """
        Fires when somebody, perhaps we, tells that something has changed: a scan, by its id, or
        the local database (L{THREATS}). It may never fire; cancel it to stop waiting.
        """

    def hears() -> bool:
        """Whether what is told arrives here, as far as we know."""


class IScanStore(INews):
    """
    Scans, so that a promise outlives the process.

    Every Deferred may fail with L{ctsd.errors.StoreError}.
    """

    def secret() -> bytes:
        """32 random bytes that this store has kept since it was made. Known after the start."""

    def full() -> str:
        """Empty when new scans may be promised; else why not (C{store.max_bytes}, disk)."""

    def remember(*, scan: Scan, finds: Sequence[Finds] = ()) -> None:
        """
        Write a scan that ended in its first answer, soon, in a group with others.

        Returns at once and never fails: what can't be written is counted and logged.
        """

    def promise(*, scan: Scan, finds: Sequence[Finds] = ()) -> Deferred[Scan | None]:
        """
        Write an OPEN scan with all its searches, unless an OPEN scan of the same service and
        digest is there.

        :return: fires, when that would survive a power loss, with the scan to go by: this one or
            the equal one that was there first; with None, and nothing is written, when a search
            of it is held by what is no node (any more).
        """

    def load(*, scan_id: str) -> Deferred[Scan | None]:
        """One scan with its searches."""

    def find(*, service: str, digest: bytes) -> Deferred[Scan | None]:
        """The newest OPEN or INCOMPLETE scan of this service for this digest."""

    def unfinished(
        *, since: float = 0.0, until: float = math.inf, limit: int = 200_000
    ) -> Deferred[set[tuple[str, bytes]]]:
        """
        (service, digest) of OPEN and INCOMPLETE scans, without the empty digests.

        :param since: leaves out those that were created before; C{until}: then, or later.
        :param limit: the newest so many.
        """

    def hold(*, scan_ids: Sequence[str], holder: str) -> Deferred[list[Scan]]:
        """
        Give a node what is due in these OPEN scans. A scan that another node works on is left to
        that one: whoever works on a scan knows all of it.

        :return: fires, durably, with those of them that are the node's to work on, as they are
            now: C{holder} holds searches of them, or their deadline has passed.
        """

    def record(
        *,
        scan_id: str,
        search: Search,
        state: ScanState,
        holder: str,
        finds: Sequence[Finds] = (),
    ) -> Deferred[bool]:
        """
        Write one searcher's newest part, the scan's state and what was found, at once.

        When C{state} is not OPEN, nobody holds anything of the scan any more, and the artifact of
        a COMPLETE one is dropped.

        :return: fires with False, and nothing is changed, when the scan is not OPEN or C{holder}
            does not hold that search (any more): its node was taken for dead, and another one may
            hold it. Of a password's scan nothing is held.
        """

    def end(*, scan_id: str, state: ScanState, holder: str) -> Deferred[bool]:
        """
        Write only a scan's state: its deadline passed, or what waits is not required.

        :return: fires with False, and nothing is changed, when it is not OPEN or another node
            works on it.
        """

    def reopen(*, scan_id: str, deadline: float) -> Deferred[Scan | None]:
        """
        Make an INCOMPLETE scan OPEN again: its searches without a good outcome are due now.

        :return: fires with the scan; None when it is not there or not INCOMPLETE.
        """

    def due(*, now: float, holder: str, limit: int) -> Deferred[list[Scan]]:
        """
        OPEN scans with a search that nobody holds and whose C{due} has come, and OPEN scans whose
        deadline has passed; the longest waiting first; none that another node works on.
        """

    def files() -> Deferred[set[Path]]:
        """The paths of all files that OPEN or INCOMPLETE scans still name."""

    def age(*, now: float) -> Deferred[int]:
        """
        Remove, in small transactions: finished scans older than C{retention_days}, the oldest
        finished ones while the store is above C{store.max_bytes}, expired threats of searchers.

        :return: fires with how many rows went.
        """


class INodeStore(IStoreTime):
    """
    The processes that use a store, each a node: whatever a search is held by is one of them.

    A node has a name, and an epoch that is new with every registration; both are in C{holder}, by
    which all other verbs know it. Who was struck off, because it was not heard of in time, holds
    nothing any more; it may register again.

    Every Deferred may fail with L{ctsd.errors.StoreError}.
    """

    def register(*, name: str, secs: float) -> Deferred[str]:
        """
        Begin a new epoch. What the name's earlier epoch still held is taken over, see
        L{take_over}.

        :param secs: after how long without a word it may be taken for dead, in store time.
        :return: fires with the holder.
        """

    def beat(*, holder: str, secs: float) -> Deferred[bool]:
        """Say that the node lives; fires with False when it was struck off."""

    def take_over(*, holder: str) -> Deferred[int]:
        """
        Strike off other nodes that were not heard of in time. What they held in OPEN scans is
        nobody's, due now, and counts one takeover more; fires with how many searches that were.
        """

    def held(*, holder: str) -> Deferred[set[tuple[str, str]]]:
        """Scan id and searcher of all that a node holds."""

    def let_go(*, searches: Sequence[tuple[str, str]], holder: str) -> Deferred[None]:
        """What of these the node holds is nobody's, due now; no takeover is counted."""

    def leave(*, holder: str) -> Deferred[None]:
        """At the end: let go of everything, and be no node any more."""


class IThreatStore(INews):
    """
    The local database: threats that people entered and that searchers found.

    Every Deferred may fail with L{ctsd.errors.StoreError}.
    """

    def add(*, threats: Sequence[Threat]) -> Deferred[list[int]]:
        """
        Enter threats, all or none; one that is there already is not doubled.

        :return: fires with their ids, in order.
        :raises ValueError: one has an artifact of the type L{ctsd.model.PASSWORD}.
        """

    def open_import() -> Deferred[int]:
        """
        Begin to enter many threats, which nobody sees before L{finish_import}.

        :return: fires with the import's id. One that is neither finished nor added to for a day
            is removed by L{IScanStore.age}.
        """

    def add_to_import(*, import_id: int, threats: Sequence[Threat]) -> Deferred[int]:
        """
        Write some more (about a thousand at a time) of an import's threats.

        :return: fires with how many of them are new; the others are there already.
        :raises ValueError: there is no such open import, or a threat has an artifact of the type
            L{ctsd.model.PASSWORD}; nothing of C{threats} is written.
        """

    def finish_import(*, import_id: int) -> Deferred[int]:
        """
        Make all of an import visible at once.

        :return: fires with how many threats that were.
        :raises ValueError: there is no such open import.
        """

    def abandon_import(*, import_id: int) -> Deferred[int]:
        """
        Remove what an unfinished import has written, in small transactions.

        :return: fires with how many threats that were; 0 when there is no such open import.
        """

    def threats(*, after: int = 0, limit: int = 1000) -> Deferred[list[Threat]]:
        """Threats by ascending id, from the first one above C{after}."""

    def threat(*, threat_id: int) -> Deferred[Threat | None]:
        """One threat."""

    def delete(*, threat_ids: Sequence[int]) -> Deferred[int]:
        """Remove threats; fires with how many there were."""

    def version() -> Deferred[int]:
        """The newest change's number; it only grows."""

    def changes(*, since: int, limit: int = 1000) -> Deferred[Changes]:
        """What changed after version C{since}, oldest first."""


class IShared(IStoreTime):
    """
    What processes and nodes share beside scans and threats: leases, counters, keys with expiry.

    Every Deferred may fail with L{ctsd.errors.StoreError}.
    """

    def lease(*, name: str, holder: str, secs: float) -> Deferred[int | None]:
        """
        Take or renew a lease.

        :return: fires with its fencing token (grows with every change of holder), or None while
            another holder has it. Expiry is in store time.
        """

    def release(*, name: str, holder: str) -> Deferred[None]:
        """Give a lease back, if this holder has it."""

    def count(*, name: str, window_secs: float, amount: int = 1) -> Deferred[int]:
        """Add to a counter whose value restarts in every window of store time; the new sum."""

    def get(*, key: str) -> Deferred[bytes | None]:
        """The value under a key, if it has not expired."""

    def put(*, key: str, value: bytes, secs: float) -> Deferred[None]:
        """Keep a value for so long."""

    def drop(*, key: str) -> Deferred[None]:
        """Forget a key."""


class IStore(IScanStore, INodeStore, IThreatStore, IShared):
    """All of it: one object, one database. It is also an C{IService}."""
