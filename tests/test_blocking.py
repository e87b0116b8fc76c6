"""Tests of L{ctsd.blocking}, with real threads."""

from __future__ import annotations

import threading
from contextvars import ContextVar

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.trial.unittest import TestCase

from ctsd.blocking import DaemonThreads


class DaemonThreadsTests(TestCase):
    """A pool of threads that nobody joins."""

    def pool(self, max_threads: int) -> DaemonThreads:
        """A pool that stops with the test."""
        threads = DaemonThreads(reactor=reactor, max_threads=max_threads)  # type: ignore[arg-type]
        self.addCleanup(threads.stop)
        return threads

    async def test_runs(self) -> None:
        """A call's result and its exception come back to the reactor; threads are daemons."""
        pool = self.pool(2)
        thread = await pool.submit(threading.current_thread).done
        self.assertTrue(thread.daemon)
        await self.assertFailure(pool.submit(lambda: 1 / 0).done, ZeroDivisionError)

    async def test_bounded_and_reused(self) -> None:
        """A hundred calls run in at most two threads."""
        pool = self.pool(2)
        idents = await gatherResults([pool.submit(threading.get_ident).done for _ in range(100)])
        self.assertLessEqual(len(set(idents)), 2)

    async def test_context(self) -> None:
        """A call sees the context variables of whoever submitted it."""
        variable: ContextVar[str] = ContextVar("variable")
        variable.set("mine")
        self.assertEqual(await self.pool(1).submit(variable.get).done, "mine")

    async def test_give_up(self) -> None:
        """A call that was given up before a thread took it is never made."""
        pool = self.pool(1)
        go_on = threading.Event()
        called: list[int] = []
        first = pool.submit(go_on.wait)
        second = pool.submit(lambda: called.append(1))
        second.give_up()
        await self.assertFailure(second.done, CancelledError)
        go_on.set()
        await first.done
        await pool.submit(lambda: None).done
        self.assertEqual(called, [])

    async def test_stop(self) -> None:
        """Stopping waits for no thread, and gives up what waits."""
        pool = self.pool(1)
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        pool.submit(go_on.wait)
        waiting = pool.submit(lambda: None)
        pool.stop()
        await self.assertFailure(waiting.done, CancelledError)
