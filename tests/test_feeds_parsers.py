"""From a provider's file to records."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctsd.config.checks import Surroundings
from ctsd.config.document import Document
from ctsd.feeds.descriptions import read_descriptions
from ctsd.feeds.job import Refused
from ctsd.feeds.layout import FORMATS, Layout, read_layout
from ctsd.feeds.parsers.moments import moment
from ctsd.feeds.parsers.observed import NotSimple, observed
from ctsd.feeds.parsers.parse import parse
from ctsd.feeds.parsers.tally import EXAMPLES, Tally
from ctsd.feeds.paths import path_of
from ctsd.records import Record

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "ctsd" / "feeds" / "catalogue" / "samples"

NOW = 1_800_000_000.0

#: The shortest layout of a list.
LINES = {"format": "lines", "indicators": [{"field": "line", "type": "net.ip"}]}


def layout_of(**keys: Any) -> Layout:
    """A layout from a description's keys."""
    layout: Layout = read_layout(keys, Surroundings(base_dir=Path("/"), environ={}))
    return layout


class ParserCase(SynchronousTestCase):
    """
    Parses files.

    :ivar tally: of the last one.
    """

    def setUp(self) -> None:
        """Make a directory for them."""
        self.dir = Path(self.mktemp()).absolute()
        self.dir.mkdir()
        self.tally = Tally()

    def parse(self, data: bytes | str, layout: Layout, max_bytes: int = 1 << 30) -> list[Record]:
        """The records of a file with these bytes."""
        file = self.dir / "file"
        file.write_bytes(data.encode() if isinstance(data, str) else data)
        self.tally = Tally()
        return list(
            parse(file, layout, title="Feed", now=NOW, max_bytes=max_bytes, tally=self.tally)
        )

    def values(self, data: bytes | str, **keys: Any) -> list[tuple[str, Any]]:
        """Types and values of the records."""
        return [(one.type, one.value) for one in self.parse(data, layout_of(**keys))]


class SampleTests(ParserCase):
    """The samples of the catalogue, in their providers' formats."""

    def taken(self, name: str, *, shows: bool = True) -> list[Record]:
        """The records of a sample."""
        described = {
            one.name: one for one in read_descriptions({}, Document(name="x", base_dir=Path("/")))
        }
        (file,) = SAMPLES.glob(f"{name}.*")
        self.tally = Tally()
        feed = described[name]
        return list(
            parse(
                file,
                feed.layout,
                title=feed.title,
                credit=feed.terms.credit,
                now=NOW,
                max_bytes=feed.provider.max_unpacked_bytes,
                tally=self.tally,
                shows=shows,
            )
        )

    def test_counts(self) -> None:
        """Each gives what stands in it: rows, records, rows left out, rows refused."""
        for name, *counts in (
            ("attack_software", 4, 3, 2, 0),
            ("blocklist_de", 3, 3, 0, 0),
            ("botvrij", 4, 4, 0, 0),
            ("cins", 3, 3, 0, 0),
            ("circl_osint", 6, 5, 2, 1),
            ("cisa_kev", 2, 2, 0, 0),
            ("dshield", 3, 2, 1, 0),
            ("epss", 3, 2, 1, 0),
            ("et_compromised", 2, 2, 0, 0),
            ("feodotracker", 2, 2, 0, 0),
            ("ipsum", 2, 2, 0, 0),
            ("malwarebazaar", 2, 5, 0, 0),
            ("openphish", 3, 3, 0, 0),
            ("phishing_army", 2, 2, 0, 0),
            ("phishtank", 3, 3, 0, 0),
            ("spamhaus_drop_v4", 3, 2, 1, 0),
            ("spamhaus_drop_v6", 3, 2, 1, 0),
            ("sslbl", 2, 2, 0, 0),
            ("taxii", 7, 4, 3, 0),
            ("threatfox", 5, 4, 0, 1),
            ("tor_exits", 9, 3, 6, 0),
            ("urlhaus", 2, 2, 0, 0),
            ("warninglist_cloudflare", 2, 2, 0, 0),
            ("warninglist_common_ioc_false_positive", 2, 2, 0, 0),
            ("warninglist_google", 2, 2, 0, 0),
            ("warninglist_microsoft_office365", 2, 2, 0, 0),
            ("warninglist_public_dns_v4", 2, 2, 0, 0),
            ("warninglist_url_shortener", 2, 2, 0, 0),
        ):
            self.taken(name)
            tally = self.tally
            self.assertEqual([tally.rows, tally.records, tally.unwanted, tally.bad], counts, name)

    def test_counted_alone(self) -> None:
        """Who only counts gets the same indicators, and the same counts."""
        for file in SAMPLES.iterdir():
            name = file.name.partition(".")[0]
            shown = [(one.type, one.value, one.expires) for one in self.taken(name)]
            tally = self.tally
            counted = self.taken(name, shows=False)
            self.assertEqual([(one.type, one.value, one.expires) for one in counted], shown)
            self.assertEqual(self.tally, tally)
            if not name.startswith("warninglist"):
                self.assertEqual({(one.name, one.properties) for one in counted}, {("", ())})

    def test_every_sample_is_counted(self) -> None:
        """The table above leaves none out."""
        source = Path(__file__).read_text(encoding="utf-8")
        for file in SAMPLES.iterdir():
            self.assertIn(f'("{file.name.partition(".")[0]}", ', source)

    def test_links(self) -> None:
        """What can be clicked leads to the host of the feed's own template."""
        for file in SAMPLES.iterdir():
            for record in self.taken(file.name.partition(".")[0]):
                for one in record.properties:
                    if one.type == "uri":
                        self.assertTrue(str(one.value).startswith("https://"), one)
                        self.assertNotIn("example", str(one.value).split("/")[2], one)

    def test_phishtank(self) -> None:
        """A record of PhishTank shows what the seed shows, and nothing else."""
        record = self.taken("phishtank")[1]
        self.assertEqual((record.type, record.value), ("net.uri", "https://pay.example.lu/?a=1,2"))
        self.assertEqual(record.name, "PhishTank Record 9100002")
        self.assertEqual(
            [(one.type, one.name, one.value) for one in record.properties],
            [
                ("number", "id", 9100002),
                ("string", "url", "https://pay.example.lu/?a=1,2"),
                (
                    "uri",
                    "detail_url",
                    "https://www.phishtank.com/phish_detail.php?phish_id=9100002",
                ),
                ("string", "submission_time", "2026-01-13T09:00:00+00:00"),
                ("string", "target", "Bank, Other"),
            ],
        )

    def test_threatfox(self) -> None:
        """A kind's column says what each is; what stands for nothing does not show."""
        address, domain, url, _ = self.taken("threatfox")
        self.assertEqual((address.type, address.value), ("net.ip", "203.0.113.9:443"))
        self.assertNotIn("last_seen", [one.name for one in address.properties])
        self.assertEqual(
            [(one.name, one.value) for one in domain.properties[:3]],
            [
                ("feed", "ThreatFox"),
                ("verdict", "suspicious"),
                ("note", "a hacked legitimate host"),
            ],
        )
        self.assertEqual(
            [(one.name, one.value) for one in (url.properties[1], url.properties[-1])],
            [("verdict", "malicious"), ("credit", "ThreatFox, abuse.ch")],
        )
        self.assertNotIn("malware", [one.name for one in url.properties])

    def test_misp(self) -> None:
        """Composite values are taken apart; what is not for detection is left out."""
        self.assertEqual(
            [(one.type, one.value) for one in self.taken("circl_osint")],
            [
                ("net.name", "c2.example.lu"),
                ("net.ip", "203.0.113.81"),
                ("file.name", "dropper.exe"),
                (
                    "hash.sha256",
                    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                ),
                ("net.ip", "198.51.100.82"),
            ],
        )

    def test_stix(self) -> None:
        """Alternatives are indicators each, until their time is over; a range is one."""
        records = self.taken("taxii")
        self.assertEqual(
            [(one.type, one.value) for one in records],
            [
                ("net.ip", "203.0.113.101"),
                ("net.name", "c2.example.lu"),
                (
                    "hash.sha256",
                    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                ),
                ("net.cidr", "198.51.100.0/24"),
            ],
        )
        self.assertEqual(records[0].expires, 4070908800.0)
        self.assertTrue(any("has AND" in reason for reason in self.tally.left_out))


class LinesTests(ParserCase):
    """Formats whose lines are rows."""

    def test_lines(self) -> None:
        """Blanks, comments, byte order marks and Windows' ends of lines are no matter."""
        self.assertEqual(
            self.values(
                b"\xef\xbb\xbf# list\r\n192.0.2.1 \r\n\r\n\t2001:DB8::1", **LINES, comments="#"
            ),
            [("net.ip", "192.0.2.1"), ("net.ip", "2001:DB8::1")],
        )

    def test_ambiguous(self) -> None:
        """An address that is octal to some is taken as it is, for it matches itself."""
        page = "010.1.1.1\n256.1.1.1\n1.2.3\n"
        self.assertEqual(self.values(page, **LINES), [("net.ip", "010.1.1.1")])
        self.assertEqual(self.tally.refused, {"net.ip: is no IP address": 2})

    def test_not_fitting(self) -> None:
        """A page of apologies has no addresses in it."""
        page = "<html>\n<p>Access denied for 192.0.2.1</p>\n</html>\n"
        self.assertEqual(self.values(page, **LINES), [])
        self.assertEqual(self.tally.refused, {"net.ip: is no IP address": 3})
        for type in ("net.name", "net.uri", "hash.md5", "net.cidr", "threat.report.cve"):
            rule = {"field": "line", "type": type}
            self.assertEqual(self.values(page, format="lines", indicators=[rule]), [], type)

    def test_two_in_one(self) -> None:
        """Two columns, or two lines to somebody else, are no indicator: their blanks would go."""
        page = "0.0.0.0 ads.example\na.example b.example\n0.0.0.0\tads.example\na.lu\rb.lu\n"
        for types in ("net.name", "net.uri", ["net.ip", "net.name", "net.uri"]):
            rule = {"field": "line", "type": types}
            good = "evil [.] example\n"
            found = self.values(page + good, format="lines", indicators=[rule])
            self.assertEqual([value for _, value in found], ["evil [.] example"])
            self.assertEqual(self.tally.bad, 4)

    def test_addresses_of_people(self) -> None:
        """An e-mail address is no URL on its provider's host, whose pages it would make known."""
        page = "me@mail.example\nme[@]mail.example/x\nme[at]mail[.]example\n"
        good = "mail.example/me@home\nhttp://me@mail.example/\n"
        rule = {"field": "line", "type": ["net.ip", "net.name", "net.uri"]}
        found = self.values(page + good, format="lines", indicators=[rule])
        self.assertEqual([value for _, value in found], good.splitlines())
        self.assertEqual(self.tally.refused, {"is none of net.ip, net.name, net.uri": 3})

    def test_examples(self) -> None:
        """The first few rows of a reason are kept, cut, with their numbers."""
        self.parse("192.0.2.1\n" + "x" * 1000 + "\ny\nz\nzz\n", layout_of(**LINES))
        (examples,) = self.tally.examples.values()
        self.assertEqual([row for row, _ in examples], [2, 3, 4])
        self.assertEqual(len(examples), EXAMPLES)
        self.assertEqual(examples[0][1], "x" * 300)

    def test_first_type_that_fits(self) -> None:
        """Of several types, the first one that a value can be; an address' range is a range."""
        types = ["net.ip", "hash.md5", "net.name", "net.uri"]
        rule = {"field": "line", "type": types}
        text = (
            "192.0.2.1\n198.51.100.0/24\n098f6bcd4621d373cade4e832627b4f6\n*.example.lu\n"
            "http://example.lu/a\nexample.lu/b\nhello\n"
        )
        self.assertEqual(
            self.values(text, format="lines", indicators=[rule]),
            [
                ("net.ip", "192.0.2.1"),
                ("net.cidr", "198.51.100.0/24"),
                ("hash.md5", "098f6bcd4621d373cade4e832627b4f6"),
                ("net.name", "*.example.lu"),
                ("net.uri", "http://example.lu/a"),
                ("net.uri", "example.lu/b"),
            ],
        )
        self.assertEqual(self.tally.bad, 1)

    def test_long_lines(self) -> None:
        """A line above the limit is refused, however it is cut up in reading; the next is not."""
        for size in (101, 65536, 200_000, 1 << 20):
            text = "192.0.2.1\n" + "7" * size + "\n192.0.2.2"
            self.assertEqual(
                self.values(text, **LINES, max_row_bytes=100),
                [("net.ip", "192.0.2.1"), ("net.ip", "192.0.2.2")],
            )
            self.assertEqual(self.tally.refused, {"is longer than max_row_bytes": 1})
        self.assertEqual(self.values("7" * 70_000, **LINES, max_row_bytes=100), [])
        self.assertEqual(self.tally.refused, {"is longer than max_row_bytes": 1})

    def test_pattern(self) -> None:
        """Groups are fields; a line that has none of it is refused unless a filter drops it."""
        keys: dict[str, Any] = {
            "format": "lines",
            "pattern": r"^(?P<ip>\S+) ; (?P<why>.*)$",
            "indicators": [{"field": "ip", "type": "net.ip"}],
            "properties": {"why": "why"},
        }
        records = self.parse("192.0.2.1 ; spam\nfooter\n", layout_of(**keys))
        self.assertEqual([one.properties[2].value for one in records], ["spam"])
        self.assertEqual(self.tally.refused, {"does not match the pattern": 1})
        keys["filters"] = [{"field": "line", "not_matches": "^foot"}]
        self.parse("192.0.2.1 ; spam\nfooter\n", layout_of(**keys))
        self.assertEqual((self.tally.bad, self.tally.unwanted), (0, 1))

    def test_csv(self) -> None:
        """Fields with and without quotes; a stray quote spoils one line."""
        keys: dict[str, Any] = {
            "format": "csv",
            "columns": ["ip", "about"],
            "indicators": [{"field": "ip", "type": "net.ip"}],
            "properties": {"about": "about"},
        }
        text = '192.0.2.1,a\n"192.0.2.2", "b, c"\n"192.0.2.3,d\n192.0.2.4,e,f\n192.0.2.5,g\n'
        records = self.parse(text, layout_of(**keys))
        self.assertEqual([one.properties[2].value for one in records], ["a", "b, c", "g"])
        self.assertEqual(self.tally.bad, 2)

    def test_csv_header(self) -> None:
        """A header that lacks a column that is needed, or a file without any, is refused."""
        keys: dict[str, Any] = {
            "format": "csv",
            "header": True,
            "delimiter": "\t",
            "indicators": [{"field": "ip", "type": "net.ip"}],
        }
        self.assertEqual(self.values("x\tip\n1\t192.0.2.1\n", **keys), [("net.ip", "192.0.2.1")])
        for text, told in (("x\ty\n", "no column ip"), ("", "no header"), ("ip\tip\n", "twice")):
            error = self.assertRaises(Refused, self.values, text, **keys)
            self.assertIn(told, str(error))

    def test_jsonl(self) -> None:
        """Each line is an object; others are refused."""
        keys: dict[str, Any] = {
            "format": "jsonl",
            "indicators": [{"field": "a.b", "type": "net.ip"}],
        }
        text = '{"a": {"b": "192.0.2.1"}}\n[1]\n{"a"\n{"a": 1}\n' + "[" * 100_000 + "\n"
        self.assertEqual(self.values(text, **keys), [("net.ip", "192.0.2.1")])
        self.assertEqual(
            self.tally.refused,
            {"is no JSON object": 1, "is no JSON": 2, "has no indicator": 1},
        )


class RulesTests(ParserCase):
    """What becomes of a row."""

    def records(self, *rows: dict[str, Any], **keys: Any) -> list[Record]:
        """The records of rows of JSON."""
        keys.setdefault("indicators", [{"field": "ip", "type": "net.ip"}])
        text = "\n".join(json.dumps({"ip": "192.0.2.1", **row}) for row in rows)
        return self.parse(text, layout_of(format="jsonl", **keys))

    def test_conditions(self) -> None:
        """Each condition of a filter holds, or does not."""
        for condition, holding, not_holding in (
            ({"equals": "a"}, "a", "b"),
            ({"equals": ["a", True]}, True, False),
            ({"equals": ""}, None, "a"),
            ({"not_equals": ["a", "b"]}, "c", "a"),
            ({"not_equals": ""}, "a", None),
            ({"matches": "^a+$"}, "aaa", "ab"),
            ({"not_matches": "b"}, "a", "ab"),
            ({"at_least": 0.5}, 0.5, "0.49"),
            ({"at_most": 3}, "-1e2", 3.1),
            ({"at_least": -5}, "-5", "many"),
            ({"matches": "x"}, "\ud800x", "\ud800"),
            ({"equals": "a", "not_matches": "x"}, ["x", "a"][1], "x"),
        ):
            rows = ({"v": holding}, {"v": not_holding})
            found = self.records(*rows, filters=[{"field": "v", **condition}])
            self.assertEqual((len(found), self.tally.unwanted), (1, 1), condition)

    def test_properties(self) -> None:
        """Numbers, addresses, texts, links and places; empty ones are left out."""
        (record,) = self.records(
            {
                "n": "17.5",
                "i": 7.0,
                "t": ["a", "b"],
                "e": "n/a",
                "lat": "49.6",
                "lng": 6.1,
                "x": {},
            },
            empty=["n/a"],
            properties={
                "n": {"field": "n", "type": "number"},
                "i": {"field": "i", "type": "number"},
                "no": {"field": "t.*", "type": "number"},
                "tags": "t.*",
                "nothing": "e",
                "object": "x",
                "fixed": {"text": "always"},
                "link": {"link": "https://intel.example/{ip}/{t.*}?q={n}"},
                "no link": {"link": "https://intel.example/{e}"},
                "place": {"lat": "lat", "lng": "lng"},
                "no place": {"lat": "e", "lng": "lng"},
            },
        )
        self.assertEqual(
            [(one.type, one.name, one.value) for one in record.properties],
            [
                ("string", "feed", "Feed"),
                ("string", "verdict", "malicious"),
                ("number", "n", 17.5),
                ("number", "i", 7),
                ("number", "no", "a, b"),
                ("string", "tags", "a, b"),
                ("string", "fixed", "always"),
                ("uri", "link", "https://intel.example/192.0.2.1/a%2C%20b?q=17.5"),
                ("lat_lng", "place", {"lat": 49.6, "lng": 6.1}),
            ],
        )

    def test_needs(self) -> None:
        """A row that lacks what it needs is refused; a filter leaves it out."""
        layout = layout_of(
            format="csv",
            columns=["id", "who", "host"],
            empty=["-"],
            needs=["who", {"field": "id", "matches": "^[0-9]+$"}],
            filters=[{"field": "host", "not_equals": "not.example"}],
            indicators=[{"field": "host", "type": "net.name"}],
        )
        lines = ("1,a,bad.example", "2,-,x.example", "3, ,x.example", "x,a,x.example")
        found = self.parse("\n".join((*lines, ",a,x.example", "4,a,not.example")), layout)
        self.assertEqual([one.value for one in found], ["bad.example"])
        self.assertEqual(
            (self.tally.refused, self.tally.unwanted),
            ({"has no who that could be used": 2, "has no id that could be used": 2}, 1),
        )

    def test_as_is(self) -> None:
        """An indicator is taken whatever it looks like where the rule says so."""
        lines = "http://bad.example/\nForbidden\n"
        rule: dict[str, Any] = {"field": "line", "type": "net.uri"}
        for as_is, values in ((False, ["http://bad.example/"]), (True, lines.split())):
            layout = layout_of(format="lines", indicators=[{**rule, "as_is": as_is}])
            self.assertEqual([one.value for one in self.parse(lines, layout)], values)

    def test_plain(self) -> None:
        """A plain hit has the description's properties, and whom its terms want to be named."""
        keys = {**LINES, "properties": {"why": {"text": "it is bad"}}}
        for plain, names in ((False, ["feed", "verdict", "why"]), (True, ["why"])):
            (record,) = self.parse("192.0.2.1\n", layout_of(**keys, plain=plain))
            self.assertEqual([one.name for one in record.properties], names)

    def test_several_indicators(self) -> None:
        """A row gives each indicator once; a bad one is counted, the others are taken."""
        found = self.records(
            {"more": ["192.0.2.2", "192.0.2.1", "bad"]},
            indicators=[
                {"field": "ip", "type": "net.ip"},
                {"field": "more.*", "type": "net.ip"},
            ],
        )
        self.assertEqual([one.value for one in found], ["192.0.2.1", "192.0.2.2"])
        self.assertEqual((self.tally.records, self.tally.bad), (2, 1))

    def test_kinds(self) -> None:
        """Kinds that are not told are left out, composite values taken apart."""
        found = self.records(
            {"kind": "a", "v": "192.0.2.7"},
            {"kind": "b", "v": "x.exe|098f6bcd4621d373cade4e832627b4f6"},
            {"kind": "b", "v": "x.exe"},
            {"kind": "c", "v": "whatever"},
            {"v": "no kind"},
            indicators=[
                {"field": "v", "kind": "kind", "types": {"a": "net.ip", "b": "-|hash.md5"}}
            ],
        )
        self.assertEqual([one.type for one in found], ["net.ip", "hash.md5"])
        self.assertEqual((self.tally.unwanted, self.tally.bad), (2, 1))

    def test_expiry(self) -> None:
        """The earlier of what a row says; what is over is left out."""
        keys: dict[str, Any] = {
            "valid_until": "until",
            "last_seen": ["seen", "first"],
            "keep_days": 10,
        }
        found = self.records(
            {"until": "2027-02-01"},
            {"until": "2027-02-01", "seen": "2027-01-15T00:00:00Z"},
            {"first": 1799990000},
            {"until": "some day"},
            {"until": "2026-12-31 23:59:59"},
            **keys,
        )
        self.assertEqual(
            [one.expires for one in found],
            [1801440000.0, 1799971200.0 + 864000, 1799990000.0 + 864000, None],
        )
        self.assertEqual(self.tally.left_out, {"is not valid any more": 1})

    def test_names(self) -> None:
        """A threat's name is its template's, else the feed's title."""
        found = self.records({"id": 3}, {"id": ""}, name="No. {id}")
        self.assertEqual([one.name for one in found], ["No. 3", "Feed"])

    def test_moments(self) -> None:
        """Times as providers write them."""
        for text, secs in (
            ("2027-01-15T08:00:00Z", NOW),
            ("2027-01-15 08:00:00", NOW),
            ("2027-01-15 08:00:00 UTC", NOW),
            ("2027-01-15T10:00:00+02:00", NOW),
            (1800000000, NOW),
            ("1800000000", NOW),
            ("yesterday", None),
            (True, None),
            ("10000-01-01", None),
        ):
            self.assertEqual(moment(text), secs, text)


class DocumentTests(ParserCase):
    """Rows within JSON documents."""

    KEYS: dict[str, Any] = {
        "format": "json",
        "indicators": [{"field": "ip", "type": "net.ip"}],
    }

    def test_ways(self) -> None:
        """Arrays, objects of arrays, keys; what lies beside the way is passed over."""
        for rows, text in (
            ("*", '[{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]'),
            (
                "data.*",
                '{"x": [[1, {"data": 2}]], "data": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]}',
            ),
            ("*.*", '{"17": [{"ip": "192.0.2.1"}], "18": [{"ip": "192.0.2.2"}]}'),
            ("a.b", '{"a": {"c": 1, "b": {"ip": "192.0.2.1"}}}\n{"a": {"b": {"ip": "192.0.2.2"}}}'),
        ):
            self.assertEqual(
                self.values(text, **self.KEYS, rows=rows),
                [("net.ip", "192.0.2.1"), ("net.ip", "192.0.2.2")],
                rows,
            )

    def test_rows_that_are_none(self) -> None:
        """What is no object on the way to rows is refused, one by one."""
        text = '[1, "a", null, [], {"ip": "192.0.2.1"}]'
        self.assertEqual(self.values(text, **self.KEYS, rows="*"), [("net.ip", "192.0.2.1")])
        self.assertEqual(self.tally.refused, {"is no JSON object": 4})

    def test_broken(self) -> None:
        """A document that ends too early, or is none, is refused as a whole."""
        for text in ('[{"ip": "192.0.2.1"}', "<html>", '[{"ip": "192.0.2.1"}]]', '["\\ud8'):
            error = self.assertRaises(Refused, self.values, text, **self.KEYS, rows="*")
            self.assertIn("no JSON", str(error))

    def test_long_rows(self) -> None:
        """A row above the limit is refused, the next one is not."""
        for long, reason in (
            (json.dumps({"x": "y" * 2000}), "is longer than max_row_bytes"),
            (json.dumps({"x": [[] for _ in range(200)]}), "is longer than max_row_bytes"),
            (json.dumps({"x": {"y": ["z" * 900, "z" * 900]}}), "is longer than max_row_bytes"),
            ('{"x":' + "[" * 70 + "]" * 70 + "}", "has values more than 64 deep in each other"),
        ):
            text = f'[{long}, {{"ip": "192.0.2.2"}}]'
            self.assertEqual(
                self.values(text, **self.KEYS, rows="*", max_row_bytes=1500),
                [("net.ip", "192.0.2.2")],
                long[:40],
            )
            self.assertEqual(self.tally.refused, {reason: 1})

    def test_endless_values(self) -> None:
        """A single text that never ends is not waited for."""
        text = '[{"ip": "' + "1" * 600_000
        error = self.assertRaises(
            Refused, self.values, text, **self.KEYS, rows="*", max_row_bytes=1000
        )
        self.assertIn("1,000 bytes", str(error))

    def test_deep(self) -> None:
        """Nobody's data lies a million deep."""
        text = "[" * 1_000_000
        error = self.assertRaises(Refused, self.values, text, **self.KEYS, rows="data.*")
        self.assertIn("deep", str(error))

    def test_paths(self) -> None:
        """Ways to the fields of a row."""
        row = {"a": {"b": [1, {"c": 2}]}, "r": [{"s": "x", "u": 1}, {"s": "y", "u": 2}, 7]}
        for path, values in (
            ("a.b.*", [1, {"c": 2}]),
            ("a.b.*.c", [2]),
            ("r[s=y].u", [2]),
            ("r.*.u", [1, 2]),
            ("a.*.*", [1, {"c": 2}]),
            ("a.x", []),
            ("a", [{"b": [1, {"c": 2}]}]),
            ("r[s=z].u", []),
        ):
            self.assertEqual(path_of(path)(row), values, path)
        for wrong in ("", ".", "a.", "a[b", "a[=c]", "a]b", "a[b=c]d", ".".join("a" * 20)):
            self.assertRaises(ValueError, path_of, wrong)


class WarninglistTests(ParserCase):
    """Lists of what is no finding."""

    def listed(self, **keys: Any) -> list[tuple[str, Any]]:
        """What is read of a list."""
        return self.values(json.dumps({"name": "L", **keys}), format="warninglist")

    def test_kinds(self) -> None:
        """Entries become records; those of patterns are only counted."""
        self.assertEqual(
            self.listed(type="cidr", list=["192.0.2.0/24", "x"]), [("net.cidr", "192.0.2.0/24")]
        )
        self.assertEqual((self.tally.rows, self.tally.records, self.tally.bad), (2, 1, 1))
        self.assertEqual(self.listed(type="regex", list=["a.*", "b"]), [])
        self.assertEqual((self.tally.rows, self.tally.records, self.tally.bad), (2, 2, 0))

    def test_none(self) -> None:
        """What is no list is refused."""
        for keys in ({}, {"type": "cidr"}, {"type": "other", "list": []}):
            error = self.assertRaises(Refused, self.listed, **keys)
            self.assertIn("no warninglist", str(error))


class StixTests(SynchronousTestCase):
    """What patterns look for."""

    def test_patterns(self) -> None:
        """Those that a single value matches."""
        for pattern, found in (
            ("[url:value = 'http://a/']", [("url:value", "http://a/")]),
            ("[url:value='a\\'b\\\\c']", [("url:value", "a'b\\c")]),
            (
                "[(domain-name:value = 'a' OR domain-name:value = 'b')]",
                [("domain-name:value", "a"), ("domain-name:value", "b")],
            ),
            (
                "[ipv4-addr:value IN ('a', 'b')]",
                [("ipv4-addr:value", "a"), ("ipv4-addr:value", "b")],
            ),
            ("([a:b = 'c']) OR [d:e = 'f']", [("a:b", "c"), ("d:e", "f")]),
            ("[file:hashes.\"SHA-256\" = 'c']", [("file:hashes.SHA-256", "c")]),
            ("[file:hashes.sha1 = 'c']", [("file:hashes.SHA-1", "c")]),
            (
                "[file:hashes.MD5 = 'c' AND file:name = 'd']",
                [("file:hashes.MD5", "c")],
            ),
        ):
            self.assertEqual(observed(pattern), found, pattern)

    def test_others(self) -> None:
        """Those that no single value matches, and what is no pattern."""
        for pattern in (
            "",
            "[",
            "[]",
            "[a:b]",
            "[a:b = ]",
            "[a:b = 'c'",
            "a:b = 'c'",
            "[[a:b = 'c']]",
            "[a:b != 'c']",
            "[a:b = 5]",
            "[a:b LIKE 'c%']",
            "[NOT a:b = 'c']",
            "[a:b IN 'c']",
            "[a:b IN ('c']",
            "[a:b = 'c' AND d:e = 'f']",
            "[a:b = 'c'] AND [d:e = 'f']",
            "[a:b = 'c'] FOLLOWEDBY [d:e = 'f']",
            "[a:b = 'c'] REPEATS 5 TIMES",
            "[file:name = 'c' AND file:size = 5]",
            "x" * (2 << 20),
        ):
            self.assertRaises(NotSimple, observed, pattern)


class UnpackingTests(ParserCase):
    """Files as they are packed."""

    TEXT = b"192.0.2.1\n192.0.2.2\n"

    def packed(self) -> dict[str, bytes]:
        """The same text in every packing."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
            opened.writestr("dir/", b"")
            opened.writestr("full.txt", self.TEXT)
            opened.writestr("other.txt", b"192.0.2.9\n")
        return {
            "none": self.TEXT,
            "gzip": gzip.compress(self.TEXT),
            "two gzips": gzip.compress(self.TEXT[:10]) + gzip.compress(self.TEXT[10:]),
            "bz2": bz2.compress(self.TEXT),
            "xz": lzma.compress(self.TEXT),
            "zip": archive.getvalue(),
        }

    def test_all(self) -> None:
        """How a file is packed is told by its bytes."""
        for how, data in self.packed().items():
            self.assertEqual(len(self.values(data, **LINES)), 2, how)

    def test_members(self) -> None:
        """Of a zip archive, a file or several can be chosen."""
        data = self.packed()["zip"]
        for member, values in (
            ("other.txt", ["192.0.2.9"]),
            ("*.txt", ["192.0.2.1", "192.0.2.2", "192.0.2.9"]),
        ):
            found = self.values(data, **LINES, member=member)
            self.assertEqual([value for _, value in found], values)
        error = self.assertRaises(Refused, self.values, data, **LINES, member="no.txt")
        self.assertIn("no such file", str(error))

    def test_truncated(self) -> None:
        """One that ends too early is refused, wherever it ends."""
        for how, data in self.packed().items():
            if how not in ("none", "two gzips"):
                for size in (len(data) - 1, len(data) // 2 + 1):
                    self.assertRaises(Refused, self.values, data[:size], **LINES)

    def test_damaged(self) -> None:
        """One whose bytes have changed is refused, or gives something: nothing else happens."""
        chance = random.Random(17)
        for how, data in self.packed().items():
            for _ in range(60):
                bad = bytearray(data)
                bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
                try:
                    self.values(bytes(bad), **LINES)
                except Refused as error:
                    self.assertNotEqual(how, "none", error)

    def test_bombs(self) -> None:
        """What comes out of a file has a limit, in every packing."""
        size = 8 << 20
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
            for number in range(4):
                opened.writestr(f"{number}.txt", b"\n" * (size // 4))
        for data in (
            gzip.compress(b"\n" * size),
            bz2.compress(b"\n" * size),
            lzma.compress(b"\n" * size),
            archive.getvalue(),
        ):
            layout = layout_of(**LINES, member="*.txt")
            error = self.assertRaises(Refused, self.parse, data, layout, max_bytes=1 << 20)
            self.assertIn("1,048,576 bytes (max_unpacked_bytes, max_ratio)", str(error))
        layout = layout_of(format="warninglist", max_row_bytes=1500)
        error = self.assertRaises(Refused, self.parse, b" " * 2000, layout)
        self.assertIn("1,500 bytes (max_row_bytes)", str(error))

    def test_big_dictionaries(self) -> None:
        """A file does not say how much memory we use."""
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]
        packer = lzma.LZMACompressor(filters=filters)
        data = packer.compress(self.TEXT) + packer.flush()
        self.assertRaises(Refused, self.values, data, **LINES)

    def test_directories(self) -> None:
        """An archive with a huge directory is not opened."""
        data = bytearray(self.packed()["zip"])
        at = data.rindex(b"PK\x05\x06") + 12
        data[at : at + 4] = (1 << 30).to_bytes(4, "little")
        error = self.assertRaises(Refused, self.values, bytes(data), **LINES)
        self.assertIn("directory", str(error))

    def test_passwords(self) -> None:
        """An archive that wants a password is refused."""
        data = bytearray(self.packed()["zip"])
        # The flag "encrypted" (APPNOTE.TXT, 4.4.4) of each file, in both places.
        for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            start = 0
            while (start := data.find(sign, start)) >= 0:
                data[start + at] |= 1
                start += 4
        self.assertRaises(Refused, self.values, bytes(data), **LINES)


#: A layout of each format, to throw anything at.
ANY_LAYOUT = [
    layout_of(**LINES),
    layout_of(**{**LINES, "pattern": "(?P<a>.+),(?P<b>.*)", "name": "{a}"}),
    layout_of(
        format="csv",
        columns=["a", "b"],
        indicators=[{"field": "a", "type": ["net.ip", "net.uri", "net.name", "cert.x509"]}],
        properties={"b": {"field": "b", "type": "number"}},
    ),
    layout_of(format="csv", header=True, indicators=[{"field": "a", "type": "net.ip"}]),
    layout_of(format="jsonl", indicators=[{"field": "a.*", "type": "threat.malware.family"}]),
    layout_of(format="json", rows="*", indicators=[{"field": "a", "type": "net.name"}]),
    layout_of(format="misp"),
    layout_of(format="stix"),
    layout_of(format="warninglist"),
]

#: JSON that looks a little like what formats have.
JSONISH = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["indicator", "192.0.2.1", "domain|ip", "[url:value = 'x.lu']", "stix"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "Event",
                    "Attribute",
                    "Object",
                    "objects",
                    "type",
                    "value",
                    "pattern",
                    "a",
                    "to_ids",
                ]
            )
            | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)

BYTES = (
    st.binary(max_size=300)
    | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | JSONISH.map(lambda value: json.dumps(value).encode())
    | st.lists(JSONISH, max_size=4).map(
        lambda values: b"\n".join(json.dumps(value).encode() for value in values)
    )
    | st.binary(max_size=200).map(gzip.compress)
    | st.binary(max_size=200).map(lambda data: b"PK\x03\x04" + data)
    | st.binary(max_size=200).map(lambda data: b"BZh91AY&SY" + data)
    | st.binary(max_size=200).map(lambda data: b"\xfd7zXZ\x00" + data)
)


class AnyBytesTests(ParserCase):
    """No bytes make a parser fail in a way of its own."""

    @settings(max_examples=400, deadline=None)
    @given(data=BYTES, layout=st.sampled_from(ANY_LAYOUT))
    def test_any_bytes(self, data: bytes, layout: Layout) -> None:
        """It gives records that are whole, or refuses the file; every row is counted."""
        try:
            records = self.parse(data, layout)
        except Refused as error:
            self.assertLess(len(str(error)), 400)
            return
        self.assertEqual(len(records), self.tally.records)
        self.assertLessEqual(self.tally.bad + self.tally.unwanted, self.tally.rows)
        for record in records:
            self.assertTrue(record.value)

    def test_every_format(self) -> None:
        """The layouts above leave no format out."""
        self.assertEqual({one.format for one in ANY_LAYOUT}, set(FORMATS))


#: Parses a file with little memory; says how many records there were, and what memory was used.
LITTLE_MEMORY = """
import json, resource, sys
from pathlib import Path
from ctsd.config.checks import Surroundings
from ctsd.feeds.layout import read_layout
from ctsd.feeds.parsers.parse import parse
from ctsd.feeds.parsers.tally import Tally
layout = read_layout(json.loads(sys.argv[2]), Surroundings(base_dir=Path("/"), environ={}))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(1 for _ in parse(
    Path(sys.argv[1]), layout, title="x", now=0.0, max_bytes=1 << 30, tally=Tally()))
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


class BigFileTests(ParserCase):
    """Big files are never held whole."""

    def assertStreams(self, keys: dict[str, Any], rows: int) -> None:
        """The file is read with a few MiB."""
        done = subprocess.run(
            [sys.executable, "-c", LITTLE_MEMORY, str(self.dir / "big"), json.dumps(keys)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=ROOT,
        )
        self.assertEqual(done.stderr, "")
        count, used_kib = map(int, done.stdout.split())
        self.assertEqual(count, rows)
        self.assertLess(used_kib, 12 << 10)

    def write(self, rows: int, row: str, begin: str = "", end: str = "", between: str = "") -> None:
        """A file of many rows."""
        with (self.dir / "big").open("w") as file:
            file.write(begin)
            for number in range(rows):
                file.write((between if number else "") + row % (number >> 8 & 255, number & 255))
            file.write(end)

    def test_json(self) -> None:
        """An array of 40 MB."""
        row = '{"ip": "198.51.%d.%d", "about": "' + "x" * 1000 + '"}'
        self.write(40_000, row, begin='{"data": [', between=",\n", end="]}")
        self.assertStreams({**DocumentTests.KEYS, "rows": "data.*"}, 40_000)

    def test_lines(self) -> None:
        """Lines of 20 MB, and one of 20 MB."""
        self.write(200_000, "198.51.%d.%d" + " " * 80 + "\n", end="x" * 20_000_000)
        self.assertStreams(LINES, 200_000)
