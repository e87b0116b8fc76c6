"""
The rules in a feed's description: which fields of a row are indicators, which become properties of
the hit, and which rows count.
"""

from __future__ import annotations

import re
from typing import Any, Final

import re2
from attrs import Factory, frozen

from ctsd.artifacts import SHAPES, Shape
from ctsd.config import checks
from ctsd.config.checks import Check, Surroundings, Wrong
from ctsd.config.tables import key, table
from ctsd.model import FILE, PASSWORD

#: What an indicator can be: the types whose value is one text. A file's bytes, a password and a
#: whole e-mail are none.
INDICATOR_TYPES: Final = frozenset(
    {each for each in SHAPES if SHAPES[each] is Shape.STRING}
    - {FILE, PASSWORD, "email", "email.body"}
)

#: Those that most feeds have.
_USUAL: Final = (
    *("net.ip", "net.cidr", "net.name", "net.uri", "hash.md5", "hash.sha1", "hash.sha256"),
    *("email.header.sender_address", "threat.report.cve", "threat.malware.family"),
)

#: In the types of a composite value (C{filename|md5}): a part that is no indicator.
IGNORED: Final = "-"

#: Regular expressions have this much memory, and run in time that is linear in the text (RE2).
_PATTERN_BYTES: Final = 8 << 20

_PLACEHOLDER: Final = re.compile(r"\{([^{}]+)\}")


def compiled(pattern: str) -> Any:
    """
    A regular expression on RE2.

    :raises ValueError: it is none; the message says why.
    """
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_BYTES
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        why = error.args[0] if error.args else ""
        text = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise ValueError(text or "no regular expression") from None


def placeholders(template: str) -> tuple[str, ...]:
    """The names in a template's braces."""
    return tuple(_PLACEHOLDER.findall(template))


def literals(template: str) -> tuple[str, ...]:
    """The texts before, between and behind a template's L{placeholders}."""
    return tuple(_PLACEHOLDER.split(template)[::2])


def any_text(value: object, around: Surroundings) -> str:
    """A string, perhaps an empty one."""
    if not isinstance(value, str):
        raise Wrong(f"expected a string, not {checks.kind(value)}")
    return value


def expression(value: object, around: Surroundings) -> str:
    """A regular expression of RE2."""
    given = checks.text(value, around)
    try:
        compiled(given)
    except ValueError as error:
        raise Wrong(f"expected a regular expression of RE2: {error}") from None
    return given


def one_char(value: object, around: Surroundings) -> str:
    """One character."""
    given = any_text(value, around)
    if len(given) != 1 or given in "\r\n":
        raise Wrong("expected one character")
    return given


def quote_char(value: object, around: Surroundings) -> str:
    """One character, or none."""
    return "" if value == "" else one_char(value, around)


def one_or_more(check: Check, of: str) -> Check:
    """One value, or an array of at least one; it becomes a tuple."""
    several = checks.each(check, at_least=1, of=of)

    def check_all(value: object, around: Surroundings) -> tuple[Any, ...]:
        if isinstance(value, list):
            found: tuple[Any, ...] = several(value, around)
            return found
        return (check(value, around),)

    return check_all


def templates(value: object, around: Surroundings) -> dict[str, str]:
    """A table of templates."""
    if not isinstance(value, dict):
        raise Wrong(f"expected a table, not {checks.kind(value)}")
    for name, given in value.items():
        if not isinstance(given, str) or not placeholders(given):
            raise Wrong("expected a string with {field} in it", name)
    return dict(value)


def _indicator_type(value: object, around: Surroundings) -> str:
    given = checks.text(value, around)
    if given not in INDICATOR_TYPES:
        wrong = checks.unknown(given, INDICATOR_TYPES, "type of indicators")
        raise Wrong(f"{wrong}; usual ones are {', '.join(_USUAL)}")
    return given


def _composite(value: object, around: Surroundings) -> str:
    given = checks.text(value, around)
    parts = given.split("|")
    for part in parts:
        if part != IGNORED:
            _indicator_type(part, around)
    if all(part == IGNORED for part in parts):
        raise Wrong("expected at least one type of indicators in it")
    return given


def _kinds(value: object, around: Surroundings) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Wrong(f"expected a table, not {checks.kind(value)}")
    if not value:
        raise Wrong("expected a table that is not empty")
    found = {}
    for kind, given in value.items():
        try:
            found[kind] = _composite(given, around)
        except Wrong as wrong:
            raise Wrong(wrong.expected, kind) from None
    return found


def _comparable(value: object, around: Surroundings) -> str:
    """A text; true and false are taken as JSON writes them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return any_text(value, around)


_TEXTS: Final = one_or_more(_comparable, "strings")
_NUMBER: Final = checks.amount(-(2.0**53), 2.0**53, "")


@frozen(kw_only=True)
class Indicators:
    """C{[[indicators]]}: where indicators stand in a row, and what they are."""

    field: str = key(checks.text, "The field that holds the indicator")
    type: tuple[str, ...] = key(
        one_or_more(_indicator_type, "types of indicators"),
        "Its artifact type: that of a text, `net.ip`, `hash.sha256`, "
        "`email.header.sender_address`; of several, the first one that it can be. A bare host can "
        "be a URL, too: `net.name` goes before `net.uri`",
        default=(),
        shown="(this or `kind`)",
    )
    kind: str = key(
        checks.text,
        "The field that names what the indicator is; `types` says which type that means",
        default="",
        shown="none",
    )
    types: dict[str, str] = key(  # noqa: RUF009 - no default
        _kinds,
        'With `kind`: the artifact type of each kind, e.g. `{ domain = "net.name" }`; '
        '`"file.name|hash.md5"` takes a composite value apart, `-` drops a part. Rows of other '
        "kinds are left out",
        default=Factory(dict),
        shown="none",
    )
    as_is: bool = key(
        checks.flag,
        "With `type`: whether it is taken whatever it looks like; else a URL must be one, a hash "
        "have its digits",
        default=False,
    )


_INDICATORS: Final = table(Indicators)


def indicators(value: object, around: Surroundings) -> Indicators:
    """One of C{[[indicators]]}."""
    rule: Indicators = _INDICATORS(value, around)
    if bool(rule.type) == bool(rule.kind):
        raise Wrong("expected either type or kind")
    if bool(rule.kind) != bool(rule.types):
        raise Wrong("expected kind and types together")
    if rule.as_is and len(rule.type) != 1:
        raise Wrong("expected one type beside it", "as_is")
    return rule


@frozen(kw_only=True)
class PropertyRule:
    """One of C{properties}: what a property of the hit is made of; exactly one way."""

    field: str = key(checks.text, "The field that it shows", default="", shown="none")
    type: str = key(
        checks.one_of("string", "number", "ip"),
        "With `field`: how it is shown",
        default="string",
    )
    text: str = key(checks.text, "A text, the same for every row", default="", shown="none")
    link: str = key(
        checks.text,
        "A template of a link to a page about the finding, `https://.../{field}`: the only way to "
        "a property that can be clicked",
        default="",
        shown="none",
    )
    lat: str = key(checks.text, "With `lng`: the fields of a place", default="", shown="none")
    lng: str = key(checks.text, "See `lat`", default="", shown="none")


@frozen(kw_only=True)
class Condition:
    """C{[[filters]]}: rows for which this does not hold are left out."""

    field: str = key(checks.text, "The field that is looked at")
    equals: tuple[str, ...] | None = key(
        _TEXTS, "It is this text, or one of these", default=None, shown="none"
    )
    not_equals: tuple[str, ...] | None = key(
        _TEXTS, "It is none of these", default=None, shown="none"
    )
    matches: str | None = key(
        expression, "This RE2 expression is found in it", default=None, shown="none"
    )
    not_matches: str | None = key(
        expression, "This RE2 expression is not found in it", default=None, shown="none"
    )
    at_least: float | None = key(
        _NUMBER, "It is a number, and not below this", default=None, shown="none"
    )
    at_most: float | None = key(
        _NUMBER, "It is a number, and not above this", default=None, shown="none"
    )


#: How bad a hit is; the first one is what a feed's hits are unless it says otherwise.
VERDICTS: Final = ("malicious", "suspicious", "informational")


@frozen(kw_only=True)
class Lower(Condition):
    """C{[[lower]]}: rows for which this holds are less bad than the others."""

    verdict: str = key(checks.one_of(*VERDICTS[1:]), "What the hit says then")
    note: str = key(checks.text, "Why, for the analyst", default="", shown="none")


def condition(cls: type[Condition]) -> Check:
    """One of C{[[filters]]} or C{[[lower]]}."""
    of_table = table(cls)

    def check(value: object, around: Surroundings) -> Condition:
        given: Condition = of_table(value, around)
        tests = (given.equals, given.not_equals, given.matches, given.not_matches)
        if all(one is None for one in (*tests, given.at_least, given.at_most)):
            raise Wrong("expected a condition, e.g. equals or matches")
        return given

    return check


_CONDITION: Final = condition(Condition)


def need(value: object, around: Surroundings) -> Condition:
    """One of C{needs}: the name of a field that must not be empty, or what must hold for one."""
    if isinstance(value, str):
        return Condition(field=checks.text(value, around))
    given: Condition = _CONDITION(value, around)
    return given


_RULE: Final = table(PropertyRule)


def _property(value: object, around: Surroundings) -> PropertyRule:
    if isinstance(value, str):
        return PropertyRule(field=checks.text(value, around))
    rule: PropertyRule = _RULE(value, around)
    ways = [bool(rule.field), bool(rule.text), bool(rule.link), bool(rule.lat or rule.lng)]
    if sum(ways) != 1:
        raise Wrong("expected a field's name, or one of field, text, link, lat and lng")
    if bool(rule.lat) != bool(rule.lng):
        raise Wrong("expected lat and lng together")
    if rule.link and not re.fullmatch(r"https?://[^\s/{}]+/\S*", rule.link):
        raise Wrong("expected a link to a page of a fixed host, https://host/...", "link")
    return rule


def properties(value: object, around: Surroundings) -> dict[str, PropertyRule]:
    """The table C{properties}."""
    if not isinstance(value, dict):
        raise Wrong(f"expected a table, not {checks.kind(value)}")
    rules = {}
    for name, given in value.items():
        if not name.strip() or len(name) > 80:
            raise Wrong("expected a name of 1 to 80 characters", name)
        try:
            rules[name] = _property(given, around)
        except Wrong as wrong:
            raise Wrong(wrong.expected, name, *wrong.at) from None
    return rules
