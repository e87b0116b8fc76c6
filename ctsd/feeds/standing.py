"""
How feeds stand: what is on the disk of each, what of it is indexed, how old it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from datetime import UTC, datetime
from typing import Final

from attrs import define, field, frozen

from ctsd.feeds.copies import BadState, BrokenState, Copies
from ctsd.feeds.descriptions import Description
from ctsd.feeds.feed_file import FeedAbout
from ctsd.feeds.feed_state import Copy, FeedState
from ctsd.feeds.reading import made_of
from ctsd.feeds.times import due_secs

#: When a search that lacked feeds is made again, at the earliest and at the latest.
SOON_SECS: Final = 2.0
LATER_SECS: Final = 60.0

#: What is on its way for long is asked for more rarely: each time after so much of that time more.
_LONGER: Final = 0.1

#: Troubles that are told in one line.
TOLD_TROUBLES: Final = 3


@frozen(kw_only=True)
class Standing:
    """
    How a feed stands.

    :ivar records: that are served; None when it was never loaded.
    :ivar dated: the date of what is served, POSIX seconds: when its provider last said that it is
        its newest; 0 when there is nothing.
    :ivar stale: it is older than it should be; its hits say so.
    :ivar away: it can't be asked: never loaded, or too old.
    :ivar loading: it can't be asked only because it is being indexed, whatever its provider says.
    :ivar comes_secs: in how long it may be there, while it is away: it is indexed, or its provider
        is asked by then.
    :ivar trouble: what is wrong; empty when nothing is.
    """

    name: str
    title: str
    required: bool
    records: int | None = None
    dated: float = 0.0
    stale: bool = False
    away: bool = False
    loading: bool = False
    comes_secs: float = LATER_SECS
    trouble: str = ""


@define(eq=False)
class KeptFeed:
    """
    A feed that is on.

    :ivar mark: of the directory, when C{state} was read.
    :ivar misread: why C{state} can't be read.
    :ivar trouble: what is wrong with its index, or with a file of ours.
    :ivar not_before: by the clock: it is not indexed before.
    :ivar unfit: the L{source} that an index was refused for: it is not tried again.
    :ivar brought: what the file of ours was when it was brought, C{seen} at the last look, and
        C{missed} when it could not be brought: C{missed_at}, POSIX seconds.
    """

    description: Description
    copies: Copies
    mark: tuple[int, ...] | None = None
    state: FeedState = field(factory=FeedState)
    misread: str = ""
    trouble: str = ""
    not_before: float = 0.0
    unfit: str = ""
    brought: str = ""
    seen: str = ""
    missed: str = ""
    missed_at: float = 0.0

    @property
    def copy(self) -> Copy | None:
        """The newest good one."""
        return self.state.copy

    def source(self, label: str) -> str:
        """What the index calls the source of this copy: all that decides what is in it."""
        sha256 = self.copy.sha256 if self.copy is not None else ""
        return made_of(self.description, sha256=sha256, label=label)


def about_copy(feed: KeptFeed) -> FeedAbout | None:
    """What an index of a feed's newest copy would say of itself."""
    if feed.copy is None:
        return None
    return FeedAbout(name=feed.description.name, records=feed.copy.records)


def standing_of(feed: KeptFeed, about: FeedAbout | None, *, now: float, started: bool) -> Standing:
    """
    How a feed stands.

    :param about: what is searched of it; None for nothing.
    :param now: POSIX seconds.
    :param started: whether the index that an earlier start has left was looked for.
    """
    description = feed.description
    dated = feed.copy.checked if feed.copy is not None else 0.0
    age_secs = max(0.0, now - dated)
    too_old = age_secs > description.max_age_secs
    own_trouble = feed.misread or feed.trouble
    loading = about is None and (not started or feed.copy is not None) and not own_trouble
    return Standing(
        name=description.name,
        title=description.title,
        required=description.terms.required,
        records=None if about is None else about.records,
        dated=dated,
        stale=about is not None and age_secs > description.stale_secs,
        away=about is None or too_old,
        loading=loading,
        comes_secs=SOON_SECS if loading else _comes_secs(feed, now=now),
        trouble=own_trouble or feed.state.error,
    )


def _comes_secs(feed: KeptFeed, *, now: float) -> float:
    """In how long there may be a copy of a feed."""
    state, provider = feed.state, feed.description.provider
    if feed.misread or feed.trouble:
        return LATER_SECS
    if feed.copy is None and not state.error:
        return SOON_SECS  # nobody has failed to have it yet
    if not provider.url:
        return LATER_SECS
    if state.due > now:
        secs = due_secs(state, provider, now=now) + SOON_SECS
    else:
        # It is being asked: C{tried} was written before, C{due} will be when that is over.
        secs = (now - state.tried) * _LONGER
    return min(max(secs, SOON_SECS), LATER_SECS)


def day_of(secs: float) -> str:
    """The day in UTC of POSIX seconds."""
    return f"{datetime.fromtimestamp(secs, UTC):%Y-%m-%d}"


@frozen(kw_only=True)
class Overview:
    """
    How all feeds stand at a moment, and what follows from that for searches.

    :ivar feeds: each feed, by name.
    :ivar lists: each warninglist, by name.
    :ivar hidden: the names of feeds that are not searched.
    :ivar stale: see L{ctsd.interfaces.feeds.IFeeds}, as C{away} and C{retry_secs}.
    """

    feeds: tuple[Standing, ...]
    lists: tuple[Standing, ...]
    hidden: frozenset[str]
    stale: Mapping[str, str]
    away: tuple[str, ...]
    retry_secs: float

    @classmethod
    def of(
        cls,
        *,
        feeds: Mapping[str, KeptFeed],
        lists: Mapping[str, KeptFeed],
        loaded: Mapping[str, FeedAbout],
        now: float,
        started: bool,
    ) -> Overview:
        """
        How they stand.

        :param loaded: what is searched.
        :param started: see L{standing_of}.
        """
        standings = tuple(
            standing_of(feeds[name], loaded.get(name), now=now, started=started)
            for name in sorted(feeds)
        )
        return cls._with(
            feeds=standings,
            lists=tuple(
                standing_of(one, about_copy(one), now=now, started=True)
                for _, one in sorted(lists.items())
            ),
            hidden=loaded.keys() - feeds.keys(),
        )

    @classmethod
    def _with(
        cls, *, feeds: tuple[Standing, ...], lists: tuple[Standing, ...], hidden: Set[str]
    ) -> Overview:
        away = [one for one in feeds if one.away and one.required]
        return cls(
            feeds=feeds,
            lists=lists,
            hidden=frozenset({one.name for one in feeds if one.away} | hidden),
            stale={one.name: day_of(one.dated) for one in feeds if one.stale and not one.away},
            away=tuple(one.title for one in away),
            retry_secs=min((one.comes_secs for one in away), default=LATER_SECS),
        )

    def of_some(self, is_wanted: Callable[[str], bool]) -> Overview:
        """How only these feeds stand; the others are hidden."""
        others = {one.name for one in self.feeds if not is_wanted(one.name)}
        return self._with(
            feeds=tuple(one for one in self.feeds if one.name not in others),
            lists=self.lists,
            hidden=self.hidden | others,
        )


def read_states(feeds: Sequence[KeptFeed]) -> list[FeedState | BadState | None]:
    """What stands in the feeds' directories, None where nothing has changed. Blocks."""
    found: list[FeedState | BadState | None] = []
    for feed in feeds:
        mark = feed.copies.mark()
        if mark == feed.mark:
            found.append(None)
            continue
        feed.mark = mark
        try:
            found.append(feed.copies.state())
        except BadState as error:
            # What could not be read may be readable at the next look, as it is.
            feed.mark = mark if isinstance(error, BrokenState) else None
            found.append(error)
    return found


def how_old(one: Standing) -> str:
    """Of when a feed is, for people."""
    if not one.dated:
        return "was never loaded"
    return f"is from {day_of(one.dated)}" + (", too old to count" if one.away else "")


def troubles_of(standings: Sequence[Standing]) -> str:
    """What is wrong with feeds, in one line; empty when nothing is."""
    told = [
        f"{one.name}: {one.trouble or how_old(one)}"
        for one in standings
        if one.trouble or (one.away and not one.loading) or one.stale
    ]
    more = len(told) - TOLD_TROUBLES
    return "; ".join(told[:TOLD_TROUBLES]) + (f"; and {more} more" if more > 0 else "")


def described(standings: Sequence[Standing]) -> str:
    """How many feeds and records are searched."""
    searched = [one for one in standings if not one.away]
    records = sum(one.records or 0 for one in searched)
    return f"{len(searched)} of {len(standings)} feeds, {records:,} records"


class Stands:
    """The part of L{ctsd.interfaces.feeds.IFeeds} that says how feeds stand."""

    @property
    def overview(self) -> Overview:
        """How they stand now."""
        raise NotImplementedError

    @property
    def stale(self) -> Mapping[str, str]:
        """See L{ctsd.interfaces.feeds.IFeeds}."""
        return self.overview.stale

    @property
    def away(self) -> tuple[str, ...]:
        """See L{ctsd.interfaces.feeds.IFeeds}."""
        return self.overview.away

    @property
    def retry_secs(self) -> float:
        """See L{ctsd.interfaces.feeds.IFeeds}."""
        return self.overview.retry_secs

    def trouble(self) -> str:
        """See L{ctsd.interfaces.feeds.IFeeds}."""
        return troubles_of(self.overview.feeds)

    def loading(self) -> bool:
        """See L{ctsd.interfaces.feeds.IFeeds}."""
        return any(one.loading for one in self.overview.feeds)

    def describe(self) -> str:
        """See L{ctsd.interfaces.feeds.IFeeds}."""
        return described(self.overview.feeds)
