"""
What a provider's file looks like, and what of it becomes what: the part of a feed's description
that a parser goes by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import Factory, frozen

from ctsd.config import checks
from ctsd.config.checks import Surroundings, Wrong
from ctsd.config.tables import key, table
from ctsd.feeds.kinds import BROUGHT
from ctsd.feeds.layout_rules import (
    VERDICTS,
    Condition,
    Indicators,
    Lower,
    PropertyRule,
    any_text,
    compiled,
    condition,
    expression,
    indicators,
    need,
    one_char,
    one_or_more,
    placeholders,
    properties,
    quote_char,
    templates,
)
from ctsd.feeds.paths import path_of, rows_of

CSV: Final = "csv"
LINES: Final = "lines"
JSON: Final = "json"
JSONL: Final = "jsonl"
MISP: Final = "misp"
STIX: Final = "stix"
WARNINGLIST: Final = "warninglist"
FORMATS: Final = (CSV, LINES, JSON, JSONL, MISP, STIX, WARNINGLIST)

#: Formats whose rows are objects, in which a field is a path.
NESTED: Final = frozenset({JSON, JSONL, MISP, STIX})


@frozen(kw_only=True)
class Layout:
    """
    What the file looks like, and what of it becomes what.
    """

    format: str = key(
        checks.one_of(*FORMATS),
        "What the file is: " + ", ".join(f"`{one}`" for one in FORMATS),
    )
    encoding: str = key(
        checks.one_of("utf-8", "latin-1"), "How its text is written down", default="utf-8"
    )
    member: str = key(
        checks.text,
        "Of a zip archive: the file in it that is read",
        default="",
        shown="the first one; with `misp` all `.json`",
    )
    max_row_bytes: int | None = key(
        checks.whole(1),
        "A row, an object or an event that is longer is refused",
        default=None,
        shown="1 MiB; with `json`, `misp`, `stix` and `warninglist` 32 MiB",
    )
    comments: tuple[str, ...] = key(
        one_or_more(checks.text, "strings"),
        "`csv`, `lines`: what comment lines begin with",
        default=(),
    )
    delimiter: str = key(one_char, "`csv`: what stands between fields", default=",")
    quote: str = key(
        quote_char,
        "`csv`: what may stand around one; empty: nothing",
        default='"',
        shown="`'\"'`",
    )
    header: bool = key(
        checks.flag, "`csv`: whether the first line names the columns", default=False
    )
    columns: tuple[str, ...] = key(
        checks.each(checks.text, at_least=1, of="names"),
        "`csv`: the names of the columns, where no header tells them",
        default=(),
        shown="none",
    )
    pattern: str = key(
        expression,
        "`lines`: an RE2 expression with named groups, which become fields beside `line`",
        default="",
        shown="none",
    )
    rows: str = key(
        checks.text,
        "`json`: the way to the rows, `vulnerabilities.*`; `*` is every element or key",
        default="",
        shown="`misp`: `Event`, `stix`: `objects.*`",
    )
    fields: dict[str, str] = key(  # noqa: RUF009 - no default
        templates,
        'Further fields, each a template of others, `{ range = "{start}/{prefix}" }`',
        default=Factory(dict),
        shown="none",
    )
    empty: tuple[str, ...] = key(
        checks.each(any_text), "What stands for nothing in a field", default=()
    )
    name: str = key(
        checks.text,
        "A template of the threat's name, `PhishTank Record {phish_id}`",
        default="",
        shown="`title`",
    )
    indicators: tuple[Indicators, ...] = key(
        checks.each(indicators, at_least=1, of="tables"),
        "See below",
        default=(),
        shown="the format's own, or (required)",
    )
    properties: dict[str, PropertyRule] = key(  # noqa: RUF009 - no default
        properties,
        "The hit's properties, in order; see below",
        default=Factory(dict),
        shown="none",
    )
    filters: tuple[Condition, ...] = key(
        checks.each(condition(Condition), of="tables"), "Which rows count; see below", default=()
    )
    lower: tuple[Lower, ...] = key(
        checks.each(condition(Lower), of="tables"),
        "Which rows are less bad; see below",
        default=(),
    )
    verdict: str = key(
        checks.one_of(*VERDICTS), "What a hit says of the artifact", default=VERDICTS[0]
    )
    needs: tuple[Condition, ...] = key(
        checks.each(need, of="fields or tables"),
        "What every row has to have, or it is refused: names of fields, or tables as of `filters`",
        default=(),
    )
    substring: bool = key(
        checks.flag,
        "Whether what contains an artifact is found, too: see `docs/matching.md`",
        default=False,
    )
    plain: bool = key(
        checks.flag,
        "Whether hits show the properties alone, without `feed` and `verdict`",
        default=False,
    )
    valid_until: str = key(
        checks.text,
        "The field with the time until which an indicator counts",
        default="",
        shown="none",
    )
    last_seen: tuple[str, ...] = key(
        one_or_more(checks.text, "fields"),
        "With `keep_days`: the fields with the time when it was last seen; the first that is set",
        default=(),
        shown="none",
    )
    keep_days: float | None = key(
        checks.amount(0.01, 36525.0, "days"),
        "How long after that an indicator counts",
        default=None,
        shown="none",
    )

    @property
    def read_fields(self) -> tuple[str, ...]:
        """Every field of the file that is spoken of, once."""
        named = (name for name, _ in _named(self) if name not in self.fields)
        return tuple(dict.fromkeys(named))

    @property
    def row_limit(self) -> int:
        """C{max_row_bytes}, or its default."""
        big = self.format in (JSON, MISP, STIX, WARNINGLIST)
        return self.max_row_bytes or (32 << 20 if big else 1 << 20)


#: The keys that only some formats have.
_ONLY: Final[Mapping[str, tuple[str, ...]]] = {
    "comments": (CSV, LINES),
    "delimiter": (CSV,),
    "quote": (CSV,),
    "header": (CSV,),
    "columns": (CSV,),
    "pattern": (LINES,),
    "rows": (JSON, MISP, STIX),
}

#: The keys that a list has no use for, whose format says what is in it.
_ROWS_ALONE: Final = (
    "fields",
    "empty",
    "name",
    "indicators",
    "properties",
    "filters",
    "lower",
    "verdict",
    "needs",
    "substring",
    "plain",
    "valid_until",
    "last_seen",
    "keep_days",
)


def read_layout(given: Any, around: Surroundings) -> Layout:
    """
    The layout that a description's keys make, with what its format brings along.

    :param given: the keys, by name.
    :raises Wrong: a key is wrong, or doesn't go together with another.
    """
    form = given.get("format")
    brought = BROUGHT.get(form, {}) if isinstance(form, str) else {}
    layout: Layout = _LAYOUT({**brought, **given}, around)
    for name, formats in _ONLY.items():
        if name in given and layout.format not in formats:
            raise Wrong(f"is for {' and '.join(formats)} alone", name)
    if layout.format == CSV and bool(layout.columns) == layout.header:
        raise Wrong("expected columns, or header = true", "columns")
    if layout.format == JSON and not layout.rows:
        raise Wrong("is missing", "rows")
    if layout.format != WARNINGLIST and not layout.indicators:
        raise Wrong("is missing", "indicators")
    if bool(layout.last_seen) != bool(layout.keep_days):
        raise Wrong("expected last_seen and keep_days together", "keep_days")
    if layout.format == WARNINGLIST:
        for name in _ROWS_ALONE:
            if name in given:
                raise Wrong("is for feeds, not for warninglists", name)
    known = _fields_of(layout)
    for name, at in _named(layout):
        if name in layout.fields:
            if at[0] == "fields":
                raise Wrong(f"expected fields of the file, not {name}", *at)
        elif layout.format in NESTED:
            try:
                path_of(name)
            except ValueError as error:
                raise Wrong(f"expected a path: {error}", *at) from None
        elif known is not None and name not in known:
            raise Wrong(checks.unknown(name, known, "field") + f" as {name}", *at)
    if layout.rows:
        try:
            rows_of(layout.rows)
        except ValueError as error:
            raise Wrong(f"expected a way to rows: {error}", "rows") from None
    return layout


_LAYOUT: Final = table(Layout)


def _fields_of(layout: Layout) -> tuple[str, ...] | None:
    """The fields that a row has; None when only the file can tell."""
    if layout.format == LINES:
        groups = compiled(layout.pattern).groupindex if layout.pattern else ()
        return ("line", *groups, *layout.fields)
    return (*layout.columns, *layout.fields) if layout.columns else None


def _named(layout: Layout) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """Every field that is spoken of, and where."""
    for name, template in layout.fields.items():
        for one in placeholders(template):
            yield one, ("fields", name)
    for number, indicator in enumerate(layout.indicators):
        yield indicator.field, ("indicators", number, "field")
        if indicator.kind:
            yield indicator.kind, ("indicators", number, "kind")
    for name, rule in layout.properties.items():
        for one in filter(None, (rule.field, rule.lat, rule.lng)):
            yield one, ("properties", name)
        for one in placeholders(rule.link):
            yield one, ("properties", name, "link")
    for at, conditions in (
        ("filters", layout.filters),
        ("lower", layout.lower),
        ("needs", layout.needs),
    ):
        for number, each in enumerate(conditions):
            yield each.field, (at, number, "field")
    for one in placeholders(layout.name):
        yield one, ("name",)
    if layout.valid_until:
        yield layout.valid_until, ("valid_until",)
    for number, one in enumerate(layout.last_seen):
        yield one, ("last_seen", number)
