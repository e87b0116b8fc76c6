"""
The keys and networks of all feeds in one file, so that a lookup costs the same whatever the number
of feeds and rows. It is merged from the feeds' files (L{ctsd.feeds.feed_file}) whenever one of them
has changed: in linear time, and with little memory.

Arrays: C{hashes}, ascending, with C{hash_feeds} and C{hash_rows}: where each one's record is;
C{buckets}: where in them the hashes begin whose upper bits are a given number. Of networks, in
C{v4.} and C{v6.} arrays, what L{ctsd.feeds.networks.Table} has, and C{single_feeds},
C{single_rows}, C{range_feeds}, C{range_rows}. Equal ones are in the feeds' order, then the rows'.
Beside them, what L{ctsd.feeds.first_look} has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy
from attrs import asdict

from ctsd.feeds.array_file import ArrayWriter
from ctsd.feeds.feed_file import FeedFile
from ctsd.feeds.first_look import write_blocks, write_domains
from ctsd.feeds.marks import Marks, power_of
from ctsd.feeds.networks import parents_of

#: About so many hashes are in one bucket, so a search has three or four steps.
_IN_BUCKET: Final = 8

#: So many hashes are sorted in one go.
_PART: Final = 1 << 20

_Array = numpy.ndarray[Any, Any]


def merge(target: Path, feeds: Mapping[str, FeedFile]) -> None:
    """
    Merge the files of feeds.

    :param target: where the result shall be. It names the feeds' files, which must lie beside it.
    :param feeds: the open files, by their names.
    :raises OSError: the result can't be written.
    """
    files = list(feeds.values())
    with ArrayWriter(target) as out:
        shift, keys = _merge_hashes(out, files)
        for version in (4, 6):
            _merge_singles(out, files, version)
            _merge_ranges(out, files, version)
        domains = write_domains(out, _joined(_there(files, "domains", numpy.uint32)))
        blocks = write_blocks(
            out,
            points=_joined(
                [
                    *_there(files, "v4.singles", numpy.uint32),
                    *_there(files, "v4.hosts", numpy.uint32),
                ]
            ),
            starts=_joined(_there(files, "v4.starts", numpy.uint32)),
            prefixes=_joined(_there(files, "v4.prefixes", numpy.uint8)),
        )
        named = [
            {"file": name, "identity": feed.file.identity, "about": asdict(feed.about)}
            for name, feed in feeds.items()
        ]
        out.publish(
            {"shift": shift, "keys": keys, "domains": domains, "blocks": blocks, "feeds": named}
        )


def _column(feed: FeedFile, name: str, kind: type[numpy.generic]) -> _Array:
    return numpy.frombuffer(feed.file.arrays[name], dtype=kind)


def _there(feeds: Sequence[FeedFile], name: str, kind: type[numpy.generic]) -> list[_Array]:
    """The columns of the files that have one: older ones, which are not searched, may not."""
    return [_column(feed, name, kind) for feed in feeds if name in feed.file.arrays]


def _owners(columns: Sequence[_Array]) -> _Array:
    """The number of the feed that each element of these columns, put together, is from."""
    numbers = numpy.arange(len(columns), dtype=numpy.uint16)
    return numpy.repeat(numbers, [len(column) for column in columns])


def _merge_hashes(out: ArrayWriter, feeds: Sequence[FeedFile]) -> tuple[int, int]:
    """
    :return: how many lower bits of a hash don't matter to the choice of its bucket, and what a
        L{ctsd.feeds.first_look.FirstLook} wants to know of C{keys}.
    """
    hashes = [_column(feed, "hashes", numpy.uint64) for feed in feeds]
    rows = [_column(feed, "hash_rows", numpy.uint32) for feed in feeds]
    count = sum(map(len, hashes))
    bits = max(count // _IN_BUCKET, 1).bit_length()
    shift = 64 - bits
    hashes_at = out.room("hashes", count * 8, "Q")
    feeds_at = out.room("hash_feeds", count * 2, "H")
    rows_at = out.room("hash_rows", count * 4, "I")
    sizes = numpy.zeros((1 << bits) + 1, dtype=numpy.int64)
    marks = Marks(power_of(count))
    parts = max(count // _PART, 1)
    bounds = [(part << 64) // parts for part in range(1, parts)]
    cuts = [
        [0, *numpy.searchsorted(each, numpy.array(bounds, numpy.uint64)).tolist(), len(each)]
        for each in hashes
    ]
    for part in range(parts):
        slices = [slice(cut[part], cut[part + 1]) for cut in cuts]
        some = [each[at] for each, at in zip(hashes, slices, strict=True)]
        if not any(map(len, some)):
            continue
        together = numpy.concatenate(some)
        # Stable: of equal hashes the feeds' order stays, and within it that of the rows.
        order = numpy.argsort(together, kind="stable")
        together = together[order]
        owners = _owners(some)[order]
        of_rows = numpy.concatenate([each[at] for each, at in zip(rows, slices, strict=True)])
        marks.add(together)
        out.write(hashes_at, together.data)
        out.write(feeds_at, owners.data)
        out.write(rows_at, of_rows[order].data)
        hashes_at += together.nbytes
        feeds_at += owners.nbytes
        rows_at += together.size * 4
        buckets, found = numpy.unique(together >> numpy.uint64(shift), return_counts=True)
        sizes[buckets.astype(numpy.int64) + 1] += found
    out.put("buckets", numpy.cumsum(sizes).astype(numpy.uint32).data, "I")
    out.put("keys", marks.bits.data, "B")
    return shift, marks.power


def _merge_singles(out: ArrayWriter, feeds: Sequence[FeedFile], version: int) -> None:
    def columns(name: str, kind: type[numpy.generic]) -> list[_Array]:
        return [_column(feed, f"v{version}.{name}", kind) for feed in feeds]

    wide = version == 6
    parts = columns("singles", numpy.uint64 if wide else numpy.uint32)
    singles = _joined(parts)
    if wide:
        low = _joined(columns("singles_low", numpy.uint64))
        order = numpy.lexsort((low, singles))
        out.put("v6.singles_low", low[order].data, "Q")
    else:
        order = numpy.argsort(singles, kind="stable")
    out.put(f"v{version}.singles", singles[order].data, "Q" if wide else "I")
    out.put(f"v{version}.single_feeds", _owners(parts)[order].data, "H")
    rows = _joined(columns("single_rows", numpy.uint32))
    out.put(f"v{version}.single_rows", rows[order].data, "I")


def _merge_ranges(out: ArrayWriter, feeds: Sequence[FeedFile], version: int) -> None:
    def columns(name: str, kind: type[numpy.generic]) -> list[_Array]:
        return [_column(feed, f"v{version}.{name}", kind) for feed in feeds]

    wide = version == 6
    parts = columns("starts", numpy.uint64 if wide else numpy.uint32)
    starts = _joined(parts)
    prefixes = _joined(columns("prefixes", numpy.uint8))
    if wide:
        low = _joined(columns("starts_low", numpy.uint64))
        order = numpy.lexsort((prefixes, low, starts))
        low = low[order]
        out.put("v6.starts_low", low.data, "Q")
        halves = zip(starts[order].tolist(), low.tolist(), strict=True)
        whole = [high << 64 | lower for high, lower in halves]
    else:
        order = numpy.lexsort((prefixes, starts))
        whole = starts[order].tolist()
    prefixes = prefixes[order]
    parents = parents_of(whole, prefixes.tolist(), 128 if wide else 32)
    out.put(f"v{version}.starts", starts[order].data, "Q" if wide else "I")
    out.put(f"v{version}.prefixes", prefixes.data, "B")
    out.put(f"v{version}.parents", numpy.array(parents, dtype=numpy.int32).data, "i")
    out.put(f"v{version}.range_feeds", _owners(parts)[order].data, "H")
    rows = _joined(columns("range_rows", numpy.uint32))
    out.put(f"v{version}.range_rows", rows[order].data, "I")


def _joined(parts: Sequence[_Array]) -> _Array:
    """Columns put together."""
    return numpy.concatenate(parts) if parts else numpy.zeros(0, dtype=numpy.uint64)
