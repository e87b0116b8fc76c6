"""The fast ways of building an index give what the slow ones give."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import ctsd.feeds
from ctsd.config.document import Document
from ctsd.feeds.descriptions import Description, read_description
from ctsd.feeds.feed_file import FeedAbout, FeedWriter
from ctsd.feeds.index import About
from ctsd.feeds.keys import address_in, domain_of, domains_of, stored, usual_host
from ctsd.feeds.parsers.making import LeftOut, Maker, Refusal
from ctsd.feeds.parsers.rows import read_lines
from ctsd.feeds.parsers.showing import can_stand_alone
from ctsd.feeds.parsers.tables import BadRow
from ctsd.feeds.parsers.tally import Tally
from ctsd.feeds.parsers.unpacking import Limit, Unpacked
from ctsd.feeds.reading import Reading
from ctsd.feeds.writer import IndexWriter
from ctsd.indicator_forms import parsed_url
from ctsd.records import Line, Record
from ctsd.stored import encode_record

NOW = 1_800_000_000.0
CATALOGUE = Path(ctsd.feeds.__file__).parent / "catalogue"

#: Every kind of property, condition and time.
ALL_KINDS: dict[str, Any] = {
    "title": 'The "feed" \u202e of it',
    "credit": "Somebody",
    "url": "https://feeds.example/mine",
    "format": "jsonl",
    "name": "Record {id} of {who}",
    "empty": ["None"],
    "fields": {"both": "{id}-{who}"},
    "filters": [{"field": "id", "not_matches": "^bad"}, {"field": "who", "not_equals": "me"}],
    "needs": ["id", {"field": "id", "matches": "."}],
    "lower": [{"field": "who", "equals": ["x"], "verdict": "suspicious", "note": "why\u200b"}],
    "indicators": [
        {"field": "id", "type": ["net.ip", "hash.md5", "net.uri", "net.name"]},
        {"field": "who", "type": "string", "as_is": True},
    ],
    "properties": {
        "id": {"field": "id", "type": "number"},
        "who": "who",
        "where": {"field": "id", "type": "ip"},
        "fixed": {"text": "always\u202e"},
        "link": {"link": "https://pages.example/{id}/?of={who}"},
        "at": {"lat": "lat", "lng": "lng"},
        "both": "both",
    },
    "valid_until": "until",
}


def describe(**keys: Any) -> Description:
    """A feed of rows of all kinds."""
    document = Document(name="test", base_dir=Path("/"))
    return read_description("mine", {**ALL_KINDS, **keys}, document)


def as_line(record: Record) -> Line:
    """What an index keeps of a record, the slow way."""
    line = b"%b\n%b" % (record.type.encode(), encode_record(record))
    return record.type, str(record.value), line, record.expires


texts = st.one_of(
    st.text(max_size=12),
    st.text(max_size=2100, min_size=990),
    st.sampled_from(
        [
            *("None", "0", "017", "-1.50", "1e5", "9" * 15, "9" * 16, "bad", "me", "x", "\ud800"),
            *("1.2.3.4", "http://a.example/\u00e9", "a.example", "::1", "d" * 32, '"\\', "\x7f"),
        ]
    ),
)
rows = st.fixed_dictionaries(
    {},
    optional={
        "id": st.one_of(texts, st.integers(), st.lists(texts, max_size=2)),
        "who": st.one_of(texts, st.booleans()),
        "lat": st.one_of(texts, st.floats(-95, 95)),
        "lng": st.one_of(texts, st.floats(-190, 190)),
        "until": st.sampled_from(["2027-01-01", "2099-01-01 00:00:00", "soon"]),
    },
)


class LinesTests(SynchronousTestCase):
    """Lines are what is made of records."""

    def assert_same(self, description: Description, row: Any) -> None:
        """Both ways make the same of a row."""
        terms = description.terms
        maker = Maker(description.layout, title=description.title, credit=terms.credit, now=NOW)
        slow, fast = maker.make(row), maker.make_lines(row)
        if isinstance(slow, LeftOut):
            self.assertEqual(fast, slow)
            return
        wrong = slow.reason if isinstance(slow, Refusal) else ""
        self.assertEqual(fast.reason if isinstance(fast, Refusal) else "", wrong)
        assert not isinstance(fast, LeftOut)
        records = slow.records if isinstance(slow, Refusal) else slow
        lines = fast.records if isinstance(fast, Refusal) else fast
        self.assertEqual(list(lines), [as_line(record) for record in records])

    @settings(deadline=None, max_examples=300)
    @given(row=rows, plain=st.booleans())
    def test_any_row(self, row: dict[str, Any], plain: bool) -> None:
        """Whatever stands in a row."""
        self.assert_same(describe(plain=plain), row)

    @settings(deadline=None, max_examples=100)
    @given(row=rows, names=st.lists(st.text(min_size=1, max_size=80), min_size=1, max_size=40))
    def test_any_name(self, row: dict[str, Any], names: list[str]) -> None:
        """Whatever properties are called, and how many there are."""
        named = {name: "who" for name in [*names, "feed", "finding"] if name.strip()}
        for properties in (named, {"finding": {"text": "without details"}}):
            self.assert_same(describe(properties=properties), row)
            self.assert_same(describe(properties=properties, plain=True), row)

    def test_names(self) -> None:
        """Which properties may be made each by itself."""
        self.assertTrue(can_stand_alone(["a", "b"]))
        for names in (["a", "a"], ["finding"], ["\u00e9"], [str(one) for one in range(31)]):
            self.assertFalse(can_stand_alone(names), names)

    def test_catalogue(self) -> None:
        """Each of the catalogue's samples."""
        counted = 0
        for sample in sorted((CATALOGUE / "samples").iterdir()):
            name = sample.name.partition(".")[0]
            if name.startswith("warninglist"):
                continue
            reading = Reading.of_catalogue(name, sample)
            tallies = Tally(), Tally()
            slow = [as_line(record) for record in reading.records(tallies[0], now=NOW)]
            self.assertEqual(list(reading.lines(tallies[1], now=NOW)), slow, name)
            self.assertEqual(*tallies)
            counted += len(slow)
        self.assertGreater(counted, 50)

    def test_written(self) -> None:
        """A file of lines is the file of their records."""
        reading = Reading.of_catalogue("urlhaus", CATALOGUE / "samples" / "urlhaus.csv")
        written = []
        for fast in (False, True):
            path = Path(self.mktemp()).absolute()
            with FeedWriter(path, now=lambda: NOW) as writer:
                if fast:
                    writer.add_lines(reading.lines(Tally(), now=NOW))
                else:
                    writer.add_all(reading.records(Tally(), now=NOW))
                writer.publish(FeedAbout(name="urlhaus"))
            written.append(path.read_bytes())
        self.assertEqual(*written)

    def test_index(self) -> None:
        """So is a searcher's own index."""
        reading = Reading.of_catalogue("phishtank", CATALOGUE / "samples" / "phishtank.csv")
        written = []
        for fast in (False, True):
            path = Path(self.mktemp()).absolute()
            with IndexWriter(path, now=lambda: NOW) as writer:
                if fast:
                    taken = [writer.add_line(line) for line in reading.lines(Tally(), now=NOW)]
                else:
                    taken = [writer.add(record) for record in reading.records(Tally(), now=NOW)]
                self.assertTrue(taken and all(taken))
                self.assertFalse(writer.add_line(("net.name", " ", b"net.name\n", None)))
                writer.publish(About())
            written.append(path.read_bytes())
        self.assertEqual(*written)

    def test_nothing_finds_it(self) -> None:
        """A line that nothing would find is skipped."""
        with FeedWriter(Path(self.mktemp()).absolute()) as writer:
            writer.add_lines([("net.name", " ", b"net.name\n", None)])
            self.assertEqual((writer.records, writer.skipped), (0, 1))


def slow_rows(data: bytes, columns: list[str], quote: str) -> Iterator[Any]:
    """The rows of a CSV file, read line by line."""
    for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        text = line.decode("utf-8", "replace").rstrip("\r")
        if len(line) > 40:
            yield "too long"
        elif text and not text.isspace() and not text.startswith("#"):
            if quote and quote in text:
                options: Any = {"quotechar": quote, "strict": True, "skipinitialspace": True}
                try:
                    fields = next(csv.reader((text,), **options), [])
                except csv.Error:
                    yield "bad"
                    continue
            else:
                fields = text.split(",")
            if len(fields) == len(columns):
                # Blanks around a field count nowhere.
                yield dict(zip(columns, [field.strip() for field in fields], strict=True))
            else:
                yield "bad"


class RowsTests(SynchronousTestCase):
    """Rows that are read many at a time are those that are read one by one."""

    @settings(deadline=None, max_examples=500)
    @given(
        lines=st.lists(
            st.one_of(
                st.text(st.sampled_from("ab\",' \r#\x00\u00e9\u2028"), max_size=24).map(str.encode),
                st.sampled_from([b'"a","b"', b'a,"b, c"', b"a,b", b"\xff\xe2,b", b"x" * 41]),
                st.lists(
                    st.sampled_from(["a", "", ",", '""', '"', " b ", '","', '",""', "\r", "'"]),
                    min_size=1,
                    max_size=4,
                ).map(lambda fields: '"{}"'.format('","'.join(fields)).encode()),
            ),
            max_size=12,
        ),
        quote=st.sampled_from(['"', "'", ""]),
        step=st.integers(1, 400),
    )
    def test_csv(self, lines: list[bytes], quote: str, step: int) -> None:
        """Whatever is quoted, and wherever a read ends."""
        data = b"\n".join(lines)
        layout = describe(
            format="csv",
            columns=["id", "who"],
            comments=["#"],
            quote=quote,
            max_row_bytes=40,
            properties={},
            indicators=ALL_KINDS["indicators"][:1],
            valid_until="id",
        ).layout

        class Slow(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                return super().read(step)

        found: list[Any] = []
        for row in read_lines(Unpacked(Slow(data), Limit(1 << 20)), layout):
            if isinstance(row, BadRow):
                found.append("too long" if "longer" in row.reason else "bad")
            else:
                found.append({name: value.strip() for name, value in row.items()})
        # A mark of the encoding is one when it is in the first read, whole.
        if not data.startswith(b"\xef\xbb\xbf") or step >= 3:
            self.assertEqual(found, list(slow_rows(data, ["id", "who"], quote)))

    @settings(deadline=None)
    @given(given_rows=st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=5))))
    def test_jsonl(self, given_rows: list[dict[str, str]]) -> None:
        """Lines of JSON."""
        data = "\n".join(map(json.dumps, given_rows)).encode()
        source = Unpacked(io.BytesIO(data), Limit(1 << 20))
        self.assertEqual(list(read_lines(source, describe().layout)), given_rows)

    @settings(deadline=None, max_examples=500)
    @given(
        parts=st.lists(
            st.one_of(
                st.sampled_from(
                    [
                        *('{"a":', '"a"', '"a":', "[", "]", "{", "}", ",", ":", "-", ".", "e", "E"),
                        *("0", "-0", "-0.0", "01", "1.", "1e5", "1e400", "1e-400", "NaN", "true"),
                        *("-Infinity", "9" * 19, "-" + "9" * 25, "9" * 400 + ".5", "9" * 5000),
                        *('"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\/"', '"\\x"', '"\t"'),
                        *(
                            "null",
                            " ",
                            "\t",
                            "\ufeff",
                            "\u2028",
                            "\x7f",
                            "'a'",
                            "/*b*/",
                            "[" * 2000,
                        ),
                    ]
                ),
                st.floats().map(json.dumps),
                st.integers().map(json.dumps),
                st.text(max_size=5).map(json.dumps),
                st.text(max_size=5).map(lambda text: json.dumps(text, ensure_ascii=False)),
            ),
            max_size=4,
        ),
        is_member=st.booleans(),
    )
    @example(parts=["\ufeff"], is_member=False)
    def test_json(self, parts: list[str], is_member: bool) -> None:
        """A line of JSON is what Python's own parser makes of it."""
        text = "".join(parts)
        line = f'{{"a":{text},"b":1,"b":2}}' if is_member else text
        data = line.encode("utf-8", "replace")
        found = list(read_lines(Unpacked(io.BytesIO(data), Limit(1 << 20)), describe().layout))
        if not line.removeprefix("\ufeff").strip():
            self.assertEqual(found, [])
            return
        try:
            wanted = json.loads(data.removeprefix(b"\xef\xbb\xbf").decode())
        except (ValueError, RecursionError):
            wanted = None
        if isinstance(wanted, dict):
            # Not only equal: 1 is no 1.0, and 0.0 no -0.0.
            self.assertEqual(repr(found), repr([wanted]))
        else:
            self.assertEqual([type(row) for row in found], [BadRow])


class HostsTests(SynchronousTestCase):
    """The host of a URL."""

    def test_of_urls(self) -> None:
        """Where the short way knows one, it is on the one domain that the long way finds."""
        for value, is_usual in (
            ("http://a.b.example/x", True),
            ("https://a.b.example", True),
            ("a.b.example:8080/x:y", True),
            ("ftp://user:word@1.2.3.4:99/", True),
            ("http://[::1]/x", False),
            ("http://[::1]:99/x", False),
            ("git://a.b.example?x/", False),
            ("mailto:a@b.example", False),
        ):
            keys, _ = stored("net.uri", value)
            host = usual_host(keys)
            self.assertEqual(host is not None, is_usual, value)
            if host is not None:
                self.assertEqual(domains_of(keys), {domain_of(host)}, value)
        self.assertIs(usual_host(stored("net.name", "a.example")[0]), None)

    @settings(deadline=None)
    @given(text=st.text(st.sampled_from("ab1.:/?#@[]({\\x \u200b"), max_size=20))
    def test_any(self, text: str) -> None:
        """Whatever a URL looks like."""
        for scheme in ("http://", "https://", "git://", "", "hxxp://"):
            keys, _ = stored("net.uri", scheme + text)
            host = usual_host(keys)
            if host is not None:
                self.assertEqual(domains_of(keys), {domain_of(host)})
                if not host[-1:].isdigit():
                    self.assertIs(address_in(keys), None)

    @settings(deadline=None)
    @given(text=st.text(st.sampled_from("ab1.:/?#@[]({\\)}x \t\u200b"), max_size=20))
    def test_refanged(self, text: str) -> None:
        """The short way of usual URLs changes nothing: it is the way of what has a mark."""
        for scheme in ("http://", "https://"):
            self.assertEqual(parsed_url(scheme + text), parsed_url("\u200b" + scheme + text))
