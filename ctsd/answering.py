"""
What searchers answer, what they make of what an index has found, and how they say that not all was
looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from attrs import field, frozen

from ctsd.model import JSON, EncodedHit, Hit, Suppressed
from ctsd.properties import string
from ctsd.records import Matches
from ctsd.shown import noted

#: More hits than these are counted, not shown.
MAX_HITS: Final = 10

#: What a hit calls that not all was looked at.
INCOMPLETE_PROPERTY: Final = "Incomplete"

#: What an index has not looked at, when nothing is known of what it has.
_BEYOND: Final = "what is known beyond the threats that were left out"


def _names(given: Iterable[str] | str) -> tuple[str, ...]:
    if isinstance(given, str):
        # As a sequence it would be told letter by letter.
        return (given,) if given else ()
    return tuple(given)


@frozen
class Found:
    """
    Hits, and how many there are beyond those.

    :ivar hits: at most as many as are worth showing (10); L{Hit}s, or what an index has made of
        them (L{ctsd.records.Indexed.hit}).
    :ivar more: how many further findings there are.
    :ivar at_least: whether C{more} is a lower bound.
    :ivar missing: the names of the sources that could not be asked, where the searcher stands for
        several; it is then asked again in C{after_secs}, and its hits so far are shown at once. A
        text is one name.
    :ivar suppressed: what was found and is no hit, as much of it as is kept with the scan;
        C{suppressed_more} counts the rest.
    """

    hits: tuple[Hit | EncodedHit, ...] = ()
    more: int = 0
    at_least: bool = False
    missing: tuple[str, ...] = field(default=(), converter=_names)
    after_secs: float = 60.0
    suppressed: tuple[Suppressed, ...] = ()
    suppressed_more: int = 0


def answer_of(
    matches: Matches, *, cut: tuple[str, ...] = (), tells_cut: bool = True
) -> Found | None:
    """
    What an index has found, as the answer of a search.

    :param cut: what of the artifact was not looked at: see L{ctsd.records.Within}. The last hit
        says so, and so it does when the index has not looked at all that it has.
    :param tells_cut: whether a hit says that when there is no other one; see
        L{ctsd.records.LookupLimits}.
    """
    hits = tuple([record.hit for record in matches.records])
    if not hits:
        if matches.at_least and not matches.more:
            cut += (_BEYOND,)
        if not matches.more:
            told = told_of(cut) if tells_cut else ()
            return Found(told) if told else None
    return Found(with_cut(hits, cut), matches.more, matches.at_least)


def told_of(cut: tuple[str, ...]) -> tuple[Hit, ...]:
    """The hit that says only that not all was looked at; none when all was."""
    return (Hit((string(INCOMPLETE_PROPERTY, _not_looked_at(cut)),)),) if cut else ()


def with_cut(hits: Sequence[EncodedHit], cut: tuple[str, ...]) -> tuple[EncodedHit, ...]:
    """The same hits, the last of which says what was not looked at."""
    if not cut or not hits:
        return tuple(hits)
    told = EncodedHit(noted(hits[-1], INCOMPLETE_PROPERTY, _not_looked_at(cut)))
    return (*hits[:-1], told)


def some_recipients(type: str, value: JSON, most: int) -> tuple[JSON, tuple[str, ...]]:
    """
    As many of an e-mail's recipients as may be looked for; and what was cut. Any other value is
    given back.
    """
    if (
        type != "email.header.to"
        or not isinstance(value, Sequence)
        or isinstance(value, str)
        or len(value) <= most
    ):
        return value, ()
    return value[:most], (f"recipients beyond {most:,}",)


def _not_looked_at(cut: tuple[str, ...]) -> str:
    return f"not looked at: {'; '.join(cut)}"
