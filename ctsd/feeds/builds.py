"""
Has indexes built in child processes, one after the other, and never waits for one for ever.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from attrs import asdict, evolve
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

import ctsd
from ctsd.feeds.index import About
from ctsd.feeds.job import (
    BuildFailed,
    BuiltElsewhere,
    Job,
    Refused,
    clear_scratch,
    lock_builds,
    look_of,
)

#: What a build may know of our environment; secrets live there, too.
PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "PYTHONHOME", "PYTHONPATH")

#: Runs L{ctsd.feeds.build} of this very C{ctsd}, wherever it was imported from; C{-P} keeps the
#: working directory, which may be anybody's, out of it.
_START = (
    "import sys; home = sys.argv[1]; home in sys.path or sys.path.insert(0, home);"
    " from ctsd.feeds.build import main; sys.exit(main())"
)


class Builds:
    """
    Builds indexes (L{ctsd.feeds.job.Build}): each in a child process that ends with us, that
    stands back behind us on a busy core, and that knows none of our secrets. Of all processes
    that build in one directory, one does at a time.
    """

    #: How often it is tried whether another process is done.
    turn_secs = 0.5

    _log = Logger()

    def __init__(
        self,
        *,
        reactor: IReactorProcess,
        clock: IReactorTime,
        lock: DeferredLock,
        timeout_secs: float = 1800.0,
        environment: Mapping[str, str] = os.environ,
        max_output_bytes: int = 65536,
    ) -> None:
        """
        :param lock: held during a build, so that one runs at a time.
        :param timeout_secs: a build that takes longer is ended.
        :param environment: where the variables that are L{PASSED} come from.
        :param max_output_bytes: a build that says more is ended.
        """
        self._reactor = reactor
        self._clock = clock
        self._lock = lock
        self._timeout_secs = timeout_secs
        self._environment = environment
        self._max_output_bytes = max_output_bytes

    def __call__(self, job: Job) -> Deferred[About]:
        """See L{ctsd.feeds.job.Build}. A build that is cancelled has ended when this fires."""
        return Deferred.fromCoroutine(self._build(job))

    async def _build(self, job: Job) -> About:
        await self._lock.acquire()
        try:
            turn = await self._turn(job.target.parent)
            try:
                if job.seen is not None and look_of(job.target) != job.seen:
                    raise BuiltElsewhere("another process has built it")
                return await self._run(evolve(job, seen=None))
            finally:
                os.close(turn)
        finally:
            self._lock.release()

    async def _turn(self, directory: Path) -> int:
        """Wait until no other process builds there; the descriptor that keeps others out."""
        while True:
            try:
                turn = lock_builds(directory)
            except OSError as error:
                raise BuildFailed(f"{directory}: {error.strerror}") from error
            if turn is not None:
                return turn
            await deferLater(self._clock, self.turn_secs)

    async def _run(self, job: Job) -> About:
        started = self._clock.seconds()
        child = _Child(job, self._max_output_bytes)
        home = str(Path(ctsd.__file__).parent.parent)
        environment = {
            name: self._environment[name] for name in PASSED if name in self._environment
        }
        # The linear algebra in numpy starts a thread a core, which nobody uses here.
        environment["OPENBLAS_NUM_THREADS"] = "1"
        try:
            process = self._reactor.spawnProcess(
                child,
                sys.executable,
                [sys.executable, "-P", "-c", _START, home],
                env=environment,
            )
        except OSError as error:
            raise BuildFailed(f"no process could be started: {error.strerror}") from error
        timer = self._clock.callLater(
            self._timeout_secs, child.end, f"it took longer than {self._timeout_secs:g} s"
        )
        try:
            answer = await child.ended
        except CancelledError:
            child.end("it was cancelled")
            await child.gone
            raise
        finally:
            if timer.active():
                timer.cancel()
            clear_scratch(job.target, process.pid)
        about = _about(answer)
        self._log.info(
            "built {target}: {records} records, {skipped} skipped, {seconds:.1f} s",
            target=str(job.target),
            records=about.records,
            skipped=about.skipped,
            seconds=self._clock.seconds() - started,
        )
        return about


class _Child(ProcessProtocol):
    """
    One build's process.

    :ivar ended: fires with its answer.
    :ivar gone: fires when there is no process any more, however it ended.
    """

    transport: IProcessTransport

    def __init__(self, job: Job, max_output_bytes: int) -> None:
        self.ended: Deferred[dict[str, Any]] = Deferred(lambda _: None)
        self.gone: Deferred[None] = Deferred()
        self._job = job
        self._room = max_output_bytes
        self._output = bytearray()
        self._errors = b""
        self._why = ""

    def connectionMade(self) -> None:
        """Tell it what to build; its standard input stays open while we live."""
        given = {**asdict(self._job), "target": str(self._job.target)}
        given["source"] = str(self._job.source)
        self.transport.write(json.dumps(given).encode() + b"\n")

    def outReceived(self, data: bytes) -> None:
        """Collect its answer."""
        self._output += data
        if len(self._output) > self._room:
            self._output.clear()
            self.end("it said too much")

    def errReceived(self, data: bytes) -> None:
        """Keep the end of what it complains of."""
        self._errors = (self._errors + data)[-2000:]

    def end(self, why: str) -> None:
        """Kill it."""
        self._why = self._why or why
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def processEnded(self, reason: Failure) -> None:
        """Make something of how it ended."""
        ended, gone = self.ended, self.gone
        if not ended.called:
            try:
                ended.callback(self._answer(reason.value))
            except BuildFailed:
                ended.errback(Failure())
        gone.callback(None)

    def _answer(self, how: BaseException | None) -> dict[str, Any]:
        if self._why:
            raise BuildFailed(self._why)
        try:
            answer = json.loads(bytes(self._output))
        except ValueError:
            answer = None
        if isinstance(answer, dict):
            return answer
        number = getattr(how, "signal", None)
        if number is not None:
            raise BuildFailed(f"it was killed by {signal.Signals(number).name}")
        said = self._errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise BuildFailed(f"it ended without an answer: {said[:300]}")


def _about(answer: dict[str, Any]) -> About:
    if "refused" in answer:
        raise Refused(str(answer["refused"]))
    if "failed" in answer:
        raise BuildFailed(str(answer["failed"]))
    try:
        return About(**cast("dict[str, Any]", answer["built"]))
    except (KeyError, TypeError) as error:
        raise BuildFailed("it gave an answer of another version") from error
