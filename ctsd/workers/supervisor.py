"""The process that starts the workers, keeps their sockets, and watches them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.config.environment import worker_environment
from ctsd.config.state_dir import others_write
from ctsd.configuration import SUPERVISED, Configuration, changed
from ctsd.daemon import REPLACED_DRAIN_SECS
from ctsd.ending import ENDINGS
from ctsd.errors import ConfigError
from ctsd.notify import INotifier
from ctsd.opening import open_store, take_state_dir
from ctsd.sources import child_variables
from ctsd.workers.messages import HEARS, LENT_FROM, SPEAKS, Brief, hurry, reload
from ctsd.workers.seat import Seat, WorkerProcess
from ctsd.workers.sockets import Sockets

#: How often the supervisor looks after the workers.
LOOK_SECS = 1.0

#: How long a worker may take to go by another configuration.
RELOAD_SECS = 60.0

#: How long a worker may take to end; then it is killed.
END_SECS = 12.0

#: Runs a worker; C{-P} keeps the working directory, which may be anybody's, out of the path.
_START = "from ctsd.tap import run_worker; run_worker()"


class Supervisor(Service):
    """
    Starts C{workers} processes, and others in their place when they end.

    At the start: the lock on C{state_dir}, the store's schema, the sockets; then the workers. All
    workers end with it, also when it is killed: they see the end of the pipe in which they hear
    it. They have the lock, too, so that nobody else starts while one of them is there.
    """

    _log = Logger()

    def __init__(
        self,
        configuration: Configuration,
        *,
        reactor: Any,
        make_notifier: Callable[[Callable[[], bool]], INotifier],
    ) -> None:
        """
        :param make_notifier: makes the notifier, from what tells whether we are alive.
        """
        settings = configuration.settings
        self._first = configuration
        self._current = settings.document
        self._leave_secs = settings.leave_secs
        self._reactor = reactor
        self._notifier = make_notifier(self._alive)
        self._working = DeferredLock()
        self._sockets = Sockets(
            reactor=reactor, listeners=settings.listen, workers=settings.workers
        )
        self._seats = [
            Seat(
                number=number,
                clock=reactor,
                spawn=self._spawn,
                changed=self._changed,
                pause=self._pause,
                give_up=self._give_up,
            )
            for number in range(1, settings.workers + 1)
        ]
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._opened = False
        self._given_up = False
        # Waits must not depend on a wall clock that somebody sets.
        reactor.seconds = time.monotonic

    def privilegedStartService(self) -> None:
        """
        Make the store, and open the sockets.

        :raises SystemExit: one of them can't be had; one line says why.
        """
        super().privilegedStartService()
        settings = self._first.settings
        self._lock = take_state_dir(settings)
        # Each worker opens it for itself; here, so that one process alone makes its schema.
        open_store(settings, reactor=self._reactor, ours=True)
        warning = others_write(settings.state_dir)
        if warning:
            self._log.warn("state_dir: {warning}", warning=warning)
        self._sockets.open()

    def startService(self) -> None:
        """Start the workers, as soon as the reactor runs."""
        super().startService()
        self._reactor.callWhenRunning(self._running)
        # The reactor puts its own in place before it calls us: see L{Daemon.startService}.
        self._reactor.sigTerm = lambda number, frame: self._reactor.callFromThread(self._end)

    def _running(self) -> None:
        for ending in ENDINGS:
            self._on_signal(ending, self._end)
        self._on_signal(signal.SIGHUP, self.reload)
        self._on_signal(signal.SIGUSR2, self.replace)
        self._notifier.startService()
        self._looking.start(LOOK_SECS, now=False)
        for seat in self._seats:
            seat.fill().addCallback(self._filled, seat)

    def _on_signal(self, number: signal.Signals, act: Callable[[], object]) -> None:
        signal.signal(number, lambda number, frame: self._reactor.callFromThread(act))

    def _spawn(self, seat: Seat) -> WorkerProcess:
        sockets = self._sockets.of(seat.number)
        brief = Brief(
            number=seat.number,
            node=f"{seat.number}.{seat.generation}",
            path=self._first.path,
            first=self._first.settings.document,
            current=self._current,
            lent=tuple(range(LENT_FROM, LENT_FROM + len(sockets))),
        )
        process = WorkerProcess(clock=self._reactor, seat=seat, brief=brief.encode())
        lent = dict(enumerate((*sockets, self._lock), LENT_FROM))
        self._reactor.spawnProcess(
            process,
            sys.executable,
            [sys.executable, "-P", "-c", _START, f"ctsd worker {seat.number}"],
            env=child_variables(worker_environment(self._first.environ), sys.path),
            childFDs={HEARS: "w", 1: 1, 2: 2, SPEAKS: "r", **lent},
        )
        return process

    def _filled(self, ready: bool, seat: Seat) -> None:
        if not ready and not self._opened:
            self._give_up(f"worker {seat.number} could not start: {seat.last_end}")

    def _changed(self) -> None:
        """A worker has become ready."""
        if not self._opened and all(seat.serving for seat in self._seats):
            self._opened = True
            self._log.info("ctsd is ready")
            self._notifier.ready(self._summary())

    def _pause(self, seat: Seat, pause: bool) -> None:
        """Let clients not wait for a worker that will be away for a while, or let them again."""
        if not pause:
            self._sockets.resume(seat.number)
        elif any(other.serving for other in self._seats):
            self._sockets.pause(seat.number)

    def _summary(self) -> str:
        serving = [seat.serving for seat in self._seats if seat.serving is not None]
        status = serving[0].status if serving else ""
        return f"{len(serving)} of {len(self._seats)} workers; {status}"

    def _alive(self) -> bool:
        return not any(process.lost for process in self._processes())

    def _processes(self) -> list[WorkerProcess]:
        return [process for seat in self._seats for process in seat.processes]

    def _look(self) -> None:
        for seat in self._seats:
            seat.look()

    def _give_up(self, why: str) -> None:
        if not self.running or self._given_up:
            return
        self._given_up = True
        self._log.critical("ctsd ends: {why}", why=why)
        for seat in self._seats:
            seat.close()
        # A reactor that is stopped ends with status 0, and nobody would start us again.
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self._end()

    # -- another configuration, other processes

    def reload(self) -> Deferred[None]:
        """
        Have all workers go by the configuration as it is now. One that is wrong changes nothing.

        :return: fires when that is done; never fails.
        """
        if self._opened:
            self._notifier.reloading()
        return self._work(self._reload)

    def replace(self) -> Deferred[None]:
        """
        Read the configuration again, and have each worker replaced by a new process, one after
        the other: new code, new configuration. The new one is ready before the old one leaves.

        :return: fires when that is done, or a new process could not start; never fails.
        """
        return self._work(self._replace)

    def _work(self, work: Callable[[], Any]) -> Deferred[None]:
        if not self._opened:
            self._log.warn("Not everything is started yet; nothing was done")
            return succeed(None)
        return (
            self._working.run(lambda: Deferred.fromCoroutine(work()))
            .addErrback(self._not_done)
            .addCallback(lambda _: self._notifier.ready(self._summary()))
        )

    def _not_done(self, failure: Failure) -> None:
        self._log.failure("What a signal asked for could not be done", failure)

    def _read(self) -> bool:
        """Read the configuration again; whether it is good."""
        try:
            new = self._first.again()
        except ConfigError as error:
            self._log.error("The configuration is not taken: {error}", error=error)
            return False
        for key in changed(self._first.settings, new.settings, SUPERVISED):
            self._log.warn("{key} has changed; that holds from the next start on", key=key)
        self._current = new.settings.document
        self._leave_secs = new.settings.leave_secs
        return True

    async def _reload(self) -> None:
        if self._read():
            line = reload(self._current)
            done = [process.reload(line) for process in self._processes()]
            await self._within(DeferredList(done), RELOAD_SECS)

    async def _replace(self) -> None:
        if not self._read():
            return
        for seat in self._seats:
            before = list(seat.processes)
            if not self.running or not await seat.fill():
                self._log.error("worker {number} could not be replaced", number=seat.number)
                return
            await self._gone(before, REPLACED_DRAIN_SECS + END_SECS)
        self._log.info("All workers were replaced")

    async def _gone(self, processes: list[WorkerProcess], secs: float) -> None:
        """Wait for the end of some processes; after so many seconds they are killed."""
        ends = DeferredList([_also(process.gone) for process in processes])
        if not await self._within(ends, secs):
            for process in processes:
                process.send_signal("KILL")
            await self._within(
                DeferredList([_also(process.gone) for process in processes]), END_SECS
            )

    async def _within(self, done: Deferred[Any], secs: float) -> bool:
        """Wait for something, but no longer than that; whether it has come."""
        over: Deferred[bool] = Deferred()
        timer = self._reactor.callLater(secs, over.callback, False)

        def came(_: object) -> None:
            if timer.active():
                timer.cancel()
                over.callback(True)

        done.addBoth(came)
        return await over

    # -- the end

    def _end(self) -> None:
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            # A second signal is for the workers, too.
            for process in self._processes():
                process.tell(hurry())

    def stopService(self) -> Deferred[None]:
        """End all workers, each in its order, then close the sockets."""
        super().stopService()
        self._notifier.stopping(self._leave_secs)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for seat in self._seats:
            seat.close()
        await self._gone(self._processes(), self._leave_secs + END_SECS)
        if self._looking.running:
            self._looking.stop()
        await self._sockets.close()
        self._notifier.stopService()
        os.close(self._lock)


def _also(done: Deferred[None]) -> Deferred[None]:
    """Another Deferred that fires when this one does."""
    also: Deferred[None] = Deferred()
    done.chainDeferred(also)
    return also
