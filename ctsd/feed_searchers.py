"""
The feeds as searchers: C{feeds} looks an artifact up, C{feeds_text} what stands within a text or a
message.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from attrs import define, evolve, field
from twisted.logger import Logger

from ctsd.artifacts import SHAPES, derived, matches
from ctsd.interfaces import IFeeds
from ctsd.model import FILE, JSON, PASSWORD, Artifact, EncodedHit, File, Hit, Suppressed
from ctsd.properties import string
from ctsd.records import CONTAINS, FeedMatches, Matched, Within
from ctsd.searcher import BaseArtifactSearch, Found, SearchContext, SearcherSetup
from ctsd.shown import noted, safe_text

#: More hits than these are counted, not shown.
MAX_HITS: Final = 10

#: The longest word of who has left a finding out, and why.
MAX_BY_CHARS: Final = 300

#: What a hit calls that not all was looked at.
_INCOMPLETE: Final = "Incomplete"

#: What indicators are looked for within.
_TEXTS: Final = frozenset({"cert.x509", "email", "email.body", "string", FILE})

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
    cut: tuple[str, ...] = ()
    most = feeds.limits.max_recipients
    if (
        artifact_type == "email.header.to"
        and isinstance(search_term, Sequence)
        and not isinstance(search_term, str)
        and len(search_term) > most
    ):
        search_term, cut = search_term[:most], (f"recipients beyond {most:,}",)
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


class FeedsTextArtifactSearch(BaseArtifactSearch):
    """
    Looks up the addresses, hosts, URLs, hashes and CVEs within a text, an e-mail, or an uploaded
    message, and the fingerprint of an uploaded certificate.

    Of what is too long to be looked at whole, the last hit says what was not looked at. When
    nothing was found in the rest, a hit says only that, for "nothing" would be untrue; it is left
    to the configuration (L{ctsd.records.LookupLimits.tells_cut}), for it turns the artifact red.
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
        context: SearchContext | None = kwargs.get("context")
        if artifact_type == FILE:
            artifact = Artifact(FILE, search_term.name, _file(search_term))
        else:
            file = context.file if context is not None else None
            if artifact_type == "cert.x509" and file is None:
                # The other one looks it up.
                return None
            artifact = Artifact(artifact_type, search_term, file)
        within: Within = await self._feeds.within(artifact=artifact)
        if within.cut:
            self._log.warn(
                "Scan {scan_id}: not looked at: {cut}",
                scan_id=_id_of(context),
                cut="; ".join(within.cut),
            )
        looked_up = within.derived
        if context is not None and FeedsArtifactSearch.name in context.asked:
            # The other one is asked for a file's hashes by itself.
            others = {one.artifact for one in derived(artifact)}
            looked_up = tuple(one for one in looked_up if one.artifact not in others)
        left_out = _LeftOut(context, self._feeds.limits.max_suppressed)
        if not looked_up:
            return _told(self._feeds, within.cut)
        found = self._feeds.find(
            artifact=Artifact("string", ""),
            derived=looked_up,
            limit=MAX_HITS,
            left_out=left_out,
        )
        return _answer(self._feeds, found, left_out, within.cut)


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


def _told(feeds: IFeeds, cut: tuple[str, ...]) -> Found | None:
    """The hit that says only that not all was looked at."""
    if not cut or not feeds.limits.tells_cut:
        return None
    return Found((Hit((string(_INCOMPLETE, _not_looked_at(cut)),)),))


def _not_looked_at(cut: tuple[str, ...]) -> str:
    return f"not looked at: {'; '.join(cut)}"


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
    hits = list(shown)
    more = sum(each.more for each in found) + len(ordered) - looked_at
    if cut and hits:
        hits[-1] = EncodedHit(noted(hits[-1], _INCOMPLETE, _not_looked_at(cut)))
    told = None if hits or feeds.away else _told(feeds, cut)
    return Found(
        tuple(hits) if told is None else told.hits,
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
