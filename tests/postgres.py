"""A real PostgreSQL for the tests: one server a run, a fresh database a test."""

from __future__ import annotations

import atexit
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: The same for pgbouncer.
POOLER_MISSING = (
    "" if shutil.which("pgbouncer") else "pgbouncer is not installed (Debian: pgbouncer)"
)

#: How long starting and stopping may take.
_PATIENCE_SECS = 60.0

#: What makes a server quick that nobody needs after the test.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "autovacuum": "off",
    "log_min_messages": "warning",
}


def binaries() -> Path | None:
    """The directory of the newest PostgreSQL server that is installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda each: int(each.parts[-3])
    )
    if found:
        return found[-1].parent
    there = shutil.which("initdb")
    return Path(there).resolve().parent if there else None


#: For C{skip}: why there is none; empty when there is one. CI installs it, and skips nothing.
MISSING = "" if binaries() else "PostgreSQL's server is not installed (Debian: postgresql)"


def _as_nobody(command: Sequence[str]) -> list[str]:
    # PostgreSQL refuses to run as root. It must not outlive a test that is killed.
    if os.geteuid() != 0:
        return list(command)
    rights = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    return ["setpriv", *rights, "--pdeathsig=QUIT", *command]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Server:
    """
    A PostgreSQL on a port of 127.0.0.1 and a socket in its directory; its user is C{ctsd}.

    :ivar port: also after a restart.
    """

    password = "s3cret/p@ss word"

    def __init__(
        self,
        *,
        key: Path | None = None,
        certificate: Path | None = None,
        authority: Path | None = None,
        access: Sequence[str] = (),
        settings: Mapping[str, str] = _SETTINGS,
        prefix: Sequence[str] = (),
    ) -> None:
        """
        :param authority: the certificate of who signs clients' certificates.
        :param access: lines of C{pg_hba.conf} for all who come over TCP.
        :param settings: of C{postgresql.conf}.
        :param prefix: a command that runs the server.
        """
        found = binaries()
        assert found is not None, MISSING
        self._bin = found
        self.directory = Path(tempfile.mkdtemp(prefix="ctsd-pg-"))
        self.data = self.directory / "data"
        self.port = free_port()
        self._log = (self.directory / "log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
        password = self.directory / "password"
        password.write_text(self.password)
        password.chmod(0o644)
        self._call(
            "initdb",
            f"--pgdata={self.data}",
            "--username=ctsd",
            f"--pwfile={password}",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        )
        self._prefix = prefix
        settings = dict(settings)
        if access:
            lines = ["local all all trust", *access]
            self._give(self.data / "pg_hba.conf", "".join(f"{each}\n" for each in lines).encode())
        for name, file in (("key", key), ("cert", certificate), ("ca", authority)):
            if file is not None:
                settings["ssl"] = "on"
                settings[f"ssl_{name}_file"] = f"server.{name}"
                self._give(self.data / f"server.{name}", file.read_bytes())
        with (self.data / "postgresql.conf").open("a") as conf:
            for name, value in settings.items():
                conf.write(f"{name} = '{value}'\n")
        self.start()

    def _give(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        path.chmod(0o600)
        owner = self.data.stat()
        os.chown(path, owner.st_uid, owner.st_gid)

    def _call(self, name: str, *arguments: str) -> None:
        subprocess.run(
            _as_nobody([str(self._bin / name), *arguments]),
            check=True,
            stdout=self._log,
            stderr=self._log,
            timeout=_PATIENCE_SECS,
            cwd="/",
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            _as_nobody(
                [
                    *self._prefix,
                    str(self._bin / "postgres"),
                    f"-D{self.data}",
                    f"-p{self.port}",
                    "-clisten_addresses=127.0.0.1",
                    f"-cunix_socket_directories={self.directory}",
                ]
            ),
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        deadline = time.monotonic() + _PATIENCE_SECS
        while True:
            try:
                self.run("postgres", "SELECT 1")
                return
            except Exception:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """
        Stop it.

        :param number: SIGINT ends sessions, SIGQUIT everything, as a crash would.
        """
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            try:
                process.wait(_PATIENCE_SECS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def remove(self) -> None:
        """Stop it, and remove everything."""
        self.stop(signal.SIGQUIT)
        self._log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def connect(self, database: str) -> Any:
        """A connection of psycopg2, through the socket, that commits each statement."""
        import psycopg2

        connection = psycopg2.connect(
            host=str(self.directory), port=self.port, user="ctsd", dbname=database
        )
        connection.autocommit = True
        return connection

    def run(self, database: str, sql: str, params: Any = None) -> list[Any]:
        """Run a statement; its rows, if it has any."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, params)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def new_database(self) -> str:
        """The name of a database that was just made."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self.run("postgres", f"CREATE DATABASE {name} STRATEGY file_copy")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever uses it."""
        self.run("postgres", f"DROP DATABASE {name} WITH (FORCE)")

    def url(self, database: str, *, host: str = "", port: int = 0, more: str = "") -> str:
        """The C{store.url} of a database; by default over TCP."""
        where = f"{host or '127.0.0.1'}:{port or self.port}"
        return f"postgresql://ctsd@{where}/{database}{more}"

    def backends(self, database: str) -> list[int]:
        """The process ids of the sessions in a database."""
        rows = self.run(
            "postgres", "SELECT pid FROM pg_stat_activity WHERE datname = %s", (database,)
        )
        return [row[0] for row in rows]


class Pooler:
    """pgbouncer before a server, in transaction mode; its few sessions are everybody's."""

    def __init__(self, server: Server, sessions: int = 3) -> None:
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="ctsd-pgbouncer-"))
        users = self._directory / "users"
        users.write_text(f'"ctsd" "{server.password}"\n')
        config = self._directory / "ini"
        config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n"
            "[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {users}\n"
            f"pool_mode = transaction\ndefault_pool_size = {sessions}\n"
        )
        for each in (self._directory, users, config):
            each.chmod(0o755)
        self._log = (self._directory / "log").open("wb")
        program = shutil.which("pgbouncer")
        assert program is not None, POOLER_MISSING
        self._process = subprocess.Popen(
            _as_nobody([program, str(config)]), stdout=self._log, stderr=self._log, cwd="/"
        )
        deadline = time.monotonic() + _PATIENCE_SECS
        while time.monotonic() < deadline:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError((self._directory / "log").read_text())

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._log.close()
        shutil.rmtree(self._directory)


class Shared:
    """The one server of this process' tests, started when it is first asked for."""

    _server: Server | None = None

    @classmethod
    def server(cls) -> Server:
        """The server; it ends with the process."""
        if cls._server is None:
            cls._server = Server()
            atexit.register(cls._server.remove)
        return cls._server
