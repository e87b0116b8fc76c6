"""Indicators: what searchers ask of feeds and of the local database's index."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

from ctsd.model import JSON, Artifact
from ctsd.records import Derived, FeedMatches, Indexed, Matches, Within

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


class IRecords(Interface):
    """Indicators that can be searched in microseconds, without a thread and without the store."""

    def find(
        *,
        type: str,
        value: JSON,
        limit: int,
        wanted: Callable[[Indexed], bool] | None = None,
    ) -> Matches:
        """
        The records that match a value as protocol.md rules it. Records of one threat of the
        local database count once.

        :param wanted: leaves out the records for which it is false. When it leaves out very many,
            not all are looked at: C{Matches.at_least} with nothing found.
        :raises SearchLater: nothing was ever loaded.
        """

    def trouble() -> str:
        """Empty when all is well; else what is wrong (a file is missing, the build failed)."""

    def loading() -> bool:
        """Whether nothing was loaded yet, but may soon be."""

    def failed() -> bool:
        """Whether nothing was loaded yet, and waiting alone does not help."""

    def describe() -> str:
        """For people: rows, their date."""


class IThreats(IRecords):
    """
    The local database, which has the normal forms and derived keys of feeds: what equals a value
    comes first, then what contains it, then what derives from it (C{docs/matching.md}).
    """

    limits = Attribute("what bounds a search: L{ctsd.records.LookupLimits}")

    def find_within(
        *,
        derived: Iterable[Derived],
        limit: int,
        wanted: Callable[[Indexed], bool] | None = None,
    ) -> Matches:
        """
        The threats that are found by what is within an artifact (L{IContents}), by their ids: the
        hit of each says how.

        :param wanted: see L{find}.
        :raises SearchLater: as L{find}.
        """

    def is_empty() -> bool:
        """Whether it is certain that nothing can be found. Costs next to nothing."""


class IIndicators(Interface):
    """
    The indicators of all feeds, searched together in microseconds, without a thread and without
    the store.
    """

    def find(
        *,
        artifact: Artifact,
        derived: Iterable[Derived] = (),
        limit: int,
        wanted: Callable[[str, Indexed], bool] | None = None,
        hidden: Container[str] = (),
    ) -> tuple[FeedMatches, ...]:
        """
        What the feeds have on an artifact: nothing of those that have nothing, the others by name.

        :param derived: what else derives from the artifact, in the order in which it shall be
            found: the indicators within a text or a message (L{ctsd.feeds.contents}), a file's
            hashes (L{ctsd.artifacts.derived}).
        :param limit: so many records of each feed; the others are counted.
        :param wanted: leaves out the records for which it is false; of those that are counted
            alone it is not asked. Called with the feed's name.
        :param hidden: the names of feeds that are left out: those that are too old.
        :raises SearchLater: nothing was ever loaded.
        """

    def has_nothing(*, type: str, value: JSON) -> bool:
        """Whether it is certain that L{find} would find nothing; false when in doubt."""


class IFeeds(Interface):
    """
    The feeds that are on, as a searcher sees them.
    """

    stale = Attribute(
        "of the feeds that are older than they should be, and not yet too old: the date of what"
        " is searched, by name"
    )
    away = Attribute("the titles of required feeds that can't be asked: never loaded, or too old")
    retry_secs = Attribute("when to ask those again")
    limits = Attribute("what bounds a search: L{ctsd.records.LookupLimits}")

    def find(
        *,
        artifact: Artifact,
        derived: Iterable[Derived] = (),
        limit: int,
        left_out: Callable[[str, str, str], object],
    ) -> tuple[FeedMatches, ...]:
        """
        See L{IIndicators.find}; without the feeds that are too old, and without what warninglists
        and people say is no finding. Nothing while nothing is loaded: L{away} says that.

        :param left_out: told the feed, the artifact type and the list of each such record.
        :raises SearchLater: they are being stopped.
        """

    def has_nothing(*, type: str, value: JSON) -> bool:
        """
        Whether it is certain that L{find} would find nothing, and all that are required can be
        asked. Most artifacts are in no feed: this costs less than a search. False when in doubt.
        """

    def beside(*, asked: frozenset[str]) -> IFeeds:
        """
        These feeds, without those that a searcher has to itself which is asked, too: it tells
        what they have.

        :param asked: the names of the searchers of a scan.
        """

    def mark(*, feed: str, record: Indexed) -> str:
        """The warninglist that a hit is to be marked with; empty when it isn't."""

    def trouble() -> str:
        """What is wrong with feeds, for operators; empty when nothing is."""

    def loading() -> bool:
        """Whether there is a feed that can't be asked only because it is being indexed."""

    def describe() -> str:
        """How many feeds and records are searched."""


class IContents(Interface):
    """
    What stands within artifacts: the indicators in a text or a message, what is known of a file.
    """

    def within_now(*, artifact: Artifact) -> Within | None:
        """What L{within} says, if that takes but a fraction of a millisecond; else None."""

    def within(*, artifact: Artifact) -> Deferred[Within]:
        """
        What is in an artifact; of one in which nothing can be, nothing. Fires at once where
        L{within_now} knows it.

        :raises OSError: (in the Deferred) the artifact's file can't be read.
        """
