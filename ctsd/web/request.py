"""One request: what happens to its body, and how it is answered."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server

from ctsd.errors import BodyTooLarge
from ctsd.uploads import Parts
from ctsd.web.answers import Answer, render
from ctsd.web.browsers import is_browser
from ctsd.web.heads import Head
from ctsd.web.page import wants_page
from ctsd.web.sinks import Body, Sink, check_length, sink_for
from ctsd.web.targets import ROOT, Kind, Target, find_target, segments_of

if TYPE_CHECKING:
    from ctsd.web.channel import Channel
    from ctsd.web.site import CTSSite

#: What stands before a listener's requests: asked with the head alone, before the body is invited
#: in. It gives the answer for who may not come in, or None; either perhaps later.
Gate = Callable[["Request"], "Answer | Deferred[Answer | None] | None"]


class Request(server.Request):
    """
    Our own request: twisted.web never sees its body, and for the protocol's routes none of
    twisted.web's machinery runs at all.

    What a twisted.web resource or a Klein route expects of a request is made when one is to
    render it.

    :ivar head: see L{Head}; C{head.headers} are the request's.
    :ivar target: what it is about; known before the gate is asked.
    :ivar for_page: whether it is for the page, or a part of it, and its listener has one.
    :ivar early: the answer that it will get whatever its body is.
    """

    _log = Logger()
    channel: Channel | None  # type: ignore[assignment]
    site: CTSSite

    def __init__(self, channel: Channel, head: Head) -> None:
        # Not twisted.web's constructor: it makes a dozen objects that our routes never use.
        self.channel = channel
        self.site = channel.site
        self.head = head
        self.method = head.method
        self.uri = head.target
        self.clientproto = head.version
        self.notifications: list[Deferred[None]] = []
        self.early: Answer | None = None
        self.target: Target = ROOT
        self.for_page = False
        self.body: Body = b""
        # What takes the body; None when nobody wants it.
        self._sink: Sink | None = None
        self._unwanted_bytes = channel.site.limits.small_body_bytes
        self._ended = False

    def getClientAddress(self) -> Any:
        """The address of the other side."""
        return None if self.channel is None else self.channel.getPeer()

    def ask_gate(self) -> Deferred[None] | None:
        """
        Find what this is about, and whether it may come in.

        :return: None when that is known; else it fires then.
        """
        site = self.site
        try:
            self.target = find_target(self.head.target, site.scans.has_service)
            headers = self.head.headers
            self.for_page = site.page is not None and wants_page(
                method=self.method, target=self.target, accept=headers.get(b"accept", b"")
            )
            # A page of a name that was made to lead here can keep a GET free of browser's headers.
            is_page = self.for_page or self.target.kind is Kind.HEALTH
            if is_page or is_browser(headers):
                site.browser_rules.check(headers)
            if site.gate is None:
                return None
            verdict = site.gate(self)
        except Exception as error:
            self.early = site.cts.refuse(error)
            return None
        if isinstance(verdict, Deferred):
            return verdict.addErrback(site.cts.failed).addCallback(self._judged)
        self.early = verdict
        return None

    def _judged(self, verdict: Answer | None) -> None:
        self.early = verdict

    def admit(self) -> None:
        """Refuse, by setting L{early}, what can't be taken, from what the head says of the body."""
        if self.early is not None:
            return
        try:
            site = self.site
            limits = site.limits
            if self.method != b"POST":
                check_length(self.head.length, limits.small_body_bytes)
            elif self.target.kind is Kind.SERVICE:
                self._sink = sink_for(
                    self.head,
                    limits=limits,
                    memory=site.memory,
                    spool=site.spool,
                    on_full=self._hold,
                    on_failure=self.refuse,
                )
            else:
                # The same answer with any body.
                self.early = site.cts.unknown(self.target)
        except Exception as error:
            self.early = self.site.cts.refuse(error)

    def handleContentChunk(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self.finished or self.channel is None:
            return
        if self._sink is None or self.early is not None:
            self._pass_over(len(data))
            return
        try:
            self._sink.write(data)
        except Exception as error:
            self.refuse(error)

    def _pass_over(self, size: int) -> None:
        """A piece that nobody wants: a few are read, to keep the connection."""
        self._unwanted_bytes -= size
        if self._unwanted_bytes >= 0:
            return
        if self.early is None:
            self.refuse(BodyTooLarge("a body where none is expected"))
        elif self.channel is not None:
            self.channel.drain(self)

    def _hold(self, full: bool) -> None:
        if self.channel is not None:
            self.channel.hold(full)

    def refuse(self, error: Exception) -> None:
        """Answer with an error, and forget the body, wherever it stands."""
        if self.early is not None:
            return
        self.early = self.site.cts.refuse(error)
        self._forget_body()
        if self._ended:
            self.send(self.early)

    def body_ended(self) -> None:
        """The whole body is here; answer, as soon as it is stored."""
        self._ended = True
        if self.early is not None:
            self.send(self.early)
            return
        if self._sink is None:
            self.process()
            return
        try:
            body = self._sink.finish()
        except Exception as error:
            self.refuse(error)
            return
        if isinstance(body, Deferred):
            body.addCallbacks(self._stored, lambda failure: self.refuse(failure.value))
        else:
            self._stored(body)

    def _stored(self, body: Body) -> None:
        self.body = body
        self.process()

    def process(self) -> None:
        """Answer: the protocol's routes directly, everything else by way of Klein."""
        if self.site.short_path and self._is_protocol():
            self.serve()
            return
        self._become_stock()
        super().process()

    def _is_protocol(self) -> bool:
        kind = self.target.kind
        if kind is Kind.SERVICE:
            return self.method == b"POST" or self.method == b"OPTIONS"
        return kind is Kind.SCAN or kind is Kind.READY

    def serve(self, sent: Callable[[None], object] | None = None) -> None:
        """
        Answer as the protocol says.

        :param sent: told, with None, when that is done; never, when the client left before.
        """
        try:
            answer = self.site.cts.answer(method=self.method, target=self.target, body=self.body)
        except Exception:
            answer = self.site.cts.failed(Failure())
        if isinstance(answer, Answer):
            self.send(answer)
            if sent is not None:
                sent(None)
            return
        done = answer.addCallback(self.send)
        if sent is not None:
            done.addCallback(sent)

    def send(self, answer: Answer) -> None:
        """Write an answer, in one piece, and be done."""
        channel = self.channel
        if channel is None or self.finished:
            return
        self.finished = 1
        self.code = answer.status
        site = self.site
        if site.draining:
            channel.persistent = 0
        assert channel.transport is not None
        channel.transport.write(
            render(
                answer,
                date=site.date,
                close=not channel.persistent,
                body=self.method != b"HEAD",
            )
        )
        if self._sink is not None:
            self._sink.release()
            self._sink = None
        self.channel = None
        channel.requestDone(self)
        if self.notifications:
            waiting, self.notifications = self.notifications, []
            for each in waiting:
                each.callback(None)

    def _cleanup(self) -> None:
        # twisted.web's way to the end, when a resource has rendered itself.
        if self._sink is not None:
            self._sink.release()
            self._sink = None
        super()._cleanup()
        self.channel = None

    def connectionLost(self, reason: Failure) -> None:
        """The client has gone. What it has asked for already goes on."""
        self._disconnected = True
        self.channel = None
        self._forget_body()
        waiting, self.notifications = self.notifications, []
        for each in waiting:
            each.errback(reason)

    def _forget_body(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            self._hold(False)
            sink.release()

    def processingFailed(self, reason: Failure) -> Failure:
        """Something broke while a resource rendered: an incident, never a traceback."""
        answer = self.site.cts.failed(reason)
        if not self.startedWriting:
            self.send(answer)
        elif self.channel is not None:
            self.channel.close()
        return reason

    def getRequestHostname(self) -> bytes:
        """
        A constant. Klein builds its routes for this name and refuses a C{Host} that is no
        domain; no route of ours depends on it.
        """
        return b"localhost"

    def _become_stock(self) -> None:
        """Be what twisted.web's resources and Klein expect."""
        early, notifications = self.early, self.notifications
        super().__init__(self.channel, parsePOSTFormSubmission=False)
        self.early, self.notifications = early, notifications
        for name, value in self.head.headers.items():
            self.requestHeaders.setRawHeaders(name, [value])
        self.parseCookies()
        self.content = BytesIO(b"" if isinstance(self.body, Parts) else self.body)
        self.args = {}
        # Quoted twice, so that Klein still sees one quoting: what is odd in a path stays harmless.
        parts = [quote(quote(segment)) for segment in segments_of(self.head.target)]
        self.path = ("/" + "/".join(parts)).encode()
