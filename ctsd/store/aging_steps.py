"""What goes with time, as steps: each removes at most C{limit} rows and says how many."""

from __future__ import annotations

import itertools

from ctsd.store.steps import Change, Query, Steps, in_chunks, marks
from ctsd.store.threat_steps import VISIBLE, remove


def finished_scans(before: float | None, limit: int) -> Steps[int]:
    """The oldest finished scans that were created before then; with None, whenever."""
    older = "" if before is None else " AND created < ?"
    rows = yield Query(
        f"SELECT id FROM scans WHERE state <> 'open'{older} ORDER BY created LIMIT ?",
        (limit,) if before is None else (before, limit),
    )
    for ids in in_chunks([row[0] for row in rows]):
        yield Change(f"DELETE FROM searches WHERE scan_id IN ({marks(ids)})", ids)
        yield Change(f"DELETE FROM scans WHERE id IN ({marks(ids)})", ids)
    return len(rows)


def expired_threats(now: float, limit: int) -> Steps[int]:
    """Threats whose date has passed."""
    rows = yield Query(
        f"SELECT t.id FROM threats t WHERE t.expires <= ? AND {VISIBLE} ORDER BY t.expires LIMIT ?",
        (now, limit),
    )
    return (yield from remove([row[0] for row in rows], now=now))


def tombstones(before: float, limit: int) -> Steps[int]:
    """What is known of threats that were deleted before then."""
    rows = yield Query("SELECT changed, at FROM gone ORDER BY changed LIMIT ?", (limit,))
    # In the order of changes, which is that of dates but for a clock that was set.
    old = [changed for changed, _ in itertools.takewhile(lambda row: row[1] < before, rows)]
    if not old:
        return 0
    last = old[-1]
    yield Change(
        "UPDATE numbers SET value = ? WHERE name = 'forgotten' AND value < ?", (last, last)
    )
    count: int = yield Change("DELETE FROM gone WHERE changed <= ?", (last,))
    return count


def stale_imports(before: float) -> Steps[list[int]]:
    """Abandon imports that nobody has touched since then; the ids of all abandoned ones."""
    yield Change(
        "UPDATE imports SET abandoned = 1 WHERE base IS NULL AND abandoned = 0 AND touched < ?",
        (before,),
    )
    rows = yield Query("SELECT id FROM imports WHERE abandoned = 1")
    return [row[0] for row in rows]


def empty_imports() -> Steps[int]:
    """Finished imports of which no threat is left."""
    count: int = yield Change(
        "DELETE FROM imports WHERE id <> 0 AND base IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM threats t WHERE t.import_id = imports.id)"
    )
    return count


def expired_shared(now: float, lease_secs: float, limit: int) -> Steps[int]:
    """Leases that ended C{lease_secs} ago, counters of past windows, keys that have expired."""
    total = 0
    for table, before in (("leases", now - lease_secs), ("counters", now), ("pairs", now)):
        total += yield Change(
            f"DELETE FROM {table} WHERE name IN"
            f" (SELECT name FROM {table} WHERE expires <= ? LIMIT ?)",
            (before, limit),
        )
    return total
