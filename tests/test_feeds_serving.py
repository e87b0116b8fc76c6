"""All feeds together: brought, indexed, searched, and how they stand."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ctsd.config.document import Document
from ctsd.errors import SearchLater
from ctsd.feeds import feed_work
from ctsd.feeds.copies import BadState, Copies
from ctsd.feeds.descriptions import Description, read_description
from ctsd.feeds.download import Downloads
from ctsd.feeds.feed_state import Copy
from ctsd.feeds.guards import Counts
from ctsd.feeds.indexing import RETRY_SECS
from ctsd.feeds.job import BuildFailed, lock_builds
from ctsd.feeds.on_disk import FeedsOnDisk
from ctsd.feeds.own_file import RETRY_SECS as FILE_RETRY_SECS
from ctsd.feeds.parsers.tally import Tally
from ctsd.feeds.reading import Reading
from ctsd.feeds.screening import Screening
from ctsd.feeds.serving import LOOK_SECS, Feeds
from ctsd.feeds.small_lists import built_in
from ctsd.feeds.standing import LATER_SECS, SOON_SECS
from ctsd.feeds.updates import Updates
from ctsd.feeds.warninglists import Patterns, SmallLists, Warninglists
from ctsd.interfaces.feeds import IFeeds
from ctsd.model import Artifact
from ctsd.records import CONTAINS, FeedMatches
from ctsd.remote import Download
from tests.test_feeds_download import Provider

NOW = 1_800_000_000.0
DAY_SECS = 86400.0


def at_once(function: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
    """A thread that takes no time."""
    try:
        return succeed(function(*args, **kwargs))
    except BaseException:
        return fail()


async def examine(description: Description, path: Path, **_: Any) -> Counts:
    """Parses here and now."""
    tally = Tally()
    for _ in Reading.of(description, path).records(tally, now=NOW):
        pass
    return Counts(rows=tally.rows, refused=tally.bad, records=tally.records)


class SilentProvider(Provider):
    """Has no answer when it was not told one."""

    def download(self, **given: Any) -> Any:
        """See L{Provider}."""
        self.answers = self.answers or [Deferred()]
        return super().download(**given)


class Children:
    """
    Works here and now.

    :ivar given: of each work.
    :ivar broken: why none can be done.
    :ivar waiting: set, the next work takes until that fires.
    """

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []
        self.broken = ""
        self.waiting: Deferred[Any] | None = None

    def run(self, module: str, given: Any, **_: Any) -> Deferred[Any]:
        """See L{ctsd.feeds.children.Children}."""
        assert module == "ctsd.feeds.feed_work"
        self.given.append(json.loads(json.dumps(given)))
        if self.broken:
            return fail(BuildFailed(self.broken))
        if self.waiting is not None:
            return self.waiting
        return at_once(feed_work.work, self.given[-1])


class Screener:
    """The built-in lists alone."""

    lists = Warninglists(small=SmallLists(built_in()), patterns=Patterns(()))

    def __init__(self, marking: Sequence[str] = ()) -> None:
        self.marking = marking

    def screening(self) -> Screening:
        """See L{ctsd.feeds.screener.Screener}."""
        return Screening(lists=self.lists, marking=self.marking)

    def is_shared_host(self, host: str) -> bool:
        """None is."""
        return False


def feed(name: str = "mine", **own: Any) -> Description:
    """A feed of addresses."""
    table = {
        "url": f"https://feeds.example/{name}.txt",
        "format": "lines",
        "indicators": [{"field": "line", "type": "net.ip"}],
        "every_secs": 3600,
        "min_interval_secs": 60,
        "max_refused_share": 0.5,
        **own,
    }
    if "file" in own:
        del table["url"]
    return read_description(name, table, Document(name="ctsd.toml", base_dir=Path("/")))


class FeedsCase(SynchronousTestCase):
    """
    Feeds, a provider, and a clock.

    :ivar ago: how long before now by the clock the wall clock is.
    :ivar lists_trouble: what is wrong with files of warninglists.
    """

    lists_trouble = ""

    def setUp(self) -> None:
        """A directory."""
        self.dir = Path(self.mktemp()).absolute()
        self.dir.mkdir()
        self.clock = Clock()
        self.clock.advance(NOW)
        self.provider = SilentProvider()
        self.children = Children()
        self.left_out: list[tuple[str, str, str]] = []
        self.downloads = Downloads(
            directory=self.dir / "feeds",
            outbound=self.provider,
            gathering=None,  # type: ignore[arg-type]
            examine=examine,
            in_thread=at_once,
            now=self.clock.seconds,
            chance=lambda: 0.0,
        )

    def updates(self, taken: Callable[[Description, Copies, Copy], object]) -> Updates:
        """Real ones."""
        return Updates(
            clock=self.clock,
            downloads=self.downloads,
            in_thread=at_once,
            now=self.clock.seconds,
            chance=lambda: 0.0,
            taken=taken,
        )

    def start(
        self, *descriptions: Description, updating: bool = True, marking: Sequence[str] = ()
    ) -> Feeds:
        """Start."""
        feeds = Feeds(
            descriptions=descriptions,
            directory=self.dir / "index",
            list_links=self.dir / "links",
            screener=Screener(marking),  # type: ignore[arg-type]
            downloads=self.downloads,
            make_updates=self.updates if updating else None,
            children=self.children,  # type: ignore[arg-type]
            clock=self.clock,
            in_thread=at_once,
            now=self.clock.seconds,
            lists_trouble=lambda: self.lists_trouble,
        )
        feeds.startService()
        self.addCleanup(lambda: feeds.running and self.successResultOf(feeds.stopService()))
        return feeds

    def look(self, secs: float = LOOK_SECS) -> None:
        """Let time pass."""
        self.clock.pump([LOOK_SECS] * int(secs / LOOK_SECS))

    def answers(self, *bodies: bytes | int) -> None:
        """What the provider answers next: a file, or a status."""
        self.provider.answers += [
            (body, {}, b"") if isinstance(body, int) else (200, {}, body) for body in bodies
        ]

    def find(self, feeds: IFeeds, value: str) -> tuple[FeedMatches, ...]:
        """What an address finds."""
        return feeds.find(
            artifact=Artifact("net.ip", value),
            limit=10,
            left_out=lambda *told: self.left_out.append(told),
        )

    def assertFinds(self, feeds: IFeeds, value: str, *names: str) -> None:
        """These feeds have an address."""
        self.assertEqual(tuple(found.feed for found in self.find(feeds, value)), names)


class ServingTests(FeedsCase):
    """What comes of a provider's file."""

    def test_interface(self) -> None:
        """It is what searchers want, and so is what stands in for it beside the daemon."""
        self.assertTrue(IFeeds.providedBy(self.start()))
        self.assertTrue(
            IFeeds.providedBy(
                FeedsOnDisk(
                    descriptions=(), directory=self.dir, index=self.dir, now=self.clock.seconds
                )
            )
        )

    def test_brought(self) -> None:
        """It is asked for at the start, indexed, and found."""
        self.answers(b"203.0.113.1\n203.0.113.2\n")
        feeds = self.start(feed())
        self.look()
        self.assertFinds(feeds, "203.0.113.1", "mine")
        self.assertFinds(feeds, "203.0.113.9")
        self.assertFalse(feeds.has_nothing(type="net.ip", value="203.0.113.1"))
        self.assertTrue(feeds.has_nothing(type="net.ip", value="203.0.113.9"))
        self.assertFalse(feeds.has_nothing(type="email.header.to", value=["a@b.example"]))
        self.assertEqual((feeds.away, feeds.trouble(), feeds.loading()), ((), "", False))
        self.assertEqual(feeds.describe(), "1 of 1 feeds, 2 records")

    def test_lists(self) -> None:
        """What is wrong with files of warninglists is told with what is wrong with feeds."""
        self.lists_trouble = "a is no warninglist"
        self.answers(500)
        feeds = self.start(feed())
        self.look(10)
        self.assertEqual(feeds.trouble(), "mine: it answered 500; a is no warninglist")

    def test_broken_state(self) -> None:
        """What was indexed is searched after a restart, although the disk damaged the state."""
        self.answers(b"203.0.113.1\n203.0.113.2\n")
        feeds = self.start(feed())
        self.look(4)
        self.successResultOf(feeds.stopService())
        (self.dir / "feeds" / "mine" / "feed.json").write_bytes(b"{")
        for path in (self.dir / "feeds" / "mine").iterdir():
            os.utime(path, (NOW, NOW))
        feeds = self.start(feed())
        self.look(10)
        self.assertEqual(len(self.find(feeds, "203.0.113.1")), 1)
        self.assertEqual((feeds.away, feeds.trouble()), ((), ""))
        self.assertEqual((len(self.children.given), len(self.provider.asked)), (1, 1))

    def test_first_failure(self) -> None:
        """One that never came is away; whoever wants it asks again soon, then less often."""
        feeds = self.start(feed(title="Mine"))
        self.assertEqual((feeds.away, feeds.retry_secs), (("Mine",), SOON_SECS))
        self.assertFinds(feeds, "203.0.113.1")
        self.assertFalse(feeds.has_nothing(type="net.ip", value="203.0.113.1"))
        self.successResultOf(feeds.stopService())
        self.answers(500)
        self.clock.advance(61)
        feeds = self.start(feed(title="Mine"))
        self.look()
        self.assertEqual((feeds.away, feeds.retry_secs), (("Mine",), LATER_SECS))
        self.assertIn("mine: it answered 500", feeds.trouble())

    def test_on_its_way(self) -> None:
        """
        Who waits for one asks again soon after it is asked for anew, while that lasts, and while it
        is indexed; more rarely when that takes long.
        """
        self.answers(500)
        feeds = self.start(feed())
        self.look()
        self.assertEqual(feeds.retry_secs, LATER_SECS)
        self.look(40)
        self.assertEqual(feeds.away, ("mine",))
        self.assertTrue(SOON_SECS < feeds.retry_secs < 30, feeds.retry_secs)
        waiting: Deferred[Any] = Deferred()
        self.provider.answers = [waiting]
        self.look(30)
        self.assertEqual(len(self.provider.asked), 2)
        self.assertEqual(feeds.retry_secs, SOON_SECS)
        self.look(100)
        self.assertTrue(SOON_SECS < feeds.retry_secs < 20, feeds.retry_secs)
        self.children.waiting = Deferred()
        body = b"203.0.113.1\n"
        part = self.dir / "feeds" / "mine" / "new.part"
        part.write_bytes(body)
        waiting.callback(
            Download(status=200, size=len(body), sha256=hashlib.sha256(body).hexdigest())
        )
        self.look()
        self.assertEqual(len(self.children.given), 1)
        self.assertEqual((feeds.loading(), feeds.retry_secs), (True, SOON_SECS))

    def test_not_required(self) -> None:
        """Nobody waits for one that is not required."""
        self.answers(500)
        feeds = self.start(feed(required=False))
        self.look()
        self.assertEqual(feeds.away, ())
        self.assertIn("500", feeds.trouble())

    def test_substring(self) -> None:
        """One that asks for it is found by what contains an artifact, after each new copy, too."""
        urls = feed(indicators=[{"field": "line", "type": "net.uri"}], substring=True)
        artifact = Artifact("net.uri", "bad.example")
        first, second = "http://www.bad.example/1", "http://y.bad.example/2"
        self.answers(first.encode(), f"http://x.example/\n{second}\n".encode())
        feeds = self.start(urls)
        for expected in (first, second):
            self.look()
            found = feeds.find(artifact=artifact, limit=10, left_out=self.fail)
            values = [(one.record.value, one.how) for each in found for one in each.matched]
            self.assertEqual(values, [(expected, CONTAINS)])
            self.assertFalse(feeds.has_nothing(type="net.uri", value="bad.example"))
            self.clock.advance(3700)
        self.clock.advance(40 * DAY_SECS)
        self.look()
        self.assertEqual(feeds.find(artifact=artifact, limit=10, left_out=self.fail), ())
        self.assertEqual(feeds.away, ("mine",))

    def test_a_searcher_of_its_own(self) -> None:
        """A feed that a searcher has to itself is left to it where it is asked, and only there."""
        self.answers(b"203.0.113.1\n", b"203.0.113.1\n")
        feeds = self.start(feed("one"), feed("two"), feed("three", title="Three"))
        self.look(2 * LOOK_SECS)
        alone = feeds.alone(feed="one", searcher="mine")
        self.assertTrue(IFeeds.providedBy(alone))
        rest = feeds.beside(asked=frozenset({"feeds", "mine"}))
        self.assertIs(feeds.beside(asked=frozenset({"feeds"})), feeds)
        self.assertIs(feeds.beside(asked=frozenset({"mine"})), rest)
        for some, names in ((feeds, ("one", "two")), (alone, ("one",)), (rest, ("two",))):
            self.assertFinds(some, "203.0.113.1", *names)
        self.assertEqual((alone.away, rest.away, feeds.away), ((), ("Three",), ("Three",)))
        self.assertEqual(alone.describe(), "1 of 1 feeds, 1 records")
        self.assertEqual(rest.describe(), "1 of 2 feeds, 1 records")
        self.assertEqual((alone.loading(), alone.trouble(), alone.stale), (False, "", {}))
        self.clock.advance(3 * 3600)
        self.look()
        self.assertEqual((list(alone.stale), list(rest.stale)), (["one"], ["two"]))
        self.assertIn("one: is from", alone.trouble())
        self.clock.advance(8 * DAY_SECS)
        self.look()
        self.assertEqual(alone.away, ("one",))
        self.assertFinds(alone, "203.0.113.1")
        self.assertIs(alone.beside(asked=frozenset({"mine"})), alone)

    def test_without_network(self) -> None:
        """A restart serves what is on the disk, at once."""
        self.answers(b"203.0.113.1\n")
        first = self.start(feed())
        self.look()
        self.successResultOf(first.stopService())
        self.provider.answers = []
        self.children.broken = "nothing should be built"
        self.assertFinds(self.start(feed()), "203.0.113.1", "mine")

    def test_only_looking(self) -> None:
        """A command searches what is there, and asks nobody."""
        self.answers(b"203.0.113.1\n")
        first = self.start(feed())
        self.look()
        self.successResultOf(first.stopService())
        self.clock.advance(DAY_SECS)
        for path in (self.dir / "index").iterdir():
            path.unlink()
        feeds = self.start(feed(), updating=False)
        self.look()
        self.assertFinds(feeds, "203.0.113.1", "mine")
        self.assertEqual(len(self.provider.asked), 1)

    def test_ages(self) -> None:
        """An old copy is stale, and says since when; a very old one counts no more."""
        self.answers(b"203.0.113.1\n", *[500] * 200)
        feeds = self.start(feed(max_age_days=2))
        self.look()
        self.assertEqual(feeds.stale, {})
        self.look(3 * 3600)
        self.assertEqual(feeds.stale, {"mine": "2027-01-15"})
        self.assertFinds(feeds, "203.0.113.1", "mine")
        self.look(2 * DAY_SECS)
        self.assertEqual((feeds.stale, feeds.away), ({}, ("mine",)))
        self.assertFinds(feeds, "203.0.113.1")

    def test_newer(self) -> None:
        """A newer file takes the place of the older one; the same one is not indexed again."""
        self.answers(b"203.0.113.1\n203.0.113.2\n", b"203.0.113.1\n203.0.113.2\n", b"203.0.113.3\n")
        feeds = self.start(feed())
        self.look(1.5 * 3600)
        self.assertEqual((len(self.provider.asked), len(self.children.given)), (2, 1))
        self.look(3600)
        self.assertFinds(feeds, "203.0.113.1")
        self.assertFinds(feeds, "203.0.113.3", "mine")

    def test_changed_description(self) -> None:
        """Another description makes another index of the same file."""
        self.answers(b"203.0.113.1\n")
        first = self.start(feed())
        self.look()
        self.successResultOf(first.stopService())
        feeds = self.start(feed(title="Ours"))
        self.look()
        (found,) = self.find(feeds, "203.0.113.1")
        self.assertIn(b'"Ours"', found.matched[0].record.hit)

    def test_description_that_fits_no_more(self) -> None:
        """Another description that makes nothing of the file is told; the last index serves."""
        self.answers(b"203.0.113.1\n203.0.113.2\n" + b"0" * 32 + b"\n")
        first = self.start(feed())
        self.look()
        self.successResultOf(first.stopService())
        wrong = ({"field": "line", "type": "hash.md5"}, {"field": "x", "type": "net.ip"})
        for indicator, why in zip(wrong, ("2 of 3 rows", "0 records"), strict=True):
            feeds = self.start(feed(pattern="(?P<x>q)?", indicators=[indicator]))
            self.look(2 * RETRY_SECS)
            self.assertFinds(feeds, "203.0.113.1", "mine")
            self.assertIn(f"mine: its copy could not be indexed: {why}", feeds.trouble())
            self.successResultOf(feeds.stopService())
        # Another try would change nothing.
        self.assertEqual(len(self.children.given), 3)

    def test_accepted(self) -> None:
        """What was accepted has to have as much in it as it had then."""
        self.answers(b"203.0.113.1\n")
        strict = feed(min_rows=2)
        first = self.start(strict)
        self.look()
        self.successResultOf(self.downloads.accept(strict))
        self.look()
        self.assertFinds(first, "203.0.113.1", "mine")
        self.successResultOf(first.stopService())
        feeds = self.start(feed(min_rows=2, title="Ours"))
        self.look()
        (found,) = self.find(feeds, "203.0.113.1")
        self.assertIn(b'"Ours"', found.matched[0].record.hit)
        self.assertEqual(feeds.trouble(), "")

    def test_turned_off(self) -> None:
        """A feed that is off is found no more, although the index still has it."""
        self.answers(b"203.0.113.1\n", b"203.0.113.1\n")
        first = self.start(feed(), feed("other"))
        self.look()
        self.assertFinds(first, "203.0.113.1", "mine", "other")
        self.successResultOf(first.stopService())
        self.assertFinds(self.start(feed()), "203.0.113.1", "mine")

    def test_screened(self) -> None:
        """What a list has is left out and told, or left in where it is marked."""
        self.answers(b"8.8.8.8\n", b"8.8.8.8\n")
        feeds = self.start(feed(), feed("other"), marking=["other"])
        self.look()
        self.assertFinds(feeds, "8.8.8.8", "other")
        ((name, type, by),) = self.left_out
        self.assertEqual((name, type), ("mine", "net.ip"))
        self.assertTrue(by)
        record = self.find(feeds, "8.8.8.8")[0].matched[0].record
        self.assertEqual(feeds.mark(feed="other", record=record), by)
        self.assertEqual(feeds.mark(feed="mine", record=record), "")


class FailureTests(FeedsCase):
    """What goes wrong on our side."""

    def test_build(self) -> None:
        """An index that can't be built is tried again in a while; the last one serves."""
        self.answers(b"203.0.113.1\n", b"203.0.113.2\n")
        feeds = self.start(feed())
        self.look()
        self.children.broken = "no memory"
        self.look(2 * 3600)
        self.assertFinds(feeds, "203.0.113.1", "mine")
        self.assertIn("no memory", feeds.trouble())
        tries = len(self.children.given)
        self.look(RETRY_SECS / 2)
        self.assertLessEqual(len(self.children.given) - tries, 1)
        self.children.broken = ""
        self.look(RETRY_SECS * 2)
        self.assertFinds(feeds, "203.0.113.2", "mine")
        self.assertEqual(feeds.trouble(), "")

    def test_one_of_two(self) -> None:
        """A file that turns out unreadable keeps no other feed from being indexed."""
        self.answers(b"203.0.113.1\n", b"203.0.113.1\n")
        broken = feed("other")
        feeds = self.start(feed(), broken)
        copies = self.downloads.copies("other")
        copy = copies.state().copy
        assert copy is not None
        self.look()
        self.successResultOf(feeds.stopService())
        copies.path(copy).write_bytes(b"\x1f\x8b\x08broken")
        for path in (self.dir / "index").iterdir():
            path.unlink()
        feeds = self.start(feed(), broken)
        self.look()
        self.assertFinds(feeds, "203.0.113.1", "mine")
        self.assertIn("other: its copy could not be indexed", feeds.trouble())

    def test_one_is_gone(self) -> None:
        """A file that is gone keeps no other feed from being indexed."""
        self.answers(b"203.0.113.1\n", b"203.0.113.1\n")
        first = self.start(feed(), feed("other"))
        self.look()
        self.successResultOf(first.stopService())
        copy = self.downloads.copies("mine").state().copy
        assert copy is not None
        self.downloads.copies("mine").path(copy).unlink()
        feeds = self.start(feed(title="Ours"), feed("other", title="Others"))
        self.look()
        mine, other = self.find(feeds, "203.0.113.1")
        self.assertNotIn(b'"Ours"', mine.matched[0].record.hit)
        self.assertIn(b'"Others"', other.matched[0].record.hit)
        self.assertIn("mine: its copy could not be indexed: No such file", feeds.trouble())

    def test_index_is_gone(self) -> None:
        """An index that somebody removed while it was served is made anew from what is there."""
        self.answers(b"203.0.113.1\n", b"203.0.113.1\n", b"203.0.113.2\n")
        feeds = self.start(feed(), feed("other"))
        self.look()
        shutil.rmtree(self.dir / "index")
        self.look()
        self.assertFinds(feeds, "203.0.113.1", "mine", "other")
        (self.dir / "index").write_text("in the way")
        self.look(1.5 * 3600)
        self.assertFinds(feeds, "203.0.113.1", "mine", "other")
        self.assertRegex(feeds.trouble(), "^mine: its copy could not be indexed: .*: File exists$")
        (self.dir / "index").unlink()
        self.look(2 * RETRY_SECS)
        self.assertFinds(feeds, "203.0.113.2", "mine")
        self.assertFinds(feeds, "203.0.113.1", "other")
        self.assertEqual(feeds.trouble(), "")

    def test_another_version(self) -> None:
        """While another version is installed than the one that runs, its last index serves."""
        self.answers(b"203.0.113.1\n", b"203.0.113.2\n")
        feeds = self.start(feed())
        self.look()
        for replaced in ({"return_value": "newer"}, {"side_effect": FileNotFoundError}):
            with patch("ctsd.feeds.indexing.source_label", **replaced):
                self.look(2 * 3600)
            self.assertFinds(feeds, "203.0.113.1", "mine")
            self.assertIn("another version of ctsd was installed", feeds.trouble())
        self.look(2 * RETRY_SECS)
        self.assertFinds(feeds, "203.0.113.2", "mine")

    def test_another_parser(self) -> None:
        """What another version's parser has made of a copy serves until ours has read that."""
        self.answers(b"203.0.113.1\n")
        first = self.start(feed())
        self.look()
        self.successResultOf(first.stopService())
        self.children.waiting = Deferred()
        with (
            patch("ctsd.feeds.indexing.source_label", return_value="newer"),
            patch("ctsd.feeds.serving.source_label", return_value="newer"),
        ):
            feeds = self.start(feed())
            self.look()
        self.assertFinds(feeds, "203.0.113.1", "mine")
        (before, now) = [each["works"]["mine"]["source"] for each in self.children.given]
        self.assertNotEqual(before, now)

    def test_others_build(self) -> None:
        """While another process builds we wait, and find what it has built."""
        (self.dir / "index").mkdir()
        turn = lock_builds(self.dir / "index")
        assert turn is not None
        self.answers(b"203.0.113.1\n")
        feeds = self.start(feed())
        self.look(10)
        self.assertEqual((self.children.given, feeds.loading()), ([], True))
        copies = self.downloads.copies("mine")
        # That its provider has failed since changes nothing: there is a good copy.
        copies.write(evolve(copies.state(), error="it answered 500"))
        self.look()
        self.assertEqual((feeds.loading(), feeds.retry_secs), (True, SOON_SECS))
        self.assertIn("it answered 500", feeds.trouble())
        copy = copies.state().copy
        assert copy is not None
        os.close(turn)
        self.look()
        self.assertFinds(feeds, "203.0.113.1", "mine")

    def test_built_by_others(self) -> None:
        """What another process has built is served without building it again."""
        self.answers(b"203.0.113.1\n", b"203.0.113.2\n")
        ours, theirs = self.start(feed()), self.start(feed())
        self.look(2 * 3600)
        self.assertFinds(ours, "203.0.113.2", "mine")
        self.assertFinds(theirs, "203.0.113.2", "mine")
        self.assertEqual(len(self.children.given), 2)

    def test_broken_index(self) -> None:
        """A damaged index is left out and made anew."""
        self.answers(b"203.0.113.1\n")
        first = self.start(feed())
        self.look()
        self.successResultOf(first.stopService())
        combined = self.dir / "index" / "combined"
        combined.write_bytes(combined.read_bytes()[:-10])
        feeds = self.start(feed())
        self.look()
        self.assertFinds(feeds, "203.0.113.1", "mine")

    def test_bad_state(self) -> None:
        """A state that can't be read is told, until it can."""
        self.answers(b"203.0.113.1\n")
        feeds = self.start(feed())
        self.look()
        state = self.dir / "feeds" / "mine" / "feed.json"
        good = state.read_bytes()
        state.write_bytes(b"{")
        self.look()
        self.assertIn("feed.json", feeds.trouble())
        self.assertFinds(feeds, "203.0.113.1", "mine")
        state.write_bytes(good)
        self.look()
        self.assertEqual(feeds.trouble(), "")

    def test_state_that_could_not_be_read(self) -> None:
        """What could not be read for a while is read again, although it has not changed."""
        self.answers(b"203.0.113.1\n")
        first = self.start(feed())
        self.look()
        self.successResultOf(first.stopService())
        away = patch.object(Copies, "state", side_effect=BadState("too many open files"))
        with away, capturedLogs() as logs:
            feeds = self.start(feed())
            self.look(3 * LOOK_SECS)
            self.assertIn("too many open files", feeds.trouble())
        told = [log for log in logs if log["log_namespace"] == "ctsd.feeds.serving.Feeds"]
        self.assertEqual(len(told), 1)
        self.look()
        self.assertFinds(feeds, "203.0.113.1", "mine")
        self.assertEqual(feeds.trouble(), "")

    def test_stop(self) -> None:
        """A build that is running is given up."""
        ended: list[Deferred[Any]] = []
        self.children.waiting = Deferred(ended.append)
        self.answers(b"203.0.113.1\n")
        feeds = self.start(feed())
        self.look()
        with capturedLogs() as logged:
            self.successResultOf(feeds.stopService())
        self.assertEqual(ended, [self.children.waiting])
        self.assertEqual([each for each in logged if each.get("log_failure")], [])
        # What was not looked at must not be told as nothing.
        self.assertRaises(SearchLater, self.find, feeds, "203.0.113.1")


class OwnFileTests(FeedsCase):
    """
    Files of ours.

    :ivar brought: how often one was.
    """

    def setUp(self) -> None:
        """One."""
        super().setUp()
        self.file = self.dir / "ours.txt"
        bring = self.downloads.bring

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.brought += 1
            return bring(*args, **kwargs)

        self.brought = 0
        self.patch(self.downloads, "bring", counted)

    def write(self, text: str) -> None:
        """Write it, now by the clock."""
        self.file.write_text(text)
        os.utime(self.file, (self.clock.seconds(), self.clock.seconds()))

    def test_changes(self) -> None:
        """It is taken when it is there and has kept still, and again when it has changed."""
        feeds = self.start(feed(file=str(self.file)))
        self.assertIn("can't be read", feeds.trouble())
        self.write("203.0.113.1\n")
        self.look(10)
        self.assertFinds(feeds, "203.0.113.1", "mine")
        self.assertEqual(feeds.trouble(), "")
        self.write("203.0.113.2\n")
        self.look(10)
        self.assertFinds(feeds, "203.0.113.2", "mine")

    def test_pipe(self) -> None:
        """A pipe, which would be read for ever, is not opened; other feeds go on."""
        self.write("203.0.113.1\n")
        pipe = self.dir / "pipe"
        os.mkfifo(pipe)
        feeds = self.start(feed(file=str(self.file)), feed("other", file=str(pipe)))
        self.look(10)
        self.assertFinds(feeds, "203.0.113.1", "mine")
        self.assertIn("pipe can't be read: it is no regular file", feeds.trouble())

    def test_never_old(self) -> None:
        """It counts for as long as it is there."""
        self.write("203.0.113.1\n")
        feeds = self.start(feed(file=str(self.file)))
        self.look(10)
        self.clock.advance(1000 * DAY_SECS)
        self.look()
        self.assertFinds(feeds, "203.0.113.1", "mine")
        self.assertEqual((feeds.stale, feeds.away), ({}, ()))

    def test_refused(self) -> None:
        """What can't be believed is told; the last good copy serves, and the file comes back."""
        self.write("203.0.113.1\n203.0.113.2\n")
        feeds = self.start(feed(file=str(self.file)))
        self.look(10)
        self.write("<html><body>Moved</body></html>\n")
        self.look(10)
        self.assertIn("HTML", feeds.trouble())
        self.assertFinds(feeds, "203.0.113.1", "mine")
        self.look(10)
        self.assertEqual(self.brought, 2)
        self.file.rename(self.dir / "away")
        self.look(10)
        self.assertIn("can't be read", feeds.trouble())
        self.write("203.0.113.1\n203.0.113.3\n")
        self.look(10)
        self.assertEqual(feeds.trouble(), "")
        self.assertFinds(feeds, "203.0.113.3", "mine")

    def test_accepted(self) -> None:
        """What was accepted is no trouble any more, and none after the next start."""
        self.write("203.0.113.1\n")
        strict = feed(file=str(self.file), min_rows=2)
        feeds = self.start(strict)
        self.look(10)
        self.assertIn("1 records; at least 2 are expected", feeds.trouble())
        self.successResultOf(self.downloads.accept(strict))
        self.look(10)
        self.assertEqual(feeds.trouble(), "")
        self.successResultOf(feeds.stopService())
        feeds = self.start(strict)
        self.look(10)
        self.assertEqual((feeds.trouble(), self.brought), ("", 2))
        self.assertFinds(feeds, "203.0.113.1", "mine")

    def test_too_large(self) -> None:
        """What is too large is read no more until it changes."""
        self.write("203.0.113.1\n")
        feeds = self.start(feed(file=str(self.file), max_bytes=13))
        self.look(10)
        self.write("203.0.113.2\n203.0.113.1\n")
        self.look(FILE_RETRY_SECS * 3)
        self.assertIn("ours.txt is not taken: it is larger than 13 bytes", feeds.trouble())
        self.assertEqual(self.brought, 2)
        self.write("203.0.113.3\n")
        self.look(10)
        self.assertFinds(feeds, "203.0.113.3", "mine")
        self.assertEqual(feeds.trouble(), "")

    def test_fault(self) -> None:
        """What could not be taken, for the disk is full say, is tried again in a while."""
        self.write("203.0.113.1\n")
        with patch("ctsd.feeds.visit.bring", side_effect=OSError(errno.ENOSPC, "full")) as bring:
            feeds = self.start(feed(file=str(self.file)))
            self.look(FILE_RETRY_SECS - 2 * LOOK_SECS)
            self.assertEqual(bring.call_count, 1)
            self.assertIn("ours.txt is not taken: full", feeds.trouble())
        self.look(FILE_RETRY_SECS)
        self.assertFinds(feeds, "203.0.113.1", "mine")
        self.assertEqual(feeds.trouble(), "")


class ListTests(FeedsCase):
    """Warninglists that are downloaded."""

    def known(self) -> Description:
        """One."""
        table = {
            "url": "https://lists.example/list.json",
            "format": "warninglist",
            "every_secs": 3600,
        }
        return read_description("known", table, Document(name="c", base_dir=Path("/")))

    def test_linked(self) -> None:
        """The newest copy is found under a name that stays; nobody waits for it."""
        first, second = ({"name": name, "type": "string", "list": ["x"]} for name in "ab")
        self.answers(500, *(json.dumps(given).encode() for given in (first, second)))
        feeds = self.start(self.known())
        self.look()
        self.assertEqual(feeds.away, ())
        self.assertIn("known: it answered 500", feeds.trouble())
        link = self.dir / "links" / "known" / "list.json"
        self.look(1800)
        self.assertEqual(json.loads(link.read_bytes()), first)
        self.look(3600)
        self.assertEqual(json.loads(link.read_bytes()), second)
        self.successResultOf(feeds.stopService())
        self.start(feed())
        self.look()
        self.assertFalse(link.is_symlink())


class OnDiskTests(FeedsCase):
    """How feeds stand, for commands beside the daemon."""

    def on_disk(self, *descriptions: Description) -> FeedsOnDisk:
        """How they stand."""
        return FeedsOnDisk(
            descriptions=descriptions,
            directory=self.dir / "feeds",
            index=self.dir / "index",
            now=self.clock.seconds,
        )

    def test_not_indexed(self) -> None:
        """What the daemon can't index is told, until it can or the feed is another one."""
        self.answers(b"203.0.113.1\n")
        self.children.broken = "no memory"
        self.start(feed())
        self.look()
        why = "mine: its copy could not be indexed: no memory"
        self.assertEqual(self.on_disk(feed()).trouble(), why)
        self.assertEqual(self.on_disk(feed(title="Ours")).trouble(), "")
        self.children.broken = ""
        self.look(2 * RETRY_SECS)
        self.assertEqual(self.on_disk(feed()).trouble(), "")
        self.assertEqual(list((self.dir / "index").glob("*.trouble")), [])

    def test_told(self) -> None:
        """What there is, what is wrong, and how old it is."""
        self.answers(b"203.0.113.1\n", 500)
        feeds = self.start(feed(), feed("other"))
        self.look()
        self.successResultOf(feeds.stopService())
        (self.dir / "feeds" / "third").mkdir()
        (self.dir / "feeds" / "third" / "feed.json").write_bytes(b"{")
        self.clock.advance(DAY_SECS)
        told = self.on_disk(feed(), feed("other"), feed("third"), feed("fourth"))
        self.assertEqual(told.describe(), "1 of 4 feeds, 1 records")
        trouble = told.trouble()
        self.assertIn("mine: is from 2027-01-15", trouble)
        self.assertIn("other: it answered 500", trouble)
        self.assertIn("third: ", trouble)
        self.assertIn("and 1 more", trouble)
        self.assertFalse(told.loading())
