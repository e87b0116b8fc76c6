"""What L{ctsd.interfaces.store.IScanStore} does, as steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from ctsd.model import Scan, ScanState, Search
from ctsd.records import Finds
from ctsd.store.node_steps import IS_NODE
from ctsd.store.rows import (
    INSERT_SCAN,
    INSERT_SEARCH,
    SCAN_COLUMNS,
    SEARCH_COLUMNS,
    as_kept,
    in_one_row,
    is_secret,
    path_of,
    scan_of,
    scan_params,
    search_of,
    search_params,
    searches_params,
    wake_of,
)
from ctsd.store.steps import Change, Many, Query, Steps, Tell, in_chunks, marks
from ctsd.store.threat_steps import keep_finds

_RECORD = (
    "UPDATE searches SET outcome = ?, tries = ?, due = ?, holder = ?, takeovers = ?, deaths = ?"
    f" WHERE scan_id = ? AND searcher = ? AND holder = ? AND {IS_NODE}"
    " AND EXISTS (SELECT 1 FROM scans WHERE scans.id = searches.scan_id AND scans.state = 'open')"
)

#: Of a scan that has ended nobody holds anything.
_FREE = "UPDATE searches SET holder = '' WHERE scan_id = ? AND holder <> ''"

_IS_OPEN_SECRET = "SELECT 1 FROM scans WHERE id = ? AND digest = ? AND state = 'open'"

#: When somebody has to look at an OPEN scan: see L{ctsd.store.rows.wake_of}.
_WAKE = (
    "COALESCE((SELECT MIN(s.due) FROM searches s WHERE s.scan_id = scans.id AND s.holder = ''"
    " AND s.due < scans.deadline), deadline)"
)

#: A scan may be worked on when no other node (a parameter) does.
_NOT_ELSEWHERE = (
    "NOT EXISTS (SELECT 1 FROM searches s WHERE s.scan_id = scans.id AND s.holder <> ''"
    " AND s.holder <> ?)"
)


def write_scans(
    items: Iterable[tuple[Scan, Sequence[Finds]]], *, now: float, threat_secs: float
) -> Steps[None]:
    """
    Write new scans with what was found; one that is there already is left as it is.

    :param now: store time.
    :param threat_secs: how long a threat lives that comes without a date.
    """
    items = list(items)
    yield Many(INSERT_SCAN, [scan_params(scan) for scan, _ in items])
    searches = [
        params
        for scan, _ in items
        if not in_one_row(scan)
        for params in searches_params(scan.id, scan.searches)
    ]
    if searches:
        yield Many(INSERT_SEARCH, searches)
    for scan, finds in items:
        if finds and not is_secret(scan):
            yield from keep_finds(finds, now=now, threat_secs=threat_secs)


def promise(
    scan: Scan, finds: Sequence[Finds], *, now: float, threat_secs: float
) -> Steps[Scan | None]:
    """Write an OPEN scan, unless an equal one is there: that one; None when a holder is no node."""
    writing = write_scans([(scan, finds)], now=now, threat_secs=threat_secs)
    first = next(writing)
    kept = as_kept(scan)
    holders = sorted({search.holder for search in kept.searches if search.holder})
    rows = yield Query(
        "SELECT (SELECT id FROM scans WHERE service = ? AND digest = ? AND digest <> ?"
        " AND state = 'open' ORDER BY created DESC, id DESC LIMIT 1),"
        f" (SELECT COUNT(*) FROM nodes WHERE holder IN ({marks(holders) or 'NULL'}))",
        (scan.service, kept.digest, b"", *holders),
    )
    equal, nodes = rows[0]
    if equal is not None:
        return (yield from load(equal))
    if nodes < len(holders):
        return None
    yield first
    yield from writing
    return scan


def _scans(tail: str, params: Sequence[Any]) -> Steps[list[Scan]]:
    rows = yield Query(f"SELECT {SCAN_COLUMNS} FROM scans {tail}", params)
    apart = [row[0] for row in rows if row[-1] is None]
    searches: dict[str, list[Search]] = {}
    for ids in in_chunks(apart):
        parts = yield Query(
            f"SELECT scan_id, {SEARCH_COLUMNS} FROM searches WHERE scan_id IN ({marks(ids)})"
            " ORDER BY scan_id, place",
            ids,
        )
        for part in parts:
            searches.setdefault(part[0], []).append(search_of(part[1:]))
    return [scan_of(row, searches.get(row[0], ())) for row in rows]


def _first(tail: str, params: Sequence[Any]) -> Steps[Scan | None]:
    scans = yield from _scans(tail, params)
    return scans[0] if scans else None


def load(scan_id: str) -> Steps[Scan | None]:
    """One scan."""
    return (yield from _first("WHERE id = ?", (scan_id,)))


def find(service: str, digest: bytes) -> Steps[Scan | None]:
    """The newest unfinished scan of a service for a digest."""
    return (
        yield from _first(
            "WHERE service = ? AND digest = ? AND state <> 'complete'"
            " ORDER BY created DESC, id DESC LIMIT 1",
            (service, digest),
        )
    )


def unfinished(since: float, until: float, limit: int) -> Steps[set[tuple[str, bytes]]]:
    """Service and digest of the newest unfinished scans that were created in that time."""
    rows = yield Query(
        "SELECT service, digest FROM scans WHERE state <> 'complete' AND created >= ?"
        " AND created < ? AND digest <> ? ORDER BY created DESC LIMIT ?",
        (since, until, b"", limit),
    )
    return {(service, bytes(digest)) for service, digest in rows}


def due(now: float, holder: str, limit: int) -> Steps[list[Scan]]:
    """OPEN scans that this node has to look at, the longest waiting first."""
    return (
        yield from _scans(
            f"WHERE state = 'open' AND wake <= ? AND {_NOT_ELSEWHERE} ORDER BY wake, id LIMIT ?",
            (now, holder, limit),
        )
    )


def files() -> Steps[set[Path]]:
    """The files that unfinished scans still name."""
    rows = yield Query("SELECT file FROM scans WHERE state <> 'complete' AND file IS NOT NULL")
    return {path_of(row[0]) for row in rows}


def hold(scan_ids: Sequence[str], holder: str, now: float) -> Steps[list[Scan]]:
    """Give a node what is due in these scans; those of which it has something, or that are over."""
    found: list[Scan] = []
    for ids in in_chunks(scan_ids):
        yield Many(
            f"UPDATE searches SET holder = ? WHERE scan_id IN (SELECT id FROM scans WHERE id IN"
            f" ({marks(ids)}) AND state = 'open' AND deadline > ? AND {_NOT_ELSEWHERE})"
            f" AND holder = '' AND due <= ? AND {IS_NODE}",
            [(holder, *ids, now, holder, now, holder)],
        )
        yield Many(
            f"UPDATE scans SET wake = {_WAKE} WHERE id IN ({marks(ids)}) AND state = 'open'",
            [ids],
        )
        there = yield from _scans(f"WHERE id IN ({marks(ids)}) AND state = 'open'", ids)
        found += [scan for scan in there if _is_for(scan, holder, now)]
    return found


def _is_for(scan: Scan, holder: str, now: float) -> bool:
    holders = {search.holder for search in scan.searches} - {""}
    return holders == {holder} or (not holders and scan.deadline <= now)


def end(scan_id: str, state: ScanState, holder: str) -> Steps[bool]:
    """End an OPEN scan, on which no other node works; whether it was one."""
    count: int = yield Change(
        f"{_ended(state)} AND {_NOT_ELSEWHERE}", (state.value, scan_id, holder)
    )
    if count:
        yield Many(_FREE, [(scan_id,)])
        yield Tell(scan_id)
    return count > 0


def _ended(state: ScanState) -> str:
    dropped = ", artifact = NULL, file = NULL" if state is ScanState.COMPLETE else ""
    return f"UPDATE scans SET state = ?{dropped} WHERE id = ? AND state = 'open'"


def record(
    scan_id: str,
    search: Search,
    state: ScanState,
    finds: Sequence[Finds],
    holder: str,
    *,
    now: float,
    threat_secs: float,
) -> Steps[bool]:
    """Write a searcher's newest part, if the node holds it, the scan's state, what was found."""
    name, *values = search_params(search)
    if (yield Change(_RECORD, (*values, scan_id, name, holder, holder))):
        yield from keep_finds(finds, now=now, threat_secs=threat_secs)
    elif not (yield Query(_IS_OPEN_SECRET, (scan_id, b""))):
        return False
    if state is ScanState.OPEN:
        yield Many(f"UPDATE scans SET wake = {_WAKE} WHERE id = ?", [(scan_id,)])
    else:
        yield Many(_ended(state), [(state.value, scan_id)])
        yield Many(_FREE, [(scan_id,)])
    yield Tell(scan_id)
    return True


def reopen(scan_id: str, deadline: float, now: float) -> Steps[Scan | None]:
    """Make an INCOMPLETE scan OPEN again; None when there is none that could be asked about."""
    scan = yield from load(scan_id)
    if scan is None or scan.state is not ScanState.INCOMPLETE or not scan.digest:
        return None
    searches = tuple(
        search
        if search.outcome is not None and search.outcome.good
        else evolve(search, due=now, holder="")
        for search in scan.searches
    )
    yield Many(
        "UPDATE searches SET due = ?, holder = ? WHERE scan_id = ? AND searcher = ?",
        [(s.due, s.holder, scan_id, s.searcher) for s in searches],
    )
    yield Change(
        "UPDATE scans SET state = ?, deadline = ?, wake = ? WHERE id = ?",
        (
            ScanState.OPEN.value,
            deadline,
            wake_of(deadline, (s.due for s in searches if not s.holder)),
            scan_id,
        ),
    )
    return evolve(scan, state=ScanState.OPEN, deadline=deadline, searches=searches)
