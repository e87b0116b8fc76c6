"""What can be said about a PostgreSQL database by looking at it: for C{ctsd store check}."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from ctsd.store.copy_postgres import PostgresTables
from ctsd.store.copying import Table, layout, living
from ctsd.store.postgres_runner import run_now
from ctsd.store.postgres_schema import UNLIMITED, check_server, connected, lax_settings, scripts
from ctsd.store.postgres_steps import server_time
from ctsd.store.postgres_target import Target
from ctsd.store.threat_steps import VISIBLE

_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")


@frozen(kw_only=True)
class Looked:
    """
    What there is.

    :ivar server: the server's version, for people.
    :ivar tls: how the connection is encrypted, for people; empty when it is not.
    :ivar verified: what of the server's certificate was verified: C{sslmode}.
    :ivar lax: settings by which something that was committed could be lost.
    :ivar standbys: C{synchronous_standby_names}.
    :ivar read_only: whether nothing can be written there: a standby, perhaps.
    :ivar missing: rights that we would need, such as C{INSERT on scans}.
    :ivar ahead_secs: by how much its clock is ahead of ours.
    :ivar schema: its schema's version, 0 for none; see L{ctsd.store.backup.Contents} for C{needed}
        and C{known}.
    :ivar nodes: the processes that use it; C{None} where that can't be read, as what follows.
    :ivar by_hand: threats that people entered; C{found}: those that searchers found.
    :ivar scans: how many there are in each state, by the state's name.
    """

    server: str
    tls: str
    verified: str
    lax: tuple[str, ...]
    standbys: str
    read_only: bool
    missing: tuple[str, ...]
    ahead_secs: float
    schema: int
    needed: int
    known: int
    nodes: tuple[str, ...] | None
    by_hand: int
    found: int
    scans: Mapping[str, int]


def look(target: Target, *, wall_clock: Callable[[], float] = time.time) -> Looked:
    """
    Connect, and look. Blocks.

    :param wall_clock: our own, POSIX seconds.
    :raises StoreError: there is nobody, or nothing of ours can be there.
    """
    with connected(target) as connection:
        connection.set_session(isolation_level="REPEATABLE READ")
        with connection.cursor() as cursor:
            check_server(connection.server_version)
            cursor.execute(UNLIMITED.local)
            sent = wall_clock()
            ahead_secs = run_now(cursor, server_time) - (sent + wall_clock()) / 2
            tables = PostgresTables(connection, cursor, target)
            known = len(scripts())
            missing: tuple[str, ...] = ()
            readable = False
            if 0 < tables.version <= known:
                missing = _missing(cursor, layout(tables.version))
                readable = not any(each.startswith("SELECT") for each in missing)
            by_hand, found = _count_threats(cursor) if readable else (0, 0)
            return Looked(
                server=_setting(cursor, "server_version"),
                tls=_tls(connection),
                verified=connection.get_dsn_parameters().get("sslmode", ""),
                lax=tuple(lax_settings(cursor)),
                standbys=_setting(cursor, "synchronous_standby_names"),
                read_only=_setting(cursor, "transaction_read_only") == "on",
                missing=missing,
                ahead_secs=ahead_secs,
                schema=tables.version,
                needed=tables.needed,
                known=known,
                nodes=tuple(living(tables)) if readable else None,
                by_hand=by_hand,
                found=found,
                scans=_count_scans(cursor) if readable else {},
            )


def _setting(cursor: Any, name: str) -> str:
    cursor.execute("SELECT current_setting(%s, true)", (name,))
    return cursor.fetchone()[0] or ""


def _tls(connection: Any) -> str:
    if not connection.info.ssl_in_use:
        return ""
    parts = (connection.info.ssl_attribute(name) for name in ("protocol", "cipher"))
    return ", ".join(part for part in parts if part)


def _missing(cursor: Any, tables: tuple[Table, ...]) -> tuple[str, ...]:
    names = [table.name for table in tables]
    cursor.execute(
        "SELECT p, t FROM unnest(%s) AS t, unnest(%s) AS p"
        " WHERE NOT COALESCE(has_table_privilege(to_regclass(t), p), false) ORDER BY t, p",
        (names, list(_PRIVILEGES)),
    )
    return tuple(f"{privilege} on {name}" for privilege, name in cursor.fetchall())


def _count_threats(cursor: Any) -> tuple[int, int]:
    cursor.execute(f"SELECT COUNT(t.twin), COUNT(*) - COUNT(t.twin) FROM threats t WHERE {VISIBLE}")
    by_hand, found = cursor.fetchone()
    return by_hand, found


def _count_scans(cursor: Any) -> Mapping[str, int]:
    cursor.execute("SELECT state, COUNT(*) FROM scans GROUP BY state")
    return dict(cursor.fetchall())
