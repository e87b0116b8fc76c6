"""The real daemon: started, asked, killed, started again."""

from __future__ import annotations

import hashlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ctsd.model import PASSWORD
from tests.live.daemon import BIN, ROOT, Daemon, free_port, wait_until

#: A searcher that waits for a file to appear, in a coroutine, and one that blocks for ever.
WAITING = '''
from pathlib import Path

from ctsd.searching import BaseArtifactSearch, Hit, SearchFailed, string
from twisted.internet.task import deferLater


class WaitingArtifactSearch(BaseArtifactSearch):
    """Finds what the file C{go} in its directory says, as soon as it is there."""

    keys = {"types": list}

    def supports(self, artifact_type):
        return artifact_type in ("net.ip", "system.user.password")

    async def search(self, artifact_type, search_term, *, context, **kwargs):
        go = context.data_dir / "go"
        while not go.exists():
            await deferLater(context.clock, 0.05)
        return [Hit((string("said", go.read_text()),))]
'''

STUCK = '''
import time

from ctsd.searching import BaseArtifactSearch


class StuckArtifactSearch(BaseArtifactSearch):
    """Blocks for a minute."""

    def supports(self, artifact_type):
        return artifact_type == "net.ip"

    def search(self, artifact_type, search_term, **kwargs):
        time.sleep(60)
'''

TELLING = '''
import subprocess

from ctsd.searching import BaseArtifactSearch, Hit, string


class TellingArtifactSearch(BaseArtifactSearch):
    """Tells whether its secret is right, and the environment of a program that it runs."""

    keys = {"key": str}

    def supports(self, artifact_type):
        return artifact_type == "net.ip"

    def search(self, artifact_type, search_term, *, context, **kwargs):
        seen = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
        if context.settings["key"] == "s3cret":
            return [Hit((string("seen", line),)) for line in seen.splitlines() if "A_" in line]
'''

DEADLY = '''
import os
import signal

from ctsd.searching import BaseArtifactSearch
from twisted.internet.task import deferLater


class DeadlyArtifactSearch(BaseArtifactSearch):
    """Takes its process with it, when its scan has been promised."""

    def supports(self, artifact_type):
        return artifact_type == "net.ip"

    async def search(self, artifact_type, search_term, *, context, **kwargs):
        await deferLater(context.clock, 0.3)
        os.kill(os.getpid(), signal.SIGKILL)
'''

FAILING = '''
from ctsd.searching import BaseArtifactSearch, SearchFailed


class FailingArtifactSearch(BaseArtifactSearch):
    """Can't be asked, and says too much about it."""

    def supports(self, artifact_type):
        return artifact_type == "net.ip"

    async def search(self, artifact_type, search_term, **kwargs):
        raise SearchFailed(f"no answer about {search_term}")
'''

OWN = """
first_answer_secs = 0.1
[searchers]
sync = ["internal"]
async = ["{name}"]
path = ["own"]
"""


class LiveTestCase(SynchronousTestCase):
    """One daemon in a fresh directory."""

    def daemon(self, config: str = "", **more: Any) -> Daemon:
        """A daemon that is stopped with the test."""
        daemon = Daemon(Path(self.mktemp()), config, **more)
        self.addCleanup(daemon.stop)
        return daemon


class SessionTests(LiveTestCase):
    """What the Django sample's README does, as it stands."""

    def curl(self, *arguments: str, input: bytes | None = None) -> str:
        """What curl prints."""
        command = ["curl", "--silent", "--show-error", *arguments]
        return subprocess.run(
            command, capture_output=True, check=True, timeout=30, input=input
        ).stdout.decode()

    def test_curl(self) -> None:
        """OPTIONS, a POST that finds the sample's record, a GET that finds it again."""
        daemon = self.daemon()
        daemon.start()
        url = f"http://localhost:{daemon.port}/"
        self.assertEqual(self.curl("--request", "OPTIONS", url), '{"upload_file": true}')
        artifact = '{"type": "net.uri", "value": "www.megastore.lu" }'
        json_type = ["--header", "Content-Type: application/json"]
        answer = self.curl("--request", "POST", *json_type, "--data-binary", artifact, url)
        self.assertEqual(answer.count('"props"'), 1)
        self.assertIn("www.megastore.lu", answer)
        scan_id = answer.split('"')[3]
        self.assertEqual(self.curl(url + scan_id), answer)
        self.assertEqual(self.curl(url + scan_id + "/"), answer)
        self.assertEqual(daemon.stop(), 0)

    def test_tac(self) -> None:
        """C{twistd -y ctsd.tac} with the built-in defaults, and C{./ctsd.toml}."""
        directory = Path(self.mktemp())
        directory.mkdir(mode=0o755)
        shutil.copy(ROOT / "ctsd.tac", directory)
        port = free_port()
        (directory / "ctsd.toml").write_text(f'listen = ["tcp:{port}:interface=127.0.0.1"]')
        command = [str(BIN / "twistd"), "-n", "--pidfile=", "-y", "ctsd.tac"]
        process = subprocess.Popen(
            command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        def listens() -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens, "it listens")
        process.terminate()
        self.assertEqual(process.wait(15), 0)
        self.assertEqual((directory / "var").stat().st_mode & 0o777, 0o700)

    def test_passed_over(self) -> None:
        """A C{./ctsd.toml} to which others may write is passed over, and the log says so."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(mode=0o755)
        file = directory / "ctsd.toml"
        file.write_text("no TOML")
        file.chmod(0o666)
        # It ends before it listens where the built-in defaults say.
        (directory / "var").write_text("")
        command = [str(BIN / "twistd"), "-n", "--pidfile=", "ctsd"]
        done = subprocess.run(
            command, cwd=directory, check=False, capture_output=True, text=True, timeout=60
        )
        self.assertEqual(done.returncode, 1)
        told = done.stdout + done.stderr
        self.assertIn(f"The built-in defaults serve: {file}: is passed over: others may", told)
        self.assertIn(f"{directory}/var is no directory", told)
        self.assertNotIn("no valid TOML", told)


class StartTests(LiveTestCase):
    """What stops the start says so in one line."""

    def refused(self, daemon: Daemon) -> str:
        """What it says when it does not start."""
        self.assertEqual(daemon.run().wait(20), 1)
        said = daemon.log.read_text().splitlines()
        complaints = [line for line in said if "#error]" in line or line.startswith("ctsd: ")]
        self.assertEqual(len(complaints), 1, daemon.log.read_text())
        self.assertNotIn("Traceback", daemon.log.read_text())
        return complaints[0]

    def test_port_is_taken(self) -> None:
        """A port that somebody else has."""
        daemon = self.daemon()
        with socket.socket() as other:
            other.bind(("127.0.0.1", daemon.port))
            other.listen()
            self.assertIn(f"tcp:{daemon.port}", self.refused(daemon))

    def test_bad_configuration(self) -> None:
        """A key that there is not: file, line and key."""
        self.assertIn(
            "ctsd.toml:2: when_incomplet", self.refused(self.daemon('when_incomplet = "tell"'))
        )

    def test_bad_state_dir(self) -> None:
        """A C{state_dir} that can't be made, or used: file, line and key."""
        daemon = self.daemon('state_dir = "ctsd.toml/x"')
        self.assertIn("ctsd.toml:2: state_dir: ", self.refused(daemon))
        daemon = self.daemon()
        (daemon.state_dir / "lock").mkdir(parents=True)
        self.assertIn("ctsd.toml: state_dir: ", self.refused(daemon))

    def test_state_dir_open_to_others(self) -> None:
        """A C{state_dir} to which others may write is told of, and used."""
        daemon = self.daemon()
        daemon.state_dir.mkdir()
        daemon.state_dir.chmod(0o770)
        daemon.start()
        self.assertIn(
            f"state_dir: others may write to {daemon.state_dir} (chmod go-w)",
            daemon.log.read_text(),
        )

    def test_programs_of_searchers(self) -> None:
        """What a searcher runs does not inherit the secrets, from a worker neither."""
        for workers in (1, 2):
            config = OWN.format(name="telling") + '[searchers.telling]\nkey = { env = "A_KEY" }\n'
            daemon = Daemon(
                Path(self.mktemp()),
                f"workers = {workers}{config}",
                searchers={"telling.py": TELLING},
                environ={"A_KEY": "s3cret", "A_NAME": "no secret"},
            )
            self.addCleanup(daemon.stop)
            daemon.start()
            answer = daemon.finished(daemon.post("net.ip", "10.1.1.1").json["id"])
            self.assertIn(b"A_NAME=no secret", answer.body)
            self.assertNotIn(b"A_KEY", answer.body)

    def test_two_daemons(self) -> None:
        """Two daemons on one C{state_dir}."""
        first = self.daemon()
        first.start()
        second = Daemon(first.directory)
        self.addCleanup(second.stop)
        self.assertIn("another ctsd", self.refused(second))

    def test_bad_store(self) -> None:
        """A database that is none."""
        daemon = self.daemon()
        daemon.state_dir.mkdir(mode=0o700)
        (daemon.state_dir / "ctsd.sqlite").write_bytes(b"no database, but long enough " * 100)
        self.assertIn("ctsd.sqlite", self.refused(daemon))


class StopTests(LiveTestCase):
    """SIGTERM."""

    def test_early(self) -> None:
        """One that comes before the daemon is ready ends it with status 0, too."""
        daemon = self.daemon()
        process = daemon.run()

        def listens() -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", daemon.port)) == 0

        wait_until(listens, "it listens")
        process.terminate()
        self.assertEqual(process.wait(15), 0)

    def test_while_it_imports(self) -> None:
        """One that comes as soon as twistd knows us does, too, with all our modules to come."""
        code = "import sys, ctsd.tap; print(*(one for one in sys.modules if 'ctsd' in one))"
        command = [sys.executable, "-c", code]
        loaded = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
        self.assertEqual(loaded.stdout.split(), ["ctsd", "ctsd.ending", "ctsd.tap"])
        daemon = self.daemon()
        process = daemon.run()

        def catches() -> bool:
            status = Path(f"/proc/{process.pid}/status").read_text()
            caught = int(status.partition("SigCgt:")[2].split()[0], 16)
            return bool(caught >> (signal.SIGTERM - 1) & 1)

        wait_until(catches, "it catches SIGTERM")
        process.terminate()
        self.assertEqual(process.wait(15), 0)

    def test_stuck_thread(self) -> None:
        """A searcher that is stuck in its thread does not hold the exit."""
        daemon = self.daemon(OWN.format(name="stuck"), searchers={"stuck.py": STUCK})
        daemon.start()
        self.assertEqual(daemon.post("net.ip", "10.1.1.1").status, 303)
        started = time.monotonic()
        self.assertEqual(daemon.stop(), 0)
        self.assertLess(time.monotonic() - started, 10)


class PromiseTests(LiveTestCase):
    """What was answered 303 is finished."""

    def waiting(self) -> Daemon:
        """A daemon whose searcher waits to be told."""
        daemon = self.daemon(OWN.format(name="waiting"), searchers={"waiting.py": WAITING})
        daemon.start()
        return daemon

    def go(self, daemon: Daemon) -> None:
        """Tell it."""
        daemon.let_answer()

    def test_killed(self) -> None:
        """C{kill -9} and a restart: every scan is finished and answered, with the same id."""
        daemon = self.waiting()
        promised = []
        for number in range(20):
            answer = daemon.post("net.ip", f"10.1.1.{number}")
            self.assertEqual(answer.status, 303)
            self.assertNotIn("Location", answer.headers)
            self.assertGreaterEqual(answer.json["retry_secs"], 1)
            promised.append(answer.json["id"])
        daemon.kill()
        daemon.start()
        self.assertEqual(daemon.ask("GET", "/" + promised[0]).status, 303)
        self.assertEqual(daemon.post("net.ip", "10.1.1.3").json["id"], promised[3])
        self.go(daemon)
        for scan_id in promised:
            answer = daemon.finished(scan_id)
            self.assertEqual(answer.status, 200)
            self.assertIn(b"bad", answer.body)

    def test_stopped(self) -> None:
        """The same after SIGTERM; and a finished scan is answered after it, too."""
        daemon = self.waiting()
        promised = daemon.post("net.ip", "10.1.1.1").json["id"]
        finished = daemon.post("net.uri", "http://nothing.example/").json["id"]
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        self.assertEqual(daemon.ask("GET", "/" + finished).status, 200)
        self.go(daemon)
        self.assertEqual(daemon.finished(promised).status, 200)

    def test_password(self) -> None:
        """A password is in no file, answered while the process lives, and lost after."""
        daemon = self.waiting()
        secret = "correct-horse-battery-staple"
        answer = daemon.post(PASSWORD, secret)
        self.assertEqual(answer.status, 303)
        self.go(daemon)
        self.assertEqual(daemon.finished(answer.json["id"]).status, 200)
        daemon.kill()
        needles = [secret.encode(), hashlib.sha256(secret.encode()).hexdigest().encode()]
        for path in daemon.directory.rglob("*"):
            if path.is_file():
                for needle in needles:
                    self.assertNotIn(needle, path.read_bytes(), str(path))
        daemon.start()
        self.assertEqual(daemon.ask("GET", "/" + answer.json["id"]).status, 503)

    def test_deadly_searcher(self) -> None:
        """A search that kills the daemon is caught: alone in a child from the second takeover,
        and the scan ends by naming it."""
        daemon = self.daemon(OWN.format(name="deadly"), searchers={"deadly.py": DEADLY})
        daemon.start()
        scan_id = daemon.post("net.ip", "10.1.1.1").json["id"]
        assert daemon.process is not None
        self.assertEqual(daemon.process.wait(10), -signal.SIGKILL)
        daemon.run()
        self.assertEqual(daemon.process.wait(20), -signal.SIGKILL)
        daemon.start()
        answer = daemon.finished(scan_id)
        self.assertEqual(answer.status, 503)
        self.assertIn("deadly", answer.json["error"])
        self.assertIsNone(daemon.process.poll())


class ReloadTests(LiveTestCase):
    """SIGHUP."""

    def says(self, daemon: Daemon, text: str) -> None:
        """Wait until it has logged this."""
        wait_until(lambda: text in daemon.log.read_text(), f"{text!r} in the log")

    def rewrite(self, daemon: Daemon, config: str) -> None:
        """Change its file, and tell it."""
        listen = daemon.config.read_text().splitlines()[0]
        daemon.config.write_text(f"{listen}\n{config}")
        daemon.signal(signal.SIGHUP)

    def test_good(self) -> None:
        """A new service, another file: from the next request on, without a lost one; what was
        promised before goes on."""
        daemon = self.daemon(OWN.format(name="waiting"), searchers={"waiting.py": WAITING})
        daemon.start()
        promised = daemon.post("net.ip", "10.1.1.1").json["id"]
        self.assertEqual(daemon.ask("OPTIONS", "/phish/").status, 405)
        feed = daemon.directory / "feed.csv"
        feed.write_text(
            "phish_id,url,phish_detail_url,submission_time,verified,verification_time,online,"
            "target\n7,http://new.example/login,x,2026-01-01T00:00:00+00:00,yes,x,yes,Bank\n"
        )
        config = OWN.format(name="waiting").replace('"waiting"]', '"waiting", "phishtank"]')
        config += '[searchers.phishtank]\nfile = "feed.csv"\n'
        config += '[services.phish]\nsearchers = ["phishtank"]\n'
        self.rewrite(daemon, config)
        self.says(daemon, "was read again")
        answer = daemon.post("net.uri", "new.example/login", "/phish/")
        self.assertEqual((answer.status, len(answer.json["hits"])), (200, 1))
        daemon.let_answer()
        self.assertEqual(daemon.finished(promised).status, 200)
        self.assertEqual(daemon.stop(), 0)

    def test_bad(self) -> None:
        """A file that is wrong changes nothing, and says where."""
        daemon = self.daemon('[services.phish]\nsearchers = ["phishtank"]')
        daemon.start()
        self.rewrite(daemon, 'retention_dayz = 1\n[services.other]\nsearchers = ["phishtank"]')
        self.says(daemon, "ctsd.toml:2: retention_dayz")
        self.assertEqual(daemon.ask("OPTIONS", "/phish/").status, 200)
        self.assertEqual(daemon.ask("OPTIONS", "/other/").status, 405)

    def test_fixed(self) -> None:
        """What holds until the next start is named."""
        daemon = self.daemon()
        daemon.start()
        self.rewrite(daemon, 'state_dir = "elsewhere"')
        self.says(daemon, "state_dir has changed")
        self.assertEqual(daemon.ask("OPTIONS").status, 200)
        self.assertFalse((daemon.directory / "elsewhere").exists())

    def test_under_load(self) -> None:
        """Requests that come meanwhile all get their answers."""
        daemon = self.daemon()
        daemon.start()
        for number in range(5):
            self.rewrite(daemon, f"retention_days = {20 + number}\n")
            for _ in range(20):
                answer = daemon.post("net.uri", "www.megastore.lu")
                self.assertEqual((answer.status, len(answer.json["hits"])), (200, 1))
        self.says(daemon, "was read again")


class HealthTests(LiveTestCase):
    """A source that keeps failing is loud."""

    def test_failing(self) -> None:
        """In C{/health} and in C{ctsd searchers}, while the daemon runs that knows it."""
        for workers in (1, 2):
            config = f"workers = {workers}\n" + OWN.format(name="failing")
            daemon = self.daemon(config, searchers={"failing.py": FAILING})
            daemon.start()
            self.assertEqual(daemon.ask("GET", "/health").json["status"], "ok")
            self.assertRegex(daemon.ctsd("searchers").stdout, r"failing +async +on\n")
            self.assertEqual(daemon.post("net.ip", "192.0.2.7").status, 303)

            def failing(daemon: Daemon = daemon) -> bool:
                return "could not be asked since" in daemon.ctsd("searchers").stdout

            wait_until(failing, "it is told")
            told = daemon.ctsd("searchers").stdout
            self.assertRegex(told, r"failing +async +failing +could not be asked since 2")
            self.assertNotIn("192.0.2.7", told)

            def degraded(daemon: Daemon = daemon) -> bool:
                answer = daemon.ask("GET", "/health")
                self.assertEqual(answer.status, 200)
                self.assertNotIn(b"192.0.2.7", answer.body)
                states = {one["name"]: one["state"] for one in answer.json["searchers"]}
                return answer.json["status"] == "degraded" and states["failing"] == "failing"

            # Another worker may answer, who has not asked it yet.
            wait_until(degraded, "it is degraded")
            self.assertEqual(daemon.ask("GET", "/health/ready").status, 200)
            daemon.kill()
            wait_until(lambda wait=failing: not wait(), "nobody lives who knows it")
