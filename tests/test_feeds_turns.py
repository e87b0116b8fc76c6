"""One node of several keeps a feed current."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctsd.errors import StoreError
from ctsd.feeds.copies import Busy, Copies
from ctsd.feeds.feed_state import FeedState
from ctsd.feeds.turns import LEASE_SECS, Turns


class Shared:
    """
    Leases by the test's clock.

    :ivar broken: what the store says instead.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._leases: dict[str, tuple[str, float]] = {}
        self._token = 0
        self.broken: Any = None

    def lease(self, *, name: str, holder: str, secs: float) -> Deferred[int | None]:
        """Take or renew one."""
        if self.broken is not None:
            return self.broken()  # type: ignore[no-any-return]
        now = self._clock.seconds()
        has, until = self._leases.get(name, ("", 0.0))
        if has != holder:
            if until > now:
                return succeed(None)
            self._token += 1
        self._leases[name] = (holder, now + secs)
        return succeed(self._token)

    def release(self, *, name: str, holder: str) -> Deferred[None]:
        """Give it back."""
        if self.broken is not None:
            return fail(StoreError("away"))
        if self._leases.get(name, ("", 0.0))[0] == holder:
            del self._leases[name]
        return succeed(None)


class TurnsTests(SynchronousTestCase):
    """Leases of feeds."""

    def setUp(self) -> None:
        """Two nodes."""
        self.clock = Clock()
        self.shared = Shared(self.clock)
        self.one, self.other = self.node("one"), self.node("other")
        self.work: Deferred[str] = Deferred()
        self.tokens: list[int] = []

    def node(self, name: str) -> Turns:
        """A node."""
        return Turns(shared=self.shared, holder=name, clock=self.clock)  # type: ignore[arg-type]

    def run_on(self, turns: Turns) -> Deferred[str]:
        """Begin to work."""

        def work(token: int) -> Deferred[str]:
            self.tokens.append(token)
            return self.work

        return turns.run("mine", work)

    def pass_secs(self, secs: float) -> None:
        """Time passes."""
        self.clock.pump([1.0] * int(secs))

    def test_one_at_a_time(self) -> None:
        """While one works, however long, the other does not; then it may, with a newer token."""
        first = self.run_on(self.one)
        self.pass_secs(10 * LEASE_SECS)
        self.failureResultOf(self.run_on(self.other), Busy)
        self.work.callback("done")
        self.assertEqual(self.successResultOf(first), "done")
        self.work = succeed("again")
        self.assertEqual(self.successResultOf(self.run_on(self.other)), "again")
        self.assertEqual(self.tokens, [1, 2])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost(self) -> None:
        """Who can't renew its lease gives up before another one can have it."""
        for broken in (lambda: fail(StoreError("away")), Deferred):
            self.work = Deferred()
            first = self.run_on(self.one)
            self.shared.broken = broken
            self.pass_secs(LEASE_SECS / 2)
            self.assertNoResult(first)
            self.pass_secs(LEASE_SECS / 2)
            self.failureResultOf(first, Busy)
            self.shared.broken = None
            self.pass_secs(LEASE_SECS)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_store_comes_back(self) -> None:
        """A short trouble of the store is none."""
        first = self.run_on(self.one)
        self.shared.broken = lambda: fail(StoreError("away"))
        self.pass_secs(LEASE_SECS / 4 + 1)
        self.shared.broken = None
        self.pass_secs(10 * LEASE_SECS)
        self.work.callback("done")
        self.assertEqual(self.successResultOf(first), "done")

    def test_store_away(self) -> None:
        """Nobody works while nobody knows who may."""
        self.shared.broken = lambda: fail(StoreError("away"))
        self.failureResultOf(self.run_on(self.one), StoreError)
        self.assertEqual(self.tokens, [])

    def test_given_up(self) -> None:
        """Who gives up gives the lease back, and the store goes on with what it does."""
        first = self.run_on(self.one)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.work = succeed("x")
        self.successResultOf(self.run_on(self.other))
        asked: Deferred[int | None] = Deferred()
        self.shared.broken = lambda: asked
        waiting = self.run_on(self.one)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertFalse(asked.called)
        asked.callback(None)


class TokenTests(SynchronousTestCase):
    """A node that was taken for dead writes nothing any more."""

    def test_older(self) -> None:
        """What a newer lease wrote stays."""
        copies = Copies(Path(self.mktemp()))
        lock = copies.lock()
        self.addCleanup(lock.release)
        copies.write(FeedState(token=2, error="newer"))
        self.assertRaises(Busy, copies.write, FeedState(token=1))
        self.assertEqual(copies.state().error, "newer")
        copies.write(FeedState(token=2, error="same"))
        copies.write(FeedState(token=3, error="newest"))
        self.assertEqual(copies.state().error, "newest")
