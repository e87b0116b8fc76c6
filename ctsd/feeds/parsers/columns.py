"""
The usual rows of a table, made into lines all at once: nothing is asked of a row that can be asked
of a column. What comes out is what L{ctsd.feeds.parsers.making.Maker} makes of these rows, which
all others are left to: those whose values are spelled unusually, those that a condition refuses,
and all rows of a layout that asks for more than is known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from ctsd.feeds.layout import CSV, JSONL, LINES, Layout
from ctsd.feeds.parsers.fields import Test, tests_of
from ctsd.feeds.parsers.hits import CREDIT, FEED, VERDICT
from ctsd.feeds.parsers.pieces import Hole, Piece, always, property_of, same, template_of, woven
from ctsd.feeds.parsers.showing import can_stand_alone, encode
from ctsd.feeds.parsers.tables import Table
from ctsd.feeds.paths import is_key
from ctsd.feeds.usual import USUAL_TYPES, Looked, UsualLines
from ctsd.properties import string
from ctsd.shown import MAX_VALUE_CHARS

#: When more than one in so many rows of a table is unusual, none is treated as usual.
_FEW: Final = 4

#: What a text is made of that stands in JSON, and in a hit, as it is.
_PLAIN: Final = bytes(code for code in range(0x20, 0x7F) if chr(code) not in '"\\')


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
    properties = [
        *map(always, before),
        *(property_of(name, given) for name, given in layout.properties.items()),
        *map(always, behind),
    ]
    if not properties or None in properties:
        return None
    named = Piece((encode(title).decode(),))
    if layout.name:
        named = template_of(layout.name, same, otherwise=encode(title).decode())
    return UsualRows(layout, named, [each for each in properties if each is not None])


class UsualRows:
    """Makes lines of rows of one layout."""

    def __init__(self, layout: Layout, name: Piece, properties: Sequence[Piece]) -> None:
        """
        :param name: of the threat.
        :param properties: of the hit, without the brace at their ends.
        """
        (rule,) = layout.indicators
        self._type = rule.type[0]
        self._value = rule.field
        self._empty = frozenset(layout.empty)
        self._conditions = [
            *((each.field, tests_of(each), True) for each in layout.needs),
            *((each.field, tests_of(each), False) for each in layout.filters),
        ]
        first, *others = properties
        self._pieces = [
            Piece((f'{self._type}\n["', '",'), (Hole(self._value, same),)),
            name,
            first.behind(']\t{"props":['),
            *(each.behind("},") for each in others),
            Piece(("}]}",)),
        ]
        # So that the others may begin with what parts them from the one before.
        self._conditions += [(hole.name, [], True) for hole in first.holes]
        self._holes = [hole for piece in self._pieces for hole in piece.holes]
        self._shown_fields = {hole.name for hole in self._holes}

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
        for name in self._shown_fields:
            odd.update(_not_plain(column(name)))
        for name, tests, is_needed in self._conditions:
            odd.update(_refused(tests, column(name), is_needed=is_needed))
        shown: list[Sequence[str]] = []
        for hole in self._holes:
            texts, wrong = hole.shown(column(hole.name))
            shown.append(texts)
            odd.update(wrong)
        if len(odd) * _FEW > len(table):
            yield range(len(table))
            return
        begin = 0
        for number in (*sorted(odd), len(table)):
            if begin < number:
                data = self._data([each[begin:number] for each in shown])
                found = looked.found(begin, number)
                yield UsualLines(self._type, values[begin:number], data, found)
            if number < len(table):
                yield range(number, number + 1)
            begin = number + 1

    def _column(self, table: Table, name: str) -> list[str]:
        texts = table.column(name)
        if self._empty.isdisjoint(texts):
            return texts
        return ["" if text in self._empty else text for text in texts]

    def _data(self, shown: Sequence[Sequence[str]]) -> list[bytes]:
        """
        Lines.

        :param shown: what stands in each hole, row by row.
        """
        left = iter(shown)
        columns: list[Sequence[str]] = []
        texts = [""]
        for piece in self._pieces:
            inside = [*islice(left, len(piece.holes))]
            if any("" in column for column in inside):
                columns.append(piece.filled(inside))
                texts.append("")
                continue
            texts[-1] += piece.texts[0]
            columns += inside
            texts += piece.texts[1:]
        return [*map(str.encode, woven(texts, columns))]


# -- what is asked of columns


def _refused(tests: Sequence[Test], column: Sequence[str], *, is_needed: bool) -> Iterable[int]:
    """The rows for which something does not hold; when it is needed, the empty ones, too."""
    refused = {""} if is_needed and "" in column else set()
    # Each text once, for in many columns there are few.
    distinct = set(column) if tests else set()
    for test in tests:
        refused.update([text for text in distinct if not test([text])])
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
    # Faster than any question about characters.
    return text.isascii() and not text.encode().translate(None, delete=_PLAIN)
