"""C{ctsd store copy} as a process of its own, which is killed in the middle; and with daemons."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.daemon import BIN, PATIENCE_SECS, Daemon, wait_until
from tests.live.test_daemon import OWN, WAITING
from tests.postgres import MISSING, Server

#: So many rows that a copy can be met in the middle.
ROWS = 60_000

#: A new database takes less, tables included.
EMPTY_BYTES = 11_000_000


class CopyTests(SynchronousTestCase):
    """A daemon that moves from SQLite to PostgreSQL."""

    skip = MISSING or None

    def setUp(self) -> None:
        """A server with a database, and a daemon on SQLite."""
        self.server = Server()
        self.addCleanup(self.server.remove)
        self.database = self.server.new_database()
        self.url = self.server.url(self.database)
        self.daemon = Daemon(
            Path(self.mktemp()), OWN.format(name="waiting"), searchers={"waiting.py": WAITING}
        )
        self.addCleanup(self.daemon.stop)
        (self.daemon.directory / "password").write_text(self.server.password)
        self.copy = ("store", "copy", "sqlite:ctsd.sqlite", self.url, "--to-password-file")

    def fill(self) -> None:
        """Have much to copy."""
        path = self.daemon.state_dir / "ctsd.sqlite"
        rows = [(b"%d" % number, os.urandom(100), 1.0) for number in range(ROWS)]
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.executemany("INSERT INTO pairs VALUES (?, ?, ?)", rows)

    def killed(self, *arguments: str, middle: Callable[[], bool]) -> None:
        """Start a copy, and kill it as soon as it is in the middle."""
        process = subprocess.Popen(
            [str(BIN / "ctsd"), *arguments, "--config", str(self.daemon.config)],
            cwd=self.daemon.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(process.kill)
        wait_until(middle, "it is in the middle")
        process.kill()
        self.assertEqual(process.wait(PATIENCE_SECS), -signal.SIGKILL)

    def test_there_and_back(self) -> None:
        """
        What the daemon on SQLite has promised and been told, that on PostgreSQL knows, and then
        again the one on SQLite. While one runs nothing is copied.
        """
        daemon = self.daemon
        self.assertIn("made, schema", daemon.ctsd("store", "init").stdout)
        daemon.start()
        scan_id = daemon.post("net.ip", "10.1.1.1").json["id"]
        daemon.ctsd("threats", "add", "--name", "T", "--artifact", "net.name=bad.example")
        refused = daemon.ctsd(*self.copy, "password", check=False)
        self.assertEqual((refused.returncode, refused.stdout), (1, ""))
        self.assertIn("another ctsd", refused.stderr)
        self.assertEqual(daemon.stop(), 0)
        self.assertIn("equal in every table", daemon.ctsd(*self.copy, "password").stdout)

        plain = daemon.config.read_text()
        store = f"[store]\nurl = '{self.url}'\npassword = {{ file = 'password' }}\n"
        daemon.config.write_text(f"{plain}{store}")
        (daemon.state_dir / "ctsd.sqlite").rename(daemon.state_dir / "before.sqlite")
        daemon.start()
        wait_until(lambda: daemon.post("net.name", "bad.example").json["hits"], "it is found")
        self.assertEqual(daemon.ask("GET", f"/{scan_id}").status, 303)
        back = ("store", "copy", self.url, "sqlite:ctsd.sqlite")
        refused = daemon.ctsd(*back, check=False)
        self.assertEqual((refused.returncode, refused.stdout), (1, ""))
        self.assertEqual(daemon.stop(), 0)
        daemon.ctsd(*back)
        daemon.config.write_text(plain)
        daemon.start()
        daemon.let_answer()
        self.assertIn(b"bad", daemon.finished(scan_id).body)

    def test_killed(self) -> None:
        """A copy that is killed leaves nothing that looks like one; the next one is whole."""
        daemon = self.daemon
        daemon.ctsd("store", "init")
        self.fill()

        def writes() -> bool:
            [(size,)] = self.server.run("postgres", "SELECT pg_database_size(%s)", (self.database,))
            return bool(size > EMPTY_BYTES)

        self.killed(*self.copy, "password", middle=writes)
        wait_until(lambda: not self.server.backends(self.database), "the server notices")
        tables = self.server.run(self.database, "SELECT to_regclass('scans') IS NULL")
        self.assertEqual(tables, [(True,)])
        self.assertIn("equal in every table", daemon.ctsd(*self.copy, "password").stdout)

        def part() -> bool:
            found = daemon.state_dir.glob(".back.sqlite.*.part")
            return any(path.stat().st_size > 1_000_000 for path in found)

        back = ("store", "copy", self.url, "sqlite:back.sqlite", "--from-password-file", "password")
        self.killed(*back, middle=part)
        self.assertFalse((daemon.state_dir / "back.sqlite").exists())
        self.assertRegex(daemon.ctsd(*back).stdout, rf"(?m)^pairs +{ROWS} ")
        self.assertIn("whole", daemon.ctsd("store", "check", "var/back.sqlite").stdout)
