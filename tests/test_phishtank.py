"""Tests of the PhishTank searcher and its file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctsd.feeds.job import reference
from ctsd.interfaces import IRecords
from ctsd.model import Property
from ctsd.records import Record
from ctsd.searcher import Found, Parse, SearcherSetup
from ctsd.stored import indexed
from ctsd.testing import MemoryRecords
from searchers.phishtank import HEADER, SAMPLE, PhishTankArtifactSearch, records

FIRST = ",".join(HEADER) + "\n"
TIME = "2026-01-12T08:03:11+00:00"


def line(phish_id: str = "17", url: str = "http://bad.example/", target: str = "Other") -> str:
    """A record of the file."""
    detail = f"http://evil.example/{phish_id}"
    return f"{phish_id},{url},{detail},{TIME},yes,{TIME},yes,{target}\n"


def read(*lines: str) -> list[Record | None]:
    """What is made of a file of these lines."""
    return list(records(io.StringIO(FIRST + "".join(lines), newline="")))


class FileTests(SynchronousTestCase):
    """The file is read record by record."""

    def test_a_record(self) -> None:
        """Its properties; the link is made from our template, never from what the file says."""
        (record,) = read(line())
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
        (record,) = read(line(url='"http://bad.example/?a=1,2&b=""x"""'), "\n")
        assert record is not None
        self.assertEqual(record.value, 'http://bad.example/?a=1,2&b="x"')

    def test_malformed_records(self) -> None:
        """A record that lacks a field, or is no CSV, spoils itself alone."""
        found = read(
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
        names = [record.name if record else None for record in found]
        self.assertEqual(names, ["PhishTank Record 1", *[None] * 12, "PhishTank Record 11"])

    def test_wrong_header(self) -> None:
        """A file of something else is refused as a whole."""
        for text in ("", "<html>\n", line(), FIRST.replace("url", "uri"), f"x{FIRST}"):
            with self.assertRaises(ValueError):
                next(records(io.StringIO(text)))

    @settings(deadline=None)
    @given(st.text(st.sampled_from('17,"\n\r\x00ahttp:/.é'), max_size=60))
    def test_any_line(self, text: str) -> None:
        """Whatever stands in the file, reading goes on."""
        self.assertEqual(read(text + "\n", line("18"))[-1], read(line("18"))[0])

    def test_the_sample(self) -> None:
        """The file that is shipped is whole, and has one www.megastore.lu."""
        with SAMPLE.open(encoding="utf-8", newline="") as file:
            found = list(records(file))
        self.assertNotIn(None, found)
        self.assertGreaterEqual(len(found), 10)
        there = [record for record in found if record and "www.megastore.lu" in str(record.value)]
        self.assertEqual(len(there), 1)


class SearcherTests(SynchronousTestCase):
    """It finds URLs."""

    def start(self, settings: dict[str, Any]) -> PhishTankArtifactSearch:
        """Start it on records in memory."""
        self.memory = MemoryRecords()

        def make(path: Path, parse: Parse, keep: str) -> IRecords:
            self.path = path
            self.assertTrue(reference(parse).endswith("phishtank.py:records"))
            if path.exists():
                with path.open(encoding="utf-8", newline="") as file:
                    self.memory.records = [each for each in parse(file) if each]
            return self.memory

        searcher = PhishTankArtifactSearch()
        searcher.start(
            SearcherSetup(
                settings=settings,
                data_dir=Path(),
                base_dir=Path("/etc/ctsd"),
                clock=Clock(),
                records=make,
                threats=lambda: self.memory,
            )
        )
        return searcher

    def search(self, searcher: PhishTankArtifactSearch, value: str) -> Found | None:
        """What it finds."""
        searching = searcher.search("net.uri", value, context=None)
        found: Found | None = self.successResultOf(Deferred.fromCoroutine(searching))
        return found

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
        """A relative path is relative to the configuration's file."""
        self.start({"file": "feeds/online-valid.csv"})
        self.assertEqual(self.path, Path("/etc/ctsd/feeds/online-valid.csv"))
        self.start({"file": "/srv/x.csv"})
        self.assertEqual(self.path, Path("/srv/x.csv"))

    def test_what_operators_see(self) -> None:
        """The state of its file."""
        searcher = self.start({})
        self.assertIn("records", searcher.describe())
        self.memory.later = "being indexed"
        self.assertTrue(searcher.loading())
        self.memory.wrong = "it is missing"
        self.assertEqual((searcher.trouble(), searcher.loading()), ("it is missing", False))

    def test_supports_urls(self) -> None:
        """And nothing else."""
        self.assertTrue(PhishTankArtifactSearch.supports("net.uri"))
        self.assertFalse(PhishTankArtifactSearch.supports("net.name"))
        self.assertTrue(PhishTankArtifactSearch.local)
        self.assertEqual(PhishTankArtifactSearch.name, "phishtank")
