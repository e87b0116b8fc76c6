"""
From what a lookup has found in the index of all feeds to what each feed has.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Final, cast

from attrs import define, field, frozen

from ctsd.feeds.feed_file import FeedFile
from ctsd.feeds.keys import URL, stored
from ctsd.feeds.lookups import Lookup, how_found
from ctsd.feeds.parts import Parts
from ctsd.records import CONTAINS, Indexed, Matched

#: So many occurrences of an artifact within a feed's records are looked at in one turn.
PART_TURN: Final = 2000


@frozen
class Run:
    """
    Neighbours in the arrays of rows: a part of what one lookup has found.

    :ivar how: how they follow from the artifact.
    :ivar feeds: the numbers of the rows' feeds, from C{low} to C{high}; C{rows} likewise.
    :ivar is_mixed: whether the feeds are not in their order.
    """

    lookup: Lookup
    how: str
    feeds: memoryview
    rows: memoryview
    low: int
    high: int
    is_mixed: bool = False


@frozen(eq=False)
class Asked:
    """One search: see L{ctsd.feeds.key_index.KeyIndex.find}."""

    limit: int
    wanted: Callable[[str, Indexed], bool] | None
    now: float
    scan_limit: int


@define
class Tally:
    """
    What one feed has.

    :ivar seen: rows that need no further look.

    The others are those of L{ctsd.records.FeedMatches}.
    """

    matched: list[Matched] = field(factory=list)
    more: int = 0
    at_least: bool = False
    seen: set[int] = field(factory=set)

    def take(
        self,
        rows: Sequence[int],
        file: FeedFile,
        asked: Asked,
        confirmed: Callable[[Indexed], Matched | None],
    ) -> None:
        """
        Look at the rows of this feed that a lookup has found.

        :param confirmed: what a record is to the artifact; None when it was found wrongly.
        """
        unwanted = 0
        for count, row in enumerate(rows):
            is_full = len(self.matched) >= asked.limit
            if is_full and count >= asked.scan_limit:
                self.more += len(rows) - count
                self.at_least = True
                return
            if row in self.seen or file.is_expired(row, asked.now):
                continue
            if is_full:
                self.seen.add(row)
                self.more += 1
                continue
            matched = confirmed(file.record(row))
            if matched is None:
                # Another lookup may find it rightly.
                continue
            self.seen.add(row)
            if asked.wanted is None or asked.wanted(file.about.name, matched.record):
                self.matched.append(matched)
                continue
            unwanted += 1
            if unwanted >= asked.scan_limit:
                self.at_least = True
                return


def take_parts(
    tally: Tally, parts: Parts, patterns: Sequence[bytes], file: FeedFile, asked: Asked
) -> None:
    """Look at the records of a feed that contain the artifact."""
    # Usually the first turn is the last: a further one only when all of it was left out.
    for rows, is_last in parts.find(patterns, size=PART_TURN):
        tally.take(rows, file, asked, _contains)
        if tally.matched and not is_last:
            tally.at_least = True
        if tally.matched or tally.at_least:
            return


def _contains(record: Indexed) -> Matched:
    return Matched(record, CONTAINS)


def by_feed(run: Run) -> Iterator[tuple[int, Sequence[int]]]:
    """
    A run's rows, feed by feed: no feed's rows keep another's from being seen, however many there
    are.
    """
    at, high, feeds, rows = run.low, run.high, run.feeds, run.rows
    if not run.is_mixed:
        while at < high:
            number = feeds[at]
            end = bisect_right(feeds, number, at, high)
            yield number, cast("Sequence[int]", rows[at:end])
            at = end
        return
    mixed: dict[int, list[int]] = {}
    for number, row in zip(feeds[at:high].tolist(), rows[at:high].tolist(), strict=True):
        mixed.setdefault(number, []).append(row)
    yield from mixed.items()


def confirmed(run: Run, record: Indexed) -> Matched | None:
    """What a record of a run is to the artifact; None when only its hash is that of the key."""
    key, _, note = run.lookup
    if not isinstance(key, bytes):
        return Matched(record, run.how)
    if key not in stored(record.type, record.value)[0]:
        return None
    how = how_found(run.how, note, record.value) if key[:1] == URL else run.how
    return Matched(record, how)
