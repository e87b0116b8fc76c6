"""What docs/matching.md says is true."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ctsd.feeds import lookups
from ctsd.feeds.contents import Limits
from ctsd.feeds.lookups import WIDEST_V4, WIDEST_V6
from ctsd.records import IndexLimits, LookupLimits
from tests.test_layers import ROOT

DOCS = (ROOT / "docs" / "matching.md").read_text(encoding="utf-8")


class MatchingTests(SynchronousTestCase):
    """What an artifact finds."""

    def test_how(self) -> None:
        """All ways to be found are told, in the words of the hits."""
        ways = [
            value
            for name, value in vars(lookups).items()
            if name.isupper() and isinstance(value, str) and value and name != "FILE"
        ]
        self.assertGreater(len(ways), 10)
        for way in ways:
            self.assertIn(f"`{way}`", DOCS)

    def test_numbers(self) -> None:
        """Limits are those of the code."""
        limits = Limits()
        self.assertEqual((limits.text_chars, limits.message_bytes), (1 << 20, 32 << 20))
        self.assertIn(f"a message 32 MiB and {limits.parts} parts", DOCS)
        self.assertIn(f"{limits.found} indicators", DOCS)
        self.assertEqual(lookups.MAX_PARENTS, 8)
        self.assertIn("those of more than eight labels are not looked for", DOCS)
        lookup = LookupLimits()
        self.assertIn(f"an e-mail's recipients {lookup.max_recipients:,}.", DOCS)
        self.assertIn(f"Of one search {lookup.max_suppressed} are kept", DOCS)
        self.assertIn(f"Where {IndexLimits().passed_over:,} were that all match", DOCS)
        self.assertEqual(limits.certificate_bytes, 1 << 20)
        self.assertIn("A certificate's file is read up to 1 MiB", DOCS)
        self.assertIn(f"wider than /{WIDEST_V4} (IPv6: /{WIDEST_V6})", DOCS)
