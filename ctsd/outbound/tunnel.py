"""
A tunnel through an HTTP proxy: C{CONNECT}, RFC 9110, section 9.3.6. Twisted has no client for it.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ctsd.errors import OutboundError

#: A larger head of the proxy's answer is refused.
HEAD_MAX_BYTES = 16384

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?\r?\n")
_END = re.compile(rb"\r?\n\r?\n")


@implementer(IStreamClientEndpoint)
class TunnelEndpoint:
    """
    Connects through a proxy to a host that the proxy resolves. It waits for the proxy as long as
    nobody cancels.
    """

    def __init__(
        self,
        proxy: IStreamClientEndpoint,
        *,
        host: str,
        port: int,
        authorization: bytes = b"",
    ) -> None:
        """
        :param proxy: leads to the proxy.
        :param authorization: the value of C{Proxy-Authorization}.
        """
        self._proxy = proxy
        self._authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._authorization = authorization

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        See L{IStreamClientEndpoint}.

        :raises OutboundError: (in the Deferred) the proxy did not open a tunnel.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        tunnel = await self._proxy.connect(_Tunnels(self._authority, self._authorization, factory))
        assert isinstance(tunnel, _Tunnel)
        return await tunnel.opened


class _Tunnels(Factory):
    noisy = False

    def __init__(self, authority: str, authorization: bytes, inner: IProtocolFactory) -> None:
        self.authority = authority
        self.authorization = authorization
        self.inner = inner

    def buildProtocol(self, addr: Any) -> _Tunnel:
        """One connection."""
        return _Tunnel(self)


class _Tunnel(Protocol):
    """
    A connection to a proxy that becomes one to somebody else.

    :ivar opened: fires with the protocol that is on its other side from then on.
    """

    def __init__(self, factory: _Tunnels) -> None:
        self.opened: Deferred[IProtocol] = Deferred(lambda _: self._abort())
        self._factory: _Tunnels = factory
        self._head = b""
        self._inner: IProtocol | None = None

    def connectionMade(self) -> None:
        """Ask for the tunnel."""
        lines = [f"CONNECT {self._factory.authority} HTTP/1.1".encode("ascii")]
        lines.append(f"Host: {self._factory.authority}".encode("ascii"))
        if self._factory.authorization:
            lines.append(b"Proxy-Authorization: " + self._factory.authorization)
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n")  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Read the proxy's answer; what comes after it is not the proxy's."""
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self.opened.called:
            return
        self._head += data
        end = _END.search(self._head)
        if end is None:
            if len(self._head) > HEAD_MAX_BYTES:
                self._fail("the proxy's answer is no HTTP, or its head is too large")
            return
        status = _STATUS.match(self._head)
        if status is None:
            self._fail("the proxy's answer is no HTTP")
        elif status[1] == b"407":
            self._fail("the proxy wants other credentials (407)")
        elif not status[1].startswith(b"2"):
            self._fail(f"the proxy answered {status[1].decode('ascii')}")
        else:
            self._open(self._head[end.end() :])

    def _open(self, rest: bytes) -> None:
        transport: Any = self.transport
        inner = self._factory.inner.buildProtocol(transport.getPeer())
        if inner is None:
            self._fail("the request was given up")
            return
        self._inner, self._head = inner, b""
        inner.makeConnection(transport)
        self.opened.callback(inner)
        if rest:
            inner.dataReceived(rest)

    def _fail(self, why: str) -> None:
        opened = self.opened
        self._abort()
        if not opened.called:
            opened.errback(Failure(OutboundError(why)))

    def _abort(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Pass it on."""
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.opened.called:
            self.opened.errback(Failure(OutboundError("the proxy closed the connection")))
