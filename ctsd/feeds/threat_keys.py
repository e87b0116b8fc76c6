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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

from ctsd.feeds.keys import HOST, ON_HOST, URL, hash_of, stored
from ctsd.feeds.lookups import INSIDE, Lookup, how_found, looks_inside
from ctsd.feeds.networks import Table, parents_of
from ctsd.indicator_forms import Network
from ctsd.model import JSON

#: The hashes of the keys, and the network, that an indicator is found by.
FoundBy = tuple[tuple[int, ...], Network | None]

#: The domain that somebody has registered, of a host; whether many share a host.
Registered = Callable[[str], str | None]
IsShared = Callable[[str], bool]

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
class Candidate:
    """
    A row that a lookup has found.

    :ivar how: how it follows from the artifact; empty when it equals it.
    :ivar key: what was looked for.
    """

    row: int
    how: str
    key: bytes | Network
    _note: str

    def confirmed(self, type: str, value: JSON) -> str | None:
        """
        How an indicator of this row was found; None when it is not the one: its hash alone is
        that of the key, or another one of its row was found.
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
        self, asked: Sequence[Lookup], registered: Registered, is_shared: IsShared
    ) -> Iterator[Candidate]:
        """
        The rows that these lookups find, in their order. A lookup costs the same whatever the
        number of rows.

        :param registered: see L{ctsd.feeds.key_index.KeyIndex.open}; C{is_shared} likewise.
        """
        keys, rows = self._keys, self._key_rows
        for key, how, note in asked:
            if not isinstance(key, bytes):
                yield from self._of_network(key, how, note)
                continue
            wanted = hash_of(key)
            at = bisect_left(keys, wanted)
            if at == len(keys) or keys[at] != wanted:
                continue
            if not _may_show(key, note, registered, is_shared):
                continue
            for place in range(at, bisect_right(keys, wanted, at)):
                yield Candidate(rows[place], how, key, note)

    def _of_network(self, asked: Network, how: str, wider: str) -> Iterator[Candidate]:
        table, version = self._tables[asked.version], asked.version

        def rows(is_range: bool, low: int, high: int, how: str) -> Iterator[Candidate]:
            for row in self._rows[version, is_range][low:high]:
                yield Candidate(row, how, asked, "")

        equal = table.equal(asked)
        if equal is not None:
            yield from rows(*equal, how)
        for low, high in table.around(asked):
            yield from rows(True, low, high, wider)
        if looks_inside(asked):
            for is_range, low, high in table.inside(asked):
                yield from rows(is_range, low, high, f"{INSIDE} ({how})" if how else INSIDE)


def _may_show(key: bytes, note: str, registered: Registered, is_shared: IsShared) -> bool:
    """See L{ctsd.feeds.key_index.KeyIndex}: no public suffix, and no host that many share."""
    host = key[1:].decode("utf-8", "surrogatepass")
    if key[:1] == HOST and note:
        domain = registered(note)
        return domain is not None and f".{host}".endswith(f".{domain}")
    return key[:1] != ON_HOST or not is_shared(host)
