"""
The indicators of one feed, in a file: its records, and what they are found under.

Arrays of the file (L{ctsd.feeds.array_file}): records lie one after the other behind page 0, and
C{ends} says where each ends; C{expires} is there when one of them has a date. C{hashes}, ascending,
are those of all keys (L{ctsd.feeds.keys}), C{hash_rows} says whose. Networks stand in C{v4.} and
C{v6.} arrays: C{singles} (addresses) with C{single_rows}; C{starts} and C{prefixes} (ranges) with
C{range_rows}; of IPv6 the halves of addresses apart, as C{singles} and C{singles_low}. What most
lookups are settled by (L{ctsd.feeds.first_look}): C{domains}, the marks of all that indicators are
on, and C{v4.hosts}, the addresses that URLs are on, ascending and each once. Of a feed
whose records are found by what they contain, too, there are the arrays of L{ctsd.feeds.parts}.
"""

from __future__ import annotations

import itertools
import math
import time
from array import array
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy
from attrs import asdict, define, evolve, field, frozen

from ctsd import stored
from ctsd.feeds.array_file import PAGE, ArrayFile, ArrayWriter, BadIndex
from ctsd.feeds.keys import address_in, digest_of, domain_mark, domain_of, domains_of, usual_host
from ctsd.feeds.keys import stored as stored_under
from ctsd.feeds.parts import Parts, PartsWriter, parts_of
from ctsd.feeds.usual import UsualLines
from ctsd.indicator_forms import Network
from ctsd.records import Indexed, Line, Record

#: A row's number has 32 bits.
MAX_ROWS: Final = (1 << 32) - 1

_LOW: Final = (1 << 64) - 1


@frozen(kw_only=True)
class FeedAbout:
    """
    What a feed's file says of itself.

    :ivar name: the feed's.
    :ivar label: the digest of the code that made it (L{ctsd.feeds.key_job.key_label}).
    :ivar source: what it was made from, in the words of who had it made.
    :ivar records: how many it holds.
    :ivar skipped: how many could not be used.
    :ivar built: when, POSIX seconds.
    """

    name: str
    label: str = ""
    source: str = ""
    records: int = 0
    skipped: int = 0
    built: float = 0.0


@define
class _Networks:
    """What is collected of one IP version; of an address of IPv6 both halves."""

    singles: array[int]
    starts: array[int]
    singles_low: array[int] = field(factory=lambda: array("Q"))
    starts_low: array[int] = field(factory=lambda: array("Q"))
    single_rows: array[int] = field(factory=lambda: array("I"))
    prefixes: array[int] = field(factory=lambda: array("B"))
    range_rows: array[int] = field(factory=lambda: array("I"))


class FeedWriter:
    """
    Collects the records of a feed and makes a file of them. A context manager: what was not
    L{publish}ed when it ends leaves no file behind. In memory it keeps some 12 bytes a key.

    :ivar records: how many were taken.
    :ivar skipped: how many were not.
    """

    def __init__(
        self, path: Path, *, now: Callable[[], float] = time.time, substring: bool = False
    ) -> None:
        """
        :param path: where the file shall be; its directory must exist.
        :param substring: whether records are found by what they contain, too.
        :raises OSError: it can't be written.
        """
        self._out = ArrayWriter(path)
        self._now = now
        self._ends = array("Q")
        self._expires = array("d")
        self._digests = bytearray()
        self._hash_rows = array("I")
        self._domains = array("I")
        self._hosts = array("I")
        self._v4 = _Networks(array("I"), array("I"))
        self._v6 = _Networks(array("Q"), array("Q"))
        self._parts = PartsWriter() if substring else None
        self.records = 0
        self.skipped = 0

    def __enter__(self) -> FeedWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._out.__exit__(kind, error, traceback)

    def add_all(self, records: Iterable[Record | None]) -> None:
        """Take records; None stands for one that is malformed, and counts as skipped."""
        self.add_lines(map(_line, records))

    def add(self, record: Record) -> bool:
        """
        Take a record.

        :return: whether it could be taken: not when nothing would find it, it can't be encoded,
            or there are too many.
        """
        before = self.records
        self.add_all((record,))
        return self.records > before

    def add_lines(self, lines: Iterable[Line | None]) -> None:
        """Take records; None, and those that can't be taken (L{add}), count as skipped."""
        # A million times: whatever is looked up once is.
        digests, add_hash_row = self._digests, self._hash_rows.append
        add_domain = self._domains.append
        add_end, add_expires = self._ends.append, self._expires.append
        write, parts = self._out.append, self._parts
        for line in lines:
            row = self.records
            if line is None or row >= MAX_ROWS:
                self.skipped += 1
                continue
            type, value, data, expires = line
            keys, network = stored_under(type, value)
            if keys:
                for key in keys:
                    digests += digest_of(key)
                    add_hash_row(row)
                host = usual_host(keys)
                if host is not None:
                    add_domain(domain_mark(domain_of(host)))
                else:
                    for domain in domains_of(keys):
                        add_domain(domain_mark(domain))
                if host is None or host[-1:].isdigit():
                    address = address_in(keys)
                    if address is not None:
                        self._hosts.append(address)
            elif network is None:
                self.skipped += 1
                continue
            if network is not None:
                self._add_network(row, network)
            if parts is not None:
                parts.add(row, type, value)
            add_end(write(data))
            add_expires(math.inf if expires is None else expires)
            self.records = row + 1

    def add_parts(self, parts: Iterable[Iterable[Line]]) -> None:
        """Take records, some at a time (L{ctsd.feeds.parsers.parse.parse_lines})."""
        for part in parts:
            if isinstance(part, UsualLines) and self.records + len(part) <= MAX_ROWS:
                self._add_usual(part)
            else:
                self.add_lines(part)

    def _add_usual(self, lines: UsualLines) -> None:
        """What L{add_lines} does with each of them, column by column."""
        found, count = lines.found, len(lines)
        rows = range(self.records, self.records + count)
        self._digests += b"".join(map(digest_of, found.keys))
        numbers = numpy.arange(self.records, self.records + count, dtype=numpy.uint32)
        self._hash_rows.frombytes(numpy.repeat(numbers, len(found.keys) // count).tobytes())
        self._domains.extend(map(domain_mark, found.domains))
        self._hosts.extend(found.hosts)
        table = self._v4
        if found.addresses:
            table.singles.extend(found.addresses)
            table.singles_low.extend(found.addresses)
            table.single_rows.extend(rows)
        if found.ranges:
            starts, prefixes = zip(*found.ranges, strict=True)
            table.starts.extend(starts)
            table.starts_low.extend(starts)
            table.prefixes.extend(prefixes)
            table.range_rows.extend(rows)
        if self._parts is not None:
            self._parts.add_usual(rows, lines.type, lines.values)
        data = b"".join(lines.data)
        begin = self._out.append(data) - len(data)
        self._ends.extend([begin + end for end in itertools.accumulate(map(len, lines.data))])
        self._expires += array("d", [math.inf]) * count
        self.records += count

    def _add_network(self, row: int, network: Network) -> None:
        if network.version == 4:
            table, high = self._v4, network.first
        else:
            table, high = self._v6, network.first >> 64
        if network.is_single:
            table.singles.append(high)
            table.singles_low.append(network.first & _LOW)
            table.single_rows.append(row)
        else:
            table.starts.append(high)
            table.starts_low.append(network.first & _LOW)
            table.prefixes.append(network.prefix)
            table.range_rows.append(row)

    def about(self, about: FeedAbout) -> FeedAbout:
        """What the file would say of itself, with what was counted until now."""
        return evolve(about, records=self.records, skipped=self.skipped, built=self._now())

    def publish(self, about: FeedAbout) -> FeedAbout:
        """
        Sort, write, and put the file in its place: durable, and at once whole for everybody.

        :param about: its C{records}, C{skipped} and C{built} are set here.
        :return: what the file says of itself.
        """
        about = self.about(about)
        put = self._out.put
        put("ends", memoryview(self._ends), "Q")
        if not all(map(math.isinf, self._expires)):
            put("expires", memoryview(self._expires), "d")
        hashes = numpy.frombuffer(self._digests, dtype="<u8").astype(numpy.uint64, copy=False)
        order = numpy.argsort(hashes, kind="stable")
        put("hashes", hashes[order].data, "Q")
        put("hash_rows", numpy.frombuffer(self._hash_rows, dtype=numpy.uint32)[order].data, "I")
        put("domains", numpy.unique(numpy.frombuffer(self._domains, dtype=numpy.uint32)).data, "I")
        put("v4.hosts", numpy.unique(numpy.frombuffer(self._hosts, dtype=numpy.uint32)).data, "I")
        for version, table in ((4, self._v4), (6, self._v6)):
            for name in ("singles", "single_rows", "starts", "prefixes", "range_rows"):
                column: array[int] = getattr(table, name)
                put(f"v{version}.{name}", memoryview(column), column.typecode)
        put("v6.singles_low", memoryview(self._v6.singles_low), "Q")
        put("v6.starts_low", memoryview(self._v6.starts_low), "Q")
        if self._parts is not None:
            self._parts.write(self._out)
        self._out.publish(asdict(about))
        return about


def _line(record: Record | None) -> Line | None:
    """A record as its file keeps it; None for one that can't be encoded."""
    if record is None:
        return None
    try:
        data = b"%b\n%b" % (record.type.encode(), stored.encode_record(record))
    except ValueError:
        return None
    return record.type, record.value, data, record.expires


@frozen(eq=False)
class FeedFile:
    """
    An open feed's file.

    :ivar about: what it says of itself.
    :ivar file: its arrays.
    :ivar parts: by artifact type: its records, by what they contain; usually nothing.
    """

    about: FeedAbout
    file: ArrayFile
    parts: Mapping[str, Parts]
    _ends: memoryview
    _expires: memoryview | None

    @classmethod
    def open(cls, path: Path, *, whole: bool = True) -> FeedFile:
        """
        See L{ArrayFile.open}.

        :raises BadIndex: it is damaged or of another format.
        :raises OSError: it can't be read.
        """
        file = ArrayFile.open(path, whole=whole)
        try:
            about = FeedAbout(**file.about)
            arrays = file.arrays
            return cls(about, file, parts_of(file), arrays["ends"], arrays.get("expires"))
        except (LookupError, TypeError, ValueError) as error:
            file.close()
            raise BadIndex("its directory is wrong") from error

    def is_expired(self, row: int, now: float) -> bool:
        """Whether a record's time is over."""
        return self._expires is not None and self._expires[row] <= now

    def record(self, row: int) -> Indexed:
        """A record, by its number."""
        start = self._ends[row - 1] if row else PAGE
        type, _, line = self.file.read(start, self._ends[row]).partition(b"\n")
        return stored.decode_indexed(type.decode(), line)

    def close(self) -> None:
        """Unmap; see L{ArrayFile.close}."""
        self.file.close()
