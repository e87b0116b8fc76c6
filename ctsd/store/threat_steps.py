"""What L{ctsd.interfaces.store.IThreatStore} does, as steps; imports are in L{import_steps}."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from attrs import evolve, frozen

from ctsd.model import Threat
from ctsd.records import Changes, Finds
from ctsd.store.rows import (
    INSERT_THREAT,
    THREAT_COLUMNS,
    merged,
    threat_of,
    threat_params,
    twin_of,
    without_passwords,
)
from ctsd.store.steps import Many, Query, Steps, in_chunks, marks, number, take
from ctsd.stored import encode_threat

#: What others may see: everything but unfinished imports. The plus keeps the planner from going
#: through all of it by import, and sorting it, where a few rows by their id are wanted.
VISIBLE = "+t.import_id IN (SELECT id FROM imports WHERE base IS NOT NULL)"

#: An expiry that moves by less than this, or by less than a tenth of what is left, is no change:
#: the same finding, again and again, must not make the changes grow.
EXPIRY_SLACK_SECS = 3600.0


def _select(tail: str, params: Sequence[Any]) -> Steps[list[Threat]]:
    rows = yield Query(f"SELECT {THREAT_COLUMNS} FROM threats t {tail}", params)
    return [threat_of(row) for row in rows]


def threats(after: int, limit: int) -> Steps[list[Threat]]:
    """Threats by ascending id."""
    return (
        yield from _select(
            f"WHERE t.id > ? AND {VISIBLE} ORDER BY t.id LIMIT ?",
            (after, limit),
        )
    )


def threat(threat_id: int) -> Steps[Threat | None]:
    """One threat."""
    found = yield from _select(f"WHERE t.id = ? AND {VISIBLE}", (threat_id,))
    return found[0] if found else None


def _fresh(amount: int) -> Steps[Iterator[int]]:
    last = yield from take("version", amount)
    return iter(range(last - amount + 1, last + 1))


def _insert(new: Sequence[tuple[Any, ...]]) -> Steps[list[int]]:
    if not new:
        return []
    last = yield from take("threat", len(new))
    ids = list(range(last - len(new) + 1, last + 1))
    versions = yield from _fresh(len(new))
    rows = [(one, 0, next(versions), *params) for one, params in zip(ids, new, strict=True)]
    yield Many(INSERT_THREAT, rows)
    return ids


def dated(threat: Threat, *, now: float, threat_secs: float) -> Threat:
    """A new threat with its dates: when it came, and a searcher's until when it stays."""
    expires = threat.expires
    if expires is None and threat.searcher:
        expires = now + threat_secs
    return evolve(threat, created=threat.created or now, expires=expires)


def twins(wanted: Iterable[bytes], *, import_id: int = 0) -> Steps[dict[bytes, int]]:
    """Which of these twins are there already, in what is visible or in this import: their ids."""
    found: dict[bytes, int] = {}
    for chunk in in_chunks(sorted(set(wanted))):
        rows = yield Query(
            f"SELECT t.twin, t.id FROM threats t WHERE t.twin IN ({marks(chunk)})"
            f" AND (t.import_id = ? OR {VISIBLE})",
            (*chunk, import_id),
        )
        for twin, threat_id in rows:
            twin = bytes(twin)
            found[twin] = min(threat_id, found.get(twin, threat_id))
    return found


def add(wanted: Sequence[Threat], *, now: float, threat_secs: float) -> Steps[list[int]]:
    """Enter threats; the id of an equal one for what is there already."""
    keys = [twin_of(threat) for threat in wanted]
    rows = {
        key: threat_params(dated(threat, now=now, threat_secs=threat_secs), key)
        for threat, key in zip(wanted, keys, strict=True)
        if key is not None
    }
    known = yield from twins(rows)
    new = {key: params for key, params in rows.items() if key not in known}
    ids = yield from _insert(list(new.values()))
    known.update(zip(new, ids, strict=True))
    result = []
    for threat, key in zip(wanted, keys, strict=True):
        if key is not None:
            result.append(known[key])
        else:
            result += yield from _keep(
                Finds(searcher=threat.searcher, source=threat.source, threats=(threat,)),
                now=now,
                threat_secs=threat_secs,
                replace=False,
            )
    return result


def keep_finds(finds: Iterable[Finds], *, now: float, threat_secs: float) -> Steps[None]:
    """
    Write what searches found, in place of what they had found for the same artifacts before.

    Without a source (a password was asked about) nothing is written.
    """
    for one in finds:
        if one.source and one.searcher:
            yield from _keep(one, now=now, threat_secs=threat_secs, replace=True)


def _differs(old: Threat, new: Threat, now: float) -> bool:
    if encode_threat(evolve(new, expires=old.expires)) != encode_threat(old):
        return True
    if old.expires is None or new.expires is None:
        return old.expires is not new.expires
    slack = min(EXPIRY_SLACK_SECS, 0.1 * max(new.expires - now, 0.0))
    return abs(new.expires - old.expires) > slack


def _keep(finds: Finds, *, now: float, threat_secs: float, replace: bool) -> Steps[list[int]]:
    wanted: dict[str, Threat] = {}
    for threat in finds.threats:
        threat = without_passwords(threat)
        if replace and not threat.artifacts:
            continue
        threat = evolve(threat, searcher=finds.searcher, source=finds.source)
        threat = dated(threat, now=now, threat_secs=threat_secs)
        before = wanted.get(threat.name)
        wanted[threat.name] = threat if before is None else merged(before, threat)
    there = yield from _select(
        f"WHERE t.source = ? AND t.searcher = ? AND t.twin IS NULL AND {VISIBLE} ORDER BY t.id",
        (finds.source, finds.searcher.encode("utf-8", "surrogatepass")),
    )
    old: dict[str, Threat] = {}
    gone = []
    for threat in there:
        if threat.name in old or (replace and threat.name not in wanted):
            gone.append(threat.id)
        else:
            old[threat.name] = threat
    ids = {}
    new = []
    changed = []
    for name, threat in wanted.items():
        before = old.get(name)
        if before is None:
            new.append(threat)
            continue
        ids[name] = before.id
        after = merged(before, threat)
        if _differs(before, after, now):
            changed.append(after)
    fresh = yield from _insert([threat_params(threat, None) for threat in new])
    ids.update((threat.name, threat_id) for threat, threat_id in zip(new, fresh, strict=True))
    yield from _update(changed)
    yield from remove(gone, now=now)
    return [ids[name] for name in wanted]


def _update(changed: Sequence[Threat]) -> Steps[None]:
    if not changed:
        return
    versions = yield from _fresh(len(changed))
    yield Many(
        "UPDATE threats SET import_id = 0, changed = ?, expires = ?, body = ? WHERE id = ?",
        [(next(versions), one.expires, encode_threat(one), one.id) for one in changed],
    )


def delete(threat_ids: Sequence[int], now: float) -> Steps[int]:
    """Remove threats that are there, and say so to those who follow the changes."""
    count = 0
    for ids in in_chunks(sorted(set(threat_ids))):
        rows = yield Query(
            f"SELECT t.id FROM threats t WHERE t.id IN ({marks(ids)}) AND {VISIBLE}", ids
        )
        count += yield from remove([row[0] for row in rows], now=now)
    return count


def remove(threat_ids: Sequence[int], *, now: float) -> Steps[int]:
    """Remove these threats, which are there and visible; how many."""
    if not threat_ids:
        return 0
    versions = yield from _fresh(len(threat_ids))
    yield Many("DELETE FROM threats WHERE id = ?", [(threat_id,) for threat_id in threat_ids])
    yield Many(
        "INSERT INTO gone (changed, threat_id, at) VALUES (?, ?, ?)",
        [(next(versions), threat_id, now) for threat_id in threat_ids],
    )
    return len(threat_ids)


@frozen
class _Change:
    version: int
    row: tuple[Any, ...] | None
    deleted: int = 0


def changes(since: int, limit: int) -> Steps[Changes]:
    """What changed after a version, oldest first, at most C{limit}."""
    version = yield from number("version")
    forgotten = yield from number("forgotten")
    rows = yield Query(
        "SELECT changed, threat_id FROM gone WHERE changed > ? ORDER BY changed LIMIT ?",
        (since, limit + 1),
    )
    found = [_Change(row[0], None, row[1]) for row in rows]
    # An import's versions are its own, without anybody else's in between: in their order, no
    # more imports need to be looked at than fill the limit.
    imports = yield Query(
        "SELECT id, base FROM imports WHERE base IS NOT NULL AND (id = 0 OR base + size > ?)"
        " ORDER BY base, id",
        (since,),
    )
    imported = 0
    for import_id, base in imports:
        if imported > limit:
            break
        rows = yield Query(
            f"SELECT t.changed, {THREAT_COLUMNS} FROM threats t"
            " WHERE t.import_id = ? AND t.changed > ? ORDER BY t.changed LIMIT ?",
            (import_id, since - base, limit + 1),
        )
        found += [_Change(base + row[0], tuple(row[1:])) for row in rows]
        if import_id:
            imported += len(rows)
    found.sort(key=lambda change: change.version)
    more = len(found) > limit
    found = found[:limit]
    return Changes(
        version=found[-1].version if more else max(version, since),
        threats=tuple(threat_of(change.row) for change in found if change.row is not None),
        deleted=tuple(change.deleted for change in found if change.row is None),
        more=more,
        gap=since < forgotten,
    )
