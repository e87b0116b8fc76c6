"""Several workers behind a supervisor: as clients, and whoever looks after them, see them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import make_pair
from tests.live.daemon import PATIENCE_SECS, Answer, Daemon, wait_until
from tests.live.doors import DoorDaemon, basic, trusting
from tests.postgres import MISSING, Server

WORKERS = "workers = 2\n"
HIT = {"type": "net.uri", "value": "www.megastore.lu"}
SSL = "ssl:{port}:privateKey=key.pem:certKey=cert.pem:interface=127.0.0.1"


def lives(process: int) -> bool:
    """Whether there is such a process (that has not ended and waits for its parent)."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


class Client(threading.Thread):
    """
    Asks without a pause.

    :ivar answers: how many answers it got.
    :ivar failed: what went wrong.
    """

    def __init__(self, port: int, *, keep: bool) -> None:
        """
        :param keep: whether to ask on one connection as long as it is kept, as most clients do.
        """
        super().__init__(daemon=True)
        self.answers = 0
        self.failed: list[str] = []
        self.enough = threading.Event()
        self._port, self._keep = port, keep
        self.start()

    def run(self) -> None:
        """Ask until it is enough."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECS)
        body = json.dumps(HIT).encode()
        while not self.enough.is_set():
            try:
                connection.request("POST", "/", body, {"Content-Type": "application/json"})
                answer = Answer(connection.getresponse())
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                connection.close()
                continue
            if answer.status != 200 or len(answer.json["hits"]) != 1:
                self.failed.append(f"{answer.status} {answer.body!r}")
            self.answers += 1
            if not self._keep:
                connection.close()
        connection.close()


class WorkersCase(SynchronousTestCase):
    """A daemon with workers."""

    def daemon(self, config: str = WORKERS, **more: Any) -> Daemon:
        """One that is stopped with the test."""
        daemon = Daemon(Path(self.mktemp()), config, **more)
        self.addCleanup(daemon.stop)
        return daemon

    def started(self, config: str = WORKERS, **more: Any) -> Daemon:
        """One that is ready, with all its workers."""
        daemon = self.daemon(config, **more)
        daemon.start()
        wait_until(lambda: self.log_has(daemon, "Supervisor#info] ctsd is ready"), "ready")
        return daemon

    def log_has(self, daemon: Daemon, text: str, times: int = 1) -> bool:
        """Whether the log has a text so often."""
        return daemon.log.read_text().count(text) >= times

    def who(self, daemon: Daemon) -> tuple[int, int]:
        """Number and process of the worker that answers a new connection."""
        said = daemon.ask("GET", "/console/state").json["process"]
        found = re.fullmatch(r"worker (\d) of 2 \(process (\d+)\)", said)
        assert found is not None, said
        return int(found[1]), int(found[2])

    def workers(self, daemon: Daemon) -> dict[int, int]:
        """The process of each worker, as soon as each has answered."""
        found: dict[int, int] = {}

        def both() -> bool:
            with contextlib.suppress(OSError):
                found.update([self.who(daemon)])
            return len(found) == 2

        wait_until(both, "both workers have answered")
        return found


class LifeTests(WorkersCase):
    """They answer, they end."""

    def test_life(self) -> None:
        """Each is a process of its own; one of them builds; SIGTERM ends all with status 0."""
        daemon = self.started()
        workers = self.workers(daemon)
        assert daemon.process is not None
        processes = {daemon.process.pid, *workers.values()}
        self.assertEqual(len(processes), 3)
        self.assertEqual(daemon.stop(), 0)
        self.assertEqual([each for each in processes if lives(each)], [])
        log = daemon.log.read_text()
        self.assertEqual(log.count("phishtank-records: "), 1, log)
        self.assertNotIn("Traceback", log)
        self.assertNotIn("has ended", log)

    def test_no_id_is_lost(self) -> None:
        """An id that one worker has just issued is known to the other."""
        daemon = self.started()
        asked: set[int] = set()
        for number in range(200):
            posted = daemon.post("net.uri", f"http://www.megastore.lu/login?{number}")
            got = daemon.ask("GET", "/" + posted.json["id"])
            self.assertEqual((posted.status, got.status), (200, 200))
            self.assertEqual(got.body, posted.body)
            if len(asked) < 2:
                asked.add(self.who(daemon)[0])
        self.assertEqual(asked, {1, 2})

    def test_port_is_taken(self) -> None:
        """One line and status 1, even when whoever has the port would share it."""
        for config in ("", WORKERS):
            first = self.daemon(config)
            first.start()
            second = self.daemon()
            text = second.config.read_text().replace(f"{second.port}", f"{first.port}")
            second.config.write_text(text)
            process = second.run()
            self.assertEqual(process.wait(PATIENCE_SECS), 1)
            log = second.log.read_text()
            self.assertEqual(log.count("can't listen on"), 1, log)
            self.assertIn(f"ctsd: can't listen on tcp:{first.port}:interface=127.0.0.1:", log)
            self.assertTrue(log.endswith(": Address already in use\n"), log)
            self.assertNotIn("Traceback", log)
            first.stop()

    def test_wrong_configuration(self) -> None:
        """One line and status 1."""
        process = self.daemon(WORKERS + "retention_days = 'x'\n").run()
        self.assertEqual(process.wait(PATIENCE_SECS), 1)

    def test_cannot_start(self) -> None:
        """Workers that can't start end everything, with status 1."""
        daemon = self.daemon(
            WORKERS + '[searchers]\npath = ["own"]\nasync = ["ending"]\n',
            searchers={
                "ending.py": "import os, sys\nfrom ctsd.searching import BaseArtifactSearch\n"
                "class EndingArtifactSearch(BaseArtifactSearch):\n"
                '    """Ends its process when that starts."""\n'
                "    def start(self, setup):\n        os._exit(7)\n"
                "    def supports(self, artifact_type):\n        return True\n"
            },
        )
        process = daemon.run()
        self.assertEqual(process.wait(PATIENCE_SECS), 1)
        self.assertTrue(self.log_has(daemon, "has ended: status 7"), daemon.log.read_text())
        self.assertTrue(self.log_has(daemon, "could not start"))

    def test_leaves_at_once(self) -> None:
        """A second SIGTERM ends leave_secs."""
        for config in ("leave_secs = 3000\n", WORKERS + "leave_secs = 3000\n"):
            daemon = self.daemon(config)
            daemon.start()
            daemon.signal(signal.SIGTERM)
            wait_until(lambda d=daemon: d.ask("GET", "/health/ready").status == 503, "it leaves")
            self.assertEqual(daemon.stop(), 0)

    def test_alone(self) -> None:
        """SIGUSR2 does no harm to a process that is alone."""
        daemon = self.daemon("")
        daemon.start()
        daemon.signal(signal.SIGUSR2)
        wait_until(lambda: self.log_has(daemon, "restart it"), "a word in the log")
        self.assertEqual(daemon.post(**HIT).status, 200)
        self.assertEqual(daemon.stop(), 0)

    def test_supervisor_is_killed(self) -> None:
        """The workers end with it; until then nobody else gets the directory."""
        daemon = self.started()
        workers = self.workers(daemon)
        daemon.kill()
        wait_until(lambda: not any(map(lives, workers.values())), "the workers have ended")
        self.assertNotIn("Traceback", daemon.log.read_text())
        daemon.start()

    def test_leaves(self) -> None:
        """For leave_secs it says that it is not ready, and answers all the same."""
        for config in ("leave_secs = 3\n", WORKERS + "leave_secs = 3\n"):
            daemon = self.daemon(config)
            daemon.start()
            kept = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE_SECS)
            kept.request("OPTIONS", "/")
            self.assertIsNone(Answer(kept.getresponse()).headers["Connection"])
            daemon.signal(signal.SIGTERM)
            wait_until(lambda d=daemon: d.ask("GET", "/health/ready").status == 503, "it leaves")
            kept.request("OPTIONS", "/")
            answer = Answer(kept.getresponse())
            self.assertEqual((answer.status, answer.headers["Connection"]), (200, "close"))
            kept.close()
            self.assertEqual(daemon.post(**HIT).status, 200)
            assert daemon.process is not None
            self.assertEqual(daemon.process.wait(PATIENCE_SECS), 0)


class ChangeTests(WorkersCase):
    """Processes come and go, configurations change."""

    def test_killed(self) -> None:
        """One that is killed is started again; the other one goes on."""
        daemon = self.started()
        before = self.workers(daemon)
        os.kill(before[1], signal.SIGKILL)
        wait_until(lambda: self.log_has(daemon, "worker 1 is ready", 2), "another process")
        after = self.workers(daemon)
        self.assertEqual(after[2], before[2])
        self.assertNotEqual(after[1], before[1])
        self.assertTrue(self.log_has(daemon, "worker 1 has ended: killed by SIGKILL"))
        self.assertEqual(daemon.stop(), 0)

    def test_reload(self) -> None:
        """SIGHUP reaches both; a wrong configuration changes nothing, not even for a new one."""
        daemon = self.started()
        good = daemon.config.read_text()
        daemon.config.write_text(good + "[upload]\nenabled = false\n")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: self.log_has(daemon, "was read again", 2), "both go by it")
        for _ in range(20):
            self.assertEqual(daemon.ask("OPTIONS").body, b'{"upload_file": false}')
        daemon.config.write_text(good + "[upload]\nenabled = 7\n")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: self.log_has(daemon, "configuration is not taken"), "it is refused")
        self.assertFalse(self.log_has(daemon, "configuration is not taken", 2))
        os.kill(self.workers(daemon)[2], signal.SIGKILL)
        wait_until(lambda: self.log_has(daemon, "worker 2 is ready", 2), "another process")
        for _ in range(20):
            self.assertEqual(daemon.ask("OPTIONS").body, b'{"upload_file": false}')

    def test_replaced_under_load(self) -> None:
        """SIGUSR2 replaces all processes, and no request fails."""
        daemon = self.started()
        before = self.workers(daemon)
        clients = [Client(daemon.port, keep=number % 2 == 0) for number in range(6)]
        wait_until(lambda: all(client.answers > 20 for client in clients), "load")
        daemon.signal(signal.SIGUSR2)
        wait_until(lambda: self.log_has(daemon, "All workers were replaced"), "replaced")
        marks = [client.answers for client in clients]
        wait_until(
            lambda: all(
                client.answers > mark + 20 for client, mark in zip(clients, marks, strict=True)
            ),
            "load afterwards",
        )
        for client in clients:
            client.enough.set()
        for client in clients:
            client.join(PATIENCE_SECS)
        self.assertEqual([client.failed for client in clients], [[]] * 6)
        after = self.workers(daemon)
        self.assertEqual(set(before.values()) & set(after.values()), set())
        self.assertEqual([each for each in before.values() if lives(each)], [])
        self.assertNotIn("has ended", daemon.log.read_text())
        self.assertEqual(daemon.stop(), 0)

    def test_promise_survives_its_worker(self) -> None:
        """A scan that a worker has promised is finished when that worker was killed."""
        daemon = self.started(
            'workers = 2\nfirst_answer_secs = 0.1\n[searchers]\npath = ["own"]\n'
            'sync = ["internal"]\nasync = ["waiting"]\n',
            searchers={"waiting.py": WAITING},
        )
        posted = daemon.post("net.ip", "192.0.2.7")
        self.assertEqual(posted.status, 303)
        for _ in range(8):
            # Whichever of them is asked: it is the same scan.
            again = daemon.post("net.ip", "192.0.2.7")
            self.assertEqual((again.status, again.json["id"]), (303, posted.json["id"]))
        for process in self.workers(daemon).values():
            os.kill(process, signal.SIGKILL)
        (daemon.state_dir / "searchers" / "waiting" / "go").touch()
        wait_until(lambda: self.log_has(daemon, "is ready (process", 4), "other processes")
        final = daemon.finished(posted.json["id"])
        self.assertEqual((final.status, len(final.json["hits"])), (200, 1))


WAITING = '''
from ctsd.searching import BaseArtifactSearch, Hit, string
from twisted.internet.task import deferLater


class WaitingArtifactSearch(BaseArtifactSearch):
    """Finds everything, as soon as the file C{go} is in its directory."""

    def supports(self, artifact_type):
        return artifact_type == "net.ip"

    async def search(self, artifact_type, search_term, *, context, **kwargs):
        while not (context.data_dir / "go").exists():
            await deferLater(context.clock, 0.05)
        return [Hit((string("said", "found"),))]
'''


class PostgresTests(WorkersCase):
    """Workers on PostgreSQL."""

    skip = MISSING or None

    def test_all_of_it(self) -> None:
        """A secret of the environment, ids of others, one that is killed, all of them replaced."""
        server = Server()
        self.addCleanup(server.remove)
        url = server.url(server.new_database())
        daemon = self.started(
            f"{WORKERS}[store]\nurl = '{url}'\npassword = {{ env = 'PG_PASSWORD' }}\n",
            environ={"PG_PASSWORD": server.password},
        )
        first = daemon.post("net.uri", "http://www.megastore.lu/login")
        for number in range(50):
            posted = daemon.post("net.uri", f"http://www.megastore.lu/login?{number}")
            got = daemon.ask("GET", "/" + posted.json["id"])
            self.assertEqual((got.status, got.body), (200, posted.body))
        os.kill(self.workers(daemon)[2], signal.SIGKILL)
        wait_until(lambda: self.log_has(daemon, "worker 2 is ready", 2), "another process")
        daemon.signal(signal.SIGUSR2)
        wait_until(lambda: self.log_has(daemon, "All workers were replaced"), "replaced")
        self.assertEqual(daemon.ask("GET", "/" + first.json["id"]).body, first.body)
        self.assertEqual(daemon.stop(), 0)
        log = daemon.log.read_text()
        self.assertNotIn("Traceback", log)
        self.assertNotIn(server.password, log)


class ListenTests(WorkersCase):
    """Whatever it is that they listen on."""

    def test_doors(self) -> None:
        """Passwords and TLS; a new certificate comes with the next processes at the latest."""
        doors = {"ssl": SSL, "auth": "auth:users:" + SSL}
        daemon = DoorDaemon(Path(self.mktemp()), doors, WORKERS)
        self.addCleanup(daemon.stop)
        pair = make_pair()
        pair.write(daemon.directory)
        daemon.passwd("--add", "ann", password="secret")
        daemon.start()
        wait_until(lambda: self.log_has(daemon, "is ready (process", 2), "both are ready")
        for _ in range(2):
            context = trusting(pair)
            for _ in range(8):
                self.assertEqual(daemon.knock("ssl", context=context).status, 200)
                self.assertEqual(daemon.knock("auth", context=context).status, 401)
                user = basic("ann", "secret")
                self.assertEqual(daemon.knock("auth", user, context=context).status, 200)
            pair = make_pair()
            pair.write(daemon.directory)
            daemon.signal(signal.SIGUSR2)
            wait_until(lambda: self.log_has(daemon, "All workers were replaced"), "replaced")
        self.assertEqual(daemon.stop(), 0)

    def test_unix(self) -> None:
        """A Unix socket keeps its mode and its place while processes are replaced."""
        daemon = self.daemon(listen='["unix:ctsd.sock:mode=660", "tcp:{port}:interface=127.0.0.1"]')
        daemon.start()
        wait_until(lambda: self.log_has(daemon, "is ready (process", 2), "both are ready")
        path = daemon.directory / "ctsd.sock"
        curl = ["curl", "-s", "--unix-socket", str(path), "-X", "OPTIONS", "http://localhost/"]
        for _ in range(2):
            self.assertEqual(path.stat().st_mode & 0o777, 0o660)
            for _ in range(8):
                said = subprocess.run(curl, capture_output=True, check=True, timeout=30).stdout
                self.assertEqual(said, b'{"upload_file": true}')
            daemon.signal(signal.SIGUSR2)
            wait_until(lambda: self.log_has(daemon, "All workers were replaced"), "replaced")
        self.assertEqual(daemon.stop(), 0)
        self.assertFalse(path.exists())

    def test_told(self) -> None:
        """systemd hears of the whole: ready when all are, alive, reloading, stopping."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            address = f"/tmp/ctsd-test-{os.getpid()}-{time.monotonic_ns()}"
            heard.bind(address)
            self.addCleanup(os.unlink, address)
            heard.settimeout(PATIENCE_SECS)
            daemon = self.daemon(
                environ={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"},
            )
            daemon.run()

            def until(wanted: bytes) -> bytes:
                while True:
                    said = heard.recv(4096)
                    if said.startswith(wanted):
                        return said

            self.assertIn(b"STATUS=2 of 2 workers; searchers: 3 on", until(b"READY=1"))
            self.assertTrue(self.log_has(daemon, "is ready (process", 2))
            until(b"WATCHDOG=1")
            daemon.signal(signal.SIGHUP)
            until(b"RELOADING=1")
            until(b"READY=1")
            daemon.signal(signal.SIGTERM)
            until(b"STOPPING=1")
            assert daemon.process is not None
            self.assertEqual(daemon.process.wait(PATIENCE_SECS), 0)
