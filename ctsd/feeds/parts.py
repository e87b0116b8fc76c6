"""
Of a feed that asks for it: which of its records contain a value, by a suffix array in the feed's
file. L{ctsd.matching} has the rules; what only equals a value the index of all feeds finds.

Arrays of a feed's file (L{ctsd.feeds.feed_file}), per artifact type: C{parts.<type>.text}, the keys
of its records as C{FF key FF key ... FF}; C{suffixes}, its suffix array; C{starts}, where in the
text the first key of each record is; C{rows}, the numbers of these records, ascending; C{longest},
of a key in bytes and of a value in characters.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from attrs import define, field, frozen

from ctsd import artifacts, matching
from ctsd.feeds.array_file import ArrayFile, ArrayWriter
from ctsd.feeds.section import MARK, Section, is_whole
from ctsd.model import JSON
from ctsd.normal_forms import bare_url, has_scheme

#: The types with rules for parts of a value.
PART_TYPES: Final = matching.PART_TYPES | {"net.ip", "net.uri"}

#: The types whose usual spellings are found by themselves, whatever their case.
_AS_WRITTEN: Final = frozenset({"net.name", "net.uri"})

_PREFIX: Final = "parts."
_NOTHING: Final = memoryview(b"")

#: Values longer than that are not even normalised when no stored one is as long.
_LONG_CHARS: Final = 1 << 16

_UINT32_MAX: Final = (1 << 32) - 1


@define
class _Collected:
    """What is collected of one artifact type."""

    text: bytearray = field(factory=bytearray)
    starts: array[int] = field(factory=lambda: array("Q"))
    rows: array[int] = field(factory=lambda: array("I"))
    longest: array[int] = field(factory=lambda: array("Q", [0, 0]))


class PartsWriter:
    """Collects what records are found by, and writes it. In memory it keeps the text."""

    def __init__(self) -> None:
        self._types: dict[str, _Collected] = {}

    def add(self, row: int, type: str, value: JSON) -> None:
        """Take the next record; nothing happens when its type has no rules for parts."""
        if type not in PART_TYPES:
            return
        keys = artifacts.keys(type, value)
        if not keys:
            return
        collected = self._types.get(type)
        if collected is None:
            collected = self._types[type] = _Collected()
        collected.starts.append(len(collected.text))
        collected.rows.append(row)
        longest = collected.longest
        for key in keys:
            collected.text += MARK
            collected.text += key
            longest[0] = max(longest[0], len(key))
        if isinstance(value, str):
            longest[1] = max(longest[1], len(value))

    def add_usual(self, rows: Iterable[int], type: str, values: Sequence[str]) -> None:
        """Take the next records, which are spelled usually (L{ctsd.feeds.usual})."""
        if type not in _AS_WRITTEN:
            for row, value in zip(rows, values, strict=True):
                self.add(row, type, value)
            return
        collected = self._types.setdefault(type, _Collected())
        keys = [value.lower().encode() for value in values]
        begin = len(collected.text)
        ends = itertools.accumulate([len(MARK) + len(key) for key in keys[:-1]], initial=begin)
        collected.starts.extend(ends)
        collected.rows.extend(rows)
        collected.text += MARK + MARK.join(keys)
        longest = max(map(len, keys))
        for at, one in enumerate(collected.longest):
            collected.longest[at] = max(one, longest)

    def write(self, out: ArrayWriter) -> None:
        """Sort and write: one suffix array at a time, which takes four times its text."""
        # A daemon never needs these.
        import numpy
        from pydivsufsort import divsufsort

        for type in sorted(self._types):
            collected = self._types.pop(type)
            collected.text += MARK

            def put(name: str, data: memoryview, code: str, type: str = type) -> None:
                out.put(f"{_PREFIX}{type}.{name}", data, code)

            put("text", memoryview(collected.text), "B")
            starts = numpy.frombuffer(collected.starts, dtype=numpy.uint64)
            if len(collected.text) <= _UINT32_MAX:
                put("starts", starts.astype(numpy.uint32).data, "I")
            else:
                put("starts", memoryview(collected.starts), "Q")
            put("rows", memoryview(collected.rows), "I")
            put("longest", memoryview(collected.longest), "Q")
            suffixes = divsufsort(numpy.frombuffer(collected.text, dtype=numpy.uint8))
            put("suffixes", suffixes.data, "i" if suffixes.itemsize == 4 else "q")


def part_patterns(type: str, value: JSON, *, longest: int) -> tuple[bytes, ...]:
    """
    What to look for to find what contains a value; nothing when it finds its equal alone.

    :param longest: characters of the longest value that is stored.
    """
    if type not in PART_TYPES or not isinstance(value, str):
        return ()
    if len(value) > max(longest, _LONG_CHARS):
        return ()
    # Most URLs have a scheme: these need no form to be made.
    if type == "net.uri" and has_scheme(bare_url(value)):
        return ()
    return tuple([each for each in artifacts.patterns(type, value) if not is_whole(each)])


@frozen(eq=False)
class Parts:
    """
    The records of one artifact type, by what they contain.

    :ivar longest: characters of the longest value.
    """

    longest: int
    _section: Section
    _rows: memoryview

    def find(self, patterns: Iterable[bytes], *, size: int) -> Iterator[tuple[Sequence[int], bool]]:
        """
        The rows that contain one of L{part_patterns}, in turns that depend on the data alone; and
        whether a turn is the last one. No turn at all: there is none.

        :param size: how many occurrences are looked at in a turn.
        """
        section = self._section
        spans = []
        for pattern in patterns:
            if len(pattern) <= section.longest_key:
                span = section.span(pattern)
                if span is not None:
                    spans.append(span)
        rows = self._rows
        for positions, is_last in section.positions(spans, size):
            yield [rows[at] for at in section.rows(positions)], is_last


def parts_of(file: ArrayFile) -> Mapping[str, Parts]:
    """
    What there is in a feed's file, by artifact type.

    :raises LookupError: an array is missing.
    """
    arrays = file.arrays
    found = {}
    for name in arrays:
        if not (name.startswith(_PREFIX) and name.endswith(".text")):
            continue
        prefix = name.removesuffix("text")
        longest_key, longest_value = arrays[f"{prefix}longest"]
        section = Section(
            whole=file.whole,
            base=file.places[name],
            size=len(arrays[name]),
            hashes=_NOTHING,
            places=_NOTHING,
            salt=0,
            suffixes=arrays[f"{prefix}suffixes"],
            starts=arrays[f"{prefix}starts"],
            payloads=_NOTHING,
            ids=None,
            expiries=None,
            longest_key=longest_key,
            longest_value=longest_value,
        )
        type = prefix.removeprefix(_PREFIX).removesuffix(".")
        found[type] = Parts(longest_value, section, arrays[f"{prefix}rows"])
    return found
