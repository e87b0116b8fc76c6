"""
How feeds stand by what is on the disk, for commands beside the daemon: nothing is searched here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from zope.interface import implementer

from ctsd.feeds.copies import BadState, Copies
from ctsd.feeds.descriptions import Description
from ctsd.feeds.indexing import trouble_of
from ctsd.feeds.own_file import why_unreadable
from ctsd.feeds.standing import (
    KeptFeed,
    Standing,
    about_copy,
    described,
    read_states,
    standing_of,
    troubles_of,
)
from ctsd.interfaces.feeds import IFeeds
from ctsd.model import JSON, Artifact
from ctsd.records import Derived, FeedMatches, Indexed, LookupLimits


@implementer(IFeeds)
class FeedsOnDisk:
    """
    The feeds that are on, as the daemon would find them. Everything in here may block.

    :ivar standings: how each feed stands, by name.
    """

    stale: Mapping[str, str] = {}
    away: tuple[str, ...] = ()
    retry_secs = 60.0
    limits = LookupLimits()

    def __init__(
        self,
        *,
        descriptions: Sequence[Description],
        directory: Path,
        index: Path,
        now: Callable[[], float],
    ) -> None:
        """
        :param descriptions: of the feeds that are on.
        :param directory: has one for each feed.
        :param index: the directory of the index.
        :param now: POSIX seconds.
        """
        feeds = [
            KeptFeed(one, Copies(directory / one.name))
            for one in descriptions
            if not (one.is_warninglist and one.provider.file)
        ]
        for feed, found in zip(feeds, read_states(feeds), strict=True):
            if isinstance(found, BadState):
                feed.misread = str(found)
            elif found is not None:
                feed.state = found
            feed.trouble = why_unreadable(feed.description) or trouble_of(
                index, feed.description, feed.copy
            )
        self.standings: tuple[Standing, ...] = tuple(
            standing_of(feed, about_copy(feed), now=now(), started=True) for feed in feeds
        )

    def find(
        self,
        *,
        artifact: Artifact,
        derived: Iterable[Derived] = (),
        limit: int,
        left_out: Callable[[str, str, str], object],
    ) -> tuple[FeedMatches, ...]:
        """Nothing is searched here."""
        return ()

    def has_nothing(self, *, type: str, value: JSON) -> bool:
        """Nothing is searched here."""
        return False

    def beside(self, *, asked: frozenset[str]) -> IFeeds:
        """Nothing is searched here."""
        return self

    def mark(self, *, feed: str, record: Indexed) -> str:
        """Nothing is searched here."""
        return ""

    def trouble(self) -> str:
        """See L{IFeeds}."""
        return troubles_of(self.standings)

    def loading(self) -> bool:
        """Nothing is loaded here."""
        return False

    def describe(self) -> str:
        """See L{IFeeds}."""
        return described(self.standings)
