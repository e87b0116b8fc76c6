"""
One connection: where requests begin and end, what slow and unfinished ones cost, and how a
connection ends.

It is an C{HTTPChannel}, so that twisted.web's resources work behind it, with its own reading of
heads (strict, and in one go) and without its timers: the site looks at all connections once a
second instead.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, _ChunkedTransferDecoder, _MalformedChunkedDataError
from zope.interface import implementer

from ctsd.web.answers import error_answer, render
from ctsd.web.heads import CHUNKED, BadHead, parse_head
from ctsd.web.request import Request

if TYPE_CHECKING:
    from ctsd.web.site import CTSSite

_BAD_REQUEST = error_answer(400, "malformed request")


class Phase(Enum):
    """
    What a connection is doing.

    HEAD: it waits for a request, or reads one's head. BODY: it reads a body. BUSY: a request is
    in hand. DRAIN: the request was answered before its body came, which is read and forgotten.
    CLOSED: nothing is read any more.
    """

    HEAD = "head"
    BODY = "body"
    BUSY = "busy"
    DRAIN = "drain"
    CLOSED = "closed"


@implementer(IHalfCloseableProtocol)
class Channel(HTTPChannel):
    """
    A connection of a L{CTSSite}.

    A client may end its sending side as soon as it has sent its requests; it gets its answers. (Not
    over TLS, where that is the end of the connection.)

    :ivar phase: see L{Phase}.
    """

    site: CTSSite
    transport: Any
    # None of HTTPChannel's own timers.
    timeOut = None

    def __init__(self, site: CTSSite) -> None:
        super().__init__()
        self.site = site
        self.phase = Phase.HEAD
        self._input = b""
        self._running = False
        # The client sends nothing more.
        self._all_sent = False
        # Of the head that is being read: an empty line before it, and a part of it, were there.
        self._skipped = False
        self._in_head = False
        # Of the body that is being read: bytes that are missing, or its decoder.
        self._missing_bytes = 0
        self._decoder: _ChunkedTransferDecoder | None = None
        # Why reading is paused, besides a client that does not read (_waitingForTransport).
        self._held = False
        self._overfull = False
        self._reading = True
        # For the sweep.
        self._received = 0
        self._marked_received = 0
        self._marked_at = site.now
        self._drain_bytes = 0
        self._drain_until = 0.0

    def connectionMade(self) -> None:
        """A client is here."""
        super().connectionMade()
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """The client has gone, or we have ended it."""
        self.phase = Phase.CLOSED
        self._input = b""
        requests, self.requests = self.requests, []
        for request in requests:
            request.connectionLost(reason)
        self.site.channel_lost(self)

    def readConnectionLost(self) -> None:
        """The client sends nothing more; it may still read, or have gone altogether."""
        self._all_sent = True
        if self.phase is not Phase.BUSY:
            self._give_up()
        elif not self._input:
            self.persistent = 0

    def writeConnectionLost(self) -> None:
        """We send nothing more: so we wanted."""

    def _give_up(self) -> None:
        """What the client has begun will never be whole."""
        requests, self.requests = self.requests, []
        for request in requests:
            request.connectionLost(Failure(ConnectionDone()))
        self.close()

    # What comes in

    def dataReceived(self, data: bytes) -> None:
        """Take what the client sent."""
        self._received += len(data)
        self._input = self._input + data if self._input else data
        if self.phase is Phase.BUSY:
            if len(self._input) > self.site.limits.pipeline_bytes:
                self._overfull = True
                self._update_reading()
        elif not self._running:
            self._run()

    def _run(self) -> None:
        """Go as far as what has come in allows."""
        self._running = True
        try:
            while self._input:
                phase = self.phase
                if phase is Phase.HEAD:
                    if not self._read_head():
                        break
                elif phase is Phase.BUSY:
                    break
                elif phase is Phase.CLOSED:
                    self._input = b""
                else:
                    self._read_body()
        finally:
            self._running = False
        if self._all_sent and self.phase is not Phase.BUSY:
            self._give_up()
        if self._overfull and len(self._input) <= self.site.limits.pipeline_bytes:
            self._overfull = False
            self._update_reading()

    def _read_head(self) -> bool:
        """Read a head; whether there was a whole one."""
        data = self._input
        if not self._skipped and data[:2] == b"\r\n":
            # Some clients send an empty line after a POST. One.
            self._skipped = True
            self._input = data = data[2:]
        limits = self.site.limits
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > limits.max_head_bytes:
            if len(data) > limits.max_head_bytes or data[:2] == b"\r\n":
                self._refuse()
            elif not self._in_head:
                self._in_head = True
                self._mark()
            return False
        try:
            head = parse_head(data[:end], max_headers=limits.max_headers)
        except BadHead:
            self._refuse()
            return False
        self._input = data[end + 4 :]
        self._skipped = self._in_head = False
        self.persistent = head.persistent
        request = Request(self, head)
        self.requests.append(request)
        self.phase = Phase.BUSY
        waiting = request.ask_gate()
        if waiting is None:
            self._admit(request)
        else:
            waiting.addCallback(self._gated, request)
        return True

    def _gated(self, _: None, request: Request) -> None:
        if self.phase is Phase.BUSY:
            self._admit(request)
            if not self._running:
                self._run()

    def _admit(self, request: Request) -> None:
        """Go on with a request whose head was read: to its body, or to its answer."""
        head = request.head
        length = head.length
        if length == 0:
            request.body_ended()
            return
        request.admit()
        if length == CHUNKED:
            self._decoder = _ChunkedTransferDecoder(request.handleContentChunk, self._body_ended)
        else:
            self._decoder = None
            self._missing_bytes = length
        self.phase = Phase.BODY
        self._mark()
        if request.early is not None and (
            head.expects or length > self.site.limits.small_body_bytes
        ):
            self.drain(request)
        elif head.expects and not self._input:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _read_body(self) -> None:
        data, self._input = self._input, b""
        if self.phase is Phase.DRAIN:
            self._drain_bytes -= len(data)
            if self._drain_bytes < 0:
                self.close()
                return
        if self._decoder is not None:
            try:
                self._decoder.dataReceived(data)
            except _MalformedChunkedDataError:
                self._refuse()
            return
        missing = self._missing_bytes
        if len(data) < missing:
            self._missing_bytes -= len(data)
            self._piece(data)
        else:
            self._missing_bytes = 0
            self._piece(data if len(data) == missing else data[:missing])
            self._body_ended(data[missing:])

    def _piece(self, data: bytes) -> None:
        if self.requests:
            self.requests[0].handleContentChunk(data)

    def _body_ended(self, rest: bytes) -> None:
        self._input = rest
        self._decoder = None
        if self.phase is Phase.BODY:
            self.phase = Phase.BUSY
            self.requests[0].body_ended()
        elif self.phase is Phase.DRAIN:
            self.close()

    # What goes out

    def requestDone(self, request: Any) -> None:
        """A request was answered."""
        self.requests.remove(request)
        if self.phase is Phase.DRAIN:
            return
        if not self.persistent or self.site.draining:
            self.close()
            return
        self.phase = Phase.HEAD
        self._marked_at = self.site.now
        if not self._running:
            self._run()

    def _refuse(self) -> None:
        """Nothing on this connection can be trusted any more."""
        requests, self.requests = self.requests, []
        for request in requests:
            request.connectionLost(Failure(BadHead("malformed")))
        if self.phase is not Phase.DRAIN:
            self.transport.write(render(_BAD_REQUEST, date=self.site.date, close=True))
        self.close()

    def drain(self, request: Request) -> None:
        """
        Answer a request now, before its body has come, and read the rest of it: a client that
        sends everything before it reads finds the answer, not a reset.
        """
        limits = self.site.limits
        self.persistent = 0
        self.phase = Phase.DRAIN
        self._drain_bytes = limits.drain_max_bytes
        self._drain_until = self.site.now + limits.drain_secs
        self._mark()
        assert request.early is not None
        request.send(request.early)
        # Over TLS a half-close would cut the answer off; there the client ends the connection.
        if not ISSLTransport.providedBy(self.transport):
            half_close = getattr(self.transport, "loseWriteConnection", None)
            if half_close is not None:
                half_close()

    def close(self) -> None:
        """End the connection, once what was written has gone out."""
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.CLOSED
        self._input = b""
        self._marked_at = self.site.now
        self.loseConnection()

    # Backpressure

    def hold(self, full: bool) -> None:
        """Read no more of a body (C{True}), or read on."""
        self._held = full
        self._update_reading()

    def pauseProducing(self) -> None:
        """The client does not read its answers: read no more of its requests."""
        self._waitingForTransport = True
        self._marked_at = self.site.now
        if self._requestProducer is not None:
            self._requestProducer.pauseProducing()
        self._update_reading()

    def resumeProducing(self) -> None:
        """The client reads again."""
        self._waitingForTransport = False
        if self._requestProducer is not None:
            self._requestProducer.resumeProducing()
        self._update_reading()

    def _update_reading(self) -> None:
        reading = not (self._held or self._overfull or self._waitingForTransport)
        if reading is not self._reading:
            self._reading = reading
            if not reading:
                self._networkProducer.pauseProducing()
            elif self.phase is not Phase.CLOSED and not self._all_sent:
                self._mark()
                self._networkProducer.resumeProducing()

    # Times

    def _mark(self) -> None:
        self._marked_at = self.site.now
        self._marked_received = self._received

    def check(self, now: float) -> None:
        """Look after the times; called every second or so."""
        limits = self.site.limits
        phase = self.phase
        age = now - self._marked_at
        if phase is Phase.CLOSED:
            if age >= limits.close_secs:
                self.transport.abortConnection()
        elif self._waitingForTransport:
            if age >= limits.idle_secs:
                self.transport.abortConnection()
        elif phase is Phase.BUSY or not self._reading:
            self._mark()
        elif phase is Phase.HEAD and not self._input:
            if age >= limits.idle_secs:
                self.close()
        elif phase is Phase.DRAIN and now >= self._drain_until:
            self.close()
        elif age >= limits.rate_window_secs:
            received = self._received - self._marked_received
            if received < age * limits.min_rate_bytes_per_sec:
                self.transport.abortConnection()
            else:
                self._mark()
