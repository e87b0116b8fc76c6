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


def lines_of(source: Unpacked, *, encoding: str, limit: int) -> Iterator[list[str | BadRow]]:
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
    while data := source.read(_READ_BYTES):
        if not first:
            first = data
            if data.startswith(codecs.BOM_UTF8):
                data = data[len(codecs.BOM_UTF8) :]
        pieces = (rest + data).split(b"\n")
        rest = pieces.pop()
        if pieces and not too_long and len(max(pieces, key=len)) <= limit:
            # A line's end is never a part of another character.
            text = decode(b"\n".join(pieces), "replace")[0]
            lines: list[str | BadRow] = [*text.split("\n")]
            yield lines if "\r" not in text else [line.rstrip("\r") for line in text.split("\n")]
            pieces = []
        some: list[str | BadRow] = []
        for piece in pieces:
            if too_long or len(piece) > limit:
                begin, dropped, too_long = dropped or piece[:200], b"", False
                some.append(BadRow(TOO_LONG, decode(begin, "replace")[0]))
                continue
            some.append(decode(piece, "replace")[0].rstrip("\r"))
        if some:
            yield some
        if len(rest) > limit:
            dropped = dropped or rest[:200]
            too_long, rest = True, b""
    if too_long:
        yield [BadRow(TOO_LONG, decode(dropped, "replace")[0])]
    elif rest:
        yield [decode(rest, "replace")[0].rstrip("\r")]


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
    parts = lines_of(source, encoding=layout.encoding, limit=layout.row_limit)
    wanted = (_wanted(lines, layout.comments) for lines in parts)
    if layout.format == CSV:
        yield from _csv(wanted, layout)
    elif layout.format == LINES:
        read = _line(layout)
        for lines in wanted:
            yield from _tables(lines, partial(LinesTable, read))
    else:
        for lines in wanted:
            yield from _tables([*map(_object, lines)], ObjectsTable)


def _tables(rows: Sequence[Any], table: Callable[[Sequence[Any]], Table]) -> Tables:
    """Rows among which there may be bad ones."""
    for is_bad, some in groupby(rows, lambda row: isinstance(row, BadRow)):
        if is_bad:
            yield from some
        else:
            yield table([*some])


def _wanted(lines: list[str | BadRow], comments: tuple[str, ...]) -> list[str | BadRow]:
    """These lines, without the empty ones and the comments."""
    return [
        line
        for line in lines
        if isinstance(line, BadRow)
        or (line and not line.isspace() and not (comments and line.startswith(comments)))
    ]


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


def _object(line: str | BadRow) -> Row | BadRow:
    if isinstance(line, BadRow):
        return line
    try:
        row = _decode(line)
    except _BROKEN_JSON:
        # Python's own parser takes more: lone surrogates, NaN.
        try:
            row = json.loads(line)
        except _BROKEN_JSON:
            return BadRow("is no JSON", line)
    return row if isinstance(row, dict) else BadRow("is no JSON object", line)


def _csv(parts: Iterable[list[str | BadRow]], layout: Layout) -> Tables:
    columns: list[str] | None = list(layout.columns) or None
    fields_of = _fields(layout)
    csv.field_size_limit(max(csv.field_size_limit(), layout.row_limit))

    def checked(line: str | BadRow, fields: list[str] | None) -> list[str] | BadRow:
        if isinstance(line, BadRow):
            return line
        if fields is None:
            return BadRow("is no CSV", line)
        if columns is not None and len(fields) != len(columns):
            return BadRow("has not as many fields as there are columns", line)
        return fields

    for lines in parts:
        rows = map(checked, lines, fields_of(lines))
        while columns is None and (row := next(rows, None)) is not None:
            if isinstance(row, BadRow):
                yield row
            else:
                columns = _header(row, layout)
        yield from _tables([*rows], partial(FieldsTable, columns or ()))
    if columns is None:
        raise Refused("it has no header")


def _fields(layout: Layout) -> Callable[[list[str | BadRow]], list[list[str] | None]]:
    """What takes lines apart, each by itself; None for one that can't be, and for a bad row."""
    delimiter, quote = layout.delimiter, layout.quote
    options: dict[str, Any] = {"delimiter": delimiter, "strict": True, "skipinitialspace": True}
    if quote:
        options["quotechar"] = quote

    def one(line: str | BadRow) -> list[str] | None:
        if isinstance(line, BadRow):
            return None
        if not quote or quote not in line:
            return line.split(delimiter)
        try:
            # Line by line: a stray quote spoils just one.
            return next(csv.reader((line,), **options), [])
        except csv.Error:
            return None

    def several(lines: list[str | BadRow]) -> list[list[str] | None]:
        texts = [line for line in lines if not isinstance(line, BadRow)]
        if quote and len(texts) == len(lines) and any(quote in line for line in texts):
            # All at once is faster, and as good: each row takes one line at least, so where there
            # are as many of them as lines none has taken a part of another.
            try:
                rows: list[list[str] | None] = [*csv.reader(texts, **options)]
            except csv.Error:
                rows = []
            if len(rows) == len(lines):
                return rows
        return [one(line) for line in lines]

    return several


def _header(fields: list[str], layout: Layout) -> list[str]:
    names = [each.strip() for each in fields]
    missing = [name for name in layout.read_fields if name not in names]
    if missing:
        raise Refused(f"its header has no column {', '.join(missing)}")
    if len(set(names)) != len(names):
        raise Refused("its header names a column twice")
    return names
