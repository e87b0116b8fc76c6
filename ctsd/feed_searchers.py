"""
The feeds as searchers: C{feeds} looks an artifact up, C{feeds_text} what stands within a text or a
message.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from attrs import define, evolve, field
from twisted.logger import Logger

from ctsd.answering import MAX_HITS, Found, some_recipients, told_of, with_cut
from ctsd.artifacts import SHAPES, matches
from ctsd.interfaces.feeds import IFeeds
from ctsd.model import FILE, JSON, PASSWORD, Artifact, EncodedHit, Hit, Suppressed
from ctsd.records import CONTAINS, Derived, FeedMatches, Matched, Within
from ctsd.search_context import SearchContext
from ctsd.searcher import BaseArtifactSearch
from ctsd.searcher_setup import SearcherSetup
from ctsd.shown import noted, safe_text
from ctsd.text_search import TextArtifactSearch, id_of

#: The longest word of who has left a finding out, and why.
MAX_BY_CHARS: Final = 300

_LOOKED_UP: Final = frozenset(SHAPES) - {"email", "email.body", FILE, PASSWORD}


class FeedsArtifactSearch(BaseArtifactSearch):
    """
    Looks an artifact up in all feeds that are on, at once.

    Each hit names its feed. One that was found through a part of the artifact says so, and so does
    one of a feed that is older than it should be. While a required feed can't be asked the hits of
    the others are shown, and the scan stays open. What is no hit, by a warninglist or by one's own
    allow list, is kept with the scan.
    """

    name = "feeds"
    local = True

    _feeds: IFeeds

    def start(self, setup: SearcherSetup) -> None:
        """Get the feeds."""
        self._feeds = setup.feeds()

    def trouble(self) -> str:
        """What is wrong with them."""
        return self._feeds.trouble()

    def loading(self) -> bool:
        """Whether one of them is being indexed for the first time."""
        return self._feeds.loading()

    def describe(self) -> str:
        """How many there are."""
        return self._feeds.describe()

    @classmethod
    def supports(cls, artifact_type: str) -> bool:
        """Whatever can be an indicator, or has one as a part."""
        return artifact_type in _LOOKED_UP

    def finds_nothing(self, artifact_type: str, search_term: JSON) -> bool:
        """Whether none of the feeds has anything of it, and none is away."""
        return self._feeds.has_nothing(type=artifact_type, value=search_term)

    async def search(self, artifact_type: str, search_term: JSON, **kwargs: Any) -> Found | None:
        """
        The records of all feeds that the artifact finds; but for feeds that a searcher has to
        itself which is asked, too.
        """
        context: SearchContext | None = kwargs.get("context")
        feeds = self._feeds if context is None else self._feeds.beside(asked=context.asked)
        return look_up(feeds, artifact_type, search_term, context)


def look_up(
    feeds: IFeeds,
    artifact_type: str,
    search_term: JSON,
    context: SearchContext | None,
    *,
    tells_parts: bool = True,
) -> Found | None:
    """
    The records of feeds that an artifact finds.

    :param feeds: such as L{SearcherSetup.feed}.
    :param tells_parts: whether a hit says that its indicator only contains the artifact; what the
        local database would find, too (L{ctsd.matching}), else says nothing of how it was found.
    :raises SearchLater: the feeds are being stopped.
    """
    search_term, cut = some_recipients(artifact_type, search_term, feeds.limits.max_recipients)
    left_out = _LeftOut(context, feeds.limits.max_suppressed)
    artifact = Artifact(artifact_type, search_term)
    found = feeds.find(artifact=artifact, limit=MAX_HITS, left_out=left_out)
    if not found and not feeds.away and not cut and not left_out.suppressed:
        return None
    if not tells_parts:
        found = tuple([_quiet(each, artifact) for each in found])
    return _answer(feeds, found, left_out, cut)


def _quiet(found: FeedMatches, artifact: Artifact) -> FeedMatches:
    """What was found, with nothing said of how where the rules of substring find it, too."""
    matched = [
        Matched(each.record)
        if each.record.type == artifact.type
        and matches(artifact.type, artifact.value, each.record.value)
        else each
        for each in found.matched
    ]
    return evolve(found, matched=tuple(matched))


class FeedsTextArtifactSearch(TextArtifactSearch):
    """Looks up in the feeds what stands within an artifact."""

    name = "feeds_text"
    beside = FeedsArtifactSearch.name

    _feeds: IFeeds

    def start(self, setup: SearcherSetup) -> None:
        """Get the feeds."""
        self._feeds = setup.feeds()
        super().start(setup)

    def loading(self) -> bool:
        """Whether one of them is being indexed for the first time."""
        return self._feeds.loading()

    def has_none(self, derived: tuple[Derived, ...]) -> bool:
        """Whether none of the feeds has anything of these, and none is away."""
        return all(
            self._feeds.has_nothing(type=each.artifact.type, value=each.artifact.value)
            for each in derived
        )

    def look_up(
        self, artifact: Artifact, within: Within, context: SearchContext | None
    ) -> Found | None:
        """The records of all feeds that something within the artifact finds."""
        feeds = self._feeds
        if not within.derived:
            told = told_of(within.cut) if feeds.limits.tells_cut else ()
            return Found(told) if told else None
        left_out = _LeftOut(context, feeds.limits.max_suppressed)
        found = feeds.find(
            artifact=Artifact("string", ""),
            derived=within.derived,
            limit=MAX_HITS,
            left_out=left_out,
        )
        return _answer(feeds, found, left_out, within.cut)


@define
class _LeftOut:
    """
    Collects what a search has found that is no hit, for the scan's history and the log.

    :ivar suppressed: in the order in which it was found, each once.
    :ivar more: how many findings are not among these.
    """

    _log: ClassVar[Logger] = Logger()

    _context: SearchContext | None
    _limit: int
    suppressed: dict[Suppressed, None] = field(factory=dict)
    more: int = 0

    def __call__(self, feed: str, type: str, by: str) -> None:
        """A record was left out."""
        one = Suppressed(feed, type, safe_text(by, MAX_BY_CHARS))
        if one in self.suppressed:
            return
        if len(self.suppressed) >= self._limit:
            self.more += 1
            return
        self.suppressed[one] = None
        self._log.info(
            "Scan {scan_id}: a {type} of feed {feed} is no hit: {by}",
            scan_id=id_of(self._context),
            type=type,
            feed=feed,
            by=by,
        )


def _answer(
    feeds: IFeeds, found: tuple[FeedMatches, ...], left_out: _LeftOut, cut: tuple[str, ...]
) -> Found:
    """
    What is shown of all that was found: what equals the artifact before what contains it, and that
    before what was found through a part of it; the first of each feed before the second of any.
    Hits that say the same, as of a row that a feed has twice, are shown once.

    :param cut: see L{Within}. While a feed can't be asked, nobody knows yet that nothing will be
        found, so that this is not told by a hit of its own.
    """
    cut += tuple(
        f"what {each.feed} has beyond the findings that were left out"
        for each in found
        if each.at_least and not each.matched
    )
    ordered = [
        (_rank(matched.how), number, each.feed, matched)
        for each in found
        for number, matched in enumerate(each.matched)
    ]
    ordered.sort(key=lambda each: each[:3])
    shown: dict[EncodedHit, None] = {}
    looked_at = 0
    for _, _, feed, matched in ordered:
        if len(shown) == MAX_HITS:
            break
        looked_at += 1
        shown[_hit(feeds, feed, matched)] = None
    hits: tuple[Hit | EncodedHit, ...] = with_cut(tuple(shown), cut)
    more = sum(each.more for each in found) + len(ordered) - looked_at
    if not hits and not feeds.away and feeds.limits.tells_cut:
        hits = told_of(cut)
    return Found(
        hits,
        more,
        any(each.at_least for each in found),
        feeds.away,
        feeds.retry_secs,
        tuple(left_out.suppressed),
        left_out.more,
    )


def _rank(how: str) -> int:
    return 0 if not how else 1 if how == CONTAINS else 2


def _hit(feeds: IFeeds, feed: str, matched: Matched) -> EncodedHit:
    hit: bytes = matched.record.hit
    if matched.how:
        hit = noted(hit, "Matched", matched.how)
    listed = feeds.mark(feed=feed, record=matched.record)
    if listed:
        hit = noted(hit, "Warninglist", listed)
    stale = feeds.stale.get(feed)
    if stale is not None:
        hit = noted(hit, "stale since", stale)
    return EncodedHit(hit)
