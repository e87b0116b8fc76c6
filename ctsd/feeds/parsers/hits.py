"""
What a row's hit shows, as a layout says: its properties, or the bytes that these become.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import quote

from ctsd.feeds.layout import Layout
from ctsd.feeds.layout_rules import Lower, PropertyRule, literals
from ctsd.feeds.parsers.fields import Fields, number_of
from ctsd.feeds.parsers.showing import (
    Part,
    can_stand_alone,
    hit_of,
    link_part,
    part_of,
    plain_part,
    text_part,
)
from ctsd.feeds.parsers.tables import Row
from ctsd.model import JSON, Hit, Property
from ctsd.properties import lat_lng, string, uri
from ctsd.wire import encode_hit

#: More of a text is never shown (L{ctsd.shown} cuts it at 1,000 characters, visibly).
_MAX_CHARS: Final = 1001

#: The properties that every hit has beside its row's own, and of one that is less bad why.
FEED: Final = "feed"
VERDICT: Final = "verdict"
NOTE: Final = "note"
CREDIT: Final = "credit"


class RowHits:
    """Makes the hits of rows."""

    def __init__(self, layout: Layout, fields: Fields, *, title: str, credit: str) -> None:
        """
        :param title: what hits call the feed.
        :param credit: whom hits name; empty: nobody.
        """
        self._fields = fields
        self._plain = layout.plain
        self._feed = string(FEED, title)
        self._verdict = [string(VERDICT, layout.verdict)]
        self._lower = [(fields.condition(each), _lowered(each)) for each in layout.lower]
        self._properties = [self._property(name, rule) for name, rule in layout.properties.items()]
        self._credit = [string(CREDIT, credit)] if credit else []
        self._parts = self._parts_of(layout)
        self._lower_parts = [(holds, self._said_parts(said)) for holds, said in self._lower]
        self._verdict_parts = self._said_parts(self._verdict)

    def _property(self, name: str, rule: PropertyRule) -> Callable[[Row], Property | None]:
        if rule.text:
            fixed = string(name, rule.text)
            return lambda row: fixed
        if rule.link:
            link = self._fields.template(rule.link, quoted)

            def linked(row: Row) -> Property | None:
                target = link(row)
                return uri(name, target) if target else None

            return linked
        if rule.lat:
            lat, lng = self._fields.field(rule.lat), self._fields.field(rule.lng)

            def placed(row: Row) -> Property | None:
                degrees = [number_of(text) for text in (*lat(row)[:1], *lng(row)[:1])]
                if len(degrees) != 2 or degrees[0] is None or degrees[1] is None:
                    return None
                return lat_lng(name, degrees[0], degrees[1])

            return placed
        read, kind = self._fields.text(rule.field), rule.type

        def shown(row: Row) -> Property | None:
            text = read(row)[:_MAX_CHARS]
            if not text:
                return None
            value: JSON = text
            if kind == "number" and is_whole(text):
                value = int(text)
            elif kind == "number":
                number = number_of(text)
                value = text if number is None else int(number) if number.is_integer() else number
            return Property(kind, name, value)

        return shown

    def shown(self, row: Row) -> tuple[Property, ...]:
        """The properties of the hit."""
        properties = []
        for each in self._properties:
            one = each(row)
            if one is not None:
                properties.append(one)
        if self._plain:
            return (*properties, *self._credit)
        said = self._verdict
        for holds, lowered in self._lower:
            if holds(row):
                said = lowered
                break
        return (self._feed, *said, *properties, *self._credit)

    def _parts_of(self, layout: Layout) -> list[Part] | None:
        """What makes the hits of rows, property by property; None when that can't be."""
        names = [*layout.properties, *(each.name for each in self._credit)]
        if not self._plain:
            names += [FEED, VERDICT, NOTE]
        if not can_stand_alone(names):
            return None
        parts = [
            self._part(name, rule, shown)
            for (name, rule), shown in zip(layout.properties.items(), self._properties, strict=True)
        ]
        return [*parts, *map(_always, self._credit)]

    def _part(self, name: str, rule: PropertyRule, shown: Callable[[Row], Property | None]) -> Part:
        if rule.text:
            return _always(shown({}))

        def rest(row: Row) -> bytes:
            return part_of(shown(row))

        if rule.link:
            link = self._fields.template(rule.link, quoted)
            example = uri(name, "0".join(literals(rule.link)))
            return link_part(name, link, example, rest)
        if rule.lat:
            return rest
        if rule.type == "string" and self._fields.is_plain(rule.field):
            return plain_part(name, rule.field, self._fields.empty, rest)
        return text_part(rule.type, name, self._fields.text(rule.field), rest)

    def _said_parts(self, said: Sequence[Property]) -> list[bytes]:
        return [part for part in map(part_of, (self._feed, *said)) if part]

    def hit(self, row: Row) -> bytes:
        """L{shown}, as it goes out."""
        if self._parts is None:
            return encode_hit(Hit(self.shown(row)))
        made = [part for make in self._parts if (part := make(row))]
        if self._plain:
            return hit_of(made)
        said = self._verdict_parts
        for holds, lowered in self._lower_parts:
            if holds(row):
                said = lowered
                break
        return hit_of([*said, *made])


def _always(prop: Property | None) -> Part:
    part = part_of(prop)
    return lambda row: part


def quoted(text: str) -> str:
    """A text as a part of a URL. Most are the ids of rows."""
    return text if text.isascii() and text.isalnum() else quote(text, safe="", errors="replace")


def is_whole(text: str) -> bool:
    """Whether a text is nothing but digits, as L{number_of} takes them."""
    return len(text) <= 15 and text.isascii() and text.isdecimal()


def _lowered(lower: Lower) -> list[Property]:
    notes = [string(NOTE, lower.note)] if lower.note else []
    return [string(VERDICT, lower.verdict), *notes]
