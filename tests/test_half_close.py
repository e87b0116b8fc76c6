"""Clients that end their sending side with their request, as C{nc} does; over real sockets."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, wrapServerTLS
from twisted.internet.ssl import CertificateOptions
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ctsd.spool import Spool
from ctsd.tls import CertificateFiles
from ctsd.web.answers import Answer
from ctsd.web.limits import WebLimits
from ctsd.web.site import CTSSite, make_site
from tests.certificates import make_pair
from tests.web_fakes import FakeScans, numbered_ids
from tests.web_fixtures import MULTIPART, replies_in, request, upload

IP = b'{"type":"net.ip","value":"192.168.1.1"}'
POST = request("POST", "/", IP)


class HalfCloseCase(TestCase):
    """A site that listens, on either of the two ways that requests take."""

    short_path = True
    timeout = 30

    def setUp(self) -> None:
        """Make it."""
        self.scans = FakeScans()
        self.directory = Path(mkdtemp())
        self.addCleanup(rmtree, self.directory)
        self.spool = Spool(reactor=reactor, directory=self.directory / "spool", keep_free_bytes=0)

    async def listen(self, *, gate: Any = None, tls: Any = None, **limits: Any) -> int:
        """Listen; the port."""
        self.site: CTSSite = make_site(
            reactor=reactor,
            scans=self.scans,
            spool=self.spool,
            mint=numbered_ids(),
            limits=WebLimits(**limits),
            allowed_hosts=(),
            loopback=True,
            short_path=self.short_path,
            gate=gate,
        )
        endpoint: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await (wrapServerTLS(tls, endpoint) if tls else endpoint).listen(self.site)

        async def stop() -> None:
            await port.stopListening()
            await self.site.drain(secs=5)
            await until(lambda: not self.site.channels)

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        number: int = port.getHost().port
        return number

    def files(self) -> list[Path]:
        """What lies in the spool directory."""
        return list(self.spool.directory.iterdir()) if self.spool.directory.exists() else []


class HalfCloseTests(HalfCloseCase):
    """Over TCP."""

    async def asked(self, data: bytes, **listening: Any) -> list[int]:
        """The statuses that are answered to this and the end of it, until we end."""
        port = await self.listen(**listening)
        answer = await deferToThread(send, port, data)
        await until(lambda: not self.site.channels)
        return [reply.status for reply in replies_in(answer)]

    async def test_answered(self) -> None:
        """A request in one go with the end is answered, and that is the connection's end."""
        port = await self.listen()
        (reply,) = replies_in(await deferToThread(send, port, POST))
        self.assertEqual((reply.status, len(self.scans.submitted)), (200, 1))

    async def test_answered_later(self) -> None:
        """So it is when the scan takes its time."""
        self.scans.held = []
        port = await self.listen()
        sending = deferToThread(send, port, POST)
        await until(lambda: bool(self.scans.held))
        # For the end to arrive.
        await deferToThread(time.sleep, 0.1)
        self.scans.release()
        (reply,) = replies_in(await sending)
        self.assertEqual((reply.status, reply.headers["Connection"]), (200, "close"))

    async def test_pipeline(self) -> None:
        """All requests that were sent are answered."""
        self.assertEqual(await self.asked(POST * 3), [200, 200, 200])

    async def test_pipeline_unfinished(self) -> None:
        """What was begun and not ended behind them is not."""
        self.assertEqual(await self.asked(POST * 2 + POST[:-3]), [200, 200])
        self.assertEqual(len(self.scans.submitted), 2)

    async def test_upload(self) -> None:
        """A file is kept and asked about."""
        self.assertEqual(await self.asked(upload(file=b"x" * 200_000, chunks=5000)), [200])
        ((_, artifact),) = self.scans.submitted
        assert artifact.file is not None
        self.assertEqual(artifact.file.size, 200_000)

    async def test_unfinished_bodies(self) -> None:
        """Who ends in the middle of a body, or of a head, gets nothing and leaves nothing."""
        for data in (
            b"",
            b"POST / HT",
            POST[:-1],
            request("POST", "/", IP, chunks=10)[:-2],
            upload(file=b"x" * 200_000)[:-3],
            upload(file=b"x" * 200_000, chunks=5000)[:150_000],
        ):
            self.assertEqual(await self.asked(data), [], data[:80])
            await until(lambda: not self.spool.writing + self.spool.used_bytes)
            self.assertEqual((self.scans.submitted, self.files()), ([], []))

    async def test_refused(self) -> None:
        """Who ends in the middle of a body that was refused finds the refusal."""
        body = request("POST", "/", b"x" * 3_000_000, MULTIPART)
        self.assertEqual(
            await self.asked(body[:2_000_000], upload_max_bytes=1000, max_json_bytes=1000), [413]
        )

    async def test_gate(self) -> None:
        """A gate that takes its time changes nothing of that."""
        for data, statuses in ((POST, [200]), (POST * 2, [200, 200]), (POST[:-1], [])):
            verdicts: list[Deferred[Answer | None]] = []

            def gate(request: Any, verdicts: Any = verdicts) -> Deferred[Answer | None]:
                verdicts.append(Deferred())
                reactor.callLater(0.1, verdicts[-1].callback, None)  # type: ignore[attr-defined]
                return verdicts[-1]  # type: ignore[no-any-return]

            self.assertEqual(await self.asked(data, gate=gate), statuses)

    async def test_gone(self) -> None:
        """Who has gone altogether, while an answer is made, is noticed when it is sent."""
        self.scans.held = []
        port = await self.listen()
        await deferToThread(send, port, POST, read=False)
        await until(lambda: bool(self.scans.held))
        self.scans.release()
        await until(lambda: not self.site.channels)


class KleinHalfCloseTests(HalfCloseTests):
    """The same by way of Klein."""

    short_path = False


class TLSHalfCloseTests(HalfCloseCase):
    """Over TLS, where who ends ends all."""

    async def test_ends(self) -> None:
        """The end of the client's side is the end of the connection, answered or not."""
        make_pair().write(self.directory)
        files = CertificateFiles(
            key=self.directory / "key.pem", certificate=self.directory / "cert.pem"
        )
        options: CertificateOptions = files.load()
        port = await self.listen(tls=options)
        self.scans.held = []
        await deferToThread(send_tls, port, POST)
        await until(lambda: bool(self.scans.held) and not self.site.channels)
        self.scans.release()
        await deferToThread(send_tls, port, upload(file=b"x" * 200_000)[:-3])
        # A thread removes the file.
        await until(lambda: not (self.site.channels or self.spool.writing or self.files()))
        self.assertEqual(len(self.scans.submitted), 1)


async def until(done: Callable[[], bool]) -> None:
    """Wait for something, but not for ever."""
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        await deferToThread(time.sleep, 0.01)


def send(port: int, data: bytes, *, read: bool = True) -> bytes:
    """Send this and the end of it, and read until the other side ends, or go away at once."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while read and (piece := sock.recv(65536)):
            answer += piece
        return answer


def send_tls(port: int, data: bytes) -> None:
    """The same, but for reading, over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as sock,
        context.wrap_socket(sock) as tls,
    ):
        tls.sendall(data)
        tls.unwrap()
