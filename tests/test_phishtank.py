"""Tests of the PhishTank searcher, its file, and its feed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctsd.answering import Found
from ctsd.errors import SearchLater
from ctsd.feeds.job import Refused
from ctsd.feeds.parsers.tally import Tally
from ctsd.feeds.reading import Reading
from ctsd.interfaces.feeds import IFeeds, IRecords
from ctsd.model import EncodedHit, Hit, Property
from ctsd.records import CONTAINS, FeedMatches, Indexed, Matched, Record
from ctsd.searcher_setup import SearcherSetup
from ctsd.stored import indexed
from ctsd.testing import MemoryRecords, encode_hit
from searchers.phishtank import FEED, SAMPLE, PhishTankArtifactSearch
from tests.test_feed_searchers import FakeFeeds

HEADER = [
    "phish_id",
    "url",
    "phish_detail_url",
    "submission_time",
    "verified",
    "verification_time",
    "online",
    "target",
]
FIRST = ",".join(HEADER) + "\n"
TIME = "2026-01-12T08:03:11+00:00"


def line(phish_id: str = "17", url: str = "http://bad.example/", target: str = "Other") -> str:
    """A record of the file."""
    detail = f"http://evil.example/{phish_id}"
    return f"{phish_id},{url},{detail},{TIME},yes,{TIME},yes,{target}\n"


def by_hand(text: str) -> Iterator[Record]:
    """The records of lines, by the rules of the seed: whole ones, with their eight fields."""
    for each in io.StringIO(text, newline="\n"):
        try:
            fields = [one.strip() for one in next(csv.reader((each,), strict=True), [])]
        except csv.Error:
            continue
        if len(fields) != len(HEADER) or not all(fields):
            continue
        phish_id, url, _, submission_time, *_, target = fields
        if phish_id.isascii() and phish_id.isdecimal() and len(phish_id) <= 15:
            yield Record(
                type="net.uri",
                value=url,
                name=f"PhishTank Record {phish_id}",
                properties=(
                    Property("number", "id", int(phish_id)),
                    Property("string", "url", url),
                    Property(
                        "uri",
                        "detail_url",
                        f"https://www.phishtank.com/phish_detail.php?phish_id={phish_id}",
                    ),
                    Property("string", "submission_time", submission_time),
                    Property("string", "target", target),
                ),
            )


class FileTests(SynchronousTestCase):
    """The file is read record by record, as the catalogue describes it."""

    def setUp(self) -> None:
        """A place for it."""
        self.file = Path(self.mktemp()).absolute()

    def records(self, text: str) -> list[Record | None]:
        """What is made of a file."""
        self.file.write_text(text, encoding="utf-8", newline="")
        # As the child process is told.
        told = json.loads(Reading.of_catalogue(FEED, self.file).as_text())
        tally = Tally()
        records = list(Reading(**told).records(tally, now=0.0))
        return [*records, *[None] * tally.bad]

    def read(self, *lines: str) -> list[Record | None]:
        """What is made of a file of these lines."""
        return self.records(FIRST + "".join(lines))

    def test_a_record(self) -> None:
        """Its properties; the link is made from our template, never from what the file says."""
        (record,) = self.read(line())
        assert record is not None
        self.assertEqual(
            (record.type, record.value, record.name),
            ("net.uri", "http://bad.example/", "PhishTank Record 17"),
        )
        self.assertEqual(
            record.properties,
            (
                Property("number", "id", 17),
                Property("string", "url", "http://bad.example/"),
                Property(
                    "uri",
                    "detail_url",
                    "https://www.phishtank.com/phish_detail.php?phish_id=17",
                ),
                Property("string", "submission_time", TIME),
                Property("string", "target", "Other"),
            ),
        )

    def test_quoted(self) -> None:
        """Commas and quotes in a URL are the URL's."""
        (record,) = self.read(line(url='"http://bad.example/?a=1,2&b=""x"""'), "\n")
        assert record is not None
        self.assertEqual(record.value, 'http://bad.example/?a=1,2&b="x"')

    def test_malformed_records(self) -> None:
        """A record that lacks a field, or is no CSV, spoils itself alone, and is counted."""
        found = self.read(
            line("1"),
            "2,http://short.example/\n",
            line("3", url=""),
            line("4", target=" "),
            line("five"),
            line("-6"),
            line("9" * 5000),
            line("٣"),
            line("7", url='"http://unclosed.example/'),
            line("8", url='"http://quoted.example/"x'),
            "\x00\n",
            line("9", url="x" * 200_000),
            line("10")[:-1] + ",more\n",
            line("11").replace("\n", "\r\n"),
        )
        names = [record.name for record in found if record]
        self.assertEqual(names, ["PhishTank Record 1", "PhishTank Record 11"])
        self.assertEqual(found.count(None), 12)

    def test_no_url_by_the_rules(self) -> None:
        """What people report need not be a URL by the rules of URLs."""
        (record,) = self.read(line(url="http://bad..example:x/ y"))
        assert record is not None
        self.assertEqual(record.value, "http://bad..example:x/ y")

    def test_wrong_header(self) -> None:
        """A file of something else is refused as a whole."""
        for text in ("", "<html>\n", line(), FIRST.replace("url", "uri"), f"x{FIRST}"):
            self.assertRaises(Refused, self.records, text)

    @settings(deadline=None)
    @given(st.text(st.sampled_from('17,"\n\r\x00ahttp:/.é'), max_size=60))
    def test_any_line(self, text: str) -> None:
        """Whatever stands in the file, reading goes on."""
        found = self.read(line("18"), text + "\n", line("18"))
        self.assertEqual([one for one in found if one], self.read(line("18")) * 2)

    @settings(deadline=None, max_examples=200)
    @given(
        st.lists(
            st.lists(
                st.text(st.sampled_from('17,"ahttp:/.é-_%\x00\u2028'), max_size=12)
                | st.sampled_from(["17", "0017", "http://bad.example/", " x ", TIME, "9" * 15]),
                min_size=7,
                max_size=9,
            )
            | st.builds(lambda each: line(*each).strip().split(","), st.tuples(st.just("5")))
        )
    )
    def test_as_by_hand(self, rows: list[list[str]]) -> None:
        """The description takes the records that the seed's rules take."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self.assertEqual(
            [one for one in self.read(text.getvalue()) if one], list(by_hand(text.getvalue()))
        )

    def test_the_sample(self) -> None:
        """The file that is shipped is whole, and has one www.megastore.lu."""
        text = SAMPLE.read_text(encoding="utf-8")
        found = self.records(text)
        self.assertEqual(found, list(by_hand(text.partition("\n")[2])))
        self.assertGreaterEqual(len(found), 10)
        there = [record for record in found if record and "www.megastore.lu" in str(record.value)]
        self.assertEqual(len(there), 1)


class SearcherCase(SynchronousTestCase):
    """Starts and asks it."""

    def start(
        self, settings: dict[str, Any], feeds: FakeFeeds | None = None
    ) -> PhishTankArtifactSearch:
        """Start it on records in memory, or on a feed."""
        self.memory = MemoryRecords()
        self.path: Path | None = None

        def make(path: Path, name: str, keep: str) -> IRecords:
            self.assertEqual(name, "phishtank")
            self.path = path
            if path.exists():
                reading = Reading.of_catalogue(name, path)
                self.memory.records = list(reading.records(Tally(), now=0.0))
            return self.memory

        def feed(name: str) -> IFeeds | None:
            self.assertEqual(name, "phishtank")
            return feeds  # type: ignore[return-value]

        searcher = PhishTankArtifactSearch()
        searcher.start(
            SearcherSetup(
                settings=settings,
                data_dir=Path(),
                base_dir=Path("/etc/ctsd"),
                clock=Clock(),
                records=lambda *_: self.memory,
                threats=lambda: self.memory,
                described=make,
                feed=feed,
            )
        )
        return searcher

    def search(self, searcher: PhishTankArtifactSearch, value: str) -> Found | None:
        """What it finds."""
        searching = searcher.search("net.uri", value, context=None)
        found: Found | None = self.successResultOf(Deferred.fromCoroutine(searching))
        return found


class SearcherTests(SearcherCase):
    """It finds URLs of a file."""

    def test_the_seeds_question(self) -> None:
        """www.megastore.lu finds the sample's record; another URL on its host finds nothing."""
        searcher = self.start({})
        self.assertEqual(self.path, SAMPLE)
        for value in ("www.megastore.lu", "HTTP://www.MEGASTORE.lu:80/login"):
            found = self.search(searcher, value)
            assert found is not None
            self.assertEqual(found.hits, (indexed(self.memory.records[0]).hit,))
            self.assertEqual((found.more, found.at_least), (0, False))
        self.assertIsNone(self.search(searcher, "http://www.megastore.lu/"))

    def test_many(self) -> None:
        """More than ten hits are counted."""
        searcher = self.start({})
        self.memory.records = self.memory.records[:1] * 14
        found = self.search(searcher, "megastore")
        assert found is not None
        self.assertEqual((len(found.hits), found.more), (10, 4))

    def test_a_file_of_ones_own(self) -> None:
        """A relative path is relative to the configuration's file; a feed changes nothing."""
        for feeds in (None, FakeFeeds()):
            self.start({"file": "feeds/online-valid.csv"}, feeds)
            self.assertEqual(self.path, Path("/etc/ctsd/feeds/online-valid.csv"))
            self.start({"file": "/srv/x.csv"}, feeds)
            self.assertEqual(self.path, Path("/srv/x.csv"))

    def test_never_loaded(self) -> None:
        """A file that was never loaded can't be asked."""
        searcher = self.start({})
        self.memory.later = "being indexed"
        searching = Deferred.fromCoroutine(searcher.search("net.uri", "x", context=None))
        self.failureResultOf(searching, SearchLater)

    def test_what_operators_see(self) -> None:
        """The state of its file."""
        searcher = self.start({})
        self.assertIn("records", searcher.describe())
        self.memory.later = "being indexed"
        self.assertTrue(searcher.loading())
        self.memory.wrong = "it is missing"
        self.assertEqual((searcher.trouble(), searcher.loading()), ("it is missing", False))
        self.assertTrue(searcher.failed())

    def test_supports_urls(self) -> None:
        """And nothing else."""
        self.assertTrue(PhishTankArtifactSearch.supports("net.uri"))
        self.assertFalse(PhishTankArtifactSearch.supports("net.name"))
        self.assertTrue(PhishTankArtifactSearch.local)
        self.assertEqual(PhishTankArtifactSearch.name, "phishtank")


def of_feed(url: str, how: str = "") -> Matched:
    """A record of the feed that was found."""
    return Matched(Indexed("net.uri", url, "", hit(url)), how)


def hit(url: str, **more: str) -> EncodedHit:
    """Its hit."""
    properties = (Property("string", name, value) for name, value in more.items())
    return encode_hit(Hit((Property("string", "url", url), *properties)))


class FeedTests(SearcherCase):
    """Where the feed is on, and no file is named, it finds URLs of that."""

    def test_hits(self) -> None:
        """What the seed finds, too, looks as there; else it says how it was found."""
        feeds = FakeFeeds(
            FeedMatches(
                feed="phishtank",
                matched=(
                    of_feed("http://bad.example/", "URL but for its scheme"),
                    of_feed("http://bad.example/1", CONTAINS),
                    of_feed("http://worse.example/", "host of the URL"),
                ),
                more=3,
            )
        )
        feeds.stale = {"phishtank": "2027-01-01"}
        found = self.search(self.start({}, feeds), "bad.example/")
        assert found is not None
        old = {"stale since": "2027-01-01"}
        self.assertEqual(
            found.hits,
            (
                hit("http://bad.example/", **old),
                hit("http://bad.example/1", **old),
                hit("http://worse.example/", Matched="host of the URL", **old),
            ),
        )
        self.assertEqual((found.more, found.missing), (3, ()))
        self.assertIsNone(self.path)

    def test_nothing(self) -> None:
        """Nothing is nothing, when it could be asked; else it is asked again."""
        feeds = FakeFeeds()
        searcher = self.start({}, feeds)
        self.assertIsNone(self.search(searcher, "bad.example"))
        feeds.away = ("PhishTank",)
        found = self.search(searcher, "bad.example")
        assert found is not None
        self.assertEqual((found.hits, found.missing), ((), ("PhishTank",)))

    def test_what_operators_see(self) -> None:
        """The state of the feed."""
        searcher = self.start({}, FakeFeeds())
        self.assertEqual((searcher.trouble(), searcher.describe()), ("some", "2 of 2 feeds"))
        self.assertEqual((searcher.loading(), searcher.failed()), (True, False))
