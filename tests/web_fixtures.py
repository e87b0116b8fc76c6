"""A site without a network: connections over strings, threads that run when they are told to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ctsd.spool import Spool
from ctsd.web.channel import Channel
from ctsd.web.health import Health
from ctsd.web.limits import WebLimits
from ctsd.web.page import Page
from ctsd.web.site import make_site
from tests.web_fakes import FakeScans, numbered_ids

BOUNDARY = "----xyz"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


class Threads:
    """Runs work at once; or, when C{held}, when it is told to."""

    def __init__(self) -> None:
        self.held = False
        self.jobs: list[Callable[[], None]] = []

    def __call__(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Take a job."""
        if not self.held:
            return maybeDeferred(work, *args)
        done: Deferred[Any] = Deferred()
        self.jobs.append(lambda: maybeDeferred(work, *args).chainDeferred(done))
        return done

    def run(self) -> None:
        """Do the jobs that wait, and those that they bring."""
        while self.jobs:
            self.jobs.pop(0)()


class Wire(StringTransport):
    """The other end of a connection."""

    half_closed = False

    def loseWriteConnection(self) -> None:
        """Note it."""
        self.half_closed = True


@frozen
class Reply:
    """One answer, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes


def replies_in(data: bytes, *, bodies: bool = True) -> list[Reply]:
    """All answers in what was sent; C{bodies} is False when they answer HEAD."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        size = int(headers.get("Content-Length", "0")) if bodies else 0
        found.append(Reply(int(first.split(" ")[1]), headers, data[:size]))
        data = data[size:]
    return found


@define
class Client:
    """A connected client."""

    channel: Channel
    wire: Wire

    def send(self, data: bytes, *, by: int = 0) -> Client:
        """Send something, perhaps in pieces of C{by} bytes."""
        step = by or len(data) or 1
        for at in range(0, len(data), step):
            if not self.wire.disconnecting:
                self.channel.dataReceived(data[at : at + step])
        return self

    @property
    def replies(self) -> list[Reply]:
        """All answers until now."""
        return replies_in(self.wire.value())

    @property
    def reply(self) -> Reply:
        """The one answer."""
        (only,) = self.replies
        return only

    @property
    def statuses(self) -> list[int]:
        """Of all answers."""
        return [reply.status for reply in self.replies]

    @property
    def closed(self) -> bool:
        """Whether we ended the connection."""
        return bool(self.wire.disconnecting)

    def leave(self) -> None:
        """The client goes away."""
        self.channel.connectionLost(Failure(ConnectionDone()))


def request(
    method: str = "GET",
    path: str = "/",
    body: bytes = b"",
    content_type: str = "application/json",
    *headers: str,
    chunks: int = 0,
) -> bytes:
    """The bytes of a request; with C{chunks}, its body in chunks of that size."""
    lines = [f"{method} {path} HTTP/1.1", "Host: ctsd.example", *headers]
    if body or method == "POST":
        lines.append(f"Content-Type: {content_type}")
        lines.append("Transfer-Encoding: chunked" if chunks else f"Content-Length: {len(body)}")
    if chunks:
        pieces = [body[at : at + chunks] for at in range(0, len(body), chunks)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in [*pieces, b""])
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def part(name: str, body: bytes, *headers: str, file_name: str | None = None) -> bytes:
    """One part of a multipart body; C{file_name} as it stands in the header."""
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if file_name is not None:
        disposition += f"; filename={file_name}"
    head = "\r\n".join([disposition, *headers])
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + body + b"\r\n"


def multipart(*parts: bytes) -> bytes:
    """A multipart body of parts."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def upload(
    artifact: bytes = b'{"type":"file.content"}', file: bytes = b"abc", *headers: str, **kw: Any
) -> bytes:
    """A request that uploads a file."""
    body = multipart(part("artifact", artifact), part("file", file, file_name='"a.exe"'))
    return request("POST", "/", body, MULTIPART, *headers, **kw)


class WebCase(SynchronousTestCase):
    """A test of a site; C{short_path} says which of the two ways requests take."""

    short_path = True

    def setUp(self) -> None:
        """A site with everything at its defaults; see L{serve} to change that."""
        self.clock = Clock()
        self.scans = FakeScans()
        self.threads = Threads()
        self.directory = Path(mkdtemp()) / "spool"
        self.addCleanup(rmtree, self.directory.parent, ignore_errors=True)
        self.serve()

    def serve(
        self,
        *,
        allowed_hosts: tuple[str, ...] = (),
        loopback: bool = False,
        spool: dict[str, Any] | None = None,
        gate: Any = None,
        page: Page | None = None,
        health: Health | None = None,
        **limits: Any,
    ) -> None:
        """Make the site (again), with other limits."""
        self.spool = Spool(
            reactor=self.clock,
            directory=self.directory,
            in_thread=self.threads,
            **{"keep_free_bytes": 0, **(spool or {})},
        )
        self.site = make_site(
            reactor=self.clock,
            scans=self.scans,
            spool=self.spool,
            mint=numbered_ids(),
            limits=WebLimits(**limits),
            allowed_hosts=allowed_hosts,
            loopback=loopback,
            short_path=self.short_path,
            gate=gate,
            page=page,
            health=health,
            in_thread=self.threads,
        )
        self.site.doStart()
        self.addCleanup(self.site.doStop)

    def connect(self) -> Client:
        """A new connection."""
        channel = self.site.buildProtocol(None)
        assert channel is not None
        wire = Wire()
        channel.makeConnection(wire)
        return Client(channel, wire)

    def ask(self, data: bytes, *, by: int = 0) -> Client:
        """A new connection that sends this."""
        return self.connect().send(data, by=by)

    def post(self, artifact: bytes, path: str = "/", *headers: str) -> Reply:
        """The answer to a JSON body."""
        return self.ask(request("POST", path, artifact, "application/json", *headers)).reply

    def files(self) -> list[Path]:
        """What lies in the spool directory."""
        return sorted(self.directory.iterdir()) if self.directory.exists() else []

    def incidents(self) -> int:
        """How many unexpected errors were logged, and forget them."""
        return len(self.flushLoggedErrors())
