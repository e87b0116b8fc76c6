"""The usual rows of feeds, which are looked at column by column, become what each is by itself."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctsd.config.document import Document
from ctsd.feeds import feed_file
from ctsd.feeds.descriptions import read_description
from ctsd.feeds.feed_file import FeedAbout, FeedWriter
from ctsd.feeds.keys import address_in, domains_of, stored
from ctsd.feeds.parsers.fitting import fits
from ctsd.feeds.parsers.tally import Tally
from ctsd.feeds.parts import PART_TYPES
from ctsd.feeds.reading import Reading
from ctsd.feeds.usual import Looked, UsualLines
from ctsd.indicator_forms import Network, parsed_url
from tests.test_feeds_lines import CATALOGUE, NOW, as_line

_OCTETS = r"(?:0|1|9|25|10|127|255|256|01)(?:\.(?:0|1|9|255)){3}"


def mostly(usual: list[str], others: list[str]) -> st.SearchStrategy[str]:
    """One of some texts, usually of the first."""
    return st.one_of(*(st.sampled_from(usual),) * 4, st.sampled_from(others))


#: Values that may be usual, and what makes them unusual.
VALUES = {
    "hash.md5": st.sampled_from(["d" * 32, "D0" * 16, "d" * 31, " " + "d" * 32]),
    "net.cidr": st.from_regex(rf"\A{_OCTETS}(?:/(?:[0-9]|[0-3][0-9]))?\Z"),
    "net.ip": st.from_regex(rf"\A{_OCTETS}(?:\.|:80|/32|/8)?\Z"),
    "net.name": st.one_of(
        st.from_regex(r"\A(?:[a-z0-9_-]{1,3}\.){1,3}[a-z0-9]{1,4}\.?\Z"),
        st.builds(
            lambda label, size: f"{label * size}.a{label}.example",
            st.sampled_from(["a", "xn--p1ai", "A", "-", "1.", "_"]),
            st.integers(1, 70),
        ),
    ),
    "net.uri": st.builds(
        lambda *parts: "".join(parts),
        mostly(["http://", "https://"], ["HTTP://", "hxxp://", "//", ""]),
        mostly(
            ["a.example", "b.c.example", "1.2.3.4", "0.0.0.0"],
            [
                *("x-.y_z.0a.example", "a..example", ".a.example", "xn--p1ai.example", "xn--a.b"),
                *("9.9.9", "0x7f.1", "1.0x1", "a.b1", "1.2.3.256", "1.2.3.04", "a.example."),
                *("user@a.example", "A.example", "localhost", "ab--c.example", "\u00e9.example"),
                *("[::1]", "a.1b", "a.example\\"),
            ],
        ),
        mostly(["", ":8080", ":59999"], [":80", ":443", ":", ":65536", ":0080", ":999"]),
        mostly(["/", "/a", "/a/b.c"], ["", "/a/.b", "/%2f", "/a//b/", "?"]),
        st.one_of(
            st.text(
                st.sampled_from("/.%2eEaZ09-_~!$&'()*+,;=:@?#[]{}|^`<> \\\t\u00e9\x7f"), max_size=9
            ),
            st.lists(
                st.sampled_from(
                    ["/", "/a", "/.", "/..", "/%2e", "%2E.", "?", "?a=1", "&b=/./", "#", "//", "'"]
                ),
                max_size=3,
            ).map("".join),
        ),
    ),
}

#: One of each that is usual.
GOOD = {
    "hash.md5": "d" * 32,
    "net.cidr": "1.2.3.0/24",
    "net.ip": "1.2.3.4",
    "net.name": "a.example",
    "net.uri": "http://a.example/b",
}

#: Other fields of rows.
FIELDS = {
    "id": ["1", "007", "0", "9" * 15, "9" * 16, "x1", "", "None", "1 2", "%s", "\u0661"],
    "who": [
        *("me", "you", "", "None", " them ", "\u00e9", "a\x7f", "\\", '"', "%", "a b"),
        *("w" * 1000, "w" * 1001, "w" * 980, "w" * 600),
    ],
    "where": ["1.2.3.4", "::1", "", "nowhere", "1.2.3.04", "None"],
}
USUALLY = {"id": "12", "who": "me", "where": "1.2.3.4"}

PROPERTIES: dict[str, Any] = {
    "id": {"field": "id", "type": "number"},
    "who": "who",
    "where": {"field": "where", "type": "ip"},
    "fixed": {"text": '100 % "always" %s'},
    "link": {"link": "https://pages.example/100%25/{id}/?of={who}"},
    "value": "value",
}
FILTERS: list[Any] = [
    [],
    [
        {"field": "who", "not_equals": "you"},
        {"field": "id", "equals": ["", "12"], "not_matches": "^x"},
    ],
]
NEEDS: list[Any] = [[], ["who"], [{"field": "id", "matches": "^[0-9]+$"}, "who"]]


@st.composite
def files(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """A description's keys, and rows of its file, most of which are usual."""
    type = draw(st.sampled_from(sorted(VALUES)))
    shown = draw(st.sets(st.sampled_from(sorted(PROPERTIES))))
    keys: dict[str, Any] = {
        "title": draw(st.sampled_from(["Mine", 'The "100 %s" \u00e9'])),
        "url": "https://feeds.example/mine",
        "empty": ["None"],
        "indicators": [{"field": "value", "type": type, "as_is": draw(st.booleans())}],
        "properties": {name: PROPERTIES[name] for name in PROPERTIES if name in shown},
        "filters": draw(st.sampled_from(FILTERS)),
        "needs": draw(st.sampled_from(NEEDS)),
        "name": draw(st.sampled_from(["100 % {id} of {who}", "{value}", "%s \u00e9"])),
        "plain": draw(st.booleans()),
        "substring": type in PART_TYPES and draw(st.booleans()),
    }
    if draw(st.booleans()):
        keys["credit"] = "Some \u202e body"
    rows = []
    for _ in range(draw(st.integers(1, 20))):
        row = {"value": GOOD[type], **USUALLY}
        if draw(st.integers(0, 4)) == 0:
            name = draw(st.sampled_from(sorted(row)))
            row[name] = draw(VALUES[type] if name == "value" else st.sampled_from(FIELDS[name]))
        rows.append(row)
    return keys, rows


class UsualTests(SynchronousTestCase):
    """What one look tells of usual values is what is told of all."""

    @settings(deadline=None, max_examples=500)
    @given(
        given=st.sampled_from(sorted(VALUES)).flatmap(
            lambda type: st.tuples(st.just(type), st.lists(VALUES[type], min_size=1, max_size=5))
        )
    )
    def test_found(self, given: tuple[str, list[str]]) -> None:
        """Keys, domains, hosts, networks; and each is fit."""
        type, values = given
        looked = Looked(type, values)
        for number, value in enumerate(values):
            if number in looked.odd:
                continue
            self.assertEqual(fits(type, value), "")
            found = looked.found(number, number + 1)
            keys, network = stored(type, value)
            self.assertEqual(tuple(found.keys), keys)
            self.assertEqual(set(found.domains), domains_of(keys))
            on = address_in(keys)
            self.assertEqual(list(found.hosts), [] if on is None else [on])
            networks = [Network(4, first, 32) for first in found.addresses]
            networks += [Network(4, *each) for each in found.ranges]
            self.assertEqual(networks, [network] if network else [])

    def test_are_usual(self) -> None:
        """Those of which most feeds are full."""
        for type, value in (
            ("hash.sha256", "0aF" * 21 + "1"),
            ("hash.sha1", "0a" * 20),
            ("net.cidr", "1.2.3.0/24"),
            ("net.ip", "1.2.3.4"),
            ("net.name", "www.some-where.example"),
            ("net.uri", "http://1.2.3.4:50123/x.sh"),
            ("net.uri", "https://www.some-where.example/Some/~path.php?a=b&c=%20"),
        ):
            self.assertEqual(Looked(type, [value]).odd, (), value)
        self.assertEqual(Looked("net.ip", ["1.2.3.4", "::1", "1.2.3.4", "x"]).odd, [1, 3])

    @settings(deadline=None, max_examples=1000)
    @given(value=VALUES["net.uri"])
    def test_urls(self, value: str) -> None:
        """A usual URL has the form that it has when it is not told at one look."""
        self.assertEqual(parsed_url(value), parsed_url("\u200b" + value))


class ColumnsTests(SynchronousTestCase):
    """Tables."""

    def assert_same(self, keys: dict[str, Any], data: str) -> None:
        """Records, what is counted, and the file that is written are the same."""
        path = Path(self.mktemp()).absolute()
        path.write_text(data)
        document = Document(name="test", base_dir=Path("/"))
        reading = Reading.of(read_description("mine", keys, document), path)
        slow, fast = Tally(), Tally()
        records = list(reading.records(slow, now=NOW))
        lines = list(reading.lines(fast, now=NOW))
        self.assertEqual(lines, [as_line(record) for record in records])
        self.assertEqual(fast, slow)
        written = []
        for is_fast in (False, True):
            made = Path(self.mktemp()).absolute()
            with FeedWriter(made, now=lambda: NOW, substring=reading.substring) as writer:
                if is_fast:
                    writer.add_parts(reading.parts(Tally(), now=NOW))
                else:
                    writer.add_all(records)
                writer.publish(FeedAbout(name="mine"))
            written.append(made.read_bytes())
        self.assertEqual(*written)

    def test_one(self) -> None:
        """One unusual value among usual ones."""
        usual = {"value": GOOD["net.uri"], **USUALLY}
        twice = {"link": {"link": "https://pages.example/{who}/{who}"}}
        for plain, name, properties in (
            (True, "{id}", PROPERTIES),
            (False, "{who}: {id}", {"who": "who"}),
            (False, "{who}", twice),
        ):
            keys: dict[str, Any] = {
                "title": "Mine",
                "url": "https://feeds.example/mine",
                "format": "csv",
                "columns": list(usual),
                "empty": ["None"],
                "indicators": [{"field": "value", "type": "net.uri"}],
                "properties": properties,
                "plain": plain,
                "name": name,
            }
            for field, values in FIELDS.items():
                for value in values:
                    out = io.StringIO()
                    rows = [*[usual] * 5, {**usual, field: value}, usual]
                    csv.writer(out, quoting=csv.QUOTE_ALL).writerows(row.values() for row in rows)
                    self.assert_same(keys, out.getvalue())

    @settings(deadline=None, max_examples=150)
    @given(made=files())
    def test_csv(self, made: tuple[dict[str, Any], list[dict[str, str]]]) -> None:
        """Lists of fields."""
        keys, rows = made
        out = io.StringIO()
        csv.writer(out, quoting=csv.QUOTE_ALL).writerows([row.values() for row in rows])
        self.assert_same({**keys, "format": "csv", "columns": list(rows[0])}, out.getvalue())

    @settings(deadline=None, max_examples=150)
    @given(made=files(), odd=st.sampled_from([None, 7, True, 1.5, ["x"], {}, "\ud800"]))
    def test_jsonl(self, made: tuple[dict[str, Any], list[dict[str, str]]], odd: Any) -> None:
        """Objects, and what is none."""
        keys, rows = made
        given: list[Any] = [*rows, {**rows[0], "id": odd}, {**rows[0], "value": odd}, 1, *rows]
        self.assert_same({**keys, "format": "jsonl"}, "\n".join(map(json.dumps, given)))

    @settings(deadline=None, max_examples=100)
    @given(
        given=st.sampled_from(sorted(VALUES)).flatmap(
            lambda type: st.tuples(
                st.just(type), st.lists(st.one_of(VALUES[type], st.just(GOOD[type])), max_size=30)
            )
        )
    )
    def test_lines(self, given: tuple[str, list[str]]) -> None:
        """Lines."""
        type, values = given
        keys = {
            "title": "Mine",
            "url": "https://feeds.example/mine",
            "format": "lines",
            "indicators": [{"field": "line", "type": type}],
            "properties": {"it": "line"},
        }
        self.assert_same(keys, "\n".join(values))

    def test_too_many(self) -> None:
        """Rows for which there is no number are skipped."""
        path = Path(self.mktemp()).absolute()
        path.write_text("1.2.3.4\n" * 7)
        self.patch(feed_file, "MAX_ROWS", 5)
        with FeedWriter(Path(self.mktemp()).absolute()) as writer:
            writer.add_parts(Reading.of_catalogue("cins", path).parts(Tally(), now=NOW))
            self.assertEqual((writer.records, writer.skipped), (5, 2))

    def test_catalogue(self) -> None:
        """What most of the catalogue's rows are."""
        for name in ("openphish", "phishing_army", "cins", "urlhaus", "phishtank"):
            sample = next((CATALOGUE / "samples").glob(f"{name}.*"))
            parts = Reading.of_catalogue(name, sample).parts(Tally(), now=NOW)
            self.assertTrue(any(isinstance(part, UsualLines) for part in parts), name)
