"""
Sizes and growth of the store: rows, bytes and write-ahead log of a scan, on both engines, and
what is left when scans have gone and others have come.

    python benchmarks/growth.py [--scans 20000]

It starts a PostgreSQL of its own, with the settings that a server has by default, but for fsync.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

sys.path.insert(0, str(Path(__file__).parent.parent))

from ctsd.model import (
    NOTHING,
    Artifact,
    EncodedHit,
    Ended,
    Outcome,
    Property,
    Scan,
    ScanState,
    Search,
    Threat,
)
from ctsd.records import Finds
from ctsd.store.postgres import PostgresStore
from ctsd.store.postgres_target import Target
from ctsd.store.sqlite import SQLiteStore
from tests.postgres import Server

HIT = EncodedHit(
    b'{"props":[{"type":"number","name":"id","value":9000001},{"type":"string","name":"url",'
    b'"value":"http://www.megastore.lu/login"},{"type":"uri","name":"detail_url","value":'
    b'"https://www.phishtank.com/phish_detail.php?phish_id=9000001"},{"type":"string","name":'
    b'"submission_time","value":"2026-01-12T08:03:11+00:00"},{"type":"string","name":"target",'
    b'"value":"Megastore"}]}'
)
FOUND = Outcome(Ended.FOUND, (HIT,))
SEARCHERS = ("internal", "phishtank", "remote")
DAY = 86400.0


def ended(number: int, now: float, found: bool) -> Scan:
    """A scan that ends in its first answer: three searchers, perhaps one hit."""
    return Scan(
        id=f"{number:08x}{os.urandom(12).hex()}",
        service="",
        state=ScanState.COMPLETE,
        created=now,
        deadline=now + DAY,
        digest=os.urandom(16),
        searches=tuple(
            Search(searcher=name, outcome=FOUND if found and not place else NOTHING, tries=1)
            for place, name in enumerate(SEARCHERS)
        ),
    )


def promised(number: int, now: float, holder: str) -> Scan:
    """A scan whose last searcher is running."""
    return Scan(
        id=f"{number:08x}{os.urandom(12).hex()}",
        service="",
        state=ScanState.OPEN,
        created=now,
        deadline=now + DAY,
        digest=os.urandom(16),
        artifact=Artifact("net.uri", f"http://host{number}.example/some/path/{number}"),
        searches=(
            Search(searcher="internal", outcome=NOTHING, tries=1),
            Search(searcher="phishtank", outcome=NOTHING, tries=1),
            Search(searcher="remote", holder=holder),
        ),
    )


async def remember(store: Any, count: int, found: bool) -> None:
    """Write scans that were answered at once."""
    now = store.now()
    for number in range(count):
        store.remember(scan=ended(number, now + number * 1e-6, found))
        if not number % 2000:
            await _written(store)
    await _written(store)


async def promise(store: Any, count: int) -> None:
    """Promise scans, and finish them, some at a time."""
    now = store.now()
    holder = await store.register(name="benchmark", secs=1e6)
    for start in range(0, count, 200):
        scans = [promised(number, now, holder) for number in range(start, min(start + 200, count))]
        for waiting in [store.promise(scan=scan) for scan in scans]:
            await waiting
        last = Search(searcher="remote", outcome=FOUND, tries=1)
        recording = [
            store.record(scan_id=scan.id, search=last, state=ScanState.COMPLETE, holder=holder)
            for scan in scans
        ]
        for waiting in recording:
            await waiting


async def find(store: Any, count: int) -> None:
    """Promise scans with a threat that a searcher has found in each."""
    now = store.now()
    holder = await store.register(name="benchmark", secs=1e6)
    for start in range(0, count, 200):
        for waiting in [
            store.promise(
                scan=promised(number, now, holder),
                finds=[_finds(os.urandom(16), number, now + 7 * DAY)],
            )
            for number in range(start, min(start + 200, count))
        ]:
            await waiting


def _finds(source: bytes, number: int, expires: float) -> Finds:
    threat = Threat(
        name=f"Report {number}",
        artifacts=(Artifact("net.uri", f"http://host{number}.example/some/path/{number}"),),
        properties=(Property("string", "campaign", "X"), Property("number", "score", number)),
        searcher="remote",
        source=source,
        expires=expires,
    )
    return Finds(searcher="remote", source=source, threats=(threat,))


async def _written(store: Any) -> None:
    while store._queue._remembered or store._queue._in_hand:
        await _pause()


def _pause() -> Deferred[None]:
    from twisted.internet import reactor

    done: Deferred[None] = Deferred()
    reactor.callLater(0.002, done.callback, None)  # type: ignore[attr-defined]
    return done


async def measure(
    what: str, count: int, work: Any, size: Callable[[], int], log: Callable[[], int]
) -> None:
    """Print how much a scan takes."""
    before, logged, started = size(), log(), time.perf_counter()
    await work()
    secs = time.perf_counter() - started
    wal = (log() - logged) / count
    told = f", {wal:6.0f} bytes of WAL" if wal else ""
    print(
        f"  {what:34} {(size() - before) / count:7.0f} bytes a scan{told}, {count / secs:7.0f} /s"
    )


async def steady(
    store: Any, count: int, size: Callable[[], int], vacuum: Callable[[], None]
) -> None:
    """Let everything go and as much come, some times."""
    for turn in range(4):
        removed, started = 0, time.perf_counter()
        while gone := await store.age(now=store.now() + 400 * DAY):
            removed += gone
        secs = time.perf_counter() - started
        vacuum()
        after = size()
        await remember(store, count, False)
        print(
            f"  turn {turn + 1}: {removed} rows went, {removed / secs:.0f} /s:"
            f" {after / 2**20:7.1f} MiB;"
            f" {count} scans came: {size() / 2**20:7.1f} MiB"
        )


async def run(store: Any, count: int, size: Any, log: Any, vacuum: Any) -> None:
    """All measurements on one store."""
    store.open()
    store.startService()
    for what, work in (
        ("answered at once, nothing found", lambda: remember(store, count, False)),
        ("answered at once, one hit", lambda: remember(store, count, True)),
        ("303, finished by a third searcher", lambda: promise(store, count)),
        ("open, with a threat stored", lambda: find(store, count)),
    ):
        await measure(what, count, work, size, log)
    await steady(store, count, size, vacuum)
    await store.stopService()


async def main(reactor: Any, count: int) -> None:
    """Both engines."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.sqlite"
        print(f"SQLite, {count} scans of each kind")

        def file_size() -> int:
            return sum(
                Path(f"{path}{beside}").stat().st_size
                for beside in ("", "-wal")
                if Path(f"{path}{beside}").exists()
            )

        store = SQLiteStore(
            reactor=reactor, path=path, max_bytes=2**40, retention_secs=365 * DAY, readers=1
        )
        await run(store, count, file_size, lambda: 0, lambda: None)
    server = Server(settings={"fsync": "off", "log_min_messages": "warning"})
    try:
        database = server.new_database()
        target = Target.parse(server.url(database), server.password)
        print(f"PostgreSQL, {count} scans of each kind")

        def database_size() -> int:
            [(size,)] = server.run(
                database,
                "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relkind = 'r'"
                " AND relname IN ('scans', 'searches', 'threats', 'gone')",
            )
            return int(size)

        def written() -> int:
            [(at,)] = server.run(
                database, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
            )
            return int(at)

        def vacuum() -> None:
            for table in ("scans", "searches", "threats", "gone"):
                server.run(database, f"VACUUM {table}")

        postgres = PostgresStore(
            reactor=reactor, target=target, max_bytes=2**50, retention_secs=365 * DAY
        )
        await run(postgres, count, database_size, written, vacuum)
        for name, heap, indexes in server.run(
            database,
            "SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class"
            " WHERE relkind = 'r' AND relname IN ('scans', 'searches', 'threats') ORDER BY 1",
        ):
            print(f"  at the end: {name:9} {heap / 2**20:7.1f} MiB, indexes {indexes / 2**20:7.1f}")
    finally:
        server.remove()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--scans", type=int, default=20_000)
    arguments = parser.parse_args()
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, arguments.scans)))
