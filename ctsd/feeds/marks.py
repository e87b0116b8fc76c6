"""
Sets of numbers as bits: small ones that say "certainly not" at one look into memory.

A set has two to the power of some number of bits, about C{_ROOM} for each of its members. A number
is marked by its upper bits, so that another one with the same upper bits seems to be there, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy

#: At least so many bits for each member.
_ROOM: Final = 16

#: The fewest and the most bits, as powers of two: at most 32 MiB.
_LEAST: Final = 10
_MOST: Final = 28

#: So many bits are made in one go.
_PART: Final = 1 << 20

_Array = numpy.ndarray[Any, Any]


def power_of(members: int, *, least: int = _LEAST, most: int = _MOST) -> int:
    """How many bits a set of so many members has, as a power of two."""
    return min(max((_ROOM * members).bit_length(), least), most)


class Marks:
    """
    A set that is made in pieces.

    :ivar bits: its bytes.
    """

    def __init__(self, power: int) -> None:
        """
        :param power: see L{power_of}.
        """
        self.power = power
        self.bits: _Array = numpy.zeros(1 << (power - 3), dtype=numpy.uint8)

    def add(self, numbers: _Array) -> None:
        """
        Mark numbers of 64 bits by their upper ones.

        :param numbers: ascending, C{uint64}; between the first and the last the less memory is
            needed the closer they are.
        """
        self.add_places(numbers >> numpy.uint64(64 - self.power))

    def add_places(self, places: _Array) -> None:
        """Set bits, which are given in ascending order; see L{add}."""
        if not len(places):
            return
        begin, end = int(places[0]) >> 3, (int(places[-1]) >> 3) + 1
        flags = numpy.zeros((end - begin) << 3, dtype=bool)
        flags[places.astype(numpy.int64) - (begin << 3)] = True
        self.bits[begin:end] |= numpy.packbits(flags, bitorder="little")


def marked(places: _Array, power: int) -> _Array:
    """
    The bytes of a set.

    :param places: of the bits that are set; less than two to the C{power}th.
    """
    places = numpy.sort(places.astype(numpy.int64))
    marks = Marks(power)
    for low, length in _parts(power):
        begin, end = numpy.searchsorted(places, (low, low + length))
        marks.add_places(places[begin:end])
    return marks.bits


def spans_marked(first: _Array, last: _Array, power: int) -> _Array:
    """The bytes of a set, where the bits are set from each of C{first} to its C{last}."""
    starts = numpy.sort(first.astype(numpy.int64))
    ends = numpy.sort(last.astype(numpy.int64)) + 1
    # How many spans are open as a part begins.
    are_open = 0
    parts = []
    for low, length in _parts(power):
        begun, ended = _counted(starts, low, length), _counted(ends, low, length)
        if begun is None and ended is None and not are_open:
            parts.append(numpy.zeros(length >> 3, dtype=numpy.uint8))
            continue
        depth = numpy.zeros(length, dtype=numpy.int64)
        depth += 0 if begun is None else begun
        depth -= 0 if ended is None else ended
        numpy.cumsum(depth, out=depth)
        depth += are_open
        are_open = int(depth[-1])
        parts.append(numpy.packbits(depth > 0, bitorder="little"))
    return numpy.concatenate(parts)


def _parts(power: int) -> Iterator[tuple[int, int]]:
    """Where the parts begin, and their lengths."""
    size = 1 << power
    return ((low, min(_PART, size - low)) for low in range(0, size, _PART))


def _counted(places: _Array, low: int, length: int) -> _Array | None:
    """How many of the sorted places are each of these; None when they are others."""
    begin, end = numpy.searchsorted(places, (low, low + length))
    if begin == end:
        return None
    return numpy.bincount(places[begin:end] - low, minlength=length)


def is_marked(bits: memoryview, place: int) -> bool:
    """Whether a bit is set."""
    return bool(bits[place >> 3] >> (place & 7) & 1)


def none_marked(bits: memoryview, first: int, last: int) -> bool:
    """Whether no bit is set from one to another."""
    begin, end = first >> 3, last >> 3
    if begin == end:
        # The usual case: so few that they are in one byte.
        mask = (2 << (last - first)) - 1 << (first & 7)
        return not bits[begin] & mask
    found = int.from_bytes(bits[begin : end + 1], "little") >> (first & 7)
    return not found & (2 << (last - first)) - 1
