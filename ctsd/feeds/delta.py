"""
What has changed in the local database since its index was built: few threats, in memory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from itertools import accumulate

from attrs import define, field, frozen

from ctsd import artifacts
from ctsd.interfaces import NO_MATCHES, Changes, Matches, Record
from ctsd.model import JSON, PASSWORD, Threat

_MARK = b"\xff"


def records_of(threat: Threat) -> Iterator[Record]:
    """A threat as the records that an index has of it: one for each of its artifacts."""
    for artifact in threat.artifacts:
        if artifact.type != PASSWORD:
            yield Record(
                type=artifact.type,
                value=artifact.value,
                name=threat.name,
                properties=threat.properties,
                threat_id=threat.id,
                searcher=threat.searcher,
                source=threat.source,
                expires=threat.expires,
            )


@frozen(eq=False)
class _Entry:
    """One record with its keys."""

    record: Record
    keys: tuple[bytes, ...]


@frozen(eq=False)
class _Text:
    """
    The records of one type, and their keys: joined, each behind a mark; where each record's begin;
    which records have a key.
    """

    text: bytes
    starts: list[int]
    records: list[Record]
    by_key: dict[bytes, list[int]]


@define(eq=False)
class Delta:
    """
    Threats that were changed, and ids of threats that were changed or deleted, which hide what
    the index has of them.

    :ivar changed: by id: the version in which it was seen.
    """

    changed: dict[int, int] = field(factory=dict)
    _threats: dict[int, tuple[_Entry, ...]] = field(factory=dict)
    _texts: dict[str, _Text] = field(factory=dict)

    def __len__(self) -> int:
        """How many threats were changed or deleted."""
        return len(self.changed)

    def apply(self, changes: Changes) -> None:
        """Take changes in. The same ones again change nothing."""
        if not changes.threats and not changes.deleted:
            return
        for threat in changes.threats:
            self.changed[threat.id] = changes.version
            self._threats[threat.id] = tuple(_entries(threat))
        for threat_id in changes.deleted:
            self.changed[threat_id] = changes.version
            self._threats.pop(threat_id, None)
        self._texts.clear()

    def forget(self, version: int) -> None:
        """Leave out what was seen up to this version: an index has it now."""
        for threat_id in [each for each, seen in self.changed.items() if seen <= version]:
            del self.changed[threat_id]
            self._threats.pop(threat_id, None)
        self._texts.clear()

    def find(
        self,
        *,
        type: str,
        value: JSON,
        limit: int,
        wanted: Callable[[Record], bool] | None,
        now: float,
        scan_limit: int = 2000,
    ) -> Matches:
        """The threats that match, by id; see L{ctsd.interfaces.IRecords.find}."""
        text = self._texts.get(type) or self._join(type)
        if not text.records:
            return NO_MATCHES
        found: dict[int, Record] = {}
        refused: set[int] = set()
        indexes, at_least = _occurrences(text, artifacts.patterns(type, value), scan_limit)
        for index in indexes:
            record = text.records[index]
            threat_id = record.threat_id
            if threat_id in found or threat_id in refused:
                continue
            if (record.expires is not None and record.expires <= now) or (
                wanted is not None and not wanted(record)
            ):
                refused.add(threat_id)
            elif type != "net.uri" or artifacts.matches(type, value, record.value):
                found[threat_id] = record
        if not found and not at_least:
            return NO_MATCHES
        records = [found[threat_id] for threat_id in sorted(found)]
        return Matches(
            records=tuple(records[:limit]), more=max(len(records) - limit, 0), at_least=at_least
        )

    def _join(self, type: str) -> _Text:
        entries = [
            entry
            for threat_id in sorted(self._threats)
            for entry in self._threats[threat_id]
            if entry.record.type == type
        ]
        texts = [_MARK + _MARK.join(entry.keys) for entry in entries]
        starts = list(accumulate(map(len, texts), initial=0))[:-1]
        by_key: dict[bytes, list[int]] = {}
        for index, entry in enumerate(entries):
            for key in entry.keys:
                by_key.setdefault(key, []).append(index)
        records = [entry.record for entry in entries]
        joined = _Text(b"".join([*texts, _MARK]), starts, records, by_key)
        self._texts[type] = joined
        return joined


def _entries(threat: Threat) -> Iterator[_Entry]:
    for record in records_of(threat):
        keys = artifacts.keys(record.type, record.value)
        if keys:
            yield _Entry(record, keys)


def _occurrences(
    text: _Text, patterns: Collection[bytes], limit: int
) -> tuple[Collection[int], bool]:
    """
    In which records a pattern occurs, ascending; and whether there are more than C{limit}.
    """
    indexes: set[int] = set()
    starts = text.starts
    for pattern in patterns:
        if pattern[:1] == _MARK == pattern[-1:]:
            indexes.update(text.by_key.get(pattern[1:-1], ()))
            continue
        at = text.text.find(pattern)
        while at >= 0 and len(indexes) <= limit:
            index = bisect_right(starts, at) - 1
            indexes.add(index)
            if index + 1 == len(starts):
                break
            at = text.text.find(pattern, starts[index + 1])
    if not indexes:
        return (), False
    return sorted(indexes)[:limit], len(indexes) > limit
