"""What L{ctsd.interfaces.store.INodeStore} does, as steps."""

from __future__ import annotations

from collections.abc import Sequence

from ctsd.store.steps import Change, Many, Query, Steps, Tell, take

#: In a condition: whether a holder (a parameter) is a node that is there.
IS_NODE = "EXISTS (SELECT 1 FROM nodes WHERE nodes.holder = ?)"


def register(name: str, secs: float, now: float) -> Steps[str]:
    """Make this name a node of a new epoch; what it held before is nobody's."""
    epoch = yield from take("epoch", 1)
    holder = f"{name}#{epoch}"
    yield Change(
        "INSERT INTO nodes (name, epoch, holder, expires) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch, holder = excluded.holder,"
        " expires = excluded.expires",
        (name, epoch, holder, now + secs),
    )
    yield from _take_from_the_dead(now)
    return holder


def beat(holder: str, secs: float, now: float) -> Steps[bool]:
    """A node lives; whether it still is one."""
    count: int = yield Change("UPDATE nodes SET expires = ? WHERE holder = ?", (now + secs, holder))
    yield Tell("")
    return count > 0


def overdue(holder: str, now: float) -> Steps[list[str]]:
    """The holders of other nodes that have not been heard of in time."""
    rows = yield Query(
        "SELECT holder FROM nodes WHERE expires <= ? AND holder <> ? ORDER BY holder", (now, holder)
    )
    return [row[0] for row in rows]


def take_over(holder: str, now: float) -> Steps[int]:
    """Strike off nodes that are overdue; how many searches that concerns."""
    yield Change("DELETE FROM nodes WHERE expires <= ? AND holder <> ?", (now, holder))
    return (yield from _take_from_the_dead(now))


def _take_from_the_dead(now: float) -> Steps[int]:
    dead = "holder <> '' AND NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.holder = searches.holder)"
    return (yield from _free(dead, (), "takeovers + 1", now))


def _free(which: str, params: Sequence[str], takeovers: str, now: float) -> Steps[int]:
    """
    Searches are nobody's again, and due; how many.

    :param which: a condition of rows of C{searches}, with C{params}.
    """
    yield Many(
        "UPDATE scans SET wake = ? WHERE state = 'open' AND wake > ? AND id IN"
        f" (SELECT scan_id FROM searches WHERE {which})",
        [(now, now, *params)],
    )
    count: int = yield Change(
        f"UPDATE searches SET holder = '', due = ?, takeovers = {takeovers} WHERE {which}",
        (now, *params),
    )
    return count


def held(holder: str) -> Steps[set[tuple[str, str]]]:
    """Scan and searcher of every search that a node runs."""
    rows = yield Query(
        "SELECT scan_id, searcher FROM searches WHERE holder = ? AND holder <> ''", (holder,)
    )
    return {(scan_id, searcher) for scan_id, searcher in rows}


def let_go(searches: Sequence[tuple[str, str]], holder: str, now: float) -> Steps[None]:
    """A node does not run these searches, whatever was written."""
    which = "scan_id = ? AND searcher = ? AND holder = ? AND holder <> ''"
    for scan_id, searcher in searches:
        yield from _free(which, (scan_id, searcher, holder), "takeovers", now)


def leave(holder: str, now: float) -> Steps[None]:
    """A node ends, and blames nothing that it runs."""
    yield from _free("holder = ? AND holder <> ''", (holder,), "takeovers", now)
    yield Change("DELETE FROM nodes WHERE holder = ?", (holder,))
