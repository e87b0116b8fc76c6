"""
An index of indicators: one file that is never modified, mapped read-only, shared by all processes
that open it.

Per artifact type it holds a section: the keys of all records (L{ctsd.artifacts.keys}) as one text
C{FF key FF key FF ...}, the hashes of the keys, the text's suffix array if parts of keys are looked
for, and where each row begins in the text. A value is found by binary search of its patterns
(L{ctsd.artifacts.patterns}): whole keys among the hashes, parts in the suffix array, so a miss
costs microseconds. Nothing of a record lives in Python objects: a million of these would cost a
fifth of a second in every full garbage collection.

Of threats of the local database there are keys and networks, too, for all types together
(L{ctsd.feeds.threat_keys}).

A B{row} is one record, or all records of one type that a threat of the local database has: these
count once. L{ctsd.feeds.writer} makes the file, a L{ctsd.feeds.array_file} with the payloads before
its arrays.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Iterator
from pathlib import Path

from attrs import frozen

from ctsd import artifacts, stored
from ctsd.feeds.array_file import ArrayFile, BadIndex
from ctsd.feeds.section import Section, is_whole
from ctsd.feeds.threat_keys import Keys
from ctsd.model import JSON
from ctsd.records import NO_MATCHES, Indexed, IndexLimits, Matches

#: Before each payload: its length.
LENGTH = struct.Struct("=I")

#: Where a row is: so many bits are its number in its section, those above the section's.
ROW_BITS = 40

#: Values longer than that are not even normalised when no stored one is as long.
_LONG_CHARS = 1 << 16

#: The one type whose equality is finer than that of its keys, which are lower-case.
_CASED = "net.uri"


@frozen
class About:
    """
    What an index says of itself.

    :ivar source: what it was built from, in the words of who had it built.
    :ivar version: the local database's version that it holds at least; else 0.
    :ivar records: how many records it holds.
    :ivar skipped: how many records of the source could not be used.
    :ivar built: when, POSIX seconds.
    """

    source: str = ""
    version: int = 0
    records: int = 0
    skipped: int = 0
    built: float = 0.0


@frozen(eq=False)
class _Asked:
    """One search: see L{Index.find}."""

    type: str
    value: JSON
    limit: int
    wanted: Callable[[Indexed], bool] | None
    hidden: Container[int]
    confirm: bool


class Index:
    """
    An open index. Searches are synchronous and in the reactor: after L{close} there are none.

    :ivar about: what it says of itself.
    :ivar keys: by what normal forms and derived keys find rows of threats.
    """

    def __init__(
        self,
        file: ArrayFile,
        about: About,
        sections: dict[str, Section],
        keys: Keys,
        order: list[str],
        *,
        now: Callable[[], float],
        limits: IndexLimits,
    ) -> None:
        self._file = file
        self._whole = file.whole
        self.about = about
        self._sections = sections
        self.keys: Keys | None = keys
        self._order = order
        self._now = now
        self._limits = limits

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        now: Callable[[], float],
        limits: IndexLimits = IndexLimits(),  # noqa: B008 - it is frozen
    ) -> Index:
        """
        Map an index, see L{ArrayFile.open}.

        :param now: POSIX seconds, which records' expiries are compared with.
        :raises BadIndex: it is damaged or of another format.
        :raises OSError: it can't be read.
        """
        file = ArrayFile.open(path)
        try:
            about = About(**file.about["about"])
            sections = {
                name: Section.of(file, name, **numbers)
                for name, numbers in file.about["sections"].items()
            }
            keys, order = Keys(file.arrays), list(file.about["order"])
        except (LookupError, TypeError) as error:
            file.close()
            raise BadIndex("its directory is wrong") from error
        return cls(file, about, sections, keys, order, now=now, limits=limits)

    def find(
        self,
        *,
        type: str,
        value: JSON,
        limit: int,
        wanted: Callable[[Indexed], bool] | None = None,
        hidden: Container[int] = (),
    ) -> Matches:
        """
        See L{ctsd.interfaces.feeds.IRecords.find}.

        :param hidden: threats that are left out, by their ids.
        """
        section = self._sections.get(type)
        if section is None:
            return NO_MATCHES
        if isinstance(value, str) and len(value) > max(section.longest_value, _LONG_CHARS):
            return NO_MATCHES
        patterns = artifacts.patterns(type, value)
        longest = section.longest_key + 2
        spans = []
        for pattern in patterns:
            if len(pattern) <= longest:
                span = section.span(pattern)
                if span is not None:
                    spans.append(span)
        if not spans:
            return NO_MATCHES
        confirm = type == _CASED and any(map(is_whole, patterns))
        asked = _Asked(type, value, limit, wanted, hidden, confirm)
        # Usually the first turn is the last: a further one only when all of it was left out.
        looked_at = 0
        for positions, is_last in section.positions(spans, self._limits.occurrences):
            found = self._matches(section, section.rows(positions), asked, at_least=not is_last)
            if found.records or found.more:
                return found
            looked_at += len(positions)
            if looked_at >= self._limits.passed_over and not is_last:
                return Matches(at_least=True)
        return NO_MATCHES

    def _matches(self, section: Section, rows: list[int], asked: _Asked, at_least: bool) -> Matches:
        records: list[Indexed] = []
        more = decoded = 0
        now = self._now()
        confirm = asked.confirm or asked.wanted is not None
        for row in rows:
            if section.ids is not None and section.ids[row] in asked.hidden:
                continue
            if section.expiries is not None and section.expiries[row] <= now:
                continue
            is_full = len(records) >= asked.limit
            if not is_full or confirm:
                if is_full and decoded >= self._limits.counted:
                    at_least = True
                    break
                decoded += 1
                record = self._record(section.payloads[row], asked)
                if record is None:
                    continue
                if not is_full:
                    records.append(record)
                    continue
            more += 1
        return Matches(records=tuple(records), more=more, at_least=at_least)

    def _record(self, place: int, asked: _Asked) -> Indexed | None:
        """The record of a row; of several the first that matches; None when none does."""
        lines = self._lines(place)
        confirm = asked.confirm or len(lines) > 1
        for line in lines:
            record = stored.decode_indexed(asked.type, line)
            if (
                not confirm
                or record.value == asked.value
                or artifacts.matches(record.type, asked.value, record.value)
            ):
                return record if asked.wanted is None or asked.wanted(record) else None
        return None

    def rows_of(self, row: int, *, hidden: Container[int]) -> Iterator[Indexed]:
        """
        The records of a row that L{keys} have found; nothing when it is hidden or over.

        :param hidden: threats that are left out, by their ids.
        """
        type, at = self._order[row >> ROW_BITS], row & (1 << ROW_BITS) - 1
        section = self._sections[type]
        if section.ids is not None and section.ids[at] in hidden:
            return
        if section.expiries is not None and section.expiries[at] <= self._now():
            return
        for line in self._lines(section.payloads[at]):
            yield stored.decode_indexed(type, line)

    def _lines(self, place: int) -> list[bytes]:
        start = place + LENGTH.size
        size = LENGTH.unpack_from(self._whole, place)[0]
        return self._whole[start : start + size].split(b"\n")

    def close(self) -> None:
        """Unmap. For a big index this takes milliseconds, without the GIL: use a thread."""
        self._sections, self.keys = {}, None
        self._file.close()
