"""A real daemon that speaks TLS with its PostgreSQL, and what it tells of its secrets: nothing."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Pair, make_pair
from tests.live.daemon import BIN, PATIENCE_SECS, Daemon, children, wait_until
from tests.live.test_daemon import OWN, WAITING
from tests.postgres import MISSING, Server

#: Nobody comes in without TLS, a certificate of ours and the password.
STRICT = ("hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-full",)


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """A file with this mode."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


class SpyOnChildren:
    """
    Looks at what a process' children can be asked by everybody of their user, again and again.

    :ivar seen: how many children there were.
    :ivar told: what they had in their environments and arguments.
    """

    def __init__(self, pid: int) -> None:
        self.seen: set[int] = set()
        self.told = b""
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        arguments = Path(f"/proc/{self._pid}/cmdline").read_bytes()
        while not self._over.wait(0.005):
            for child in children(self._pid):
                # The arguments first: until a child runs its own program it is its parent's copy.
                try:
                    own = Path(f"/proc/{child}/cmdline").read_bytes()
                    told = own + Path(f"/proc/{child}/environ").read_bytes()
                except OSError:
                    continue
                if own != arguments:
                    self.told += told
                    self.seen.add(child)

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()


class TlsTests(SynchronousTestCase):
    """One daemon, one PostgreSQL that asks for certificates."""

    skip = MISSING or None

    def setUp(self) -> None:
        """An authority, which has signed for the server and for us; the server."""
        self.dir = Path(self.mktemp()).absolute()
        self.files = self.dir / "db"
        self.files.mkdir(parents=True)
        self.authority = make_pair("authority", authority=True)
        self.theirs = make_pair("localhost", issuer=self.authority)
        self.ours = make_pair("ctsd", issuer=self.authority)
        self.write("ca.pem", self.authority)
        write(self.files / "cert.pem", self.ours.pem)
        write(self.files / "key.pem", self.ours.key_pem())

    def write(self, name: str, pair: Pair) -> Path:
        """A certificate where the configuration finds it."""
        return write(self.files / name, pair.pem)

    def server(self, *access: str, tls: bool = True) -> Server:
        """A server; with its database."""
        server = Server(
            key=write(self.dir / "their.key", self.theirs.key_pem()) if tls else None,
            certificate=write(self.dir / "their.pem", self.theirs.pem) if tls else None,
            authority=self.files / "ca.pem" if tls else None,
            access=access or STRICT,
        )
        self.addCleanup(server.remove)
        self.database = server.new_database()
        return server

    def daemon(self, server: Server, more: str, *, host: str = "localhost") -> Daemon:
        """A daemon of its own; the files in its URL are relative."""
        url = server.url(self.database, host=host, more=more)
        own = OWN.format(name="waiting")
        daemon = Daemon(
            self.dir,
            f"{own}\n[store]\nurl = '{url}'\npassword = {{ env = 'PG_PASSWORD' }}\n",
            searchers={"waiting.py": WAITING},
            environ={"PG_PASSWORD": server.password},
        )
        self.addCleanup(daemon.stop)
        return daemon

    def whole(self, **changes: str) -> str:
        """The part of a URL that says everything."""
        parts = {
            "sslmode": "verify-full",
            "sslrootcert": "db/ca.pem",
            "sslcert": "db/cert.pem",
            "sslkey": "db/key.pem",
        }
        return "?" + "&".join(f"{key}={value}" for key, value in (parts | changes).items() if value)

    def refused(self, daemon: Daemon) -> str:
        """The one line with which C{ctsd store check} ends."""
        checked = daemon.ctsd("store", "check", check=False)
        self.assertEqual((checked.returncode, checked.stdout), (1, ""))
        self.assertRegex(checked.stderr, r"\Actsd: [^\n]+\n\Z")
        self.assertNotTold(daemon, checked.stderr.encode())
        why: str = checked.stderr.removeprefix("ctsd: ").rstrip()
        return why

    def assertDoesNotStart(self, daemon: Daemon, why: str) -> None:
        """The daemon ends with status 1 and this line."""
        self.assertEqual(daemon.run().wait(PATIENCE_SECS), 1)
        log = daemon.log.read_text()
        said = [each for each in log.splitlines() if "#error] ctsd: " in each]
        self.assertEqual([each.partition("#error] ctsd: ")[2] for each in said], [why], log)
        self.assertNotIn("Traceback", log)
        self.assertNotTold(daemon)

    def assertNotTold(self, daemon: Daemon, *further: bytes) -> None:
        """No secret is in a file of the daemon's, in a process' arguments, or in what is given."""
        key = self.ours.key_pem().splitlines()[1]
        for secret in (Server.password.encode(), key):
            for path in (daemon.log, *daemon.state_dir.rglob("*")):
                if path.is_file():
                    self.assertNotIn(secret, path.read_bytes(), str(path))
            for text in further:
                self.assertNotIn(secret, text)
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.assertNotIn(secret, path.read_bytes())
                except OSError:
                    continue

    def test_verified(self) -> None:
        """
        Everything is encrypted, both sides have shown who they are, and relative paths are relative
        to the configuration. Neither the password nor the variable that it came in is a child's.
        """
        server = self.server()
        daemon = self.daemon(server, self.whole())
        daemon.start()
        assert daemon.process is not None
        spy = SpyOnChildren(daemon.process.pid)
        self.addCleanup(spy.stop)
        scan_id = daemon.post("net.ip", "10.1.1.1").json["id"]
        lines = daemon.directory / "threats.jsonl"
        one = '{"name": "T", "artifacts": [{"type": "net.name", "value": "h%d.example"}]}\n'
        lines.write_text("".join(one % number for number in range(20_000)))
        imported = daemon.ctsd("threats", "import", str(lines))
        wait_until((daemon.state_dir / "index" / "threats").exists, "an index is built")
        rows = server.run(
            "postgres",
            "SELECT bool_and(ssl), bool_and(client_dn = '/CN=ctsd'), count(*) FROM pg_stat_ssl"
            " JOIN pg_stat_activity USING (pid) WHERE datname = %s",
            (self.database,),
        )
        self.assertEqual(rows[0][:2], (True, True))
        self.assertGreater(rows[0][2], 1)
        checked = subprocess.run(
            [str(BIN / "ctsd"), "store", "check", "--config", str(daemon.config)],
            cwd="/",
            env=daemon.environ,
            capture_output=True,
            timeout=PATIENCE_SECS,
            check=False,
        )
        self.assertEqual(checked.returncode, 0, checked.stderr)
        self.assertIn(b"the server's certificate and name were verified", checked.stdout)
        daemon.let_answer()
        self.assertIn(b"bad", daemon.finished(scan_id).body)
        spy.stop()
        self.assertTrue(spy.seen)
        self.assertNotIn(b"PG_PASSWORD", spy.told)
        self.assertNotTold(
            daemon, spy.told, imported.stderr.encode(), checked.stdout, checked.stderr
        )

    def test_back_again(self) -> None:
        """After a restart of the server all is as encrypted as before."""
        server = self.server()
        daemon = self.daemon(server, self.whole())
        daemon.start()
        server.stop()
        wait_until(lambda: daemon.ask("GET", "/health/ready").status == 503, "that it is told")
        server.start()
        wait_until(lambda: daemon.ask("GET", "/health/ready").status == 200, "it is back")
        self.assertEqual(daemon.post("net.ip", "10.1.1.1").status, 303)
        rows = server.run(
            "postgres",
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            " WHERE datname = %s",
            (self.database,),
        )
        self.assertEqual(rows, [(True,)])
        self.assertNotTold(daemon)

    def test_refused(self) -> None:
        """What is wrong with a certificate stops the start, in one line that says what it is."""
        server = self.server()
        stranger = make_pair("stranger", authority=True)
        self.write("stranger.pem", stranger)
        forged = make_pair("ctsd", issuer=stranger)
        write(self.files / "forged.pem", forged.pem)
        write(self.files / "forged.key", forged.key_pem())
        write(self.files / "open.key", self.ours.key_pem(), 0o644)
        forged_pair = self.whole(sslcert="db/forged.pem", sslkey="db/forged.key")
        missing = str(self.files / "none.pem")
        for more, host, told in (
            (self.whole(sslrootcert="db/stranger.pem"), "localhost", "certificate verify failed"),
            (self.whole(sslrootcert="db/none.pem"), "localhost", missing),
            (self.whole(), "127.0.0.1", "does not match"),
            (self.whole(sslcert="", sslkey=""), "localhost", "certificate"),
            (forged_pair, "localhost", "unknown ca"),
            (self.whole(sslkey="db/open.key"), "localhost", str(self.files / "open.key")),
            (self.whole(sslmode="disable"), "localhost", "pg_hba.conf"),
        ):
            daemon = self.daemon(server, more, host=host)
            self.assertIn(told, why := self.refused(daemon), more)
        self.assertDoesNotStart(daemon, why)

    def test_less_strict(self) -> None:
        """C{verify-ca} does without the name, C{require} without a look at the certificate."""
        server = self.server("hostssl all all 127.0.0.1/32 scram-sha-256")
        for more, told in (
            ("?sslmode=verify-ca&sslrootcert=db/ca.pem", "but not its name"),
            ("?sslmode=require", "nothing was verified"),
        ):
            daemon = self.daemon(server, more, host="127.0.0.1")
            daemon.start()
            self.assertEqual(daemon.post("net.ip", "10.1.1.1").status, 303)
            self.assertIn(told, daemon.ctsd("store", "check").stdout)
            self.assertEqual(daemon.stop(), 0)

    def test_plain_server(self) -> None:
        """A server that has no TLS is not spoken to where TLS is wanted."""
        server = self.server("host all all 127.0.0.1/32 scram-sha-256", tls=False)
        for mode in ("require", "verify-ca", "verify-full"):
            more = f"?sslmode={mode}&sslrootcert=db/ca.pem"
            daemon = self.daemon(server, more)
            self.assertIn("does not support SSL", why := self.refused(daemon))
        self.assertDoesNotStart(daemon, why)

    def test_silent_resolver(self) -> None:
        """A name server that says nothing holds the start for some seconds, not for minutes."""
        server = self.server("host all all 127.0.0.1/32 scram-sha-256", tls=False)
        daemon = self.daemon(server, "", host="db.invalid")
        # Python reads it at its start.
        blocking = self.dir / "slow"
        blocking.mkdir()
        (blocking / "sitecustomize.py").write_text(
            "import socket, time\n"
            "_real = socket.getaddrinfo\n"
            "def getaddrinfo(host, *args, **kwargs):\n"
            "    if host == 'db.invalid':\n"
            "        time.sleep(60)\n"
            "    return _real(host, *args, **kwargs)\n"
            "socket.getaddrinfo = getaddrinfo\n"
        )
        path = [str(blocking), *filter(None, [os.environ.get("PYTHONPATH")])]
        daemon.environ["PYTHONPATH"] = os.pathsep.join(path)
        started = time.monotonic()
        self.assertEqual(daemon.run().wait(50), 1)
        self.assertLess(time.monotonic() - started, 45)
        self.assertIn(
            "the name db.invalid could not be looked up within 5 s", daemon.log.read_text()
        )
