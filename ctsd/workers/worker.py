"""A worker's process: a daemon on sockets that its supervisor keeps."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from zope.interface import implementer

from ctsd.config.document import Document
from ctsd.config.environment import forget_secrets
from ctsd.config.loading import settings_of
from ctsd.configuration import SUPERVISED, Configuration, kept
from ctsd.daemon import Daemon
from ctsd.errors import ConfigError
from ctsd.notify import USUAL_END_SECS, INotifier
from ctsd.workers.messages import HEARS, LENT_FROM, SPEAKS, Brief, Lines, document, line
from ctsd.workers.shares import shared
from ctsd.workers.worker_log import begin_log

#: How often a worker says that it is alive.
BEAT_SECS = 1.0


@implementer(INotifier)
class Reports(Service):
    """Tells the supervisor how we are."""

    def __init__(self, *, clock: Any, descriptor: int = SPEAKS) -> None:
        """
        :param descriptor: the pipe to it; never waited for.
        """
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)
        self._beat = LoopingCall(self._say, beat=True)
        self._beat.clock = clock

    def startService(self) -> None:
        """See L{INotifier}."""
        super().startService()
        self._beat.start(BEAT_SECS)

    def stopService(self) -> None:
        """See L{INotifier}."""
        super().stopService()
        if self._beat.running:
            self._beat.stop()

    def ready(self, status: str = "") -> None:
        """See L{INotifier}."""
        self._say(ready=status)

    def reloading(self) -> None:
        """See L{INotifier}; the supervisor knows."""

    def stopping(self, secs: float = 0.0) -> None:
        """See L{INotifier}; the supervisor sees our end."""

    def _say(self, **said: Any) -> None:
        # It has ended, which ends us, too; or it sleeps, and will hear the next beat.
        with suppress(OSError):
            os.write(self._descriptor, line(**said))


class Worker:
    """The whole life of a worker's process."""

    def __init__(self, *, reactor: Any) -> None:
        self._reactor = reactor
        self._lines = Lines()
        # Not for child processes, which have standard input from us.
        self._hears = os.dup(HEARS)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), HEARS)

    def run(self) -> int:
        """
        Answer until the supervisor says otherwise, or has ended.

        :return: the process' status.
        :raises SystemExit: it can't start; one line says why.
        """
        for number in (signal.SIGHUP, signal.SIGUSR2):
            # For the supervisor, but sent to all of its group.
            signal.signal(number, signal.SIG_IGN)
        waiting: list[dict[str, Any]] = []
        while not waiting:
            waiting = self._hear()
        try:
            brief = Brief.decode(waiting.pop(0))
            configuration = configuration_of(brief)
        except ConfigError as error:
            raise SystemExit(f"ctsd: {error}") from None
        forget_secrets(os.environ, configuration.settings)
        # Ours, the sockets, and the lock.
        for descriptor in range(SPEAKS, LENT_FROM + len(brief.lent) + 1):
            os.set_inheritable(descriptor, False)
        name = f"worker {brief.number}"
        begin_log(name)
        daemon = Daemon(
            configuration,
            reactor=self._reactor,
            notifier=Reports(clock=self._reactor),
            lent=brief.lent,
            node=brief.node,
            process=f"{name} of {configuration.settings.workers} (process {os.getpid()})",
        )
        daemon.privilegedStartService()
        daemon.startService()
        self._reactor.addSystemEventTrigger("before", "shutdown", daemon.stopService)
        threading.Thread(target=self._follow, args=(daemon, waiting), daemon=True).start()
        self._reactor.run()
        return 0

    def _hear(self) -> list[dict[str, Any]]:
        """
        (Blocks.) What the supervisor says next.

        :raises EOFError: it has ended.
        """
        # No file object: one that a thread waits in can't be closed at the end.
        data = os.read(self._hears, 65536)
        if not data:
            raise EOFError("the supervisor has ended")
        return self._lines.feed(data)

    def _follow(self, daemon: Daemon, waiting: list[dict[str, Any]]) -> None:
        """(In a thread of its own.) Do what the supervisor says, and end when it has ended."""
        try:
            while True:
                for said in waiting:
                    self._reactor.callFromThread(obey, daemon, said)
                waiting = self._hear()
        except EOFError:
            self._reactor.callFromThread(daemon.end)
        # Not by the reactor, which may be stuck, and nobody is left who would notice.
        time.sleep(USUAL_END_SECS)
        os._exit(1)


def obey(daemon: Daemon, said: dict[str, Any]) -> None:
    """Do what the supervisor says."""
    if "reload" in said:
        daemon.reload(lambda configuration: follow(configuration, document(said["reload"])))
    elif "leave" in said:
        daemon.make_room()
    elif "hurry" in said:
        daemon.hurry()


def follow(configuration: Configuration, current: Document) -> Configuration:
    """
    A worker's configuration, after the supervisor's has changed.

    :raises ConfigError: it is wrong.
    """
    new = configuration.changed_to(current)
    return evolve(new, settings=shared(new.settings))


def configuration_of(brief: Brief) -> Configuration:
    """
    A worker's configuration at its start.

    :raises ConfigError: it is wrong.
    """
    environ = dict(os.environ)
    settings = settings_of(brief.current, environ=environ)
    first = settings_of(brief.first, environ=environ)
    settings = kept(first, settings, SUPERVISED)
    return Configuration.of(shared(settings), brief.path, environ)
