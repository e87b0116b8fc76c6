"""C{[matching]}: how much of an artifact is looked up, and how much of it is told."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from ctsd.config import checks
from ctsd.config.tables import key as _key

_MIB = 1024**2
#: What is looked up is looked up in the reactor.
_MAX_COUNT = 10_000


def _count(about: str, default: int, *, at_least: int = 1) -> Any:
    return _key(checks.whole(at_least, _MAX_COUNT), about, default=default)


@frozen(kw_only=True)
class Matching:
    """C{[matching]}."""

    max_text_chars: int = _key(
        checks.whole(1, 1024 * _MIB), "Of a text, so much is searched for indicators", default=_MIB
    )
    max_message_bytes: int = _key(
        checks.whole(1, 1024 * _MIB), "Of an e-mail, so much is read", default=32 * _MIB
    )
    max_parts: int = _count("Of an e-mail, so many parts", 200)
    max_indicators: int = _count("So many indicators in a text or an e-mail are looked up", 256)
    max_recipients: int = _count("So many recipients of an e-mail are looked up", 1000)
    max_certificate_bytes: int = _key(
        checks.whole(1, 64 * _MIB), "A larger file is no certificate", default=_MIB
    )
    max_list_bytes: int = _key(
        checks.whole(1, 1024 * _MIB), "A larger file is no warninglist", default=64 * _MIB
    )
    max_lists: int = _count("So many warninglists are taken from files", 1000)
    max_allowed: int = _key(
        checks.whole(1, 100_000), "So many values can stand in the allow list", default=10_000
    )
    max_counted: int = _count(
        "So many records of a feed, or of the local database, are looked at to count those that"
        " are not shown",
        200,
    )
    max_occurrences: int = _count(
        "So many threats of the local database that contain an artifact are looked at", 2000
    )
    max_derived: int = _count(
        "So many threats of the local database are looked at that something else finds than the"
        " whole artifact",
        500,
    )
    max_passed_over: int = _key(
        checks.whole(1, 100_000),
        "So many threats of the local database are looked at as long as none of them is for the"
        " service that asks; then a hit says that there may be others",
        default=10_000,
    )
    max_suppressed: int = _count(
        "So many findings that are no hits are kept with a scan, of each searcher", 20, at_least=0
    )
