"""
Some of the feeds that are on: those that no other searcher has to itself, or one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from zope.interface import implementer

from ctsd.feeds.standing import Overview, Stands
from ctsd.interfaces.feeds import IFeeds
from ctsd.model import JSON, Artifact
from ctsd.records import Derived, FeedMatches, Indexed, LookupLimits

if TYPE_CHECKING:
    from ctsd.feeds.serving import Feeds


@implementer(IFeeds)
class SomeFeeds(Stands):
    """A part of all feeds; see L{IFeeds} for what it does."""

    def __init__(self, feeds: Feeds, is_wanted: Callable[[str], bool]) -> None:
        """
        :param is_wanted: whether a feed, by its name, is one of these; always the same.
        """
        self._feeds = feeds
        self._is_wanted = is_wanted
        self._whole = feeds.overview
        self._part = self._whole.of_some(is_wanted)

    @property
    def overview(self) -> Overview:
        """How they stand."""
        # Made anew only when the whole was: no search pays for it.
        if self._whole is not self._feeds.overview:
            self._whole = self._feeds.overview
            self._part = self._whole.of_some(self._is_wanted)
        return self._part

    @property
    def limits(self) -> LookupLimits:
        """See L{IFeeds}."""
        return self._feeds.limits

    def beside(self, *, asked: frozenset[str]) -> IFeeds:
        """See L{IFeeds}."""
        return self

    def find(
        self,
        *,
        artifact: Artifact,
        derived: Iterable[Derived] = (),
        limit: int,
        left_out: Callable[[str, str, str], object],
    ) -> tuple[FeedMatches, ...]:
        """See L{IFeeds}."""
        return self._feeds.find(
            artifact=artifact,
            derived=derived,
            limit=limit,
            left_out=left_out,
            hidden=self.overview.hidden,
        )

    def has_nothing(self, *, type: str, value: JSON) -> bool:
        """See L{IFeeds}."""
        return self._feeds.has_nothing(type=type, value=value)

    def mark(self, *, feed: str, record: Indexed) -> str:
        """See L{IFeeds}."""
        return self._feeds.mark(feed=feed, record=record)


class Sharing:
    """Which feeds searchers have to themselves, and what that leaves to all others."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self._owners: list[tuple[str, str]] = []
        self._rests: dict[frozenset[str], SomeFeeds] = {}

    def alone(self, feed: str, searcher: str) -> IFeeds:
        """
        One feed, which L{beside} leaves from now on to a searcher of its own.

        :param searcher: its name.
        """
        self._owners.append((feed, searcher))
        return SomeFeeds(self._feeds, lambda name: name == feed)

    def beside(self, asked: frozenset[str]) -> IFeeds:
        """See L{IFeeds}."""
        if not self._owners:
            return self._feeds
        theirs = frozenset(feed for feed, searcher in self._owners if searcher in asked)
        if not theirs:
            return self._feeds
        rest = self._rests.get(theirs)
        if rest is None:
            rest = self._rests[theirs] = SomeFeeds(self._feeds, lambda name: name not in theirs)
        return rest
