"""Two real daemons that reach their PostgreSQL through pgbouncer, in transaction mode."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.daemon import Daemon, wait_until
from tests.live.test_daemon import OWN, WAITING
from tests.postgres import MISSING, POOLER_MISSING, Pooler, Server


class PoolerTests(SynchronousTestCase):
    """Two nodes, one pooler with few sessions, one PostgreSQL."""

    skip = MISSING or POOLER_MISSING or None

    def setUp(self) -> None:
        """A server, and a pooler before it."""
        self.server = Server()
        self.addCleanup(self.server.remove)
        self.database = self.server.new_database()
        self.pooler = Pooler(self.server)
        self.addCleanup(self.pooler.stop)
        self.pooled = self.server.url(self.database, port=self.pooler.port)

    def node(self, more: str) -> Daemon:
        """A daemon of its own, started."""
        daemon = Daemon(
            Path(self.mktemp()),
            f"{OWN.format(name='waiting')}\n[store]\nurl = '{self.pooled}'\n"
            f"password = {{ env = 'PG_PASSWORD' }}\nnode_lease_secs = 3\n{more}",
            searchers={"waiting.py": WAITING},
            environ={"PG_PASSWORD": self.server.password},
        )
        self.addCleanup(daemon.stop)
        daemon.start()
        return daemon

    def go(self, *nodes: Daemon) -> None:
        """Let their searchers answer."""
        for node in nodes:
            node.let_answer()

    def check(self, more: str) -> Daemon:
        """
        What one node promises the other one tells and finishes, also after C{kill -9}; what is
        entered beside one is found by both; equal scans meet.

        :return: the one that is left.
        """
        first, second = self.node(more), self.node(more)
        ids = [first.post("net.ip", f"10.1.1.{number}").json["id"] for number in range(5)]
        for scan_id in ids:
            self.assertEqual(second.ask("GET", f"/{scan_id}").status, 303)

        def joined() -> bool:
            answer = second.post("net.ip", "10.1.1.0")
            self.assertEqual(answer.status, 303)
            return bool(answer.json["id"] == ids[0])

        wait_until(joined, "an equal scan is joined")
        second.ctsd("threats", "add", "--name", "T", "--artifact", "net.name=bad.example")
        for node in (first, second):
            wait_until(
                lambda node=node: node.post("net.name", "bad.example").json["hits"],
                "the threat is found",
            )
        first.kill()
        self.go(second)
        for scan_id in ids:
            answer = second.finished(scan_id)
            self.assertEqual(answer.status, 200)
            self.assertIn(b"bad", answer.body)
        self.assertNotIn("Traceback", second.log.read_text())
        return second

    def test_listening_beside_it(self) -> None:
        """C{store.listen_url} leads to the server itself."""
        left = self.check(f"listen_url = '{self.server.url(self.database)}'")
        rows = self.server.run(
            "postgres",
            "SELECT query FROM pg_stat_activity WHERE datname = %s AND query LIKE 'LISTEN%%'",
            (self.database,),
        )
        self.assertEqual(len(rows), 1)
        self.assertNotIn("has to lead to the server itself", left.log.read_text())

    def test_asking(self) -> None:
        """Without anything to listen to, nodes ask."""
        self.check('listen_url = ""')

    def test_listening_to_it(self) -> None:
        """Where somebody listens to the pooler, nothing arrives; it is noticed, and they ask."""
        left = self.check("")
        wait_until(
            lambda: "has to lead to the server itself" in left.log.read_text(), "that it is told"
        )

    def test_commands(self) -> None:
        """All of C{ctsd store} works through it, beside a node where it may."""
        node = self.node("")
        scan_id = node.post("net.ip", "10.1.1.1").json["id"]
        self.assertIn("is there already", node.ctsd("store", "init").stdout)
        checked = node.ctsd("store", "check").stdout
        self.assertRegex(checked, r"(?m)^nodes    \S+")
        self.assertIn("1 open", checked)
        self.assertIn("nothing to do", node.ctsd("store", "upgrade").stdout)
        saved = node.directory / "saved.sqlite"
        node.ctsd("store", "backup", str(saved))
        self.assertIn("1 open", node.ctsd("store", "check", str(saved)).stdout)
        copy = ("store", "copy", self.pooled, f"sqlite:{node.directory}/copy.sqlite")
        refused = node.ctsd(*copy, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("is used by", refused.stderr)
        self.assertEqual(node.stop(), 0)
        self.assertIn("equal in every table", node.ctsd(*copy).stdout)
        other = self.server.new_database()
        self.database = other
        back = self.server.url(other, port=self.pooler.port)
        node.ctsd("store", "copy", f"sqlite:{saved}", back)
        node.config.write_text(node.config.read_text().replace(self.pooled, back))
        node.start()
        self.go(node)
        self.assertIn(b"bad", node.finished(scan_id).body)
