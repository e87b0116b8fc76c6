"""Tests of the local database as a searcher."""

from __future__ import annotations

import json
import zlib
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctsd.artifacts import SHAPES
from ctsd.errors import SearchLater
from ctsd.interfaces import IRecords
from ctsd.internal import InternalArtifactSearch
from ctsd.model import FILE, PASSWORD, Hit, Property
from ctsd.properties import string
from ctsd.records import Record
from ctsd.searcher import Found, SearchContext, SearcherSetup
from ctsd.testing import MemoryRecords
from ctsd.wire import encode_hit

PROPS = (Property("string", "campaign", "X"), Property("number", "score", 7))


def entered(name: str, value: str = "192.168.1.1", **more: Any) -> Record:
    """A record of the local database."""
    more.setdefault("threat_id", zlib.crc32(name.encode()) + 1)
    return Record(type="net.ip", value=value, name=name, properties=PROPS, **more)


class InternalTests(SynchronousTestCase):
    """What one has entered, and what searchers found, is found."""

    def setUp(self) -> None:
        """A searcher on records that a test fills."""
        self.records = MemoryRecords()
        self.searcher = InternalArtifactSearch()
        self.setup = SearcherSetup(
            settings={},
            data_dir=Path(),
            base_dir=Path(),
            clock=Clock(),
            records=self.no_records,
            threats=lambda: self.records,
        )
        self.searcher.start(self.setup)

    def no_records(self, *given: Any) -> IRecords:
        """It asks for no file."""
        raise AssertionError

    def search(self, value: Any, *, asked: str = "", source: bytes = b"", scope: str = "") -> Any:
        """What it finds."""
        context = SearchContext(
            id="1",
            type="net.ip",
            value=value,
            searcher="internal",
            source=source,
            asked=frozenset(asked.split()),
            scope=scope,
            setup=self.setup,
        )
        searching: Coroutine[Any, Any, Found | None] = self.searcher.search(
            "net.ip", value, context=context
        )
        return self.successResultOf(Deferred.fromCoroutine(searching))

    def names(self, *given: Any, **more: Any) -> list[Any]:
        """The names of the threats that it finds."""
        found = self.search(*given, **more)
        return [] if found is None else [json.loads(hit)["props"][0]["value"] for hit in found.hits]

    def test_a_hit_is_name_then_properties(self) -> None:
        """A hit shows the threat's name first, then what is known about it."""
        self.records.records = [entered("Botnet")]
        hit = encode_hit(Hit((string("Threat", "Botnet"), *PROPS)))
        self.assertEqual(self.search("192.168.1"), Found((hit,), 0, False))

    def test_nothing(self) -> None:
        """Nothing is told as nothing."""
        self.assertIsNone(self.search("192.168.1.1"))

    def test_ten_hits_and_how_many_more(self) -> None:
        """More than ten are counted."""
        self.records.records = [entered(f"{number}", threat_id=number) for number in range(1, 14)]
        found = self.search("192.168.1.1")
        self.assertEqual((len(found.hits), found.more, found.at_least), (10, 3, False))

    def test_leaves_a_searchers_find_to_the_searcher(self) -> None:
        """What a searcher stored for this artifact is its own in a scan in which it is asked."""
        self.records.records = [
            entered("by hand", source=b""),
            entered("other artifact", searcher="s", source=b"other"),
            entered("this artifact", searcher="s", source=b"this"),
        ]
        every = ["by hand", "other artifact", "this artifact"]
        ask = "192.168.1.1"
        self.assertEqual(self.names(ask, asked="internal s", source=b"this"), every[:2])
        self.assertEqual(self.names(ask, asked="internal", source=b"this"), every)
        self.assertEqual(self.names(ask, asked="internal s", source=b"another"), every)
        self.assertEqual(self.names(ask, asked="internal s"), every)

    def test_a_services_own_finds(self) -> None:
        """What a service keeps to itself is found by no other."""
        self.records.records = [entered("own", searcher="phish/s", source=b"this")]
        ask = "192.168.1.1"
        self.assertEqual(self.names(ask, source=b"other", scope="phish"), ["own"])
        self.assertEqual(self.names(ask, asked="s", source=b"this", scope="phish"), [])
        self.assertEqual(self.names(ask, source=b"other", scope="another"), [])
        self.assertEqual(self.names(ask, source=b"other"), [])

    def test_a_find_that_is_left_out_is_not_counted(self) -> None:
        """Not as one more, either."""
        self.records.records = [
            entered(f"{number}", searcher="s", source=b"this") for number in range(14)
        ]
        self.assertIsNone(self.search("192.168.1.1", asked="s", source=b"this"))

    def test_supports_what_can_be_stored(self) -> None:
        """Every type but passwords, and the bytes of files, which are found by their hashes."""
        supported = {kind for kind in SHAPES if self.searcher.supports(kind)}
        self.assertEqual(supported, set(SHAPES) - {PASSWORD, FILE})
        self.assertFalse(self.searcher.supports("no.such.type"))

    def test_not_there_yet(self) -> None:
        """Before the index is loaded the answer is "later", and operators see why."""
        self.records.later = "being indexed"
        failure = self.failureResultOf(
            Deferred.fromCoroutine(
                self.searcher.search(
                    "net.ip",
                    "1.1.1.1",
                    context=SearchContext(
                        id="1", type="net.ip", value="", searcher="internal", setup=self.setup
                    ),
                )
            ),
            SearchLater,
        )
        self.assertIn("being indexed", str(failure.value.reason))
        self.assertTrue(self.searcher.loading())
        self.records.wrong = "the disk is full"
        self.assertEqual(self.searcher.trouble(), "the disk is full")
        self.assertIn("records", self.searcher.describe())

    def test_is_local(self) -> None:
        """It answers from memory, so it is asked without a thread or a lease."""
        self.assertTrue(InternalArtifactSearch.local)
        self.assertEqual(InternalArtifactSearch.name, "internal")
