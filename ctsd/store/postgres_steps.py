"""What only PostgreSQL can be asked, as steps."""

from __future__ import annotations

from ctsd.store.steps import Change, Query, Steps

#: The tables that grow, and the columns in which their bytes are.
_BIG = {
    "scans": ("artifact", "outcomes"),
    "searches": ("outcome",),
    "threats": ("source", "body"),
    "gone": (),
    "pairs": ("value",),
}

#: What a row costs beside these columns: its head, its small columns, its places in indexes.
_ROW_BYTES = 250

#: About so many pages of 8 KiB are looked at to estimate what a table holds.
_SAMPLE_PAGES = 2000


def used_bytes(enough: int) -> Steps[int]:
    """
    How much the store holds.

    PostgreSQL's files do not shrink when rows go, but get room for others; so only when they are
    large it is looked, in a sample of their pages, how much is really there.

    :param enough: files up to this size need no closer look.
    """
    names = ", ".join(f"'{name}'" for name in _BIG)
    rows = yield Query(
        "SELECT relname, pg_total_relation_size(oid), pg_relation_size(oid) / 8192 FROM pg_class"
        f" WHERE relkind = 'r' AND oid = to_regclass(relname::text) AND relname IN ({names})"
    )
    total = sum(int(size) for _, size, _ in rows)
    if total <= enough:
        return total
    used = 0
    for name, _, pages in rows:
        percent = min(100.0, 100.0 * _SAMPLE_PAGES / max(int(pages), 1))
        bytes_of = " + ".join(f"COALESCE(pg_column_size({column}), 0)" for column in _BIG[name])
        found = yield Query(
            f"SELECT COALESCE(SUM({_ROW_BYTES} + {bytes_of or '0'}), 0)::double precision"
            f" FROM {name} TABLESAMPLE SYSTEM ({percent:.6f})"
        )
        used += round(found[0][0] * 100.0 / percent)
    return used


#: Begins to listen to what other processes tell.
LISTEN = "LISTEN ctsd"


def notify(count: int) -> str:
    """The beginning of a statement that tells so many things, which are its parameters."""
    return f"SELECT {', '.join(['pg_notify($$ctsd$$, %s)'] * count)}; " if count else ""


def write_something() -> Steps[None]:
    """A write that changes nothing, to see whether writes work."""
    yield Change("INSERT INTO secrets (name, value) VALUES ('probe', '') ON CONFLICT DO NOTHING")
    yield Change("DELETE FROM secrets WHERE name = 'probe'")


def server_time() -> Steps[float]:
    """POSIX seconds by the server's clock."""
    rows = yield Query("SELECT extract(epoch FROM clock_timestamp())::double precision")
    seconds: float = rows[0][0]
    return seconds
