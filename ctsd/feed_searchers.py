"""
The feeds as searchers: C{feeds} looks an artifact up, C{feeds_text} what stands within a text or a
message.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Final

from attrs import frozen
from twisted.logger import Logger

from ctsd.artifacts import SHAPES
from ctsd.interfaces import IFeeds
from ctsd.model import FILE, JSON, PASSWORD, Artifact, EncodedHit, File
from ctsd.records import FeedMatches, Matched, Within
from ctsd.searcher import BaseArtifactSearch, Found, SearchContext, SearcherSetup
from ctsd.shown import noted

#: More hits than these are counted, not shown.
MAX_HITS: Final = 10

#: What indicators are looked for within.
_TEXTS: Final = frozenset({"email", "email.body", "string", FILE})

_LOOKED_UP: Final = frozenset(SHAPES) - {"email", "email.body", FILE, PASSWORD}


class FeedsArtifactSearch(BaseArtifactSearch):
    """
    Looks an artifact up in all feeds that are on, at once.

    Each hit names its feed. One that was found through a part of the artifact says so, and so does
    one of a feed that is older than it should be. While a required feed can't be asked the hits of
    the others are shown, and the scan stays open.
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

    async def search(self, artifact_type: str, search_term: JSON, **kwargs: Any) -> Found | None:
        """The records of all feeds that the artifact finds."""
        feeds = self._feeds
        found = feeds.find(
            artifact=Artifact(artifact_type, search_term),
            limit=MAX_HITS,
            left_out=_LeftOut(kwargs.get("context")),
        )
        if not found and not feeds.away:
            return None
        return _answer(feeds, found)


class FeedsTextArtifactSearch(BaseArtifactSearch):
    """
    Looks up the addresses, hosts, URLs, hashes and CVEs within a text, an e-mail, or an uploaded
    message. Of one that is too long to be looked at whole, the last hit says that there may be
    more, and the log tells it in any case.
    """

    name = "feeds_text"

    _log: ClassVar[Logger] = Logger()
    _feeds: IFeeds

    def start(self, setup: SearcherSetup) -> None:
        """Get the feeds."""
        self._feeds = setup.feeds()

    @classmethod
    def supports(cls, artifact_type: str) -> bool:
        """Texts and files."""
        return artifact_type in _TEXTS

    async def search(self, artifact_type: str, search_term: Any, **kwargs: Any) -> Found | None:
        """The records of all feeds that something within the artifact finds."""
        artifact = Artifact(artifact_type, search_term)
        if artifact_type == FILE:
            artifact = Artifact(FILE, search_term.name, _file(search_term))
        within: Within = await self._feeds.within(artifact=artifact)
        context: SearchContext | None = kwargs.get("context")
        if within.is_cut:
            self._log.warn(
                "Scan {scan_id}: the artifact is too long, its end was not looked at",
                scan_id=_id_of(context),
            )
        if not within.derived:
            return None
        found = self._feeds.find(
            artifact=Artifact("string", ""),
            derived=within.derived,
            limit=MAX_HITS,
            left_out=_LeftOut(context),
        )
        return _answer(self._feeds, found, is_cut=within.is_cut)


@frozen
class _LeftOut:
    """Notes in the log what a scan has found that is no hit; no values."""

    _log: ClassVar[Logger] = Logger()

    _context: SearchContext | None

    def __call__(self, feed: str, type: str, by: str) -> None:
        """A record was left out."""
        self._log.info(
            "Scan {scan_id}: a {type} of feed {feed} is no hit: {by}",
            scan_id=_id_of(self._context),
            type=type,
            feed=feed,
            by=by,
        )


def _id_of(context: SearchContext | None) -> str:
    return context.id if context is not None else "-"


def _file(opened: Any) -> File:
    """What a searcher is given of a file, as the artifact has it."""
    return File(
        path=Path(opened.path),
        name=opened.name,
        size=opened.size,
        md5=opened.md5,
        sha1=opened.sha1,
        sha256=opened.sha256,
        content_type=opened.content_type,
    )


def _answer(feeds: IFeeds, found: tuple[FeedMatches, ...], *, is_cut: bool = False) -> Found:
    """
    What is shown of all that was found: what equals the artifact before what was found through a
    part of it; the first of each feed before the second of any.
    """
    ordered = [
        (bool(matched.how), number, each.feed, matched)
        for each in found
        for number, matched in enumerate(each.matched)
    ]
    ordered.sort(key=lambda each: each[:3])
    hits = tuple(_hit(feeds, feed, matched) for _, _, feed, matched in ordered[:MAX_HITS])
    more = sum(each.more for each in found) + len(ordered) - len(hits)
    missing = f"{', '.join(feeds.away)} can't be asked" if feeds.away else ""
    at_least = any(each.at_least for each in found) or (is_cut and bool(hits))
    return Found(hits, more, at_least, missing, feeds.retry_secs)


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
