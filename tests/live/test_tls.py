"""TLS before the real daemon."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Pair, make_pair
from tests.live.daemon import PATIENCE_SECS, wait_until
from tests.live.doors import IP, DoorDaemon, basic, trusting

SSL = "ssl:{port}:privateKey=key.pem:certKey=cert.pem:interface=127.0.0.1"
DOORS = {
    "ssl": SSL,
    "wrapped": "tls-wrap:key.pem:cert.pem:tcp:{port}:interface=127.0.0.1",
    "auth": "auth:users:" + SSL,
}


class Client(threading.Thread):
    """
    Asks all the time, on one connection or on a new one each time.

    :ivar asked: how many questions were answered.
    :ivar serials: the certificates that it saw.
    :ivar failed: what went wrong.
    """

    def __init__(self, daemon: DoorDaemon, context: ssl.SSLContext, *, keep: bool) -> None:
        super().__init__(daemon=True)
        self.asked = 0
        self.serials: set[int] = set()
        self.failed: list[Exception] = []
        self.enough = threading.Event()
        self._daemon, self._context, self._keep = daemon, context, keep

    def run(self) -> None:
        """Ask until it is enough."""
        connection: http.client.HTTPSConnection = self._daemon.connect("ssl", self._context)
        try:
            while not self.enough.is_set():
                connection.request("POST", "/", json.dumps(IP).encode())
                found = connection.sock.getpeercert()
                self.serials.add(int(str(found["serialNumber"]), 16))
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise AssertionError(answer.status)
                self.asked += 1
                if not self._keep:
                    connection.close()
        except Exception as error:
            self.failed.append(error)
        finally:
            connection.close()

    def end(self) -> None:
        """It is enough."""
        self.enough.set()
        self.join(PATIENCE_SECS)


class TLSTests(SynchronousTestCase):
    """C{ssl:} and C{tls-wrap:}."""

    def setUp(self) -> None:
        """A daemon with a certificate."""
        self.daemon = DoorDaemon(Path(self.mktemp()), DOORS)
        self.addCleanup(self.daemon.stop)
        self.root = make_pair("root", authority=True)
        self.middle = make_pair("middle", issuer=self.root, authority=True)
        self.context = trusting(self.root)
        self.renew()

    def renew(self, pair: Pair | None = None) -> int:
        """Write another pair; its serial number."""
        pair = pair or make_pair(issuer=self.middle)
        pair.write(self.daemon.directory, self.middle)
        return pair.serial

    def serial(self, door: str = "ssl") -> int:
        """Of the certificate that a new client sees."""
        address = ("localhost", self.daemon.ports[door])
        with (
            socket.create_connection(address, PATIENCE_SECS) as raw,
            self.context.wrap_socket(raw, server_hostname="localhost") as client,
        ):
            found = client.getpeercert()
            assert found is not None
            return int(str(found["serialNumber"]), 16)

    def test_doors(self) -> None:
        """Artifacts through each of them; the chain comes along, and old versions don't get in."""
        self.daemon.passwd("ann", password="secret")
        self.daemon.start()
        for door in ("ssl", "wrapped"):
            self.assertEqual(self.daemon.knock(door, context=self.context).status, 200)
        ann = basic("ann", "secret")
        self.assertEqual(self.daemon.knock("auth", context=self.context).status, 401)
        self.assertEqual(self.daemon.knock("auth", ann, context=self.context).status, 200)
        # Each listener has its own doors.
        self.assertEqual(self.daemon.post("net.ip", "192.0.2.1").status, 200)
        self.assertRaises(OSError, self.daemon.knock, "ssl", context=trusting(make_pair()))
        old = trusting(self.root)
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        self.assertRaises(OSError, self.daemon.knock, "ssl", context=old)
        done = self.daemon.ctsd("check")
        self.assertNotIn("certificate", done.stderr)

    def test_curl(self) -> None:
        """As administrators try it."""
        self.daemon.start()
        (self.daemon.directory / "ca.pem").write_bytes(self.root.pem)
        url = f"https://localhost:{self.daemon.ports['ssl']}/"
        command = ["curl", "--silent", "--show-error", "--cacert", "ca.pem", "--request", "OPTIONS"]
        done = subprocess.run(
            [*command, url], cwd=self.daemon.directory, capture_output=True, check=True, timeout=30
        )
        self.assertEqual(done.stdout, b'{"upload_file": true}')

    def test_renewal(self) -> None:
        """Certificates are renewed under load, and no request fails."""
        first = self.serial_after_start()
        clients = [Client(self.daemon, self.context, keep=keep) for keep in (True, False, False)]
        for client in clients:
            client.start()
        serials = {first}
        for _ in range(3):
            new = self.renew()
            serials.add(new)
            wait_until(lambda new=new: new in clients[1].serials, "the new one is there", 10)
        for client in clients:
            client.end()
        self.assertEqual([client.failed for client in clients], [[], [], []])
        self.assertTrue(all(client.asked > 20 for client in clients))
        self.assertEqual(clients[0].serials, {first})
        self.assertEqual(clients[1].serials, serials)
        self.assertFalse("cert.pem can't be used" in self.daemon.log.read_text())

    def serial_after_start(self) -> int:
        """Start, and see the first certificate."""
        self.daemon.start()
        return self.serial()

    def test_bad_pair(self) -> None:
        """A bad pair keeps the old one; it is told, and a good one mends it."""
        first = self.serial_after_start()
        other = make_pair()
        (self.daemon.directory / "key.pem").write_bytes(other.key_pem())
        log = self.daemon.log
        wait_until(lambda: "is not the key of" in log.read_text(), "the bad pair is told")
        self.assertEqual(self.serial(), first)
        self.assertEqual(self.daemon.knock("wrapped", context=self.context).status, 200)
        (self.daemon.directory / "cert.pem").unlink()
        time.sleep(2.5)
        self.assertEqual(self.serial(), first)
        new = self.renew()
        for door in ("ssl", "wrapped"):
            wait_until(lambda door=door: self.serial(door) == new, "the new one is there")
        self.assertNotIn("PRIVATE", log.read_text())

    def test_hang_up(self) -> None:
        """SIGHUP rereads a pair; a bad one is named, and changes nothing."""
        self.daemon.start()
        new = self.renew()
        self.daemon.hang_up()
        log = self.daemon.log
        wait_until(lambda: "The configuration was read again" in log.read_text(), "it is read")
        wait_until(lambda: self.serial() == new, "the new one is there", 5)
        (self.daemon.directory / "key.pem").write_text("nonsense")
        self.daemon.hang_up()
        wait_until(lambda: "The configuration is not taken" in log.read_text(), "it is refused")
        self.assertEqual(self.serial(), new)

    def test_no_pair(self) -> None:
        """It does not start without a pair; one line says so, as does C{ctsd check}."""
        (self.daemon.directory / "cert.pem").write_text("nonsense")
        self.assertEqual(self.daemon.run().wait(PATIENCE_SECS), 1)
        self.assertIn("listen[1]: expected", self.daemon.log.read_text())
        self.assertNotIn("Traceback", self.daemon.log.read_text())

    def test_ends_soon(self) -> None:
        """C{ctsd check} warns of a certificate that ends within 30 days, behind any prefix."""
        make_pair(days=29).write(self.daemon.directory)
        done = self.daemon.ctsd("check", check=False)
        self.assertEqual(done.stderr.count("cert.pem ends on"), 3)

    def test_large_body(self) -> None:
        """A client that writes 20 MB before it reads finds 401 over TLS, too."""
        self.daemon.passwd("ann", password="secret")
        self.daemon.start()
        body = b"x" * 20_000_000
        for headers in ({}, basic("ann", "wrong")):
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            head = f"POST / HTTP/1.1\r\nHost: ctsd\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
            got = self.daemon.write_all_first("auth", head.encode(), body, self.context)
            self.assertEqual(got[:13], b"HTTP/1.1 401 ")

    def test_no_tls(self) -> None:
        """Who does not speak TLS is in nobody's way, nor is who says nothing."""
        self.daemon.start()
        address = ("localhost", self.daemon.ports["ssl"])
        with socket.create_connection(address, PATIENCE_SECS) as silent:
            with socket.create_connection(address, PATIENCE_SECS) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertNotIn(b"HTTP/1.1", plain.recv(1000))
            self.assertEqual(self.daemon.knock("ssl", context=self.context).status, 200)
            silent.close()
        self.assertEqual(self.daemon.stop(), 0)
        self.assertNotIn("Traceback", self.daemon.log.read_text())
