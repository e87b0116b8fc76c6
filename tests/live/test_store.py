"""C{ctsd store} beside the real daemon."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.daemon import Daemon, wait_until
from tests.live.test_stop import CONFIG, WAITING


class StoreTests(SynchronousTestCase):
    """A backup under load, and the way back."""

    timeout = 120

    def setUp(self) -> None:
        """Start a daemon whose searcher waits."""
        config = CONFIG.format(sync="", async_=', "waiting"', name="waiting")
        self.daemon = Daemon(Path(self.mktemp()), config, searchers={"waiting.py": WAITING})
        self.addCleanup(self.daemon.stop)
        self.daemon.start()

    def refused(self, *arguments: str) -> str:
        """The one line that a command says when it fails."""
        done = self.daemon.ctsd(*arguments, check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"\Actsd: [^\n]+\n\Z")
        line: str = done.stderr
        return line

    def found(self) -> bool:
        """Whether the daemon finds the threat."""
        return bool(self.daemon.post("net.name", "bad.example").json["hits"])

    def test_there_and_back(self) -> None:
        """What was there at the backup is there again: threats, finished scans, promises. What
        came after it is 503, never 204: it was issued, and is lost."""
        daemon = self.daemon
        threat = ("threats", "add", "--name", "N", "--artifact", "net.name=bad.example")
        threat_id = daemon.ctsd(*threat).stdout.strip()
        wait_until(self.found, "found", 5)
        before = daemon.post("net.ip", "10.1.1.1").json["id"]
        stop = threading.Event()
        asked: list[int] = []

        def load() -> None:
            while not stop.is_set():
                asked.append(daemon.post("net.uri", f"http://{len(asked)}.example/").status)

        clients = [threading.Thread(target=load) for _ in range(3)]
        for client in clients:
            client.start()
        try:
            for number in range(3):
                daemon.ctsd("store", "backup", f"backup{number}")
        finally:
            stop.set()
            for client in clients:
                client.join()
        self.assertEqual(set(asked), {200})
        for number in range(3):
            self.assertIn("whole", daemon.ctsd("store", "check", f"backup{number}").stdout)
        self.assertIn("1 by hand", daemon.ctsd("store", "check").stdout)
        self.assertIn("is there already", self.refused("store", "backup", "backup2"))
        self.assertIn("another ctsd", self.refused("store", "restore", "backup2"))

        after = daemon.post("net.ip", "10.1.1.2").json["id"]
        daemon.ctsd("threats", "delete", threat_id)
        wait_until(lambda: not self.found(), "not found", 5)
        self.assertEqual(daemon.stop(), 0)
        said = daemon.ctsd("store", "restore", "backup2").stdout.splitlines()
        self.assertTrue(Path(said[1].rpartition(" ")[2]).exists())
        daemon.start()
        wait_until(self.found, "found again", 5)
        self.assertEqual(daemon.ask("GET", "/" + after).status, 503)
        self.assertEqual(daemon.ask("GET", "/" + before).status, 303)
        (daemon.state_dir / "searchers" / "waiting" / "go").touch()
        self.assertEqual(daemon.finished(before).status, 200)

    def test_killed(self) -> None:
        """After C{kill -9}, check and backup see what was promised."""
        self.daemon.post("net.ip", "10.1.1.1")
        self.daemon.kill()
        self.assertIn("1 open", self.daemon.ctsd("store", "check").stdout)
        self.daemon.ctsd("store", "backup", "backup")
        self.assertIn("1 open", self.daemon.ctsd("store", "check", "backup").stdout)


class OwnerTests(SynchronousTestCase):
    """Run by root."""

    skip = None if os.geteuid() == 0 else "only root can be somebody else"
    owner = 12345

    def setUp(self) -> None:
        """A database that belongs to somebody, whom commands become, and who may come here."""
        # trial's own directories are closed to others.
        directory = Path(tempfile.mkdtemp(prefix="ctsd-test-"))
        directory.chmod(0o755)
        self.addCleanup(shutil.rmtree, directory)
        self.daemon = Daemon(directory)
        self.daemon.ctsd("threats", "add", "--name", "N", "--artifact", "net.ip=192.168.1.1")
        for path in (self.daemon.state_dir, *self.daemon.state_dir.rglob("*")):
            os.chown(path, self.owner, self.owner)
        self.theirs = self.daemon.directory / "theirs"
        self.theirs.mkdir(mode=0o700)
        os.chown(self.theirs, self.owner, self.owner)

    def assertTheirs(self) -> None:
        """Whatever is in the state_dir is its owner's, and nobody else's to read."""
        for path in self.daemon.state_dir.rglob("*"):
            self.assertEqual(path.stat().st_uid, self.owner, path)
            self.assertEqual(path.stat().st_mode & 0o077, 0, path)

    def test_there_and_back(self) -> None:
        """A backup is the owner's, and a restore leaves nothing that is root's."""
        file = self.theirs / "backup"
        self.daemon.ctsd("store", "backup", str(file))
        self.assertEqual(file.stat().st_uid, self.owner)
        # One that only root can read is good enough.
        roots = self.daemon.directory / "roots"
        roots.write_bytes(file.read_bytes())
        roots.chmod(0o600)
        self.daemon.ctsd("store", "restore", str(roots))
        self.assertIn("1 by hand", self.daemon.ctsd("store", "check").stdout)
        self.assertTheirs()

    def test_threats(self) -> None:
        """Nor does a threat that root enters."""
        self.daemon.ctsd("threats", "add", "--name", "N", "--artifact", "net.ip=192.168.1.2")
        self.assertIn("2 by hand", self.daemon.ctsd("store", "check").stdout)
        self.assertTheirs()

    def test_may_not_write(self) -> None:
        """Where the owner may not write there is no backup."""
        done = self.daemon.ctsd("store", "backup", "backup", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Actsd: [^\n]+: Permission denied\n\Z")
