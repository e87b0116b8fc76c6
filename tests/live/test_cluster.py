"""Several real daemons on one real PostgreSQL: as one service, whatever happens to them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.live.daemon import Answer, Daemon, wait_until
from tests.live.storm import MISSING as NO_STORM
from tests.live.storm import storm
from tests.live.test_upload import Client
from tests.postgres import MISSING, Server
from tests.test_store_postgres import Proxy

#: A searcher that notes whom it was asked about, and finds something when the file C{go} is there.
NOTING = '''
import os
from pathlib import Path

from ctsd.searching import BaseArtifactSearch, Hit, string
from twisted.internet.task import deferLater


class NotingArtifactSearch(BaseArtifactSearch):
    """Waits until the test lets it go."""

    keys = {"dir": str}

    def supports(self, artifact_type):
        return artifact_type in ("net.ip", "file.content")

    async def search(self, artifact_type, search_term, *, context, **kwargs):
        shared = Path(context.settings["dir"])
        what = search_term if artifact_type == "net.ip" else search_term.read(9).decode()
        with (shared / "asked").open("a") as notes:
            notes.write(f"{what}\\n")
        while not (shared / "go").exists():
            await deferLater(context.clock, 0.05)
        return [Hit((string("found", str(what)),))]
'''

CONFIG = """
first_answer_secs = {first}
[searchers]
sync = ["internal"]
async = ["noting"]
path = ["own"]
[searchers.noting]
slots = 100
dir = '{shared}'
[store]
url = '{url}'
password = {{ env = 'PG_PASSWORD' }}
node_lease_secs = {lease}
{store}
{more}
"""


class ClusterCase(SynchronousTestCase):
    """Nodes on one database."""

    skip = MISSING or None

    def setUp(self) -> None:
        """A server with a database, and a directory that the searchers of all nodes see."""
        self.server = Server()
        self.addCleanup(self.server.remove)
        self.database = self.server.new_database()
        self.shared = Path(self.mktemp()).absolute()
        self.shared.mkdir()

    def node(self, *, lease: float = 2.0, first: float = 0.1, **more: str) -> Daemon:
        """A node that runs."""
        config = CONFIG.format(
            shared=self.shared,
            url=self.server.url(self.database, port=int(more.get("port", 0))),
            lease=lease,
            first=first,
            store=more.get("store", ""),
            more=more.get("more", ""),
        )
        daemon = Daemon(
            Path(self.mktemp()),
            config,
            searchers={"noting.py": NOTING},
            environ={"PG_PASSWORD": self.server.password},
        )
        self.addCleanup(daemon.stop)
        daemon.start()
        return daemon

    def go(self) -> None:
        """Let all searches find something."""
        (self.shared / "go").touch()

    def asked(self) -> Counter[str]:
        """How often was asked about what."""
        notes = self.shared / "asked"
        return Counter(notes.read_text().split() if notes.exists() else ())

    def promised(self, node: Daemon, first: int, count: int = 5) -> dict[str, str]:
        """New promises: artifacts by their ids."""
        made = {}
        for number in range(first, first + count):
            value = f"10.1.{number // 250}.{number % 250}"
            answer = node.post("net.ip", value)
            self.assertEqual(answer.status, 303, answer.body)
            made[answer.json["id"]] = value
        return made

    def assertFinished(self, promised: dict[str, str], *nodes: Daemon) -> None:
        """All of them get their hits, the same everywhere."""
        for scan_id, value in promised.items():
            answers = [node.finished(scan_id) for node in nodes]
            for answer in answers:
                self.assertEqual(answer.status, 200, answer.body)
                self.assertIn(f'"{value}"'.encode(), answer.body)
                self.assertEqual(answer.body, answers[0].body)

    def at_once(self, nodes: list[Daemon], value: str) -> list[Answer]:
        """The answers to one artifact that is posted to all of these at the same time."""
        answers: list[Any] = [None] * len(nodes)

        def post(place: int) -> None:
            answers[place] = nodes[place].post("net.ip", value)

        threads = [threading.Thread(target=post, args=(place,)) for place in range(len(nodes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers


class MeetTests(ClusterCase):
    """Equal scans of several nodes."""

    def test_one_search(self) -> None:
        """They are one search, and one answer, in the first answer and after."""
        nodes = [self.node(first=1.5), self.node(first=1.5)]
        values = [f"10.0.0.{number}" for number in range(3)]
        ids = []
        for value in values:
            answers = self.at_once(nodes, value)
            self.assertEqual({answer.status for answer in answers}, {303})
            self.assertEqual(len({answer.json["id"] for answer in answers}), 1)
            ids.append(answers[0].json["id"])
        later = threading.Timer(0.5, self.go)
        later.start()
        self.addCleanup(later.join)
        answers = self.at_once(nodes, "10.0.0.9")
        self.assertEqual([answer.status for answer in answers], [200, 200])
        self.assertEqual(answers[0].body, answers[1].body)
        self.assertFinished(dict(zip(ids, values, strict=True)), *nodes)
        self.assertEqual(self.asked(), Counter([*values, "10.0.0.9"]))

    def test_polling(self) -> None:
        """Without a way to be told they meet all the same."""
        nodes = [self.node(first=1.5, store="listen_url = ''") for _ in range(2)]
        later = threading.Timer(0.5, self.go)
        later.start()
        self.addCleanup(later.join)
        answers = self.at_once(nodes, "10.0.0.9")
        self.assertEqual([answer.status for answer in answers], [200, 200])
        self.assertEqual(answers[0].body, answers[1].body)
        self.assertEqual(self.asked(), Counter(["10.0.0.9"]))

    def test_workers(self) -> None:
        """Workers on one SQLite meet as nodes on PostgreSQL do."""
        config = CONFIG.format(
            shared=self.shared, url="sqlite:x.sqlite", lease=2, first=1.5, store="", more=""
        )
        daemon = Daemon(
            Path(self.mktemp()),
            f"workers = 2\n{config}",
            searchers={"noting.py": NOTING},
            environ={"PG_PASSWORD": "none"},
        )
        self.addCleanup(daemon.stop)
        daemon.start()
        answers = self.at_once([daemon] * 8, "10.0.0.1")
        self.assertEqual({answer.status for answer in answers}, {303})
        [scan_id] = {answer.json["id"] for answer in answers}
        self.go()
        self.assertFinished({scan_id: "10.0.0.1"}, *[daemon] * 8)
        self.assertEqual(self.asked(), Counter(["10.0.0.1"]))

    def test_threats(self) -> None:
        """What is entered in the local database is found on every node."""
        nodes = [self.node(), self.node()]
        nodes[0].ctsd("threats", "add", "--name", "Botnet", "--artifact", "net.name=bad.example")
        for node in nodes:
            wait_until(
                lambda node=node: node.post("net.name", "bad.example").json["hits"],
                "the threat is found",
            )


class DieTests(ClusterCase):
    """Nodes that die, freeze, stop, or lose their store."""

    def test_killed(self) -> None:
        """What a node that was killed has promised is finished by another one."""
        first, second = self.node(), self.node()
        promised = self.promised(first, 0)
        first.kill()
        for scan_id in promised:
            self.assertEqual(second.ask("GET", "/" + scan_id).status, 303)
        twice = Counter(dict.fromkeys(promised.values(), 2))
        wait_until(lambda: self.asked() == twice, "all is asked again")
        self.go()
        self.assertFinished(promised, second)
        self.assertEqual(self.asked(), twice)

    def test_frozen(self) -> None:
        """A frozen node's promises are finished by another one, and it says the same after."""
        first, second = self.node(), self.node()
        promised = self.promised(first, 0)
        first.signal(signal.SIGSTOP)
        try:
            twice = Counter(dict.fromkeys(promised.values(), 2))
            wait_until(lambda: self.asked() == twice, "all is asked again")
            self.go()
            self.assertFinished(promised, second)
        finally:
            first.signal(signal.SIGCONT)
        for scan_id in promised:
            self.assertEqual(first.ask("GET", "/" + scan_id).status, 200)
        self.assertFinished(promised, first, second)
        (self.shared / "go").unlink()
        wait_until(lambda: "was taken for dead" in first.log.read_text(), "it knows")
        more = self.promised(first, 10)
        self.go()
        self.assertFinished(more, first, second)
        self.assertNotIn("Traceback", first.log.read_text())

    def test_stopped(self) -> None:
        """A node that is stopped hands over at once."""
        first, second = self.node(lease=600), self.node(lease=600)
        promised = self.promised(first, 0)
        self.assertEqual(first.stop(), 0)
        self.go()
        self.assertFinished(promised, second)
        first.start()
        self.assertFinished(promised, first)

    def test_files(self) -> None:
        """A file's scan is finished where its file can be seen, and ends honestly elsewhere."""
        common = self.shared / "files"
        for more, status in (
            (f"[upload]\ndir = '{common}'", 200),
            ("[upload]\nkeep_secs = 8", 503),
        ):
            first, second = self.node(more=more), self.node(more=more)
            client = Client(first)
            client.upload(iter([f"file {status} ".encode()]))
            answer = client.answer()
            self.assertEqual(answer.status, 303, answer.body)
            first.kill()
            if status == 503:
                # On another machine it could not be seen.
                (first.state_dir / "spool").rename(first.state_dir / "away")
            self.go()
            answer = second.finished(answer.json["id"])
            self.assertEqual(answer.status, status, answer.body)
            self.assertIn(b"file 200" if status == 200 else b"noting", answer.body)
            (self.shared / "go").unlink()
            second.stop()
        self.assertEqual([path for path in common.iterdir() if "." not in path.name], [])

    def test_cut(self) -> None:
        """
        A node that is cut off says so; others finish its scans; when it is back it goes on, and
        has neither doubled nor forgotten anything.
        """
        proxy = Proxy(self.server.port)
        self.addCleanup(proxy.close)
        first, second = self.node(port=str(proxy.port)), self.node()
        promised = self.promised(first, 0)
        proxy.silent = True
        try:
            wait_until(
                lambda: first.ask("GET", "/" + next(iter(promised))).status == 503, "it says so"
            )
            refused = first.post("net.ip", "10.9.9.9")
            self.assertEqual(refused.status, 503)
            self.assertGreater(int(refused.headers["Retry-After"]), 0)
            self.assertEqual(first.post("net.name", "x.example").status, 200)
            twice = Counter(dict.fromkeys(promised.values(), 2))
            wait_until(lambda: self.asked() == twice, "all is asked again")
            self.go()
            self.assertFinished(promised, second)
            # Longer by hand: `CUT_SECS=60 trial tests.live.test_cluster`.
            until = time.monotonic() + float(os.environ.get("CUT_SECS", "0"))
            while time.monotonic() < until:
                self.assertEqual(first.post("net.ip", "10.9.9.9").status, 503)
                time.sleep(0.5)
        finally:
            proxy.silent = False
            proxy.cut()
        wait_until(lambda: first.ask("GET", "/health/ready").status == 200, "it is back")
        self.assertFinished(promised, first, second)
        (self.shared / "go").unlink()
        promised.update(self.promised(first, 10))
        self.go()
        self.assertFinished(promised, second, first)
        rows = self.server.run(
            self.database,
            "SELECT COUNT(*), COUNT(DISTINCT digest),"
            " (SELECT COUNT(*) FROM searches WHERE holder <> '') FROM scans WHERE outcomes IS NULL",
        )
        self.assertEqual(rows, [(10, 10, 0)])

    def test_postgres_restarts(self) -> None:
        """PostgreSQL stops for longer than a lease lasts: nothing is lost."""
        first, second = self.node(), self.node()
        promised = {**self.promised(first, 0), **self.promised(second, 10)}
        self.server.stop()
        for node in (first, second):
            wait_until(lambda node=node: node.ask("GET", "/health/ready").status == 503, "away")
            answer = node.post("net.ip", "10.9.9.9")
            self.assertEqual(answer.status, 503)
            self.assertGreater(int(answer.headers["Retry-After"]), 0)
        time.sleep(3)
        self.server.start()
        for node in (first, second):
            wait_until(lambda node=node: node.ask("GET", "/health/ready").status == 200, "back")
        self.go()
        self.assertFinished(promised, first, second)
        rows = self.server.run(self.database, "SELECT COUNT(*) FROM searches WHERE holder <> ''")
        self.assertEqual(rows, [(0,)])
        for node in (first, second):
            self.assertNotIn("Traceback", node.log.read_text())


class StormTests(SynchronousTestCase):
    """All of it at once, for some seconds; C{benchmarks/cluster.py} does it for a minute."""

    skip = NO_STORM or None

    def test_promises_kept(self) -> None:
        """All that was promised becomes final with all its hits, and no two answers differ."""
        directory = Path(self.mktemp())
        directory.mkdir()
        with storm(directory, lease=3.0) as (raging, database):
            raging.rage(15.0, kill_secs=2.5, frozen_secs=8.0, away_secs=1.0)
            print(f"\n{raging.report()}")
            self.assertEqual(raging.wrong(), [])
            self.assertEqual(raging.leftovers(database), 0)
            self.assertGreater(len(raging.told), 20)
            for node in raging.nodes:
                self.assertNotIn("Traceback", node.log.read_text())
