"""What is not repeated of a searcher's own words."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctsd.model import JSON, PASSWORD, Secret
from ctsd.scanning.hiding import MAX_TEXTS, hiding
from ctsd.scanning.source import Question

URL = "http://a.example/x?y=\u00fc&z=1 2\\3"


def hidden(text: str, value: JSON, *secrets: str, type: str = "string") -> str:
    """A text about an artifact, by a searcher with these secrets."""
    settings = {"keys": [{"key": Secret(one)} for one in secrets], "plain": "configured"}
    return hiding(text, Question(type, value), settings)


class HidingTests(SynchronousTestCase):
    """Values, secrets, and how they are spelled."""

    def test_plain(self) -> None:
        """The value and secrets go, wherever they stand; other settings stay."""
        self.assertEqual(
            hidden("a.example: s3cret, configured, a.example", "a.example", "s3cret"),
            "(the artifact): (secret), configured, (the artifact)",
        )

    def test_spellings(self) -> None:
        """As Python, JSON and URLs show it."""
        for spelled in (
            *(repr(URL), json.dumps(URL), json.dumps(URL, ensure_ascii=False)),
            *(quote(URL), quote(URL, safe=""), quote_plus(URL)),
        ):
            for told in (hidden(spelled, URL), hidden(spelled, "x", URL)):
                self.assertNotIn("example", told)
                self.assertNotIn("z=1", told)

    def test_objects(self) -> None:
        """The texts of a value that is an object."""
        value: JSON = {"key": "HKLM\\Software\\Bad", "entry_name": "Run"}
        told = hidden(f"no {value!r}", value, type="system.registry")
        self.assertEqual(told, "no {'key': '(the artifact)', 'entry_name': '(the artifact)'}")

    def test_parts(self) -> None:
        """Where one is a part of another, nothing of the longer one is left."""
        self.assertEqual(hidden("k: abcdef abc", "x", "abc", "abcdef"), "k: (secret) (secret)")

    def test_password(self) -> None:
        """About a password nothing is repeated."""
        self.assertEqual(hidden("4 letters, 3 digits", "hunter2", type=PASSWORD), "(hidden)")

    def test_long(self) -> None:
        """A value of megabytes is looked for as it is."""
        value = "a b" * 1_000_000
        self.assertEqual(hidden(f"<{value}>", value), "<(the artifact)>")

    def test_many(self) -> None:
        """Of an artifact of more texts than can be looked for nothing is repeated."""
        boxes: list[JSON] = [f"u{number}@a.example" for number in range(MAX_TEXTS + 1)]
        text = f"no such box: {boxes[-2]}"
        self.assertEqual(hidden(text, boxes[:-1]), "no such box: (the artifact)")
        self.assertEqual(hidden(text, boxes), "(hidden)")

    @given(st.text(min_size=1), st.sampled_from([str, repr, json.dumps]))
    def test_any(self, value: str, spell: object) -> None:
        """Whatever it is, and however it is spelled, it is not in what is left."""
        assert callable(spell)
        told = hidden(f"\0{spell(value)}\0", value)
        self.assertIn("(the artifact)", told)
