"""
The rows of a file, one by one: C{csv}, C{lines} and C{jsonl}, of which each line is a row.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from attrs import frozen

from ctsd.feeds.job import Refused
from ctsd.feeds.layout import CSV, LINES, Layout
from ctsd.feeds.layout_rules import compiled
from ctsd.feeds.parsers.unpacking import Unpacked

#: The fields of a row.
Row = Mapping[str, Any]


@frozen
class BadRow:
    """
    A row that can't be used.

    :ivar reason: why, without anything of the row.
    :ivar text: the row, for a person who looks for what is wrong.
    :ivar is_sound: whether nothing is wrong with it, but it tells of no indicator.
    """

    reason: str
    text: str
    is_sound: bool = False


#: What readers give.
Rows = Iterator[Row | BadRow]

_READ_BYTES: Final = 64 << 10

TOO_LONG: Final = "is longer than max_row_bytes"

#: A row that nobody should see as a number that Python can't make of it.
_BROKEN_JSON: Final = (ValueError, RecursionError)


def lines_of(source: Unpacked, *, encoding: str, limit: int) -> Iterator[str | BadRow]:
    """
    The lines of a text, without their ends; of one that is too long only the begin is kept.

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
        for piece in pieces:
            if too_long or len(piece) > limit:
                begin, dropped, too_long = dropped or piece[:200], b"", False
                yield BadRow(TOO_LONG, decode(begin, "replace")[0])
                continue
            yield decode(piece, "replace")[0].rstrip("\r")
        if len(rest) > limit:
            dropped = dropped or rest[:200]
            too_long, rest = True, b""
    if too_long:
        yield BadRow(TOO_LONG, decode(dropped, "replace")[0])
    elif rest:
        yield decode(rest, "replace")[0].rstrip("\r")


def read_lines(source: Unpacked, layout: Layout) -> Rows:
    """The rows of a file whose lines are its rows."""
    lines = lines_of(source, encoding=layout.encoding, limit=layout.row_limit)
    comments = layout.comments
    if layout.format == CSV:
        yield from _csv(lines, layout, comments)
        return
    read = _line(layout) if layout.format == LINES else _object
    for line in lines:
        if isinstance(line, BadRow):
            yield line
        elif line and not line.isspace() and not (comments and line.startswith(comments)):
            yield read(line)


def _line(layout: Layout) -> Callable[[str], Row | BadRow]:
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
        row = json.loads(line)
    except _BROKEN_JSON:
        return BadRow("is no JSON", line)
    return row if isinstance(row, dict) else BadRow("is no JSON object", line)


def _csv(lines: Iterator[str | BadRow], layout: Layout, comments: tuple[str, ...]) -> Rows:
    columns: list[str] | None = list(layout.columns) or None
    delimiter, quote = layout.delimiter, layout.quote
    options: dict[str, Any] = {"delimiter": delimiter, "strict": True, "skipinitialspace": True}
    if quote:
        options["quotechar"] = quote
    else:
        options["quoting"] = csv.QUOTE_NONE
    csv.field_size_limit(max(csv.field_size_limit(), layout.row_limit))
    for line in lines:
        if isinstance(line, BadRow):
            yield line
            continue
        if not line or line.isspace() or (comments and line.startswith(comments)):
            continue
        if quote and quote in line:
            try:
                # Line by line: a stray quote spoils just one.
                fields = next(csv.reader((line,), **options), [])
            except csv.Error:
                yield BadRow("is no CSV", line)
                continue
        else:
            fields = line.split(delimiter)
        if columns is None:
            columns = _header(fields, layout)
            continue
        if len(fields) != len(columns):
            yield BadRow("has not as many fields as there are columns", line)
            continue
        yield dict(zip(columns, fields, strict=True))
    if columns is None:
        raise Refused("it has no header")


def _header(fields: list[str], layout: Layout) -> list[str]:
    names = [each.strip() for each in fields]
    missing = [name for name in layout.read_fields if name not in names]
    if missing:
        raise Refused(f"its header has no column {', '.join(missing)}")
    if len(set(names)) != len(names):
        raise Refused("its header names a column twice")
    return names
