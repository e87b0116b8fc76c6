"""Uploaded files: names, hashes, the disk, and that nothing is left behind."""

from __future__ import annotations

import fcntl
import hashlib
import os
import resource
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ctsd.errors import StoreError, Unavailable
from ctsd.model import File
from ctsd.spool import Spool
from ctsd.uploads import boundary_of, file_name
from ctsd.web.limits import WebLimits
from ctsd.web.site import make_site
from tests.web_fakes import FakeScans, numbered_ids
from tests.web_fixtures import (
    BOUNDARY,
    MULTIPART,
    Threads,
    WebCase,
    multipart,
    part,
    replies_in,
    request,
    upload,
)

ARTIFACT = part("artifact", b'{"type":"file.content"}')
OTHER_FILE = b'{"type":"file.content","value":"x"}'


class UploadTests(WebCase):
    """Files on their way through a request."""

    def setUp(self) -> None:
        """Files stay where they are."""
        super().setUp()
        self.scans.keep_files = True

    def uploaded(self, body: bytes, **kw: Any) -> File:
        """The file that a multipart body brings to a scan."""
        client = self.ask(request("POST", "/", body, MULTIPART, **kw), by=100)
        self.assertEqual(client.statuses, [200])
        artifact = self.scans.submitted[-1][1]
        assert artifact.file is not None
        return artifact.file

    def assertNothingLeft(self) -> None:
        """The spool directory is empty, and nothing is accounted for."""
        self.assertEqual((self.files(), self.spool.used_bytes, self.spool.writing), ([], 0, 0))

    def test_file(self) -> None:
        """A scan gets the bytes, their hashes, size, name and type; in any order of parts."""
        data = os.urandom(5000)
        file_part = part(
            "file", data, "Content-Type: application/x-msdownload", file_name='"a.exe"'
        )
        for parts in (
            (ARTIFACT, file_part),
            (file_part, ARTIFACT),
            (part("x", b"y"), file_part, ARTIFACT),
        ):
            for chunks in (0, 77):
                file = self.uploaded(multipart(*parts), chunks=chunks)
                self.assertEqual(file.path.read_bytes(), data)
                self.assertEqual(
                    (file.md5, file.sha1, file.sha256),
                    tuple(
                        hashlib.new(name, data).hexdigest() for name in ("md5", "sha1", "sha256")
                    ),
                )
                self.assertEqual(
                    (file.size, file.name, file.content_type),
                    (5000, "a.exe", "application/x-msdownload"),
                )

    def test_empty_file(self) -> None:
        """An empty file is a file."""
        file = self.uploaded(multipart(ARTIFACT, part("file", b"", file_name="x")))
        self.assertEqual((file.size, file.path.read_bytes()), (0, b""))
        self.assertEqual(file.md5, hashlib.md5(b"").hexdigest())

    def test_modes(self) -> None:
        """Nobody else can read it, or tell it by its name."""
        file = self.uploaded(multipart(ARTIFACT, part("file", b"x", file_name="secret")))
        self.assertEqual(stat.S_IMODE(file.path.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.directory.stat().st_mode), 0o700)
        self.assertNotIn("secret", file.path.name)

    def test_doubled(self) -> None:
        """Of parts with one name the first counts."""
        body = multipart(
            ARTIFACT,
            part("artifact", b"nonsense"),
            part("file", b"1", file_name="1"),
            part("file", b"22", file_name="2"),
        )
        file = self.uploaded(body)
        self.assertEqual((file.name, file.size, len(self.files())), ("1", 1, 1))

    def test_long_name(self) -> None:
        """A name that is too long is cut, never refused."""
        file = self.uploaded(
            multipart(ARTIFACT, part("file", b"x", file_name='"' + "n" * 9000 + '"'))
        )
        self.assertEqual(file.name, "n" * 255)

    def test_durable_first(self) -> None:
        """No scan sees the file before it would survive a power loss."""
        synced: list[str] = []
        real = os.fsync

        def fsync(fd: int) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{fd}"))
            real(fd)

        self.patch(os, "fsync", fsync)
        self.threads.held = True
        client = self.ask(upload())
        self.threads.jobs.pop(0)()
        self.assertEqual((self.scans.submitted, synced), ([], []))
        self.threads.run()
        self.assertEqual(client.statuses, [200])
        ((_, artifact),) = self.scans.submitted
        assert artifact.file is not None
        self.assertEqual(synced, [str(artifact.file.path), str(self.directory)])

    def test_one_job_at_a_time(self) -> None:
        """While one piece is written the next ones wait, and are then written together."""
        self.threads.held = True
        client = self.connect()
        client.send(upload(file=b"x" * 5000), by=500)
        self.assertEqual(len(self.threads.jobs), 1)
        jobs = 0
        while self.threads.jobs:
            self.threads.jobs.pop(0)()
            self.assertLessEqual(len(self.threads.jobs), 1)
            jobs += 1
        self.assertEqual((client.statuses, jobs), ([200], 3))

    def test_backpressure(self) -> None:
        """When too much waits for the disk, the client waits, too."""
        self.serve(upload_buffer_bytes=10_000)
        self.threads.held = True
        data = upload(file=b"x" * 100_000)
        client = self.connect()
        at = 0
        while at < len(data):
            while client.wire.producerState == "producing" and at < len(data):
                client.send(data[at : at + 1000])
                at += 1000
            self.assertLess(self.spool.used_bytes, 100_001)
            self.threads.run()
            self.assertEqual(client.wire.producerState, "producing")
        self.assertEqual(client.statuses, [200])

    def test_backpressure_is_bounded(self) -> None:
        """No more than the buffer and one read is held."""
        self.serve(upload_buffer_bytes=10_000)
        self.threads.held = True
        data = upload(file=b"x" * 100_000)
        client = self.connect()
        for at in range(0, len(data), 1000):
            if client.wire.producerState != "producing":
                break
            client.send(data[at : at + 1000])
        self.assertLessEqual(self.spool.used_bytes, 12_000)

    def test_leaves(self) -> None:
        """A client that leaves in the middle leaves no file."""
        data = upload(file=b"x" * 5000)
        for cut in (400, 3000, len(data) - 1):
            client = self.ask(data[:cut])
            client.leave()
            self.assertNothingLeft()
        self.assertEqual(self.scans.submitted, [])

    def test_leaves_while_disk_works(self) -> None:
        """Nor does one that leaves while a thread writes, or syncs."""
        self.threads.held = True
        data = upload(file=b"x" * 5000)
        for cut, jobs in ((3000, 0), (3000, 1), (len(data), 0), (len(data), 1)):
            client = self.ask(data[:cut])
            for _ in range(jobs):
                self.threads.jobs.pop(0)()
            client.leave()
            self.threads.run()
            self.assertNothingLeft()
        self.assertEqual(self.scans.submitted, [])

    def test_leaves_after_file(self) -> None:
        """Nor one that leaves when its file is complete and the artifact is not."""
        body = multipart(part("file", b"x" * 100, file_name="x"), ARTIFACT)
        client = self.ask(request("POST", "/", body, MULTIPART)[:-20])
        self.assertEqual(len(self.files()), 1)
        client.leave()
        self.assertNothingLeft()

    def test_leaves_after_submit(self) -> None:
        """The file of a scan that goes on stays, though its client has left."""
        self.scans.held = []
        client = self.ask(upload())
        client.leave()
        ((_, artifact),) = self.scans.submitted
        assert artifact.file is not None
        self.assertEqual(artifact.file.path.read_bytes(), b"abc")
        self.scans.release()
        self.assertEqual(len(self.files()), 1)

    def test_breaks_off(self) -> None:
        """A body that is malformed after its file leaves none, either."""
        for end in (b"", b"--" + BOUNDARY.encode() + b"XX", part("artifact", b"{"), b"0" * 99):
            body = part("file", b"x" * 100, file_name="x") + end
            self.assertEqual(self.ask(request("POST", "/", body, MULTIPART)).statuses, [400])
            self.assertNothingLeft()
        chunked = request("POST", "/", multipart(ARTIFACT, body), MULTIPART, chunks=50)
        client = self.ask(chunked.removesuffix(b"0\r\n\r\n") + b"nonsense\r\n")
        self.assertEqual(client.statuses, [400])
        self.assertNothingLeft()

    def test_disk_fails(self) -> None:
        """A disk that fails is 503, and leaves nothing."""
        self.directory.write_bytes(b"in the way")
        self.addCleanup(self.directory.unlink)
        client = self.ask(upload())
        self.assertEqual(client.statuses, [503])
        self.assertIn("Retry-After", client.reply.headers)
        self.assertEqual((self.spool.used_bytes, self.spool.writing), (0, 0))
        self.assertGreaterEqual(self.incidents(), 1)

    def test_disk_fails_late(self) -> None:
        """So is one that fails when everything is there but not on it yet."""

        def fsync(fd: int) -> None:
            raise OSError("full")

        self.patch(os, "fsync", fsync)
        for held in (False, True):
            self.threads.held = held
            client = self.ask(upload())
            self.threads.run()
            self.assertEqual(client.statuses, [503])
            self.assertNothingLeft()
        self.assertEqual(self.incidents(), 2)
        self.assertEqual(self.scans.submitted, [])

    def test_full(self) -> None:
        """Without room it is 503: before the body is invited, where its length is known."""
        data = upload(file=b"x" * 100_000)
        for spool in ({"max_bytes": 90_000}, {"keep_free_bytes": 2**60}, {"max_concurrent": 0}):
            self.serve(spool=spool)
            client = self.ask(data[:300])
            self.assertEqual(client.statuses, [503])
            self.assertIn("Retry-After", client.reply.headers)
            client = self.ask(upload(file=b"x" * 100_000, chunks=5000))
            self.assertEqual(client.statuses, [503])
            self.assertNothingLeft()

    def test_full_takes_small(self) -> None:
        """A full spool does not hinder artifacts without a file."""
        self.serve(spool={"max_concurrent": 0})
        body = multipart(part("artifact", OTHER_FILE.replace(b"file.content", b"net.ip")))
        for chunks in (0, 10):
            client = self.ask(request("POST", "/", body, MULTIPART, chunks=chunks))
            self.assertEqual(client.statuses, [200])

    def test_concurrent(self) -> None:
        """Only so many files at once."""
        self.serve(spool={"max_concurrent": 2})
        data = upload(file=b"x" * 1000)
        first, second = self.ask(data[:-100]), self.ask(data[:-100])
        self.assertEqual(self.ask(data).statuses, [503])
        self.assertEqual(first.send(data[-100:]).statuses, [200])
        self.assertEqual(self.ask(data).statuses, [200])
        second.leave()

    def test_used_bytes(self) -> None:
        """Files count until they are removed."""
        self.serve(spool={"max_bytes": 1500})
        data = upload(file=b"x" * 1000)
        self.assertEqual(self.ask(data).statuses, [200])
        self.assertEqual(self.ask(data).statuses, [503])
        self.spool.remove(paths=self.files())
        self.assertEqual(self.ask(data).statuses, [200])


class KleinUploadTests(UploadTests):
    """The same, by way of Klein."""

    short_path = False


class NameTests(SynchronousTestCase):
    """What files are called."""

    def test_names(self) -> None:
        """Quoted, unquoted, escaped, encoded and non-ASCII names are understood."""
        utf8 = "bücher.txt".encode().decode("latin-1")
        for given, name in (
            ('filename="a b.exe"', "a b.exe"),
            ("filename=a.exe", "a.exe"),
            ("filename=a b.exe", "a b.exe"),
            ("filename=a.exe; x=y", "a.exe"),
            ("FileName = a.exe ", "a.exe"),
            ('filename="a;b.exe"; x=y', "a;b.exe"),
            (r'filename="a\"b.exe"', 'a"b.exe'),
            ('filename="a%22b.exe"', 'a"b.exe'),
            (r'filename="C:\dir\a.exe"', "a.exe"),
            (f'filename="{utf8}"', "bücher.txt"),
            (f"filename={utf8}", "bücher.txt"),
            ('filename="b\xfccher.txt"', "bücher.txt"),
            ("filename=x; filename*=UTF-8''b%c3%bccher.txt", "bücher.txt"),
            ("filename*=iso-8859-1'de'b%fccher.txt; filename=x", "bücher.txt"),
            ("filename*=UTF-8''; filename=x", "x"),
            ("filename*=broken; filename=x", "x"),
            ("filename=\"; filename*=UTF-8''y\"", "; filename*=UTF-8''y"),
            ('filename=""', ""),
            ("x=y", ""),
            ("filename=" + "n" * 300, "n" * 255),
        ):
            self.assertEqual(file_name(f'form-data; name="file"; {given}'), name, given)

    def test_boundaries(self) -> None:
        """Boundaries are found, quoted or not; without one a body is not multipart."""
        for given, boundary in (
            (b"multipart/form-data; boundary=abc", b"abc"),
            (b'Multipart/Form-Data; charset=utf-8; BOUNDARY="a b:c"', b"a b:c"),
            (b"multipart/form-data;boundary=a=b; x=y", b"a=b"),
            (b"multipart/mixed; boundary=abc", b"abc"),
            (b"multipart/form-data", None),
            (b"multipart/form-data; boundary=", None),
            (b"multipart/form-data; boundary=" + b"x" * 1000, None),
            (b"application/json; boundary=abc", None),
            (b"", None),
        ):
            self.assertEqual(boundary_of(given), boundary, given)


class SpoolTests(SynchronousTestCase):
    """The directory."""

    def setUp(self) -> None:
        """A spool that works at once."""
        self.directory = Path(mkdtemp())
        self.addCleanup(rmtree, self.directory)
        self.threads = Threads()
        self.spool = self.make()

    def make(self) -> Spool:
        """A spool, as after a start."""
        return Spool(
            reactor=Clock(),
            directory=self.directory,
            in_thread=self.threads,
            keep_free_bytes=0,
            max_bytes=1000,
        )

    def file(self, spool: Spool, data: bytes = b"x" * 10) -> File:
        """A file in it."""
        spooled = spool.create(on_level=lambda level: None, on_failure=self.fail)
        spooled.write(data)
        return self.successResultOf(spooled.finish(name="n", content_type="t"))

    def test_sweep(self) -> None:
        """After a crash, what no scan needs goes; what one needs stays, and counts."""
        needed, left = self.file(self.spool).path, self.file(self.spool).path
        spool = self.make()
        mine = self.file(spool).path
        making = spool.create(on_level=lambda level: None, on_failure=self.fail)
        making.write(b"abc")
        spool.sweep(keep={needed, Path("/elsewhere")})
        self.assertEqual((needed.exists(), left.exists(), mine.exists()), (True, False, True))
        self.assertEqual(spool.used_bytes, 10 + 10 + 3)
        self.successResultOf(making.finish(name="", content_type=""))
        spool.sweep(keep={needed, mine})
        self.assertEqual(spool.used_bytes, 10 + 10 + 3)

    def test_missing(self) -> None:
        """It can be asked which files can't be seen."""
        here, gone = self.directory / "here", self.directory / "gone"
        self.directory.mkdir(exist_ok=True)
        here.write_bytes(b"x")
        missing = self.make().missing(paths=[here, gone])
        self.assertEqual(self.successResultOf(missing), {gone})

    def test_sweep_beside_others(self) -> None:
        """What a process that lives has written stays; what a dead one left goes, and its lock."""
        self.spool.open()
        other = self.make()
        other.open()
        theirs, left = self.file(other).path, self.file(self.make()).path
        self.spool.sweep(keep=set())
        self.assertEqual((theirs.exists(), left.exists()), (True, False))
        self.assertEqual(self.spool.used_bytes, 0)
        assert other._lock is not None
        os.close(other._lock)  # as when it dies
        other._lock = None
        self.spool.sweep(keep=set())
        self.assertEqual([path.suffix for path in self.directory.iterdir()], [".lock"])
        self.spool.close()
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_lock_that_was_swept(self) -> None:
        """A lock that a sweep has removed before it was held is made again."""
        flock = fcntl.flock
        swept: list[None] = []

        def late(descriptor: int, operation: int) -> None:
            if not swept:
                swept.append(None)
                (lock,) = self.directory.glob("*.lock")
                lock.unlink()
            flock(descriptor, operation)

        self.patch(fcntl, "flock", late)
        self.spool.open()
        self.assertEqual(len(list(self.directory.glob("*.lock"))), 1)
        path = self.file(self.spool).path
        self.make().sweep(keep=set())
        self.assertTrue(path.exists())
        self.spool.close()

    def test_removed_by_others(self) -> None:
        """Files of before that another process has removed don't fill the spool for ever."""
        left = [self.file(self.spool, b"x" * 450).path for _ in range(2)]
        spool = self.make()
        spool.sweep(keep=set(left))
        self.assertRaises(Unavailable, spool.check, size=200)
        for path in left:
            path.unlink()
        self.assertRaises(Unavailable, spool.check, size=200)
        spool.check(size=200)
        self.assertEqual(spool.used_bytes, 0)

    def test_no_place(self) -> None:
        """A directory that can't be made is told with its name."""
        self.directory = self.directory / "file" / "spool"
        self.directory.parent.write_bytes(b"")
        error = self.assertRaises(StoreError, self.make().open)
        self.assertIn(str(self.directory), error.reason)

    def test_sweep_before_first_upload(self) -> None:
        """The first start has nothing to sweep."""
        self.directory = self.directory / "a" / "b"
        self.make().sweep(keep=set())
        self.assertTrue(self.directory.is_dir())

    def test_remove(self) -> None:
        """Removing twice, or what is not ours, does nothing."""
        path = self.file(self.spool).path
        elsewhere = self.directory.parent / "not-ours"
        elsewhere.write_bytes(b"")
        self.addCleanup(elsewhere.unlink)
        for _ in range(2):
            self.spool.remove(paths=[path, elsewhere])
            self.assertEqual((path.exists(), self.spool.used_bytes), (False, 0))
        self.assertTrue(elsewhere.exists())

    def test_no_room(self) -> None:
        """A file that grows beyond the limit is gone."""
        spooled = self.spool.create(on_level=lambda level: None, on_failure=self.fail)
        spooled.write(b"x" * 900)
        self.assertRaises(Unavailable, spooled.write, b"x" * 200)
        self.assertEqual(spooled.write(b"more"), 0)
        spooled.discard()
        self.assertEqual(list(self.directory.iterdir()), [])
        self.assertEqual((self.spool.used_bytes, self.spool.writing), (0, 0))

    def test_failure_after_discard(self) -> None:
        """Nobody is told of a failure of what they have discarded."""
        self.threads.held = True
        spooled = self.spool.create(on_level=lambda level: None, on_failure=self.fail)
        spooled.write(b"x")
        spooled.discard()
        self.patch(os, "write", lambda fd, data: 1 // 0)
        self.threads.run()
        self.assertEqual(list(self.directory.iterdir()), [])
        self.assertEqual((self.spool.used_bytes, self.spool.writing), (0, 0))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failure_told_once(self) -> None:
        """Who writes is told once that the file is lost."""
        told: list[Unavailable] = []
        self.threads.held = True
        spooled = self.spool.create(on_level=lambda level: None, on_failure=told.append)
        spooled.write(b"x")
        rmtree(self.directory)
        self.directory.write_bytes(b"")
        self.threads.run()
        spooled.write(b"x")
        spooled.finish(name="", content_type="")
        spooled.discard()
        self.threads.run()
        self.assertEqual(len(told), 1)
        self.assertEqual((self.spool.used_bytes, self.spool.writing), (0, 0))
        self.assertTrue(self.flushLoggedErrors())
        self.directory.unlink()
        self.directory.mkdir()


class SocketTests(TestCase):
    """Over real sockets, with real threads."""

    async def _listen(self, **limits: Any) -> tuple[FakeScans, Spool, int]:
        directory = Path(mkdtemp())
        self.addCleanup(rmtree, directory)
        scans = FakeScans(keep_files=True)
        spool = Spool(reactor=reactor, directory=directory / "spool", keep_free_bytes=0)
        site = make_site(
            reactor=reactor,
            scans=scans,
            spool=spool,
            mint=numbered_ids(),
            limits=WebLimits(**limits),
            allowed_hosts=(),
            loopback=True,
        )
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)

        async def stop() -> None:
            await port.stopListening()
            await site.drain(secs=5)
            await _until(lambda: not site.channels)

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        return scans, spool, port.getHost().port

    async def test_large_upload(self) -> None:
        """20 MB in chunks arrive whole, in constant memory."""
        scans, spool, port = await self._listen()
        pieces = [os.urandom(1 << 16)] * 320
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (reply,) = replies_in(await deferToThread(_send, port, pieces))
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        self.assertEqual(reply.status, 200)
        ((_, artifact),) = scans.submitted
        assert artifact.file is not None
        whole = b"".join(pieces)
        self.assertEqual(artifact.file.size, len(whole))
        self.assertEqual(artifact.file.sha256, hashlib.sha256(whole).hexdigest())
        self.assertEqual((spool.used_bytes, spool.writing), (len(whole), 0))
        self.assertLess(grown_kib, 12 * 1024)

    async def test_refused_upload(self) -> None:
        """A client that sends all 20 MB before it reads finds the 413, not a reset."""
        scans, spool, port = await self._listen(upload_max_bytes=1_000_000)
        (reply,) = replies_in(await deferToThread(_send, port, [b"x" * (1 << 16)] * 320))
        self.assertEqual(reply.status, 413)
        self.assertEqual((scans.submitted, spool.used_bytes), ([], 0))

    async def test_disconnect(self) -> None:
        """A client that goes away in the middle leaves no file."""
        scans, spool, port = await self._listen()
        await deferToThread(_send, port, [b"x" * (1 << 16)] * 40, break_off=True)
        await _until(lambda: spool.directory.exists() and not spool.writing + spool.used_bytes)
        self.assertEqual((scans.submitted, list(spool.directory.iterdir())), ([], []))


async def _until(done: Callable[[], bool]) -> None:
    """Wait for something, but not for ever."""
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        await deferToThread(time.sleep, 0.01)


def _send(port: int, pieces: list[bytes], *, break_off: bool = False) -> bytes:
    """Upload a file chunk by chunk, and only then read the answer."""
    opening = ARTIFACT + part("file", b"", file_name="big")[:-2]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(
            request("POST", "/", b"-", MULTIPART, "Connection: close", chunks=1).split(b"\r\n\r\n")[
                0
            ]
            + b"\r\n\r\n"
        )
        for piece in (opening, *pieces):
            sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        if break_off:
            return b""
        end = b"\r\n" + multipart()
        sock.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end))
        answer = b""
        while data := sock.recv(65536):
            answer += data
        return answer
