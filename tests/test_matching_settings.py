"""C{[matching]} of the configuration, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctsd.config.loading import load
from ctsd.config.settings import Settings
from ctsd.errors import ConfigError
from ctsd.feeding import content_limits, index_limits, lookup_limits
from ctsd.feeds.allowed import MAX_ALLOWED
from ctsd.feeds.contents import Limits
from ctsd.feeds.indicators import MAX_COUNTED
from ctsd.feeds.list_files import MAX_BYTES, MAX_FILES
from ctsd.records import IndexLimits, LookupLimits


class MatchingSettingsTests(SynchronousTestCase):
    """What the file may say."""

    def load(self, text: str) -> Settings:
        """A configuration with this in it."""
        file = Path(self.mktemp()).absolute()
        file.write_text(text)
        return load(file, environ={})

    def test_defaults(self) -> None:
        """They are those of the limits."""
        settings = self.load("")
        self.assertEqual(content_limits(settings), Limits())
        self.assertEqual(lookup_limits(settings), LookupLimits())
        self.assertEqual(index_limits(settings), IndexLimits())
        self.assertEqual(settings.matching.max_counted, MAX_COUNTED)
        self.assertEqual(settings.matching.max_list_bytes, MAX_BYTES)
        self.assertEqual(settings.matching.max_lists, MAX_FILES)
        self.assertEqual(settings.matching.max_allowed, MAX_ALLOWED)

    def test_all(self) -> None:
        """Every key arrives."""
        settings = self.load(
            "[matching]\nmax_text_chars = 1\nmax_message_bytes = 2\nmax_parts = 3\n"
            "max_indicators = 4\nmax_recipients = 5\nmax_certificate_bytes = 6\n"
            "max_counted = 7\nmax_suppressed = 0\nmax_list_bytes = 8\nmax_lists = 9\n"
            "max_occurrences = 10\nmax_derived = 11\nmax_passed_over = 12\n"
        )
        self.assertEqual(
            content_limits(settings),
            Limits(text_chars=1, message_bytes=2, parts=3, found=4, certificate_bytes=6),
        )
        self.assertEqual(lookup_limits(settings), LookupLimits(max_recipients=5, max_suppressed=0))
        self.assertEqual(
            index_limits(settings),
            IndexLimits(occurrences=10, counted=7, derived=11, passed_over=12),
        )
        matching = settings.matching
        self.assertEqual(
            (matching.max_counted, matching.max_list_bytes, matching.max_lists), (7, 8, 9)
        )

    def test_tells(self) -> None:
        """Who does not want to know what could not be asked gets no hit about it here, either."""
        for when_incomplete, tells in (("resend", True), ("tell", True), ("ignore", False)):
            settings = self.load(f"when_incomplete = '{when_incomplete}'")
            self.assertEqual(lookup_limits(settings).tells_cut, tells)

    def test_wrong(self) -> None:
        """What is none is refused by its name."""
        for wrong in (
            "max_parts = 0",
            "max_parts = 10001",
            "max_suppressed = -1",
            "max_indicators = 1.5",
            "max_x = 1",
        ):
            error = self.assertRaises(ConfigError, self.load, f"[matching]\n{wrong}\n")
            self.assertIn(f"matching.{wrong.split()[0]}", str(error))
