"""
What becomes of a row: records, or nothing, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from attrs import field, frozen

from ctsd.feeds.layout import Layout
from ctsd.feeds.layout_rules import IGNORED, Indicators
from ctsd.feeds.parsers.fields import Fields
from ctsd.feeds.parsers.fitting import check_of, fits
from ctsd.feeds.parsers.hits import RowHits
from ctsd.feeds.parsers.moments import moment
from ctsd.feeds.parsers.showing import line_of, unusual_line
from ctsd.feeds.parsers.tables import Row
from ctsd.model import Hit, Property
from ctsd.records import Line, Record
from ctsd.wire import encode_hit

#: A row with more indicators than these is refused: it would be no row.
_MAX_INDICATORS: Final = 10_000

_DAY_SECS: Final = 86400.0

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
        self._indicators = [self._indicator(each) for each in layout.indicators]
        self._name = fields.template(layout.name) if layout.name else None
        self._title = title
        self._valid_until = fields.field(layout.valid_until) if layout.valid_until else None
        self._last_seen = [fields.field(name) for name in layout.last_seen]
        self._ages = bool(layout.valid_until or layout.last_seen)
        self._keep_secs = (layout.keep_days or 0.0) * _DAY_SECS
        self._has_pattern = bool(layout.pattern)
        self._hits = RowHits(layout, fields, title=title, credit=credit)

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
            properties = self._hits.shown(row)
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
            hit = self._hits.hit(row)
            made = tuple([(*of, line_of(*of, name, hit), expires) for of in found])
        except ValueError:
            # There is a lone surrogate in it.
            hit = encode_hit(Hit(self._hits.shown(row)))
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

        def of_one_type(row: Row, found: dict[tuple[str, str], None]) -> str:
            wrong = ""
            for text in read(row):
                if check(text):
                    found[only, text] = None
                else:
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
        if kind is not None:
            return of_kind
        only = rule.type[0]
        if len(rule.type) > 1 or (fit := check_of(only)) is None:
            return of_type
        check = fit
        return of_one_type


_OTHER_KIND: Final = "is of another kind"


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
