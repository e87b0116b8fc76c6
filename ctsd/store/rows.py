"""
What rows hold: scans, searches and threats as the parameters of statements, and back.

Here is also where passwords stop: nothing that belongs to the scan of one gets into a row.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
from attrs import evolve

from ctsd import stored
from ctsd.model import PASSWORD, Artifact, Outcome, Property, Scan, ScanState, Search, Threat

SCAN_COLUMNS = "id, service, state, created, deadline, digest, artifact, outcomes"
SEARCH_COLUMNS = "searcher, outcome, tries, due, holder, takeovers, deaths"
THREAT_COLUMNS = "t.id, t.created, t.expires, t.body"

INSERT_SCAN = (
    "INSERT INTO scans (id, service, state, created, deadline, wake, digest, artifact, file,"
    " outcomes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
)
INSERT_SEARCH = (
    f"INSERT INTO searches (scan_id, place, {SEARCH_COLUMNS})"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (scan_id, searcher) DO NOTHING"
)
INSERT_THREAT = (
    "INSERT INTO threats (id, import_id, changed, searcher, source, twin, expires, created, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(
    list[tuple[str, bytes | None, int, float | None, str, int, int]]
).decode
_STATES = {state.value: state for state in ScanState}


def name_digest(name: str) -> bytes:
    """What a name of any length and content is found by."""
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def is_secret(scan: Scan) -> bool:
    """Whether the scan is of a password: only ids, state and dates of it may be written."""
    return not scan.digest or (scan.artifact is not None and scan.artifact.type == PASSWORD)


def in_one_row(scan: Scan) -> bool:
    """Whether a scan is written as one row, without rows of searches."""
    return scan.state is ScanState.COMPLETE or is_secret(scan)


def as_kept(scan: Scan) -> Scan:
    """A scan as it will be read, once it is written."""
    if is_secret(scan):
        return evolve(scan, digest=b"", artifact=None, searches=())
    if scan.state is ScanState.COMPLETE and scan.artifact is not None:
        return evolve(scan, artifact=None)
    return scan


def wake_of(deadline: float, dues: Iterable[float | None]) -> float:
    """When somebody has to look at an OPEN scan: a search is due, or its deadline passes."""
    return min((due for due in dues if due is not None and due < deadline), default=deadline)


def scan_params(scan: Scan) -> tuple[Any, ...]:
    """The parameters of L{INSERT_SCAN}."""
    head = (scan.id, scan.service, scan.state.value, scan.created, scan.deadline)
    if is_secret(scan):
        return (*head, scan.deadline, b"", None, None, None)
    if scan.state is ScanState.COMPLETE:
        return (*head, scan.deadline, scan.digest, None, None, _pack_searches(scan.searches))
    artifact = scan.artifact
    file = artifact.file if artifact is not None else None
    return (
        *head,
        wake_of(scan.deadline, (s.due for s in scan.searches if not s.holder)),
        scan.digest,
        stored.encode_artifact(artifact) if artifact is not None else None,
        os.fsencode(file.path) if file is not None else None,
        None,
    )


def search_params(search: Search) -> tuple[Any, ...]:
    """The parameters for L{SEARCH_COLUMNS}."""
    outcome = search.outcome
    return (
        search.searcher,
        stored.encode_outcome(outcome) if outcome is not None else None,
        search.tries,
        search.due,
        search.holder,
        search.takeovers,
        search.deaths,
    )


def searches_params(scan_id: str, searches: Sequence[Search]) -> list[tuple[Any, ...]]:
    """The parameters of L{INSERT_SEARCH}, for each of a scan's searches."""
    return [(scan_id, place, *search_params(s)) for place, s in enumerate(searches)]


def search_of(row: Sequence[Any]) -> Search:
    """A search from its L{SEARCH_COLUMNS}."""
    searcher, outcome, tries, due, holder, takeovers, deaths = row
    return Search(
        searcher=searcher,
        outcome=_outcome_of(outcome),
        tries=tries,
        due=due,
        holder=holder,
        takeovers=takeovers,
        deaths=deaths,
    )


def _outcome_of(blob: bytes | None) -> Outcome | None:
    return None if blob is None else stored.decode_outcome(blob)


def _pack_searches(searches: Sequence[Search]) -> bytes:
    return _pack([search_params(search) for search in searches])


def unpack_searches(blob: bytes) -> tuple[Search, ...]:
    """The searches of a scan that is one row, from its C{outcomes}."""
    return tuple(map(search_of, _unpack(blob)))


def scan_of(row: Sequence[Any], searches: Sequence[Search]) -> Scan:
    """A scan from its L{SCAN_COLUMNS} and its rows of searches, in order."""
    scan_id, service, state, created, deadline, digest, artifact, outcomes = row
    return Scan(
        id=scan_id,
        service=service,
        state=_STATES[state],
        created=created,
        deadline=deadline,
        digest=bytes(digest),
        artifact=None if artifact is None else stored.decode_artifact(artifact),
        searches=tuple(searches) if outcomes is None else unpack_searches(outcomes),
    )


def path_of(blob: bytes) -> Path:
    """A file's path from its column."""
    return Path(os.fsdecode(blob))


def same_key(artifact: Artifact) -> bytes:
    """Two artifacts are the same when this is equal."""
    return stored.encode_value([artifact.type, artifact.value])


def without_passwords(threat: Threat) -> Threat:
    """A threat without its password artifacts, and without uploads' paths in the others."""
    artifacts = tuple(
        Artifact(a.type, a.value) if a.file is not None else a
        for a in threat.artifacts
        if a.type != PASSWORD
    )
    return threat if artifacts == threat.artifacts else evolve(threat, artifacts=artifacts)


def refuse_passwords(threats: Iterable[Threat]) -> None:
    """
    Check threats before they are entered.

    :raises ValueError: one has a password among its artifacts.
    """
    for place, threat in enumerate(threats, 1):
        if any(artifact.type == PASSWORD for artifact in threat.artifacts):
            raise ValueError(f"threat {place}: passwords are never stored")


def twin_of(threat: Threat) -> bytes | None:
    """What equal threats that people entered have in common; None for a searcher's."""
    if threat.searcher:
        return None
    properties = [stored.encode_value([p.type, p.name, p.value]) for p in threat.properties]
    sets = (sorted(map(same_key, threat.artifacts)), sorted(properties))
    parts = [name_digest(threat.name)]
    for members in sets:
        parts.append(len(members).to_bytes(4))
        parts.extend(blake2b(member, digest_size=16).digest() for member in members)
    return blake2b(b"".join(parts), digest_size=16).digest()


def threat_params(threat: Threat, twin: bytes | None) -> tuple[Any, ...]:
    """The parameters of L{INSERT_THREAT}, but for the first three; C{twin}: see L{twin_of}."""
    return (
        threat.searcher.encode("utf-8", "surrogatepass"),
        threat.source,
        twin,
        threat.expires,
        threat.created,
        stored.encode_threat(threat),
    )


def threat_of(row: Sequence[Any]) -> Threat:
    """A threat from its L{THREAT_COLUMNS}."""
    threat_id, created, expires, body = row
    threat = stored.decode_threat(body)
    return evolve(threat, id=threat_id, created=created, expires=expires)


def merged_properties(old: Sequence[Property], new: Sequence[Property]) -> tuple[Property, ...]:
    """Newer values replace older ones of the same name, in their place; the others follow."""
    by_name = {prop.name: prop for prop in old}
    by_name.update((prop.name, prop) for prop in new)
    return tuple(by_name.values())


def merged_artifacts(old: Sequence[Artifact], new: Sequence[Artifact]) -> tuple[Artifact, ...]:
    """All of both, none twice."""
    return tuple({same_key(artifact): artifact for artifact in (*old, *new)}.values())


def merged(old: Threat, new: Threat) -> Threat:
    """What a searcher knows after it found a threat again: C{old}'s id and date, C{new}'s news."""
    return evolve(
        old,
        properties=merged_properties(old.properties, new.properties),
        artifacts=merged_artifacts(old.artifacts, new.artifacts),
        note=new.note or old.note,
        expires=new.expires,
    )
