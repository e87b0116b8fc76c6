"""
Tests for L{ctsd.stored} and L{ctsd.threat_lines}: what we keep comes back as it was.
"""

from __future__ import annotations

import json
import math
import os
import time
from datetime import UTC, datetime
from typing import Any

from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctsd import stored
from ctsd.model import (
    JSON,
    NOTHING,
    PASSWORD,
    Artifact,
    EncodedHit,
    Ended,
    Outcome,
    Property,
    Threat,
)
from ctsd.records import Record
from ctsd.threat_lines import threat_from_line, threat_line
from tests import strategies


def _nested(depth: int) -> JSON:
    value: JSON = "x"
    for _ in range(depth):
        value = [value]
    return value


def _with_property(value: JSON) -> Threat:
    return Threat(name="x", artifacts=(), properties=(Property("string", "x", value),))


class RoundTripTests(SynchronousTestCase):
    """Everything that can be encoded is decoded to the same."""

    @given(strategies.json_values)
    @settings(deadline=None, max_examples=300)
    @example("\x00")
    @example("\ud83d\ude00")
    @example("\ude00\ud83d")
    @example(10**400)
    @example(-0.0)
    @example(5e-324)
    @example(math.inf)
    @example({"\ud800": ["\n", None, True, 1, 1.0]})
    def test_value(self, value: JSON) -> None:
        """Any JSON value, NUL, lone surrogates and numbers of any size included."""
        data = stored.encode_value(value)
        self.assertNotIn(b"\n", data)
        again = json.loads(data)
        self.assertEqual(again, value)
        self.assertEqual(repr(again), repr(value))

    def test_not_a_number(self) -> None:
        """Even what is no JSON, but what Python's parser takes for it."""
        self.assertTrue(math.isnan(json.loads(stored.encode_value(math.nan))))

    @given(strategies.outcomes)
    @settings(deadline=None)
    @example(Outcome(Ended.FOUND, (EncodedHit(b"\n\xff"), EncodedHit(b""), EncodedHit(b"{}"))))
    @example(Outcome(Ended.LATER, reason="\ud800\n", after_secs=math.inf, final=True))
    def test_outcome(self, outcome: Outcome) -> None:
        """An outcome, with the very same bytes of its hits."""
        self.assertEqual(stored.decode_outcome(stored.encode_outcome(outcome)), outcome)

    def test_nothing(self) -> None:
        """The outcome that there is nothing is one value."""
        self.assertIs(stored.decode_outcome(stored.encode_outcome(NOTHING)), NOTHING)

    @given(strategies.artifacts(with_files=True))
    @settings(deadline=None)
    def test_artifact(self, artifact: Artifact) -> None:
        """An artifact, with its file's metadata."""
        self.assertEqual(stored.decode_artifact(stored.encode_artifact(artifact)), artifact)

    @given(st.lists(strategies.any_properties, max_size=5).map(tuple))
    @settings(deadline=None)
    def test_properties(self, properties: tuple[Property, ...]) -> None:
        """Properties, those that could not be shown included."""
        threat = Threat(name="x", artifacts=(), properties=properties)
        again = stored.decode_threat(stored.encode_threat(threat))
        self.assertEqual(repr(again.properties), repr(properties))

    @given(strategies.records)
    @settings(deadline=None)
    def test_record(self, record: Record) -> None:
        """A record, on one line."""
        indexed = stored.indexed(record)
        data = stored.encode_indexed(indexed)
        self.assertEqual(stored.encode_record(record), data)
        self.assertNotIn(b"\n", data)
        if not record.threat_id:
            # Only of the local database is it known whose a record is.
            indexed = evolve(indexed, searcher="", source=b"")
        self.assertEqual(stored.decode_indexed(record.type, data), indexed)

    @given(strategies.threats, st.integers(0, 2**60))
    @settings(deadline=None, max_examples=50)
    def test_threat(self, threat: Threat, threat_id: int) -> None:
        """A threat, all of it."""
        threat = evolve(threat, id=threat_id)
        self.assertEqual(stored.decode_threat(stored.encode_threat(threat)), threat)


class RefusedTests(SynchronousTestCase):
    """What must not be written, or can't be, is refused."""

    def test_password(self) -> None:
        """A password is never turned into bytes, and not into an error's text either."""
        password = Artifact(PASSWORD, "hunter2")
        for encode in (
            lambda: stored.encode_artifact(password),
            lambda: stored.encode_indexed(stored.indexed(Record(type=PASSWORD, value="hunter2"))),
            lambda: stored.encode_record(Record(type=PASSWORD, value="hunter2")),
            lambda: stored.encode_threat(Threat(name="x", artifacts=(password,))),
            lambda: threat_line(Threat(name="x", artifacts=(password,))),
        ):
            with self.assertRaises(ValueError) as caught:
                encode()
            self.assertNotIn("hunter2", str(caught.exception))

    def test_too_deep(self) -> None:
        """A value that is nested too deep is a ValueError, not a crash."""
        deep = _nested(100_000)
        for encode in (
            lambda: stored.encode_value(deep),
            lambda: stored.encode_artifact(Artifact("string", deep)),
            lambda: stored.encode_threat(_with_property(deep)),
        ):
            with self.assertRaises(ValueError):
                encode()
        self.assertEqual(json.loads(stored.encode_value(_nested(100))), _nested(100))

    def test_no_json(self) -> None:
        """What a searcher takes for a value is kept as text; odd keys are refused."""
        date: Any = datetime(2031, 1, 31, tzinfo=UTC)
        data = stored.encode_threat(_with_property(date))
        kept = _with_property("2031-01-31 00:00:00+00:00")
        self.assertEqual(stored.decode_threat(data), kept)
        odd: Any = {(1, 2): "x"}
        with self.assertRaises(ValueError):
            stored.encode_value(odd)


class ThreatLineTests(SynchronousTestCase):
    """Threats as lines for people: C{ctsd threats export} and C{import}."""

    def _wrong(self, line: Any, message: str) -> None:
        text = line if isinstance(line, str | bytes) else json.dumps(line)
        with self.assertRaises(ValueError, msg=repr(text)) as caught:
            threat_from_line(text)
        self.assertEqual(str(caught.exception), message)

    def _live_in(self, zone: str) -> None:
        was = os.environ.get("TZ")

        def back() -> None:
            os.environ.pop("TZ", None)
            if was is not None:
                os.environ["TZ"] = was
            time.tzset()

        self.addCleanup(back)
        os.environ["TZ"] = zone
        time.tzset()

    def test_example(self) -> None:
        """A line as the documentation has it."""
        line = (
            b'{"name": "Botnet 7", "artifacts": [{"type": "net.ip", "value": "192.0.2.7"}], '
            b'"properties": [{"type": "string", "name": "campaign", "value": "X"}], '
            b'"note": "from the CERT", "expires": "2031-01-31T00:00:00Z"}'
        )
        threat = Threat(
            name="Botnet 7",
            artifacts=(Artifact("net.ip", "192.0.2.7"),),
            properties=(Property("string", "campaign", "X"),),
            note="from the CERT",
            expires=1927584000.0,
        )
        self.assertEqual(threat_from_line(line), threat)
        self.assertEqual(threat_line(threat), line)
        self.assertEqual(threat_from_line(line.decode()), threat)

    def test_shortest(self) -> None:
        """A name and an artifact are enough; a date alone is its midnight in UTC."""
        threat = threat_from_line(
            '{"name": "x", "artifacts": [{"type": "net.port", "value": "80"}]}'
        )
        self.assertEqual(threat, Threat(name="x", artifacts=(Artifact("net.port", 80),)))
        self.assertEqual(
            threat_line(threat),
            b'{"name": "x", "artifacts": [{"type": "net.port", "value": 80}]}',
        )
        self._live_in("Asia/Tokyo")
        for date in ("2031-01-31", "2031-01-31T01:00:00+01:00", 1927584000, "2031-01-31 00:00"):
            line = {
                "name": "x",
                "artifacts": [{"type": "string", "value": "y"}],
                "expires": date,
                "note": None,
                "properties": None,
            }
            self.assertEqual(threat_from_line(json.dumps(line)).expires, 1927584000.0, date)

    def test_stores_own(self) -> None:
        """What belongs to the store alone is not exported."""
        threat = Threat(
            name="x", artifacts=(Artifact("string", "y"),), id=5, searcher="z", source=b"1" * 16
        )
        self.assertEqual(
            threat_from_line(threat_line(threat)),
            Threat(name="x", artifacts=(Artifact("string", "y"),)),
        )

    def test_for_people(self) -> None:
        """A line is valid UTF-8 and one line, whatever is in it."""
        threat = Threat(name="\u00e4\n", artifacts=(Artifact("string", "\u00e4\ud800"),))
        line = threat_line(threat)
        self.assertNotIn(b"\n", line)
        line.decode("utf-8")
        self.assertEqual(threat_from_line(line), threat)
        readable = threat_line(Threat(name="\u00e4", artifacts=(Artifact("string", "\u00e4"),)))
        self.assertIn("\u00e4".encode(), readable)

    def test_odd_date(self) -> None:
        """A date that no calendar has survives, too."""
        threat = Threat(name="x", artifacts=(Artifact("string", "y"),), expires=1e20)
        self.assertEqual(threat_from_line(threat_line(threat)), threat)

    def test_no_json(self) -> None:
        """What is no JSON object is told as such."""
        for line in ("", "x", b"\xff", "[" * 100_000, '{"name": "x"'):
            self._wrong(line, "the line is not JSON")
        for line in ("[]", "null", "5", '"x"'):
            self._wrong(line, "the line: expected an object")

    def test_wrong(self) -> None:
        """Every mistake is named by its key, with what was expected there, and no value."""
        good: dict[str, Any] = {"name": "x", "artifacts": [{"type": "net.ip", "value": "1.2.3.4"}]}
        text = "expected a string that is not empty"

        def artifact(**changes: Any) -> dict[str, Any]:
            return {**good, "artifacts": [{**good["artifacts"][0], **changes}]}

        def prop(**changes: Any) -> dict[str, Any]:
            whole = {"type": "string", "name": "n", "value": "v", **changes}
            return {**good, "properties": [whole]}

        for line, message in (
            ({**good, "name": ""}, f"name: {text}"),
            ({**good, "name": 5}, f"name: {text}"),
            ({"artifacts": good["artifacts"]}, f"name: {text}"),
            ({**good, "nmae": "x"}, "'nmae': no such key"),
            ({"name": "x"}, "artifacts: expected at least one"),
            ({**good, "artifacts": []}, "artifacts: expected at least one"),
            ({**good, "artifacts": {}}, "artifacts: expected a list"),
            ({**good, "artifacts": ["s3cret"]}, "artifacts[0]: expected an object"),
            (artifact(type=None), f"artifacts[0].type: {text}"),
            (artifact(type="ip"), "artifacts[0].type: 'ip' is no artifact type"),
            (artifact(type=PASSWORD), "artifacts[0].type: passwords are never stored"),
            (artifact(value=["a", "s3cret"]), "artifacts[0].value: expected a string"),
            (artifact(value=None), "artifacts[0].value: expected a string"),
            (artifact(value=" "), "artifacts[0].value: is empty"),
            (artifact(typ="x"), "artifacts[0].'typ': no such key"),
            (artifact(type="net.port", value="s3cret"), "artifacts[0].value: expected a number"),
            ({**good, "properties": "s3cret"}, "properties: expected a list"),
            ({**good, "properties": [5]}, "properties[0]: expected an object"),
            (prop(x=1), "properties[0].'x': no such key"),
            (prop(name=" "), f"properties[0].name: {text}"),
            (
                prop(type="text"),
                "properties[0].type: expected string, number, uri, ip or lat_lng",
            ),
            (prop(value=None), "properties[0].value: is missing"),
            (prop(value=""), "properties[0].value: is missing"),
            (prop(value=["s3cret"]), "properties[0].value: expected a string or a number"),
            (
                prop(type="lat_lng", value="s3cret"),
                "properties[0].value: expected an object with lat and lng",
            ),
            ({**good, "note": 5}, "note: expected a string"),
        ):
            self._wrong(line, message)
        for date in ("s3cret", "31.1.2031", True, [], math.nan, "9999-12-31T23:59:59-23:59x"):
            self._wrong(
                {**good, "expires": date},
                "expires: expected a date like 2031-01-31 or 2031-01-31T12:00:00Z",
            )

    @given(strategies.entered_threats)
    @settings(deadline=None, max_examples=60)
    def test_round_trip(self, threat: Threat) -> None:
        """An exported threat is imported as it was; only lone surrogates may join."""
        again = threat_from_line(threat_line(threat))
        self.assertEqual(threat_from_line(threat_line(again)), again)
        if not any("\ud800" <= char <= "\udfff" for char in _all_text(threat)):
            self.assertEqual(again, threat)

    @given(st.one_of(st.binary(max_size=50), strategies.json_values.map(json.dumps)))
    @settings(deadline=None)
    def test_any_line(self, line: bytes | str) -> None:
        """Any other line is a ValueError."""
        with self.assertRaises(ValueError):
            threat_from_line(line)


def _all_text(threat: Threat) -> str:
    return "".join(
        [
            threat.name,
            threat.note,
            *[json.dumps(each.value, ensure_ascii=False) for each in threat.artifacts],
            *[
                json.dumps([each.name, each.value], ensure_ascii=False)
                for each in threat.properties
            ],
        ]
    )
