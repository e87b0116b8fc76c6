"""
C{ctsd-lent:<descriptor>}: an endpoint on a socket that listens already, and goes on listening when
this process has ended. The supervisor of workers keeps it.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import unix
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from zope.interface import implementer


class _LentUnixPort(unix.Port):
    """
    A Unix socket that is somebody else's. Twisted's own port would make its file open to
    everybody, and remove it at the end.
    """

    def __init__(self, lent: socket.socket, factory: Any, reactor: Any) -> None:
        super().__init__(lent.getsockname(), factory, reactor=reactor)
        self._lent = lent
        self._served = factory

    def startListening(self) -> None:
        """Take who comes in."""
        self._served.doStart()
        self.connected = True
        self.socket = self._lent
        self.fileno = self._lent.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        self.startReading()


@implementer(IStreamServerEndpoint)
class LentEndpoint:
    """Listens on a lent socket; the descriptor is the port's from then on."""

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def listen(self, protocolFactory: Any) -> Deferred[IListeningPort]:
        """Listen; fails when the descriptor is no socket."""
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: Any) -> IListeningPort:
        lent = socket.socket(fileno=self._descriptor)
        lent.set_inheritable(False)
        lent.setblocking(False)
        if lent.family == socket.AF_UNIX:
            port: IListeningPort = _LentUnixPort(lent, factory, self._reactor)
            port.startListening()
            return port
        with lent:
            port = self._reactor.adoptStreamPort(lent.fileno(), lent.family, factory)
            return port
