"""What docs/cluster.md shows, as it stands there, with other ports and paths."""

from __future__ import annotations

import base64
import http.client
import json
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ctsd.cli import make_parser
from tests.certificates import make_pair
from tests.live.daemon import BIN, ROOT, Answer, Daemon, free_port, wait_until
from tests.live.test_daemon import WAITING
from tests.postgres import MISSING, Server

DOCS = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")

NO_BALANCER = "" if shutil.which("haproxy") else "haproxy is not installed (Debian: haproxy)"


def blocks(language: str = "") -> list[str]:
    """The code blocks in a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", DOCS, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def replaced(text: str, parts: dict[str, str]) -> str:
    """A text with other ports and paths; each of them has to be in it."""
    for old, new in parts.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def of_ours(text: str) -> str:
    """A text with names of roles and of a database that are free on the test's server."""
    name = r"(?<!\w)ctsd(?=@)|(?<![\w/])ctsd(?=[ ,;]|$)|(?<=/)ctsd(?=\?)"
    return re.sub(name, "docs", text).replace("ctsd_owner", "docs_owner")


class WordsTests(SynchronousTestCase):
    """What can be seen without starting anything."""

    def test_commands(self) -> None:
        """Every command is one."""
        lines = [line for block in blocks("sh") for line in block.splitlines()]
        self.assertGreater(len(lines), 2)
        for line in lines:
            make_parser().parse_args(shlex.split(line)[1:])

    def test_files(self) -> None:
        """Every file of ours that it names is there."""
        names = re.findall(r"`((?:tests|benchmarks)/[\w./*]+)`", DOCS)
        self.assertGreater(len(names), 5)
        for name in names:
            self.assertTrue(list(ROOT.glob(name)), name)


class SetUpTests(SynchronousTestCase):
    """The database, the nodes and the balancer, set up from top to bottom."""

    skip = MISSING or NO_BALANCER or None

    def setUp(self) -> None:
        """Certificates, and a PostgreSQL that lets in whom the documentation says."""
        self.dir = Path(self.mktemp()).absolute()
        self.dir.mkdir()
        authority = make_pair("authority", authority=True)
        pair = make_pair("localhost", issuer=authority)
        self.files = {
            "db-ca.pem": authority.pem,
            "key.pem": pair.key_pem(),
            "fullchain.pem": pair.pem,
            "both.pem": pair.pem + pair.key_pem(),
        }
        self.write(self.dir)
        [access] = [block for block in blocks() if block.startswith("hostssl")]
        self.server = Server(
            key=self.dir / "key.pem",
            certificate=self.dir / "fullchain.pem",
            access=[of_ours(replaced(access.strip(), {"10.0.0.0/24": "127.0.0.1/32"}))],
        )
        self.addCleanup(self.server.remove)
        self.server.run("postgres", "CREATE DATABASE docs")
        for statement in of_ours(blocks("sql")[0]).split(";"):
            if statement.strip():
                self.server.run("docs", statement)
        self.port = free_port()

    def write(self, directory: Path) -> None:
        """The files that a node has beside its configuration."""
        for name, content in self.files.items():
            (directory / name).write_bytes(content)
            (directory / name).chmod(0o600)
        (directory / "db-password").write_text("change-me-2\n")
        (directory / "owner-password").write_text("change-me-1\n")

    def node(self, name: str) -> Daemon:
        """A node with the configuration that is shown; a searcher of ours beside it."""
        directory = self.dir / name
        daemon = Daemon(directory, searchers={"waiting.py": WAITING})
        self.write(directory)
        daemon.port = free_port()
        self.tls_ports[name] = free_port()
        shown = of_ours(blocks("toml")[0])
        config = replaced(
            shown,
            {
                "ssl:8443": f"ssl:{self.tls_ports[name]}",
                "10.0.0.11": "127.0.0.1",
                "tcp:8000": f"tcp:{daemon.port}",
                "/var/lib/ctsd": str(directory / "var"),
                "/srv/ctsd-uploads": str(self.dir / "uploads"),
                "db.example:5432": f"localhost:{self.server.port}",
                'workers = "auto"': "workers = 2",
            },
        )
        own = "[searchers]\nasync = ['waiting']\npath = ['own']\n"
        daemon.config.write_text(f"{config}{own}")
        subprocess.run(
            [str(BIN / "ctsd"), "passwd", str(directory / "users"), "soar"],
            input=b"pw-soar\npw-soar\n",
            check=True,
            timeout=30,
        )
        self.addCleanup(daemon.stop)
        return daemon

    def command(self, node: Daemon, start: str) -> str:
        """Run a command that is shown; what it says."""
        [line] = [
            line for block in blocks("sh") for line in block.splitlines() if line.startswith(start)
        ]
        line = of_ours(line).replace("db.example/", f"localhost:{self.server.port}/")
        said: str = node.ctsd(*shlex.split(line)[1:]).stdout
        return said

    def ask(self, method: str, path: str = "/", body: Any = None) -> Answer:
        """A request of the platform's: through the balancer, over TLS, with a password."""
        context = ssl.create_default_context(cafile=str(self.dir / "db-ca.pem"))
        connection = http.client.HTTPSConnection(
            "localhost", self.port, timeout=30, context=context
        )
        basic = base64.b64encode(b"soar:pw-soar").decode()
        headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def post(self, number: int) -> Answer:
        """Submit an artifact."""
        return self.ask("POST", "/", {"type": "net.ip", "value": f"10.1.1.{number}"})

    def balance(self) -> None:
        """Start the balancer with the configuration that is shown, but for the third node."""
        config = replaced(
            blocks("haproxy")[0],
            {
                "bind :8443 ssl crt /etc/haproxy/ctsd.pem": f"bind 127.0.0.1:{self.port} ssl crt"
                f" {self.dir}/both.pem",
                "/etc/haproxy/ca.pem": f"{self.dir}/db-ca.pem",
                "verifyhost ctsd.example": "verifyhost localhost",
                "10.0.0.11:8443": f"127.0.0.1:{self.tls_ports['a']}",
                "10.0.0.12:8443": f"127.0.0.1:{self.tls_ports['b']}",
                "    server c 10.0.0.13:8443\n": "",
            },
        )
        file = self.dir / "haproxy.cfg"
        file.write_text(config)
        log = (self.dir / "haproxy.log").open("wb")
        self.addCleanup(log.close)
        process = subprocess.Popen(["haproxy", "-db", "-f", str(file)], stdout=log, stderr=log)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        def ready() -> bool:
            try:
                return self.ask("GET", "/health/ready").status == 200
            except OSError:
                return False

        wait_until(ready, f"the balancer: {(self.dir / 'haproxy.log').read_text()}")

    def test_all_of_it(self) -> None:
        """
        It works as it is shown: roles, C{pg_hba.conf}, C{ctsd store}, nodes with workers, TLS
        everywhere, passwords, health checks. A node that is stopped is not missed by anybody, and
        one that is killed by nobody for long.
        """
        self.tls_ports: dict[str, int] = {}
        first, second = self.node("a"), self.node("b")
        self.assertIn("made, schema", self.command(first, "ctsd store init"))
        checked = self.command(first, "ctsd store check")
        self.assertIn("rights   enough", checked)
        self.assertIn("certificate and name were verified", checked)
        first.start()
        second.start()
        self.balance()
        [nodes] = re.findall(r"(?m)^nodes    (.*)$", first.ctsd("store", "check").stdout)
        self.assertEqual(len(nodes.split(", ")), 4, nodes)

        ids = [self.post(number).json["id"] for number in range(6)]
        statuses: Counter[int] = Counter()
        over = threading.Event()

        def load() -> None:
            while not over.is_set():
                statuses[self.ask("GET", f"/{ids[0]}").status] += 1

        loading = threading.Thread(target=load)
        loading.start()
        try:
            self.assertEqual(first.stop(), 0)
            first.start()
        finally:
            over.set()
            loading.join()
        self.assertEqual(set(statuses), {303}, statuses)
        first.signal(signal.SIGKILL)
        wait_until(lambda: self.all_answer(ids), "the balancer turns away")
        second.let_answer()
        for scan_id in ids:
            wait_until(lambda scan_id=scan_id: self.is_found(scan_id), "finished by the other one")

    def all_answer(self, ids: list[str]) -> bool:
        """Whether every request gets through."""
        return all(self.ask("GET", f"/{scan_id}").status in (200, 303) for scan_id in ids)

    def is_found(self, scan_id: str) -> bool:
        """Whether a scan is finished, with its hit."""
        answer = self.ask("GET", f"/{scan_id}")
        return answer.status == 200 and b"bad" in answer.body
