"""The feeds as searchers."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ctsd.answering import Found
from ctsd.artifacts import SHAPES
from ctsd.errors import NotConfigured
from ctsd.feed_searchers import (
    MAX_BY_CHARS,
    MAX_HITS,
    FeedsArtifactSearch,
    FeedsTextArtifactSearch,
)
from ctsd.feeds.contents import within
from ctsd.internal import InternalArtifactSearch
from ctsd.model import FILE, NOTHING, PASSWORD, Artifact, Ended, File, Hit, Outcome, Suppressed
from ctsd.properties import string
from ctsd.records import CONTAINS, Derived, FeedMatches, Indexed, LookupLimits, Matched, Within
from ctsd.scanning.asking import ask_local, ask_waiting
from ctsd.scanning.live import needs_file, questions_for
from ctsd.scanning.source import Ask, Question, Source
from ctsd.search_context import SearchContext
from ctsd.searcher_setup import SearcherSetup
from ctsd.wire import encode_hit


def matched(name: str, how: str = "") -> Matched:
    """A record that shows its name."""
    hit = encode_hit(Hit((string("name", name),)))
    return Matched(Indexed("net.ip", "203.0.113.1", name, hit), how)


class FakeFeeds:
    """
    Feeds that find what they are told; what is within artifacts they are told, too.

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
        self.cut: tuple[str, ...] = ()
        self.limits = LookupLimits(max_suppressed=3, max_recipients=2)
        self.rest: FakeFeeds | None = None
        self.screens: list[tuple[str, str, str]] = []
        self.asked: list[tuple[Artifact, tuple[Derived, ...]]] = []

    def find(self, *, artifact: Artifact, derived: Any = (), limit: int, left_out: Any) -> Any:
        """See L{ctsd.interfaces.feeds.IFeeds}."""
        assert limit == MAX_HITS
        self.asked.append((artifact, tuple(derived)))
        for told in self.screens:
            left_out(*told)
        return self.found

    def has_nothing(self, *, type: str, value: Any) -> bool:
        """See L{ctsd.interfaces.feeds.IFeeds}."""
        return not self.found and not self.away

    def beside(self, *, asked: frozenset[str]) -> FakeFeeds:
        """See L{ctsd.interfaces.feeds.IFeeds}."""
        return self.rest if self.rest is not None and "mine" in asked else self

    def mark(self, *, feed: str, record: Indexed) -> str:
        """See L{ctsd.interfaces.feeds.IFeeds}."""
        return self.marks.get(feed, "")

    def within_now(self, *, artifact: Artifact) -> Within | None:
        """See L{ctsd.interfaces.feeds.IContents}."""
        return Within(self.derived, self.cut) if len(str(artifact.value)) < 20 else None

    def within(self, *, artifact: Artifact) -> Deferred[Within]:
        """See L{ctsd.interfaces.feeds.IContents}."""
        self.asked.append((artifact, ()))
        return succeed(Within(self.derived, self.cut))

    def trouble(self) -> str:
        """See L{ctsd.interfaces.feeds.IFeeds}."""
        return "some"

    def loading(self) -> bool:
        """See L{ctsd.interfaces.feeds.IFeeds}."""
        return True

    def describe(self) -> str:
        """See L{ctsd.interfaces.feeds.IFeeds}."""
        return "2 of 2 feeds"


def setup(feeds: FakeFeeds | None) -> SearcherSetup:
    """What a searcher is given."""
    more: dict[str, Any] = {}
    if feeds is not None:
        more = {"feeds": lambda: feeds, "contents": lambda: feeds}
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
            Found((), missing=("URLhaus", "Mine"), after_secs=17.0),
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

    def test_contains(self) -> None:
        """What contains the artifact comes behind what equals it, and before the rest."""
        feeds = FakeFeeds(
            FeedMatches(feed="a", matched=(matched("a1", CONTAINS), matched("a2", "host"))),
            FeedMatches(feed="b", matched=(matched("b1"), matched("b2"), matched("b3", CONTAINS))),
        )
        shown = self.shown(self.search(feeds))
        self.assertEqual([hit["name"] for hit in shown], ["b1", "b2", "a1", "b3", "a2"])
        self.assertEqual(shown[2]["Matched"], "contains it")

    def test_left_to_others(self) -> None:
        """What a searcher has to itself that is asked, too, is left to it."""
        feeds, rest = FakeFeeds(FeedMatches(feed="mine", matched=(matched("m"),))), FakeFeeds()
        feeds.rest, feeds.away = rest, ("Mine",)
        searcher = FeedsArtifactSearch()
        given = setup(feeds)
        searcher.start(given)
        for asked, missing in (({"feeds", "mine"}, None), ({"feeds", "theirs"}, ("Mine",))):
            context = SearchContext(
                id="1",
                type="net.ip",
                value="",
                searcher="feeds",
                asked=frozenset(asked),
                setup=given,
            )
            found = self.successResultOf(
                ensureDeferred(searcher.search("net.ip", "203.0.113.1", context=context))
            )
            self.assertEqual(found and found.missing, missing)
            self.assertEqual(len(found.hits) if found else 0, 0 if missing is None else 1)

    def test_more(self) -> None:
        """What is not shown is counted: what feeds didn't give, and what was beyond ten."""
        feeds = FakeFeeds(
            *(
                FeedMatches(feed=feed, matched=tuple(map(matched, names)), more=5, at_least=more)
                for feed, names, more in (("x", "abcdef", False), ("y", "ghijkl", True))
            )
        )
        found = self.search(feeds)
        self.assertEqual((len(found.hits), found.more, found.at_least), (10, 12, True))

    def test_same(self) -> None:
        """Hits that say the same are shown once; what they hid is shown in their place."""
        feeds = FakeFeeds(
            FeedMatches(feed="a", matched=tuple(map(matched, "xxxxxyxx")), more=2),
            FeedMatches(feed="b", matched=tuple(matched(str(n)) for n in range(8))),
        )
        found = self.search(feeds)
        names = [hit["name"] for hit in self.shown(found)]
        self.assertEqual((names, found.more), ([*"x01234y567"], 2))

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
        """What is no finding is kept, and stands in the log, without values."""
        feeds = FakeFeeds()
        feeds.screens = [("mine", "net.ip", "a list")]
        with capturedLogs() as logged:
            found = self.search(feeds)
        self.assertEqual(
            found, Found(suppressed=(Suppressed("mine", "net.ip", "a list"),), after_secs=17.0)
        )
        (event,) = logged
        self.assertEqual((event["feed"], event["type"], event["by"]), ("mine", "net.ip", "a list"))
        self.assertNotIn("203.0.113.1", str(event))

    def test_left_out_much(self) -> None:
        """As much is kept as the limit says, each once and none long; the rest is counted."""
        feeds = FakeFeeds()
        feeds.screens = [(feed, "net.ip", "a" * 500) for feed in "aabcdeb"]
        found = self.search(feeds)
        self.assertEqual([one.feed for one in found.suppressed], ["a", "b", "c"])
        self.assertEqual(found.suppressed_more, 2)
        self.assertEqual({len(one.by) for one in found.suppressed}, {MAX_BY_CHARS})

    def test_recipients(self) -> None:
        """Of too many recipients the first are looked for, and the hit says that there are more."""
        feeds = FakeFeeds()
        self.assertIsNone(self.search(feeds, "email.header.to", ["a@a.example", "b@b.example"]))
        found = self.search(feeds, "email.header.to", ["a@a.example", "b@b.example", "c@c.example"])
        asked = [artifact.value for artifact, _ in feeds.asked]
        self.assertEqual(asked, [["a@a.example", "b@b.example"]] * 2)
        self.assertEqual(
            [encode_hit(hit) for hit in found.hits],
            [encode_hit(Hit((string("Incomplete", "not looked at: recipients beyond 2"),)))],
        )

    def test_types(self) -> None:
        """It wants all but passwords, files and whole e-mails; those the other one."""
        wanted = {type for type in SHAPES if FeedsArtifactSearch.supports(type)}
        self.assertEqual(SHAPES.keys() - wanted, {FILE, PASSWORD, "email", "email.body"})
        within = {type for type in SHAPES if FeedsTextArtifactSearch.supports(type)}
        self.assertEqual(within, {FILE, "cert.x509", "email", "email.body", "string"})

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

    def test_looks_first(self) -> None:
        """It is not asked about what is short, unless something in it may be found."""
        feeds = FakeFeeds()
        searcher = FeedsTextArtifactSearch()
        searcher.start(setup(feeds))
        self.assertTrue(searcher.finds_nothing("string", "hello"))
        self.assertFalse(searcher.finds_nothing("string", "hello " * 9))
        feeds.cut = ("text beyond 9 characters",)
        self.assertFalse(searcher.finds_nothing("string", "hello"))
        feeds.cut, feeds.derived = (), (Derived(Artifact("net.ip", "203.0.113.1"), "address"),)
        self.assertTrue(searcher.finds_nothing("string", "203.0.113.1"))
        feeds.away = ("Mine",)
        self.assertFalse(searcher.finds_nothing("string", "203.0.113.1"))
        feeds.derived = ()
        self.assertTrue(searcher.finds_nothing("string", "hello"))

    def test_within(self) -> None:
        """What is in it is looked up; feeds that are away count here, too."""
        feeds = FakeFeeds(FeedMatches(feed="a", matched=(matched("a1", "address"),)))
        feeds.derived = (Derived(Artifact("net.ip", "203.0.113.1"), "address"),)
        feeds.away = ("Mine",)
        found = self.search_text(feeds, "email.body", "203.0.113.1")
        self.assertEqual(self.shown(found), [{"name": "a1", "Matched": "address"}])
        self.assertEqual(found.missing, ("Mine",))
        self.assertEqual(feeds.asked[1], (Artifact("string", ""), feeds.derived))

    def test_too_long(self) -> None:
        """Where not all was looked at, the last hit says so, and the log."""
        feeds = FakeFeeds(FeedMatches(feed="a", matched=(matched("a1"), matched("a2"))))
        feeds.derived = (Derived(Artifact("net.ip", "203.0.113.1"), "address"),)
        whole = self.search_text(feeds, "string", "203.0.113.1")
        feeds.cut = ("text beyond 9 characters", "parts beyond 3")
        with capturedLogs() as logged:
            found = self.search_text(feeds, "string", "203.0.113.1")
        self.assertEqual(found.hits[0], whole.hits[0])
        told = "not looked at: text beyond 9 characters; parts beyond 3"
        self.assertEqual(self.shown(found)[1], {"name": "a2", "Incomplete": told})
        self.assertEqual([event["cut"] for event in logged], [told.partition(": ")[2]])

    def test_too_long_nothing(self) -> None:
        """When nothing was found in what was looked at, a hit says that this was not all."""
        feeds = FakeFeeds()
        feeds.cut = ("text beyond 9 characters",)
        told = Hit((string("Incomplete", "not looked at: text beyond 9 characters"),))
        for derived in ((), (Derived(Artifact("net.ip", "203.0.113.1"), "address"),)):
            feeds.derived = derived
            found = self.search_text(feeds, "string", "203.0.113.1")
            self.assertEqual(found.hits, (told,))
            self.assertEqual(found.missing, ())

    def test_too_long_ignored(self) -> None:
        """Unless nobody wants to know."""
        feeds = FakeFeeds()
        feeds.limits = LookupLimits(tells_cut=False)
        feeds.cut = ("text beyond 9 characters",)
        self.assertIsNone(self.search_text(feeds, "string", "203.0.113.1"))
        feeds.derived = (Derived(Artifact("net.ip", "203.0.113.1"), "address"),)
        self.assertEqual(self.search_text(feeds, "string", "203.0.113.1").hits, ())

    def test_too_long_and_away(self) -> None:
        """While a feed can't be asked, it may still find something: no hit says otherwise."""
        feeds = FakeFeeds()
        feeds.derived = (Derived(Artifact("net.ip", "203.0.113.1"), "address"),)
        feeds.cut, feeds.away = ("text beyond 9 characters",), ("Mine",)
        found = self.search_text(feeds, "string", "203.0.113.1")
        self.assertEqual((found.hits, found.missing), ((), ("Mine",)))

    def test_left_out(self) -> None:
        """What is no finding is kept here, too."""
        feeds = FakeFeeds()
        feeds.derived = (Derived(Artifact("net.ip", "203.0.113.1"), "address"),)
        feeds.screens = [("mine", "net.ip", "a list")]
        found = self.search_text(feeds, "string", "203.0.113.1")
        self.assertEqual(found.suppressed, (Suppressed("mine", "net.ip", "a list"),))

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
        searcher = FeedsTextArtifactSearch()
        searcher.start(setup(feeds))
        self.assertTrue(searcher.finds_nothing(FILE, artifact.file))


class UploadTests(FeedsCase):
    """Files that come along with artifacts of other types, as a scan asks for them."""

    def file(self, data: bytes) -> File:
        """An uploaded one."""
        path = Path(self.mktemp())
        path.write_bytes(data)
        md5, sha1, sha256 = (hashlib.new(n, data).hexdigest() for n in ("md5", "sha1", "sha256"))
        return File(path=path, name="c.pem", size=len(data), md5=md5, sha1=sha1, sha256=sha256)

    def test_not_read(self) -> None:
        """Searchers that answer from memory don't let a scan end when its file goes."""
        searcher = InternalArtifactSearch()
        source = Source(searcher=searcher, setup=setup(FakeFeeds()), name="internal")
        for type in ("cert.x509", "email"):
            artifact = Artifact(type, "c.pem", self.file(b"x"))
            questions = questions_for(artifact, b"d", [source])
            self.assertIn(type, [one.type for one in questions["internal"]])
            self.assertFalse(needs_file(questions, [source]))

    def derived_of(self, type: str, data: bytes, *, asked: str = "feeds_text") -> list[Derived]:
        """What is looked up."""
        feeds = FakeFeeds()
        feeds.within = lambda *, artifact: succeed(within(artifact))  # type: ignore[method-assign]
        searcher = FeedsTextArtifactSearch()
        searcher.start(setup(feeds))
        source = Source(searcher=searcher, setup=setup(feeds), name="feeds_text")
        artifact = Artifact(type, "c.pem", self.file(data))
        questions = questions_for(artifact, b"d", [source])
        self.assertTrue(needs_file(questions, [source]))
        ask = Ask(
            scan_id="1" * 32,
            questions=questions["feeds_text"],
            asked=frozenset({"feeds_text", asked}),
        )
        answered = self.successResultOf(ensureDeferred(ask_waiting(source, ask)))
        self.assertEqual(answered.outcome, NOTHING)
        ((_, derived),) = feeds.asked
        return list(derived)

    def test_certificate(self) -> None:
        """The fingerprint is that of the DER, whichever of the two forms the file has."""
        der = b"0\x82\x01\x04" + bytes(260)
        pem = b"-----BEGIN CERTIFICATE-----\n%b-----END CERTIFICATE-----\n" % base64.encodebytes(
            der
        )
        for data in (der, pem):
            found = self.derived_of("cert.x509", data)
            prints = [one.artifact.value for one in found if one.artifact.type == "cert.x509"]
            self.assertEqual(prints, [hashlib.sha1(der).hexdigest()])

    def test_hashes_once(self) -> None:
        """Where the other searcher is asked for the file's hashes, this one is not."""
        alone = {one.artifact.type for one in self.derived_of("cert.x509", b"x")}
        both = {one.artifact.type for one in self.derived_of("cert.x509", b"x", asked="feeds")}
        self.assertEqual(alone - both, {"hash.md5", "hash.sha1", "hash.sha256"})

    def test_message(self) -> None:
        """A message is read from its file."""
        found = self.derived_of("email", b"From: a@evil.example\n\nhello")
        self.assertIn("a@evil.example", [one.artifact.value for one in found])

    def test_certificate_without_file(self) -> None:
        """A certificate's text is looked up by the other searcher alone."""
        feeds = FakeFeeds()
        searcher = FeedsTextArtifactSearch()
        searcher.start(setup(feeds))
        search = searcher.search("cert.x509", "0" * 40)
        self.assertIsNone(self.successResultOf(ensureDeferred(search)))
        self.assertEqual(feeds.asked, [])


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
        self.assertEqual(outcome.missing, ("Mine",))
        feeds.found = ()
        self.assertEqual(self.ask(feeds).ended, Ended.LATER)

    def test_not_all_looked_at(self) -> None:
        """So much was left out that the rest was not looked at: that is not nothing."""
        unknown = FeedMatches(feed="long", at_least=True)
        for others, texts in (
            ((), [b"what long has beyond the findings that were left out"]),
            ((FeedMatches(feed="a", matched=(matched("a1"),)),), [b"a1", b"what long has beyond"]),
        ):
            outcome = self.ask(FakeFeeds(unknown, *others))
            self.assertEqual((outcome.ended, len(outcome.hits)), (Ended.FOUND, 1))
            for text in texts:
                self.assertIn(text, outcome.hits[0])

    def test_suppressed(self) -> None:
        """What is no hit goes with the outcome, whatever that is."""
        feeds = FakeFeeds()
        feeds.screens = [("mine", "net.ip", by) for by in "abcd"]
        expected = tuple(Suppressed("mine", "net.ip", by) for by in "abc")
        for ended, found, away in (
            (Ended.NOTHING, (), ()),
            (Ended.FOUND, (FeedMatches(feed="a", matched=(matched("a1"),)),), ()),
            (Ended.LATER, (), ("Mine",)),
        ):
            feeds.found, feeds.away = found, away
            outcome = self.ask(feeds)
            self.assertEqual(
                (outcome.ended, outcome.suppressed, outcome.suppressed_more), (ended, expected, 1)
            )

    def test_whole(self) -> None:
        """With all of them there, it is found or nothing."""
        feeds = FakeFeeds(FeedMatches(feed="a", matched=(matched("a1"),)))
        self.assertEqual(self.ask(feeds).ended, Ended.FOUND)
        feeds.found = ()
        self.assertEqual(self.ask(feeds).ended, Ended.NOTHING)
