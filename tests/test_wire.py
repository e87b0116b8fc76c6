"""
Tests for L{ctsd.wire} and L{ctsd.shown}: the platform's JSON.
"""

from __future__ import annotations

import ipaddress
import json
import math
import unicodedata
from itertools import repeat
from pathlib import Path
from typing import Any
from unittest.mock import ANY

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctsd import wire
from ctsd.errors import BadArtifact, status_of
from ctsd.model import (
    FILE,
    JSON,
    Artifact,
    EncodedHit,
    File,
    Hit,
    Property,
    ScanView,
)
from ctsd.properties import ip, lat_lng, number, string, uri
from ctsd.shown import safe_text
from ctsd.wire import decode_artifact, encode_hits, encode_view, file_artifact
from tests import strategies

_MIB = 1024 * 1024


class DecodeTests(SynchronousTestCase):
    """L{decode_artifact} takes every artifact, and says what is wrong with the rest."""

    def _bad(self, body: bytes, why: str, *, with_file: bool = False) -> None:
        with self.assertRaises(BadArtifact, msg=repr(body[:60])) as caught:
            decode_artifact(body, with_file=with_file)
        self.assertIn(why, str(caught.exception))
        self.assertEqual(status_of(caught.exception), 400)

    def _value(self, json_text: bytes) -> JSON:
        return decode_artifact(b'{"type": "string", "value": ' + json_text + b"}").value

    def test_no_json(self) -> None:
        """What is no JSON is bad, and the message does not repeat it."""
        for body in (
            b"",
            b" ",
            b"s3cret",
            b'{"type": "string", "value": "s3cret"',
            b'{"type": "string", "value": "s3cret"} x',
            b"{'type': 's3cret'}",
            b'{"type": "string", "value": "\xff"}',
            b'{"type": "string", "value": "a\x01b"}',
            b"\x00" * 8,
        ):
            self._bad(body, "not JSON")
            with self.assertRaises(BadArtifact) as caught:
                decode_artifact(body)
            self.assertNotIn("s3cret", str(caught.exception))

    def test_too_deep(self) -> None:
        """What nobody's parser follows to its end is bad, whether it is JSON or not."""
        for body in (
            b"[" * 100_000,
            b'{"type": "string", "value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        ):
            self._bad(body, "nested too deep")

    def test_no_object(self) -> None:
        """Other JSON than an object is bad."""
        for body in (b"[]", b'"x"', b"1", b"null", b"true", b'[{"type": "string", "value": 1}]'):
            self._bad(body, "not a JSON object")

    def test_no_type(self) -> None:
        """An artifact needs a type that is a string."""
        for body in (b"{}", b'{"value": "x"}', b'{"type": "", "value": 1}', b'{"type": null}'):
            self._bad(body, "no type")
        for body in (b'{"type": 1, "value": 1}', b'{"type": ["net.ip"], "value": 1}'):
            self._bad(body, "not a string")

    def test_no_value(self) -> None:
        """An artifact needs a value; null is none."""
        self._bad(b'{"type": "net.ip"}', "no value")
        self._bad(b'{"type": "net.ip", "value": null}', "no value")

    def test_no_value_with_a_file(self) -> None:
        """With a part for the file the value may be missing, but the type may not."""
        artifact = decode_artifact(b'{"type": "email"}', with_file=True)
        self.assertEqual(artifact, Artifact("email", None))
        self._bad(b'{"value": "x"}', "no type", with_file=True)
        self._bad(b"{", "not JSON", with_file=True)

    def test_file_by_its_metadata(self) -> None:
        """A file.content without a file may lack a value, too: it is empty then."""
        self.assertEqual(decode_artifact(b'{"type": "file.content"}').value, "")
        self.assertEqual(
            decode_artifact(b'{"type": "file.content", "value": "a.exe"}').value, "a.exe"
        )

    def test_value_as_it_is(self) -> None:
        """Values of any shape are taken as they are; their shape is looked at later."""
        for text, value in (
            (b'"x"', "x"),
            (b"1", 1),
            (b"1.5", 1.5),
            (b"true", True),
            (b"[]", []),
            (b'""', ""),
            (b"{}", {}),
            (b'{"name": "a", "value": "b", "c": [null]}', {"name": "a", "value": "b", "c": [None]}),
            (b'"\\u0000"', "\x00"),
            (b'"\\ud83d\\ude00"', "\U0001f600"),
        ):
            self.assertEqual(self._value(text), value)

    def test_unknown_type(self) -> None:
        """A type that nobody knows is no bad artifact; a very long one is cut."""
        self.assertEqual(
            decode_artifact(b'{"type": "new.type", "value": 1, "x": 2}'), Artifact("new.type", 1)
        )
        long = decode_artifact(b'{"type": "%b", "value": 1}' % (b"x" * _MIB))
        self.assertEqual(long.type, "x" * 100)

    def test_what_the_fast_parser_refuses(self) -> None:
        """
        A byte order mark, UTF-16, lone surrogates, huge numbers and double keys are taken: before
        a 400 the standard library decides.
        """
        plain = '{"type": "string", "value": "\u00e4"}'
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"):
            self.assertEqual(decode_artifact(plain.encode(encoding)).value, "\u00e4")
        self.assertEqual(self._value(b'"\\ud800"'), "\ud800")
        self.assertEqual(self._value(b'"\xed\xa0\x80"'), "\ud800")
        self.assertEqual(self._value(b"1e999"), math.inf)
        self.assertTrue(math.isnan(self._value(b"NaN")))  # type: ignore[arg-type]
        self.assertEqual(self._value(b"1" + b"0" * 500), 10**500)
        self.assertEqual(self._value(b"9" * 10_000), "9" * 10_000)
        self.assertEqual(
            decode_artifact(b'{"type": "a", "type": "b", "value": 1, "value": 2}'),
            Artifact("b", 2),
        )

    def test_big(self) -> None:
        """A body of 32 MiB is taken, with as many commas as an e-mail likes."""
        text = "a,[{" * (8 * _MIB - 100)
        body = json.dumps({"type": "email", "value": text}).encode()
        self.assertEqual(len(decode_artifact(bytearray(body)).value), len(text))  # type: ignore[arg-type]
        header = {"name": "X", "value": 'a,\\"[{' * 400_000}
        body = json.dumps({"type": "email.header", "value": header}).encode()
        self.assertEqual(decode_artifact(body).value, header)

    def test_big_surrogate(self) -> None:
        """So is a big text with a lone surrogate in it."""
        body = b'{"type": "email", "value": "' + b"a," * _MIB + b'\\udc00"}'
        self.assertEqual(decode_artifact(body).value, "a," * _MIB + "\udc00")

    def test_bomb(self) -> None:
        """Millions of elements are refused before they become objects."""
        for inside in (b"[]," * _MIB, b"[" * _MIB, b"1," * _MIB, b'{"a":' * _MIB):
            self._bad(b'{"type": "string", "value": [' + inside + b"0]}", "too many elements")

    @given(st.binary(max_size=200), st.booleans())
    @settings(deadline=None, max_examples=300)
    def test_any_bytes(self, body: bytes, with_file: bool) -> None:
        """Any bytes at all are an artifact or a bad one, nothing else."""
        try:
            artifact = decode_artifact(body, with_file=with_file)
        except BadArtifact:
            return
        self.assertIsInstance(artifact, Artifact)

    @given(
        st.dictionaries(
            st.one_of(st.sampled_from(["type", "value", "file"]), strategies.texts),
            strategies.json_values,
            max_size=4,
        ),
        st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
        st.booleans(),
        st.integers(0, 5),
    )
    @settings(deadline=None, max_examples=300)
    def test_any_object(self, given: dict[str, Any], encoding: str, escape: bool, cut: int) -> None:
        """Any JSON, whole or cut short, is an artifact with that type and value, or a bad one."""
        body = json.dumps(given, ensure_ascii=escape).encode(encoding, "surrogatepass")
        body = body[: len(body) - cut]
        try:
            artifact = decode_artifact(body)
        except BadArtifact:
            return
        self.assertEqual(artifact.type, given["type"][:100])
        if given["type"] != FILE and escape is False and encoding == "utf-8":
            self.assertEqual(artifact.value, given["value"])

    @given(strategies.artifacts(strategies.artifact_types))
    @settings(deadline=None)
    def test_round_trip(self, artifact: Artifact) -> None:
        """What the platform says about an artifact arrives."""
        body = json.dumps({"type": artifact.type, "value": artifact.value}, ensure_ascii=False)
        self.assertEqual(decode_artifact(body.encode("utf-8", "surrogatepass")), artifact)


class FileArtifactTests(SynchronousTestCase):
    """L{file_artifact} joins the two parts."""

    def setUp(self) -> None:
        """A file."""
        self.file = File(path=Path("/x"), name="a.exe", size=1, md5="", sha1="", sha256="")

    def test_name_for_a_missing_value(self) -> None:
        """A missing or empty value is the file's name."""
        for value in (None, ""):
            artifact = file_artifact(Artifact(FILE, value), self.file)
            self.assertEqual(artifact, Artifact(FILE, "a.exe", self.file))

    def test_value(self) -> None:
        """A value stays, and any type may have a file."""
        for value in ("b.exe", 0, {"name": "x", "value": "y"}, []):
            artifact = file_artifact(Artifact("email", value), self.file)
            self.assertEqual(artifact, Artifact("email", value, self.file))


def _decoded(hit: bytes) -> list[dict[str, Any]]:
    decoded = json.loads(hit.decode("utf-8"))
    assert list(decoded) == ["props"]
    props: list[dict[str, Any]] = decoded["props"]
    return props


class EncodeHitsTests(SynchronousTestCase):
    """L{encode_hits} makes hits safe, and always the same bytes."""

    def _shown(self, *props: Property) -> list[tuple[str, str, Any]]:
        (hit,) = encode_hits([Hit(props)])
        return [(prop["type"], prop["name"], prop["value"]) for prop in _decoded(hit)]

    def _one(self, type: str, value: Any) -> tuple[str, Any]:
        ((shown_type, name, shown),) = self._shown(Property(type, "n", value))
        self.assertEqual(name, "n")
        return shown_type, shown

    def test_bytes(self) -> None:
        """A hit is exactly these bytes: they are stored, and compared by the platform."""
        self.assertEqual(
            encode_hits(
                [
                    Hit(
                        (
                            number("id", 17),
                            string("url", "http://a.example/\u00e4"),
                            uri("detail", "https://b.example/?id=17"),
                            ip("address", "192.0.2.1"),
                            lat_lng("place", 48.1, 11),
                        )
                    )
                ]
            ),
            (
                b'{"props":[{"type":"number","name":"id","value":17},'
                b'{"type":"string","name":"url","value":"http://a.example/\xc3\xa4"},'
                b'{"type":"uri","name":"detail","value":"https://b.example/?id=17"},'
                b'{"type":"ip","name":"address","value":"192.0.2.1"},'
                b'{"type":"lat_lng","name":"place","value":{"lat":48.1,"lng":11}}]}',
            ),
        )

    def test_nothing(self) -> None:
        """No hits are none, whatever else there may be."""
        self.assertEqual(encode_hits([]), ())
        self.assertEqual(encode_hits([], more=5), ())

    def test_links(self) -> None:
        """Only http(s) URLs become links."""
        for good in ("http://a.example", "HTTPS://a.example:8443/x?y=1@2#z", "https://[::1]/"):
            self.assertEqual(self._one("uri", good), ("uri", good))
        for bad in (
            "javascript:alert(1)",
            "ftp://a.example/",
            "www.a.example",
            "http://",
            "http:///x",
            "https://bank.example@evil.example/",
            "https://evil.example\\@bank.example",
            "http://a.example/ b",
            'http://a.example/"onclick=',
            "http://a.example/<script>",
            " http://a.example/",
            "http://a.example/\n",
            "http://a.example/" + "x" * 1000,
        ):
            self.assertEqual(self._one("uri", bad)[0], "string", bad)
        self.assertEqual(
            self._one("uri", "http://a.example/\u202e"), ("string", "http://a.example/\\u202e")
        )
        self.assertEqual(self._one("uri", 17), ("string", "17"))

    def test_addresses(self) -> None:
        """Only addresses are of the type ip."""
        for good in ("192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"):
            self.assertEqual(self._one("ip", good), ("ip", good))
        for bad in ("192.0.2", "010.0.0.1", "192.0.2.1:80", "a.example", "192.0.2.0/24", ""):
            self.assertEqual(self._one("ip", bad), ("string", bad))

    def test_numbers(self) -> None:
        """Numbers are finite and exact for every client, else they are text."""
        top = 2**53
        for value, expected in (
            (0, 0),
            (-1.5, -1.5),
            (top, top),
            (-top, -top),
            ("17", 17),
            (" -17.25 ", -17.25),
        ):
            self.assertEqual(self._one("number", value), ("number", expected))
        for value, text in (
            (top + 1, str(top + 1)),
            (-top - 1, str(-top - 1)),
            (10**400, "1" + "0" * 400),
            (1e300, "1e+300"),
            (math.inf, "inf"),
            (math.nan, "nan"),
            ("inf", "inf"),
            ("1e3", "1e3"),
            ("007", "007"),
            ("x", "x"),
            (True, "true"),
            ([1], "[1]"),
        ):
            self.assertEqual(self._one("number", value), ("string", text))
        self.assertEqual(self._one("number", 10**5000)[0], "string")

    def test_places(self) -> None:
        """A place is sent under its documented name; an invalid one is dropped."""
        place = {"lat": -90, "lng": 180.0}
        for kind in ("lat_lng", "latlng"):
            self.assertEqual(self._one(kind, place), ("lat_lng", place))
            self.assertEqual(
                self._one(kind, {"lat": "1.5", "lng": "2", "x": 3}),
                ("lat_lng", {"lat": 1.5, "lng": 2}),
            )
        for bad in (
            {"lat": 91, "lng": 0},
            {"lat": 0, "lng": -180.5},
            {"lat": math.nan, "lng": 0},
            {"lat": True, "lng": 0},
            {"lat": 0},
            {},
            [0, 0],
            "0,0",
            None,
        ):
            self.assertEqual(
                self._shown(Property("lat_lng", "p", bad), string("a", "b")),
                [("string", "a", "b")],
            )

    def test_other_types(self) -> None:
        """A type that the platform does not know, and any other value, becomes text."""
        self.assertEqual(self._one("date", "2031-01-31"), ("string", "2031-01-31"))
        self.assertEqual(self._one("", 5), ("string", "5"))
        self.assertEqual(self._one("string", False), ("string", "false"))
        self.assertEqual(self._one("string", {"a": ["\u00e4"]}), ("string", '{"a": ["\u00e4"]}'))
        self.assertEqual(self._one("string", Path("/x")), ("string", "/x"))
        deep: Any = []
        for _ in range(100_000):
            deep = [deep]
        self.assertEqual(self._one("string", deep), ("string", "list"))

    def test_hidden_characters(self) -> None:
        """Control, bidi and zero-width characters and lone surrogates are visible."""
        for text, seen in (
            ("a\x00b", "a\\u0000b"),
            ("a\r\n\tb", "a\\r\\n\\tb"),
            ("\x1b[31m", "\\u001b[31m"),
            ("\x7f\x85", "\\u007f\\u0085"),
            ("gnp\u202eexe", "gnp\\u202eexe"),
            ("a\u200bb\u2060\ufeff", "a\\u200bb\\u2060\\ufeff"),
            ("\u2066x\u2069", "\\u2066x\\u2069"),
            ("\u2028\u2029", "\\u2028\\u2029"),
            ("\u3164\u115f\u00ad\ufe0f", "\\u3164\\u115f\\u00ad\\ufe0f"),
            ("\U000e0041", "\\U000e0041"),
            ("\ud800\udfff", "\\ud800\\udfff"),
            ("\u00e4\u6f22\U0001f600 ok", "\u00e4\u6f22\U0001f600 ok"),
        ):
            self.assertEqual(self._one("string", text), ("string", seen))
            self.assertEqual(self._shown(string(text, "v")), [("string", seen, "v")])

    def test_cut(self) -> None:
        """Names and values have an end that shows that they were cut."""
        self.assertEqual(self._one("string", "x" * 1000), ("string", "x" * 1000))
        self.assertEqual(self._one("string", "x" * 1001), ("string", "x" * 999 + "\u2026"))
        self.assertEqual(
            self._one("string", "\u00e4" * 10_000), ("string", "\u00e4" * 999 + "\u2026")
        )
        self.assertEqual(self._one("string", "\x00" * 1000)[1][-1], "\u2026")
        self.assertEqual(len(self._one("string", "\x00" * 1000)[1]), 1000)
        ((_, name, _),) = self._shown(string("n" * 81, "v"))
        self.assertEqual(name, "n" * 79 + "\u2026")
        ((_, name, _),) = self._shown(string("n" * 80, "v"))
        self.assertEqual(name, "n" * 80)

    def test_names(self) -> None:
        """Names are unique within a hit, and never empty."""
        names = [name for _, name, _ in self._shown(*[string("a", str(at)) for at in range(3)])]
        self.assertEqual(names, ["a", "a (2)", "a (3)"])
        names = [
            name
            for _, name, _ in self._shown(string("a (2)", "x"), string("a", "x"), string("a", "x"))
        ]
        self.assertEqual(names, ["a (2)", "a", "a (3)"])
        names = [name for _, name, _ in self._shown(*repeat(string("n" * 90, "x"), 2))]
        self.assertEqual(names, ["n" * 79 + "\u2026", "n" * 75 + "\u2026 (2)"])
        names = [name for _, name, _ in self._shown(string("", "x"), string("", "x"))]
        self.assertEqual(names, ["(no name)", "(no name) (2)"])

    def test_dropped_property_has_no_name(self) -> None:
        """A property that is dropped leaves its name to the next one."""
        self.assertEqual(
            self._shown(Property("lat_lng", "\u00e4", None), string("\u00e4", "x")),
            [("string", "\u00e4", "x")],
        )

    def test_many_properties(self) -> None:
        """A hit shows 30 properties; when there are more, the last one says so."""
        self.assertEqual(len(self._shown(*[string(str(at), "x") for at in range(30)])), 30)
        shown = self._shown(*[string(str(at), "x") for at in range(35)])
        self.assertEqual(len(shown), 30)
        self.assertEqual(
            shown[-2:], [("string", "28", "x"), ("string", "more properties", "6 not shown")]
        )

    def test_without_properties(self) -> None:
        """A finding without properties that can be shown is still a hit."""
        for props in ((), (Property("lat_lng", "p", None),)):
            self.assertEqual(self._shown(*props), [("string", "finding", "without details")])

    def test_more_hits(self) -> None:
        """At most ten hits are shown, and the last one says how many more there are."""
        hits = [Hit((string("a", str(at)),)) for at in range(12)]
        encoded = encode_hits(hits)
        self.assertEqual(len(encoded), 10)
        self.assertEqual(encoded[:9], encode_hits(hits[:9]))
        self.assertEqual(
            _decoded(encoded[9])[1:],
            [{"type": "string", "name": "more hits", "value": "2 not shown"}],
        )
        self.assertEqual(encode_hits(hits[:10]), tuple(encode_hits([hit])[0] for hit in hits[:10]))

        def notice(*, count: int, **more: Any) -> Any:
            return _decoded(encode_hits(hits[:count], **more)[-1])[-1]["value"]

        self.assertEqual(notice(count=12, more=5), "7 not shown")
        self.assertEqual(notice(count=1, more=5), "5 not shown")
        self.assertEqual(notice(count=1, more=5, at_least=True), "at least 5 not shown")
        self.assertEqual(notice(count=1, at_least=True), "there may be more")
        self.assertEqual(notice(count=3, limit=2), "1 not shown")

    def test_more_of_everything(self) -> None:
        """A full hit has room for what is said about the other ones."""
        hits = [Hit(tuple(string(str(at), "x") for at in range(40)))]
        props = _decoded(encode_hits(hits, more=1)[0])
        self.assertEqual(len(props), 30)
        self.assertEqual(
            [prop["value"] for prop in props[-3:]], ["x", "12 not shown", "1 not shown"]
        )
        own = Hit((string("more hits", "mine"),))
        self.assertEqual(
            [prop["name"] for prop in _decoded(encode_hits([own], more=1)[0])],
            ["more hits", "more hits (2)"],
        )

    def test_endless(self) -> None:
        """Hits without an end are counted up to a limit."""
        encoded = encode_hits(repeat(Hit((string("a", "b"),))))
        self.assertEqual(_decoded(encoded[-1])[-1]["value"], "at least 10000 not shown")

    @given(st.lists(strategies.any_hits, max_size=12), st.integers(0, 3), st.booleans())
    @settings(deadline=None, max_examples=150)
    def test_any_hits(self, hits: list[Hit], more: int, at_least: bool) -> None:
        """Whatever a searcher hands over, the platform gets what its guide allows."""
        encoded = encode_hits(hits, more=more, at_least=at_least)
        self.assertEqual(encoded, encode_hits(hits, more=more, at_least=at_least))
        self.assertEqual(len(encoded), min(len(hits), 10))
        for hit in encoded:
            props = _decoded(hit)
            self.assertTrue(1 <= len(props) <= 30)
            self.assertEqual(len({prop["name"] for prop in props}), len(props))
            for prop in props:
                self.assertEqual(list(prop), ["type", "name", "value"])
                self.assertTrue(1 <= len(prop["name"]) <= 80)
                self._check_visible(prop["name"])
                self._check_value(prop["type"], prop["value"])

    def _check_visible(self, text: str) -> None:
        for char in text:
            self.assertNotIn(unicodedata.category(char), ("Cc", "Cf", "Cs", "Zl", "Zp"), repr(char))

    def _check_value(self, type: str, value: Any) -> None:
        if type == "number":
            self.assertIn(value.__class__, (int, float))
            self.assertTrue(abs(value) <= 2**53)
        elif type == "lat_lng":
            self.assertEqual(list(value), ["lat", "lng"])
            self.assertTrue(abs(value["lat"]) <= 90 and abs(value["lng"]) <= 180)
        else:
            self.assertLessEqual(len(value), 1000)
            self._check_visible(value)
            if type == "ip":
                ipaddress.ip_address(value)
            elif type == "uri":
                self.assertTrue(value.lower().startswith(("http://", "https://")))
            else:
                self.assertEqual(type, "string")


class SafeTextTests(SynchronousTestCase):
    """L{safe_text} hides nothing."""

    def test_every_format_character(self) -> None:
        """No control, format, separator or surrogate character of Unicode stays as it is."""
        for code in range(0x110000):
            char = chr(code)
            if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
                self.assertTrue(safe_text(char, 10).isascii(), hex(code))

    @given(strategies.texts, st.integers(2, 50))
    @settings(deadline=None)
    @example("\x00" * 60, 50)
    def test_any_text(self, text: str, limit: int) -> None:
        """No text is longer than its limit; one that is fine is not changed."""
        safe = safe_text(text, limit)
        self.assertLessEqual(len(safe), limit)
        if text.isprintable() and text.isascii() and len(text) <= limit:
            self.assertEqual(safe, text)
        safe.encode("utf-8")


class EncodeViewTests(SynchronousTestCase):
    """L{encode_view} and the other answers."""

    def test_bytes(self) -> None:
        """A finished answer has no retry_secs, an unfinished one has."""
        hits = (EncodedHit(b'{"props":[]}'), EncodedHit(b'{"props":[1]}'))
        self.assertEqual(
            encode_view(ScanView(id="0a" * 16, finished=True, hits=hits, retry_secs=9)),
            b'{"id":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","hits":[{"props":[]},{"props":[1]}]}',
        )
        self.assertEqual(
            encode_view(ScanView(id="x", finished=False, retry_secs=9)),
            b'{"id":"x","retry_secs":9,"hits":[]}',
        )

    @given(strategies.views)
    @settings(deadline=None)
    def test_any_view(self, view: ScanView) -> None:
        """An answer is the ResponseDTO of the guide; retry_secs is an integer of at least 1."""
        decoded = json.loads(encode_view(view))
        expected = {"id": view.id, "hits": [json.loads(hit) for hit in view.hits]}
        if not view.finished:
            self.assertIs(type(decoded["retry_secs"]), int)
            self.assertGreaterEqual(decoded["retry_secs"], 1)
            expected["retry_secs"] = ANY
        self.assertEqual(decoded, expected)

    def test_error(self) -> None:
        """An error says what is wrong, visibly and at a reasonable length."""
        self.assertEqual(wire.encode_error('no "x"'), b'{"error":"no \\"x\\""}')
        self.assertEqual(wire.encode_error("\ud800\n"), b'{"error":"\\\\ud800\\\\n"}')
        self.assertLess(len(wire.encode_error("x" * 10_000)), 1100)

    def test_options(self) -> None:
        """OPTIONS says whether files may be uploaded."""
        self.assertEqual(json.loads(wire.encode_options(True)), {"upload_file": True})
        self.assertEqual(json.loads(wire.encode_options(False)), {"upload_file": False})

    @given(strategies.encoded_hits, st.binary(max_size=20))
    @settings(deadline=None)
    def test_is_encoded_hit(self, hits: tuple[EncodedHit, ...], data: bytes) -> None:
        """Our own hits are recognised; other bytes, and two hits in one, are not."""
        for hit in hits:
            self.assertTrue(wire.is_encoded_hit(hit))
            self.assertFalse(wire.is_encoded_hit(hit + b"," + hit))
        for other in (data, b"{}", b'{"props":1}', b"[]", b"[" * 100_000):
            self.assertFalse(wire.is_encoded_hit(other))
