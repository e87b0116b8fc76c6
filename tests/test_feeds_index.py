"""Tests of index files: what is found in them, and what is refused."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctsd.feeds import writer as writer_module
from ctsd.feeds.array_file import HEAD_BYTES, MAGIC, BadIndex, clear_scratch, scratch
from ctsd.feeds.index import About, Index
from ctsd.feeds.writer import IndexWriter
from ctsd.model import PASSWORD, Property
from ctsd.records import NO_MATCHES, IndexLimits, Matches, Record
from ctsd.stored import indexed
from ctsd.testing import MemoryRecords
from tests.feeding import url


def build(path: Path, records: list[Record], now: float = 0.0) -> About:
    """Make an index."""
    with IndexWriter(path, now=lambda: now) as writer:
        for record in records:
            writer.add(record)
        return writer.publish(About(source="a test"))


_HOSTS = st.text("ab", min_size=1, max_size=5).map(lambda text: f"{text}.example")
_PATHS = st.text("aB/%?#", max_size=5)
_URLS = st.one_of(
    st.builds(
        "{}{}{}{}{}".format,
        st.sampled_from(["http://", "HTTP://", "https://", "", " "]),
        st.sampled_from(["", "", "", "a:b@"]),
        _HOSTS,
        st.sampled_from(["", ":80", ":443", "/"]),
        _PATHS,
    ),
    st.text("ab.", max_size=6),
)
_IPS = st.one_of(
    st.lists(st.sampled_from(["1", "10", "11", "168", "010"]), min_size=1, max_size=5).map(
        ".".join
    ),
    st.sampled_from(["::1", "2001:db8::1", "2001:DB8:0::1", "::ffff:1.10.1.1", "1.1.", "x.1.1"]),
)
_TEXTS = st.text("aAbä\x00\ud800\xff", max_size=8)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "net.uri": _URLS,
    "net.ip": _IPS,
    "net.name": st.text("aAb.ä", max_size=8),
    "file.name": _TEXTS,
    "hash.md5": st.text("aA1 ", max_size=4),
    "net.port": st.integers(1, 4),
    "email.header.to": st.lists(st.sampled_from(["a@x", "A@x", "b@x", ""]), max_size=3),
    "email.header": st.fixed_dictionaries(
        {"name": st.sampled_from("aAb"), "value": st.sampled_from("aAb")}
    ),
}
_TYPED = st.sampled_from(sorted(_VALUES)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.lists(_VALUES[kind], max_size=12), _VALUES[kind])
)


class AgreementTests(SynchronousTestCase):
    """An index finds exactly what comparing one by one finds."""

    @settings(deadline=None, max_examples=300)
    @given(_TYPED, st.integers(0, 3), st.data())
    def test_agrees_with_nested_loops(
        self, typed: tuple[str, list[Any], Any], limit: int, data: st.DataObject
    ) -> None:
        """Whatever is stored and asked, the records and their number are the same."""
        kind, values, asked = typed
        term = data.draw(st.one_of(st.sampled_from(values), st.just(asked))) if values else asked
        threats = sorted(data.draw(st.lists(st.integers(0, 4), min_size=len(values))))
        expiries = data.draw(st.lists(st.sampled_from([None, 5.0, 20.0]), min_size=5, max_size=5))
        records = [
            Record(type=kind, value=value, name=f"{i}", threat_id=threat, expires=expiries[threat])
            for i, (value, threat) in enumerate(zip(values, threats, strict=False))
        ]
        unwanted = data.draw(st.sampled_from([None, "0", "3"]))
        wanted = None if unwanted is None else lambda record: record.name != unwanted
        if any(record.threat_id for record in records) and unwanted is not None:
            # What is wanted is asked of a threat, not of one of its records.
            wanted = lambda record: str(record.threat_id) != unwanted  # noqa: E731
        reference = MemoryRecords(records=records, now=lambda: 10.0)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "index")
            build(path, records)
            index = Index.open(path, now=lambda: 10.0)
            found = index.find(type=kind, value=term, limit=limit, wanted=wanted)
            index.close()
        self.assertEqual(found, reference.find(type=kind, value=term, limit=limit, wanted=wanted))


class IndexTests(SynchronousTestCase):
    """What an index holds, finds and leaves out."""

    def setUp(self) -> None:
        """A place for it."""
        self.path = Path(self.mktemp())

    def open(self, records: list[Record], **more: Any) -> Index:
        """An index of these records, open."""
        build(self.path, records)
        index = Index.open(self.path, now=lambda: 10.0, **more)
        self.addCleanup(index.close)
        return index

    def names(self, index: Index, value: Any, kind: str = "net.uri", **more: Any) -> list[str]:
        """The names of the records that are found."""
        found = index.find(type=kind, value=value, limit=10, **more)
        return [record.name for record in found.records]

    def test_finds_the_urls_on_a_host(self) -> None:
        """A bare host finds every URL on it, in the order of the source."""
        index = self.open(
            [
                url("http://www.megastore.lu/login", "1"),
                url("http://www.example.org/", "2"),
                url("https://www.megastore.lu/", "3"),
            ]
        )
        self.assertEqual(self.names(index, "www.megastore.lu"), ["1", "3"])

    def test_whole_url_finds_no_other_on_its_host(self) -> None:
        """A URL finds itself, in either spelling, and nothing else on its host."""
        index = self.open(
            [
                url("http://docs.example/a/../evil", "evil"),
                url("http://docs.example/fine", "fine"),
                url("http://docs.example/EVIL", "another"),
            ]
        )
        self.assertEqual(self.names(index, "HTTP://DOCS.example:80/evil"), ["evil"])
        self.assertEqual(self.names(index, "http://docs.example/a/../evil"), ["evil"])
        self.assertEqual(self.names(index, "http://docs.example/"), [])

    def test_record_comes_back_whole(self) -> None:
        """What was put in comes out, with surrogates and NUL in it."""
        record = Record(
            type="file.name",
            value="bad\ud800\x00name",
            name="n",
            properties=(Property("lat_lng", "where", {"lat": 1.5, "lng": -2.0}),),
            threat_id=7,
            searcher="s",
            source=b"\x00\xff",
            expires=11.5,
        )
        index = self.open([record])
        found = index.find(type="file.name", value="NAME", limit=1)
        self.assertEqual(found.records, (indexed(record),))

    def test_counts_what_it_does_not_show(self) -> None:
        """Beyond the limit matches are counted, up to the scan limit."""
        records = [url(f"http://host.example/{number}") for number in range(30)]
        index = self.open(records, limits=IndexLimits(occurrences=25))
        found = index.find(type="net.uri", value="/1", limit=2)
        self.assertIs(found, NO_MATCHES)
        found = index.find(type="net.uri", value="host.example/1", limit=2)
        self.assertEqual((len(found.records), found.more, found.at_least), (2, 9, False))
        found = index.find(type="net.uri", value="host.example", limit=2)
        self.assertEqual((len(found.records), found.more, found.at_least), (2, 23, True))

    def test_scan_limit_over_both_spellings(self) -> None:
        """The limit is one for the written and the normal form together."""
        records = [
            url(f"http://a.example{end}", f"{n}{end}") for n in range(5) for end in ("", "/")
        ]
        index = self.open(records, limits=IndexLimits(occurrences=7))
        found = index.find(type="net.uri", value="http://a.example", limit=2)
        self.assertEqual((len(found.records), found.at_least), (2, True))
        self.assertLess(found.more, 6)
        whole = Index.open(self.path, now=lambda: 0.0, limits=IndexLimits(occurrences=15))
        self.addCleanup(whole.close)
        found = whole.find(type="net.uri", value="http://a.example", limit=2)
        self.assertEqual((len(found.records), found.more, found.at_least), (2, 8, False))

    def test_looks_on_while_all_is_unwanted(self) -> None:
        """A match is found however many others are left out before it."""
        records = [url("http://host.example/", f"{n}", threat_id=n + 1) for n in range(50)]
        index = self.open(records, limits=IndexLimits(occurrences=5, counted=3))
        self.assertEqual(
            self.names(index, "host.example", wanted=lambda each: each.name == "49"), ["49"]
        )
        self.assertEqual(self.names(index, "host.example", hidden=set(range(1, 50))), ["49"])
        found = index.find(type="net.uri", value="host.example", limit=1, wanted=lambda each: True)
        self.assertEqual((len(found.records), found.more, found.at_least), (1, 2, True))

    def test_does_not_look_on_without_end(self) -> None:
        """When very much is left out it is not looked further, and that is not told as nothing."""
        records = [url("http://host.example/", f"{n}", threat_id=n + 1) for n in range(50)]
        index = self.open(records, limits=IndexLimits(occurrences=5, passed_over=20))
        asked: list[int] = []
        for nth, shown in ((20, 1), (21, 0)):
            asked.clear()
            found = index.find(
                type="net.uri",
                value="host.example",
                limit=1,
                wanted=lambda each, nth=nth: not asked.append(each.threat_id) and len(asked) == nth,
            )
            self.assertEqual((len(found.records), len(asked), found.at_least), (shown, 20, True))
        hidden = set(range(1, 51))
        found = index.find(type="net.uri", value="host.example", limit=1, hidden=hidden)
        self.assertEqual(found, Matches(at_least=True))
        whole = Index.open(
            self.path, now=lambda: 0.0, limits=IndexLimits(occurrences=5, passed_over=50)
        )
        self.addCleanup(whole.close)
        nothing = whole.find(
            type="net.uri", value="host.example", limit=1, wanted=lambda each: False
        )
        self.assertIs(nothing, NO_MATCHES)

    def test_order_depends_on_the_data_alone(self) -> None:
        """The same index gives the same matches, however many there are."""
        records = [url(f"http://host.example/{number % 7}", f"{number}") for number in range(60)]
        index = self.open(records, limits=IndexLimits(occurrences=20))
        again = Index.open(self.path, now=lambda: 99.0, limits=IndexLimits(occurrences=20))
        self.addCleanup(again.close)
        for term in ("host.example", "http://host.example/3"):
            self.assertEqual(
                index.find(type="net.uri", value=term, limit=5),
                again.find(type="net.uri", value=term, limit=5),
            )

    def test_leaves_out_what_has_expired(self) -> None:
        """A record is found until its expiry."""
        index = self.open(
            [
                url("http://a.example/", "gone", expires=10.0),
                url("http://a.example/", "b", expires=11),
            ]
        )
        self.assertEqual(self.names(index, "a.example"), ["b"])

    def test_takes_no_password_and_nothing_unfindable(self) -> None:
        """What can't be found, and what may not be kept, is not put in."""
        with IndexWriter(self.path, now=lambda: 0.0) as writer:
            self.assertFalse(writer.add(Record(type=PASSWORD, value="hunter22")))
            self.assertFalse(writer.add(url("  ")))
            self.assertTrue(writer.add(url("http://a.example")))
            self.assertEqual(writer.publish(About()).records, 1)
        self.assertNotIn(b"hunter22", self.path.read_bytes())

    def test_huge_values(self) -> None:
        """Values above 64 KiB are found by their equals, and cost a miss otherwise."""
        huge = "x" * 70_000
        index = self.open([Record(type="string", value=huge, name="huge")])
        self.assertEqual(self.names(index, huge, "string"), ["huge"])
        self.assertEqual(self.names(index, "y" * 70_000, "string"), [])
        self.assertEqual(self.names(index, "x" * 8_000_000, "string"), [])
        self.assertEqual(self.names(index, "xxxxx", "string"), [])

    def test_whole_keys_need_no_suffixes(self) -> None:
        """Hashes, which are only looked for as a whole, take a few numbers each."""
        hashes = [f"{number:064x}" for number in range(1000)]
        index = self.open([Record(type="hash.sha256", value=each, name=each) for each in hashes])
        self.assertLess(self.path.stat().st_size, 320_000)
        self.assertEqual(self.names(index, hashes[7].upper(), "hash.sha256"), [hashes[7]])
        self.assertEqual(self.names(index, hashes[7][1:], "hash.sha256"), [])

    def test_hashes_that_meet(self) -> None:
        """Two keys that have the same hash are told apart, and each is found."""
        real = writer_module.key_hash
        meet = lambda key, salt: real(key, salt) if salt else 7  # noqa: E731
        self.patch(writer_module, "key_hash", meet)
        index = self.open([url("http://a.example"), url("http://b.example/x")])
        self.assertEqual(self.names(index, "http://a.example"), ["about http://a.example"])
        self.assertEqual(self.names(index, "http://b.example/x"), ["about http://b.example/x"])
        self.assertEqual(self.names(index, "http://c.example"), [])

    def test_an_index_of_nothing(self) -> None:
        """An empty index finds nothing, and says so."""
        index = self.open([])
        self.assertIs(index.find(type="net.uri", value="a.example", limit=1), NO_MATCHES)
        self.assertEqual(index.about.records, 0)


class DamageTests(SynchronousTestCase):
    """A file that is not what it should be is refused, never mapped and searched."""

    def setUp(self) -> None:
        """A place for it."""
        self.path = Path(self.mktemp())
        build(self.path, [url(f"http://host.example/{number}") for number in range(100)])

    def refused(self) -> str:
        """Why it is."""
        error = self.assertRaises(BadIndex, Index.open, self.path, now=lambda: 0.0)
        return str(error)

    def test_truncated(self) -> None:
        """A file that was cut, anywhere."""
        size = self.path.stat().st_size
        for length in (size - 1, size // 2, 4096, HEAD_BYTES, 10, 0):
            os.truncate(self.path, length)
            self.assertTrue(self.refused())

    def test_grown(self) -> None:
        """A file with something behind its end."""
        with self.path.open("ab") as file:
            file.write(b"\x00")
        self.assertIn("size", self.refused())

    def test_every_byte_counts(self) -> None:
        """One changed byte anywhere but in the padding of the first page is noticed."""
        whole = self.path.read_bytes()
        for at in (0, 7, 9, 20, 30, HEAD_BYTES - 1, 4096, len(whole) // 2, len(whole) - 1):
            changed = bytearray(whole)
            changed[at] ^= 1
            self.path.write_bytes(changed)
            self.refused()

    def test_another_format(self) -> None:
        """An index of another version of ctsd."""
        whole = bytearray(self.path.read_bytes())
        whole[: len(MAGIC)] = MAGIC.replace(b"1", b"0")
        self.path.write_bytes(whole)
        self.assertIn("format", self.refused())

    def test_an_unfinished_build_leaves_the_old_one(self) -> None:
        """A writer that fails changes nothing, and leaves nothing behind."""
        before = self.path.read_bytes()
        with self.assertRaises(ZeroDivisionError), IndexWriter(self.path, now=lambda: 0) as writer:
            writer.add(url("http://new.example/"))
            raise ZeroDivisionError
        self.assertEqual(self.path.read_bytes(), before)
        self.assertFalse(scratch(self.path, os.getpid()).exists())

    def test_an_open_index_outlives_its_successor(self) -> None:
        """Searches go on in the old file while a new one is put in its place."""
        index = Index.open(self.path, now=lambda: 0.0)
        build(self.path, [url("http://other.example/")])
        self.assertEqual(len(index.find(type="net.uri", value="host.example", limit=3).records), 3)
        index.close()

    def test_what_killed_builds_left_is_removed(self) -> None:
        """Only their scratch files go."""
        left = [scratch(self.path, 1), scratch(self.path, 22)]
        for each in left:
            each.write_bytes(b"half")
        clear_scratch(self.path, 22)
        self.assertEqual([each.exists() for each in left], [True, False])
        clear_scratch(self.path)
        self.assertEqual([each.exists() for each in left], [False, False])
        self.assertTrue(self.path.exists())

    def test_nobody_else_may_read_it(self) -> None:
        """An index holds what the local database holds."""
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
