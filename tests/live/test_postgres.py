"""A real daemon on a real PostgreSQL, which goes away and comes back."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.live.daemon import Daemon, wait_until
from tests.live.test_daemon import OWN, WAITING
from tests.postgres import MISSING, Server


class PostgresTests(SynchronousTestCase):
    """One daemon, one PostgreSQL."""

    skip = MISSING or None

    def setUp(self) -> None:
        """A server with a database."""
        self.server = Server()
        self.addCleanup(self.server.remove)
        self.database = self.server.new_database()

    def daemon(self, config: str = "", directory: Path | None = None, **more: Any) -> Daemon:
        """A daemon on this database, stopped with the test."""
        url = self.server.url(self.database)
        own = OWN.format(name="waiting")
        daemon = Daemon(
            directory or Path(self.mktemp()),
            f"{own}\n[store]\nurl = '{url}'\npassword = {{ env = 'PG_PASSWORD' }}\n{config}",
            searchers={"waiting.py": WAITING},
            environ={"PG_PASSWORD": self.server.password},
            **more,
        )
        self.addCleanup(daemon.stop)
        return daemon

    def promised(self, daemon: Daemon, first: int, count: int = 5) -> list[str]:
        """The ids of some new promises."""
        ids = []
        for number in range(first, first + count):
            answer = daemon.post("net.ip", f"10.1.{number // 250}.{number % 250}")
            self.assertEqual(answer.status, 303, answer.body)
            ids.append(answer.json["id"])
        return ids

    def assertFinished(self, daemon: Daemon, ids: list[str]) -> None:
        """Each of them gets its hits."""
        daemon.let_answer()
        for scan_id in ids:
            answer = daemon.finished(scan_id)
            self.assertEqual(answer.status, 200)
            self.assertIn(b"bad", answer.body)

    def assertNotTold(self, daemon: Daemon) -> None:
        """The password is in no file of the daemon's, and in no process' arguments."""
        secret = self.server.password.encode()
        for path in daemon.directory.rglob("*"):
            if path.is_file():
                self.assertNotIn(secret, path.read_bytes(), str(path))
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.assertNotIn(secret, path.read_bytes())
            except OSError:
                continue

    def test_restarts(self) -> None:
        """What was promised outlives C{kill -9} of the daemon, and its stop."""
        daemon = self.daemon()
        daemon.start()
        ids = self.promised(daemon, 0)
        daemon.kill()
        daemon.start()
        ids += self.promised(daemon, 10)
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        self.assertEqual(daemon.ask("GET", "/" + ids[0]).status, 303)
        self.assertFinished(daemon, ids)
        self.assertNotTold(daemon)

    def test_threats(self) -> None:
        """What people enter with C{ctsd threats} is found at once, and after an index is built."""
        daemon = self.daemon()
        daemon.start()
        lines = daemon.directory / "threats.jsonl"
        lines.write_text(
            "".join(
                '{"name": "T", "artifacts": [{"type": "net.name", "value": "h'
                + str(number)
                + '.example"}]}\n'
                for number in range(5000)
            )
        )
        daemon.ctsd("threats", "import", str(lines))

        def found(number: int) -> bool:
            return bool(daemon.post("net.name", f"h{number}.example").json["hits"])

        wait_until(lambda: found(4999), "an imported threat is found")
        index = daemon.state_dir / "index" / "threats"
        wait_until(index.exists, "an index is built")
        self.assertTrue(found(0))
        daemon.ctsd("store", "backup", str(daemon.directory / "backup"))
        self.assertNotTold(daemon)

    def test_restart_of_postgres(self) -> None:
        """
        PostgreSQL stops, stays away and comes back, under load: what needs it is 503 with
        C{Retry-After}, nothing else fails, and all that was promised is finished.
        """
        daemon = self.daemon()
        daemon.start()
        ids = self.promised(daemon, 0)
        counts: Counter[int] = Counter()
        over = threading.Event()

        def load() -> None:
            number = 1000
            while not over.is_set():
                number += 1
                answer = daemon.post("net.ip", f"10.2.{number // 250}.{number % 250}")
                counts[answer.status] += 1
                if answer.status == 303:
                    ids.append(answer.json["id"])
                elif answer.status == 503:
                    assert int(answer.headers["Retry-After"]) > 0
                time.sleep(0.02)

        loading = threading.Thread(target=load)
        loading.start()
        try:
            time.sleep(1)
            self.server.stop()
            wait_until(lambda: daemon.ask("GET", "/health/ready").status == 503, "that it is told")
            self.assertEqual(daemon.post("net.uri", "http://nothing.example/").status, 200)
            lost = daemon.ask("GET", "/" + ids[0])
            self.assertIn(lost.status, (303, 503))
            time.sleep(4)
            self.server.start()
            wait_until(lambda: daemon.ask("GET", "/health/ready").status == 200, "it is back")
            before = counts[303]
            wait_until(lambda: counts[303] > before + 10, "promises again")
        finally:
            over.set()
            loading.join()
        print(f"\n  answers while PostgreSQL was away and came back: {dict(counts)}")
        self.assertEqual(set(counts), {303, 503})
        self.assertFinished(daemon, ids)
        log = daemon.log.read_text()
        self.assertNotIn("Traceback", log)
        self.assertIn("PostgreSQL does not answer", log)
        self.assertIn("PostgreSQL answers again", log)

    def test_frozen(self) -> None:
        """A PostgreSQL that freezes holds nobody for long, and is used again when it thaws."""
        daemon = self.daemon()
        daemon.start()
        ids = self.promised(daemon, 0)
        frozen = self.server.backends(self.database)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            answer = daemon.post("net.ip", "10.9.9.9")
            self.assertIn(answer.status, (303, 503))
            self.assertLess(time.monotonic() - started, 15)
            self.assertEqual(daemon.post("net.uri", "http://nothing.example/").status, 200)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        wait_until(lambda: daemon.post("net.ip", "10.9.9.10").status == 303, "promises again")
        self.assertFinished(daemon, ids)

    def test_no_server(self) -> None:
        """Without a server the daemon does not start, and says so in one line."""
        daemon = self.daemon()
        self.server.stop()
        self.assertEqual(daemon.run().wait(30), 1)
        said = [each for each in daemon.log.read_text().splitlines() if "#error] ctsd: " in each]
        self.assertEqual(len(said), 1, daemon.log.read_text())
        self.assertIn(f"127.0.0.1:{self.server.port}", said[0])
        command = daemon.ctsd("threats", "list", check=False)
        self.assertEqual(command.returncode, 1)
        self.assertIn("Connection refused", command.stderr)
        self.assertEqual(len(command.stderr.splitlines()), 1)
        self.assertNotIn("Traceback", daemon.log.read_text())
