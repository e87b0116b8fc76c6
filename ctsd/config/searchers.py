"""C{[searchers]} and C{[services]}: who is asked, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import field, frozen

from ctsd.config import checks
from ctsd.config.tables import key as _key

_CENTURY_SECS = 36525.0 * 86400


@frozen(kw_only=True)
class SearcherSettings:
    """
    C{[searchers.<name>]}.

    :ivar own: the searcher's own keys, secrets resolved.
    """

    required: bool = _key(
        checks.flag,
        "Whether a scan stays open while this searcher could not be asked",
        default=True,
    )
    timeout_secs: float | None = _key(
        checks.amount(0.001, _CENTURY_SECS, "seconds"),
        "The time limit of one search",
        default=None,
        shown="search_timeout_secs",
    )
    slots: int | None = _key(
        checks.whole(1),
        "Searches at once; each worker gets its part of them, but at least one",
        default=None,
        shown="the searcher's own, often 4",
    )
    own: dict[str, Any] = field(factory=dict, repr=False)


@frozen(kw_only=True)
class Searchers:
    """
    C{[searchers]}: which are asked, and how.

    :ivar tables: the tables C{[searchers.<name>]}, by name.
    """

    sync: tuple[str, ...] = _key(
        checks.each(checks.name, of="searchers"),
        "Searchers whose answer the first answer waits for, up to `post_deadline_secs`",
        default=("internal",),
    )
    async_: tuple[str, ...] = _key(
        checks.each(checks.name, of="searchers"),
        "Searchers that hold the first answer at most `first_answer_secs`",
        default=("phishtank",),
    )
    path: tuple[Path, ...] = _key(
        checks.each(checks.path, of="directories"),
        "Further directories with searchers",
        default=(),
    )
    tables: dict[str, SearcherSettings] = field(factory=dict)


@frozen(kw_only=True)
class ServiceSettings:
    """C{[services.<name>]}: a service of its own at C{/<name>/}."""

    searchers: tuple[str, ...] = _key(
        checks.each(checks.name, at_least=1, of="searchers"),
        "The searchers that it asks, in the order of their hits",
        shown="(required)",
    )
    users: tuple[str, ...] | None = _key(
        checks.each(checks.user, at_least=1, of="users"),
        "The users who may ask it",
        default=None,
        shown="every user",
    )
    threats: str = _key(
        checks.one_of("own", "shared"),
        '`"own"` keeps what its searchers find to itself',
        default="shared",
    )
