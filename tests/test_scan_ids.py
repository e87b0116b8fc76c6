"""
Tests for L{ctsd.scan_ids}: ids tell what we issued.
"""

from __future__ import annotations

import uuid

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctsd.errors import NoSuchScan, status_of
from ctsd.interfaces.scanning import IScanIds
from ctsd.scan_ids import ScanIds
from tests import strategies

_SECRET = bytes(range(32))


class ScanIdsTests(SynchronousTestCase):
    """L{ScanIds} mints ids and recognises its own alone."""

    def setUp(self) -> None:
        """Ids of one secret."""
        self.ids = ScanIds(_SECRET)

    def _foreign(self, scan_id: str, service: str = "phish") -> None:
        with self.assertRaises(NoSuchScan, msg=repr(scan_id)) as caught:
            self.ids.issued(service=service, scan_id=scan_id)
        self.assertEqual(status_of(caught.exception), 204)

    def test_interface(self) -> None:
        """They are what the rest of the daemon asks for."""
        verifyObject(IScanIds, self.ids)

    def test_shape(self) -> None:
        """An id is a UUID of version 8 that begins with its time in ms."""
        minted = self.ids.mint(service="phish", now=1_700_000_000.123)
        self.assertRegex(minted, r"\A[0-9a-f]{32}\Z")
        parsed = uuid.UUID(minted)
        self.assertEqual(parsed.version, 8)
        self.assertEqual(parsed.variant, uuid.RFC_4122)
        self.assertEqual(parsed.int >> 80, 1_700_000_000_123)

    def test_random(self) -> None:
        """Forty random bits are in it, and nothing else differs but the tag."""
        one = ScanIds(_SECRET, lambda size: b"\x00" * size).mint(service="", now=1.0)
        other = ScanIds(_SECRET, lambda size: b"\xff" * size).mint(service="", now=1.0)
        differ = int(one, 16) ^ int(other, 16)
        self.assertEqual(differ >> 34, ((1 << 12) - 1) << 30 | ((1 << 28) - 1))
        self.assertEqual(len({self.ids.mint(service="", now=1.0) for _ in range(1000)}), 1000)

    def test_same_forever(self) -> None:
        """Ids outlive releases: this one was minted by the first."""
        known = ScanIds(_SECRET, lambda size: b"\x12\x34\x56\x78\x9a"[:size])
        self.assertEqual(
            known.mint(service="phish", now=1_700_000_000.0), "018bcfe5680081239159e26b9f3487bd"
        )
        self.assertEqual(
            self.ids.issued(service="phish", scan_id="018bcfe5680081239159e26b9f3487bd"),
            1_700_000_000.0,
        )

    def test_other_service(self) -> None:
        """An id of another service is foreign."""
        minted = self.ids.mint(service="phish", now=1.0)
        self.assertEqual(self.ids.issued(service="phish", scan_id=minted), 1.0)
        for service in ("", "phis", "phishy", "\ud800"):
            self._foreign(minted, service)

    def test_other_secret(self) -> None:
        """An id of another store is foreign."""
        self._foreign(ScanIds(b"x" * 32).mint(service="phish", now=1.0))

    def test_other_spelling(self) -> None:
        """The platform sends ids back as they were: any other spelling is foreign."""
        minted = self.ids.mint(service="phish", now=1_700_000_000.0)
        for other in (
            minted.upper(),
            str(uuid.UUID(minted)),
            f" {minted}",
            f"{minted}\n",
            f"0x{minted[2:]}",
            f"+{minted[1:]}",
            f"{minted[:4]}_{minted[5:]}",
            minted[:-1],
            minted + "0",
            "",
            "0" * 32,
            "\u0660" * 32,
            "\ud800" * 32,
            "-" + "0" * 31,
        ):
            self._foreign(other)

    def test_every_digit_counts(self) -> None:
        """An id in which any one bit was changed is foreign."""
        minted = self.ids.mint(service="phish", now=1_700_000_000.0)
        for bit in range(128):
            self._foreign(f"{int(minted, 16) ^ 1 << bit:032x}")

    def test_odd_times(self) -> None:
        """A clock that is far off still gives ids that are ours."""
        for now, issued in ((-5.0, 0.0), (0.0, 0.0), (1e15, (2**48 - 1) / 1000)):
            minted = self.ids.mint(service="phish", now=now)
            self.assertEqual(len(minted), 32)
            self.assertEqual(self.ids.issued(service="phish", scan_id=minted), issued)

    @given(strategies.service_names, strategies.dates)
    @settings(deadline=None)
    def test_round_trip(self, service: str, now: float) -> None:
        """What was minted tells its time, to the ms."""
        minted = self.ids.mint(service=service, now=now)
        self.assertLess(abs(self.ids.issued(service=service, scan_id=minted) - now), 0.00101)

    @given(st.one_of(strategies.texts, strategies.scan_ids, st.text("0123456789abcdef-_ x")))
    @settings(deadline=None)
    def test_any_text(self, scan_id: str) -> None:
        """Any other text is foreign."""
        self._foreign(scan_id)
