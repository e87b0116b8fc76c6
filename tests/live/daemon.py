"""A real ctsd in a process of its own, for the live tests."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent.parent

#: The longest that anything here is waited for.
PATIENCE_SECS = 30.0


def wait_until(check: Callable[[], Any], what: str, secs: float = PATIENCE_SECS) -> Any:
    """The first true result of a check; an AssertionError when there is none in time."""
    deadline = time.monotonic() + secs
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {secs:g} s: {what}")
        time.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


class Answer:
    """An HTTP answer: C{status}, C{headers}, C{body} and, when there is one, its C{json}."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        """The body's value."""
        return json.loads(self.body)


class Daemon:
    """
    A daemon with a directory of its own.

    :param config: the text of its C{ctsd.toml}, without C{listen}.
    :param searchers: files for its C{searchers.path}, by name.
    :param listen: the value of C{listen} in TOML; C{{port}} in it becomes L{port}.
    :param prefix: a command that runs twistd.
    """

    def __init__(
        self,
        directory: Path,
        config: str = "",
        searchers: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        listen: str = '["tcp:{port}:interface=127.0.0.1"]',
        prefix: Sequence[str] = (),
    ) -> None:
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.environ = {**os.environ, **(environ or {})}
        self.environ.pop("CTSD_CONFIG", None)
        self.config = self.directory / "ctsd.toml"
        self.config.write_text(f"listen = {listen.format(port=self.port)}\n{config}")
        self.prefix = prefix
        if searchers:
            own = self.directory / "own"
            own.mkdir(mode=0o755, exist_ok=True)
            for name, text in searchers.items():
                (own / name).write_text(text)
        self.log = self.directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def state_dir(self) -> Path:
        """Where it keeps everything."""
        return self.directory / "var"

    def uploads(self) -> list[Path]:
        """The uploaded files that are there."""
        spool = self.state_dir / "spool"
        return [path for path in spool.glob("*") if path.suffix != ".lock"]

    def run(self) -> subprocess.Popen[bytes]:
        """Start it, without waiting for it."""
        command = [
            *self.prefix,
            str(BIN / "twistd"),
            "-n",
            "--pidfile=",
            "ctsd",
            "--config",
            str(self.config),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.process

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        process = self.run()

        def ready() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"it ended:\n{self.log.read_text()}")
            try:
                return self.ask("GET", "/health/ready").status == 200
            except OSError:
                return False

        wait_until(ready, f"ready; its log:\n{self.log.read_text()}")

    def ask(
        self,
        method: str,
        path: str = "/",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own; a body that is no bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECS)
        given = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            given.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, given)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def post(self, type: str, value: Any, path: str = "/") -> Answer:
        """Submit an artifact."""
        return self.ask("POST", path, {"type": type, "value": value})

    def let_answer(self, said: str = "bad", searcher: str = "waiting") -> None:
        """Let a searcher answer that waits for the file C{go}, which is there at once whole."""
        directory = self.state_dir / "searchers" / searcher
        (directory / "going").write_text(said)
        (directory / "going").rename(directory / "go")

    def finished(self, scan_id: str, path: str = "/") -> Answer:
        """The final answer of a scan that was promised."""

        def final() -> Answer | None:
            answer = self.ask("GET", path + scan_id)
            return None if answer.status == 303 else answer

        answer: Answer = wait_until(final, f"final answer of {scan_id}")
        return answer

    def ctsd(self, *arguments: str, check: bool = True, **more: Any) -> Any:
        """Run the command line beside it."""
        command = [str(BIN / "ctsd"), *arguments]
        if arguments and "--config" not in arguments:
            command += ["--config", str(self.config)]
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECS,
            check=False,
            **more,
        )
        if check and done.returncode:
            raise AssertionError(f"{command} -> {done.returncode}: {done.stderr}")
        return done

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, if it still runs; its exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_SECS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode
