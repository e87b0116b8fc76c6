"""Imports: many threats that are written in chunks and become visible at once, as steps."""

from __future__ import annotations

from collections.abc import Sequence

from ctsd.model import Threat
from ctsd.store.rows import INSERT_THREAT, threat_params, twin_of
from ctsd.store.steps import Change, Many, Query, Steps, take
from ctsd.store.threat_steps import dated, twins


def open_import(now: float) -> Steps[int]:
    """A new import's id."""
    import_id = yield from take("import", 1)
    yield Change(
        "INSERT INTO imports (id, base, size, touched, abandoned) VALUES (?, NULL, 0, ?, 0)",
        (import_id, now),
    )
    return import_id


def _size(import_id: int) -> Steps[int]:
    rows = yield Query(
        "SELECT size FROM imports WHERE id = ? AND base IS NULL AND abandoned = 0", (import_id,)
    )
    if not rows:
        raise ValueError(f"there is no open import {import_id}")
    size: int = rows[0][0]
    return size


def add_to_import(
    import_id: int, wanted: Sequence[Threat], *, now: float, threat_secs: float
) -> Steps[int]:
    """Write some more of an import's threats, but for those that are there already."""
    keys = [twin_of(threat) for threat in wanted]
    rows = [
        threat_params(dated(threat, now=now, threat_secs=threat_secs), key)
        for threat, key in zip(wanted, keys, strict=True)
    ]
    size = yield from _size(import_id)
    known = set((yield from twins((k for k in keys if k is not None), import_id=import_id)))
    new = []
    for row, key in zip(rows, keys, strict=True):
        if key is None or key not in known:
            new.append(row)
        if key is not None:
            known.add(key)
    if new:
        first = (yield from take("threat", len(new))) - len(new) + 1
        yield Many(
            INSERT_THREAT,
            [(first + n, import_id, size + n + 1, *row) for n, row in enumerate(new)],
        )
    yield Change(
        "UPDATE imports SET size = ?, touched = ? WHERE id = ?",
        (size + len(new), now, import_id),
    )
    return len(new)


def finish_import(import_id: int) -> Steps[int]:
    """Make an import visible, by giving its threats the next versions: one row changes."""
    size = yield from _size(import_id)
    last = yield from take("version", size)
    yield Change("UPDATE imports SET base = ? WHERE id = ?", (last - size, import_id))
    return size


def abandon_import(import_id: int) -> Steps[bool]:
    """Close an import to further threats; whether it was open."""
    count: int = yield Change(
        "UPDATE imports SET abandoned = 1 WHERE id = ? AND base IS NULL AND abandoned = 0",
        (import_id,),
    )
    return count > 0


def clear_import(import_id: int, limit: int) -> Steps[int]:
    """Remove at most C{limit} threats of an abandoned import, and itself with the last of them."""
    count: int = yield Change(
        "DELETE FROM threats WHERE id IN (SELECT t.id FROM threats t JOIN imports i"
        " ON i.id = t.import_id WHERE i.id = ? AND i.abandoned = 1 LIMIT ?)",
        (import_id, limit),
    )
    if count < limit:
        yield Change("DELETE FROM imports WHERE id = ? AND abandoned = 1", (import_id,))
    return count
