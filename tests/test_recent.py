"""Tests of L{ctsd.scanning.recent}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ctsd.model import EncodedHit, ScanView
from ctsd.scan_ids import ScanIds
from ctsd.scanning.recent import RecentViews


def view(scan_id: str, size: int = 800) -> ScanView:
    """An answer that counts as so many bytes and 200."""
    return ScanView(id=scan_id, finished=True, hits=(EncodedHit(b"x" * size),))


class RecentViewsTests(SynchronousTestCase):
    """The newest answers, in bounded memory."""

    def test_bounded(self) -> None:
        """Beyond its bytes, who was not asked for the longest leaves; the newest never does."""
        recent = RecentViews(max_bytes=2000, oldest=float)
        recent.add("", view("a"))
        recent.add("", view("b"))
        recent.get("", "a")
        recent.add("", view("c"))
        known = [each for each in "abc" if recent.get("", each)]
        self.assertEqual(known, ["a", "c"])
        recent.add("", view("f", 5000))
        self.assertIsNotNone(recent.get("", "f"))
        self.assertIsNone(recent.get("", "c"))

    def test_services(self) -> None:
        """An answer is its own service's."""
        recent = RecentViews(max_bytes=2000, oldest=float)
        recent.add("phish", view("a"))
        self.assertIsNone(recent.get("", "a"))
        self.assertIsNotNone(recent.get("phish", "a"))

    def test_once(self) -> None:
        """An answer that comes again counts once."""
        recent = RecentViews(max_bytes=2000, oldest=float)
        recent.add("", view("a"))
        for _ in range(5):
            recent.add("", view("b"))
        self.assertIsNotNone(recent.get("", "a"))

    def test_private(self) -> None:
        """Answers about passwords are not pushed out by others."""
        recent = RecentViews(max_bytes=4000, oldest=float)
        recent.add("", view("e"), private=True)
        for number in range(20):
            recent.add("", view(f"{number:032x}"))
        self.assertIsNotNone(recent.get("", "e"))

    def test_retained(self) -> None:
        """An answer that is older than what is retained is not given, about a password neither."""
        oldest = 0.0
        recent = RecentViews(max_bytes=2000, oldest=lambda: oldest)
        ids = ScanIds(bytes(32))
        early, late = ids.mint(service="", now=1000.0), ids.mint(service="", now=1001.0)
        for scan_id in (early, late):
            recent.add("", view(scan_id, 0), private=scan_id == early)
        self.assertIsNotNone(recent.get("", early))
        oldest = 1000.5
        self.assertIsNone(recent.get("", early))
        self.assertIsNotNone(recent.get("", late))
