"""Tests of feeds that are found by what they contain, too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctsd import artifacts
from ctsd.feeds.array_file import ArrayFile
from ctsd.feeds.feed_file import FeedAbout
from ctsd.feeds.key_index import KeyIndex
from ctsd.feeds.key_store import merge_feeds, write_feed
from ctsd.feeds.lookups import SCHEME
from ctsd.model import Artifact, Property
from ctsd.records import CONTAINS, FeedMatches, Record
from tests import indicator_strategies
from tests.test_feeds_key_index import IndexCase
from tests.test_feeds_matching import NOW, opened

#: How records follow from an artifact, in the order in which they are found; then all else.
ORDER = ("", SCHEME, CONTAINS)


def url(value: str, **more: Any) -> Record:
    """A record of a URL."""
    properties = (Property("string", "url", value),)
    return Record(type="net.uri", value=value, properties=properties, **more)


def told(found: Sequence[FeedMatches]) -> list[tuple[str, Any, str]]:
    """Of all that was found the feed, the indicator, and how."""
    return [
        (each.feed, matched.record.value, matched.how) for each in found for matched in each.matched
    ]


class PartsCase(IndexCase):
    """Feeds that are found so."""

    def put(self, feed: str, *records: Record, substring: bool = True, label: str = "") -> None:
        """Write a feed."""
        about = FeedAbout(name=feed, label=label)
        write_feed(self.directory, about, records, now=lambda: NOW, substring=substring)

    def ask(self, value: Any, type: str = "net.uri", limit: int = 10, **more: Any) -> Any:
        """What the feeds alpha and beta have on an artifact."""
        self.merge("alpha", "beta")
        return self.open().find(artifact=Artifact(type, value), limit=limit, **more)


class FindTests(PartsCase):
    """What is found."""

    def test_contains(self) -> None:
        """A URL without a scheme is found in others; in those of a feed that asks for it alone."""
        records = (url("http://www.bad.example/login"), url("https://other.example/"))
        self.put("alpha", *records)
        self.put("beta", *records, substring=False)
        expected = [("alpha", records[0].value, CONTAINS)]
        for value in ("www.bad.example", "AD.exa", "example/login"):
            self.assertEqual(told(self.ask(value)), expected)
        for value in ("http://www.bad.example/log", "bad", "gone.example", ""):
            self.assertEqual(told(self.ask(value)), [])

    def test_order(self) -> None:
        """What equals the artifact, what contains it, what derives from it; each record once."""
        host = Record(type="net.name", value="bad.example")
        records = (host, url("http://bad.example/2"), url("http://bad.example/1"))
        self.put("alpha", *records, url("http://bad.example/"))
        self.assertEqual(
            told(self.ask("bad.example")),
            [
                ("alpha", "http://bad.example/", SCHEME),
                ("alpha", "http://bad.example/2", CONTAINS),
                ("alpha", "http://bad.example/1", CONTAINS),
                ("alpha", "bad.example", "host of the URL"),
            ],
        )

    def test_only_its_type(self) -> None:
        """A host is looked for in hosts; what has no rules for parts is not found by them."""
        hosts = (Record(type="net.name", value="www.bad.example"), url("http://bad.example/1"))
        self.put("alpha", *hosts, Record(type="hash.md5", value="a" * 32))
        found = told(self.ask("ww.bad.exa", type="net.name"))
        self.assertEqual(found, [("alpha", "www.bad.example", CONTAINS)])
        self.assertEqual(told(self.ask("aaaaaaaa", type="hash.md5")), [])
        self.assertEqual(told(self.ask({"a": "b"}, type="system.registry")), [])

    def test_left_out(self) -> None:
        """What has expired, is hidden, is not wanted, or was made by other code is not found."""
        self.put("alpha", url("http://bad.example/1", expires=NOW), url("http://bad.example/2"))
        self.put("beta", url("http://bad.example/3"), label="of another version")
        self.assertEqual(
            told(self.ask("bad.example")), [("alpha", "http://bad.example/2", CONTAINS)]
        )
        self.assertEqual(self.ask("bad.example", hidden={"alpha"}), ())
        self.assertEqual(self.ask("bad.example", wanted=lambda feed, record: False), ())

    def test_many(self) -> None:
        """Records beyond the limit are counted, up to a limit of their own."""
        self.put("alpha", *(url(f"http://bad.example/{number}") for number in range(150)))
        (found,) = self.ask("bad.example/")
        self.assertEqual((len(found.matched), found.more, found.at_least), (10, 140, False))
        self.put("alpha", *(url(f"http://bad.example/{number}") for number in range(5000)))
        (found,) = self.ask("bad.example/")
        self.assertEqual((len(found.matched), found.at_least), (10, True))
        self.assertGreater(found.more, 1000)

    def test_behind_what_has_expired(self) -> None:
        """However many of the first ones have expired, the others are found."""
        old = (url(f"http://bad.example/{number}", expires=1.0) for number in range(2500))
        self.put("alpha", *old, url("http://bad.example/zz"))
        self.assertEqual(
            told(self.ask("bad.example")), [("alpha", "http://bad.example/zz", CONTAINS)]
        )

    def test_long_values(self) -> None:
        """A value that is longer than all that is stored is not there."""
        self.put("alpha", url("http://bad.example/1"))
        self.assertEqual(told(self.ask("bad.example/" + "x" * 200_000)), [])
        self.put("alpha", url("http://bad.example/" + "x" * 70_000))
        self.assertEqual(told(self.ask("bad.example/xxx")), [])

    def test_nothing_more_to_look_for(self) -> None:
        """A feed that does not ask for it has nothing of all this in its file."""
        self.put("alpha", url("http://bad.example/"), substring=False)
        (path,) = self.directory.glob("alpha.*.feed")
        file = ArrayFile.open(path)
        self.addCleanup(file.close)
        self.assertEqual([name for name in file.arrays if name.startswith("parts")], [])


class AgreementTests(IndexCase):
    """Beside the rules, record by record."""

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(
        indicator_strategies.feeds,
        st.lists(
            indicator_strategies.artifacts
            | st.builds(
                Artifact,
                st.sampled_from(["net.uri", "net.name", "file.name", "string", "net.ip"]),
                st.sampled_from(["example", "evil", "http", "192.0", "192.0.2", ".exe", "e", "ÄÖ"]),
            ),
            min_size=1,
            max_size=10,
        ),
    )
    def test_agree(self, feeds: dict[str, list[Record]], asked: list[Artifact]) -> None:
        """What contains an artifact by the rules is found, beside all that is found without."""
        with TemporaryDirectory() as where:
            indexes: list[KeyIndex] = []
            for substring in (False, True):
                directory = Path(where) / str(substring)
                for name, records in feeds.items():
                    write_feed(
                        directory,
                        FeedAbout(name=name),
                        records,
                        now=lambda: NOW,
                        substring=substring,
                    )
                os.makedirs(directory, exist_ok=True)
                merge_feeds(directory, list(feeds))
                indexes.append(opened(directory))
            for artifact in asked:
                plain, whole = (
                    told(index.find(artifact=artifact, limit=1000)) for index in indexes
                )
                found = {(feed, repr(value)) for feed, value, _ in plain}
                self.assertEqual(
                    {(feed, repr(value)) for feed, value, _ in whole},
                    found | by_rules(feeds, artifact),
                )
                self.assertGreaterEqual(len(whole), len(plain))
                for feed in feeds:
                    hows = [how for name, _, how in whole if name == feed]
                    ranks = [ORDER.index(how) if how in ORDER else len(ORDER) for how in hows]
                    self.assertEqual(ranks, sorted(ranks))
            for index in indexes:
                index.close()


def by_rules(feeds: dict[str, list[Record]], artifact: Artifact) -> set[tuple[str, str]]:
    """What contains an artifact by L{ctsd.matching}."""
    return {
        (feed, repr(record.value))
        for feed, records in feeds.items()
        for record in records
        if record.type == artifact.type
        and (record.expires is None or record.expires > NOW)
        and any(
            b"\xff" not in pattern and pattern in b"\xff" + key + b"\xff"
            for key in artifacts.keys(record.type, record.value)
            for pattern in artifacts.patterns(artifact.type, artifact.value)
        )
    }
