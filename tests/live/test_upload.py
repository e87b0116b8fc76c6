"""Uploads to the real daemon: large ones, slow ones, unfinished ones."""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.daemon import Answer, Daemon, wait_until

MIB = 2**20
BOUNDARY = b"hNkAJef6-C3sLds5cHApeUTcq-9GtzFHS1"
HEAD = (
    b"--" + BOUNDARY + b"\r\n"
    b'Content-Disposition: form-data; name="artifact"\r\n'
    b"Content-Type: application/json; charset=UTF-8\r\n\r\n"
    b'{"type":"file.content","value":"big.bin"}\r\n'
    b"--" + BOUNDARY + b"\r\n"
    b'Content-Disposition: form-data; name="file"; filename="big.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
)
TAIL = b"\r\n--" + BOUNDARY + b"--\r\n"


class Client:
    """A client that speaks as the platform's does: chunked multipart, on one socket."""

    def __init__(self, daemon: Daemon) -> None:
        self.socket = socket.create_connection(("127.0.0.1", daemon.port), timeout=60)
        self.socket.sendall(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: multipart/form-data; boundary=" + BOUNDARY + b"\r\n\r\n"
        )

    def chunk(self, data: bytes) -> None:
        """Send a chunk."""
        self.socket.sendall(b"%x\r\n%b\r\n" % (len(data), data))

    def upload(self, pieces: Iterator[bytes]) -> None:
        """Send a whole file."""
        self.chunk(HEAD)
        for piece in pieces:
            self.chunk(piece)
        self.chunk(TAIL)
        self.socket.sendall(b"0\r\n\r\n")

    def answer(self) -> Answer:
        """Read the answer, to its end."""
        response = http.client.HTTPResponse(self.socket)
        response.begin()
        try:
            return Answer(response)
        finally:
            self.socket.close()


def zeros(mib: int) -> Iterator[bytes]:
    """So many MiB, in chunks of the size that the platform's client sends."""
    piece = bytes(64 * 1024)
    for _ in range(mib * 16):
        yield piece


class UploadTests(SynchronousTestCase):
    """Files of any size, in constant memory."""

    def daemon(self, config: str = "") -> Daemon:
        """A daemon that runs."""
        daemon = Daemon(Path(self.mktemp()), config)
        self.addCleanup(daemon.stop)
        daemon.start()
        return daemon

    def peak_mib(self, daemon: Daemon) -> float:
        """The most memory that it ever had."""
        assert daemon.process is not None
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) / 1024

    def spool_is_empty(self, daemon: Daemon) -> bool:
        """Whether nothing is left of any upload."""
        return not daemon.uploads()

    def test_gibibyte(self) -> None:
        """1 GiB, chunked: found by its hash, within 150 MiB, and nothing is left of it."""
        daemon = self.daemon()
        digest = hashlib.sha256()
        for piece in zeros(1024):
            digest.update(piece)
        artifact = f"hash.sha256={digest.hexdigest()}"
        daemon.ctsd("threats", "add", "--name", "Zeros", "--artifact", artifact)
        client = Client(daemon)
        client.upload(zeros(1024))
        answer = client.answer()
        self.assertEqual(answer.status, 200)
        self.assertIn(b"SHA-256 of the file", answer.body)
        self.assertLess(self.peak_mib(daemon), 150)
        wait_until(lambda: self.spool_is_empty(daemon), "an empty spool")

    def test_too_large(self) -> None:
        """A client that writes everything before it reads still reads the 413."""
        daemon = self.daemon("[upload]\nmax_bytes = 1000000\n")
        client = Client(daemon)
        client.upload(zeros(20))
        self.assertEqual(client.answer().status, 413)
        wait_until(lambda: self.spool_is_empty(daemon), "an empty spool")

    def test_client_leaves(self) -> None:
        """Of an upload that its client gives up nothing is left."""
        daemon = self.daemon()
        client = Client(daemon)
        client.chunk(HEAD)
        for piece in zeros(4):
            client.chunk(piece)
        wait_until(lambda: not self.spool_is_empty(daemon), "a file in the spool")
        client.socket.close()
        wait_until(lambda: self.spool_is_empty(daemon), "an empty spool")

    def test_killed(self) -> None:
        """What a crash left of an upload is gone after the next start."""
        daemon = self.daemon()
        client = Client(daemon)
        client.chunk(HEAD)
        for piece in zeros(4):
            client.chunk(piece)
        wait_until(lambda: not self.spool_is_empty(daemon), "a file in the spool")
        daemon.kill()
        client.socket.close()
        daemon.start()
        wait_until(lambda: self.spool_is_empty(daemon), "an empty spool")

    def test_slow(self) -> None:
        """Heads and bodies that come drop by drop are closed without an answer; others are not
        disturbed."""
        daemon = self.daemon("[http]\nmin_rate_bytes_per_sec = 1000\n")
        head = socket.create_connection(("127.0.0.1", daemon.port), timeout=60)
        body = Client(daemon)
        body.chunk(HEAD)
        started = time.monotonic()
        said = b"POST / HTTP/1.1\r\n"
        closed: set[socket.socket] = set()
        while len(closed) < 2 and time.monotonic() - started < 40:
            for client, drop in ((head, said), (body.socket, b"1\r\nx\r\n")):
                try:
                    client.sendall(drop)
                    client.settimeout(0.2)
                    if client.recv(1000) == b"":
                        closed.add(client)
                except TimeoutError:
                    pass
                except OSError:
                    closed.add(client)
            said = b"X-Drop: 1\r\n"
            self.assertEqual(daemon.post("net.uri", "www.megastore.lu").status, 200)
        self.assertEqual(len(closed), 2)
        head.close()
        body.socket.close()
        wait_until(lambda: self.spool_is_empty(daemon), "an empty spool")
