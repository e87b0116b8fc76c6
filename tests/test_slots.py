"""Tests of L{ctsd.scanning.slots}."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from ctsd.errors import SearchFailed
from ctsd.scanning.slots import Slots


class SlotsTests(SynchronousTestCase):
    """How many searches of one source run at once."""

    def test_waits_for_its_turn(self) -> None:
        """A search beyond the limit waits until another one has ended, in order."""
        slots = Slots(limit=1)
        self.assertIsNone(slots.take())
        first, second = slots.take(), slots.take()
        assert first is not None
        assert second is not None
        self.assertNoResult(first)
        slots.free(overstayed=False)
        self.successResultOf(first)
        self.assertNoResult(second)
        slots.free(overstayed=False)
        self.successResultOf(second)
        slots.free(overstayed=False)
        self.assertIsNone(slots.take())

    def test_whoever_leaves_takes_no_slot(self) -> None:
        """A search that gives up waiting is passed over."""
        slots = Slots(limit=1)
        slots.take()
        left, stays = slots.take(), slots.take()
        assert left is not None
        assert stays is not None
        left.cancel()
        self.failureResultOf(left, CancelledError)
        slots.free(overstayed=False)
        self.successResultOf(stays)

    def test_stuck(self) -> None:
        """When every slot is kept by a search that overstayed, whoever waits or comes is told."""
        slots = Slots(limit=1)
        slots.take()
        waiting = slots.take()
        assert waiting is not None
        slots.overstay()
        self.failureResultOf(waiting, SearchFailed)
        self.assertIn("stuck", str(self.assertRaises(SearchFailed, slots.take)))
        slots.free(overstayed=True)
        self.assertIsNone(slots.take())

    def test_queue_has_a_limit(self) -> None:
        """Too many that wait for one source are refused."""
        slots = Slots(limit=1, max_waiting=1)
        slots.take()
        self.assertIsNotNone(slots.take())
        self.assertRaises(SearchFailed, slots.take)
