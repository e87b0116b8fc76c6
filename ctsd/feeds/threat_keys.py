"""
What the local database's threats are found by beyond their text: the normal forms, derived keys
and networks that feeds have (L{ctsd.feeds.keys}, L{ctsd.feeds.networks}).

Arrays: C{keys}, ascending, the hashes of all keys, with C{key_rows}: where each one's row is; of
networks what L{Table} has, with C{single_rows} and C{range_rows}. A row is told by a number of the
caller's.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

from ctsd.feeds.keys import URL, hash_of, stored
from ctsd.feeds.lookups import (
    Hashed,
    IsShared,
    Registered,
    how_found,
    inside_of,
    looks_inside,
    may_show,
)
from ctsd.feeds.networks import Table, parents_of
from ctsd.indicator_forms import Network
from ctsd.model import JSON

#: The hashes of the keys, and the network, that an indicator is found by.
FoundBy = tuple[tuple[int, ...], Network | None]

_LOW: Final = (1 << 64) - 1


def found_by(type: str, value: JSON) -> FoundBy:
    """What an indicator is found by."""
    keys, network = stored(type, value)
    return tuple(map(hash_of, keys)), network


class KeysWriter:
    """Collects keys and networks."""

    def __init__(self) -> None:
        self._keys: list[tuple[int, int]] = []
        self._networks: dict[int, list[tuple[int, int, int]]] = {4: [], 6: []}

    def add(self, row: int, found: FoundBy) -> None:
        """
        Take what an indicator of this row is found by.

        :param found: what L{found_by} says of it.
        """
        hashes, network = found
        for each in hashes:
            self._keys.append((each, row))
        if network is not None:
            self._networks[network.version].append((network.first, network.prefix, row))

    def arrays(self) -> dict[str, array[int]]:
        """All that was collected, sorted; by its name."""
        self._keys.sort()
        arrays = {
            "keys": array("Q", [each[0] for each in self._keys]),
            "key_rows": array("Q", [each[1] for each in self._keys]),
        }
        for version, bits, code in ((4, 32, "I"), (6, 128, "Q")):
            networks = sorted(self._networks[version])
            singles = [each for each in networks if each[1] == bits]
            ranges = [each for each in networks if each[1] != bits]
            starts = [each[0] for each in ranges]
            prefixes = [each[1] for each in ranges]
            found = {
                "singles": _upper(singles, code),
                "single_rows": array("Q", [each[2] for each in singles]),
                "starts": _upper(ranges, code),
                "prefixes": array("B", prefixes),
                "parents": array("i", parents_of(starts, prefixes, bits)),
                "range_rows": array("Q", [each[2] for each in ranges]),
            }
            if version == 6:
                found["singles_low"] = array("Q", [each[0] & _LOW for each in singles])
                found["starts_low"] = array("Q", [each[0] & _LOW for each in ranges])
            arrays.update({f"v{version}.{name}": column for name, column in found.items()})
        return arrays


def _upper(networks: Iterable[tuple[int, int, int]], code: str) -> array[int]:
    shift = 64 if code == "Q" else 0
    return array(code, [each[0] >> shift for each in networks])


@frozen(eq=False)
class Span:
    """
    Rows that a lookup has found.

    :ivar how: how they follow from the artifact; empty when they equal it.
    :ivar key: what was looked for.
    """

    rows: Sequence[int]
    how: str
    key: bytes | Network
    _note: str = ""

    def confirmed(self, type: str, value: JSON) -> str | None:
        """
        How an indicator of one of these rows was found; None when it is not the one: its hash
        alone is that of the key, or another one of its row was found.
        """
        keys, network = stored(type, value)
        if isinstance(self.key, bytes):
            if self.key not in keys:
                return None
            return how_found(self.how, self._note, value) if self.key[:1] == URL else self.how
        if network is None or not (network.covers(self.key) or self.key.covers(network)):
            return None
        return self.how


class Keys:
    """Searches what a L{KeysWriter} has collected."""

    def __init__(self, arrays: Mapping[str, memoryview]) -> None:
        self._keys = arrays["keys"]
        self._key_rows = arrays["key_rows"]
        self._tables = {version: Table.of(version, arrays) for version in (4, 6)}
        self._rows = {
            (version, is_range): arrays[f"v{version}.{'range' if is_range else 'single'}_rows"]
            for version in (4, 6)
            for is_range in (False, True)
        }

    def find(
        self, asked: Iterable[Hashed], registered: Registered, is_shared: IsShared
    ) -> list[Span]:
        """
        The rows that these lookups find, in their order. A lookup costs the same whatever the
        number of rows.

        :param registered: see L{ctsd.feeds.key_index.KeyIndex.open}; C{is_shared} likewise.
        """
        found: list[Span] = []
        keys = self._keys
        for wanted, (key, how, note) in asked:
            if not isinstance(key, bytes):
                found += self._of_network(key, how, note)
                continue
            at = bisect_left(keys, wanted)
            if at == len(keys) or keys[at] != wanted:
                continue
            if may_show(key, note, registered, is_shared):
                end = bisect_right(keys, wanted, at)
                found.append(Span(self._key_rows[at:end], how, key, note))
        return found

    def _of_network(self, asked: Network, how: str, wider: str) -> Iterator[Span]:
        table, version = self._tables[asked.version], asked.version
        equal = table.equal(asked)
        if equal is not None:
            is_range, low, high = equal
            yield Span(self._rows[version, is_range][low:high], how, asked)
        for low, high in table.around(asked):
            yield Span(self._rows[version, True][low:high], wider, asked)
        if looks_inside(asked):
            for is_range, low, high in table.inside(asked):
                if low < high:
                    yield Span(self._rows[version, is_range][low:high], inside_of(how), asked)


class NewKeys:
    """
    The same as a L{KeysWriter} and its L{Keys}, for some thousand rows to which others come all
    the time: nothing has to be sorted before it can be searched.
    """

    def __init__(self) -> None:
        self._keys: dict[int, list[int]] = {}
        self._networks: dict[Network, list[int]] = {}
        # By version: how many bits the networks that there are have.
        self._prefixes: dict[int, set[int]] = {4: set(), 6: set()}

    def add(self, row: int, found: FoundBy) -> None:
        """Take what an indicator of this row is found by: see L{found_by}."""
        hashes, network = found
        for each in hashes:
            self._keys.setdefault(each, []).append(row)
        if network is not None:
            self._networks.setdefault(network, []).append(row)
            self._prefixes[network.version].add(network.prefix)

    def find(
        self, asked: Iterable[Hashed], registered: Registered, is_shared: IsShared
    ) -> list[Span]:
        """See L{Keys.find}. A range as artifact is compared with each network that there is."""
        found: list[Span] = []
        for wanted, (key, how, note) in asked:
            if not isinstance(key, bytes):
                if self._networks:
                    found += self._of_network(key, how, note)
                continue
            rows = self._keys.get(wanted)
            if rows is not None and may_show(key, note, registered, is_shared):
                found.append(Span(rows, how, key, note))
        return found

    def _of_network(self, asked: Network, how: str, wider: str) -> Iterator[Span]:
        version, bits = asked.version, asked.bits
        for prefix in sorted(self._prefixes[version], reverse=True):
            if prefix <= asked.prefix:
                first = asked.first >> (bits - prefix) << (bits - prefix)
                rows = self._networks.get(Network(version, first, prefix))
                if rows is not None:
                    yield Span(rows, how if prefix == asked.prefix else wider, asked)
        if looks_inside(asked):
            for network, rows in self._networks.items():
                if network.prefix > asked.prefix and asked.covers(network):
                    yield Span(rows, inside_of(how), asked)
