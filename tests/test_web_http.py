"""HTTP itself: where requests begin and end, early answers, slow clients, both ways alike."""

from __future__ import annotations

import json
from hashlib import md5
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from ctsd.web.answers import Answer
from tests.web_fixtures import (
    MULTIPART,
    Client,
    Reply,
    WebCase,
    Wire,
    multipart,
    part,
    replies_in,
    request,
    upload,
)

IP = b'{"type":"net.ip","value":"192.168.1.1"}'
OPTIONS = b"OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = request("POST", "/", IP)


def post_with(*headers: bytes, body: bytes = IP, line: bytes = b"POST / HTTP/1.1") -> bytes:
    """A POST with exactly these headers."""
    return b"\r\n".join([line, *headers, b"", b""]) + body


LENGTH = b"Content-Length: %d" % len(IP)
CHUNKED_IP = b"%x\r\n%b\r\n0\r\n\r\n" % (len(IP), IP)

#: What nobody may take for a request.
MALFORMED = [
    post_with(LENGTH, LENGTH),
    post_with(LENGTH, b"Content-Length: 3"),
    post_with(b"Content-Length: %d, %d" % (len(IP), len(IP))),
    post_with(b"Content-Length: +3"),
    post_with(b"Content-Length: -3"),
    post_with(b"Content-Length: 0x3"),
    post_with(b"Content-Length: 3 3"),
    post_with(b"Content-Length:"),
    post_with(b"Content-Length: \xb2"),
    post_with(LENGTH, b"Transfer-Encoding: chunked", body=CHUNKED_IP),
    post_with(b"Transfer-Encoding: chunked", LENGTH, body=CHUNKED_IP),
    post_with(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=CHUNKED_IP),
    post_with(b"Transfer-Encoding: gzip, chunked", body=CHUNKED_IP),
    post_with(b"Transfer-Encoding: xchunked", body=CHUNKED_IP),
    post_with(b"Transfer-Encoding:\x0bchunked", body=CHUNKED_IP),
    post_with(b"Transfer-Encoding: chunked", body=b"0x5\r\nabcde\r\n0\r\n\r\n"),
    post_with(b"Transfer-Encoding: chunked", body=b"+5\r\nabcde\r\n0\r\n\r\n"),
    post_with(b"Transfer-Encoding: chunked", body=b"5 \r\nabcde\r\n0\r\n\r\n"),
    post_with(b"Transfer-Encoding: chunked", body=b"5\r\nabcdef\r\n0\r\n\r\n"),
    post_with(b"Transfer-Encoding: chunked", body=b"5;\x00=x\r\nabcde\r\n0\r\n\r\n"),
    post_with(b"Transfer-Encoding: chunked", body=b"5" * 2000),
    post_with(b"Transfer-Encoding: chunked", body=b"0\r\n" + b"a: b\r\n" * 20000),
    post_with(b"Content Length: 3"),
    post_with(b"Content-Length : 3"),
    post_with(b": x"),
    post_with(b"X"),
    post_with(b"X\x00: y"),
    post_with(b"X: y\x00z"),
    post_with(b"X: y\rz"),
    post_with(b"X: y\nz: w"),
    post_with(b"X\xff: y"),
    post_with(b"(X): y"),
    post_with(*[b"X: y"] * 501),
    post_with(b"X: " + b"y" * 20000),
    post_with(line=b"POST /"),
    post_with(line=b"POST / HTTP/1.2"),
    post_with(line=b"POST / HTTP/2.0"),
    post_with(line=b"POST / http/1.1"),
    post_with(line=b"POST  / HTTP/1.1"),
    post_with(line=b"POST / HTTP/1.1 "),
    post_with(line=b" POST / HTTP/1.1"),
    post_with(line=b"POST /a b HTTP/1.1"),
    post_with(line=b"P(ST / HTTP/1.1"),
    post_with(line=b"POST /\xff HTTP/1.1"),
    post_with(line=b"POST /\t HTTP/1.1"),
    post_with(line=b""),
    post_with(line=b"\r\n\r\nPOST / HTTP/1.1"),
    b"\r\n\r\n" + OPTIONS,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
]

#: What twisted.web takes, and we do not.
STRICTER = [
    post_with(b"Content-Length: " + b"9" * 5000),
    post_with(b"X: y", b" folded", LENGTH),
    post_with(b"X: y", b"\tfolded", LENGTH),
    post_with(b" folded", LENGTH),
    post_with(b"Host: a", b"Host: b", LENGTH),
    post_with(b"Transfer-Encoding: identity", LENGTH),
    post_with(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0", body=CHUNKED_IP),
    post_with(b"Content-Type: text/plain", b"Content-Type: " + MULTIPART.encode(), LENGTH),
]

#: What both take: (bytes, how many requests).
WELL_FORMED = [
    (OPTIONS, 1),
    (POST, 1),
    (b"\r\n" + OPTIONS, 1),
    (POST + b"\r\n" + POST, 2),
    (OPTIONS * 40, 40),
    (POST + OPTIONS + POST + OPTIONS, 4),
    (post_with(b"content-LENGTH:%d \t" % len(IP)), 1),
    (post_with(b"Transfer-Encoding: Chunked", body=CHUNKED_IP) + OPTIONS, 2),
    (post_with(b"Transfer-Encoding: chunked", body=CHUNKED_IP[:-2] + b"Trailer: x\r\n\r\n"), 1),
    (post_with(LENGTH, b"X:", b"X: \xff\xfe", b"x: z"), 1),
    (post_with(LENGTH, line=b"POST / HTTP/1.0") + POST, 1),
    (post_with(LENGTH, b"Connection: close") + POST, 1),
    (b"OPTIONS * HTTP/1.1\r\n\r\n", 1),
    (b"OPTIONS / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc" + OPTIONS, 2),
]


class _Recorded(Request):
    """A request of twisted.web, noted and answered."""

    def process(self) -> None:
        """See L{Request}."""
        self.channel.site.seen.append(self.method)
        self.setHeader(b"Content-Length", b"0")
        self.finish()


def stock(data: bytes, *, by: int = 0) -> tuple[list[bytes], bool]:
    """The methods of the requests that twisted.web takes from this, and whether it hangs up."""
    site = Site(Resource(), _Recorded, parsePOSTFormSubmission=False, timeout=None)
    site.log = lambda request: None
    site.seen = []
    channel = site.buildProtocol(None)
    wire = Wire()
    channel.makeConnection(wire)
    step = by or len(data)
    for at in range(0, len(data), step):
        if not wire.disconnecting:
            channel.dataReceived(data[at : at + step])
    return site.seen, bool(wire.disconnecting)


class FramingTests(WebCase):
    """Where requests begin and end."""

    def test_malformed(self) -> None:
        """What twisted.web refuses is 400, and the connection ends, however it is cut."""
        for data in MALFORMED:
            for by in (0, 1, 7) if len(data) < 500 else (0, 1000):
                with self.subTest(data=data[:200], by=by):
                    seen, refused = stock(data, by=by)
                    client = self.ask(data, by=by)
                    self.assertEqual((seen, refused), ([], True))
                    self.assertEqual(client.statuses, [400])
                    self.assertEqual(client.reply.headers["Connection"], "close")
                    self.assertTrue(client.closed)
        self.assertEqual(self.scans.submitted, [])

    def test_stricter(self) -> None:
        """Ambiguities that twisted.web lets pass are 400, too."""
        for data in STRICTER:
            with self.subTest(data=data):
                client = self.ask(data)
                self.assertEqual(client.statuses, [400])
                self.assertTrue(client.closed)
        self.assertEqual(self.scans.submitted, [])

    def test_well_formed(self) -> None:
        """What is a request is answered, pipelined or not, however it is cut."""
        for data, count in WELL_FORMED:
            for by in (0, 1, 3):
                with self.subTest(data=data[:200], by=by):
                    self.assertEqual(len(stock(data, by=by)[0]), count)
                    self.assertEqual(self.ask(data, by=by).statuses, [200] * count)

    def test_after_malformed(self) -> None:
        """Nothing after a malformed request is looked at."""
        self.assertEqual(self.ask(OPTIONS + MALFORMED[0] + POST).statuses, [200, 400])

    def test_http_1_0(self) -> None:
        """An HTTP/1.0 client gets its answer and the end of the connection."""
        client = self.ask(b"OPTIONS / HTTP/1.0\r\n\r\n")
        self.assertEqual(client.reply.headers["Connection"], "close")
        self.assertTrue(client.closed)

    def test_connection_close(self) -> None:
        """Connection: close is understood in a list, too."""
        for value in ("close", "Close", "keep-alive, close", "close,x"):
            client = self.ask(request("OPTIONS", "/", b"", "", f"Connection: {value}"))
            self.assertEqual(client.reply.headers["Connection"], "close")
            self.assertTrue(client.closed)

    def test_keep_alive(self) -> None:
        """One connection carries one request after the other."""
        client = self.connect()
        for count in range(1, 5):
            client.send(POST)
            self.assertEqual(len(client.replies), count)
        self.assertFalse(client.closed)

    def test_pipeline_waits(self) -> None:
        """Requests behind one that is being answered wait, in their order, and not without end."""
        self.scans.held = []
        client = self.ask(POST + OPTIONS)
        self.assertEqual(client.replies, [])
        client.send(OPTIONS * 1000)
        self.assertEqual(client.wire.producerState, "paused")
        self.scans.release()
        self.assertEqual(client.statuses, [200] * 1002)
        self.assertIn("hits", json.loads(client.replies[0].body))
        self.assertEqual(client.wire.producerState, "producing")

    def test_unread_answers(self) -> None:
        """A client that does not read its answers is not read from."""
        client = self.connect()
        client.channel.pauseProducing()
        self.assertEqual(client.wire.producerState, "paused")
        client.channel.resumeProducing()
        self.assertEqual(client.wire.producerState, "producing")

    def test_leaves_with_pipeline(self) -> None:
        """A client that leaves while requests wait takes them along."""
        self.scans.held = []
        client = self.ask(POST + POST)
        client.leave()
        self.scans.release()
        self.assertEqual(len(self.scans.submitted), 1)


class FuzzTests(WebCase):
    """Streams that are cut and spoilt, over both ways."""

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_oracle(self, data: st.DataObject) -> None:
        """Of mutated requests we never take one that twisted.web does not take."""
        whole = b"".join(data.draw(st.lists(st.sampled_from(_BASES), min_size=1, max_size=3)))
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(whole)))
            cut = data.draw(st.integers(0, 2))
            new = data.draw(st.sampled_from(_MUTATIONS))
            whole = whole[:at] + new + whole[at + cut :]
        by = data.draw(st.integers(0, 50))
        seen, _ = stock(whole, by=by)
        for self.site.short_path in (True, False):
            client = self.ask(whole, by=by)
            taken = [reply for reply in _lenient(client) if reply.status not in (400, 413)]
            client.leave()
            self.assertLessEqual(len(taken), len(seen), whole)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.sampled_from([data for data, _ in WELL_FORMED]), max_size=3), st.data())
    def test_any_split(self, parts: list[bytes], data: st.DataObject) -> None:
        """However a stream is cut, its answers are the same."""
        whole = b"".join(parts)
        cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=8).map(sorted))
        for self.site.short_path in (True, False):
            client = self.connect()
            for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
                if not client.closed:
                    client.send(whole[start:end])
            uncut = self.ask(whole)
            self.assertEqual(client.statuses, uncut.statuses)
            client.leave()
            uncut.leave()


_BASES = [
    OPTIONS,
    POST,
    post_with(b"Host: a", b"Transfer-Encoding: chunked", body=CHUNKED_IP),
    post_with(b"Host: a", LENGTH, b"Connection: close"),
]
_MUTATIONS = [
    b"",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\0",
    b":",
    b",",
    b"0",
    b"1",
    b"\x0b",
    b"\x85",
    b"\xff",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"HTTP/1.0",
]


def _lenient(client: Client) -> list[Reply]:
    """The answers, without 100 Continue and though a mutated method may have been HEAD."""
    return replies_in(client.wire.value().replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""))


class EarlyTests(WebCase):
    """Answers that do not wait for the body."""

    def early(self, client: Client, status: int) -> None:
        """It was answered, half-closed, and reads on; then the client ends it."""
        self.assertEqual(client.statuses, [status])
        self.assertEqual(client.reply.headers["Connection"], "close")
        self.assertTrue(client.wire.half_closed)
        self.assertFalse(client.closed)
        self.assertEqual(client.wire.producerState, "producing")

    def test_length_too_large(self) -> None:
        """A body that says that it is too large is 413 before it comes; it is then drained."""
        self.serve(upload_max_bytes=1000, multipart_overhead_bytes=1000, max_json_bytes=500)
        for content_type, length in ((MULTIPART, 100_000), ("application/json", 70_000)):
            body = b"x" * length
            data = request("POST", "/", body, content_type)
            head = data[: -len(body)]
            client = self.ask(head)
            self.early(client, 413)
            client.send(body[:-1])
            self.assertFalse(client.closed)
            client.send(body[-1:])
            self.assertTrue(client.closed)
        self.assertEqual(self.site.cts.too_large, 2)

    def test_small_too_large(self) -> None:
        """A refused body that is small is read, and the connection goes on."""
        self.serve(upload_max_bytes=1000, multipart_overhead_bytes=1000, max_json_bytes=20)
        for chunks in (0, 5):
            client = self.ask(request("POST", "/", IP, chunks=chunks) + OPTIONS, by=9)
            self.assertEqual(client.statuses, [413, 200])
            self.assertFalse(client.closed)

    def test_expect(self) -> None:
        """Who asks first is told to go on."""
        head = request("POST", "/", IP, "application/json", "Expect: 100-continue")[: -len(IP)]
        client = self.ask(head)
        self.assertEqual(client.wire.value(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.wire.clear()
        self.assertEqual(client.send(IP).statuses, [200])

    def test_expect_with_body(self) -> None:
        """Who does not wait for the invitation needs none."""
        data = request("POST", "/", IP, "application/json", "Expect: 100-continue")
        self.assertEqual(self.ask(data).statuses, [200])

    def test_expect_refused(self) -> None:
        """Who asks first with too much gets 413 and no 100, and so for every early answer."""
        self.serve(upload_max_bytes=1000, multipart_overhead_bytes=1000, max_json_bytes=500)
        head = request("POST", "/", b"x" * 3000, MULTIPART, "Expect: 100-continue")[:-3000]
        self.early(self.ask(head), 413)
        head = request("POST", "/nope", b"x" * 30, MULTIPART, "Expect: 100-continue")[:-30]
        self.early(self.ask(head), 503)

    def test_unknown_service(self) -> None:
        """A large body for a service that is not there is not waited for."""
        head = request("POST", "/nope", b"x" * 100_000)[:-100_000]
        self.early(self.ask(head), 503)

    def test_chunked_too_large(self) -> None:
        """A chunked body is 413 as soon as it is too much, its file gone, and drained."""
        self.serve(upload_max_bytes=1000)
        self.scans.keep_files = True
        data = upload(file=b"x" * 300_000, chunks=1000)
        client = self.ask(data[:100_000], by=1000)
        self.early(client, 413)
        self.assertEqual((self.files(), self.spool.used_bytes, self.spool.writing), ([], 0, 0))
        client.send(data[100_000:], by=1000)
        self.assertTrue(client.closed)
        self.assertEqual(self.scans.submitted, [])

    def test_file_of_the_largest_size(self) -> None:
        """The limit itself is allowed."""
        self.serve(upload_max_bytes=1000)
        self.assertEqual(self.ask(upload(file=b"x" * 1000)).statuses, [200])
        self.assertEqual(self.ask(upload(file=b"x" * 1001)).statuses, [413])

    def test_artifact_part_too_large(self) -> None:
        """The artifact's part has the limit of JSON."""
        self.serve(max_json_bytes=30)
        self.assertEqual(self.ask(upload(IP)).statuses, [413])
        self.assertEqual(self.files(), [])

    def test_bad_artifact_early(self) -> None:
        """An artifact that is none is 400 before its large file has come."""
        self.early(self.ask(upload(b"x", b"y" * 200_000)[:100_000], by=5000), 400)

    def test_other_methods_body(self) -> None:
        """A body where none is expected is read, within limits."""
        client = self.ask(request("OPTIONS", "/", b"x" * 1000, chunks=100) + OPTIONS)
        self.assertEqual(client.statuses, [200, 200])
        self.early(self.ask(request("OPTIONS", "/", b"x" * 200_000)[:1000]), 413)
        self.early(self.ask(request("GET", "/", b"x" * 200_000, chunks=999)[:-1000], by=999), 413)

    def test_drain_limits(self) -> None:
        """Draining ends after so many bytes, or so much time."""
        self.serve(upload_max_bytes=1, max_json_bytes=1, drain_max_bytes=50_000, drain_secs=20)
        client = self.ask(request("POST", "/", b"x" * 100_000)[:-99_000])
        client.send(b"x" * 49_000)
        self.assertFalse(client.closed)
        client.send(b"x")
        self.assertTrue(client.closed)
        client = self.ask(request("POST", "/", b"x" * 100_000)[:-99_000])
        for _ in range(19):
            self.clock.advance(1)
            client.send(b"x" * 1000)
        self.assertFalse(client.closed)
        self.clock.advance(2)
        self.assertTrue(client.closed)

    def test_drain_malformed(self) -> None:
        """What is drained and turns out malformed ends without a second answer."""
        self.serve(max_json_bytes=1)
        client = self.ask(request("POST", "/", b"x" * 200_000, chunks=1000)[:100_000])
        client.send(b"y" * 5000)
        self.assertEqual(client.statuses, [413])
        self.assertTrue(client.closed)

    def test_memory(self) -> None:
        """All bodies in memory together have a limit: 503, before the body where it is known."""
        self.serve(max_body_memory_bytes=150_000, small_body_bytes=1000)
        large = request("POST", "/", b'{"type":"string","value":"%b"}' % (b"x" * 100_000))
        waiting = self.ask(large[:-1])
        self.early(self.ask(large[:500]), 503)
        self.early(self.ask(request("POST", "/", b"x" * 100_000, chunks=999)[:90_000], by=999), 503)
        self.assertEqual(self.ask(POST).statuses, [200])
        self.assertEqual(waiting.send(large[-1:]).statuses, [200])
        self.assertEqual(self.site.memory.used_bytes, 0)
        self.assertEqual(self.ask(large).statuses, [200])
        self.ask(large[:-1]).leave()
        self.assertEqual(self.site.memory.used_bytes, 0)


class GateTests(WebCase):
    """What stands before a listener."""

    def test_refuses(self) -> None:
        """Who may not come in gets the gate's answer, and may try again on the connection."""
        asked = []

        def gate(request: Any) -> Answer | None:
            asked.append((request.target.service, request.head.headers.get(b"authorization")))
            return None if asked[-1][1] else Answer(401, b"{}", b"WWW-Authenticate: Basic\r\n")

        self.serve(gate=gate)
        client = self.ask(upload(chunks=50) + POST, by=30)
        self.assertEqual(client.statuses, [401, 401])
        self.assertEqual(client.replies[0].headers["WWW-Authenticate"], "Basic")
        client.send(request("POST", "/phish", IP, "x", "Authorization: Basic eA=="))
        self.assertEqual(client.statuses, [401, 401, 200])
        self.assertEqual(asked[-1], ("phish", b"Basic eA=="))
        self.assertEqual((len(self.scans.submitted), self.files()), (1, []))

    def test_waits(self) -> None:
        """While the gate thinks, nothing is invited in."""
        verdicts: list[Deferred[Answer | None]] = []

        def gate(request: Any) -> Deferred[Answer | None]:
            verdicts.append(Deferred())
            return verdicts[-1]

        self.serve(gate=gate)
        data = request("POST", "/", IP, "application/json", "Expect: 100-continue")
        client = self.ask(data[: -len(IP)])
        self.assertEqual(client.wire.value(), b"")
        verdicts.pop().callback(None)
        self.assertEqual(client.wire.value(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.wire.clear()
        client.send(IP + POST + OPTIONS)
        self.assertEqual(client.statuses, [200])
        verdicts.pop().callback(Answer(401))
        self.assertEqual(client.statuses, [200, 401])
        verdicts.pop().callback(None)
        self.assertEqual(client.statuses, [200, 401, 200])
        client.send(POST)
        client.leave()
        verdicts.pop().callback(None)
        self.assertEqual(len(self.scans.submitted), 1)

    def test_breaks(self) -> None:
        """A gate that breaks lets nobody in."""
        for gate in (lambda request: 1 // 0, lambda request: fail(ZeroDivisionError())):
            self.serve(gate=gate)
            self.assertEqual(self.ask(POST).statuses, [500])
        self.assertEqual(self.incidents(), 2)
        self.assertEqual(self.scans.submitted, [])


class _Page(Resource):
    """A page of twisted.web's own kind."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """See L{Resource}."""
        return b"hello " + request.getHeader(b"x-who") + request.content.read()


class ResourceTests(WebCase):
    """Pages beside the protocol."""

    def test_page(self) -> None:
        """A twisted.web resource works behind our channel, and the connection goes on."""
        self.site.resource = _Page()
        client = self.ask(request("GET", "/page", b"", "", "X-Who: you") * 2 + OPTIONS)
        self.assertEqual(client.statuses, [200, 200, 200])
        self.assertEqual(client.replies[0].body, b"hello you")
        self.assertEqual(client.replies[0].headers["Content-Length"], "9")

    def test_broken_page(self) -> None:
        """One that breaks is an incident, not a page with a traceback."""
        self.site.resource = _Page()
        client = self.ask(request("GET", "/page"))
        self.assertEqual(client.statuses, [500])
        self.assertIn(b"incident", client.reply.body)
        self.assertEqual(self.incidents(), 1)


class TimeTests(WebCase):
    """Clients that take their time, and the end of the daemon."""

    def advance(self, secs: int) -> None:
        """Let time pass, second by second."""
        self.clock.pump([1.0] * secs)

    def test_idle(self) -> None:
        """A connection without requests ends after idle_secs."""
        self.serve(idle_secs=30)
        fresh, used = self.connect(), self.ask(POST)
        self.advance(20)
        used.send(POST)
        self.advance(12)
        self.assertEqual((fresh.closed, used.closed), (True, False))
        self.advance(20)
        self.assertTrue(used.closed)
        self.assertEqual((fresh.wire.value(), used.statuses), (b"", [200, 200]))

    def test_slow_head(self) -> None:
        """A client that trickles its head is cut off without an answer."""
        client = self.connect()
        self.advance(9)
        for byte in POST:
            if not client.wire.disconnected:
                client.send(bytes([byte]))
                self.advance(1)
        self.assertTrue(client.wire.disconnected)
        self.assertEqual(client.wire.value(), b"")
        self.assertLess(self.clock.seconds(), 25)

    def test_slow_body(self) -> None:
        """So is one that trickles its body, however fast it began; its file is gone."""
        data = upload(file=b"x" * 50_000)
        client = self.ask(data[:20_000])
        self.advance(9)
        client.send(data[20_000:40_000])
        for at in range(40_000, 41_000, 100):
            self.assertFalse(client.wire.disconnected)
            self.advance(1)
            client.send(data[at : at + 100])
        self.advance(1)
        self.assertTrue(client.wire.disconnected)
        self.assertEqual(client.wire.value(), b"")
        client.leave()
        self.assertEqual(self.files(), [])

    def test_steady(self) -> None:
        """A client that is slow, but fast enough, is served."""
        data = upload(file=b"x" * 50_000)
        client = self.connect()
        for at in range(0, len(data), 600):
            client.send(data[at : at + 600])
            self.advance(1)
        self.assertEqual(client.statuses, [200])

    def test_slow_answer(self) -> None:
        """While we take our time, the client is not blamed."""
        self.scans.held = []
        client = self.ask(POST)
        self.advance(500)
        self.assertFalse(client.closed)
        self.scans.release()
        self.assertEqual(client.statuses, [200])

    def test_slow_disk(self) -> None:
        """Nor while the disk takes its time."""
        self.serve(upload_buffer_bytes=1000)
        self.threads.held = True
        data = upload(file=b"x" * 50_000)
        client = self.ask(data[:40_000])
        self.assertEqual(client.wire.producerState, "paused")
        self.advance(500)
        self.assertFalse(client.closed)
        self.threads.run()
        client.send(data[40_000:])
        self.threads.run()
        self.assertEqual(client.statuses, [200])

    def test_never_reads(self) -> None:
        """A client that never reads its answer is cut off."""
        client = self.ask(POST)
        client.channel.pauseProducing()
        self.advance(59)
        self.assertFalse(client.wire.disconnected)
        self.advance(3)
        self.assertTrue(client.wire.disconnected)

    def test_never_closes(self) -> None:
        """A connection that we closed, and that stays, is cut."""
        client = self.ask(request("OPTIONS", "/", b"", "", "Connection: close"))
        self.assertFalse(client.wire.disconnected)
        self.advance(17)
        self.assertTrue(client.wire.disconnected)

    def test_too_many_connections(self) -> None:
        """Connections have a limit."""
        self.serve(max_connections=2)
        self.connect()
        client = self.connect()
        self.assertIsNone(self.site.buildProtocol(None))
        client.leave()
        self.connect()

    def test_sweep_ends(self) -> None:
        """After the last listener and the last connection nothing is scheduled any more."""
        client = self.connect()
        self.site.doStop()
        self.assertTrue(self.clock.getDelayedCalls())
        client.leave()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.site.doStart()

    def test_drain(self) -> None:
        """At the end idle connections are closed, and requests in hand are answered."""
        self.scans.held = []
        idle, partial, busy, sending = (
            self.connect(),
            self.ask(POST[:20]),
            self.ask(POST + POST),
            self.ask(POST[:-5]),
        )
        drained = self.site.drain(secs=10)
        self.assertEqual((idle.closed, partial.closed, busy.closed), (True, True, False))
        idle.leave()
        partial.leave()
        sending.send(POST[-5:])
        self.scans.release()
        for client in (busy, sending):
            self.assertEqual(client.statuses, [200])
            self.assertEqual(client.reply.headers["Connection"], "close")
            self.assertTrue(client.closed)
            self.assertNoResult(drained)
            client.leave()
        self.successResultOf(drained)
        self.successResultOf(self.site.drain(secs=10))

    def test_drain_nothing(self) -> None:
        """With no connection it ends at once."""
        self.successResultOf(self.site.drain(secs=10))

    def test_drain_timeout(self) -> None:
        """It does not wait for ever."""
        self.scans.held = []
        self.ask(POST)
        drained = self.site.drain(secs=10)
        self.advance(9)
        self.assertNoResult(drained)
        self.advance(1)
        self.successResultOf(drained)

    def test_drain_keeps_idle_ones_a_while(self) -> None:
        """A client that asks just when we begin to end is answered; idle ones go after that."""
        asking, idle = self.ask(POST), self.connect()
        drained = self.site.drain(secs=10, idle_secs=2)
        self.assertEqual((asking.closed, idle.closed), (False, False))
        self.advance(1)
        asking.send(POST)
        self.assertEqual(asking.statuses, [200, 200])
        self.assertEqual(asking.replies[1].headers["Connection"], "close")
        self.assertTrue(asking.closed)
        asking.leave()
        self.assertFalse(idle.closed)
        self.advance(1)
        self.assertTrue(idle.closed)
        self.assertNoResult(drained)
        idle.leave()
        self.successResultOf(drained)

    def test_drain_is_short_where_nobody_is(self) -> None:
        """Without a connection nobody is waited for."""
        self.successResultOf(self.site.drain(secs=10, idle_secs=2))

    def test_announce(self) -> None:
        """Who is about to leave is not ready, and answers everybody once more."""
        kept, fresh = self.ask(POST), self.connect()
        self.site.announce()
        self.assertEqual((kept.closed, fresh.closed), (False, False))
        for client in (kept, fresh, self.connect()):
            client.send(POST)
            self.assertEqual(client.statuses[-1], 200)
            self.assertEqual(client.replies[-1].headers["Connection"], "close")
            self.assertTrue(client.closed)
        self.assertEqual(self.ask(request("GET", "/health/ready")).statuses, [503])


class KleinFramingTests(FramingTests):
    """The same, by way of Klein."""

    short_path = False


class KleinEarlyTests(EarlyTests):
    """The same, by way of Klein."""

    short_path = False


class KleinGateTests(GateTests):
    """The same, by way of Klein."""

    short_path = False


class KleinTimeTests(TimeTests):
    """The same, by way of Klein."""

    short_path = False


class MultipartSplitTests(WebCase):
    """Multipart bodies, however they are cut."""

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_any_split(self, data: st.DataObject) -> None:
        """Any split and any chunks of a multipart stream give the same artifact and file."""
        file = data.draw(
            st.lists(
                st.one_of(
                    st.binary(max_size=30),
                    st.sampled_from([b"\r\n", b"\r\n--", b"\r\n------xy", b"------xyz", b"\r"]),
                ),
                max_size=6,
            )
            .map(b"".join)
            .filter(lambda file: b"\r\n------xyz" not in b"\r\n" + file)
        )
        parts = [part("artifact", IP), part("file", file, file_name="x"), part("other", file)]
        body = multipart(*data.draw(st.permutations(parts)))
        body = data.draw(st.sampled_from([b"", b"\r\n", b"hello\r\n"])) + body + b"\r\nbye"
        whole = request("POST", "/", body, MULTIPART, chunks=data.draw(st.integers(0, 60)))
        cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=12).map(sorted))
        self.scans.submitted.clear()
        for self.site.short_path in (True, False):
            client = self.connect()
            for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
                client.send(whole[start:end])
            self.assertEqual(client.statuses, [200])
            client.leave()
        for _, artifact in self.scans.submitted:
            assert artifact.file is not None
            self.assertEqual(
                (artifact.value, artifact.file.size, artifact.file.md5),
                ("192.168.1.1", len(file), md5(file).hexdigest()),
            )
