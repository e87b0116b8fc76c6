"""The C{ctsd} command as a process of its own, beside the real daemon and without one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from twisted.trial.unittest import TestCase

from searchers.phishtank import SAMPLE
from tests.live.daemon import BIN, Daemon, wait_until


class BesideTests(TestCase):
    """Beside a running daemon."""

    timeout = 120

    def setUp(self) -> None:
        """Start one."""
        self.daemon = Daemon(Path(self.mktemp()))
        self.daemon.start()
        self.addCleanup(self.daemon.stop)

    def hits(self, type: str, value: str) -> int:
        """How many hits the daemon has."""
        return len(self.daemon.post(type, value).json["hits"])

    def test_add_and_delete(self) -> None:
        """The daemon finds what was added, and no longer what was deleted, without a restart."""
        threat_id = self.daemon.ctsd(
            *("threats", "add", "--name", "N", "--artifact", "net.ip=192.168.1.1")
        ).stdout.strip()
        wait_until(lambda: self.hits("net.ip", "192.168.1.1") == 1, "found", 3)
        self.assertIn("192.168.1.1", self.daemon.ctsd("threats", "list").stdout)
        self.daemon.ctsd("threats", "delete", threat_id)
        wait_until(lambda: self.hits("net.ip", "192.168.1.1") == 0, "gone", 3)

    def test_import(self) -> None:
        """An import with one wrong line enters nothing; a good one is found."""
        file = self.daemon.directory / "t.csv"
        rows = [f"A{number},net.name,h{number}.example" for number in range(3000)]
        file.write_text("\n".join(["name,type,value", *rows, "B,nope,1"]))
        done = self.daemon.ctsd("threats", "import", str(file), check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"{file}:3002: artifacts[0].type", done.stderr)
        self.assertEqual(self.daemon.ctsd("threats", "list").stdout, "")
        file.write_text("\n".join(["name,type,value", *rows]))
        self.assertIn(
            "3000 threats entered", self.daemon.ctsd("threats", "import", str(file)).stdout
        )
        wait_until(lambda: self.hits("net.name", "h2999.example") == 1, "found", 20)

    def test_refused_file(self) -> None:
        """It tells what the daemon has refused, and no more once that is mended."""
        daemon = Daemon(Path(self.mktemp()), "[searchers.phishtank]\nfile = 'p.csv'\n")
        file = daemon.directory / "p.csv"
        good = SAMPLE.read_bytes()
        file.write_bytes(good)
        daemon.start()
        self.addCleanup(daemon.stop)
        file.write_text("<html>too many requests</html>\n")
        wait_until(lambda: "trouble" in daemon.ctsd("searchers").stdout, "refused", 20)
        told = daemon.ctsd("searchers").stdout
        self.assertRegex(told, r"phishtank +async +trouble +.*p\.csv is refused: .*; \d+ records, ")
        self.assertIn(
            f"warning: searcher phishtank: {file} is refused: ", daemon.ctsd("check").stderr
        )
        file.write_bytes(good)
        wait_until(lambda: "trouble" not in daemon.ctsd("searchers").stdout, "mended", 20)

    def test_searchers(self) -> None:
        """It tells what the daemon has indexed."""
        wait_until(lambda: self.hits("net.uri", "www.megastore.lu") == 1, "indexed")
        self.assertRegex(
            self.daemon.ctsd("searchers").stdout, r"phishtank +async +on +\d+ records, indexed "
        )


class AloneTests(TestCase):
    """Without a daemon."""

    timeout = 120

    def setUp(self) -> None:
        """A configuration that nobody serves."""
        self.daemon = Daemon(Path(self.mktemp()))

    def test_scan(self) -> None:
        """A scan needs no daemon."""
        self.daemon.ctsd("threats", "add", "--name", "N", "--artifact", "net.ip=192.168.1.1")
        told = self.daemon.ctsd("scan", "net.ip", "192.168.1.1", "--json").stdout
        (internal,) = json.loads(told)["searchers"]
        self.assertEqual((internal["searcher"], internal["ended"]), ("internal", "found"))

    def test_errors(self) -> None:
        """An error is one line and status 1; wrong usage is status 2."""
        for arguments, status in (
            (("threats", "show", "7"), 1),
            (("scan", "net.ip", "::1", "--searcher", "nope"), 1),
            (("scan",), 2),
        ):
            done = self.daemon.ctsd(*arguments, check=False)
            self.assertEqual(done.returncode, status, done.stderr)
            if status == 1:
                self.assertRegex(done.stderr, r"\Actsd: [^\n]+\n\Z")

    def test_reader_goes_away(self) -> None:
        """When nobody reads on, it ends in silence."""
        rows = "\n".join(f"A{number},net.port,{number}" for number in range(2000))
        (self.daemon.directory / "t.csv").write_text(f"name,type,value\n{rows}")
        self.daemon.ctsd("threats", "import", "t.csv")
        done = subprocess.run(
            f"{BIN}/ctsd threats export --config ctsd.toml | head -n 1",
            shell=True,
            cwd=self.daemon.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        self.assertEqual((done.stdout.count("\n"), done.stderr), (1, ""))
