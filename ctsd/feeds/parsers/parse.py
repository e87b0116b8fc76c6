"""
A file, parsed: the way in to all that is beside this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, TypeVar

from ctsd.feeds.job import Refused
from ctsd.feeds.layout import CSV, JSONL, LINES, MISP, WARNINGLIST, Layout
from ctsd.feeds.parsers.columns import usual_rows
from ctsd.feeds.parsers.documents import read_documents
from ctsd.feeds.parsers.making import LeftOut, Maker, Refusal
from ctsd.feeds.parsers.rows import Rows, read_lines, read_tables
from ctsd.feeds.parsers.tables import BadRow, Row
from ctsd.feeds.parsers.tally import Tally
from ctsd.feeds.parsers.unpacking import Unpacked, unpacked
from ctsd.feeds.usual import UsualLines
from ctsd.feeds.warninglists import is_indexed, read_warninglist, records_of
from ctsd.records import Line, Record

_T = TypeVar("_T")

_BY_LINE: Final = (CSV, LINES, JSONL)


def rows_in(path: Path, layout: Layout, *, max_bytes: int) -> Rows:
    """
    The rows of a file as its provider sends it.

    :param max_bytes: of what is in it, unpacked.
    :raises OSError: it can't be read.
    :raises ctsd.feeds.job.Refused: it is broken, or too large, or not in this format.
    """
    read = read_lines if layout.format in _BY_LINE else read_documents
    with _streams(path, layout, max_bytes=max_bytes) as streams:
        for stream in streams:
            yield from read(stream, layout)


def _streams(
    path: Path, layout: Layout, *, max_bytes: int
) -> AbstractContextManager[Iterator[Unpacked]]:
    member = layout.member or ("*.json" if layout.format == MISP else "")
    return unpacked(path, max_bytes=max_bytes, member=member)


def parse(
    path: Path,
    layout: Layout,
    *,
    title: str,
    credit: str = "",
    now: float,
    max_bytes: int,
    tally: Tally,
    shows: bool = True,
) -> Iterator[Record]:
    """
    The records of a file as its provider sends it. Rows that can't be used are counted and passed
    over; whether there are too many of them is for the caller to say.

    :param title: what hits call the feed; the threat's name where the layout has no template.
    :param credit: whom hits name; empty: nobody.
    :param now: POSIX seconds.
    :param max_bytes: of what is in it, unpacked.
    :param tally: is told what became of each row.
    :param shows: see L{Maker}.
    :raises OSError: it can't be read.
    :raises ctsd.feeds.job.Refused: it is broken, or too large, or not in this format.
    """
    if layout.format == WARNINGLIST:
        yield from _entries(path, layout, max_bytes=max_bytes, tally=tally)
        return
    make = Maker(layout, title=title, credit=credit, now=now, shows=shows).make
    yield from _made(rows_in(path, layout, max_bytes=max_bytes), make, tally)


def parse_lines(
    path: Path,
    layout: Layout,
    *,
    title: str,
    credit: str = "",
    now: float,
    max_bytes: int,
    tally: Tally,
) -> Iterator[Iterable[Line]]:
    """
    The records of a file that is no warninglist, as an index keeps them; see L{parse}. They come
    in parts, each of which is to be read before the next one: those of usual rows as
    L{UsualLines}.
    """
    make = Maker(layout, title=title, credit=credit, now=now).make_lines
    usual = usual_rows(layout, title=title, credit=credit)
    if usual is None:
        yield _made(rows_in(path, layout, max_bytes=max_bytes), make, tally)
        return
    with _streams(path, layout, max_bytes=max_bytes) as streams:
        for stream in streams:
            for table in read_tables(stream, layout):
                if isinstance(table, BadRow):
                    yield _made(iter((table,)), make, tally)
                    continue
                for part in usual.parts(table):
                    if isinstance(part, UsualLines):
                        tally.rows += len(part)
                        tally.records += len(part)
                        yield part
                    else:
                        yield _made(map(table.row, part), make, tally)


def _made(
    rows: Rows, make: Callable[[Row], tuple[_T, ...] | Refusal[_T] | LeftOut], tally: Tally
) -> Iterator[_T]:
    for row in rows:
        tally.rows += 1
        if isinstance(row, BadRow):
            note = tally.leave_out if row.is_sound else tally.refuse
            note(row.reason, row.text)
            continue
        made = make(row)
        if not isinstance(made, tuple):
            text = row.get("line", row)
            if isinstance(made, LeftOut):
                tally.leave_out(made.reason, text)
                continue
            tally.refuse(made.reason, text)
            made = made.records
        tally.records += len(made)
        yield from made


def _entries(path: Path, layout: Layout, *, max_bytes: int, tally: Tally) -> Iterator[Record]:
    """The entries of a warninglist; of one of patterns they are only counted."""
    # All of it is in memory at once: it counts as a row.
    limit = (layout.row_limit, "max_row_bytes")
    most, named = min((max_bytes, "max_unpacked_bytes, max_ratio"), limit)
    with unpacked(path, max_bytes=most, named=named, member=layout.member) as streams:
        data = b"".join(iter(next(streams).read, b""))
    try:
        listed = read_warninglist(data)
    except ValueError as error:
        raise Refused(f"it is no warninglist: {error}") from error
    made: Iterator[Record | None] = records_of(listed) if is_indexed(listed) else iter(())
    for entry in listed.entries:
        tally.rows += 1
        record = next(made, None)
        if record is None and is_indexed(listed):
            tally.refuse("is no entry of such a list", entry)
            continue
        tally.records += 1
        if record is not None:
            yield record
