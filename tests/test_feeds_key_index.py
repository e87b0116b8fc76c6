"""Tests of the index of all feeds: how it is written, opened, searched and swapped."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctsd.errors import SearchLater
from ctsd.feeds import feed_file
from ctsd.feeds.array_file import HEAD_BYTES, PAGE, ArrayFile, BadIndex
from ctsd.feeds.feed_file import FeedAbout, FeedFile
from ctsd.feeds.indicators import Indicators
from ctsd.feeds.job import Refused
from ctsd.feeds.key_index import KeyIndex
from ctsd.feeds.key_store import COMBINED, clear_directory, merge_feeds, write_feed
from ctsd.feeds.keys import digest_of
from ctsd.feeds.networks import NO_PARENT, parents_of
from ctsd.interfaces.feeds import IIndicators
from ctsd.model import PASSWORD, Artifact, Property
from ctsd.records import FeedMatches, Record
from tests.feeding import at_once
from tests.reference_matching import ReferenceIndicators
from tests.test_feeds_matching import NOW, opened

LABEL = "of this code"


def name(value: str, note: str = "", **more: Any) -> Record:
    """A record of a host."""
    return Record(
        type="net.name",
        value=value,
        properties=(Property("string", "note", note or value),),
        **more,
    )


def shown(found: tuple[FeedMatches, ...]) -> dict[str, list[object]]:
    """The values that each feed has."""
    return {each.feed: [matched.record.value for matched in each.matched] for each in found}


class IndexCase(SynchronousTestCase):
    """A directory with an index."""

    def setUp(self) -> None:
        """What is durable is not tested here; the disk's patience is."""
        self.patch(os, "fsync", lambda descriptor: None)
        self.directory = Path(mkdtemp(dir=self.mktemp_parent()))

    def mktemp_parent(self) -> str:
        """A directory of this test's own."""
        parent = self.mktemp()
        os.makedirs(parent)
        return parent

    def write(self, feed: str, *records: Record | None, label: str = "") -> FeedAbout:
        """Write a feed."""
        about = FeedAbout(name=feed, label=label, source="a test")
        return write_feed(self.directory, about, records, now=lambda: NOW)

    def merge(self, *names: str) -> None:
        """Merge the feeds with these names."""
        merge_feeds(self.directory, names)

    def open(self, **more: Any) -> KeyIndex:
        """The index, closed after the test."""
        index = opened(self.directory, **more)
        self.addCleanup(index.close)
        return index

    def files(self) -> list[str]:
        """What is in the directory."""
        return sorted(path.name.split(".")[0] or path.name for path in self.directory.iterdir())


def ask(index: IIndicators | KeyIndex, value: str, limit: int = 10, **more: Any) -> Any:
    """What is found of a host."""
    return index.find(artifact=Artifact("net.name", value), limit=limit, **more)


class WriteTests(IndexCase):
    """How feeds come in."""

    def test_about(self) -> None:
        """What could not be taken is counted: malformed, never to be found, not to be kept."""
        about = self.write(
            "alpha", name("a.example"), None, name(""), Record(type=PASSWORD, value="x")
        )
        self.assertEqual((about.records, about.skipped, about.built), (1, 3, NOW))
        self.merge("alpha")
        self.assertEqual(dict(self.open().feeds), {"alpha": about})

    def test_refused(self) -> None:
        """What is not fit leaves all as it was."""

        def fit(about: FeedAbout) -> None:
            raise Refused(f"{about.records} records")

        self.write("alpha", name("a.example"))
        with self.assertRaises(Refused) as caught:
            write_feed(self.directory, FeedAbout(name="alpha"), [name("b.example")], fit)
        self.assertEqual(str(caught.exception), "1 records")
        self.assertEqual(self.files(), ["alpha"])
        self.merge("alpha")
        self.assertEqual(shown(ask(self.open(), "a.example")), {"alpha": ["a.example"]})

    def test_newest(self) -> None:
        """The newest records of a feed count, and the files of older ones go."""
        self.write("alpha", name("a.example"))
        self.merge("alpha")
        self.write("alpha", name("b.example"))
        self.merge("alpha")
        index = self.open()
        self.assertEqual(ask(index, "a.example"), ())
        self.assertEqual(shown(ask(index, "b.example")), {"alpha": ["b.example"]})
        self.assertEqual(self.files(), ["alpha", COMBINED])

    def test_names(self) -> None:
        """Feeds that are not named are left out, and names that begin alike are not the same."""
        self.write("alpha", name("a.example"))
        self.write("alpha_two", name("a.example"))
        self.merge("alpha", "beta")
        self.assertEqual(shown(ask(self.open(), "a.example")), {"alpha": ["a.example"]})

    def test_damaged_feed(self) -> None:
        """A file that is damaged is passed over for the one before it."""
        self.write("alpha", name("a.example"))
        self.write("alpha", name("b.example"))
        newest = max(self.directory.glob("alpha.*"))
        newest.write_bytes(newest.read_bytes()[:-1])
        self.merge("alpha")
        self.assertEqual(shown(ask(self.open(), "a.example")), {"alpha": ["a.example"]})

    def test_empty(self) -> None:
        """There may be nothing at all."""
        self.merge()
        self.assertEqual(ask(self.open(), "a.example"), ())
        self.write("alpha")
        self.merge("alpha")
        index = self.open()
        self.assertEqual(ask(index, "a.example"), ())
        self.assertTrue(index.has_nothing(type="net.name", value="a.example"))

    def test_many(self) -> None:
        """More hashes than are sorted in one go."""
        with mock.patch("ctsd.feeds.combined._PART", 16):
            self.write("alpha", *(name(f"{number}.example") for number in range(300)))
            self.write("beta", *(name(f"{number}.example") for number in range(200, 400)))
            self.merge("alpha", "beta")
        index = self.open()
        for number in range(400):
            wanted = [
                feed for feed, has in (("alpha", number < 300), ("beta", number >= 200)) if has
            ]
            self.assertEqual(list(shown(ask(index, f"{number}.example"))), wanted)
            self.assertFalse(index.has_nothing(type="net.name", value=f"{number}.example"))
        self.assertEqual(ask(index, "400.example"), ())
        self.assertTrue(index.has_nothing(type="net.name", value="400.example"))


class FindTests(IndexCase):
    """What is found, beside what L{tests.test_feeds_matching} says of it."""

    def test_collision(self) -> None:
        """A key with the same hash is no hit."""
        self.patch(feed_file, "digest_of", lambda key: digest_of(b"nasked.example"))
        self.write("alpha", name("other.example"), name("asked.example"))
        self.merge("alpha")
        self.assertEqual(shown(ask(self.open(), "asked.example")), {"alpha": ["asked.example"]})

    def test_collision_and_match(self) -> None:
        """What one lookup finds wrongly another may find rightly."""

        def colliding(key: bytes) -> bytes:
            return digest_of(b"nasked.example" if key[:1] == b"u" else key)

        self.patch(feed_file, "digest_of", colliding)
        self.write("alpha", Record(type="net.uri", value="http://asked.example/x"))
        self.merge("alpha")
        (alpha,) = ask(self.open(), "asked.example")
        self.assertEqual([matched.how for matched in alpha.matched], ["URL on the host"])

    def test_limit(self) -> None:
        """Beyond the limit records are counted, up to a limit of that; each feed by itself."""
        self.write("alpha", *(name("a.example", f"{number}") for number in range(30)))
        self.write("beta", name("a.example"))
        self.merge("alpha", "beta")
        index = KeyIndex.open(
            self.directory, now=lambda: NOW, registered=lambda host: host, scan_limit=10
        )
        self.addCleanup(index.close)
        alpha, beta = ask(index, "a.example", limit=3)
        self.assertEqual((len(alpha.matched), alpha.more, alpha.at_least), (3, 27, True))
        self.assertEqual((len(beta.matched), beta.more, beta.at_least), (1, 0, False))
        alpha, _ = ask(self.open(), "a.example", limit=3)
        self.assertEqual((len(alpha.matched), alpha.more, alpha.at_least), (3, 27, False))

    def test_far_behind(self) -> None:
        """What is still good is found behind any number of records that are not."""
        old = [name("a.example", expires=NOW - 1) for _ in range(500)]
        self.write("alpha", *old, name("a.example", "good", expires=NOW + 1))
        self.write("beta", *old)
        self.merge("alpha", "beta")
        (alpha,) = ask(self.open(), "a.example")
        self.assertIn(b"good", alpha.matched[0].record.hit)
        self.assertEqual(len(alpha.matched), 1)

    def test_wanted(self) -> None:
        """What is not wanted is left out, and nothing of a feed remains without a record."""
        self.write("alpha", name("a.example", "bad"), name("a.example", "good"))
        self.write("beta", name("a.example", "bad"))
        self.merge("alpha", "beta")
        asked: list[str] = []

        def wanted(feed: str, record: Any) -> bool:
            asked.append(feed)
            return b"good" in record.hit

        (alpha,) = ask(self.open(), "a.example", wanted=wanted)
        self.assertEqual(len(alpha.matched), 1)
        self.assertEqual(asked, ["alpha", "alpha", "beta"])

    def test_unwanted_without_end(self) -> None:
        """A feed whose first records are all unwanted is not told to have nothing."""
        self.write("alpha", *(name("a.example", str(number)) for number in range(300)))
        self.merge("alpha")
        (alpha,) = ask(self.open(), "a.example", wanted=lambda feed, record: False)
        self.assertEqual((alpha.matched, alpha.at_least), ((), True))

    def test_hidden(self) -> None:
        """Feeds that are too old are left out."""
        self.write("alpha", name("a.example"))
        self.write("beta", name("a.example"))
        self.merge("alpha", "beta")
        self.assertEqual(list(shown(ask(self.open(), "a.example", hidden={"alpha"}))), ["beta"])

    def test_other_code(self) -> None:
        """Feeds that other code has written are not served."""
        self.write("alpha", name("a.example"), label="old")
        self.write("beta", name("a.example"), label="new")
        self.merge("alpha", "beta")
        index = KeyIndex.open(
            self.directory, now=lambda: NOW, registered=lambda host: host, label="new"
        )
        self.addCleanup(index.close)
        self.assertEqual(list(index.feeds), ["beta"])
        self.assertEqual(list(shown(ask(index, "a.example"))), ["beta"])

    def test_many_inside(self) -> None:
        """A range finds what is in it, of every feed."""
        for feed in ("alpha", "beta"):
            self.write(feed, *(Record(type="net.ip", value=f"192.0.2.{n}") for n in range(200)))
        self.write("gamma", Record(type="net.ip", value="192.0.2.255"))
        self.merge("alpha", "beta", "gamma")
        found = self.open().find(artifact=Artifact("net.cidr", "192.0.2.0/24"), limit=2)
        self.assertEqual(
            [(each.feed, len(each.matched), each.more, each.at_least) for each in found],
            [("alpha", 2, 198, False), ("beta", 2, 198, False), ("gamma", 1, 0, False)],
        )

    def test_parents(self) -> None:
        """Each range knows the one around it, the last of equal ones."""
        ranges = [(0, 8), (0, 8), (0, 16), (1 << 16, 16), (1 << 16, 24), (1 << 24, 8)]
        starts, prefixes = [start for start, _ in ranges], [prefix for _, prefix in ranges]
        self.assertEqual(
            parents_of(starts, prefixes, 32), [NO_PARENT, NO_PARENT, 1, 1, 3, NO_PARENT]
        )


class DamageTests(IndexCase):
    """No damaged file is served, and no byte of one brings the process down."""

    def setUp(self) -> None:
        """An index of one feed."""
        super().setUp()
        self.write("alpha", name("a.example"), Record(type="net.cidr", value="192.0.2.0/24"))
        self.merge("alpha")
        (self.feed,) = self.directory.glob("*.feed")
        self.combined = self.directory / COMBINED

    def check(self, path: Path, data: bytes) -> None:
        """A file with these bytes is refused, and what was there still serves."""
        good = path.read_bytes()
        path.write_bytes(data)
        try:
            self.assertRaises(BadIndex, opened, self.directory)
        finally:
            path.write_bytes(good)

    @settings(deadline=None, max_examples=60)
    @given(st.booleans(), st.integers(0, 1 << 16), st.integers(1, 255))
    def test_any_byte(self, in_feed: bool, at: int, change: int) -> None:
        """Any byte that is not padding counts."""
        path = self.feed if in_feed else self.combined
        data = bytearray(path.read_bytes())
        at %= len(data)
        if HEAD_BYTES <= at < PAGE:
            # Between the head and the next page there is nothing.
            return
        data[at] ^= change
        self.check(path, bytes(data))

    @settings(deadline=None, max_examples=40)
    @given(st.booleans(), st.integers(0, 1 << 16))
    def test_cut(self, in_feed: bool, size: int) -> None:
        """A file that was cut, or has grown, is not mapped."""
        path = self.feed if in_feed else self.combined
        data = path.read_bytes()
        self.check(path, data[: size % len(data)])
        self.check(path, data + b"x")

    def test_other_feed(self) -> None:
        """A whole file that is not the one that was merged is refused."""
        other = Path(mkdtemp(dir=self.directory))
        write_feed(other, FeedAbout(name="alpha"), [name("other.example")])
        (path,) = other.glob("*.feed")
        self.check(self.feed, path.read_bytes())

    def test_not_whole(self) -> None:
        """Who only wants to know what a file says of itself may leave out the rest."""
        data = bytearray(self.combined.read_bytes())
        data[PAGE] ^= 1
        self.combined.write_bytes(data)
        file = ArrayFile.open(self.combined, whole=False)
        self.addCleanup(file.close)
        self.assertEqual([named["about"]["name"] for named in file.about["feeds"]], ["alpha"])

    def test_merged_anew(self) -> None:
        """A damaged index is made anew from the feeds' files."""
        self.combined.write_bytes(b"nonsense")
        self.merge("alpha")
        self.assertEqual(shown(ask(self.open(), "a.example")), {"alpha": ["a.example"]})


class CrashTests(IndexCase):
    """Wherever a build dies, the last good index is there, and the next build goes well."""

    #: The calls of the system on the way; a build dies at each of them.
    CALLS = ("open", "pwrite", "posix_fallocate", "fsync", "rename", "unlink")

    def die_at(self, count: int) -> bool:
        """Build in a process that dies at its so-manieth call. Whether it got so far."""
        process = os.fork()
        if process:
            return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
        try:
            left = [count]

            def dying(call: Callable[..., Any]) -> Callable[..., Any]:
                def instead(*args: Any, **more: Any) -> Any:
                    left[0] -= 1
                    if left[0] < 0:
                        os._exit(9)
                    return call(*args, **more)

                return instead

            for call in self.CALLS:
                setattr(os, call, dying(getattr(os, call)))
            self.write("alpha", name("new.example"))
            self.merge("alpha", "beta")
        finally:
            os._exit(0)

    def test_everywhere(self) -> None:
        """Before and after each call."""
        self.write("alpha", name("old.example"))
        self.write("beta", name("other.example"))
        self.merge("alpha", "beta")
        count = died = 0
        while self.die_at(count):
            died += 1
            count += 1
            index = opened(self.directory)
            found = {value for value in ("old.example", "new.example") if ask(index, value)}
            self.assertEqual(len(found), 1, f"after {count} calls")
            self.assertTrue(ask(index, "other.example"))
            index.close()
        self.assertGreater(died, 20)
        clear_directory(self.directory)
        self.merge("alpha", "beta")
        index = self.open()
        self.assertTrue(ask(index, "new.example"))
        self.assertEqual(self.files(), ["alpha", "beta", COMBINED])

    def test_full_disk(self) -> None:
        """What can't be written leaves nothing behind."""
        self.write("alpha", name("old.example"))
        self.merge("alpha")
        full = mock.Mock(side_effect=OSError(28, "No space left on device"))
        with mock.patch("os.posix_fallocate", full):
            self.assertRaises(OSError, self.write, "alpha", name("new.example"))
            self.assertRaises(OSError, self.merge, "alpha")
        self.assertEqual(self.files(), ["alpha", COMBINED])
        self.assertTrue(ask(self.open(), "old.example"))


class IndicatorsTests(IndexCase):
    """What is served."""

    def setUp(self) -> None:
        """Nothing yet."""
        super().setUp()
        self.indicators = Indicators(
            directory=self.directory / "feeds", in_thread=at_once, now=lambda: NOW, label=LABEL
        )
        self.directory = self.directory / "feeds"

    def run_now(self, work: Any) -> None:
        """A coroutine that has nothing to wait for."""
        self.successResultOf(ensureDeferred(work))

    def test_interface(self) -> None:
        """The real one and that of tests provide the interface."""
        verifyObject(IIndicators, self.indicators)
        verifyObject(IIndicators, ReferenceIndicators({}))

    def test_nothing_yet(self) -> None:
        """What was never loaded is later, not nothing."""
        self.run_now(self.indicators.start())
        self.assertEqual(dict(self.indicators.feeds), {})
        self.assertRaises(SearchLater, ask, self.indicators, "a.example")
        self.run_now(self.indicators.close())

    def test_swap(self) -> None:
        """The next index takes over; files of feeds that have not changed stay open."""
        self.run_now(self.indicators.start())
        self.write("alpha", name("a.example"), label=LABEL)
        self.write("beta", name("b.example"), label=LABEL)
        self.merge("alpha", "beta")
        self.run_now(self.indicators.swap())
        self.assertTrue(ask(self.indicators, "a.example"))
        self.write("alpha", name("c.example"), label=LABEL)
        self.merge("alpha", "beta")
        opening = mock.Mock(side_effect=FeedFile.open)
        with mock.patch("ctsd.feeds.key_index.FeedFile.open", opening):
            self.run_now(self.indicators.swap())
        self.assertEqual(opening.call_count, 1)
        self.assertEqual(ask(self.indicators, "a.example"), ())
        self.assertTrue(ask(self.indicators, "b.example"))
        self.assertTrue(ask(self.indicators, "c.example"))
        self.run_now(self.indicators.close())
        self.assertRaises(SearchLater, ask, self.indicators, "b.example")

    def test_restart(self) -> None:
        """What an earlier start has left serves at once; what a killed build has left goes."""
        self.directory.mkdir()
        self.write("alpha", name("a.example"), label=LABEL)
        self.merge("alpha")
        (self.directory / ".combined.1.building").touch()
        self.run_now(self.indicators.start())
        self.assertTrue(ask(self.indicators, "a.example"))
        self.assertEqual(self.files(), ["alpha", COMBINED])
        self.run_now(self.indicators.close())

    def test_damaged(self) -> None:
        """A damaged index is left out at the start, and does not take over later."""
        self.directory.mkdir()
        (self.directory / COMBINED).write_bytes(b"nonsense")
        self.run_now(self.indicators.start())
        self.assertEqual(len(self.flushLoggedErrors()), 0)
        self.assertFalse((self.directory / COMBINED).exists())
        self.write("alpha", name("a.example"), label=LABEL)
        self.merge("alpha")
        self.run_now(self.indicators.swap())
        # What is mapped is never modified: it is replaced.
        (self.directory / "new").write_bytes(b"nonsense")
        (self.directory / "new").rename(self.directory / COMBINED)
        self.failureResultOf(ensureDeferred(self.indicators.swap()), BadIndex)
        self.assertTrue(ask(self.indicators, "a.example"))
        self.run_now(self.indicators.close())

    def test_removed_meanwhile(self) -> None:
        """Files that a merge removes while they are being opened are no error."""
        self.directory.mkdir()
        self.write("alpha", name("a.example"), label=LABEL)
        self.merge("alpha")
        real = FeedFile.open
        looks: list[Path] = []

        def vanishing(path: Path, *, whole: bool = True) -> FeedFile:
            looks.append(path)
            if len(looks) == 1:
                self.write("alpha", name("b.example"), label=LABEL)
                self.merge("alpha")
            return real(path, whole=whole)

        with mock.patch("ctsd.feeds.key_index.FeedFile.open", vanishing):
            self.run_now(self.indicators.start())
        self.assertTrue(ask(self.indicators, "b.example"))
        self.run_now(self.indicators.close())

    def test_one_swap_at_a_time(self) -> None:
        """A swap waits for the one before it."""
        self.run_now(self.indicators.start())
        held: list[Deferred[None]] = []

        def slow(function: Callable[..., Any], *args: Any, **more: Any) -> Deferred[Any]:
            held.append(Deferred())
            return held[-1].addCallback(lambda _: function(*args, **more))

        self.patch(self.indicators, "_in_thread", slow)
        self.write("alpha", name("a.example"), label=LABEL)
        self.merge("alpha")
        first, second = (ensureDeferred(self.indicators.swap()) for _ in range(2))
        self.assertEqual(len(held), 1)
        while held:
            held.pop().callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertTrue(ask(self.indicators, "a.example"))
        self.patch(self.indicators, "_in_thread", at_once)
        self.run_now(self.indicators.close())
