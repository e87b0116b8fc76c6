"""
What a supervisor such as systemd is told of us: that we are ready, alive, reloading, stopping.

The protocol is that of sd_notify(3): datagrams to the Unix socket that C{NOTIFY_SOCKET} names.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import Interface, implementer

#: How long an end may take.
USUAL_END_SECS = 15.0

_MAX_STATUS_CHARS = 200


def _send(address: str, message: bytes) -> None:
    """
    One datagram, without waiting.

    :raises OSError: nobody takes it now.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        sender.sendto(message, address)


class INotifier(Interface):
    """Whoever started this process, and wants to know how it is. Nothing here ever raises."""

    def startService() -> None:
        """Begin to say, again and again, that we are alive."""

    def stopService() -> None:
        """Say no more that we are alive."""

    def ready(status: str = "") -> None:
        """
        We do our work: after the start, and after each L{reloading}.

        :param status: in a few words, for people.
        """

    def reloading() -> None:
        """We are about to go by another configuration; L{ready} says when that is over."""

    def stopping(secs: float = 0.0) -> None:
        """
        We are about to end.

        :param secs: how much longer than usually that may take.
        """


@implementer(INotifier)
class Notifier(Service):
    """
    Tells the supervisor, if there is one, in a few words how we are; nothing here ever raises.

    As a service it also says every half of C{WATCHDOG_USEC} that we are alive. It says so from
    the reactor, so that a reactor that is blocked is noticed.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        environ: Mapping[str, str],
        alive: Callable[[], bool] = lambda: True,
        pid: int | None = None,
        send: Callable[[str, bytes], None] = _send,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """
        :param environ: where the supervisor has left its variables; without C{NOTIFY_SOCKET}
            nothing happens.
        :param alive: asked before that is said.
        :param pid: our own process' id; the watchdog may be meant for another.
        :param send: sends a datagram to an address as C{socket.sendto} knows it, or raises
            C{OSError}.
        :param monotonic_ns: C{CLOCK_MONOTONIC}, as the supervisor reads it, too.
        """
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._interval_secs = _interval_secs(environ, os.getpid() if pid is None else pid)
        self._alive = alive
        self._send = send
        self._monotonic_ns = monotonic_ns
        self._complained = False
        self._watchdog = LoopingCall(self._say_alive)
        self._watchdog.clock = clock

    def startService(self) -> None:
        """Begin to say that we are alive, where that is expected."""
        super().startService()
        if self._address and self._interval_secs:
            self._watchdog.start(self._interval_secs)

    def stopService(self) -> None:
        """Say no more that we are alive."""
        super().stopService()
        if self._watchdog.running:
            self._watchdog.stop()

    def ready(self, status: str = "") -> None:
        """See L{INotifier}; C{systemctl status} shows it, as one line of at most 200 characters."""
        self._tell("READY=1", *_status(status))

    def reloading(self) -> None:
        """See L{INotifier}."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_ns() // 1000}")

    def stopping(self, secs: float = 0.0) -> None:
        """See L{INotifier}."""
        usual = int((USUAL_END_SECS + secs) * 1e6)
        more = [f"EXTEND_TIMEOUT_USEC={usual}"] if secs else []
        self._tell("STOPPING=1", *more, *_status("stopping"))

    def status(self, text: str) -> None:
        """
        How we are, for people.

        :param text: it becomes one line of at most 200 characters.
        """
        self._tell(*_status(text))

    def _say_alive(self) -> None:
        if self._alive():
            self._tell("WATCHDOG=1")

    def _tell(self, *assignments: str) -> None:
        if not self._address or not assignments:
            return
        try:
            self._send(self._address, "\n".join(assignments).encode("utf-8", "backslashreplace"))
        except (OSError, ValueError) as error:
            if not self._complained:
                self._complained = True
                self._log.warn("The supervisor can't be told: {error}", error=str(error))


def _address(named: str) -> str:
    """The socket's address; empty when there is none that we can reach."""
    if named.startswith("@"):
        return "\0" + named[1:]
    # Other kinds (vsock:...) are for virtual machines that tell their host.
    return named if named.startswith("/") else ""


def _interval_secs(environ: Mapping[str, str], pid: int) -> float:
    """How often we say that we are alive; 0: never."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    try:
        return max(int(environ.get("WATCHDOG_USEC", "0")) / 2e6, 0.0)
    except (ValueError, OverflowError):
        return 0.0


def _status(text: str) -> list[str]:
    line = " ".join(text.split())[:_MAX_STATUS_CHARS]
    return [f"STATUS={line}"] if line else []
