"""Passwords in front of the real daemon."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import requests
from twisted.trial.unittest import SynchronousTestCase

from tests.live.daemon import wait_until
from tests.live.doors import DoorDaemon, basic

DOORS = {"auth": "auth:users:tcp:{port}:interface=127.0.0.1"}

USERS_ONLY = """
[services.phish]
searchers = ["phishtank"]
users = ["bob"]
"""


class AuthTests(SynchronousTestCase):
    """C{auth:USERS:<endpoint>}."""

    def daemon(self, config: str = "") -> DoorDaemon:
        """A daemon that asks for passwords, not started; it has none."""
        daemon = DoorDaemon(Path(self.mktemp()), DOORS, config)
        self.addCleanup(daemon.stop)
        return daemon

    def started(self, config: str = "") -> DoorDaemon:
        """One where Ann's password is C{secret}."""
        daemon = self.daemon(config)
        daemon.passwd("ann", password="secret")
        daemon.start()
        return daemon

    def test_curl(self) -> None:
        """As administrators try it: without, with, and when it is asked for."""
        daemon = self.started()
        url = f"http://127.0.0.1:{daemon.ports['auth']}/"

        def curl(*arguments: str) -> str:
            command = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]
            return subprocess.run(
                [*command, *arguments], capture_output=True, check=True, timeout=30, text=True
            ).stdout

        self.assertEqual(curl(url, "--request", "OPTIONS"), "401")
        for how in ("--basic", "--anyauth"):
            auth = ("--user", "ann:secret", how)
            self.assertEqual(curl(url, "--request", "OPTIONS", *auth), "200")
            artifact = 'artifact={"type": "net.ip", "value": "192.0.2.1"};type=application/json'
            chunked = ("--header", "Transfer-Encoding: chunked")
            self.assertEqual(curl(url, "--form", artifact, *chunked, *auth), "200")
        self.assertEqual(curl(url, "--request", "OPTIONS", "--user", "ann:wrong"), "401")
        self.assertEqual(curl(url + "health/ready"), "200")
        self.assertEqual(daemon.ask("OPTIONS").status, 200)

    def test_session(self) -> None:
        """A client that keeps its connection, credentials with each request."""
        daemon = self.started()
        connection = daemon.connect("auth")
        self.addCleanup(connection.close)
        statuses = []
        for headers in ({}, basic("ann", "secret"), {}, basic("ann", "secret")):
            connection.request("OPTIONS", "/", headers=headers)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        self.assertEqual(statuses, [401, 200, 401, 200])

    def test_requests(self) -> None:
        """A client of another make, with a file: in with the password, 401 with a wrong one."""
        daemon = self.started()
        url = f"http://127.0.0.1:{daemon.ports['auth']}/"
        artifact = '{"type": "file.content", "value": "big.bin"}'

        def post(password: str) -> requests.Response:
            parts = {
                "artifact": (None, artifact, "application/json"),
                "file": ("big.bin", b"x" * 20_000_000, "application/octet-stream"),
            }
            return requests.post(url, files=parts, auth=("ann", password), timeout=60)

        self.assertEqual(post("secret").status_code, 200)
        self.assertEqual(post("wrong").status_code, 401)
        wait_until(lambda: not daemon.uploads(), "an empty spool")

    def test_wrong(self) -> None:
        """A guess is held back at most 2 s, and the log says what it means, without it."""
        daemon = self.started()
        started = time.monotonic()
        answer = daemon.knock("auth", basic("ann", "gue55"))
        self.assertLess(time.monotonic() - started, 3)
        self.assertEqual(answer.status, 401)
        self.assertTrue(answer.headers["WWW-Authenticate"].startswith("Basic realm="))
        self.assertEqual(daemon.knock("auth", basic("zoe", "gue55")).status, 401)
        log = daemon.log.read_text()
        self.assertIn("Threat Sources", log)
        self.assertNotIn("gue55", log)

    def test_large_body(self) -> None:
        """A client that writes 20 MB before it reads finds 401, and nothing is kept of it."""
        daemon = self.started()
        body = b"x" * 20_000_000
        for headers in ({}, basic("ann", "wrong")):
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            start = f"POST / HTTP/1.1\r\nHost: ctsd\r\n{lines}".encode()
            multipart = b"Content-Type: multipart/form-data; boundary=x\r\n"
            for head, sent in (
                (start + b"Content-Length: %d\r\n\r\n" % len(body), body),
                (start + multipart + b"Content-Length: %d\r\n\r\n" % len(body), body),
                (
                    start + multipart + b"Transfer-Encoding: chunked\r\n\r\n",
                    b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
                ),
            ):
                got = daemon.write_all_first("auth", head, sent)
                self.assertEqual(got[:13], b"HTTP/1.1 401 ", head)
        self.assertEqual(daemon.uploads(), [])

    def test_rotation(self) -> None:
        """A password is changed on two sides, without a moment in which neither works."""
        daemon = self.started()
        old, new = basic("ann", "secret"), basic("ann", "newer")
        self.assertEqual(daemon.knock("auth", old).status, 200)
        daemon.passwd("--add", "ann", password="newer")
        # At once: an unknown password waits for a look at the file.
        self.assertEqual(daemon.knock("auth", new).status, 200)
        self.assertEqual(daemon.knock("auth", old).status, 200)
        daemon.passwd("--newest", "ann")
        wait_until(lambda: daemon.knock("auth", old).status == 401, "the old one ends")
        self.assertEqual(daemon.knock("auth", new).status, 200)

    def test_broken_file(self) -> None:
        """What can't be read keeps the last good passwords; and is told, once."""
        daemon = self.started()
        users = daemon.directory / "users"
        for content in ("ann:plain", "", None):
            if content is None:
                users.unlink()
            else:
                users.write_text(content)
            time.sleep(2.5)
            self.assertEqual(daemon.knock("auth", basic("ann", "secret")).status, 200)
        log = daemon.log.read_text()
        self.assertEqual(log.count("can't be used"), 3)
        self.assertNotIn("plain", log)
        daemon.passwd("bob", password="hidden")
        wait_until(
            lambda: daemon.knock("auth", basic("ann", "secret")).status == 401, "it is read again"
        )
        self.assertEqual(daemon.knock("auth", basic("bob", "hidden")).status, 200)

    def test_no_file(self) -> None:
        """Without passwords it starts, and says 503 until there are some."""
        daemon = self.daemon()
        daemon.start()
        for headers in ({}, basic("ann", "secret")):
            self.assertEqual(daemon.knock("auth", headers).status, 503)
        self.assertIn("ctsd.toml:1: listen[1]: the password file", daemon.ctsd("check").stderr)
        daemon.passwd("ann", password="secret")
        wait_until(
            lambda: daemon.knock("auth", basic("ann", "secret")).status == 200, "it is taken"
        )
        self.assertNotIn("the password file", daemon.ctsd("check").stderr)

    def test_users(self) -> None:
        """A service for some users; who they are is read again on SIGHUP."""
        daemon = self.daemon(USERS_ONLY)
        daemon.passwd("ann", password="secret")
        daemon.passwd("bob", password="hidden")
        daemon.start()
        ann, bob = basic("ann", "secret"), basic("bob", "hidden")
        asked = [(ann, "/"), (bob, "/"), (ann, "/phish/"), (bob, "/phish/")]
        statuses = [daemon.knock("auth", who, path=path).status for who, path in asked]
        self.assertEqual(statuses, [200, 200, 401, 200])
        text = daemon.config.read_text()
        daemon.config.write_text(text.replace('users = ["bob"]', 'users = ["ann"]'))
        daemon.hang_up()
        wait_until(lambda: daemon.knock("auth", ann, path="/phish/").status == 200, "taken")
        self.assertEqual(daemon.knock("auth", bob, path="/phish/").status, 401)

    def test_many_at_once(self) -> None:
        """Connections that come together with one credential are all let in."""
        daemon = self.started()
        connections = [daemon.connect("auth") for _ in range(50)]
        for connection in connections:
            self.addCleanup(connection.close)
            connection.request("OPTIONS", "/", headers=basic("ann", "secret"))
        self.assertEqual({each.getresponse().status for each in connections}, {200})
