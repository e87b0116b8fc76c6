"""Tests of warninglists, of the allow list, and of what both leave out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from attrs import asdict
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, ensureDeferred, fail, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ctsd.errors import StoreError
from ctsd.feeds.allowed import Allowed, AllowedValues, AllowList, current, of_value
from ctsd.feeds.feed_file import FeedAbout
from ctsd.feeds.key_index import KeyIndex
from ctsd.feeds.key_store import merge_feeds, write_feed
from ctsd.feeds.keys import HOST, stored
from ctsd.feeds.screener import Screener
from ctsd.feeds.screening import Screening
from ctsd.feeds.small_lists import built_in
from ctsd.feeds.warninglists import (
    Patterns,
    SmallLists,
    Warninglist,
    Warninglists,
    every_domain,
    is_indexed,
    read_warninglist,
    records_of,
)
from ctsd.model import FILE, PASSWORD, Property, Suppressed
from ctsd.records import Record
from ctsd.store.memory import MemoryStore
from ctsd.stored import indexed

LISTS = (
    Warninglist("ranges", "cidr", ["192.0.2.0/24", "2001:db8::/32", "nonsense"]),
    Warninglist("hosts", "hostname", ["big.example", "github.io", ".test"]),
    Warninglist(
        "texts", "string", ["One.example", "d" * 32, "http://two.example/x", "198.51.100.1"]
    ),
)
PATTERNS = (
    Warninglist("parts", "substring", ["blog.example/"], frozenset({"net.uri"})),
    Warninglist("regexes", "regex", ["/^ad[0-9]+\\.example$/i", "(broken"]),
)


def covers(entry: Allowed, type: str, value: str) -> bool:
    """
    What L{AllowedValues} has to agree with: an indicator is the same, lies in this range, or is a
    host below this one.
    """
    keys, network = stored(entry.type, entry.value)
    theirs, their_network = stored(type, value)
    if network is not None:
        return their_network is not None and network.covers(their_network)
    if not keys or not theirs:
        return False
    is_host = keys[0][:1] == HOST == theirs[0][:1]
    return keys[0] == theirs[0] or (is_host and theirs[0].endswith(b"." + keys[0][1:]))


class ReadTests(SynchronousTestCase):
    """MISP's format."""

    def test_list(self) -> None:
        """A list as MISP has it."""
        given = {
            "name": "Public DNS",
            "version": 7,
            "description": "x",
            "type": "string",
            "list": ["8.8.8.8"],
            "matching_attributes": ["ip-src", "domain|ip", "unknown"],
        }
        listed = read_warninglist(json.dumps(given).encode())
        self.assertEqual(
            listed,
            Warninglist(
                "Public DNS", "string", ["8.8.8.8"], frozenset({"net.ip", "net.cidr", "net.name"})
            ),
        )
        self.assertTrue(is_indexed(listed))

    def test_wrong(self) -> None:
        """What is no list says which key is wrong."""
        good: dict[str, object] = {"name": "x", "type": "cidr", "list": []}
        for change, key in (
            ({"name": ""}, "name"),
            ({"type": "cuckoo"}, "type"),
            ({"list": "8.8.8.8"}, "list"),
            ({"list": [8]}, "list"),
        ):
            data = json.dumps({**good, **change}).encode()
            error = self.assertRaises(ValueError, read_warninglist, data)
            self.assertTrue(str(error).startswith(f"{key}: "), error)
        for data in (b"", b"[]", b"<html>", b"[" * 100_000):
            self.assertRaises(ValueError, read_warninglist, data)

    @given(st.binary(max_size=100))
    def test_any(self, data: bytes) -> None:
        """No bytes are another error."""
        self.assertRaises(ValueError, read_warninglist, data)


class ListedTests(SynchronousTestCase):
    """What is on a list: the same for lists in memory and in an index."""

    def in_index(self) -> Warninglists:
        """The lists in an index."""
        self.patch(os, "fsync", lambda descriptor: None)
        directory = Path(self.mktemp())
        for listed in LISTS:
            write_feed(directory, FeedAbout(name=listed.name), records_of(listed))
        merge_feeds(directory, [listed.name for listed in LISTS])
        index = KeyIndex.open(directory, now=lambda: 0.0, registered=every_domain)
        self.addCleanup(index.close)
        return Warninglists(small=SmallLists(()), patterns=Patterns(PATTERNS), index=index)

    def test_listed(self) -> None:
        """By range, by host and what is below it, by text, by pattern."""
        in_memory = Warninglists(small=SmallLists(LISTS), patterns=Patterns(PATTERNS))
        for lists in (in_memory, self.in_index()):
            for type, value, name in (
                ("net.ip", "192.0.2.7", "ranges"),
                ("net.ip", "::ffff:192.0.2.7", "ranges"),
                ("net.cidr", "192.0.2.128/25", "ranges"),
                ("net.cidr", "192.0.2.0/24", "ranges"),
                ("net.cidr", "192.0.0.0/16", ""),
                ("net.ip", "192.0.3.7", ""),
                ("net.ip", "198.51.100.1", "texts"),
                ("net.name", "www.Big.example.", "hosts"),
                ("net.name", "big.example", "hosts"),
                ("net.name", "notbig.example", ""),
                ("net.name", "mine.github.io", "hosts"),
                ("net.name", "a.b.test", "hosts"),
                ("net.name", "one[.]example", "texts"),
                ("net.name", "www.one.example", ""),
                ("hash.md5", "D" * 32, "texts"),
                ("net.uri", "https://two.example/x", "texts"),
                ("net.uri", "http://two.example/y", ""),
                ("net.uri", "http://big.example/", "hosts"),
                ("net.uri", "http://big.example", "hosts"),
                ("net.uri", "http://big.example/x", ""),
                ("net.uri", "http://192.0.2.7/", "ranges"),
                ("net.uri", "http://192.0.2.7/x", ""),
                ("net.uri", "http://a.Blog.example/x", "parts"),
                ("file.name", "blog.example/", ""),
                ("net.name", "AD7.example", "regexes"),
                ("net.name", "ad7.example.com", ""),
                ("net.name", "", ""),
            ):
                self.assertEqual(lists.listed(type, value), name, (type, value))
            self.assertTrue(lists.is_shared_host("mine.github.io"))
            self.assertTrue(lists.is_shared_host("192.0.2.7"))
            self.assertFalse(lists.is_shared_host("other.example"))

    def test_not_a_text(self) -> None:
        """What is no text is on no list."""
        lists = Warninglists(small=SmallLists(LISTS), patterns=Patterns(PATTERNS))
        self.assertEqual(lists.listed("email.header.to", ["bob@one.example"]), "")

    def test_malformed(self) -> None:
        """Entries that can't be used are counted."""
        self.assertEqual(list(records_of(LISTS[0])).count(None), 1)
        self.assertEqual(Patterns(PATTERNS).refused, 1)

    def test_built_in(self) -> None:
        """What is always there."""
        lists = Warninglists(small=SmallLists(built_in()), patterns=Patterns(()))
        for type, value in (
            ("net.ip", "8.8.8.8"),
            ("net.ip", "10.1.2.3"),
            ("net.ip", "fe80::1%eth0"),
            ("net.cidr", "192.168.7.0/24"),
            ("net.name", "google.com"),
            ("net.uri", "https://www.google.com/"),
            ("net.name", "bit.ly"),
            ("hash.md5", "d41d8cd98f00b204e9800998ecf8427e"),
            ("hash.sha256", "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"),
        ):
            self.assertTrue(lists.listed(type, value), value)
        for type, value in (
            ("net.ip", "8.8.8.9"),
            ("net.uri", "https://docs.google.com/forms/x"),
            ("net.uri", "https://bit.ly/abc"),
            ("net.name", "evil.google.com"),
        ):
            self.assertEqual(lists.listed(type, value), "", value)


_VALUES = st.one_of(
    st.tuples(
        st.sampled_from(["net.name", "net.uri", "string"]),
        st.sampled_from(
            ["a.example", "b.a.example", "c.b.a.example", "xa.example", "example", "192.0.2.7"]
        ),
    ),
    st.tuples(st.just("net.uri"), st.sampled_from(["http://a.example/", "https://a.example/x"])),
    st.tuples(
        st.sampled_from(["net.ip", "net.cidr"]),
        st.sampled_from(
            ["192.0.2.7", "192.0.2.0/24", "192.0.0.0/16", "0.0.0.0/0", "::/0", "2001:db8::1"]
        ),
    ),
    st.tuples(st.just("hash.md5"), st.sampled_from(["d" * 32, "D" * 32, "e" * 32])),
)


class AllowedTests(SynchronousTestCase):
    """What is allowed."""

    def test_covers(self) -> None:
        """The same value, what lies in a range, what is below a host."""
        for entry, type, value, is_covered in (
            (("net.name", "ours.example"), "net.name", "WWW.ours[.]example", True),
            (("net.name", "ours.example"), "net.name", "notours.example", False),
            (("net.name", "ours.example"), "net.uri", "http://ours.example/", False),
            (("net.cidr", "192.0.2.0/24"), "net.ip", "192.0.2.7", True),
            (("net.ip", "192.0.2.7"), "net.cidr", "192.0.2.0/24", False),
            (("net.uri", "https://ours.example/x"), "net.uri", "http://OURS.example/x#y", True),
            (("net.uri", "https://ours.example/x"), "net.uri", "http://ours.example/", False),
            (("hash.md5", "d" * 32), "hash.md5", "D" * 32, True),
            (("hash.md5", "d" * 32), "net.ip", "192.0.2.7", False),
            (("string", "x"), PASSWORD, "x", False),
        ):
            found = AllowedValues([of_value(*entry)]).find(type, value, 100.0)
            self.assertEqual(found is not None, is_covered, (entry, type, value))

    @given(
        st.lists(st.tuples(_VALUES, st.sampled_from([None, 50.0, 150.0])), max_size=8),
        st.lists(_VALUES, min_size=1, max_size=4),
    )
    def test_found(
        self, given: list[tuple[tuple[str, str], float | None]], asked: list[tuple[str, str]]
    ) -> None:
        """Of many entries the first that covers a value is found, if its time is not over."""
        entries = [Allowed(type=type, value=value, until=until) for (type, value), until in given]
        values = AllowedValues(entries)
        for type, value in asked:
            expected = next(
                (one for one in current(entries, 100.0) if covers(one, type, value)), None
            )
            self.assertIs(values.find(type, value, 100.0), expected)

    def test_what_can_not_be(self) -> None:
        """Types that don't exist or can't be allowed, and empty values."""
        for type, value in (
            ("net.nme", "x"),
            ("net.port", "80"),
            (PASSWORD, "x"),
            (FILE, "x"),
            ("net.name", " "),
            ("net.ip", "ours.example"),
            ("net.name", "https://ours.example/"),
            ("net.cidr", "192.0.2.0/64"),
        ):
            self.assertRaises(ValueError, of_value, type, value)

    def test_current(self) -> None:
        """Until its date."""
        for until, is_current in ((None, True), (101.0, True), (100.0, False)):
            entry = Allowed(type="net.ip", value="192.0.2.1", until=until)
            self.assertEqual(bool(current([entry], 100.0)), is_current)


class AllowListTests(SynchronousTestCase):
    """The allow list in the store."""

    def setUp(self) -> None:
        """An empty one."""
        self.now = 100.0
        self.store = MemoryStore(clock=Clock(), wall_clock=lambda: self.now)
        self.allow_list = AllowList(store=self.store, holder="one")

    def result(self, work: Any) -> Any:
        """What a coroutine that has nothing to wait for ends with."""
        return self.successResultOf(ensureDeferred(work))

    def test_add_and_remove(self) -> None:
        """An entry of the same value replaces the one before; what is over goes."""
        first = Allowed(type="net.name", value="a.example", until=200.0, why="ours", by="bob")
        again = Allowed(type="net.name", value="A.example", why="still ours", by="eve")
        other = Allowed(type="net.name", value="b.example", until=150.0)
        self.assertEqual(self.result(self.allow_list.entries()), ())
        self.assertTrue(self.result(self.allow_list.add(first)))
        self.assertTrue(self.result(self.allow_list.add(other)))
        self.assertFalse(self.result(self.allow_list.add(again)))
        self.assertEqual(self.result(self.allow_list.entries()), (other, again))
        self.now = 160.0
        self.assertTrue(self.result(self.allow_list.remove(first)))
        self.assertFalse(self.result(self.allow_list.remove(first)))
        self.assertTrue(self.result(self.allow_list.add(first)))
        self.assertEqual(self.result(self.allow_list.entries()), (first,))

    def test_alone(self) -> None:
        """Two don't change it at once, and whoever has failed lets go."""
        other = AllowList(store=self.store, holder="other")
        entry = Allowed(type="net.name", value="a.example")
        self.result(self.store.lease(name="allow-list", holder="other", secs=30.0))
        self.failureResultOf(ensureDeferred(self.allow_list.add(entry)), ValueError)
        self.assertTrue(self.result(other.add(entry)))
        self.assertFalse(self.result(self.allow_list.add(entry)))

    def test_full(self) -> None:
        """There is a limit."""
        self.allow_list = AllowList(store=self.store, holder="one", max_allowed=1)
        self.result(self.allow_list.add(Allowed(type="net.name", value="a.example")))
        more = Allowed(type="net.name", value="b.example")
        failure = self.failureResultOf(ensureDeferred(self.allow_list.add(more)), ValueError)
        self.assertIn("matching.max_allowed is 1", str(failure.value))

    def test_remove_anything(self) -> None:
        """What an older version has allowed can be removed, each by itself."""
        entries = [
            Allowed(type="net.name", value="co.uk"),
            Allowed(type="net.cidr", value="0.0.0.0/0"),
            Allowed(type="net.cidr", value="nonsense"),
            Allowed(type="net.cidr", value="more nonsense"),
            Allowed(type="net.nme", value="x"),
        ]
        data = json.dumps([asdict(each) for each in entries]).encode()
        self.result(self.store.put(key="allow-list", value=data, secs=1000.0))
        while entries:
            entry = entries.pop(0)
            self.assertTrue(self.result(self.allow_list.remove(entry)), entry)
            self.assertEqual(self.result(self.allow_list.entries()), tuple(entries))

    def test_unreadable(self) -> None:
        """What another version has written is an error, and not an empty list."""
        for data in (b"nonsense", b'[{"kind": "x"}]', b"7"):
            self.result(self.store.put(key="allow-list", value=data, secs=1000.0))
            self.failureResultOf(ensureDeferred(self.allow_list.entries()), ValueError)


class ScreeningTests(SynchronousTestCase):
    """What is left out of what feeds have found."""

    def setUp(self) -> None:
        """One list, one allowed host, one feed that marks."""
        lists = Warninglists(small=SmallLists(LISTS), patterns=Patterns(()))
        ours = [Allowed(type="net.name", value="ours.example", by="bob", why="it is ours")]
        self.screening = Screening(lists=lists, allowed=AllowedValues(ours), marking={"marks"})

    def wanted(self, feed: str, type: str, value: str) -> bool:
        """Whether a record would be a hit."""
        record = Record(type=type, value=value, properties=(Property("number", "id", 1),))
        return self.screening.wanted(feed, indexed(record))

    def test_left_out(self) -> None:
        """What is listed or allowed is left out, and the scan's history can tell."""
        self.assertTrue(self.wanted("alpha", "net.name", "evil.example"))
        self.assertFalse(self.wanted("alpha", "net.name", "big.example"))
        self.assertFalse(self.wanted("alpha", "net.name", "www.ours.example"))
        self.assertEqual(
            self.screening.suppressed,
            [
                Suppressed("alpha", "net.name", "hosts"),
                Suppressed("alpha", "net.name", "allowed by bob: it is ours"),
            ],
        )

    def test_marked(self) -> None:
        """A feed that marks keeps what is listed, but not what is allowed."""
        self.assertTrue(self.wanted("marks", "net.name", "big.example"))
        self.assertFalse(self.wanted("marks", "net.name", "ours.example"))
        record = indexed(Record(type="net.name", value="big.example"))
        self.assertEqual(self.screening.mark("marks", record), "hosts")
        self.assertEqual(self.screening.mark("alpha", record), "")


class ScreenerTests(SynchronousTestCase):
    """What makes screenings."""

    def setUp(self) -> None:
        """One that reads an empty list."""
        self.threads = 0
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock)
        self.allow_list = AllowList(store=self.store, holder="one")
        lists = Warninglists(small=SmallLists(LISTS), patterns=Patterns(()))
        self.screener = Screener(
            lists=lambda: lists,
            allow_list=self.allow_list,
            clock=self.clock,
            in_thread=self.in_thread,
            now=self.clock.seconds,
        )

    def in_thread(self, function: Any, *args: Any) -> Deferred[Any]:
        """As if in a thread; C{threads} counts."""
        self.threads += 1
        return maybeDeferred(function, *args)

    def wanted(self, value: str) -> bool:
        """Whether a host would be a hit now."""
        record = indexed(Record(type="net.name", value=value))
        return self.screener.screening().wanted("alpha", record)

    def allow(self, value: str, **more: Any) -> None:
        """Allow a host."""
        entry = Allowed(type="net.name", value=value, **more)
        self.successResultOf(ensureDeferred(self.allow_list.add(entry)))

    def test_read_anew(self) -> None:
        """What is allowed counts soon, until its date; what is listed at once."""
        self.screener.startService()
        self.assertFalse(self.wanted("big.example"))
        self.assertTrue(self.screener.is_shared_host("big.example"))
        self.allow("ours.example", until=25.0)
        self.assertTrue(self.wanted("ours.example"))
        self.clock.advance(10)
        self.assertFalse(self.wanted("ours.example"))
        self.clock.advance(15)
        self.assertTrue(self.wanted("ours.example"))
        self.assertEqual(self.threads, 1, "only what has changed is read")
        self.successResultOf(self.screener.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unreadable(self) -> None:
        """A list that can't be read changes nothing, and is told once; the next one counts."""
        self.allow("ours.example")
        self.screener.startService()
        good = self.successResultOf(self.store.get(key="allow-list"))
        put = self.store.put
        self.successResultOf(put(key="allow-list", value=b"nonsense", secs=1000.0))
        with capturedLogs() as logged:
            self.clock.advance(10)
            self.clock.advance(10)
        self.assertEqual(len(logged), 1)
        self.assertFalse(self.wanted("ours.example"))
        self.successResultOf(put(key="allow-list", value=good, secs=1000.0))
        self.clock.advance(10)
        self.assertFalse(self.wanted("ours.example"))
        self.successResultOf(self.screener.stopService())

    def test_store_away(self) -> None:
        """While the store is away, what was read last counts; that is told once."""
        self.allow("ours.example")
        self.screener.startService()
        self.patch(self.store, "get", lambda key: fail(StoreError("it is away")))
        for _ in range(3):
            self.clock.advance(10)
        self.assertFalse(self.wanted("ours.example"))
        self.successResultOf(self.screener.stopService())

    def test_stopped_while_it_reads(self) -> None:
        """Nothing runs on."""
        self.patch(self.store, "get", lambda key: Deferred())
        self.screener.startService()
        self.successResultOf(self.screener.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])
