"""
The pieces that a record's line is made of when many are made at once: what is the same in all of
them, and the holes where texts of a row stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat

from attrs import frozen

from ctsd.feeds.layout_rules import PropertyRule, literals, placeholders
from ctsd.feeds.parsers.hits import is_whole, quoted
from ctsd.feeds.parsers.showing import encode, head_of, part_of
from ctsd.model import Property
from ctsd.normal_forms import is_address
from ctsd.properties import string, uri
from ctsd.shown import MAX_VALUE_CHARS

#: What becomes of a column, and the numbers of rows for which that would not be right.
Shown = tuple[Sequence[str], Iterable[int]]


@frozen
class Hole:
    """
    Where a text of a row stands in its line.

    :ivar name: of the field.
    :ivar shown: makes the texts that stand there of those of the column; of an empty one an empty
        one.
    """

    name: str
    shown: Callable[[Sequence[str]], Shown]


@frozen
class Piece:
    """
    A piece of a line.

    :ivar texts: what stands before, between and behind its holes.
    :ivar otherwise: what stands there instead when one of these is empty.
    """

    texts: tuple[str, ...]
    holes: tuple[Hole, ...] = ()
    otherwise: str = ""

    def behind(self, text: str) -> Piece:
        """The same, with a text before it."""
        return Piece((text + self.texts[0], *self.texts[1:]), self.holes, self.otherwise)

    def filled(self, columns: Sequence[Sequence[str]]) -> list[str]:
        """It in each row, with the texts of these columns in its holes."""
        rows = zip(woven(self.texts, columns), zip(*columns, strict=True), strict=True)
        return [text if all(row) else self.otherwise for text, row in rows]


def woven(texts: Sequence[str], columns: Sequence[Sequence[str]]) -> Iterator[str]:
    """Of each row the texts of some columns, with these before, between and behind them."""
    parts: list[Iterable[str]] = [repeat(texts[0])]
    for column, text in zip(columns, texts[1:], strict=True):
        parts += column, repeat(text)
    return map("".join, zip(*parts, strict=False))


# -- what becomes of columns


def same(column: Sequence[str]) -> Shown:
    """Texts as they are."""
    return column, ()


def _as_numbers(column: Sequence[str]) -> Shown:
    """Whole numbers of at most 15 digits."""
    if all(map(is_whole, column)):
        return [str(int(text)) for text in column], ()
    shown = [str(int(text)) if is_whole(text) else "" for text in column]
    return shown, [number for number, text in enumerate(column) if text and not shown[number]]


def _as_addresses(column: Sequence[str]) -> Shown:
    return column, [number for number, text in enumerate(column) if text and not is_address(text)]


def _in_links(room: int) -> Callable[[Sequence[str]], Shown]:
    """
    Texts as parts of a URL.

    :param room: characters for each.
    """

    def shown(column: Sequence[str]) -> Shown:
        together = "".join(column)
        if not (together.isascii() and together.isalnum()):
            column = [*map(quoted, column)]
        return column, [number for number, text in enumerate(column) if len(text) > room]

    return shown


# -- pieces


def always(prop: Property) -> Piece:
    """A property that is the same in all rows, without its brace."""
    return Piece((part_of(prop).decode(),))


def template_of(
    template: str, shown: Callable[[Sequence[str]], Shown], *, otherwise: str = ""
) -> Piece:
    """A text with fields in it, as JSON."""
    first, *others = [encode(text)[1:-1].decode() for text in literals(template)]
    holes = tuple([Hole(name, shown) for name in placeholders(template)])
    texts = [f'"{first}', *others]
    texts[-1] += '"'
    return Piece(tuple(texts), holes, otherwise)


def property_of(name: str, rule: PropertyRule) -> Piece | None:
    """A property, without its brace; None when it is of no usual kind."""
    if rule.text:
        return always(string(name, rule.text))
    if rule.lat:
        return None
    if rule.link:
        return _link(name, rule.link)
    before, behind, shown = {
        "string": ('"', '"', same),
        "number": ("", "", _as_numbers),
        "ip": ('"', '"', _as_addresses),
    }[rule.type]
    head = head_of(rule.type, name).decode()
    return Piece((head + before, behind), (Hole(rule.field, shown),))


def _link(name: str, link: str) -> Piece | None:
    texts = literals(link)
    example = uri(name, "0".join(texts))
    head = head_of("uri", name)
    if part_of(example) != head + encode(example.value):
        return None
    if len(texts) == 1:
        return always(example)
    room = (MAX_VALUE_CHARS - len("".join(texts))) // (len(texts) - 1)
    return template_of(link, _in_links(room)).behind(head.decode())
