"""A worker as its supervisor sees it: the seat stays, processes in it come and go."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.workers.messages import HEARS, SPEAKS, Lines, leave
from ctsd.workers.restarts import FIRST_WAIT_SECS, Restarts

#: A process that was heard of before, and then not for so many looks, is stuck.
STUCK_LOOKS = 20
#: So many looks a process has until it is ready.
START_LOOKS = 90


class WorkerProcess(ProcessProtocol):
    """
    One process of a worker.

    :ivar ready: whether it lets clients in.
    :ivar status: how it is, in its words.
    :ivar since: when it became ready, by the reactor's clock.
    :ivar gone: fires when it has ended.
    """

    transport: IProcessTransport

    def __init__(self, *, clock: IReactorTime, seat: Seat, brief: bytes) -> None:
        self.ready = False
        self.status = ""
        self.since = 0.0
        self.gone: Deferred[None] = Deferred()
        self._clock = clock
        self._seat = seat
        self._brief = brief
        self._lines = Lines()
        self._heard = False
        # Looks since it was started, and since it was heard of. No times: a supervisor that was
        # stopped for a while, with everybody else, must not take the others for stuck.
        self._looks = 0
        self._silent_looks = 0
        self._condemned = False
        self._told: list[Deferred[None]] = []

    def connectionMade(self) -> None:
        """Tell it what to do."""
        self.tell(self._brief)

    def tell(self, line: bytes) -> None:
        """Say something to it, if it is still there."""
        with suppress(KeyError):  # Twisted's word for a pipe that was closed
            self.transport.writeToChild(HEARS, line)

    def reload(self, line: bytes) -> Deferred[None]:
        """Have it go by another configuration; fires when it does, or has ended."""
        self.tell(line)
        told: Deferred[None] = Deferred()
        self._told.append(told)
        return told

    def send_signal(self, name: str) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)

    @property
    def process_id(self) -> int | None:
        """The process' id; None when there is none any more."""
        pid: int | None = self.transport.pid
        return pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """It has said something."""
        if childFD != SPEAKS or self.gone.called:
            return
        try:
            said = self._lines.feed(data)
        except ValueError:
            self._condemn("it says what nobody understands")
            return
        self._heard = True
        self._silent_looks = 0
        for one in said:
            if "ready" in one:
                self._became_ready(one["ready"])

    def _became_ready(self, status: str) -> None:
        self.status = status
        told, self._told = self._told, []
        for waiting in told:
            waiting.callback(None)
        if not self.ready:
            self.ready = True
            self.since = self._clock.seconds()
            self._seat.taken(self)

    def look(self) -> None:
        """Whether it has been heard of lately; to be called once a second."""
        self._looks += 1
        self._silent_looks += 1
        if self._heard and self._silent_looks > STUCK_LOOKS:
            self._condemn(f"nothing was heard of it for {STUCK_LOOKS} s")
        elif not self.ready and self._looks > START_LOOKS:
            self._condemn(f"it was not ready within {START_LOOKS} s")

    def _condemn(self, why: str) -> None:
        if not self._condemned:
            self._condemned = True
            self._seat.stuck(self, why)

    @property
    def lost(self) -> bool:
        """Whether it has not even ended when it was stuck, and killed."""
        return self._silent_looks > (1.5 * STUCK_LOOKS if self._heard else 1.5 * START_LOOKS)

    def processExited(self, reason: Failure) -> None:
        """It has ended."""
        told, self._told = self._told, []
        for waiting in told:
            waiting.callback(None)
        self.gone.callback(None)
        self._seat.left(self, how_it_ended(reason))


def how_it_ended(reason: Failure) -> str:
    """How a process ended, in a few words."""
    number = getattr(reason.value, "signal", None)
    if number is not None:
        return f"killed by {signal.Signals(number).name}"
    return f"status {getattr(reason.value, 'exitCode', None)}"


class Seat:
    """
    The place of one worker: the process that answers, one that shall replace it, and those that
    still finish what they have in hand.

    :ivar serving: the process that answers; None while there is none.
    :ivar processes: all that there are.
    :ivar last_end: how the last one has ended that was not to end.
    :ivar generation: one more with each process that begins beside another one.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        number: int,
        clock: IReactorTime,
        spawn: Callable[[Seat], WorkerProcess],
        changed: Callable[[], None],
        pause: Callable[[Seat, bool], None],
        give_up: Callable[[str], None],
    ) -> None:
        """
        :param number: which worker it is, from 1.
        :param spawn: starts a process.
        :param changed: called when a process has become ready.
        :param pause: called with True when nobody will sit here for a while, and with False before
            somebody does.
        :param give_up: called with the reason when no process can be kept running.
        """
        self.number = number
        self.serving: WorkerProcess | None = None
        self.processes: list[WorkerProcess] = []
        self.last_end = ""
        self.generation = 1
        self._clock = clock
        self._spawn = spawn
        self._changed = changed
        self._pause = pause
        self._give_up = give_up
        self._paused = False
        self._coming: WorkerProcess | None = None
        self._filled: list[Deferred[bool]] = []
        self._restarts = Restarts()
        self._restart: IDelayedCall | None = None
        self._closed = False

    def fill(self) -> Deferred[bool]:
        """
        Start a process. As soon as it is ready, the one that answers is told to leave.

        :return: fires with whether it became ready.
        """
        filled: Deferred[bool] = Deferred()
        self._filled.append(filled)
        if self._closed:
            self._settle(False)
        elif self._coming is None:
            self._start()
        return filled

    def _start(self) -> None:
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        if self._paused:
            self._paused = False
            self._pause(self, False)
        if self.processes:
            self.generation += 1
        try:
            self._coming = self._spawn(self)
        except OSError as error:
            self._ended(f"no process could be started: {error.strerror}", 0.0)
        else:
            self.processes.append(self._coming)

    def look(self) -> None:
        """Look after all processes; to be called once a second."""
        for process in list(self.processes):
            process.look()

    def taken(self, process: WorkerProcess) -> None:
        """A process has become ready."""
        self._log.info(
            "worker {number} is ready (process {pid})", number=self.number, pid=process.process_id
        )
        before, self.serving, self._coming = self.serving, process, None
        if before is not None:
            before.tell(leave())
        self._settle(True)
        self._changed()

    def stuck(self, process: WorkerProcess, why: str) -> None:
        """A process has to be ended."""
        self._log.error(
            "worker {number} (process {pid}) is killed: {why}",
            number=self.number,
            pid=process.process_id,
            why=why,
        )
        process.send_signal("KILL")

    def left(self, process: WorkerProcess, how: str) -> None:
        """A process has ended: start another one, unless it was to end."""
        self.processes.remove(process)
        if process is not self.serving and process is not self._coming:
            # It was to end.
            self._log.info(
                "the process before of worker {number} has gone: {how}",
                number=self.number,
                how=how,
            )
            return
        up_secs = self._clock.seconds() - process.since if process.ready else 0.0
        if process is self.serving:
            self.serving = None
        was_coming = process is self._coming
        if was_coming:
            self._coming = None
        self._ended(how, up_secs, settle=was_coming)

    def _ended(self, how: str, up_secs: float, settle: bool = True) -> None:
        """Whoever was to serve does not: whoever waits for that knows, and it is tried again."""
        if not self._closed:
            self._log.error("worker {number} has ended: {how}", number=self.number, how=how)
        self.last_end = how
        if settle:
            self._settle(False)
        if not self._closed and self.serving is None and self._coming is None:
            self._start_again(how, up_secs)

    def _start_again(self, how: str, up_secs: float) -> None:
        wait_secs = self._restarts.ended(now=self._clock.seconds(), up_secs=up_secs)
        if wait_secs is None:
            self._give_up(f"worker {self.number} ends again and again, the last time with {how}")
            return
        self._log.info(
            "worker {number} is started again in {secs:g} s", number=self.number, secs=wait_secs
        )
        if wait_secs > FIRST_WAIT_SECS:
            self._paused = True
            self._pause(self, True)
        self._restart = self._clock.callLater(wait_secs, self.fill)

    def _settle(self, ready: bool) -> None:
        filled, self._filled = self._filled, []
        for waiting in filled:
            waiting.callback(ready)

    def close(self) -> None:
        """Start no more processes; those that there are shall end."""
        self._closed = True
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        for process in self.processes:
            process.send_signal("TERM")
