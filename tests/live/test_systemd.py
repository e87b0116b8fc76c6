"""The units, and the real daemon as systemd starts it."""

from __future__ import annotations

import base64
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bcrypt
from twisted.trial.unittest import SynchronousTestCase

from ctsd.config.loading import load
from tests.live.daemon import BIN, ROOT, Answer, Daemon, wait_until
from tests.test_config import write_key_pair

UNITS = ROOT / "systemd"

#: Says what it can see of its environment, from a child process.
ENVIRONMENT = '''
import os

from ctsd.searching import BaseArtifactSearch, Hit, string


class EnvironmentArtifactSearch(BaseArtifactSearch):
    """Finds the names of variables."""

    isolate = True

    def supports(self, artifact_type):
        return artifact_type == "net.ip"

    def search(self, artifact_type, search_term, **kwargs):
        return [Hit((string("names", " ".join(sorted(os.environ))),))]
'''

BLOCKING = '''
from ctsd.searching import BaseArtifactSearch, Hit, string


class BlockingArtifactSearch(BaseArtifactSearch):
    """Searches in a thread."""

    def supports(self, artifact_type):
        return artifact_type in ("net.ip", "file.content")

    def search(self, artifact_type, search_term, **kwargs):
        said = search_term.sha256 if artifact_type == "file.content" else search_term
        return [Hit((string("said", said),))]
'''

OWN = """
first_answer_secs = 10
post_deadline_secs = 20
[searchers]
sync = ["internal"]
async = ["phishtank", {names}]
path = ["own"]
"""


#: What is run by this is under the unit's filters.
SHUT_IN = (
    sys.executable,
    str(ROOT / "tests" / "live" / "shut_in.py"),
    str(UNITS / "ctsd.service"),
    sys.executable,
)

#: Of tests that call one of systemd's commands.
MISSING = None if shutil.which("systemd-analyze") else "systemd is not installed"


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; what it says is in C{stdout}."""
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


class LiveTestCase(SynchronousTestCase):
    """A daemon in a fresh directory."""

    def daemon(self, config: str = "", **more: Any) -> Daemon:
        """A daemon that is stopped with the test."""
        daemon = Daemon(Path(self.mktemp()), config, **more)
        self.addCleanup(daemon.stop)
        return daemon


class UnitTests(SynchronousTestCase):
    """The files in C{systemd/}."""

    skip = MISSING

    def test_verify(self) -> None:
        """systemd finds nothing to say about the units."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        shutil.copy(UNITS / "ctsd.socket", directory)
        text = (UNITS / "ctsd.service").read_text()
        self.assertEqual(text.count("/opt/ctsd/bin/twistd"), 1)
        unit = directory / "ctsd.service"
        unit.write_text(text.replace("/opt/ctsd/bin/twistd", str(BIN / "twistd")))
        done = analyze("verify", str(unit), str(directory / "ctsd.socket"))
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        unit.write_text(text.replace("LimitCORE=0", "LimitCOAR=0"))
        self.assertIn("LimitCOAR", analyze("verify", str(unit)).stdout)

    def test_security(self) -> None:
        """It is shut in to 2.0 or better."""
        unit = str(UNITS / "ctsd.service")
        done = analyze("security", "--offline=true", "--threshold=20", unit)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("Overall exposure level for ctsd.service", done.stdout)
        done = analyze("security", "--offline=true", "--threshold=5", unit)
        self.assertEqual(done.returncode, 1, done.stdout)

    def test_user(self) -> None:
        """sysusers.d makes the user that the service wants."""
        done = subprocess.run(
            ["systemd-sysusers", "--dry-run", str(UNITS / "ctsd.sysusers.conf")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("User=ctsd", (UNITS / "ctsd.service").read_text())

    def test_configuration(self) -> None:
        """The example is a good one, and open to this machine alone; the service and commands
        beside it mean the same C{state_dir}."""
        settings = load(UNITS / "ctsd.toml", environ={})
        self.assertEqual(settings.state_dir, Path("/var/lib/ctsd"))
        self.assertTrue(all(listener.local for listener in settings.listen))


class Supervised:
    """
    A socket as systemd has it, for one daemon.

    :ivar said: all messages so far.
    """

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.name = f"ctsd-test-{os.getpid()}-{time.monotonic_ns()}"
        self.socket.bind("\0" + self.name)
        self.socket.setblocking(False)
        self.said: list[str] = []

    @property
    def environ(self) -> dict[str, str]:
        """What the daemon is told."""
        return {"NOTIFY_SOCKET": "@" + self.name, "WATCHDOG_USEC": "400000"}

    def heard(self, message: str) -> bool:
        """Whether a message that begins like this has come."""
        while True:
            try:
                self.said.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return any(one.startswith(message) for one in self.said)

    def hear(self, message: str) -> None:
        """Wait until one has."""
        wait_until(lambda: self.heard(message), message)


class NotifyTests(LiveTestCase):
    """What systemd hears."""

    def setUp(self) -> None:
        """Make what systemd would."""
        self.supervisor = Supervised()
        self.addCleanup(self.supervisor.socket.close)

    def test_life(self) -> None:
        """Ready when it answers, alive all the time, stopping at the end."""
        daemon = self.daemon(environ=self.supervisor.environ)
        daemon.run()
        self.supervisor.hear("READY=1")
        self.assertEqual(daemon.ask("OPTIONS").status, 200)
        self.assertIn("READY=1\nSTATUS=searchers: 3 on, 0 off", self.supervisor.said)
        self.supervisor.said.clear()
        time.sleep(1.1)
        self.supervisor.heard("")
        beats = self.supervisor.said.count("WATCHDOG=1")
        self.assertGreaterEqual(beats, 3)
        self.assertLessEqual(beats, 7)
        self.assertEqual(daemon.stop(), 0)
        self.supervisor.hear("STOPPING=1")

    def test_blocked(self) -> None:
        """A daemon that is blocked is not alive."""
        daemon = self.daemon(environ=self.supervisor.environ)
        daemon.run()
        self.supervisor.hear("READY=1")
        daemon.signal(signal.SIGSTOP)
        time.sleep(0.2)
        self.supervisor.heard("")
        self.supervisor.said.clear()
        time.sleep(0.7)
        self.assertFalse(self.supervisor.heard("WATCHDOG"))
        daemon.signal(signal.SIGCONT)
        self.supervisor.hear("WATCHDOG")

    def test_reload(self) -> None:
        """Reloading, and ready again, whether the configuration is good or not."""
        daemon = self.daemon(environ=self.supervisor.environ)
        daemon.run()
        self.supervisor.hear("READY=1")
        for text in (daemon.config.read_text(), "nonsense = 1"):
            self.supervisor.said.clear()
            daemon.config.write_text(text)
            daemon.signal(signal.SIGHUP)
            self.supervisor.hear("RELOADING=1\nMONOTONIC_USEC=")
            self.supervisor.hear("READY=1")

    def test_children(self) -> None:
        """Child processes can't speak for the daemon."""
        daemon = self.daemon(
            OWN.format(names='"environment"'),
            searchers={"environment.py": ENVIRONMENT},
            environ={**self.supervisor.environ, "LISTEN_FDNAMES": "x"},
        )
        daemon.start()
        (hit,) = daemon.post("net.ip", "10.1.1.1").json["hits"]
        names = hit["props"][0]["value"].split()
        self.assertIn("PATH", names)
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDNAMES"):
            self.assertNotIn(name, names)

    def test_nobody_listens(self) -> None:
        """A socket that is not there does not stop the start."""
        self.supervisor.socket.close()
        daemon = self.daemon(environ=self.supervisor.environ)
        daemon.start()
        self.assertEqual(daemon.log.read_text().count("can't be told"), 1)


class SocketTests(LiveTestCase):
    """Sockets that systemd made."""

    skip = MISSING

    def activated(self, daemon: Daemon, listen: str, *options: str) -> None:
        """Have systemd-socket-activate listen for a daemon, and start it when somebody comes."""
        daemon.prefix = ["systemd-socket-activate", f"--listen={listen}", *options]
        daemon.run()

    def test_index(self) -> None:
        """C{systemd:domain=INET:index=0}: the first client starts the daemon and is answered."""
        daemon = self.daemon(listen='["systemd:domain=INET:index=0"]')
        self.activated(daemon, f"127.0.0.1:{daemon.port}", "--fdname=ctsd")

        def answers() -> bool:
            try:
                return daemon.post("net.uri", "www.megastore.lu").json["hits"] != []
            except ConnectionRefusedError:
                return False

        wait_until(answers, "answered")
        self.assertEqual(daemon.ask("GET", "/health/ready").status, 200)
        self.assertEqual(daemon.stop(), 0, daemon.log.read_text())

    def test_workers(self) -> None:
        """Workers share the one socket; a client finds the others' when one has been replaced."""
        daemon = self.daemon("workers = 2\n", listen='["systemd:domain=INET:index=0"]')
        self.activated(daemon, f"127.0.0.1:{daemon.port}", "--fdname=ctsd")

        def answers() -> bool:
            try:
                return daemon.post("net.uri", "www.megastore.lu").json["hits"] != []
            except ConnectionRefusedError:
                return False

        def replaced() -> bool:
            self.assertTrue(answers())
            return "All workers were replaced" in daemon.log.read_text()

        wait_until(answers, "answered")
        wait_until(lambda: daemon.log.read_text().count("is ready (process") == 2, "both are ready")
        daemon.signal(signal.SIGUSR2)
        wait_until(replaced, "replaced, and answered all the time")
        self.assertTrue(answers())
        self.assertEqual(daemon.stop(), 0, daemon.log.read_text())

    def test_name(self) -> None:
        """By name, on a socket that takes IPv4 and IPv6."""
        daemon = self.daemon(listen='["systemd:domain=INET6:name=ctsd"]')
        self.activated(daemon, str(daemon.port), "--fdname=ctsd")

        def answers() -> bool:
            try:
                return daemon.ask("OPTIONS").status == 200
            except ConnectionRefusedError:
                return False

        wait_until(answers, "answered over IPv4")
        self.assertEqual(daemon.stop(), 0, daemon.log.read_text())

    def test_tls_and_passwords(self) -> None:
        """Behind C{auth:} and under TLS, and under the unit's filters."""
        daemon = self.daemon(
            listen='["auth:users:tls-wrap:k.pem:c.pem:systemd:domain=INET:index=0"]'
        )
        write_key_pair(daemon.directory)
        (daemon.directory / "users").write_bytes(
            b"resilient:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n"
        )
        self.activated(daemon, f"127.0.0.1:{daemon.port}", "--fdname=ctsd", *SHUT_IN)
        context = ssl.create_default_context(cafile=str(daemon.directory / "c.pem"))
        context.check_hostname = False

        def status(headers: dict[str, str]) -> int:
            client = http.client.HTTPSConnection(
                "127.0.0.1", daemon.port, timeout=30, context=context
            )
            try:
                client.request("OPTIONS", "/", headers=headers)
                return client.getresponse().status
            except ConnectionRefusedError:
                return 0
            finally:
                client.close()

        self.assertEqual(wait_until(lambda: status({}), "answered"), 401)
        good = base64.b64encode(b"resilient:secret").decode()
        self.assertEqual(status({"Authorization": f"Basic {good}"}), 200)
        self.assertEqual(daemon.stop(), 0, daemon.log.read_text())

    def test_unix(self) -> None:
        """A Unix socket."""
        daemon = self.daemon(listen='["systemd:domain=UNIX:index=0"]')
        name = f"ctsd-test-{os.getpid()}-{time.monotonic_ns()}"
        self.activated(daemon, "@" + name, "--fdname=ctsd")

        def status() -> bytes:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(30)
                try:
                    client.connect("\0" + name)
                except (FileNotFoundError, ConnectionRefusedError):
                    return b""
                client.sendall(b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n")
                return client.recv(12)

        self.assertEqual(wait_until(status, "answered"), b"HTTP/1.1 200")
        self.assertEqual(daemon.stop(), 0, daemon.log.read_text())

    def test_none(self) -> None:
        """Without such a socket the start ends with one line, status 1."""
        for listen in (
            '["systemd:domain=INET:index=0"]',
            '["systemd:domain=INET:name=ctsd"]',
            '["systemd:domain=NONE:index=0"]',
        ):
            daemon = self.daemon(listen=listen)
            self.assertEqual(daemon.run().wait(20), 1)
            said = daemon.log.read_text()
            self.assertIn("no such socket came from systemd", said)
            self.assertNotIn("Traceback", said)


class ShutInTests(LiveTestCase):
    """Everything works under the unit's filters."""

    skip = MISSING

    def test_workers(self) -> None:
        """Workers, one of them killed; and a clean end."""
        daemon = self.daemon("workers = 2\n", prefix=SHUT_IN)
        daemon.start()
        wait_until(lambda: daemon.log.read_text().count("is ready (process") == 2, "both are ready")
        assert daemon.process is not None
        parent = daemon.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        self.assertIn("Seccomp:\t2", Path(f"/proc/{children[0]}/status").read_text())
        self.assertEqual(len(daemon.post("net.uri", "www.megastore.lu").json["hits"]), 1)
        os.kill(int(children[0]), signal.SIGKILL)
        wait_until(lambda: daemon.log.read_text().count("is ready (process") == 3, "another one")
        self.assertEqual(len(daemon.post("net.uri", "www.megastore.lu").json["hits"]), 1)
        self.assertEqual(daemon.stop(), 0, daemon.log.read_text())
        self.assertNotIn("Traceback", daemon.log.read_text())

    def test_all_of_it(self) -> None:
        """Indexes, uploads, threads, child processes, promises; and a clean end."""
        daemon = self.daemon(
            OWN.format(names='"blocking", "environment"'),
            searchers={"blocking.py": BLOCKING, "environment.py": ENVIRONMENT},
            prefix=SHUT_IN,
        )
        daemon.start()
        assert daemon.process is not None
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        self.assertIn("Seccomp:\t2", status)
        self.assertIn("NoNewPrivs:\t1", status)
        found = daemon.post("net.uri", "www.megastore.lu")
        self.assertEqual(len(found.json["hits"]), 1, daemon.log.read_text())
        found = daemon.post("net.ip", "10.1.1.1")
        self.assertEqual((found.status, len(found.json["hits"])), (200, 2), found.body)
        found = self.upload(daemon)
        self.assertEqual((found.status, len(found.json["hits"])), (200, 1), found.body)
        daemon.ctsd("store", "backup", "backup")
        self.assertEqual(daemon.stop(), 0, daemon.log.read_text())
        self.assertNotIn("Traceback", daemon.log.read_text())

    def upload(self, daemon: Daemon) -> Answer:
        """Send a file."""
        parts = (
            b'--b\r\nContent-Disposition: form-data; name="artifact"\r\n'
            b"Content-Type: application/json\r\n\r\n"
            b'{"type": "file.content"}\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n'
            b"Content-Type: application/octet-stream\r\n\r\n" + bytes(300_000) + b"\r\n--b--\r\n"
        )
        return daemon.ask("POST", "/", parts, {"Content-Type": "multipart/form-data; boundary=b"})
