"""
The part of a feed's description that is about its provider: where the feed comes from, how often
it may be asked for, what is believed of it, and under which terms.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import Factory, frozen

from ctsd.config import checks
from ctsd.config.checks import Surroundings, Wrong
from ctsd.config.tables import key as _key
from ctsd.feeds.layout_rules import placeholders

_MIB: Final = 1024**2
_DAY_SECS: Final = 86400.0
_CENTURY_DAYS: Final = 36525.0

#: What may stand in braces in an address or a header.
SECRETS: Final = ("key", "user")
DATE: Final = "date"

_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_URL: Final = re.compile(r"https?://[^\s/?#@\"<>\\^`|]+(?:[/?][^\s\"<>\\^`|]*)?")


def _url(value: object, around: Surroundings) -> str:
    given = checks.text(value, around)
    if not _URL.fullmatch(given) or not _has_place(given):
        raise Wrong("expected a URL, https://host/..., without a user and a password in it")
    if "{key}" in urlsplit(given).netloc:
        raise Wrong("expected {key} in the path or the query: a host's name is no secret")
    for name in placeholders(given):
        if name not in (*SECRETS, DATE):
            raise Wrong(f"expected {{key}}, {{user}} or {{date}} in braces, not {{{name}}}")
    return given


def _has_place(url: str) -> bool:
    """Whether its host and its port can be told."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _headers(value: object, around: Surroundings) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Wrong(f"expected a table, not {checks.kind(value)}")
    for name, given in value.items():
        if not _HEADER.fullmatch(name):
            raise Wrong("expected the name of a header", name)
        if not isinstance(given, str) or not given.isascii() or not given.isprintable():
            raise Wrong("expected a string of printable ASCII", name)
        for one in placeholders(given):
            if one not in SECRETS:
                raise Wrong(f"expected {{key}} or {{user}} in braces, not {{{one}}}", name)
    return dict(value)


def _secret(value: object, around: Surroundings) -> str:
    """What L{ctsd.config} has made of C{{ env = "NAME" }} or C{{ file = "PATH" }}."""
    return checks.text(value, around)


def _secs(minimum: float, about: str, default: float) -> Any:
    check = checks.amount(minimum, _CENTURY_DAYS * _DAY_SECS, "seconds")
    return _key(check, about, default=default)


_STATUS: Final = checks.whole(400, 599)


@frozen(kw_only=True)
class Terms:
    """What people should know of a feed, and what they decide about it."""

    enabled: bool | None = _key(
        checks.flag,
        "Whether it is downloaded and asked",
        default=None,
        shown="`false` in the catalogue, `true` for one's own",
    )
    title: str = _key(checks.text, "What hits call it", default="", shown="its name")
    required: bool = _key(
        checks.flag,
        "Whether a scan stays open while this feed can't be asked",
        default=True,
    )
    licence: str = _key(
        checks.text, "Its licence or terms: a word, or a link", default="", shown="none"
    )
    credit: str = _key(
        checks.text, "Whom its hits have to name; a property of each", default="", shown="none"
    )
    commercial_use: bool = _key(checks.flag, "Whether its terms allow commercial use", default=True)
    terms: str = _key(
        checks.one_of("accepted"),
        'Without `commercial_use`, it is on with `"accepted"` alone',
        default="",
        shown="none",
    )
    on_warninglist: str = _key(
        checks.one_of("leave out", "mark"),
        "What becomes of a hit whose indicator a warninglist has",
        default="leave out",
    )
    max_age_days: float | None = _key(
        checks.amount(0.01, _CENTURY_DAYS, "days"),
        "When the newest good copy is older, nothing in it counts, and the feed is away",
        default=None,
        shown="7 for addresses, 30 for all else; `file` and warninglists: for ever",
    )


@frozen(kw_only=True)
class Provider:
    """Where a feed comes from, what its provider wants, and what is believed of it."""

    url: str = _key(
        _url,
        "Its address; `{key}` and `{user}` stand for these, `{date}` for the day in UTC. With "
        "`misp` the directory of `manifest.json`, with `taxii` the collection, or what has "
        "`collection`",
        default="",
        shown="(this or `file`)",
    )
    file: Path | None = _key(  # noqa: RUF009 - no default
        checks.path,
        "A file that somebody else keeps current, instead of `url`",
        default=None,
        shown="none",
    )
    taxii: bool = _key(
        checks.flag, "`stix`: whether it is a collection of TAXII 2.1", default=False
    )
    collection: str = _key(
        checks.text,
        "`taxii`: the collection's id, alias or title, where `url` is the server's discovery or an "
        "API root",
        default="",
        shown="none",
    )
    page_objects: int = _key(
        checks.whole(0, 1_000_000),
        "`taxii`: how many objects are asked for at once; 0 leaves that to the server",
        default=1000,
    )
    whole_every_secs: float = _secs(
        0.0,
        "`taxii`: how often the whole collection is fetched; in between, what was added to it",
        _DAY_SECS,
    )
    headers: dict[str, str] = _key(  # noqa: RUF009 - no default
        _headers,
        "Sent along; `{key}` and `{user}` stand for these",
        default=Factory(dict),
        shown="none",
    )
    key: str = _key(
        _secret,
        'A secret: `{ env = "NAME" }` or `{ file = "PATH" }`',
        default="",
        shown="none",
        hidden=True,
    )
    user: str = _key(checks.user, "A user's name", default="", shown="none")
    password: str = _key(
        _secret,
        "With `user`: of HTTP Basic; written as `key` is",
        default="",
        shown="none",
        hidden=True,
    )
    insecure_http: bool = _key(checks.flag, "Whether `http:` will do", default=False)
    internal: bool = _key(
        checks.flag, "Whether the server may have a private or loopback address", default=False
    )
    date_back_days: int = _key(
        checks.whole(0, 30),
        "With `{date}`: how many days back the newest file may be",
        default=1,
    )
    every_secs: float = _secs(1.0, "How often it is asked for", _DAY_SECS)
    min_interval_secs: float = _secs(
        0.0, "The provider's own limit: never more often than this, whatever happens", 300.0
    )
    over_quota: tuple[int, ...] = _key(
        checks.each(_STATUS, of="statuses"),
        "Statuses, beside 429, that mean that it was asked too often",
        default=(),
    )
    max_bytes: int = _key(checks.whole(1), "A larger file is refused", default=512 * _MIB)
    max_unpacked_bytes: int = _key(
        checks.whole(1), "As is one with more in it, unpacked", default=4096 * _MIB
    )
    max_ratio: float = _key(
        checks.amount(1.0, 100_000.0, "times"),
        "As is one that grows by more than this when it is unpacked",
        default=200.0,
    )
    min_rows: int = _key(checks.whole(0), "As is one with fewer records", default=1)
    min_share: float = _key(
        checks.amount(0.0, 1.0, "of the records"),
        "As is one with less than this share of the last good copy's records",
        default=0.5,
    )
    max_refused_share: float = _key(
        checks.amount(0.0, 1.0, "of the rows"),
        "As is one in which more than this share of the rows can't be read",
        default=0.1,
    )
