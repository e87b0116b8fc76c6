"""Tests of how answers leave, over real sockets: whole and in order, however the client reads."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ctsd.model import EncodedHit
from ctsd.spool import Spool
from ctsd.web.limits import WebLimits
from ctsd.web.site import make_site
from tests.web_fakes import FakeScans, numbered_ids

reactor: Any = installed

POST = (
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b'Content-Length: 39\r\n\r\n{"type": "net.ip", "value": "10.1.1.1"}'
)


class DeliveryTests(TestCase):
    """Answers that the kernel takes at once, in parts, or not yet."""

    def listen(self, hit_bytes: int, short_path: bool) -> int:
        """A site whose answers have about this size; its port."""
        filler = b"x" * hit_bytes
        hit = EncodedHit(b'{"props":[{"type":"string","name":"n","value":"%b"}]}' % filler)
        site = make_site(
            reactor=reactor,
            scans=FakeScans(hits=(hit,)),
            spool=Spool(reactor=reactor, directory=Path(self.mktemp())),
            mint=numbered_ids(),
            limits=WebLimits(),
            allowed_hosts=(),
            loopback=True,
            short_path=short_path,
        )
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(lambda: site.drain(secs=5))
        number: int = port.getHost().port
        return number

    def read_late(self, port: int, requests: int) -> bytes:
        """Pipelined requests by a client that reads late, with a small buffer."""
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(30)
            client.connect(("127.0.0.1", port))
            client.sendall(
                POST * (requests - 1) + POST.replace(b"Host", b"Connection: close\r\nHost")
            )
            time.sleep(0.3)
            said = b""
            while data := client.recv(65536):
                said += data
            return said

    def ask(self, port: int, requests: int) -> Deferred[bytes]:
        """In a thread."""
        return deferToThread(self.read_late, port, requests)

    async def whole(self, short_path: bool) -> None:
        """Every answer is whole, whatever its size."""
        for hit_bytes, requests in ((10, 20), (300_000, 10)):
            port = self.listen(hit_bytes, short_path)
            said = await self.ask(port, requests)
            bodies = said.split(b"HTTP/1.1 200 OK\r\n")
            self.assertEqual((bodies[0], len(bodies)), (b"", requests + 1))
            for body in bodies[1:]:
                head, _, rest = body.partition(b"\r\n\r\n")
                (length,) = [
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                ]
                self.assertEqual(len(rest), length)
                self.assertEqual(rest.count(b"x"), hit_bytes)

    def test_short_path(self) -> Deferred[None]:
        """Past Klein."""
        return Deferred.fromCoroutine(self.whole(True))

    def test_klein(self) -> Deferred[None]:
        """Through Klein."""
        return Deferred.fromCoroutine(self.whole(False))
