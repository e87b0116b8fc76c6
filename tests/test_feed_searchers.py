"""The feeds as searchers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ctsd.artifacts import SHAPES
from ctsd.errors import NotConfigured
from ctsd.feed_searchers import MAX_HITS, FeedsArtifactSearch, FeedsTextArtifactSearch
from ctsd.model import FILE, PASSWORD, Artifact, Ended, Hit, Outcome
from ctsd.properties import string
from ctsd.records import Derived, FeedMatches, Indexed, Matched, Within
from ctsd.scanning.asking import ask_local
from ctsd.scanning.source import Ask, Question, Source
from ctsd.searcher import Found, SearcherSetup
from ctsd.wire import encode_hit


def matched(name: str, how: str = "") -> Matched:
    """A record that shows its name."""
    hit = encode_hit(Hit((string("name", name),)))
    return Matched(Indexed("net.ip", "203.0.113.1", name, hit), how)


class FakeFeeds:
    """
    Feeds that find what they are told.

    :ivar asked: for what.
    :ivar screens: what is left out of every search.
    """

    def __init__(self, *found: FeedMatches) -> None:
        self.found = found
        self.away: tuple[str, ...] = ()
        self.retry_secs = 17.0
        self.stale: Mapping[str, str] = {}
        self.marks: Mapping[str, str] = {}
        self.derived: tuple[Derived, ...] = ()
        self.is_cut = False
        self.screens: list[tuple[str, str, str]] = []
        self.asked: list[tuple[Artifact, tuple[Derived, ...]]] = []

    def find(self, *, artifact: Artifact, derived: Any = (), limit: int, left_out: Any) -> Any:
        """See L{ctsd.interfaces.IFeeds}."""
        assert limit == MAX_HITS
        self.asked.append((artifact, tuple(derived)))
        for told in self.screens:
            left_out(*told)
        return self.found

    def mark(self, *, feed: str, record: Indexed) -> str:
        """See L{ctsd.interfaces.IFeeds}."""
        return self.marks.get(feed, "")

    def within(self, *, artifact: Artifact) -> Deferred[Within]:
        """See L{ctsd.interfaces.IFeeds}."""
        self.asked.append((artifact, ()))
        return succeed(Within(self.derived, self.is_cut))

    def trouble(self) -> str:
        """See L{ctsd.interfaces.IFeeds}."""
        return "some"

    def loading(self) -> bool:
        """See L{ctsd.interfaces.IFeeds}."""
        return True

    def describe(self) -> str:
        """See L{ctsd.interfaces.IFeeds}."""
        return "2 of 2 feeds"


def setup(feeds: FakeFeeds | None) -> SearcherSetup:
    """What a searcher is given."""
    more: dict[str, Any] = {} if feeds is None else {"feeds": lambda: feeds}
    return SearcherSetup(
        settings={},
        data_dir=Path("data"),
        base_dir=Path("/"),
        clock=Clock(),
        records=lambda *_: None,  # type: ignore[arg-type, return-value]
        threats=lambda: None,  # type: ignore[arg-type, return-value]
        **more,
    )


class FeedsCase(SynchronousTestCase):
    """Asks the searchers."""

    def shown(self, found: Found | None) -> list[dict[str, Any]]:
        """Each hit's properties, by name."""
        assert found is not None
        hits: list[bytes] = list(found.hits)  # type: ignore[arg-type]
        return [{one["name"]: one["value"] for one in json.loads(hit)["props"]} for hit in hits]

    def search(self, feeds: FakeFeeds, type: str = "net.ip", value: Any = "203.0.113.1") -> Any:
        """What is found."""
        searcher = FeedsArtifactSearch()
        searcher.start(setup(feeds))
        return self.successResultOf(ensureDeferred(searcher.search(type, value)))


class LookupTests(FeedsCase):
    """The searcher C{feeds}."""

    def test_nothing(self) -> None:
        """Nothing found is nothing, when all could be asked."""
        self.assertIsNone(self.search(FakeFeeds()))

    def test_away(self) -> None:
        """While a feed can't be asked, nothing found is not nothing."""
        feeds = FakeFeeds()
        feeds.away = ("URLhaus", "Mine")
        self.assertEqual(
            self.search(feeds),
            Found((), missing="URLhaus, Mine can't be asked", after_secs=17.0),
        )

    def test_order(self) -> None:
        """Exact ones first, then the first of each feed before the second of any."""
        feeds = FakeFeeds(
            FeedMatches(feed="a", matched=(matched("a1"), matched("a2"), matched("a3", "host"))),
            FeedMatches(feed="b", matched=(matched("b1"), matched("b2", "host"))),
        )
        shown = self.shown(self.search(feeds))
        self.assertEqual([hit["name"] for hit in shown], ["a1", "b1", "a2", "b2", "a3"])
        self.assertEqual([hit.get("Matched") for hit in shown], [None] * 3 + ["host"] * 2)

    def test_more(self) -> None:
        """What is not shown is counted: what feeds didn't give, and what was beyond ten."""
        feeds = FakeFeeds(
            *(
                FeedMatches(feed=name, matched=tuple(map(matched, "abcdef")), more=5, at_least=more)
                for name, more in (("x", False), ("y", True))
            )
        )
        found = self.search(feeds)
        self.assertEqual((len(found.hits), found.more, found.at_least), (10, 12, True))

    def test_notes(self) -> None:
        """Stale ones say since when, listed ones by which list; others go out as they are."""
        one = matched("n")
        feeds = FakeFeeds(
            *(FeedMatches(feed=name, matched=(one,)) for name in ("fresh", "listed", "old"))
        )
        feeds.stale, feeds.marks = {"old": "2027-01-01"}, {"listed": "Top sites"}
        found = self.search(feeds)
        self.assertIs(found.hits[0], one.record.hit)
        self.assertEqual(
            self.shown(found)[1:],
            [
                {"name": "n", "Warninglist": "Top sites"},
                {"name": "n", "stale since": "2027-01-01"},
            ],
        )

    def test_left_out(self) -> None:
        """What is no finding stands in the log, without values."""
        feeds = FakeFeeds()
        feeds.screens = [("mine", "net.ip", "a list")]
        with capturedLogs() as logged:
            self.assertIsNone(self.search(feeds))
        (event,) = logged
        self.assertEqual((event["feed"], event["type"], event["by"]), ("mine", "net.ip", "a list"))
        self.assertNotIn("203.0.113.1", str(event))

    def test_types(self) -> None:
        """It wants all but passwords, files and whole e-mails; those the other one."""
        wanted = {type for type in SHAPES if FeedsArtifactSearch.supports(type)}
        self.assertEqual(SHAPES.keys() - wanted, {FILE, PASSWORD, "email", "email.body"})
        within = {type for type in SHAPES if FeedsTextArtifactSearch.supports(type)}
        self.assertEqual(within, {FILE, "email", "email.body", "string"})

    def test_no_feed(self) -> None:
        """Without a feed it is off, and says why."""
        for cls in (FeedsArtifactSearch, FeedsTextArtifactSearch):
            error = self.assertRaises(NotConfigured, cls().start, setup(None))
            self.assertIn("no feed", str(error))

    def test_told(self) -> None:
        """It says of the feeds what they say."""
        searcher = FeedsArtifactSearch()
        searcher.start(setup(FakeFeeds()))
        told = (searcher.trouble(), searcher.loading(), searcher.describe())
        self.assertEqual(told, ("some", True, "2 of 2 feeds"))


class TextTests(FeedsCase):
    """The searcher C{feeds_text}."""

    def search_text(self, feeds: FakeFeeds, type: str, value: Any) -> Any:
        """What is found."""
        searcher = FeedsTextArtifactSearch()
        searcher.start(setup(feeds))
        return self.successResultOf(ensureDeferred(searcher.search(type, value)))

    def test_nothing_within(self) -> None:
        """A text with nothing in it asks nobody."""
        feeds = FakeFeeds(FeedMatches(feed="a", matched=(matched("a1"),)))
        self.assertIsNone(self.search_text(feeds, "string", "hello"))
        self.assertEqual(len(feeds.asked), 1)

    def test_within(self) -> None:
        """What is in it is looked up; feeds that are away count here, too."""
        feeds = FakeFeeds(FeedMatches(feed="a", matched=(matched("a1", "address"),)))
        feeds.derived = (Derived(Artifact("net.ip", "203.0.113.1"), "address"),)
        feeds.away = ("Mine",)
        found = self.search_text(feeds, "email.body", "203.0.113.1")
        self.assertEqual(self.shown(found), [{"name": "a1", "Matched": "address"}])
        self.assertEqual(found.missing, "Mine can't be asked")
        self.assertEqual(feeds.asked[1], (Artifact("string", ""), feeds.derived))

    def test_too_long(self) -> None:
        """Where not all was looked at, there may be more; with no hit at all the log tells it."""
        feeds = FakeFeeds(FeedMatches(feed="a", matched=(matched("a1", "address"),)))
        feeds.derived = (Derived(Artifact("net.ip", "203.0.113.1"), "address"),)
        self.assertFalse(self.search_text(feeds, "string", "203.0.113.1").at_least)
        feeds.is_cut = True
        with capturedLogs() as logged:
            self.assertTrue(self.search_text(feeds, "string", "203.0.113.1").at_least)
            feeds.derived = ()
            self.assertIsNone(self.search_text(feeds, "string", "203.0.113.1"))
        self.assertEqual(len(logged), 2)

    def test_file(self) -> None:
        """A file is looked into."""
        opened = SimpleNamespace(
            path="/x", name="a.eml", size=3, md5="1", sha1="2", sha256="3", content_type="t"
        )
        feeds = FakeFeeds()
        self.assertIsNone(self.search_text(feeds, FILE, opened))
        ((artifact, _),) = feeds.asked
        assert artifact.file is not None
        self.assertEqual((artifact.value, artifact.file.path), ("a.eml", Path("/x")))


class PartialTests(FeedsCase):
    """An answer that lacks something, in a scan."""

    def ask(self, feeds: FakeFeeds) -> Outcome:
        """What it comes to."""
        searcher = FeedsArtifactSearch()
        searcher.start(setup(feeds))
        source = Source(searcher=searcher, setup=setup(feeds), name="feeds")
        question = Question("net.ip", "203.0.113.1", None, "", b"d")
        ask = Ask(scan_id="1" * 32, questions=(question,), asked=frozenset({"feeds"}))
        return ask_local(source, ask).outcome

    def test_hits_and_later(self) -> None:
        """It is asked again, and its hits so far are there."""
        feeds = FakeFeeds(FeedMatches(feed="a", matched=(matched("a1"),)))
        feeds.away = ("Mine",)
        outcome = self.ask(feeds)
        self.assertEqual(
            (outcome.ended, outcome.reason, outcome.after_secs, len(outcome.hits)),
            (Ended.LATER, "Mine can't be asked", 17.0, 1),
        )
        feeds.found = ()
        self.assertEqual(self.ask(feeds).ended, Ended.LATER)

    def test_whole(self) -> None:
        """With all of them there, it is found or nothing."""
        feeds = FakeFeeds(FeedMatches(feed="a", matched=(matched("a1"),)))
        self.assertEqual(self.ask(feeds).ended, Ended.FOUND)
        feeds.found = ()
        self.assertEqual(self.ask(feeds).ended, Ended.NOTHING)
