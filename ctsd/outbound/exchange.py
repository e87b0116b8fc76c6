"""One request to a server of others, with the redirects that it takes."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.web.client import Agent, ProxyAgent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from ctsd.addresses import why_host_refused
from ctsd.errors import OutboundError, Unreached
from ctsd.outbound.bodies import Body, Sink
from ctsd.outbound.connecting import Endpoints, Proxy
from ctsd.outbound.hops import REDIRECTS, Hop, first_hop, next_hop
from ctsd.outbound.limits import Limits
from ctsd.outbound.reasons import reason_of, was_cancelled
from ctsd.remote import Remote, masked

# treq can't ask IPv6 addresses: hyperlink 21.0 takes them for names.
_STAND_IN = "host.invalid"

#: What our own layer calls C{Content-Encoding}, so that nobody above decompresses without limit.
_ENCODING = b"x-ctsd-content-encoding"


@frozen(kw_only=True)
class Question:
    """
    What is asked.

    :ivar headers: go to every host.
    :ivar accept_encoding: what the answer may be compressed with.
    """

    remote: Remote
    method: str = "GET"
    headers: Mapping[str, str] = field(factory=dict)
    params: Mapping[str, str] | None = field(default=None, repr=False)
    data: Mapping[str, str] | bytes | None = field(default=None, repr=False)
    json: Any = field(default=None, repr=False)
    accept_encoding: bytes = b"identity"


@frozen
class Head:
    """
    The head of the last answer.

    :ivar url: where it came from, for people.
    :ivar encoding: its C{Content-Encoding}, in lower case.
    """

    status: int
    headers: dict[str, str] = field(repr=False)
    url: str
    encoding: str
    response: IResponse = field(repr=False)


class Exchange:
    """
    A question, until its answer is read. Nothing in here takes longer than C{total_secs}, and
    what it raises is an L{OutboundError}.
    """

    def __init__(
        self,
        question: Question,
        *,
        reactor: Any,
        limits: Limits,
        policy: IPolicyForHTTPS,
        total_secs: float,
        stall_secs: float,
    ) -> None:
        """
        :param stall_secs: how long the connection may be silent.
        """
        self._question = question
        self._reactor = reactor
        self._limits = limits
        self._policy = policy
        self._stall_secs = stall_secs
        self._why = ""
        self._waiting: Deferred[Any] | None = None
        self._endpoints: Endpoints | None = None
        self._is_connected = False
        self._total = reactor.callLater(
            total_secs, self._end, f"no whole answer within {total_secs:g} s"
        )
        self._stall = reactor.callLater(stall_secs, self._end, f"nothing came for {stall_secs:g} s")

    async def head(self) -> Head:
        """
        The answer's head, after redirects; its body waits to be read.

        :raises Unreached: nobody was connected to.
        :raises OutboundError: it can't be had.
        """
        question, limits = self._question, self._limits
        common = {"Accept": "*/*", "User-Agent": limits.user_agent, **question.headers}
        hop = first_hop(question.remote, common)
        for count in range(limits.max_redirects + 1):
            response = await self._guarded(maybeDeferred(self._ask, hop, first=not count))
            self._heard()
            if response.code not in REDIRECTS or question.method not in ("GET", "HEAD"):
                return self._head(hop, response)
            (location, *_) = response.headers.getRawHeaders(b"location") or (b"",)
            self._drop()
            if not location:
                raise OutboundError(f"it answered {response.code} without saying where to")
            text = location.decode("latin-1")
            hop = next_hop(hop, question.remote, text, common)
        raise OutboundError(f"it redirects more than {limits.max_redirects} times")

    async def read(self, head: Head, sink: Sink, max_bytes: int) -> None:
        """
        Read the body.

        :raises OutboundError: it is too large, or was cut short.
        """
        length = head.response.length
        if isinstance(length, int) and length > max_bytes:
            raise OutboundError(f"it is larger than {max_bytes} bytes")
        body = Body(sink, max_bytes=max_bytes, on_data=self._heard)
        head.response.deliverBody(body)
        await self._guarded(body.done)

    def close(self) -> None:
        """Let go of everything; to be called always."""
        for timer in (self._total, self._stall):
            if timer.active():
                timer.cancel()
        self._drop()

    def _ask(self, hop: Hop, *, first: bool) -> Deferred[Any]:
        question = self._question
        proxy = self._limits.proxy_for(hop.host)
        if proxy is not None:
            _check_unresolved(hop)
        self._endpoints = endpoints = Endpoints(
            self._reactor,
            policy=self._policy,
            timeout_secs=self._limits.connect_secs,
            head_max_bytes=self._limits.head_max_bytes,
            internal=hop.internal,
            own=hop.own,
            proxy=proxy,
        )
        agent = _agent(self._reactor, endpoints, proxy if hop.scheme == "http" else None)
        headers = Headers({name: [value] for name, value in hop.headers.items()})
        if hop.user or hop.password:
            # Not by treq's own way, which would send it to whomever the agent asks.
            headers.setRawHeaders(b"Authorization", [_basic(hop.user, hop.password)])
        more: dict[str, Any] = {}
        if first:
            more = {"params": question.params, "data": question.data}
            if question.json is not None:
                more["json"] = question.json
        # A client of its own: no cookie outlives the request that it came with.
        client = HTTPClient(_Plain(agent, hop.url, question.accept_encoding))
        return client.request(
            question.method,
            hop.url.replace(_netloc(hop.url), _STAND_IN, 1),
            headers=headers,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
            **more,
        )

    def _head(self, hop: Hop, response: IResponse) -> Head:
        if self._endpoints is not None and self._endpoints.line is not None:
            self._endpoints.line.room = None
        headers = {
            name.decode("latin-1").lower(): ", ".join(
                value.decode("utf-8", "replace") for value in values
            )
            for name, values in response.headers.getAllRawHeaders()
        }
        encoding = headers.pop(_ENCODING.decode("ascii"), "").strip().lower()
        if encoding:
            headers["content-encoding"] = encoding
        return Head(
            status=response.code,
            headers=headers,
            url=masked(hop.url, self._question.remote.hidden),
            encoding="" if encoding == "identity" else encoding,
            response=response,
        )

    async def _guarded(self, waiting: Deferred[Any]) -> Any:
        """Wait, and have what goes wrong in our own words."""
        if self._why:
            waiting.addErrback(lambda _: None)
            waiting.cancel()
            raise self._error(self._why)
        self._waiting = waiting
        try:
            return await waiting
        except OutboundError as error:
            raise self._error(self._why or error.reason) from None
        except Exception as error:
            if not self._why and was_cancelled(error):
                raise CancelledError from None
            line = self._endpoints.line if self._endpoints is not None else None
            if line is not None and line.flooded:
                raise OutboundError("the head of its answer is too large") from None
            # Not chained: the error may quote an address with its secrets.
            raise self._error(self._why or reason_of(error)) from None
        finally:
            self._waiting = None

    def _error(self, reason: str) -> OutboundError:
        self._note_connection()
        return OutboundError(reason) if self._is_connected else Unreached(reason)

    def _note_connection(self) -> None:
        if self._endpoints is not None and self._endpoints.line is not None:
            self._is_connected = True

    def _heard(self) -> None:
        if self._stall.active():
            self._stall.reset(self._stall_secs)

    def _end(self, why: str) -> None:
        self._why = self._why or why
        self._drop()
        if self._waiting is not None:
            self._waiting.cancel()

    def _drop(self) -> None:
        self._note_connection()
        endpoints, self._endpoints = self._endpoints, None
        if endpoints is not None:
            endpoints.abort()


def _agent(reactor: Any, endpoints: Endpoints, proxy: Proxy | None) -> IAgent:
    if proxy is None:
        made: IAgent = Agent.usingEndpointFactory(reactor, endpoints)
        return made
    through: IAgent = ProxyAgent(endpoints.endpoint_for_http_by_proxy(proxy), reactor)
    return _Authorized(through, proxy.authorization) if proxy.authorization else through


def _basic(user: str, password: str) -> bytes:
    """RFC 7617, section 2, with its C{charset}."""
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


def _check_unresolved(hop: Hop) -> None:
    """
    What can be said of a host without resolving it; the proxy does that for us, and nobody here
    sees the address that it takes.
    """
    why = why_host_refused(hop.host, internal=hop.internal, own=hop.own)
    if why:
        raise OutboundError(f"{hop.host} may not be asked: it is {why}")


@implementer(IAgent)
class _Authorized:
    """Shows our credentials to a proxy."""

    def __init__(self, agent: IAgent, authorization: bytes) -> None:
        self._agent = agent
        self._authorization = authorization

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See L{IAgent}."""
        given = headers.copy() if headers is not None else Headers()
        given.setRawHeaders(b"Proxy-Authorization", [self._authorization])
        return self._agent.request(method, uri, given, bodyProducer)


def _netloc(url: str) -> str:
    return urlsplit(url).netloc


@implementer(IAgent)
class _Plain:
    """
    What treq asks, asked plainly. It keeps treq from decompressing, which it does without any
    limit: an answer of a few kilobytes could take gigabytes of memory.
    """

    def __init__(self, agent: IAgent, url: str, accept_encoding: bytes) -> None:
        """
        :param url: names the host that is meant; treq itself was told L{_STAND_IN}.
        """
        self._agent = agent
        self._netloc = _netloc(url).encode("ascii")
        self._accept_encoding = accept_encoding

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See L{IAgent}."""
        given = headers.copy() if headers is not None else Headers()
        given.setRawHeaders(b"Accept-Encoding", [self._accept_encoding])
        meant = uri.replace(_STAND_IN.encode("ascii"), self._netloc, 1)
        return self._agent.request(method, meant, given, bodyProducer).addCallback(self._hide)

    def _hide(self, response: IResponse) -> IResponse:
        encodings = response.headers.getRawHeaders(b"content-encoding")
        response.headers.removeHeader(b"content-encoding")
        response.headers.removeHeader(_ENCODING)
        if encodings:
            response.headers.setRawHeaders(_ENCODING, [b", ".join(encodings)])
        return response
