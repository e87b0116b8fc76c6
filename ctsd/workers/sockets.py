"""The sockets of all workers, opened once and kept until the end."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet import tcp
from twisted.internet.abstract import isIPv6Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory

from ctsd.config.endpoint_strings import arguments_of, innermost, reloading
from ctsd.config.listeners import Listener
from ctsd.listening import cannot_listen, listen, reason_of


class _SharedPort(tcp.Port):
    """
    A port beside others on the same address; the kernel gives each connection to one of them
    (socket(7), SO_REUSEPORT).
    """

    def createInternetSocket(self) -> socket.socket:
        """A socket, not bound yet."""
        made: socket.socket = super().createInternetSocket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return made


class _Nobody(Factory):
    """Behind ports at which the supervisor itself never lets anybody in."""

    noisy = False

    def logPrefix(self) -> str:
        """For the log."""
        return "A socket for workers"


class Sockets:
    """
    For each listener one socket a worker; one for all of them where it is systemd's or a Unix
    socket.
    """

    def __init__(self, *, reactor: Any, listeners: Sequence[Listener], workers: int) -> None:
        self._reactor = reactor
        self._listeners = listeners
        self._workers = workers
        self._ports: list[list[Any]] = []

    def open(self) -> None:
        """
        Open all of them.

        :raises SystemExit: an address can't be had; the message is one line.
        """
        for listener in self._listeners:
            description = innermost(reloading(listener.description))
            if listener.kind in ("unix", "systemd"):
                port = listen(self._reactor, listener, description, _Nobody())
                port.stopReading()
                self._ports.append([port] * self._workers)
            else:
                self._ports.append(self._open_several(listener, arguments_of(description)))

    def _open_several(self, listener: Listener, arguments: dict[str, str]) -> list[Any]:
        default = "::" if listener.kind == "tcp6" else ""
        interface = arguments.get("interface", default)
        ports: list[Any] = []
        try:
            number = _free(int(arguments["port"]), interface)
            for _ in range(self._workers):
                backlog = int(arguments.get("backlog", 50))
                port = _SharedPort(number, _Nobody(), backlog, interface, self._reactor)
                port.startListening()
                port.stopReading()
                ports.append(port)
        except (OSError, CannotListenError) as error:
            raise cannot_listen(listener, reason_of(error)) from None
        return ports

    def of(self, number: int) -> tuple[int, ...]:
        """The descriptors of a worker's sockets, one for each listener, in their order."""
        return tuple(ports[number - 1].fileno() for ports in self._ports)

    def pause(self, number: int) -> None:
        """
        Let nobody come in at a worker's own sockets; the kernel gives new connections to the
        others'. Who waits at these now is lost.
        """
        for port in self._own(number):
            port.socket.shutdown(socket.SHUT_RD)

    def resume(self, number: int) -> None:
        """Let clients come in again, before a worker has the sockets."""
        for port in self._own(number):
            port.socket.listen(port.backlog)

    def _own(self, number: int) -> list[_SharedPort]:
        return [
            ports[number - 1] for ports in self._ports if isinstance(ports[number - 1], _SharedPort)
        ]

    def close(self) -> Deferred[None]:
        """Close all of them; fires when that is done, and never fails."""
        ports = {id(port): port for ports in self._ports for port in ports}
        self._ports = []
        closing = [maybeDeferred(port.stopListening) for port in ports.values()]
        return DeferredList(closing, consumeErrors=True).addCallback(lambda _: None)


def _free(number: int, interface: str) -> int:
    """
    Make sure that nobody else listens at a port; another process that shares it as we do would go
    unnoticed.

    :return: the port, chosen by the kernel when it is 0.
    :raises OSError: somebody does, or the address is not to be had.
    """
    family = socket.AF_INET6 if isIPv6Address(interface) else socket.AF_INET
    found = socket.getaddrinfo(
        interface or None, number, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE
    )
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(found[0][4])
        port: int = probe.getsockname()[1]
        return port
