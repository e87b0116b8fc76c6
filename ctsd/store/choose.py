"""Which store it is that a URL means. PostgreSQL's packages are imported when it is that one."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import Any

from attrs import field, frozen

from ctsd.errors import StoreError
from ctsd.store import threat_rows
from ctsd.store.queued import QueuedVerbs
from ctsd.store.sqlite import SQLiteStore

#: The file in C{state_dir} that tells one installation from others.
_NODE_FILE = "node"


@frozen(kw_only=True)
class ThreatReader:
    """
    How a child process reads the local database.

    :ivar module: the module with C{read_version} and C{read_threats}.
    :ivar database: the file, if it is one.
    :ivar access: what the module's functions take instead, if it is none; it may hold a password.
    """

    module: str
    database: Path
    access: str = field(default="", repr=False)


def make_store(
    *,
    reactor: Any,
    url: str,
    password: str,
    directory: Path,
    max_bytes: int,
    retention_secs: float,
    threat_secs: float,
    warn: bool = False,
    listen_url: str = "",
) -> QueuedVerbs:
    """
    A store, to be opened and started.

    :param url: C{store.url}, checked.
    :param directory: C{state_dir}; it has to be there.
    :param warn: whether the log shall have what is lax about the server, as that of a daemon.
    :param listen_url: where to listen to what other processes tell; empty to ask them instead.
    :raises StoreError: packages are missing.
    """
    if on_sqlite(url):
        return SQLiteStore(
            reactor=reactor,
            path=_path(url, directory),
            max_bytes=max_bytes,
            retention_secs=retention_secs,
            threat_secs=threat_secs,
        )
    try:
        from ctsd.store.postgres import PostgresStore
        from ctsd.store.postgres_target import Target
    except ImportError as error:
        raise StoreError(
            f"store.url needs {error.name}, which is not installed: pip install 'ctsd[postgres]'"
        ) from error
    return PostgresStore(
        reactor=reactor,
        target=Target.parse(url, password),
        max_bytes=max_bytes,
        retention_secs=retention_secs,
        threat_secs=threat_secs,
        warn=warn,
        listen=Target.parse(listen_url, password) if listen_url else None,
    )


def threat_reader(*, url: str, password: str, directory: Path) -> ThreatReader:
    """How the threats of a store are read; see L{make_store}, which has to work."""
    if on_sqlite(url):
        return ThreatReader(module=threat_rows.__name__, database=_path(url, directory))
    from ctsd.store import threat_rows_postgres
    from ctsd.store.postgres_target import Target

    return ThreatReader(
        module=threat_rows_postgres.__name__,
        database=directory,
        access=Target.parse(url, password).as_secret(),
    )


def on_sqlite(url: str) -> bool:
    """Whether a C{store.url} means SQLite."""
    return url.startswith("sqlite:")


def _path(url: str, directory: Path) -> Path:
    return directory / url.partition(":")[2]


def node_name(directory: Path) -> str:
    """
    What this installation is called among the nodes of a store; the same after a restart.

    :param directory: C{state_dir}; it has to be there.
    :raises StoreError: it can't be used.
    """
    file = directory / _NODE_FILE
    try:
        try:
            name = file.read_text("ascii").strip()
        except FileNotFoundError:
            name = ""
        if not name:
            name = secrets.token_hex(4)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w", encoding="ascii") as opened:
                opened.write(f"{name}\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{file}: {getattr(error, 'strerror', 'is no text')}") from error
    return f"{socket.gethostname()} ({name})"
