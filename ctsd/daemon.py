"""The daemon: one process that answers, alone or as one of several workers."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.config.state_dir import others_write
from ctsd.configuration import Configuration
from ctsd.ending import ENDINGS
from ctsd.errors import ConfigError, StoreError
from ctsd.notify import INotifier
from ctsd.opening import open_store, take_state_dir
from ctsd.serving import Serving

#: How long requests in hand may take when the daemon stops.
DRAIN_SECS = 5.0

#: How long requests in hand may take when another worker has taken our place: nobody waits.
REPLACED_DRAIN_SECS = 60.0

#: How long a client may still ask on an open connection that was told nothing yet. One that asks
#: just when it is closed would find its request lost.
IDLE_SECS = 1.0


class Daemon(Service):
    """
    All of it, started and stopped in order.

    At the start: the lock on C{state_dir}, the store, the sockets, then everything else. At the
    end: requests in hand, promises, indexes, the store.
    """

    _log = Logger()

    def __init__(
        self,
        configuration: Configuration,
        *,
        reactor: Any,
        notifier: INotifier,
        lent: Sequence[int] | None = None,
        node: str = "",
        process: str = "",
    ) -> None:
        """
        :param notifier: told how we are.
        :param lent: for a worker: the descriptors of its sockets, one for each listener. Its
            supervisor keeps these, has the lock on C{state_dir}, and says when to go by another
            configuration.
        :param node: which of several processes this is, in the store.
        :param process: the same for people.
        """
        self._configuration = configuration
        self._reactor = reactor
        self._notifier = notifier
        self._lent = lent
        self._node = node
        self._process = process
        self._reloading = DeferredLock()
        self._drain_secs = DRAIN_SECS
        self._leave_secs = configuration.settings.leave_secs
        self._leaving: Deferred[None] | None = None
        # Waits must not depend on a wall clock that somebody sets.
        reactor.seconds = time.monotonic

    def privilegedStartService(self) -> None:
        """
        Open the store, then the sockets.

        :raises SystemExit: one of them can't be had; one line says why.
        """
        settings = self._configuration.settings
        self._lock = take_state_dir(settings) if self._lent is None else None
        warning = others_write(settings.state_dir)
        if warning and self._lent is None:
            self._log.warn("state_dir: {warning}", warning=warning)
        store = open_store(settings, reactor=self._reactor, ours=self._lent is None)
        try:
            self._serving = Serving(
                self._configuration,
                reactor=self._reactor,
                store=store,
                lent=self._lent,
                node=self._node,
                process=self._process,
            )
        except StoreError as error:
            raise SystemExit(f"ctsd: {error.reason}") from None
        self._serving.privilegedStartService()
        super().privilegedStartService()

    def startService(self) -> None:
        """Start, and let clients in as soon as the reactor runs."""
        super().startService()
        self._serving.startService()
        self._reactor.callWhenRunning(self._running)
        # The reactor puts its own in place before it calls us, which makes twistd raise SIGTERM
        # again at its end, for status 143; ours ends with 0.
        self._reactor.sigTerm = self._end

    def _running(self) -> None:
        for ending in ENDINGS:
            signal.signal(ending, self._end)
        if self._lent is None:
            signal.signal(signal.SIGHUP, self._hang_up)
            signal.signal(signal.SIGUSR2, self._replace)
        self._notifier.startService()
        Deferred.fromCoroutine(self._open()).addErrback(self._not_open)

    async def _open(self) -> None:
        """Let clients in, once the indexes have been loaded or have had their time for that."""
        await self._serving.loaded()
        # What is here now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        self._serving.listening.accept()
        self._log.info("ctsd is ready")
        self._notifier.ready(status=self._serving.sources.summary())

    def _not_open(self, failure: Failure) -> None:
        self._log.failure("ctsd could not open", failure)
        # A reactor that is stopped ends with status 0, and a supervisor would not start us again.
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self._reactor.stop()

    # -- going by another configuration

    def _hang_up(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self.reload, Configuration.again)

    def reload(self, read: Callable[[Configuration], Configuration]) -> Deferred[None]:
        """
        Go by another configuration. A good one holds from the next request on; one that is wrong
        changes nothing. Both are logged, as is what can't change before the next start.

        :param read: makes it from the present one, or raises L{ConfigError}.
        :return: fires when that is done; never fails.
        """
        self._notifier.reloading()
        return (
            self._reloading.run(self._reload, read)
            .addErrback(self._not_reloaded)
            .addCallback(lambda _: self._notifier.ready(status=self._serving.sources.summary()))
        )

    def _not_reloaded(self, failure: Failure) -> None:
        self._log.failure("The configuration could not be read again", failure)

    async def _reload(self, read: Callable[[Configuration], Configuration]) -> None:
        try:
            new = read(self._configuration)
        except ConfigError as error:
            self._log.error("The configuration is not taken: {error}", error=error)
            return
        await self._serving.go_by(new)
        self._configuration = new
        self._leave_secs = new.settings.leave_secs

    def _replace(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(
            self._log.warn, "Nobody takes the place of a process that is alone: restart it"
        )

    # -- the end

    def _end(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self.end)

    def end(self) -> None:
        """
        Stop everything, in order; then the process ends. Said again, it does not wait for
        C{leave_secs} any more.
        """
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            if self._leaving is not None:
                self._leaving.cancel()

    def make_room(self) -> None:
        """End: another process has our sockets already, so that nobody waits for our end."""
        self._drain_secs = REPLACED_DRAIN_SECS
        self.hurry()

    def hurry(self) -> None:
        """End without waiting for C{leave_secs}, whether that has begun or not."""
        self._leave_secs = 0.0
        self.end()

    def stopService(self) -> Deferred[None]:
        """
        Stop in order; each step has its own limit, all together below 10 s (and C{leave_secs}).
        """
        super().stopService()
        self._notifier.stopping(secs=self._leave_secs)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._leave_secs:
            self._serving.listening.announce()
            self._leaving = deferLater(self._reactor, self._leave_secs)
            with suppress(CancelledError):
                await self._leaving
        await self._serving.stop(drain_secs=self._drain_secs, idle_secs=IDLE_SECS)
        self._notifier.stopService()
        if self._lock is not None:
            os.close(self._lock)
