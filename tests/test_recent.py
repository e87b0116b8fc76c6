"""Tests of L{ctsd.scanning.recent}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ctsd.model import EncodedHit, ScanView
from ctsd.scanning.recent import RecentViews


def view(scan_id: str, size: int = 800) -> ScanView:
    """An answer that counts as so many bytes and 200."""
    return ScanView(id=scan_id, finished=True, hits=(EncodedHit(b"x" * size),))


class RecentViewsTests(SynchronousTestCase):
    """The newest answers, in bounded memory."""

    def test_bounded(self) -> None:
        """Beyond its bytes, who was not asked for the longest leaves; the newest never does."""
        recent = RecentViews(max_bytes=2000)
        recent.add("", view("a"))
        recent.add("", view("b"))
        recent.get("", "a")
        recent.add("", view("c"))
        known = [each for each in "abc" if recent.get("", each)]
        self.assertEqual(known, ["a", "c"])
        recent.add("", view("huge", 5000))
        self.assertIsNotNone(recent.get("", "huge"))
        self.assertIsNone(recent.get("", "c"))

    def test_services(self) -> None:
        """An answer is its own service's."""
        recent = RecentViews(max_bytes=2000)
        recent.add("phish", view("a"))
        self.assertIsNone(recent.get("", "a"))
        self.assertIsNotNone(recent.get("phish", "a"))

    def test_once(self) -> None:
        """An answer that comes again counts once."""
        recent = RecentViews(max_bytes=2000)
        recent.add("", view("a"))
        for _ in range(5):
            recent.add("", view("b"))
        self.assertIsNotNone(recent.get("", "a"))

    def test_private(self) -> None:
        """Answers about passwords are not pushed out by others."""
        recent = RecentViews(max_bytes=4000)
        recent.add("", view("secret"), private=True)
        for number in range(20):
            recent.add("", view(str(number)))
        self.assertIsNotNone(recent.get("", "secret"))
