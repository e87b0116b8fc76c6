"""
Threads for searches that block, and for passwords' slow hashes.

A pool of its own, because the reactor joins its pool at exit: one search that sits in a
C{time.sleep(40)} would hold the exit for so long. Nobody joins these threads; they are daemons.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Job:
    """
    One call, waiting for a thread or running in one.

    :ivar done: fires with what the call returned or raised, when its thread has left it; fails
        with L{CancelledError} when it was given up before it started.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self.done: Deferred[Any] = Deferred()
        self._call = call
        self._context = copy_context()
        self._lock = threading.Lock()
        self._started = False

    def give_up(self) -> None:
        """Don't start it, if it has not started; a running thread can't be stopped."""
        with self._lock:
            if self._started:
                return
            self._started = True
        if not self.done.called:
            self.done.errback(Failure(CancelledError()))

    def run(self, reactor: IReactorFromThreads) -> None:
        """Run it, in the calling thread, in the context in which it was made."""
        with self._lock:
            if self._started:
                return
            self._started = True
        result: Any
        try:
            result = self._context.run(self._call)
        except BaseException:
            result = Failure()
        reactor.callFromThread(self._fire, result)

    def _fire(self, result: Any) -> None:
        if not self.done.called:
            self.done.callback(result)


class DaemonThreads:
    """
    At most C{max_threads} daemon threads, started when they are needed.

    What does not get a thread waits; whoever waits has a time limit of its own.

    :param name: what they do, in one word, for their names.
    """

    def __init__(
        self, *, reactor: IReactorFromThreads, max_threads: int, name: str = "search"
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._max_threads = max_threads
        self._wake = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._threads = 0
        self._idle = 0
        self._stopped = False

    def submit(self, call: Callable[[], Any]) -> Job:
        """
        Run a call in a thread, as soon as one is free.

        :raises RuntimeError: a thread is needed, and can't be had.
        """
        job = Job(call)
        with self._wake:
            self._waiting.append(job)
            if self._idle >= len(self._waiting) or self._threads >= self._max_threads:
                self._wake.notify()
                return job
            self._threads += 1
            number = self._threads
        name = f"ctsd-{self._name}-{number}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:
            with self._wake:
                self._threads -= 1
                if job in self._waiting:
                    self._waiting.remove(job)
            raise
        return job

    def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Deferred[_T]:
        """See L{ctsd.interfaces.threads.InThread}."""
        return self.submit(partial(function, *args, **kwargs)).done

    def stop(self) -> None:
        """Start nothing any more, and let idle threads end. Waits for none."""
        with self._wake:
            self._stopped = True
            waiting = list(self._waiting)
            self._waiting.clear()
            self._wake.notify_all()
        for job in waiting:
            job.give_up()

    def _work(self) -> None:
        while True:
            with self._wake:
                self._idle += 1
                while not self._waiting and not self._stopped:
                    self._wake.wait()
                self._idle -= 1
                if self._stopped:
                    return
                job = self._waiting.popleft()
            job.run(self._reactor)
