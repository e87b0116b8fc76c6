"""Tests of L{ctsd.scans}: what a scan's parts add up to."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ctsd.errors import LostScan
from ctsd.model import NOTHING, EncodedHit, Ended, Outcome, ScanState, Suppressed
from ctsd.scans import (
    FIRST_RETRY_SECS,
    MAX_LATER_SECS,
    MAX_RETRY_SECS,
    Pace,
    Part,
    backoff_secs,
    final_view,
    merge,
    not_asked,
    retry_secs,
    state_of,
)

ONE = Outcome(Ended.FOUND, (EncodedHit(b"1"),))
TWO = Outcome(Ended.FOUND, (EncodedHit(b"2"),))
FAILED = Outcome(Ended.FAILED, reason="away")
CRASHED = Outcome(Ended.FAILED, reason="crashed", final=True)
LATER = Outcome(Ended.LATER, after_secs=7)


class StateTests(SynchronousTestCase):
    """When a scan is finished."""

    def test_complete(self) -> None:
        """Nothing is missing: also when nobody was asked."""
        self.assertIs(state_of([]), ScanState.COMPLETE)
        self.assertIs(
            state_of([Part("a", outcome=ONE), Part("b", outcome=NOTHING)]), ScanState.COMPLETE
        )

    def test_could_not_ask_is_not_nothing(self) -> None:
        """A required searcher that failed, is late or still runs keeps the scan open."""
        for outcome in (FAILED, LATER, None):
            parts = [Part("a", outcome=ONE), Part("b", outcome=outcome)]
            self.assertIs(state_of(parts), ScanState.OPEN)

    def test_optional(self) -> None:
        """One that is not required never does."""
        for outcome in (FAILED, LATER, None):
            self.assertIs(
                state_of([Part("b", required=False, outcome=outcome)]), ScanState.COMPLETE
            )

    def test_lost(self) -> None:
        """What failed for good ends the scan, once nothing else is missing."""
        self.assertIs(state_of([Part("a", outcome=CRASHED)]), ScanState.INCOMPLETE)
        self.assertIs(
            state_of([Part("a", outcome=CRASHED), Part("b", outcome=FAILED)]), ScanState.OPEN
        )


class FinalViewTests(SynchronousTestCase):
    """What a finished scan tells."""

    def test_order(self) -> None:
        """Hits come in the order of the searchers."""
        view = final_view(
            "x", [Part("a", outcome=ONE), Part("b", outcome=TWO)], ScanState.COMPLETE, "resend"
        )
        self.assertEqual((view.hits, view.finished), ((b"1", b"2"), True))

    def test_said_twice(self) -> None:
        """What two searchers say in the same words is one hit, in the first one's place."""
        both = Outcome(Ended.FOUND, (EncodedHit(b"2"), EncodedHit(b"3"), EncodedHit(b"1")))
        parts = [Part("a", outcome=ONE), Part("b", outcome=both), Part("c", outcome=TWO)]
        view = final_view("x", parts, ScanState.COMPLETE, "resend")
        self.assertEqual(view.hits, (b"1", b"2", b"3"))

    def test_resend(self) -> None:
        """Incomplete without hits: it must be sent again, and the answer names who is missing."""
        parts = [Part("a", outcome=NOTHING), Part("away", outcome=FAILED)]
        lost = self.assertRaises(LostScan, final_view, "x", parts, ScanState.INCOMPLETE, "resend")
        self.assertIn("away", lost.reason)
        self.assertGreater(lost.retry_secs, 0)

    def test_tell_and_ignore(self) -> None:
        """ "tell" makes a hit that names who is missing; "ignore" says nothing."""
        parts = [Part("away", outcome=FAILED)]
        told = final_view("x", parts, ScanState.INCOMPLETE, "tell")
        self.assertIn(b"away", told.hits[0])
        self.assertEqual(final_view("x", parts, ScanState.INCOMPLETE, "ignore").hits, ())

    def test_with_hits(self) -> None:
        """With hits the answer is theirs, unchanged, and one more names who is missing."""
        parts = [Part("a", outcome=ONE), Part("away", outcome=FAILED)]
        for when_incomplete in ("resend", "tell", "ignore"):
            view = final_view("x", parts, ScanState.INCOMPLETE, when_incomplete)
            self.assertEqual(view.hits[0], b"1")
            self.assertIn(b"away", view.hits[-1])

    def test_sources(self) -> None:
        """Of a searcher that stands for several sources those that are missing are named."""
        names = tuple(f"s{number}" for number in range(12))
        few = Part("feeds", outcome=Outcome(Ended.LATER, missing=("URLhaus", "Mine")))
        many = Part("more", outcome=Outcome(Ended.LATER, missing=names))
        self.assertEqual(
            not_asked([few, many, Part("away", outcome=FAILED), Part("optional", required=False)]),
            (
                "feeds (URLhaus, Mine)",
                "more (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, and 2 more)",
                "away",
            ),
        )
        view = final_view("x", [few], ScanState.INCOMPLETE, "tell")
        self.assertIn(b"feeds (URLhaus, Mine)", view.hits[-1])


class PaceTests(SynchronousTestCase):
    """When the platform should ask again."""

    def test_usual(self) -> None:
        """When the soonest of what is pending is usually done; at least 1."""
        self.assertEqual(retry_secs([Pace(usual_secs=4.2), Pace(usual_secs=40)]), 5)
        self.assertEqual(retry_secs([Pace(usual_secs=0.1)]), 1)
        self.assertEqual(retry_secs([]), 1)

    def test_overstayed(self) -> None:
        """What takes longer than usual is asked about ever more rarely."""
        self.assertEqual(retry_secs([Pace(usual_secs=4, elapsed_secs=20)]), 10)

    def test_waiting(self) -> None:
        """What waits is not asked about before its time, up to a quarter of an hour."""
        self.assertEqual(retry_secs([Pace(usual_secs=1, due_in_secs=60)]), 61)
        self.assertEqual(retry_secs([Pace(usual_secs=1, due_in_secs=5000)]), MAX_RETRY_SECS)

    def test_backoff(self) -> None:
        """A source that fails is left alone ever longer; one that says when, until then."""
        waits = [backoff_secs(FAILED, tries) for tries in range(1, 12)]
        self.assertEqual(waits[:2], [FIRST_RETRY_SECS, 2 * FIRST_RETRY_SECS])
        self.assertEqual(waits, sorted(waits))
        self.assertEqual(waits[-1], MAX_RETRY_SECS)
        self.assertEqual(backoff_secs(LATER, 9), 7)

    def test_odd_times(self) -> None:
        """A time that is none, too soon or too late is put right."""
        for odd, secs in ((float("nan"), 1), (0, 1), (float("inf"), MAX_LATER_SECS)):
            self.assertEqual(backoff_secs(Outcome(Ended.LATER, after_secs=odd), 1), secs)


class MergeTests(SynchronousTestCase):
    """One searcher, several questions."""

    def test_good(self) -> None:
        """Hits add up, each once; nothing and nothing is nothing."""
        self.assertEqual(merge([ONE, TWO, ONE]).hits, (b"1", b"2"))
        self.assertEqual(merge([NOTHING, NOTHING]), NOTHING)
        self.assertEqual(merge([]), NOTHING)

    def test_bad(self) -> None:
        """A failure anywhere is a failure, and beats "later"; the hits stay."""
        merged = merge([ONE, LATER, FAILED])
        self.assertEqual(
            (merged.ended, merged.reason, merged.hits), (Ended.FAILED, "away", (b"1",))
        )
        self.assertIs(merge([LATER, NOTHING]).ended, Ended.LATER)

    def test_beside(self) -> None:
        """What was missing and what was suppressed adds up, whatever the whole comes to."""
        listed, allowed = Suppressed("a", "net.ip", "list"), Suppressed("a", "net.ip", "bob")
        one = Outcome(Ended.NOTHING, suppressed=(listed,), suppressed_more=2)
        two = Outcome(Ended.NOTHING, suppressed=(allowed, listed), suppressed_more=1)
        for other, ended in ((ONE, Ended.FOUND), (NOTHING, Ended.NOTHING), (LATER, Ended.LATER)):
            merged = merge([one, other, two])
            self.assertEqual(
                (merged.ended, merged.suppressed, merged.suppressed_more),
                (ended, (listed, allowed), 3),
            )
        away = [Outcome(Ended.LATER, missing=names) for names in (("a", "b"), ("b", "c"))]
        self.assertEqual(merge(away).missing, ("a", "b", "c"))
