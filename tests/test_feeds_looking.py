"""Tests of looking into artifacts, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctsd.feeds.contents import QUICK_CHARS, Limits
from ctsd.feeds.looking import Contents
from ctsd.interfaces.feeds import IContents
from ctsd.model import FILE, Artifact, File
from ctsd.records import Within
from tests.feeding import at_once

SHORT = Artifact("string", "see 203.0.113.1 and x.example")
LONG = Artifact("email.body", "see 203.0.113.1 " + " " * QUICK_CHARS)


def values(within: Within | None) -> list[Any]:
    """What is in it."""
    assert within is not None
    return [each.artifact.value for each in within.derived]


class ContentsTests(SynchronousTestCase):
    """What is in artifacts, for all who ask."""

    def setUp(self) -> None:
        """Threads that wait until a test lets them run."""
        self.held: list[Deferred[None]] = []
        self.contents = Contents(in_thread=self.in_thread, limits=Limits(found=2))

    def in_thread(self, function: Any, *args: Any) -> Deferred[Any]:
        """Not yet."""
        held: Deferred[None] = Deferred()
        self.held.append(held)
        return held.addCallback(lambda _: maybeDeferred(function, *args))

    def test_interface(self) -> None:
        """It is what searchers ask."""
        self.assertTrue(verifyObject(IContents, self.contents))

    def test_short(self) -> None:
        """A short text is read at once, without a thread, and once."""
        within = self.contents.within_now(artifact=SHORT)
        self.assertEqual(values(within), ["203.0.113.1", "x.example"])
        self.assertIs(self.successResultOf(self.contents.within(artifact=SHORT)), within)
        self.assertEqual(self.held, [])

    def test_limits(self) -> None:
        """They are those that it was given."""
        within = self.contents.within_now(artifact=Artifact("string", "a.example b.example c.nu"))
        assert within is not None
        self.assertEqual(len(within.derived), 2)
        self.assertTrue(within.cut)

    def test_long(self) -> None:
        """A long one is read in a thread, once for all who wait; then anew."""
        self.assertIsNone(self.contents.within_now(artifact=LONG))
        first, second, other = [
            self.contents.within(artifact=one)
            for one in (LONG, LONG, Artifact("string", LONG.value))
        ]
        self.assertEqual(len(self.held), 2)
        self.held[0].callback(None)
        self.assertEqual(values(self.successResultOf(first)), ["203.0.113.1"])
        self.assertEqual(values(self.successResultOf(second)), ["203.0.113.1"])
        self.assertNoResult(other)
        self.held[1].callback(None)
        self.successResultOf(other)
        self.contents.within(artifact=LONG)
        self.assertEqual(len(self.held), 3)

    def test_given_up(self) -> None:
        """Who gives it up does not take it from others."""
        first, second = self.contents.within(artifact=LONG), self.contents.within(artifact=LONG)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.held[0].callback(None)
        self.assertEqual(values(self.successResultOf(second)), ["203.0.113.1"])

    def test_gone(self) -> None:
        """A file that is gone is told to everybody."""
        file = File(path=Path(self.mktemp()), name="a.eml", size=1, md5="", sha1="", sha256="")
        contents = Contents(in_thread=at_once)
        self.failureResultOf(contents.within(artifact=Artifact(FILE, "a.eml", file)), OSError)
        both = [self.contents.within(artifact=Artifact(FILE, "a.eml", file)) for _ in range(2)]
        self.held[0].callback(None)
        for each in both:
            self.failureResultOf(each, FileNotFoundError)

    def test_other_file(self) -> None:
        """Of a file that is no message its name and hashes are known without reading it."""
        file = File(path=Path(self.mktemp()), name="a.exe", size=1, md5="a", sha1="b", sha256="c")
        within = self.contents.within_now(artifact=Artifact(FILE, "a.exe", file))
        self.assertEqual(values(within), ["a", "b"])
