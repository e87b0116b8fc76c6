"""What only SQLite can be asked, as steps."""

from __future__ import annotations

from ctsd.store.steps import Change, Query, Steps


def used_bytes() -> Steps[int]:
    """How much of the database file is in use."""
    numbers = []
    for name in ("page_count", "freelist_count", "page_size"):
        rows = yield Query(f"PRAGMA {name}")
        numbers.append(rows[0][0])
    pages, free, size = numbers
    used: int = (pages - free) * size
    return used


def write_something() -> Steps[None]:
    """A write that changes nothing, to see whether writes work."""
    yield Change("INSERT INTO secrets (name, value) VALUES ('probe', x'') ON CONFLICT DO NOTHING")
    yield Change("DELETE FROM secrets WHERE name = 'probe'")
