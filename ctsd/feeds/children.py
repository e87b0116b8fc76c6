"""
Has a piece of work done in a child process (L{ctsd.feeds.inside} is the inside), and never waits
for one for ever.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import ctsd
from ctsd.feeds.job import BuildFailed, Refused

#: What a child may know of our environment; secrets live there, too.
PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "PYTHONHOME", "PYTHONPATH")


def start_of(module: str) -> str:
    """
    Runs C{main} of a module of this very C{ctsd}, wherever it was imported from: what to give
    C{python -P -c}, with the directory of C{ctsd} as its argument. C{-P} keeps the working
    directory, which may be anybody's, out of it.
    """
    return (
        "import sys; home = sys.argv[1]; home in sys.path or sys.path.insert(0, home);"
        f" from {module} import main; sys.exit(main())"
    )


class Children:
    """
    Child processes, each of which ends with us, stands back behind us on a busy core, and knows
    none of our secrets.
    """

    def __init__(
        self,
        *,
        reactor: IReactorProcess,
        clock: IReactorTime,
        timeout_secs: float = 1800.0,
        environment: Mapping[str, str] = os.environ,
        max_output_bytes: int = 65536,
    ) -> None:
        """
        :param timeout_secs: one that takes longer is ended.
        :param environment: where the variables that are L{PASSED} come from.
        :param max_output_bytes: one that says more is ended.
        """
        self._reactor = reactor
        self._clock = clock
        self._timeout_secs = timeout_secs
        self._environment = environment
        self._max_output_bytes = max_output_bytes

    def run(
        self,
        module: str,
        given: Mapping[str, Any],
        *,
        gone: Callable[[int | None], object] = lambda process: None,
    ) -> Deferred[Any]:
        """
        Run C{main} of a module. One that is cancelled has ended when this fires.

        :param given: for the first line of its standard input.
        :param gone: called with its process id when it has ended, however it did.
        :return: fires with what was C{built}.
        :raises Refused: (in the Deferred, as all) that is what it says.
        :raises BuildFailed: it could not do its work, or did not come to an end.
        """
        return Deferred.fromCoroutine(self._run(module, given, gone))

    async def _run(
        self, module: str, given: Mapping[str, Any], gone: Callable[[int | None], object]
    ) -> Any:
        child = _Child(given, self._max_output_bytes)
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
                [sys.executable, "-P", "-c", start_of(module), home],
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
            gone(process.pid)
        if "refused" in answer:
            raise Refused(str(answer["refused"]))
        if "failed" in answer:
            raise BuildFailed(str(answer["failed"]))
        if "built" not in answer:
            raise BuildFailed("it gave an answer of another version")
        return answer["built"]


class _Child(ProcessProtocol):
    """
    One process.

    :ivar ended: fires with its answer.
    :ivar gone: fires when there is no process any more, however it ended.
    """

    transport: IProcessTransport

    def __init__(self, given: Mapping[str, Any], max_output_bytes: int) -> None:
        self.ended: Deferred[dict[str, Any]] = Deferred(lambda _: None)
        self.gone: Deferred[None] = Deferred()
        self._given = given
        self._room = max_output_bytes
        self._output = bytearray()
        self._errors = b""
        self._why = ""

    def connectionMade(self) -> None:
        """Tell it what to do; its standard input stays open while we live."""
        self.transport.write(json.dumps(self._given).encode() + b"\n")

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
