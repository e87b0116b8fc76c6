"""
What has changed in the local database since its index was built: few threats, in memory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from typing import Final

from attrs import define, field, frozen

from ctsd import artifacts
from ctsd.feeds.section import MARK, is_whole
from ctsd.feeds.threat_keys import FoundBy, NewKeys, found_by
from ctsd.model import FILE, JSON, PASSWORD, Threat
from ctsd.records import NO_MATCHES, Changes, Indexed, IndexLimits, Matches, Record
from ctsd.stored import indexed

#: So many rows of what is gone are kept at least before they are left out.
MAX_GONE: Final = 1000


def records_of(threat: Threat) -> Iterator[Record]:
    """A threat as the records that an index has of it: one for each artifact that can be found."""
    for artifact in threat.artifacts:
        # No file's bytes are looked for; the related artifacts (its hashes) find the threat.
        if artifact.type not in (FILE, PASSWORD):
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
    """One record with its keys and its expiry, and as it is found; C{found_by} beyond its text."""

    record: Indexed
    expires: float | None
    keys: tuple[bytes, ...]
    found_by: FoundBy


@define(eq=False)
class _Text:
    """
    The records of one type, and their keys: joined, a mark before and behind each; where each
    record's begin; which records have a key.
    """

    text: bytearray = field(factory=lambda: bytearray(MARK))
    starts: list[int] = field(factory=list)
    entries: list[_Entry] = field(factory=list)
    by_key: dict[bytes, list[int]] = field(factory=dict)

    def append(self, entry: _Entry) -> None:
        """One record more."""
        index = len(self.entries)
        self.entries.append(entry)
        self.starts.append(len(self.text) - 1)
        for key in entry.keys:
            self.text += key
            self.text += MARK
            self.by_key.setdefault(key, []).append(index)


@define(eq=False)
class Delta:
    """
    Threats that were changed, and ids of threats that were changed or deleted, which hide what
    the index has of them.

    :ivar changed: by id: the version in which it was seen.
    :ivar keys: by what normal forms and derived keys find L{row}s.
    :ivar _gone: how many rows are of what was changed again or deleted.
    :ivar _trigrams: by type: all runs of three bytes in its keys, and perhaps some that are gone.
    """

    changed: dict[int, int] = field(factory=dict)
    _threats: dict[int, tuple[_Entry, ...]] = field(factory=dict)
    _texts: dict[str, _Text] = field(factory=dict)
    _trigrams: dict[str, set[bytes]] = field(factory=dict)
    _rows: list[_Entry | None] = field(factory=list)
    _rows_of: dict[int, range] = field(factory=dict)
    _gone: int = 0
    keys: NewKeys = field(factory=NewKeys)

    def __len__(self) -> int:
        """How many threats were changed or deleted."""
        return len(self.changed)

    def apply(self, changes: Changes) -> None:
        """Take changes in. The same ones again change nothing."""
        if not changes.threats and not changes.deleted:
            return
        is_stale = False
        for threat in changes.threats:
            is_stale = is_stale or threat.id in self._threats
            self.changed[threat.id] = changes.version
            entries = self._threats[threat.id] = tuple(_entries(threat))
            self._drop(threat.id)
            self._note(threat.id, entries)
            for entry in entries:
                text = self._texts.get(entry.record.type)
                if text is not None:
                    text.append(entry)
        for threat_id in changes.deleted:
            self.changed[threat_id] = changes.version
            is_stale = self._threats.pop(threat_id, None) is not None or is_stale
            self._drop(threat_id)
        if is_stale:
            self._texts.clear()
        if self._gone > MAX_GONE and 2 * self._gone > len(self._rows):
            # One threat that changes all the time does not have the index built anew.
            self._renumber()

    def forget(self, version: int) -> None:
        """Leave out what was seen up to this version: an index has it now."""
        for threat_id in [each for each, seen in self.changed.items() if seen <= version]:
            del self.changed[threat_id]
            self._threats.pop(threat_id, None)
        self._texts.clear()
        self._renumber()

    def _renumber(self) -> None:
        """Leave out the rows and the trigrams of what is gone."""
        self._trigrams.clear()
        self._rows.clear()
        self._rows_of.clear()
        self._gone = 0
        self.keys = NewKeys()
        for threat_id, entries in self._threats.items():
            self._note(threat_id, entries)

    def row(self, row: int, now: float) -> tuple[Indexed, ...]:
        """The record that L{keys} have found; nothing when its time is over, or it has changed."""
        entry = self._rows[row]
        if entry is None or (entry.expires is not None and entry.expires <= now):
            return ()
        return (entry.record,)

    def _drop(self, threat_id: int) -> None:
        """Let rows be found no more, for they have changed."""
        rows = self._rows_of.pop(threat_id, range(0))
        self._gone += len(rows)
        for row in rows:
            self._rows[row] = None

    def _note(self, threat_id: int, entries: tuple[_Entry, ...]) -> None:
        first = len(self._rows)
        self._rows += entries
        self._rows_of[threat_id] = range(first, len(self._rows))
        for row, entry in enumerate(entries, first):
            self.keys.add(row, entry.found_by)
            noted = self._trigrams.setdefault(entry.record.type, set())
            for key in entry.keys:
                noted.update([key[at : at + 3] for at in range(len(key) - 2)])

    def find(
        self,
        *,
        type: str,
        value: JSON,
        limit: int,
        wanted: Callable[[Indexed], bool] | None,
        now: float,
        limits: IndexLimits = IndexLimits(),  # noqa: B008 - it is frozen
    ) -> Matches:
        """The threats that match, by id; see L{ctsd.interfaces.feeds.IRecords.find}."""
        trigrams = self._trigrams.get(type)
        if trigrams is None:
            return NO_MATCHES
        text = self._texts.get(type) or self._join(type)
        patterns = artifacts.patterns(type, value)
        found: dict[int, Indexed] = {}
        at_least = False
        # Further than that it is looked only when all that was looked at is left out.
        for most in (limits.occurrences, limits.passed_over):
            indexes, at_least = _occurrences(text, trigrams, patterns, most)
            found = self._wanted(text, indexes, type, value, wanted, now)
            if found or not at_least:
                break
        if not found:
            return Matches(at_least=True) if at_least else NO_MATCHES
        records = [found[threat_id] for threat_id in sorted(found)]
        return Matches(
            records=tuple(records[:limit]), more=max(len(records) - limit, 0), at_least=at_least
        )

    def _wanted(
        self,
        text: _Text,
        indexes: Collection[int],
        type: str,
        value: JSON,
        wanted: Callable[[Indexed], bool] | None,
        now: float,
    ) -> dict[int, Indexed]:
        """The first record of each threat that is found by these."""
        found: dict[int, Indexed] = {}
        refused: set[int] = set()
        # Keys are in lower case; the equality of URLs minds the case.
        confirm = type == "net.uri" and any(map(is_whole, artifacts.patterns(type, value)))
        for index in indexes:
            entry = text.entries[index]
            record = entry.record
            threat_id = record.threat_id
            if threat_id in found or threat_id in refused:
                continue
            if (entry.expires is not None and entry.expires <= now) or (
                wanted is not None and not wanted(record)
            ):
                refused.add(threat_id)
            elif not confirm or artifacts.matches(type, value, record.value):
                found[threat_id] = record
        return found

    def _join(self, type: str) -> _Text:
        text = self._texts[type] = _Text()
        for entries in self._threats.values():
            for entry in entries:
                if entry.record.type == type:
                    text.append(entry)
        return text


def _entries(threat: Threat) -> Iterator[_Entry]:
    for record in records_of(threat):
        keys = artifacts.keys(record.type, record.value)
        if keys:
            yield _Entry(indexed(record), record.expires, keys, found_by(record.type, record.value))


def _occurrences(
    text: _Text, trigrams: set[bytes], patterns: Collection[bytes], limit: int
) -> tuple[Collection[int], bool]:
    """
    In which records a pattern occurs, ascending; and whether there are more than C{limit}.
    """
    indexes: set[int] = set()
    starts = text.starts
    for pattern in patterns:
        if is_whole(pattern):
            indexes.update(text.by_key.get(pattern[1:-1], ()))
            continue
        # Nearly every miss has a trigram that no key has: that is seen in a microsecond, where
        # searching the text of 2,000 URLs takes 35.
        if not all(pattern[at : at + 3] in trigrams for at in range(len(pattern) - 2)):
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
