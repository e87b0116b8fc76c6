"""
The seams of ctsd: every zope interface, its contract in its docstring.

Methods are called with keywords (C{verifyObject} checks arity, not names). A method that returns a
C{Deferred} may be given one that has fired already; all of them run in the reactor's thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

from ctsd.model import JSON, Artifact, Scan, ScanState, ScanView, Search, Threat
from ctsd.records import Changes, Derived, FeedMatches, Finds, Indexed, Matches, Within
from ctsd.remote import Download, Remote, Reply
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


class IRecords(Interface):
    """Indicators that can be searched in microseconds, without a thread and without the store."""

    def find(
        *,
        type: str,
        value: JSON,
        limit: int,
        wanted: Callable[[Indexed], bool] | None = None,
    ) -> Matches:
        """
        The records that match a value as protocol.md rules it. Records of one threat of the
        local database count once.

        :param wanted: leaves out the records for which it is false. When it leaves out very many,
            not all are looked at: C{Matches.at_least} with nothing found.
        :raises SearchLater: nothing was ever loaded.
        """

    def trouble() -> str:
        """Empty when all is well; else what is wrong (a file is missing, the build failed)."""

    def loading() -> bool:
        """Whether nothing was loaded yet, but may soon be."""

    def failed() -> bool:
        """Whether nothing was loaded yet, and waiting alone does not help."""

    def describe() -> str:
        """For people: rows, their date."""


class IThreats(IRecords):
    """
    The local database, which has the normal forms and derived keys of feeds: what equals a value
    comes first, then what contains it, then what derives from it (C{docs/matching.md}).
    """

    limits = Attribute("what bounds a search: L{ctsd.records.LookupLimits}")

    def find_within(
        *,
        derived: Iterable[Derived],
        limit: int,
        wanted: Callable[[Indexed], bool] | None = None,
    ) -> Matches:
        """
        The threats that are found by what is within an artifact (L{IContents}), by their ids: the
        hit of each says how.

        :param wanted: see L{find}.
        :raises SearchLater: as L{find}.
        """

    def is_empty() -> bool:
        """Whether it is certain that nothing can be found. Costs next to nothing."""


class IContents(Interface):
    """
    What stands within artifacts: the indicators in a text or a message, what is known of a file.
    """

    def within_now(*, artifact: Artifact) -> Within | None:
        """What L{within} says, if that takes but a fraction of a millisecond; else None."""

    def within(*, artifact: Artifact) -> Deferred[Within]:
        """
        What is in an artifact; of one in which nothing can be, nothing. Fires at once where
        L{within_now} knows it.

        :raises OSError: (in the Deferred) the artifact's file can't be read.
        """


class IFeeds(Interface):
    """
    The feeds that are on, as a searcher sees them.
    """

    stale = Attribute(
        "of the feeds that are older than they should be, and not yet too old: the date of what"
        " is searched, by name"
    )
    away = Attribute("the titles of required feeds that can't be asked: never loaded, or too old")
    retry_secs = Attribute("when to ask those again")
    limits = Attribute("what bounds a search: L{ctsd.records.LookupLimits}")

    def find(
        *,
        artifact: Artifact,
        derived: Iterable[Derived] = (),
        limit: int,
        left_out: Callable[[str, str, str], object],
    ) -> tuple[FeedMatches, ...]:
        """
        See L{IIndicators.find}; without the feeds that are too old, and without what warninglists
        and people say is no finding. Nothing while nothing is loaded: L{away} says that.

        :param left_out: told the feed, the artifact type and the list of each such record.
        :raises SearchLater: they are being stopped.
        """

    def has_nothing(*, type: str, value: JSON) -> bool:
        """
        Whether it is certain that L{find} would find nothing, and all that are required can be
        asked. Most artifacts are in no feed: this costs less than a search. False when in doubt.
        """

    def beside(*, asked: frozenset[str]) -> IFeeds:
        """
        These feeds, without those that a searcher has to itself which is asked, too: it tells
        what they have.

        :param asked: the names of the searchers of a scan.
        """

    def mark(*, feed: str, record: Indexed) -> str:
        """The warninglist that a hit is to be marked with; empty when it isn't."""

    def trouble() -> str:
        """What is wrong with feeds, for operators; empty when nothing is."""

    def loading() -> bool:
        """Whether there is a feed that can't be asked only because it is being indexed."""

    def describe() -> str:
        """How many feeds and records are searched."""


class IOutbound(Interface):
    """
    Asks servers of others, within limits, and tells nobody a secret.

    Every Deferred may fail with L{ctsd.errors.OutboundError}: there was no whole answer within
    the time and the size, or a redirect led to where it may not. An answer of any status is no
    failure. Cancelling a Deferred ends the request.
    """

    def request(
        *,
        remote: Remote,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | bytes | None = None,
        json: JSON = None,
        max_bytes: int | None = None,
        total_secs: float | None = None,
    ) -> Deferred[Reply]:
        """
        Ask, and have the answer in memory. Redirects are followed for C{GET} and C{HEAD} alone.

        :param headers: beside the remote's own; sent to other hosts, too: no secrets.
        :param params: are added to the address' query; gone after a redirect to another host.
        :param data: a form, or a body as it is.
        :param max_bytes: a larger answer is a failure; C{outbound.max_bytes} without it.
        :param total_secs: from now to the whole answer; C{outbound.total_secs} without it.
        """

    def download(
        *,
        remote: Remote,
        into: Path,
        max_bytes: int,
        headers: Mapping[str, str] | None = None,
        total_secs: float | None = None,
    ) -> Deferred[Download]:
        """
        Ask for a file, and have it on the disk, not in memory: as it was sent, still compressed
        when the server compressed it. It waits while another download from the same host runs.

        :param into: a file that is not there yet. It is there, and fsynced, when this fires with
            status 200; in every other case it is not.
        :param max_bytes: a larger file is a failure.
        :param headers: as for L{request}.
        :param total_secs: from the first byte sent; C{outbound.download_secs} without it.
        """


class IIndicators(Interface):
    """
    The indicators of all feeds, searched together in microseconds, without a thread and without
    the store.
    """

    def find(
        *,
        artifact: Artifact,
        derived: Iterable[Derived] = (),
        limit: int,
        wanted: Callable[[str, Indexed], bool] | None = None,
        hidden: Container[str] = (),
    ) -> tuple[FeedMatches, ...]:
        """
        What the feeds have on an artifact: nothing of those that have nothing, the others by name.

        :param derived: what else derives from the artifact, in the order in which it shall be
            found: the indicators within a text or a message (L{ctsd.feeds.contents}), a file's
            hashes (L{ctsd.artifacts.derived}).
        :param limit: so many records of each feed; the others are counted.
        :param wanted: leaves out the records for which it is false; of those that are counted
            alone it is not asked. Called with the feed's name.
        :param hidden: the names of feeds that are left out: those that are too old.
        :raises SearchLater: nothing was ever loaded.
        """

    def has_nothing(*, type: str, value: JSON) -> bool:
        """Whether it is certain that L{find} would find nothing; false when in doubt."""


class ISpool(Interface):
    """Where uploaded files lie while a scan needs them."""

    def remove(*, paths: Iterable[Path]) -> None:
        """Unlink files, soon and off the reactor; what is gone already is fine."""

    def missing(*, paths: Iterable[Path]) -> Deferred[set[Path]]:
        """Those of these files that can't be seen from here; looked for off the reactor."""

    def sweep(*, keep: set[Path]) -> None:
        """At the start: unlink what a crash left, but for C{keep}."""


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


class ISearcher(Interface):
    """
    What the scanner runs: L{ctsd.searcher.BaseArtifactSearch} provides it; authors inherit that.
    """

    name = Attribute("lower-case name, as in the configuration")
    local = Attribute("answers from this process's memory or mapped files, without waiting")
    isolate = Attribute("runs in a child process, always")

    def supports(artifact_type: str) -> bool:
        """Whether this searcher wants artifacts of that type. Cheap, and always the same."""

    def search(artifact_type: str, search_term: object, **kwargs: object) -> object:
        """
        The hits: an iterable of L{Hit} or L{Threat}, or None; or an awaitable of one.

        :raises SearchLater: ask again then.
        :raises SearchFailed: could not ask.
        """
