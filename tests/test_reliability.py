"""Tests of L{ctsd.scanning.reliability}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ctsd.model import NOTHING, Ended, Outcome
from ctsd.scanning.reliability import REMINDER_SECS, Reliability
from ctsd.states import Failing

AWAY = Outcome(Ended.FAILED, reason="no route")


class ReliabilityTests(SynchronousTestCase):
    """A source that fails is loud, once in a while."""

    def setUp(self) -> None:
        """Listen to the log."""
        self.clock = Clock()
        self.reliability = Reliability(clock=self.clock, now=lambda: 1000 + self.clock.seconds())
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: LogEvent) -> None:
        """Remember a line."""
        self.lines.append(formatEvent(event))

    def test_first_failure(self) -> None:
        """The first failure is logged with its reason; those after it are counted."""
        for _ in range(5):
            self.reliability.note("vt", AWAY)
        self.assertEqual(len(self.lines), 1)
        self.assertIn("no route", self.lines[0])
        self.assertEqual(self.reliability.failing, {"vt": Failing(1000, 1000)})

    def test_final(self) -> None:
        """A source is not to blame for a file that is gone, nor does it answer again by that."""
        gone = Outcome(Ended.FAILED, reason="the file was removed", final=True)
        self.reliability.note("vt", gone)
        self.assertEqual((self.reliability.failing, self.lines), ({}, []))
        self.reliability.note("vt", AWAY)
        self.reliability.note("vt", gone)
        self.assertEqual(self.reliability.failing, {"vt": Failing(1000, 1000)})

    def test_reminder(self) -> None:
        """One that keeps failing is told again, with how often it did."""
        self.reliability.note("vt", AWAY)
        self.reliability.note("vt", AWAY)
        self.clock.advance(REMINDER_SECS)
        self.reliability.note("vt", AWAY)
        self.assertIn("3 times", self.lines[-1])
        self.assertEqual(len(self.lines), 2)

    def test_recovery(self) -> None:
        """That it answers again is told, once."""
        self.reliability.note("vt", AWAY)
        for _ in range(3):
            self.reliability.note("vt", NOTHING)
        self.assertIn("again", self.lines[-1])
        self.assertEqual(len(self.lines), 2)
        self.assertEqual(self.reliability.failing, {})

    def test_changes(self) -> None:
        """Whoever wants to know hears when a source begins and ceases to fail, and of reminders."""
        told: list[dict[str, Failing]] = []
        self.reliability.changed = lambda: told.append(dict(self.reliability.failing))
        for outcome in (AWAY, AWAY, NOTHING, NOTHING, AWAY):
            self.reliability.note("vt", outcome)
            self.clock.advance(1)
        begun = {"vt": Failing(1004, 1004)}
        self.assertEqual(told, [{"vt": Failing(1000, 1000)}, {}, begun])
        self.clock.advance(REMINDER_SECS)
        self.reliability.note("vt", AWAY)
        self.assertEqual(told[-1], {"vt": Failing(1004, 1005 + REMINDER_SECS)})

    def test_later_is_no_failure(self) -> None:
        """A source that says "later" does not fail."""
        self.reliability.note("vt", Outcome(Ended.LATER, after_secs=1))
        self.assertEqual(self.lines, [])

    def test_usual(self) -> None:
        """How long a search takes is learnt slowly."""
        self.reliability.took("vt", 1.0)
        self.assertEqual(self.reliability.usual_secs["vt"], 1.0)
        self.reliability.took("vt", 2.0)
        self.assertAlmostEqual(self.reliability.usual_secs["vt"], 1.2)
