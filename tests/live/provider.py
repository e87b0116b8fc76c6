"""A provider of feeds on loopback that has every vice."""

from __future__ import annotations

import gzip
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import define, field

from tests.certificates import Pair

#: Ends whatever a vice does, should nobody else.
LONGEST_SECS = 60.0


@define
class Asked:
    """One request that came: its path with the query, and its headers by lower-case name."""

    path: str
    headers: dict[str, str] = field(factory=dict)


class Connection:
    """What a vice has: the client's socket, and what it asked."""

    def __init__(self, opened: socket.socket, asked: Asked, over: threading.Event) -> None:
        self.socket = opened
        self.asked = asked
        self.over = over

    def send(self, *pieces: bytes) -> None:
        """Send bytes as they are."""
        for piece in pieces:
            self.socket.sendall(piece)

    def answer(self, status: str, *headers: str, body: bytes = b"", length: int = -1) -> None:
        """A whole answer, unless C{length} is another one than the body's."""
        lines = [f"HTTP/1.1 {status}", *headers]
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
        lines.append("Connection: close")
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def wait(self, secs: float = LONGEST_SECS) -> bool:
        """Do nothing for a while; whether the test is over."""
        return self.over.wait(secs)


Vice = Callable[[Connection], None]


class Provider(socketserver.ThreadingTCPServer):
    """
    Answers each path with its vice, in threads that end with it.

    :ivar vices: by path.
    :ivar asked: every request, in order.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, pair: Pair | None = None, directory: Path | None = None) -> None:
        """
        :param pair: makes it speak TLS.
        :param directory: for the pair's files.
        """
        self.vices: dict[str, Vice] = {}
        self.asked: list[Asked] = []
        self.over = threading.Event()
        self._context: ssl.SSLContext | None = None
        if pair is not None:
            assert directory is not None
            directory.mkdir(parents=True, exist_ok=True)
            pair.write(directory)
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
        super().__init__(("127.0.0.1", 0), _Answers)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.server_address[1]
        return port

    def url(self, path: str, host: str = "localhost") -> str:
        """The address of a path."""
        scheme = "https" if self._context is not None else "http"
        return f"{scheme}://{host}:{self.port}{path}"

    def greeted(self, opened: socket.socket) -> socket.socket:
        """A connection, after its handshake."""
        opened.settimeout(LONGEST_SECS)
        if self._context is None:
            return opened
        return self._context.wrap_socket(opened, server_side=True)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients go away in the middle: that is what is tested."""

    def end(self) -> None:
        """Stop."""
        self.over.set()
        self.shutdown()
        self.server_close()
        self._thread.join(10)


class _Answers(socketserver.BaseRequestHandler):
    server: Provider

    def handle(self) -> None:
        """One connection, one request."""
        opened = self.server.greeted(self.request)
        try:
            asked = read_request(opened)
            self.server.asked.append(asked)
            vice = self.server.vices.get(asked.path.partition("?")[0])
            connection = Connection(opened, asked, self.server.over)
            if vice is None:
                connection.answer("404 Not Found")
            else:
                vice(connection)
        finally:
            opened.close()


def read_request(opened: socket.socket) -> Asked:
    """Read the head of a request."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = opened.recv(65536)
        if not piece:
            raise ConnectionError("it ended")
        head += piece
    head, _, body = head.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    # What is not read makes for a reset when the connection is closed.
    while len(body) < int(headers.get("content-length", "0")):
        body += opened.recv(65536)
    return Asked(first.split(" ")[1], headers)


# -- vices


def serves(body: bytes, *headers: str) -> Vice:
    """The file, as it should be."""
    return lambda connection: connection.answer("200 OK", *headers, body=body)


def says(status: str, *headers: str, body: bytes = b"") -> Vice:
    """One answer."""
    return lambda connection: connection.answer(status, *headers, body=body)


def drips(connection: Connection) -> None:
    """A byte from time to time, for ever."""
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not connection.wait(0.1):
        connection.send(b"x")


def silent(connection: Connection) -> None:
    """Never an answer."""
    connection.wait()


def silent_after_head(connection: Connection) -> None:
    """A head, and nothing more."""
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    connection.wait()


def _until_over(connection: Connection, piece: bytes) -> None:
    while not connection.over.is_set():
        connection.send(piece)


def endless_body(connection: Connection) -> None:
    """A body without an end."""
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    _until_over(connection, b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def endless_head(connection: Connection) -> None:
    """Headers without an end."""
    connection.send(b"HTTP/1.1 200 OK\r\n")
    _until_over(connection, b"X-More: " + b"x" * 1000 + b"\r\n")


def cut_by_length(connection: Connection) -> None:
    """Less than it said."""
    connection.answer("200 OK", body=b"192.0.2.1\n" * 10, length=1000)


def cut_in_chunks(connection: Connection) -> None:
    """No last chunk."""
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")


def resets(connection: Connection) -> None:
    """A reset in the middle of the body."""
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhello")
    connection.wait(0.2)
    linger = struct.pack("ii", 1, 0)
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def no_http(connection: Connection) -> None:
    """Something else than HTTP."""
    connection.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


def redirects(where: str, status: str = "302 Found") -> Vice:
    """To somewhere else."""
    return says(status, f"Location: {where}")


def bomb(size: int, beginning: bytes = b"") -> bytes:
    """A gzip file that becomes so large."""

    def pieces() -> Iterator[bytes]:
        yield beginning
        for _ in range(0, size, 1 << 20):
            yield b"\n" * (1 << 20)

    return gzip.compress(b"".join(pieces()))
