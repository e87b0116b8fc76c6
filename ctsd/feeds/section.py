"""
The part of an index that one artifact type has: its mapped arrays, and their search.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from hashlib import blake2b

from attrs import frozen

from ctsd.feeds.array_file import ArrayFile

#: Before, between and behind the keys of a section's text; no key has this byte.
MARK = b"\xff"


def is_whole(pattern: bytes) -> bool:
    """Whether a pattern only finds keys that equal it."""
    return pattern[:1] == MARK == pattern[-1:]


def key_hash(key: bytes, salt: int) -> int:
    """A number of 64 bits; C{salt}: of 64 bits, too."""
    digest = blake2b(key, digest_size=8, salt=salt.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little")


#: A part of an array with the places of keys, or suffixes, in the text.
Span = tuple[memoryview, int, int]


@frozen(eq=False)
class Section:
    """
    The mapped arrays of one artifact type; a row is found in all of them by its number.

    :ivar whole: the file, in which the text, C{FF key FF key FF ...}, begins at C{base} and has
        C{size} bytes.
    :ivar hashes: L{key_hash} of all keys, ascending; different keys have different ones.
    :ivar places: where the marks before these keys are in the text.
    :ivar salt: of the hashes.
    :ivar suffixes: where suffixes of the text begin, in the order of these suffixes; None when
        whole keys alone are looked for.
    :ivar starts: where each row's first key's mark is in the text.
    :ivar payloads: where each row's payload is in the file.
    :ivar ids: of the threats; None when there are none.
    :ivar expiries: POSIX seconds, infinity for never; None when there are none.
    :ivar longest_key: bytes.
    :ivar longest_value: characters of the longest value that is a string.
    """

    whole: mmap.mmap
    base: int
    size: int
    hashes: memoryview
    places: memoryview
    salt: int
    suffixes: memoryview | None
    starts: memoryview
    payloads: memoryview
    ids: memoryview | None
    expiries: memoryview | None
    longest_key: int
    longest_value: int

    @classmethod
    def of(cls, file: ArrayFile, name: str, **numbers: int) -> Section:
        """
        The section of one type in an open file.

        :param numbers: L{salt}, L{longest_key} and L{longest_value}.
        :raises LookupError: an array is not there.
        :raises TypeError: a number is not there.
        """
        arrays = file.arrays
        return cls(
            whole=file.whole,
            base=file.places[f"{name}/text"],
            size=len(arrays[f"{name}/text"]),
            hashes=arrays[f"{name}/hashes"],
            places=arrays[f"{name}/places"],
            suffixes=arrays.get(f"{name}/suffixes"),
            starts=arrays[f"{name}/starts"],
            payloads=arrays[f"{name}/payloads"],
            ids=arrays.get(f"{name}/ids"),
            expiries=arrays.get(f"{name}/expiries"),
            **numbers,
        )

    def span(self, pattern: bytes) -> Span | None:
        """Where a pattern is in the text; None when it is nowhere."""
        if is_whole(pattern):
            return self._span_of_key(pattern)
        return self._span_of_part(pattern)

    def _span_of_key(self, pattern: bytes) -> Span | None:
        hashes = self.hashes
        wanted = key_hash(pattern[1:-1], self.salt)
        low = bisect_left(hashes, wanted)
        if low == len(hashes) or hashes[low] != wanted:
            return None
        at = self.base + self.places[low]
        if self.whole[at : at + len(pattern)] != pattern:
            return None
        high = low + 1
        if high < len(hashes) and hashes[high] == wanted:
            high = bisect_right(hashes, wanted, high)
        return self.places, low, high

    def _span_of_part(self, pattern: bytes) -> Span | None:
        whole, base = self.whole, self.base
        suffixes = self.suffixes
        assert suffixes is not None
        size = len(pattern)
        low, high = 0, len(suffixes)
        count = high
        while low < high:
            middle = (low + high) >> 1
            at = base + suffixes[middle]
            if whole[at : at + size] < pattern:
                low = middle + 1
            else:
                high = middle
        if low == count:
            return None
        at = base + suffixes[low]
        if whole[at : at + size] != pattern:
            return None
        # Most spans are short: gallop, then search between the last two steps.
        step = 1
        inside = low
        high = low + 1
        while high < count:
            at = base + suffixes[high]
            if whole[at : at + size] != pattern:
                break
            inside = high
            step *= 2
            high = min(high + step, count)
        while inside + 1 < high:
            middle = (inside + high) >> 1
            at = base + suffixes[middle]
            if whole[at : at + size] == pattern:
                inside = middle
            else:
                high = middle
        return suffixes, low, inside + 1

    def rows(self, positions: list[int]) -> list[int]:
        """The rows that these places of the text lie in, ascending; places may repeat."""
        starts = self.starts
        count = len(starts)
        found: list[int] = []
        row, end = -1, 0
        for position in sorted(positions):
            if position < end:
                continue
            row = bisect_right(starts, position, row + 1) - 1
            end = starts[row + 1] if row + 1 < count else self.size
            found.append(row)
        return found

    def positions(self, spans: list[Span], size: int) -> Iterator[tuple[list[int], bool]]:
        """
        The places of these spans, at most C{size} at a time; and whether these are the last ones.
        """
        left = sum(high - low for _, low, high in spans)
        positions: list[int] = []
        for array, low, high in spans:
            while low < high:
                until = min(high, low + size - len(positions))
                positions.extend(array[low:until])
                low = until
                if len(positions) == size:
                    left -= size
                    yield positions, not left
                    positions = []
        if positions:
            yield positions, True
