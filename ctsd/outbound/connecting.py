"""
Connections to servers of others: to addresses that were checked, and through a proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from ctsd.addresses import way_out, why_refused
from ctsd.errors import OutboundError
from ctsd.outbound.tunnel import TunnelEndpoint


@frozen(kw_only=True)
class Proxy:
    """
    An HTTP proxy.

    :ivar authorization: the value of C{Proxy-Authorization}; a secret.
    """

    host: str
    port: int
    authorization: bytes = b""

    def __repr__(self) -> str:
        """Without the secret."""
        return f"<Proxy {self.host}:{self.port}>"


@implementer(IHostnameResolver)
class CheckedResolver:
    """
    Resolves names, and leaves out the addresses that may not be asked.

    :ivar refused: what was left out, for people; the newest.
    """

    def __init__(self, resolver: IHostnameResolver, *, internal: bool, own: bool) -> None:
        """
        :param internal: as C{own}, see L{Endpoints}.
        """
        self.refused = ""
        self._resolver = resolver
        self._internal = internal
        self._own = own

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See L{IHostnameResolver}."""
        receiver = _Sieve(resolutionReceiver)

        def passes(address: IAddress) -> bool:
            host = getattr(address, "host", "")
            why = why_refused(host, internal=self._internal)
            if why:
                self.refused = f"{host} is {why}{way_out(host, own=self._own)}"
            return not why

        receiver.passes = passes
        return self._resolver.resolveHostName(
            receiver, hostName, portNumber, addressTypes, transportSemantics
        )


class _Sieve(proxyForInterface(IResolutionReceiver)):  # type: ignore[misc]
    passes: Callable[[IAddress], bool]

    def addressResolved(self, address: IAddress) -> None:
        """Hand on an address that passes."""
        if isinstance(address, IPv4Address | IPv6Address) and self.passes(address):
            self.original.addressResolved(address)


@implementer(IReactorTCP, IReactorTime, IReactorPluggableNameResolver)
class _CheckedReactor:
    """What L{HostnameEndpoint} needs of a reactor, with another resolver."""

    def __init__(self, reactor: Any, resolver: IHostnameResolver) -> None:
        self.nameResolver = resolver
        self.connectTCP = reactor.connectTCP
        self.listenTCP = reactor.listenTCP
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds
        self.getDelayedCalls = reactor.getDelayedCalls
        self.installNameResolver = reactor.installNameResolver


@implementer(IStreamClientEndpoint)
class CheckedEndpoint:
    """
    Connects to a host by its name or address, at an address that may be asked: the very one that
    was checked, so that nobody can give the name another one in between.
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        *,
        timeout_secs: float,
        internal: bool,
        own: bool,
    ) -> None:
        """
        :param internal: as C{own}, see L{Endpoints}.
        """
        self._resolver = CheckedResolver(reactor.nameResolver, internal=internal, own=own)
        self._endpoint = HostnameEndpoint(
            _CheckedReactor(reactor, self._resolver), host, port, timeout=timeout_secs
        )
        self._host = host

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        See L{IStreamClientEndpoint}.

        :raises OutboundError: (in the Deferred) all its addresses are refused.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        try:
            return await self._endpoint.connect(factory)
        except Exception as error:
            if self._resolver.refused:
                raise OutboundError(
                    f"{self._host} may not be asked: {self._resolver.refused}"
                ) from error
            raise


class Line(ProtocolWrapper):
    """
    The connection of one request.

    :ivar room: how many bytes may still come; nobody counts once it is None.
    :ivar flooded: whether more came.
    """

    room: int | None = None
    flooded = False
    _lost = False

    def dataReceived(self, data: bytes) -> None:
        """Hand data on, while there is room."""
        if self.room is not None:
            self.room -= len(data)
            if self.room < 0:
                self.flooded = True
                self.abortConnection()
                return
        super().dataReceived(data)

    def abortConnection(self) -> None:
        """End it at once; nobody waits for the other side."""
        self.disconnecting = 1
        if self.transport is not None and not self._lost:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has ended."""
        self._lost = True
        super().connectionLost(reason)


@implementer(IAgentEndpointFactory)
class Endpoints:
    """
    Where L{twisted.web.client.Agent} connects to for one request.

    :ivar line: the request's connection, once there is one.
    """

    line: Line | None = None

    def __init__(
        self,
        reactor: Any,
        *,
        policy: IPolicyForHTTPS,
        timeout_secs: float,
        head_max_bytes: int,
        internal: bool,
        own: bool,
        proxy: Proxy | None,
    ) -> None:
        """
        :param timeout_secs: for resolving, connecting and the proxy's answer together.
        :param head_max_bytes: an answer's head that is larger ends the connection.
        :param internal: whether private addresses may be asked.
        :param own: whether the host is the source's own, for which people may allow that.
        :param proxy: who connects for us. Which address it then takes, nobody here can check.
        """
        self.reactor = reactor
        self._policy = policy
        self.timeout_secs = timeout_secs
        self._head_max_bytes = head_max_bytes
        self._internal = internal
        self._own = own
        self._proxy = proxy

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See L{IAgentEndpointFactory}."""
        host = uri.host.decode("ascii")
        endpoint: IStreamClientEndpoint
        if self._proxy is None:
            endpoint = CheckedEndpoint(
                self.reactor,
                host,
                uri.port,
                timeout_secs=self.timeout_secs,
                internal=self._internal,
                own=self._own,
            )
        else:
            endpoint = TunnelEndpoint(
                self._to_proxy(self._proxy),
                host=host,
                port=uri.port,
                authorization=self._proxy.authorization,
            )
        if uri.scheme == b"https":
            creator = self._policy.creatorForNetloc(uri.host, uri.port)
            endpoint = wrapClientTLS(creator, endpoint)
        return _LineEndpoint(endpoint, self)

    def endpoint_for_http_by_proxy(self, proxy: Proxy) -> IStreamClientEndpoint:
        """Where a request for C{http} goes that a proxy passes on."""
        return _LineEndpoint(self._to_proxy(proxy), self)

    def _to_proxy(self, proxy: Proxy) -> IStreamClientEndpoint:
        return HostnameEndpoint(self.reactor, proxy.host, proxy.port, timeout=self.timeout_secs)

    def line_of(self, factory: WrappingFactory[Line], wrapped: IProtocol) -> Line:
        """A new connection."""
        self.line = line = Line(factory, wrapped)
        line.room = self._head_max_bytes
        return line

    def abort(self) -> None:
        """End the connection, if there is one."""
        if self.line is not None:
            self.line.abortConnection()


@implementer(IStreamClientEndpoint)
class _LineEndpoint:
    """Puts a L{Line} between an agent and its connection."""

    def __init__(self, endpoint: IStreamClientEndpoint, endpoints: Endpoints) -> None:
        self._endpoint = endpoint
        self._endpoints = endpoints

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See L{IStreamClientEndpoint}."""
        wrapping: WrappingFactory[Line] = WrappingFactory(protocolFactory)
        wrapping.protocol = self._endpoints.line_of
        # Each would tell of its start and its end in the log.
        for factory in (wrapping, protocolFactory):
            factory.noisy = False  # type: ignore[union-attr]
        connected = self._endpoint.connect(wrapping)
        connected.addTimeout(self._endpoints.timeout_secs, self._endpoints.reactor, _too_late)
        return connected.addCallback(_wrapped)


def _too_late(result: object, timeout_secs: float) -> object:
    # Whoever was cancelled calls it in his own way.
    raise TimeoutError


def _wrapped(line: Any) -> IProtocol:
    wrapped: IProtocol = line.wrappedProtocol
    return wrapped
