"""What L{ctsd.interfaces.IScanStore} does, as steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from ctsd.model import Scan, ScanState, Search
from ctsd.records import Finds
from ctsd.store.rows import (
    INSERT_SCAN,
    INSERT_SEARCH,
    SCAN_COLUMNS,
    SEARCH_COLUMNS,
    in_one_row,
    is_secret,
    path_of,
    scan_of,
    scan_params,
    search_of,
    search_params,
    searches_params,
    unpack_searches,
    wake_of,
)
from ctsd.store.steps import Change, Many, Query, Steps, in_chunks, marks
from ctsd.store.threat_steps import keep_finds

_RECORD = (
    f"INSERT INTO searches (scan_id, place, {SEARCH_COLUMNS})"
    " VALUES (?, (SELECT COUNT(*) FROM searches WHERE scan_id = ?), ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (scan_id, searcher) DO UPDATE SET outcome = excluded.outcome,"
    " tries = excluded.tries, due = excluded.due, holder = excluded.holder,"
    " takeovers = excluded.takeovers, deaths = excluded.deaths"
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


def unfinished() -> Steps[set[tuple[str, bytes]]]:
    """Service and digest of every unfinished scan."""
    rows = yield Query(
        "SELECT DISTINCT service, digest FROM scans WHERE state <> 'complete' AND digest <> ?",
        (b"",),
    )
    return {(service, bytes(digest)) for service, digest in rows}


def due(now: float, limit: int) -> Steps[list[Scan]]:
    """OPEN scans that somebody has to look at, the longest waiting first."""
    return (
        yield from _scans(
            "WHERE state = 'open' AND wake <= ? ORDER BY wake, id LIMIT ?", (now, limit)
        )
    )


def files() -> Steps[set[Path]]:
    """The files that unfinished scans still name."""
    rows = yield Query("SELECT file FROM scans WHERE state <> 'complete' AND file IS NOT NULL")
    return {path_of(row[0]) for row in rows}


def _set_wake(scan_id: str, deadline: float) -> Steps[None]:
    rows = yield Query(
        "SELECT MIN(due) FROM searches WHERE scan_id = ? AND holder = '' AND due IS NOT NULL",
        (scan_id,),
    )
    wake = wake_of(deadline, [rows[0][0]])
    yield Change("UPDATE scans SET wake = ? WHERE id = ?", (wake, scan_id))


def end(scan_id: str, state: ScanState) -> Steps[None]:
    """Write a scan's state."""
    dropped = ", artifact = NULL, file = NULL" if state is ScanState.COMPLETE else ""
    yield Change(f"UPDATE scans SET state = ?{dropped} WHERE id = ?", (state.value, scan_id))


def hold(scan_id: str, searcher: str, holder: str) -> Steps[None]:
    """Write who runs a search."""
    yield Change(
        "UPDATE searches SET holder = ? WHERE scan_id = ? AND searcher = ?",
        (holder, scan_id, searcher),
    )
    rows = yield Query("SELECT deadline FROM scans WHERE id = ?", (scan_id,))
    if rows:
        yield from _set_wake(scan_id, rows[0][0])


def record(
    scan_id: str,
    search: Search,
    state: ScanState,
    finds: Sequence[Finds],
    *,
    now: float,
    threat_secs: float,
) -> Steps[None]:
    """Write one searcher's newest part, the scan's state and what was found."""
    rows = yield Query("SELECT digest, deadline, outcomes FROM scans WHERE id = ?", (scan_id,))
    if not rows:
        return
    digest, deadline, outcomes = rows[0]
    if digest:
        if outcomes is not None:
            yield from _spread(scan_id, outcomes)
        yield Change(_RECORD, (scan_id, scan_id, *search_params(search)))
        yield from keep_finds(finds, now=now, threat_secs=threat_secs)
    yield from end(scan_id, state)
    if state is ScanState.OPEN:
        yield from _set_wake(scan_id, deadline)


def _spread(scan_id: str, outcomes: bytes) -> Steps[None]:
    # A scan that ended in its first answer, and whose optional searcher came after that.
    searches = unpack_searches(outcomes)
    yield Change("UPDATE scans SET outcomes = NULL WHERE id = ?", (scan_id,))
    yield Many(INSERT_SEARCH, searches_params(scan_id, searches))


def take_over(holder: str, now: float) -> Steps[int]:
    """What other holders were running is nobody's, due now, and counts one takeover more."""
    rows = yield Query(
        "SELECT s.scan_id, s.searcher FROM searches s JOIN scans ON scans.id = s.scan_id"
        " WHERE s.holder <> '' AND s.holder <> ? AND scans.state = 'open'",
        (holder,),
    )
    if rows:
        yield Many(
            "UPDATE searches SET holder = '', due = ?, takeovers = takeovers + 1"
            " WHERE scan_id = ? AND searcher = ?",
            [(now, *row) for row in rows],
        )
        yield Many(
            "UPDATE scans SET wake = ? WHERE id = ? AND wake > ?",
            [(now, scan_id, now) for scan_id in sorted({row[0] for row in rows})],
        )
    return len(rows)


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
