"""
Listed addresses and CIDR ranges of one IP version, in sorted arrays.

A range lies in another one, or beside it, but never across its border. So the ranges are a tree:
each knows the one around it, and all that contain an address are found by one search and a walk
upwards, from the narrowest to the widest.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

from ctsd.indicator_forms import Network

_LOW: Final = (1 << 64) - 1

#: What a range has that is in no other one.
NO_PARENT: Final = -1


@frozen(eq=False)
class Table:
    """
    The networks of one IP version. A network of a table is told by whether it is a range, and by
    its place.

    Addresses of IPv6 are two arrays, of their upper and their lower half; those of IPv4 one.

    :ivar bits: of an address.
    :ivar singles: the addresses, ascending.
    :ivar singles_low: their lower halves.
    :ivar starts: the first addresses of the ranges, ascending; wider ones first.
    :ivar starts_low: their lower halves.
    :ivar prefixes: the ranges' lengths in bits.
    :ivar parents: of each range the last one of those that are equal to each other and lie
        around it most closely; L{NO_PARENT}.
    """

    bits: int
    singles: memoryview
    singles_low: memoryview | None
    starts: memoryview
    starts_low: memoryview | None
    prefixes: memoryview
    parents: memoryview

    @classmethod
    def of(cls, version: int, arrays: Mapping[str, memoryview]) -> Table:
        """The table of this version that a file has; its arrays are called C{v4.singles} etc."""

        def array(name: str) -> memoryview:
            return arrays[f"v{version}.{name}"]

        wide = version == 6
        return cls(
            128 if wide else 32,
            array("singles"),
            array("singles_low") if wide else None,
            array("starts"),
            array("starts_low") if wide else None,
            array("prefixes"),
            array("parents"),
        )

    def equal(self, asked: Network) -> tuple[bool, int, int] | None:
        """
        The networks that equal one: whether they are ranges, and their places from and to; None
        when there are none.
        """
        if asked.prefix == self.bits:
            singles, singles_low = self.singles, self.singles_low
            if singles_low is None:
                at = bisect_left(singles, asked.first)
                if at == len(singles) or singles[at] != asked.first:
                    return None
                return False, at, bisect_right(singles, asked.first, at)
            low, high = _span(singles, singles_low, asked.first)
            return (False, low, high) if low < high else None
        low, high = _span(self.starts, self.starts_low, asked.first)
        low = bisect_left(self.prefixes, asked.prefix, low, high)
        high = bisect_right(self.prefixes, asked.prefix, low, high)
        return (True, low, high) if low < high else None

    def around(self, asked: Network) -> Sequence[tuple[int, int]]:
        """The places, from and to, of equal ranges that contain a network; narrow ones first."""
        address, bits = asked.first, self.bits
        if self.starts_low is None:
            at = bisect_right(self.starts, address) - 1
        else:
            at = _span(self.starts, self.starts_low, address)[1] - 1
        found: list[tuple[int, int]] = []
        while at >= 0:
            prefix = self.prefixes[at]
            start = self._start(at)
            if prefix < asked.prefix and not (start ^ address) >> (bits - prefix):
                first = at
                while first and self.prefixes[first - 1] == prefix:
                    if self._start(first - 1) != start:
                        break
                    first -= 1
                found.append((first, at + 1))
            at = self.parents[at]
        return found

    def inside(self, asked: Network) -> Iterator[tuple[bool, int, int]]:
        """The places of what lies in a range and is narrower: ranges, then addresses."""
        low, same, high = _within(self.starts, self.starts_low, asked)
        # Those that begin with it and are as wide, or wider, come first.
        yield True, bisect_right(self.prefixes, asked.prefix, low, same), high
        low, _, high = _within(self.singles, self.singles_low, asked)
        yield False, low, high

    def _start(self, at: int) -> int:
        high: int = self.starts[at]
        return high if self.starts_low is None else high << 64 | self.starts_low[at]


def _span(
    high: memoryview, low: memoryview | None, address: int, begin: int = 0
) -> tuple[int, int]:
    """
    Where an address stands in a sorted array, from and to; where it would, if it doesn't.

    :param begin: it is not before that.
    """
    # Most are not there, and one look at its place says so: a search less.
    if low is None:
        start = bisect_left(high, address, begin)
        if start == len(high) or high[start] != address:
            return start, start
        return start, bisect_right(high, address, start)
    upper = address >> 64
    start = bisect_left(high, upper, begin)
    if start == len(high) or high[start] != upper:
        return start, start
    end = bisect_right(high, upper, start)
    return (
        bisect_left(low, address & _LOW, start, end),
        bisect_right(low, address & _LOW, start, end),
    )


def _within(high: memoryview, low: memoryview | None, asked: Network) -> tuple[int, int, int]:
    """Where the first address of a network stands, from and to, and where what is in it ends."""
    start, same = _span(high, low, asked.first)
    if same == len(high) or (low is None and high[same] > asked.last):
        return start, same, same
    return start, same, _span(high, low, asked.last, same)[1]


def parents_of(starts: list[int], prefixes: list[int], bits: int) -> list[int]:
    """
    The parents of ranges that are sorted by their start, wider ones first: see L{Table}.

    :param bits: of an address.
    """
    parents: list[int] = []
    # The ranges around the one that is looked at, as their last address, place, start and prefix.
    around: list[tuple[int, int, int, int]] = []
    for at, (start, prefix) in enumerate(zip(starts, prefixes, strict=True)):
        while around and around[-1][0] < start:
            around.pop()
        if around and around[-1][2:] == (start, prefix):
            parents.append(parents[-1])
            around[-1] = (around[-1][0], at, start, prefix)
            continue
        parents.append(around[-1][1] if around else NO_PARENT)
        around.append((start | ((1 << (bits - prefix)) - 1), at, start, prefix))
    return parents
