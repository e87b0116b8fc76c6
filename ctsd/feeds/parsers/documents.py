"""
The rows of JSON documents: read as they come, so that a document may be of any size, and only a
row has to fit into memory.

Several documents one after the other are one stream of rows: the pages of a collection, the events
of a feed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import ijson

from ctsd.feeds.job import Refused
from ctsd.feeds.layout import JSON, MISP, Layout
from ctsd.feeds.parsers.observed import NotSimple, Several, observed
from ctsd.feeds.parsers.rows import TOO_LONG, Rows
from ctsd.feeds.parsers.tables import BadRow, Row
from ctsd.feeds.parsers.unpacking import Unpacked
from ctsd.feeds.paths import ANY, rows_of

_READ_BYTES: Final = 64 << 10

#: Objects in a row that lie deeper in each other than this are nobody's data.
_MAX_DEPTH: Final = 64
_TOO_DEEP: Final = f"has values more than {_MAX_DEPTH} deep in each other"

#: What a value takes beside its text: a row of a million empty lists is long, too.
_VALUE_BYTES: Final = 16

_OPENING: Final = ("start_map", "start_array")
_CLOSING: Final = ("end_map", "end_array")


class _Source:
    """What ijson reads from; it is refused when much is read that makes up no value."""

    def __init__(self, source: Unpacked, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._silent_bytes = 0
        self._begun = False

    def read(self, size: int) -> bytes:
        """The next bytes."""
        if size == 0:
            return b""
        data = self._source.read(min(size, _READ_BYTES))
        if not self._begun and data:
            self._begun = True
            data = data.removeprefix(b"\xef\xbb\xbf")
        self._silent_bytes += len(data)
        if self._silent_bytes > self._limit + 2 * _READ_BYTES:
            raise Refused(f"a value of more than {self._limit:,} bytes")
        return data

    def heard(self) -> None:
        """A value has come."""
        self._silent_bytes = 0


class _Row:
    """
    A row that is being put together from what ijson tells.

    :ivar wrong: why it can't be; empty when nothing is wrong.
    """

    def __init__(self, limit: int) -> None:
        self.done = False
        self.value: Any = None
        self.wrong = ""
        self._left = limit
        self._open: list[Any] = []
        self._key: list[str] = []
        self._depth = 0

    def add(self, event: str, value: Any) -> None:
        """Take what comes next."""
        if event in _CLOSING:
            self._depth -= 1
            self.done = not self._depth
            if not self.wrong:
                self._open.pop()
            return
        self._left -= _VALUE_BYTES + (len(value) if type(value) is str else 0)
        if event in _OPENING:
            self._depth += 1
        if self._left < 0:
            self.wrong = self.wrong or TOO_LONG
        elif self._depth > _MAX_DEPTH:
            self.wrong = self.wrong or _TOO_DEEP
        if self.wrong:
            # From here on only its end is looked for.
            self._open.clear()
            self.value = None
            self.done = not self._depth
            return
        if event == "map_key":
            self._key[len(self._open) - 1 :] = [value]
            return
        one = {} if event == "start_map" else [] if event == "start_array" else value
        if not self._open:
            self.value = one
            self.done = not self._depth
        elif type(self._open[-1]) is dict:
            self._open[-1][self._key[len(self._open) - 1]] = one
        else:
            self._open[-1].append(one)
        if event in _OPENING:
            self._open.append(one)
            self._key[len(self._open) - 1 :] = [""]


def rows_at(source: Unpacked, way: tuple[str, ...], *, limit: int) -> Iterator[Any | BadRow]:
    """
    The values to which a way leads in JSON documents that stand one after the other.

    :param limit: bytes, about, of one of them.
    :raises Refused: it is no JSON, or see L{Unpacked}.
    """
    reader = _Source(source, limit)
    try:
        yield from _rows_at(reader, way, limit)
    except (ijson.JSONError, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise Refused("it is no JSON, or ends too early") from error


def _rows_at(reader: _Source, way: tuple[str, ...], limit: int) -> Iterator[Any | BadRow]:
    events = ijson.basic_parse(reader, buf_size=_READ_BYTES, multiple_values=True, use_float=True)
    # The keys on the way to where we are; of an array's elements "".
    here: list[str] = []
    row: _Row | None = None
    for event, value in events:
        reader.heard()
        if row is None:
            if event == "map_key":
                here[-1] = value
                continue
            if event in _CLOSING:
                here.pop()
                continue
            if len(here) == len(way) and all(
                step in (ANY, name) for step, name in zip(way, here, strict=True)
            ):
                row = _Row(limit)
            elif event in _OPENING:
                if len(here) > _MAX_DEPTH:
                    raise Refused(f"its values lie more than {_MAX_DEPTH} deep in each other")
                here.append("")
                continue
            else:
                continue
        row.add(event, value)
        if row.done:
            yield BadRow(row.wrong, "") if row.wrong else row.value
            row = None


def read_documents(source: Unpacked, layout: Layout) -> Rows:
    """The rows of C{json}, C{misp} and C{stix}."""
    for row in rows_at(source, rows_of(layout.rows), limit=layout.row_limit):
        if isinstance(row, BadRow):
            yield row
        elif not isinstance(row, dict):
            yield BadRow("is no JSON object", "")
        elif layout.format == JSON:
            yield row
        else:
            yield from _attributes(row) if layout.format == MISP else _observed(row)


def _attributes(event: Row) -> Rows:
    """
    The attributes of a MISP event, those of its objects included, each with C{event}, what is
    known of the event, and C{object}, of the object.
    """
    about = {name: value for name, value in event.items() if name not in ("Attribute", "Object")}
    for attribute in _dicts(event.get("Attribute")):
        yield {**attribute, "event": about}
    for each in _dicts(event.get("Object")):
        whole = {name: value for name, value in each.items() if name != "Attribute"}
        for attribute in _dicts(each.get("Attribute")):
            yield {**attribute, "event": about, "object": whole}


def _dicts(given: Any) -> Iterator[dict[str, Any]]:
    if isinstance(given, list):
        yield from (one for one in given if isinstance(one, dict))


def _observed(row: Row) -> Rows:
    """An indicator once for each C{observed.kind} and C{.value} of its pattern; others as is."""
    pattern = row.get("pattern")
    if row.get("type") != "indicator" or row.get("pattern_type", "stix") != "stix":
        yield row
        return
    try:
        found = observed(pattern if isinstance(pattern, str) else "")
    except NotSimple as error:
        yield BadRow(str(error), str(pattern), is_sound=isinstance(error, Several))
        return
    for kind, value in found:
        yield {**row, "observed": {"kind": kind, "value": value}}
