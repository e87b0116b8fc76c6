"""
What becomes of a row: records, or nothing, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

from attrs import field, frozen

from ctsd.feeds.layout import Layout
from ctsd.feeds.layout_rules import IGNORED, Indicators, Lower, PropertyRule, literals
from ctsd.feeds.parsers.fields import Fields, number_of
from ctsd.feeds.parsers.fitting import fits
from ctsd.feeds.parsers.moments import moment
from ctsd.feeds.parsers.rows import Row
from ctsd.feeds.parsers.showing import (
    Part,
    can_stand_alone,
    hit_of,
    line_of,
    link_part,
    part_of,
    text_part,
    unusual_line,
)
from ctsd.model import JSON, Hit, Property
from ctsd.properties import lat_lng, string, uri
from ctsd.records import Line, Record
from ctsd.wire import encode_hit

#: More of a text is never shown (L{ctsd.shown} cuts it at 1,000 characters, visibly).
_MAX_CHARS: Final = 1001

#: A row with more indicators than these is refused: it would be no row.
_MAX_INDICATORS: Final = 10_000

_DAY_SECS: Final = 86400.0

#: The properties that every hit has beside its row's own, and of one that is less bad why.
FEED: Final = "feed"
VERDICT: Final = "verdict"
NOTE: Final = "note"
CREDIT: Final = "credit"


_T = TypeVar("_T")


@frozen
class Refusal(Generic[_T]):
    """A row that can't be used, and why; C{records} are what can be used of it all the same."""

    reason: str
    records: tuple[_T, ...] = field(default=(), repr=False)


@frozen
class LeftOut:
    """A row that the description leaves out, and why."""

    reason: str


#: Of a row: its indicators, when they expire, and why others of it can't be used (empty: there are
#: none).
_Decided = tuple[dict[tuple[str, str], None], float | None, str]


class Maker:
    """Makes records of rows, as a layout says."""

    def __init__(
        self, layout: Layout, *, title: str, credit: str = "", now: float, shows: bool = True
    ) -> None:
        """
        :param title: what hits call the feed, and threats without a template of their name.
        :param credit: whom hits name; empty: nobody.
        :param now: POSIX seconds: what is not valid any more is left out.
        :param shows: whether records have a name and properties; no row is refused for these, and
            who only counts has no use for them.
        """
        self._now = now
        self._shows = shows
        self._fields = fields = Fields(layout)
        self._filters = [fields.condition(each) for each in layout.filters]
        self._needs = [(each.field, fields.need(each)) for each in layout.needs]
        self._plain = layout.plain
        self._feed = string(FEED, title)
        self._verdict = [string(VERDICT, layout.verdict)]
        self._lower = [(fields.condition(each), _lowered(each)) for each in layout.lower]
        self._indicators = [self._indicator(each) for each in layout.indicators]
        self._properties = [self._property(name, rule) for name, rule in layout.properties.items()]
        self._name = fields.template(layout.name) if layout.name else None
        self._credit = [string(CREDIT, credit)] if credit else []
        self._title = title
        self._valid_until = fields.field(layout.valid_until) if layout.valid_until else None
        self._last_seen = [fields.field(name) for name in layout.last_seen]
        self._ages = bool(layout.valid_until or layout.last_seen)
        self._keep_secs = (layout.keep_days or 0.0) * _DAY_SECS
        self._has_pattern = bool(layout.pattern)
        self._parts = self._parts_of(layout)
        self._lower_parts = [(holds, self._said_parts(said)) for holds, said in self._lower]
        self._verdict_parts = self._said_parts(self._verdict)

    def make(self, row: Row) -> tuple[Record, ...] | Refusal[Record] | LeftOut:
        """What becomes of a row."""
        decided = self._decide(row)
        if not isinstance(decided, tuple):
            return decided
        found, expires, wrong = decided
        name = ""
        properties: tuple[Property, ...] = ()
        if self._shows:
            name = (self._name(row) if self._name else "") or self._title
            properties = self._shown(row)
        made = tuple(
            Record(type=type, value=value, name=name, properties=properties, expires=expires)
            for type, value in found
        )
        return Refusal(wrong, made) if wrong else made

    def make_lines(self, row: Row) -> tuple[Line, ...] | Refusal[Line] | LeftOut:
        """
        What becomes of a row, as an index keeps it: L{make}'s records, encoded, in less time.
        """
        decided = self._decide(row)
        if not isinstance(decided, tuple):
            return decided
        found, expires, wrong = decided
        name = (self._name(row) if self._name else "") or self._title
        try:
            hit = self._hit(row)
            made = tuple([(*of, line_of(*of, name, hit), expires) for of in found])
        except ValueError:
            # There is a lone surrogate in it.
            hit = encode_hit(Hit(self._shown(row)))
            made = tuple([(*of, unusual_line(*of, name, hit), expires) for of in found])
        return Refusal(wrong, made) if wrong else made

    def _decide(self, row: Row) -> _Decided | Refusal[Any] | LeftOut:
        for holds in self._filters:
            if not holds(row):
                return LeftOut("a filter does not hold")
        if self._has_pattern and len(row) == 1:
            return Refusal("does not match the pattern")
        for name, is_met in self._needs:
            if not is_met(row):
                return Refusal(f"has no {name} that could be used")
        expires = self._expires(row) if self._ages else None
        if expires is not None and expires <= self._now:
            return LeftOut("is not valid any more")
        found: dict[tuple[str, str], None] = {}
        wrong = ""
        other_kinds = False
        for indicator in self._indicators:
            reason = indicator(row, found)
            if reason == _OTHER_KIND:
                other_kinds = True
            else:
                wrong = wrong or reason
        if not found:
            if wrong or not other_kinds:
                return Refusal(wrong or "has no indicator")
            return LeftOut(_OTHER_KIND)
        if len(found) > _MAX_INDICATORS:
            return Refusal(f"has more than {_MAX_INDICATORS:,} indicators")
        return found, expires, wrong

    def _expires(self, row: Row) -> float | None:
        times: list[float | None] = []
        if self._valid_until is not None:
            times += map(moment, self._valid_until(row))
        for read in self._last_seen:
            seen = next(filter(None, map(moment, read(row))), None)
            if seen is not None:
                times.append(seen + self._keep_secs)
                break
        return min((time for time in times if time is not None), default=None)

    # -- indicators

    def _indicator(self, rule: Indicators) -> Callable[[Row, dict[tuple[str, str], None]], str]:
        """Finds the indicators of one rule; says what is wrong with one of them."""
        read = self._fields.field(rule.field)
        kind = self._fields.field(rule.kind) if rule.kind else None
        types = {name: tuple(given.split("|")) for name, given in rule.types.items()}

        def as_is(row: Row, found: dict[tuple[str, str], None]) -> str:
            for text in read(row):
                found[rule.type[0], text] = None
            return ""

        def of_type(row: Row, found: dict[tuple[str, str], None]) -> str:
            wrong = ""
            for text in read(row):
                wrong = _take(rule.type, text, found) or wrong
            return wrong

        def of_kind(row: Row, found: dict[tuple[str, str], None]) -> str:
            assert kind is not None
            parts = types.get(next(iter(kind(row)), ""))
            if parts is None:
                return _OTHER_KIND
            wrong = ""
            for text in read(row):
                if len(parts) == 1:
                    wrong = _take(parts, text, found) or wrong
                    continue
                values = text.split("|", len(parts) - 1)
                if len(values) != len(parts):
                    wrong = "has a composite value with too few parts"
                    continue
                for type, value in zip(parts, values, strict=True):
                    if type != IGNORED and value.strip():
                        wrong = _take((type,), value.strip(), found) or wrong
            return wrong

        if rule.as_is:
            return as_is
        return of_type if kind is None else of_kind

    # -- properties

    def _property(self, name: str, rule: PropertyRule) -> Callable[[Row], Property | None]:
        if rule.text:
            fixed = string(name, rule.text)
            return lambda row: fixed
        if rule.link:
            link = self._fields.template(rule.link, _quoted)

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
            if kind == "number" and _is_whole(text):
                value = int(text)
            elif kind == "number":
                number = number_of(text)
                value = text if number is None else int(number) if number.is_integer() else number
            return Property(kind, name, value)

        return shown

    def _shown(self, row: Row) -> tuple[Property, ...]:
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
            link = self._fields.template(rule.link, _quoted)
            example = uri(name, "0".join(literals(rule.link)))
            return link_part(name, link, example, rest)
        if rule.lat:
            return rest
        return text_part(rule.type, name, self._fields.text(rule.field), rest)

    def _said_parts(self, said: Sequence[Property]) -> list[bytes]:
        return [part for part in map(part_of, (self._feed, *said)) if part]

    def _hit(self, row: Row) -> bytes:
        """L{_shown}, as it goes out."""
        if self._parts is None:
            return encode_hit(Hit(self._shown(row)))
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


def _quoted(text: str) -> str:
    """A text as a part of a URL. Most are the ids of rows."""
    return text if text.isascii() and text.isalnum() else quote(text, safe="")


def _is_whole(text: str) -> bool:
    """Whether a text is nothing but digits, as L{number_of} takes them."""
    return len(text) <= 15 and text.isascii() and text.isdecimal()


_OTHER_KIND: Final = "is of another kind"


def _lowered(lower: Lower) -> list[Property]:
    notes = [string(NOTE, lower.note)] if lower.note else []
    return [string(VERDICT, lower.verdict), *notes]


def _take(types: Sequence[str], text: str, found: dict[tuple[str, str], None]) -> str:
    """Take an indicator as the first type that it can be; what is wrong when it can be none."""
    wrong = ""
    for type in types:
        reason = fits(type, text)
        if not reason:
            found[type, text] = None
            return ""
        if type == "net.ip" and "/" in text and not fits("net.cidr", text):
            found["net.cidr", text] = None
            return ""
        wrong = wrong or f"{type}: {reason}"
    return wrong if len(types) == 1 else f"is none of {', '.join(types)}"
