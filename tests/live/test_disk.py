"""Disks that are full, or of another machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.daemon import Answer, Daemon, wait_until
from tests.live.test_stop import ARTIFACT, HEAD, WAITING, chunk

_MIB = 1024**2

#: Mounts a small disk of its own on a directory, that no other process sees, and that ends with
#: the command that runs then.
SMALL_DISK = 'mount -t tmpfs -o size=24m,mode=700 tmpfs "$0" && exec "$@"'

CONFIG = """
first_answer_secs = 0.1
[searchers]
sync = ["internal"]
async = ["waiting"]
path = ["own"]
[upload]
keep_free_bytes = {keep_free}
"""

#: Starts twistd with another list of mounted file systems than the kernel's.
ELSEWHERE = """
import sys
from pathlib import Path

from ctsd.store import places

mounts = Path(sys.argv[1])
for function in (places.is_network_filesystem, places.refuse_network, places.make_place):
    function.__kwdefaults__["mounts"] = mounts
del sys.argv[:2]
from twisted.scripts.twistd import run

run()
"""


#: Runs a command as root of its own mounts.
UNSHARE = ("unshare", "--map-root-user", "--mount")


def _may_mount() -> bool:
    done = subprocess.run([*UNSHARE, "true"], capture_output=True, timeout=30, check=False)
    return done.returncode == 0


class FullTests(SynchronousTestCase):
    """A disk of 24 MiB."""

    skip = None if _may_mount() else "mounting is not allowed here"
    timeout = 120

    def started(self, keep_free: int = _MIB) -> Daemon:
        """A daemon whose C{state_dir} is such a disk."""
        daemon = Daemon(
            Path(self.mktemp()),
            CONFIG.format(keep_free=keep_free),
            searchers={"waiting.py": WAITING},
        )
        self.addCleanup(daemon.stop)
        daemon.state_dir.mkdir(mode=0o700)
        daemon.prefix = [*UNSHARE, "sh", "-c", SMALL_DISK, str(daemon.state_dir)]
        daemon.start()
        return daemon

    def disk(self, daemon: Daemon) -> Path:
        """The disk, as the daemon sees it."""
        assert daemon.process is not None
        return Path(f"/proc/{daemon.process.pid}/root{daemon.state_dir.resolve()}")

    def fill(self, daemon: Daemon) -> Path:
        """Leave no room at all; what takes it."""
        filler = self.disk(daemon) / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (_MIB, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass
        return filler

    def assertNothingLeft(self, daemon: Daemon) -> None:
        """The spool is empty."""
        spool = self.disk(daemon) / "spool"
        wait_until(lambda: not list(spool.glob("*-*")), "the spool is empty", 5)

    def assertOneLineEach(self, daemon: Daemon, reason: str, times: int) -> None:
        """The log says so, as often, and no more of it."""
        log = daemon.log.read_text()
        self.assertEqual(log.count(f"an upload could not be stored: {reason}"), times, log)
        self.assertNotIn("Traceback", log)

    def upload(self, daemon: Daemon, size: int) -> bytes:
        """Send a file without saying its length; the status line of the answer."""
        with socket.create_connection(("127.0.0.1", daemon.port), timeout=30) as client:
            client.sendall(HEAD + chunk(ARTIFACT))
            for _ in range(size // _MIB):
                client.sendall(chunk(os.urandom(_MIB)))
            client.sendall(chunk(b"\r\n--b--\r\n") + b"0\r\n\r\n")
            return client.recv(65536).partition(b"\r\n")[0]

    def upload_of_length(self, daemon: Daemon, size: int) -> Answer:
        """Send a file whose length is told before."""
        body = ARTIFACT + bytes(size) + b"\r\n--b--\r\n"
        return daemon.ask("POST", "/", body, {"Content-Type": "multipart/form-data; boundary=b"})

    def test_upload(self) -> None:
        """A file that does not fit is 503, leaves nothing behind, and does no harm; one that
        fits is taken after it."""
        daemon = self.started()
        for _ in range(3):
            self.assertEqual(self.upload(daemon, 40 * _MIB)[:12], b"HTTP/1.1 503")
            self.assertNothingLeft(daemon)
            answer = self.upload_of_length(daemon, 40 * _MIB)
            self.assertEqual(answer.status, 503)
            self.assertIn("Retry-After", answer.headers)
            self.assertIn("full", answer.json["error"])
            self.assertNothingLeft(daemon)
        self.assertEqual(daemon.post("net.uri", "http://nothing.example/").status, 200)
        self.assertEqual(self.upload(daemon, 8 * _MIB)[:12], b"HTTP/1.1 303")
        self.assertOneLineEach(daemon, "less than upload.keep_free_bytes is left", 3)

    def test_upload_to_the_last_byte(self) -> None:
        """The same when the disk itself says that it is full."""
        daemon = self.started(keep_free=0)
        self.assertEqual(self.upload(daemon, 40 * _MIB)[:12], b"HTTP/1.1 503")
        self.assertNothingLeft(daemon)
        self.assertEqual(self.upload(daemon, 8 * _MIB)[:12], b"HTTP/1.1 303")
        self.assertOneLineEach(daemon, "No space left on device", 1)

    def test_promise(self) -> None:
        """What can't be promised is 503, nothing is lost, and with room it goes on by itself."""
        daemon = self.started()
        kept = daemon.post("net.ip", "10.1.1.1")
        self.assertEqual(kept.status, 303)
        filler = self.fill(daemon)
        for number in range(200):
            answer = daemon.post("net.ip", f"10.2.0.{number}")
            if answer.status == 503:
                break
        self.assertEqual(answer.status, 503, answer.body)
        self.assertIn("Retry-After", answer.headers)
        self.assertEqual(self.upload(daemon, _MIB)[:12], b"HTTP/1.1 503")
        self.assertEqual(daemon.ask("GET", "/" + kept.json["id"]).status, 303)
        wait_until(lambda: daemon.ask("GET", "/health/ready").status == 503, "not ready", 10)
        filler.unlink()
        wait_until(lambda: daemon.ask("GET", "/health/ready").status == 200, "ready again", 10)
        self.assertEqual(daemon.post("net.ip", "10.3.1.1").status, 303)
        (self.disk(daemon) / "searchers" / "waiting" / "go").touch()
        self.assertEqual(daemon.finished(kept.json["id"]).status, 200)
        self.assertEqual(daemon.stop(), 0)


class ElsewhereTests(SynchronousTestCase):
    """File systems of other machines."""

    def mounted(self, part: str) -> Daemon:
        """A daemon, not started, of whose directory this part is on one."""
        daemon = Daemon(Path(self.mktemp()))
        self.addCleanup(daemon.stop)
        mounts = daemon.directory / "mountinfo"
        at = daemon.directory.resolve() / part
        mounts.write_text(
            f"22 1 0:1 / / rw - ext4 /dev/sda rw\n23 22 0:2 / {at} rw - nfs4 host:/x rw\n"
        )
        daemon.prefix = [sys.executable, "-c", ELSEWHERE, str(mounts)]
        return daemon

    def test_state_dir(self) -> None:
        """The daemon refuses one for its state, in one line, and makes nothing there."""
        daemon = self.mounted("var")
        self.assertEqual(daemon.run().wait(20), 1)
        self.assertFalse(daemon.state_dir.exists())
        (line,) = daemon.log.read_text().splitlines()[-1:]
        self.assertIn("var is on a network file system", line)

    def test_spool(self) -> None:
        """For uploads alone it takes one: nodes may share them."""
        daemon = self.mounted("var/spool")
        daemon.start()
        self.assertEqual(daemon.stop(), 0)
