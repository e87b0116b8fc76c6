"""SIGTERM: whatever goes on, what was promised is kept, and the end is near and clean."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.daemon import Daemon, wait_until

#: No end may take longer.
LIMIT_SECS = 10.0

#: Waits for a file to appear.
WAITING = '''
from ctsd.searching import BaseArtifactSearch, Hit, string
from twisted.internet.task import deferLater


class WaitingArtifactSearch(BaseArtifactSearch):
    """Finds everything, as soon as the file C{go} is in its directory."""

    def supports(self, artifact_type):
        return artifact_type in ("net.ip", "file.content")

    async def search(self, artifact_type, search_term, *, context, **kwargs):
        while not (context.data_dir / "go").exists():
            await deferLater(context.clock, 0.05)
        return [Hit((string("said", "found"),))]
'''

#: Blocks for a minute, and says in a file that it does.
STUCK = '''
import os
import time

from ctsd.searching import BaseArtifactSearch


class StuckArtifactSearch(BaseArtifactSearch):
    """Blocks."""

    {isolate}

    def supports(self, artifact_type):
        return artifact_type == "net.ip"

    def search(self, artifact_type, search_term, *, context, **kwargs):
        (context.data_dir / "stuck").write_text(str(os.getpid()))
        time.sleep(60)
'''

LOADING = '''
from ctsd.searching import BaseArtifactSearch


class LoadingArtifactSearch(BaseArtifactSearch):
    """Never has its data."""

    def loading(self):
        return True

    def supports(self, artifact_type):
        return artifact_type == "net.ip"

    async def search(self, artifact_type, search_term, **kwargs):
        return []
'''

CONFIG = """
first_answer_secs = 0.1
[searchers]
sync = ["internal"{sync}]
async = ["phishtank"{async_}]
path = ["own"]
[searchers.{name}]
slots = 5000
"""

HEAD = (
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
)
ARTIFACT = (
    b'--b\r\nContent-Disposition: form-data; name="artifact"\r\n'
    b'Content-Type: application/json\r\n\r\n{"type": "file.content"}\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    """A chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class StopCase(SynchronousTestCase):
    """A daemon that is to end."""

    def started(self, searcher: str = "waiting", text: str = WAITING, sync: bool = False) -> Daemon:
        """One with a searcher of its own."""
        own = f', "{searcher}"'
        config = CONFIG.format(sync=own if sync else "", async_="" if sync else own, name=searcher)
        daemon = Daemon(Path(self.mktemp()), config, searchers={f"{searcher}.py": text})
        self.addCleanup(daemon.stop)
        daemon.start()
        return daemon

    def own(self, daemon: Daemon, searcher: str = "waiting") -> Path:
        """The searcher's directory."""
        return daemon.state_dir / "searchers" / searcher

    def assertEnds(self, daemon: Daemon, since: float | None = None) -> None:
        """It ends in time, with status 0, and says nothing bad; send SIGTERM unless that was."""
        assert daemon.process is not None
        if since is None:
            since = time.monotonic()
            daemon.signal(signal.SIGTERM)
        status = daemon.process.wait(since + LIMIT_SECS - time.monotonic())
        log = daemon.log.read_text()
        self.assertEqual(status, 0, log)
        self.assertNotIn("Traceback", log)

    def connected(self, daemon: Daemon) -> socket.socket:
        """A client that is at most so patient."""
        client = socket.create_connection(("127.0.0.1", daemon.port), timeout=2 * LIMIT_SECS)
        self.addCleanup(client.close)
        return client

    def read(self, client: socket.socket) -> bytes:
        """All that comes until the other side ends."""
        got = b""
        while data := client.recv(65536):
            got += data
        return got


class Load:
    """
    Clients that ask without a pause, until they are refused.

    :ivar promised: ids that were answered 303.
    :ivar answered: how many whole answers there were.
    :ivar cut: answers of which a part came.
    """

    def __init__(self, daemon: Daemon, clients: range) -> None:
        self.promised: list[str] = []
        self.answered = 0
        self.cut: list[str] = []
        self.odd: list[int] = []
        self._daemon = daemon
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in clients]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Wait for all of them."""
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _run(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._daemon.port, timeout=30)
        for turn in range(100_000):
            try:
                if not self._ask(connection, number, turn):
                    break
            except (http.client.RemoteDisconnected, ConnectionError):
                # Without a byte of an answer. That the next one is refused ends this.
                connection.close()
            except http.client.HTTPException as error:
                with self._lock:
                    self.cut.append(repr(error))
                connection.close()
            if self._daemon.process is None or self._daemon.process.poll() is not None:
                break
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, number: int, turn: int) -> bool:
        artifact = (
            {"type": "net.ip", "value": f"10.{number}.{turn >> 8 & 255}.{turn & 255}"}
            if turn % 4 == 0
            else {"type": "net.uri", "value": f"http://{number}-{turn}.example/"}
        )
        connection.request("POST", "/", json.dumps(artifact))
        response = connection.getresponse()
        body = response.read()
        told = json.loads(body)
        with self._lock:
            self.answered += 1
            if response.status == 303:
                self.promised.append(told["id"])
            elif response.status not in (200, 503):
                self.odd.append(response.status)
        return True


class LoadTests(StopCase):
    """Under load."""

    timeout = 120

    def test_promises(self) -> None:
        """Every answer is whole, and every promise is kept after a restart; twice."""
        daemon = self.started()
        promised: list[str] = []
        for clients in (range(16), range(16, 32)):
            load = Load(daemon, clients)
            wait_until(lambda load=load: len(load.promised) > 100, "load")
            self.assertEnds(daemon)
            load.end()
            self.assertEqual((load.cut, load.odd), ([], []))
            promised += load.promised
            daemon.start()
        self.assertEqual(len(set(promised)), len(promised))
        for scan_id in promised:
            self.assertEqual(daemon.ask("GET", "/" + scan_id).status, 303)
        (self.own(daemon) / "go").touch()
        for scan_id in promised:
            answer = daemon.finished(scan_id)
            self.assertEqual(answer.status, 200)
            self.assertEqual(len(answer.json["hits"]), 1)

    def test_again_and_again(self) -> None:
        """More signals while it ends change nothing."""
        daemon = self.started()
        load = Load(daemon, range(8))
        wait_until(lambda: len(load.promised) > 20, "load")
        started = time.monotonic()
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            daemon.signal(number)
        self.assertEnds(daemon, started)
        load.end()
        self.assertEqual((load.cut, load.odd), ([], []))


class InHandTests(StopCase):
    """Requests that are being answered."""

    timeout = 120

    def test_stuck_thread(self) -> None:
        """A searcher that is stuck in its thread, with a request that waits for it: that one is
        answered, and its scan goes on after the restart."""
        daemon = self.started("stuck", STUCK.format(isolate=""), sync=True)
        client = self.connected(daemon)
        body = b'{"type": "net.ip", "value": "10.1.1.1"}'
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        client.sendall(body)
        wait_until((self.own(daemon, "stuck") / "stuck").exists, "stuck")
        started = time.monotonic()
        daemon.signal(signal.SIGTERM)
        head, _, answer = self.read(client).partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 303"), head)
        scan_id = json.loads(answer)["id"]
        self.assertEnds(daemon, started)
        daemon.start()
        self.assertEqual(daemon.ask("GET", "/" + scan_id).status, 303)

    def test_stuck_child(self) -> None:
        """A searcher that is stuck in its child process: the child ends, too."""
        daemon = self.started("stuck", STUCK.format(isolate="isolate = True"))
        self.assertEqual(daemon.post("net.ip", "10.1.1.1").status, 303)
        stuck = self.own(daemon, "stuck") / "stuck"
        child = int(wait_until(lambda: stuck.exists() and stuck.read_text(), "stuck"))
        self.assertEnds(daemon)

        def gone() -> bool:
            try:
                return "Z" in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2]
            except OSError:
                return True

        wait_until(gone, "the child is gone", 3)

    def test_upload_that_stalls(self) -> None:
        """A client in the middle of an upload that sends nothing more does not hold the end, and
        nothing of its file is left."""
        daemon = self.started()
        client = self.connected(daemon)
        client.sendall(HEAD + chunk(ARTIFACT + os.urandom(300_000)))
        wait_until(daemon.uploads, "a file in the spool")
        self.assertEnds(daemon)
        daemon.start()
        wait_until(lambda: not daemon.uploads(), "the spool is empty", 5)

    def test_upload_that_goes_on(self) -> None:
        """A client that completes its upload while the daemon ends is answered, and its file is
        there for its scan after the restart."""
        daemon = self.started()
        client = self.connected(daemon)
        client.sendall(HEAD + chunk(ARTIFACT + os.urandom(300_000)))
        wait_until(daemon.uploads, "a file in the spool")
        started = time.monotonic()
        daemon.signal(signal.SIGTERM)
        time.sleep(0.5)
        client.sendall(chunk(os.urandom(300_000) + b"\r\n--b--\r\n") + b"0\r\n\r\n")
        head, _, answer = self.read(client).partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 303"), head)
        self.assertIn(b"Connection: close", head)
        self.assertEnds(daemon, started)
        daemon.start()
        (path,) = daemon.uploads()
        self.assertEqual(path.stat().st_size, 600_000)
        (self.own(daemon) / "go").touch()
        final = daemon.finished(json.loads(answer)["id"])
        self.assertEqual((final.status, len(final.json["hits"])), (200, 1))
        wait_until(lambda: not daemon.uploads(), "the spool is empty", 5)

    def test_idle(self) -> None:
        """Clients that ask nothing, or have begun to, or do not read, do not hold the end; nobody
        new is let in."""
        daemon = self.started()
        self.connected(daemon)
        begun = self.connected(daemon)
        begun.sendall(b"POST / HTTP/1.1\r\nHost:")
        deaf = self.connected(daemon)
        deaf.sendall(b"GET /" + b"0" * 32 + b" HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        started = time.monotonic()
        self.assertEnds(daemon)
        self.assertLess(time.monotonic() - started, 5)
        self.assertRaises(ConnectionRefusedError, self.connected, daemon)


class OddTests(StopCase):
    """Ends at odd moments."""

    timeout = 120

    def test_while_it_starts(self) -> None:
        """Before it is ready."""
        config = CONFIG.format(sync="", async_=', "loading"', name="loading")
        daemon = Daemon(Path(self.mktemp()), config, searchers={"loading.py": LOADING})
        self.addCleanup(daemon.stop)
        daemon.run()
        wait_until(lambda: "is on" in daemon.log.read_text(), "started")
        time.sleep(0.5)
        self.assertEnds(daemon)
        self.assertNotIn("is ready", daemon.log.read_text())

    def test_socket_file_is_gone(self) -> None:
        """When somebody has removed its Unix socket."""
        directory = Path(self.mktemp())
        daemon = Daemon(directory, listen='["tcp:{port}:interface=127.0.0.1", "unix:s"]')
        self.addCleanup(daemon.stop)
        daemon.start()
        (daemon.directory / "s").unlink()
        started = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert daemon.process is not None
        self.assertEqual(daemon.process.wait(LIMIT_SECS), 0)
        self.assertLess(time.monotonic() - started, LIMIT_SECS)
