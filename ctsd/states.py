"""
How searchers and searches stand, for people.
"""

from __future__ import annotations

from datetime import UTC, datetime

from attrs import frozen

from ctsd.model import Outcome


@frozen
class Failing:
    """
    A searcher that could not be asked, from some search on; in POSIX seconds.

    :ivar since: when that began.
    :ivar last: when that was so the last time: nobody may have tried since.
    """

    since: float
    last: float

    def __str__(self) -> str:
        """What people are told. Why it fails is for the log alone."""
        last = "" if self.last - self.since < 1 else f", the last time {_date(self.last)}"
        return f"could not be asked since {_date(self.since)}{last}; the log says why"


@frozen(kw_only=True)
class SearcherState:
    """
    A searcher, for people.

    :ivar mode: C{sync}, C{async}, or empty when it is not listed.
    :ivar why_off: empty when it is on.
    :ivar broken: it is off because something is wrong with it, not because nobody wants it.
    :ivar required: whether a scan stays open while it could not be asked.
    :ivar loading: it can't answer yet only because something is still loading.
    :ivar trouble: what is wrong with it; empty when all is well.
    :ivar failing: set when it could not be asked the last time.
    :ivar about: what it says of itself, e.g. how many records it has.
    """

    name: str
    mode: str = ""
    why_off: str = ""
    broken: bool = False
    required: bool = True
    loading: bool = False
    trouble: str = ""
    failing: Failing | None = None
    about: str = ""


@frozen(kw_only=True)
class SearchState:
    """
    How one searcher's part of a scan stands, for people.

    :ivar outcome: the newest one that may be shown; None before the first.
    :ivar running: whether it is being asked right now.
    :ivar due_in_secs: in how long it is asked again; None when it is not.
    """

    searcher: str
    required: bool = True
    outcome: Outcome | None = None
    tries: int = 0
    running: bool = False
    due_in_secs: float | None = None


def _date(secs: float) -> str:
    try:
        return f"{datetime.fromtimestamp(secs, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return "some time"
