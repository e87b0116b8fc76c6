"""
The rows of a file, one by one: C{csv}, C{lines} and C{jsonl}, of which each line is a row.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Final

import msgspec

from ctsd.feeds.job import Refused
from ctsd.feeds.layout import CSV, LINES, Layout
from ctsd.feeds.layout_rules import compiled
from ctsd.feeds.parsers.tables import (
    BadRow,
    FieldsTable,
    LinesTable,
    ObjectsTable,
    Row,
    Table,
)
from ctsd.feeds.parsers.unpacking import Unpacked

#: What readers give.
Rows = Iterator[Row | BadRow]

#: What those of files give whose lines are rows.
Tables = Iterator[Table | BadRow]

_READ_BYTES: Final = 64 << 10

TOO_LONG: Final = "is longer than max_row_bytes"

#: A row that nobody should see as a number that Python can't make of it.
_BROKEN_JSON: Final = (ValueError, RecursionError)

_decode: Final = msgspec.json.Decoder().decode


def lines_of(source: Unpacked, *, encoding: str, limit: int) -> Iterator[list[str] | BadRow]:
    """
    The lines of a text, without their ends, some at a time; of one that is too long only the begin
    is kept.

    :param limit: bytes of a line.
    :raises Refused: see L{Unpacked}.
    """
    decode = codecs.getdecoder(encoding)
    rest = b""
    dropped = first = b""
    too_long = False

    def lines(pieces: list[bytes]) -> list[str]:
        # A line's end is never a part of another character.
        text = decode(b"\n".join(pieces), "replace")[0]
        if "\r" not in text:
            return text.split("\n")
        return [line.rstrip("\r") for line in text.split("\n")]

    while data := source.read(_READ_BYTES):
        if not first:
            first = data
            if data.startswith(codecs.BOM_UTF8):
                data = data[len(codecs.BOM_UTF8) :]
        pieces = (rest + data).split(b"\n")
        rest = pieces.pop()
        if pieces and not too_long and len(max(pieces, key=len)) <= limit:
            yield lines(pieces)
            pieces = []
        for piece in pieces:
            if too_long or len(piece) > limit:
                begin, dropped, too_long = dropped or piece[:200], b"", False
                yield BadRow(TOO_LONG, decode(begin, "replace")[0])
            else:
                yield lines([piece])
        if len(rest) > limit:
            dropped = dropped or rest[:200]
            too_long, rest = True, b""
    if too_long:
        yield BadRow(TOO_LONG, decode(dropped, "replace")[0])
    elif rest:
        yield lines([rest])


def read_lines(source: Unpacked, layout: Layout) -> Rows:
    """The rows of a file whose lines are its rows."""
    for part in read_tables(source, layout):
        if isinstance(part, BadRow):
            yield part
        else:
            yield from part.rows()


def read_tables(source: Unpacked, layout: Layout) -> Tables:
    """
    The same rows, some at a time: what was read in one go.
    """
    parts = _wanted(source, layout)
    if layout.format == CSV:
        yield from _csv(parts, layout)
        return
    read = _line(layout)
    for part in parts:
        if isinstance(part, BadRow):
            yield part
        elif layout.format == LINES:
            yield LinesTable(read, part)
        else:
            yield from _tables([*map(_object, part)], ObjectsTable)


def _tables(rows: Sequence[Any], table: Callable[[Sequence[Any]], Table]) -> Tables:
    """Rows among which there may be bad ones."""
    for is_bad, some in groupby(rows, lambda row: isinstance(row, BadRow)):
        if is_bad:
            yield from some
        else:
            yield table([*some])


def _wanted(source: Unpacked, layout: Layout) -> Iterator[list[str] | BadRow]:
    """The lines that are neither empty nor comments, some at a time: one at least."""
    comments = layout.comments
    for part in lines_of(source, encoding=layout.encoding, limit=layout.row_limit):
        if isinstance(part, BadRow):
            yield part
            continue
        wanted = [
            line for line in part if line and not line.isspace() and not line.startswith(comments)
        ]
        if wanted:
            yield wanted


def _line(layout: Layout) -> Callable[[str], Row]:
    if not layout.pattern:
        return lambda line: {"line": line}
    search = compiled(layout.pattern).search

    def matched(line: str) -> Row:
        found = search(line)
        # A row that does not match has the one field "line", for filters; nothing can be taken
        # of it.
        return {"line": line} if found is None else {"line": line, **found.groupdict()}

    return matched


def _object(line: str) -> Row | BadRow:
    try:
        row = _decode(line)
    except _BROKEN_JSON:
        # Python's own parser takes more: lone surrogates, NaN.
        try:
            row = json.loads(line)
        except _BROKEN_JSON:
            return BadRow("is no JSON", line)
    return row if isinstance(row, dict) else BadRow("is no JSON object", line)


def _csv(parts: Iterable[list[str] | BadRow], layout: Layout) -> Tables:
    columns: list[str] | None = list(layout.columns) or None
    fields_of = _fields(layout)
    csv.field_size_limit(max(csv.field_size_limit(), layout.row_limit))

    def checked(line: str, fields: list[str] | None) -> list[str] | BadRow:
        if fields is None:
            return BadRow("is no CSV", line)
        if columns is not None and len(fields) != len(columns):
            return BadRow("has not as many fields as there are columns", line)
        return fields

    for part in parts:
        if isinstance(part, BadRow):
            yield part
            continue
        rows = map(checked, part, fields_of(part))
        while columns is None and (row := next(rows, None)) is not None:
            if isinstance(row, BadRow):
                yield row
            else:
                columns = _header(row, layout)
        yield from _tables([*rows], partial(FieldsTable, columns or ()))
    if columns is None:
        raise Refused("it has no header")


def _fields(layout: Layout) -> Callable[[list[str]], list[list[str] | None]]:
    """What takes lines apart, each by itself; None for one that can't be."""
    delimiter, quote = layout.delimiter, layout.quote
    if not quote:
        return lambda lines: [line.split(delimiter) for line in lines]
    between = f"{quote}{delimiter}{quote}"
    options: dict[str, Any] = {"delimiter": delimiter, "quotechar": quote}
    options |= {"strict": True, "skipinitialspace": True}

    def simply(line: str) -> list[str] | None:
        """Nothing is quoted, or everything and no quote."""
        if quote not in line:
            return line.split(delimiter)
        if line[0] == quote == line[-1]:
            fields = line[1:-1].split(between)
            if line.count(quote) == 2 * len(fields):
                return fields
        return None

    def one(line: str) -> list[str] | None:
        try:
            # Line by line: a stray quote spoils just one.
            return next(csv.reader((line,), **options), [])
        except csv.Error:
            return None

    def several(lines: list[str]) -> list[list[str] | None]:
        # All at once is faster, and as good: each row takes one line at least, so where there
        # are as many of them as lines none has taken a part of another.
        try:
            rows = [*csv.reader(lines, **options)]
        except csv.Error:
            rows = []
        return [*rows] if len(rows) == len(lines) else [*map(one, lines)]

    def taken_apart(lines: list[str]) -> list[list[str] | None]:
        rows = [*map(simply, lines)]
        if None not in rows:
            return rows
        others = iter(several([line for line, row in zip(lines, rows, strict=True) if row is None]))
        return [next(others) if row is None else row for row in rows]

    return taken_apart


def _header(fields: list[str], layout: Layout) -> list[str]:
    names = [each.strip() for each in fields]
    missing = [name for name in layout.read_fields if name not in names]
    if missing:
        raise Refused(f"its header has no column {', '.join(missing)}")
    if len(set(names)) != len(names):
        raise Refused("its header names a column twice")
    return names
