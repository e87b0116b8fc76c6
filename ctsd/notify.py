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

_MAX_STATUS_CHARS = 200


def _send(address: str, message: bytes) -> None:
    """
    One datagram, without waiting.

    :raises OSError: nobody takes it now.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        sender.sendto(message, address)


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
        pid: int | None = None,
        send: Callable[[str, bytes], None] = _send,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """
        :param environ: where the supervisor has left its variables; without C{NOTIFY_SOCKET}
            nothing happens.
        :param pid: our own process' id; the watchdog may be meant for another.
        :param send: sends a datagram to an address as C{socket.sendto} knows it, or raises
            C{OSError}.
        :param monotonic_ns: C{CLOCK_MONOTONIC}, as the supervisor reads it, too.
        """
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._interval_secs = _interval_secs(environ, os.getpid() if pid is None else pid)
        self._send = send
        self._monotonic_ns = monotonic_ns
        self._complained = False
        self._watchdog = LoopingCall(self._tell, "WATCHDOG=1")
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
        """
        We do our work: after the start, and after each L{reloading}.

        :param status: see L{status}.
        """
        self._tell("READY=1", *_status(status))

    def reloading(self) -> None:
        """We are about to read our configuration again; L{ready} says when that is over."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """We are about to end."""
        self._tell("STOPPING=1", *_status("stopping"))

    def status(self, text: str) -> None:
        """
        How we are, for people (C{systemctl status}).

        :param text: it becomes one line of at most 200 characters.
        """
        self._tell(*_status(text))

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
