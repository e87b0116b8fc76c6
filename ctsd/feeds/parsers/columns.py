"""
The usual rows of a table, made into lines all at once: nothing is asked of a row that can be asked
of a column. What comes out is what L{ctsd.feeds.parsers.making.Maker} makes of these rows, which
all others are left to: those whose values are spelled unusually, those that a condition refuses,
and all rows of a layout that asks for more than is known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

from attrs import frozen

from ctsd.feeds.layout import CSV, JSONL, LINES, Layout
from ctsd.feeds.layout_rules import PropertyRule, literals, placeholders
from ctsd.feeds.parsers.fields import Test, tests_of
from ctsd.feeds.parsers.hits import CREDIT, FEED, VERDICT, is_whole, quoted
from ctsd.feeds.parsers.showing import can_stand_alone, encode, head_of, hit_of, part_of
from ctsd.feeds.parsers.tables import Table
from ctsd.feeds.paths import is_key
from ctsd.feeds.usual import USUAL_TYPES, Looked, UsualLines
from ctsd.model import Property
from ctsd.normal_forms import is_address
from ctsd.properties import string, uri
from ctsd.shown import MAX_VALUE_CHARS

#: When more than one in so many rows of a table is unusual, none is treated as usual.
_FEW: Final = 4

#: So many templates are at hand, of lines with gaps in different places.
_TEMPLATES: Final = 1 << 10

#: What becomes of a column, and the numbers of rows for which that would not be right.
_Shown = tuple[Sequence[str], Iterable[int]]


@frozen
class _Hole:
    """
    Where a text of a row stands in its line.

    :ivar name: of the field.
    :ivar shown: makes the texts that stand there of those of the column; of an empty one an empty
        one.
    """

    name: str
    shown: Callable[[Sequence[str]], _Shown]


@frozen
class _Piece:
    """
    A part of a line.

    :ivar text: has C{%s} for each hole.
    :ivar otherwise: of the threat's name: what stands there when a hole is empty. A property is
        left out then.
    """

    text: str
    holes: tuple[_Hole, ...] = ()
    otherwise: str = ""


def usual_rows(layout: Layout, *, title: str, credit: str) -> UsualRows | None:
    """
    What makes lines of the usual rows of a layout; see L{ctsd.feeds.parsers.making.Maker}.

    :return: None when no row of this layout is usual.
    """
    if layout.format not in (CSV, JSONL, LINES) or layout.pattern or layout.fields:
        return None
    if layout.lower or layout.valid_until or layout.last_seen or len(layout.indicators) != 1:
        return None
    (rule,) = layout.indicators
    if rule.kind or len(rule.type) != 1 or rule.type[0] not in USUAL_TYPES:
        return None
    if layout.format == JSONL and not all(map(is_key, layout.read_fields)):
        return None
    before = [] if layout.plain else [string(FEED, title), string(VERDICT, layout.verdict)]
    behind = [string(CREDIT, credit)] if credit else []
    if not can_stand_alone([*layout.properties, *(each.name for each in (*before, *behind))]):
        return None
    pieces = [*map(_always, before)]
    for name, given in layout.properties.items():
        piece = _piece(name, given)
        if piece is None:
            return None
        pieces.append(piece)
    pieces += map(_always, behind)
    named = _Piece(_literal(encode(title)))
    if layout.name:
        named = _template(layout.name, _same, otherwise=named.text)
    return UsualRows(layout, named, pieces)


class UsualRows:
    """Makes lines of rows of one layout."""

    def __init__(self, layout: Layout, name: _Piece, pieces: Sequence[_Piece]) -> None:
        """
        :param name: of the threat.
        :param pieces: the hit's properties, without their last brace.
        """
        rule = layout.indicators[0]
        self._value = rule.field
        self._type = rule.type[0]
        self._empty = frozenset(layout.empty)
        self._conditions = [
            *((each.field, tests_of(each), True) for each in layout.needs),
            *((each.field, tests_of(each), False) for each in layout.filters),
        ]
        self._name = name
        self._pieces = pieces
        self._holes = [hole for piece in (name, *pieces) for hole in piece.holes]
        self._shown = {self._value, *(hole.name for hole in self._holes)}
        self._template = lru_cache(maxsize=_TEMPLATES)(self._new_template)
        self._full = self._template((True,) * len(self._holes))

    def parts(self, table: Table) -> Iterator[UsualLines | range]:
        """
        The rows of a table in their order: lines of some, and of those that are not usual the
        numbers.
        """
        columns: dict[str, list[str]] = {}
        odd: set[int] = set()

        def column(name: str) -> list[str]:
            known = columns.get(name)
            if known is None:
                known = columns[name] = self._column(table, name)
            return known

        values = column(self._value)
        looked = Looked(self._type, values)
        odd.update(looked.odd)
        for name, tests, is_needed in self._conditions:
            odd.update(_refused(tests, column(name), is_needed=is_needed))
        shown: list[Sequence[str]] = []
        for hole in self._holes:
            texts, wrong = hole.shown(column(hole.name))
            shown.append(texts)
            odd.update(wrong)
        for name in self._shown:
            odd.update(_not_plain(column(name)))
        if len(odd) * _FEW > len(table):
            yield range(len(table))
            return
        begin = 0
        for number in (*sorted(odd), len(table)):
            if begin < number:
                some = [each[begin:number] for each in (values, *shown)]
                yield UsualLines(self._type, some[0], self._data(some), looked.found(begin, number))
            if number < len(table):
                yield range(number, number + 1)
            begin = number + 1

    def _column(self, table: Table, name: str) -> list[str]:
        texts = table.column(name)
        if self._empty.isdisjoint(texts):
            return texts
        return ["" if text in self._empty else text for text in texts]

    def _data(self, columns: Sequence[Sequence[str]]) -> list[bytes]:
        rows, template = zip(*columns, strict=True), self._full
        if not any("" in column for column in columns):
            return [(template % row).encode() for row in rows]
        return [((template if all(row) else self._with_gaps(row)) % row).encode() for row in rows]

    def _with_gaps(self, row: Sequence[str]) -> str:
        return self._template(tuple(map(bool, row[1:])))

    def _new_template(self, there: tuple[bool, ...]) -> str:
        """
        A line of a row: C{%s} for its value, and for each hole C{%s}, or C{%.0s}, which takes a
        text and shows nothing of it.

        :param there: of each hole whether it has a text.
        """
        left = iter(there)

        def has_texts(piece: _Piece) -> bool:
            return all([*islice(left, len(piece.holes))])

        name = self._name.text
        if not has_texts(self._name):
            name = "%.0s" * len(self._name.holes) + self._name.otherwise
        parts = []
        unseen = ""
        for piece in self._pieces:
            if has_texts(piece):
                parts.append((unseen + piece.text).encode())
                unseen = ""
            else:
                unseen += "%.0s" * len(piece.holes)
        return f'{self._type}\n["%s",{name}]\t{hit_of(parts).decode()}{unseen}'


# -- what is asked of columns


def _refused(tests: Sequence[Test], column: Sequence[str], *, is_needed: bool) -> Iterable[int]:
    """The rows for which something does not hold; when it is needed, the empty ones, too."""
    if not tests:
        return [number for number, text in enumerate(column) if not text] if "" in column else ()
    # Each text once, for in many columns there are few.
    refused = {
        text
        for text in set(column)
        if (is_needed and not text) or not all(test([text]) for test in tests)
    }
    return [number for number, text in enumerate(column) if text in refused] if refused else ()


def _not_plain(column: Sequence[str]) -> Iterable[int]:
    """The rows whose texts don't stand in JSON, and in a hit, as they are, or are long."""
    if max(map(len, column)) <= MAX_VALUE_CHARS and _is_plain("".join(column)):
        return ()
    return [
        number
        for number, text in enumerate(column)
        if len(text) > MAX_VALUE_CHARS or not _is_plain(text)
    ]


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


# -- what becomes of columns


def _same(column: Sequence[str]) -> _Shown:
    return column, ()


def _as_numbers(column: Sequence[str]) -> _Shown:
    """Whole numbers of at most 15 digits."""
    if all(map(is_whole, column)):
        return [str(int(text)) for text in column], ()
    shown = [str(int(text)) if is_whole(text) else "" for text in column]
    return shown, [number for number, text in enumerate(column) if text and not shown[number]]


def _as_addresses(column: Sequence[str]) -> _Shown:
    return column, [number for number, text in enumerate(column) if text and not is_address(text)]


def _in_links(room: int) -> Callable[[Sequence[str]], _Shown]:
    """
    Texts as parts of a URL.

    :param room: characters for each.
    """

    def shown(column: Sequence[str]) -> _Shown:
        together = "".join(column)
        if not (together.isascii() and together.isalnum()):
            column = [*map(quoted, column)]
        return column, [number for number, text in enumerate(column) if len(text) > room]

    return shown


# -- templates


def _literal(data: bytes) -> str:
    """What stands in a template as it is."""
    return data.decode().replace("%", "%%")


def _always(prop: Property) -> _Piece:
    return _Piece(_literal(part_of(prop)))


def _template(
    template: str,
    shown: Callable[[Sequence[str]], _Shown],
    *,
    otherwise: str = "",
) -> _Piece:
    """A text with fields in it, as JSON; it stands there when none of them is empty."""
    holes = tuple([_Hole(name, shown) for name in placeholders(template)])
    text = "%s".join([_literal(encode(text)[1:-1]) for text in literals(template)])
    return _Piece(f'"{text}"', holes, otherwise)


def _piece(name: str, rule: PropertyRule) -> _Piece | None:
    """A property; None when it is of no usual kind."""
    if rule.text:
        return _always(string(name, rule.text))
    if rule.lat:
        return None
    if rule.link:
        fields = len(placeholders(rule.link))
        room = MAX_VALUE_CHARS - len("".join(literals(rule.link)))
        example = uri(name, "0".join(literals(rule.link)))
        head = head_of("uri", name)
        if part_of(example) != head + encode(example.value):
            return None
        if not fields:
            return _always(example)
        target = _template(rule.link, _in_links(room // fields))
        return _Piece(_literal(head) + target.text, target.holes)
    text, shown = {
        "string": ('"%s"', _same),
        "number": ("%s", _as_numbers),
        "ip": ('"%s"', _as_addresses),
    }[rule.type]
    return _Piece(_literal(head_of(rule.type, name)) + text, (_Hole(rule.field, shown),))
