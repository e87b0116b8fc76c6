"""The store, on every implementation; and what is SQLite's own."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import globalLogPublisher
from twisted.trial import unittest

from ctsd.errors import StoreError
from ctsd.model import PASSWORD, Artifact, ScanState, Search
from ctsd.records import Finds
from ctsd.store import aging_steps, node_steps, scan_steps, threat_steps
from ctsd.store.memory import MemoryStore
from ctsd.store.places import is_network_filesystem, make_place
from ctsd.store.sqlite import SQLiteStore
from ctsd.store.sqlite_runner import run_group
from ctsd.store.sqlite_schema import bring_up, check_sqlite, scripts
from ctsd.store.steps import Change, Many, Query, Steps, bound
from ctsd.store.threat_rows import read_threats, read_version
from ctsd.store.wall import WallWatch
from ctsd.store.writes import Write, WriteQueue
from tests.store_suite import (
    RETENTION,
    START,
    AgeSuite,
    BrokenSuite,
    ClockJumpSuite,
    GroupSuite,
    ScanSuite,
    SharedSuite,
    StoreFixture,
    ThreatSuite,
    bad_steps,
    count_steps,
    ended_scan,
    scan,
    threat,
)
from tests.store_suite_nodes import NodeSuite

TABLES = (
    "scans",
    "searches",
    "imports",
    "threats",
    "gone",
    "leases",
    "counters",
    "pairs",
    "nodes",
    "numbers",
    "secrets",
)


def drop_tables(connection: sqlite3.Connection) -> None:
    """What a broken database looks like to every statement."""
    for table in TABLES:
        connection.execute(f"DROP TABLE {table}")


class MemoryFixture:
    """L{MemoryStore} on clocks that the test moves."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._clock.advance(START)
        self._offset = 0.0
        self.store = MemoryStore(
            clock=self._clock,
            wall_clock=lambda: self._clock.seconds() + self._offset,
            retention_secs=RETENTION,
        )

    def advance(self, secs: float) -> None:
        """Let time pass."""
        self._clock.advance(secs)

    def set_wall(self, wall: float) -> None:
        """Set the wall clock alone."""
        self._offset = wall - self._clock.seconds()

    async def written(self) -> None:
        """It is."""

    def ruin(self) -> None:
        """Take the tables away."""
        drop_tables(self.store._connection)

    async def close(self) -> None:
        """Nothing is open."""


class SQLiteFixture:
    """L{SQLiteStore} on a real file and real threads, with dates that the test moves."""

    def __init__(self, path: Path | None = None, **options: Any) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = Path(tempfile.mkdtemp())
        self.path = path or self.directory / "state" / "ctsd.sqlite"
        self._monotonic = 0.0
        self._wall = START
        self.store = SQLiteStore(
            reactor=reactor,
            path=self.path,
            retention_secs=RETENTION,
            wall_clock=lambda: self._wall,
            monotonic=lambda: self._monotonic,
            **({"max_bytes": 2**40} | options),
        )
        self.store.open()
        self.store.startService()

    def advance(self, secs: float) -> None:
        """Let time pass."""
        self._monotonic += secs
        self._wall += secs

    def set_wall(self, wall: float) -> None:
        """Set the wall clock alone."""
        self._wall = wall

    async def written(self) -> None:
        """Wait until nothing is left of what was remembered."""
        queue = self.store._queue
        while queue._remembered or queue._in_hand:
            await deferLater(self.reactor, 0.002, lambda: None)

    def ruin(self) -> None:
        """Take the tables away."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        drop_tables(connection)
        connection.close()

    def other(self) -> SQLiteFixture:
        """Another store on the same database, as in another process."""
        return SQLiteFixture(self.path)

    async def limit_reads(self) -> int:
        """Let only so many reads wait."""
        self.store._max_reads = 2
        return 2

    def lock(self) -> Callable[[], None]:
        """Another process in the middle of a write; called, it ends."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        return connection.close

    async def close(self) -> None:
        """Stop, and remove the files."""
        await self.store.stopService()
        shutil.rmtree(self.directory)


class _OnEngine:
    make_fixture: Any

    def setUp(self) -> None:
        """A fresh store."""
        self.fixture: StoreFixture = self.make_fixture()

    def tearDown(self) -> Deferred[None]:
        """Give it back."""
        return Deferred.fromCoroutine(self.fixture.close())


class _OnMemory(_OnEngine):
    make_fixture = MemoryFixture


class _OnSQLite(_OnEngine):
    make_fixture = SQLiteFixture


class MemoryScanTests(_OnMemory, ScanSuite, unittest.TestCase):
    """Scans in the fake."""


class MemoryNodeTests(_OnMemory, NodeSuite, unittest.TestCase):
    """Nodes in memory."""


class MemoryThreatTests(_OnMemory, ThreatSuite, unittest.TestCase):
    """Threats in the fake."""


class MemoryAgeTests(_OnMemory, AgeSuite, ClockJumpSuite, unittest.TestCase):
    """What goes with time, in the fake."""


class MemorySharedTests(_OnMemory, SharedSuite, unittest.TestCase):
    """What is shared, in the fake."""


class MemoryBrokenTests(_OnMemory, BrokenSuite, unittest.TestCase):
    """The fake without its tables."""

    async def test_switch(self) -> None:
        """Tests of other rooms can break the fake and mend it again."""
        store = self.fixture.store
        store.broken = True
        await self.refuses(StoreError, store.unfinished())
        await self.refuses(StoreError, store.promise(scan=scan()))
        store.remember(scan=ended_scan())
        self.assertEqual(store.lost, 1)
        store.broken = False
        self.assertEqual(await store.unfinished(), set())
        store.fullness = "no room"
        self.assertEqual(store.full(), "no room")


class SQLiteScanTests(_OnSQLite, ScanSuite, unittest.TestCase):
    """Scans on SQLite."""


class SQLiteNodeTests(_OnSQLite, NodeSuite, unittest.TestCase):
    """Nodes on SQLite."""


class SQLiteThreatTests(_OnSQLite, ThreatSuite, unittest.TestCase):
    """Threats on SQLite."""


class SQLiteAgeTests(_OnSQLite, AgeSuite, ClockJumpSuite, unittest.TestCase):
    """What goes with time, on SQLite."""


class SQLiteSharedTests(_OnSQLite, SharedSuite, unittest.TestCase):
    """What is shared, on SQLite."""


class SQLiteGroupTests(_OnSQLite, GroupSuite, unittest.TestCase):
    """Writes in groups, and beside other processes, on SQLite."""


class SQLiteBrokenTests(_OnSQLite, BrokenSuite, unittest.TestCase):
    """SQLite without its tables."""


class SQLiteTests(_OnSQLite, unittest.TestCase):
    """What only a real file and real threads can show."""

    fixture: Any

    @property
    def store(self) -> SQLiteStore:
        """The store under test."""
        store: SQLiteStore = self.fixture.store
        return store

    async def refuses(self, waiting: Any, error: type[Exception] = StoreError) -> Any:
        """What a Deferred fails with."""
        try:
            await waiting
        except error as raised:
            return raised
        raise AssertionError("an error was expected")

    def files(self) -> bytes:
        """Every byte of the database and its log."""
        return b"".join(each.read_bytes() for each in self.fixture.path.parent.iterdir())

    async def test_removed(self) -> None:
        """A file that was removed or replaced keeps no promise, and that is noticed."""
        kept = self.fixture.path.rename(self.fixture.path.with_suffix(".kept"))
        await self.refuses(self.store.promise(scan=scan()))
        await self.refuses(self.store.due(now=START, holder="", limit=1))
        shutil.copy(kept, self.fixture.path)
        error = await self.refuses(self.store.promise(scan=scan()))
        self.assertIn("removed or replaced", error.reason)
        kept.rename(self.fixture.path)
        await self.store.promise(scan=scan())

    def locked(self) -> sqlite3.Connection:
        """Another process in the middle of a write."""
        connection = sqlite3.connect(self.fixture.path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        self.addCleanup(connection.close)
        return connection

    async def pause(self, secs: float) -> None:
        """Let the reactor do other things."""
        await deferLater(self.fixture.reactor, secs, lambda: None)

    async def test_password_bytes(self) -> None:
        """A password is nowhere in the files, and the bytes of other artifacts are."""
        secret = Artifact(PASSWORD, "hunter2-secret")
        found = (Finds(searcher="one", source=b"", threats=(threat(artifacts=(secret,)),)),)
        for number, digest in ((1, b""), (2, b"digest-of-secret")):
            await self.store.promise(scan=scan(number, digest=digest, artifact=secret), finds=found)
            await self.store.record(
                scan_id=scan(number).id,
                search=Search(searcher="one", outcome=ended_scan().searches[0].outcome),
                state=ScanState.OPEN,
                holder="",
                finds=found,
            )
        self.store.remember(scan=ended_scan(3, digest=b"", artifact=secret), finds=found)
        await self.fixture.written()
        there = self.files()
        for part in (b"hunter2", b"digest-of-secret", b"target", b"Botnet"):
            self.assertNotIn(part, there)
        await self.store.promise(scan=scan(4))
        self.assertIn(b"host4.example", self.files())

    async def test_modes(self) -> None:
        """The files are for their owner alone."""
        await self.store.promise(scan=scan())
        directory = self.fixture.path.parent
        self.assertEqual(stat.S_IMODE(directory.stat().st_mode), 0o700)
        names = {each.name for each in directory.iterdir()}
        self.assertEqual(names, {"ctsd.sqlite", "ctsd.sqlite-wal", "ctsd.sqlite-shm"})
        for each in directory.iterdir():
            self.assertEqual(stat.S_IMODE(each.stat().st_mode), 0o600, each)

    async def test_reads_beside_import(self) -> None:
        """Reading the threats for an index holds up no write, and sees one state."""
        await self.store.add(threats=[threat("A"), threat("B")])
        import_id = await self.store.open_import()
        await self.store.add_to_import(import_id=import_id, threats=[threat("C")])
        version = read_version(self.fixture.path)
        self.assertEqual(version, await self.store.version())
        reading = read_threats(self.fixture.path)
        names = [next(reading).name]
        await self.store.finish_import(import_id=import_id)
        await self.store.delete(threat_ids=[each.id for each in await self.store.threats(limit=2)])
        names += [each.name for each in reading]
        self.assertEqual(names, ["A", "B"])
        self.assertEqual(list(read_threats(self.fixture.path)), await self.store.threats())
        self.assertEqual(read_version(self.fixture.path), version + 3)

    async def test_disk_full(self) -> None:
        """A full disk is a StoreError and makes the store full, until a write works."""
        self.store._probe_secs = 0.05

        def limit(pages: int) -> Steps[None]:
            yield Query(f"PRAGMA max_page_count = {pages}")

        await self.store._write(bound(limit, 1))
        big = Artifact("string", "x" * 200_000)
        error = await self.refuses(self.store.promise(scan=scan(1, artifact=big)))
        self.assertIn("disk is full", error.reason)
        self.assertIn("disk is full", self.store.full())
        await self.store._readers.runQuery("SELECT 1")  # type: ignore[union-attr]
        writer: Any = self.store._writer
        await writer.runQuery("PRAGMA max_page_count = 1000000")
        for _ in range(100):
            if not self.store.full():
                break
            await self.pause(0.02)
        self.assertEqual(self.store.full(), "")
        await self.store.promise(scan=scan(1, artifact=big))

    async def test_plans(self) -> None:
        """Questions that are asked often go by an index."""
        connection = sqlite3.connect(self.fixture.path)
        self.addCleanup(connection.close)
        for steps, index in (
            (bound(scan_steps.find, "", b"d"), "scans_unfinished"),
            (bound(scan_steps.unfinished, START, START, 9), "scans_new"),
            (bound(scan_steps.due, START, "me", 9), "scans_wake"),
            (bound(node_steps.held, "me"), "searches_held"),
            (bound(scan_steps.load, "x"), "sqlite_autoindex_scans_1"),
            (bound(threat_steps.threats, 0, 9), "INTEGER PRIMARY KEY"),
            (bound(threat_steps.twins, [b"t"]), "threats_twin"),
            (bound(aging_steps.finished_scans, START, 9), "scans_age"),
            (bound(aging_steps.finished_scans, None, 9), "scans_age"),
            (bound(aging_steps.expired_threats, START, 9), "threats_expire"),
        ):
            step = next(steps())
            rows = connection.execute(f"EXPLAIN QUERY PLAN {step.sql}", step.params).fetchall()
            plan = "; ".join(row[3] for row in rows)
            self.assertIn(index, plan)
            # Of one digest there are few scans: these may be sorted.
            if index != "scans_unfinished":
                self.assertNotIn("TEMP B-TREE FOR ORDER", plan)


class SQLiteLockedTests(unittest.TestCase):
    """Another process that keeps the file locked for longer than we wait."""

    def setUp(self) -> None:
        """A store that does not wait for long, and the other process."""
        self.fixture = SQLiteFixture(busy_secs=0.1)
        self.other = sqlite3.connect(self.fixture.path, isolation_level=None)
        self.other.execute("BEGIN IMMEDIATE")

    async def tearDown(self) -> None:
        """Give both back."""
        self.other.close()
        await self.fixture.close()

    async def test_survives(self) -> None:
        """Promises fail, scans to remember are lost and counted, and then all works again."""
        store = self.fixture.store
        store.remember(scan=ended_scan(1))
        store.remember(scan=ended_scan(2))
        promised = store.promise(scan=scan(3))
        try:
            await promised
        except StoreError as error:
            self.assertIn("locked", error.reason)
        else:
            self.fail("a StoreError was expected")
        self.assertEqual(store.lost, 2)
        self.assertEqual(store.full(), "")
        self.other.execute("ROLLBACK")
        await store.promise(scan=scan(3))

    async def test_stop(self) -> None:
        """Stopping ends also then."""
        store = self.fixture.store
        store.remember(scan=ended_scan(1))
        promises = [store.promise(scan=scan(n)) for n in range(600)]
        failed: list[Any] = []
        for each in promises:
            each.addErrback(failed.append)
        await store.stopService()
        self.assertEqual(len(failed), 600)


class SQLiteStopTests(unittest.TestCase):
    """The end, and the next start."""

    async def test_flushes(self) -> None:
        """What waits is written before the store closes, and nothing is taken after."""
        fixture = SQLiteFixture()
        store = fixture.store
        for number in range(600):
            store.remember(scan=ended_scan(number))
        promised = store.promise(scan=scan(1000))
        reading = store.unfinished()
        stopped = store.stopService()
        store.remember(scan=ended_scan(2000))
        self.assertEqual(store.lost, 1)
        late = store.promise(scan=scan(2001))
        await self.assertFailure(late, StoreError)
        await promised
        await stopped
        await reading.addErrback(lambda failure: failure.trap(StoreError))
        await self.assertFailure(store.unfinished(), StoreError)
        self.assertEqual([each.name for each in fixture.path.parent.iterdir()], ["ctsd.sqlite"])
        again = SQLiteFixture(fixture.path)
        self.assertEqual(again.store.secret(), store.secret())
        for number in (0, 599, 1000):
            self.assertTrue(await again.store.load(scan_id=scan(number).id))
        await again.close()
        shutil.rmtree(fixture.directory)

    async def test_never_started(self) -> None:
        """A store that was not started fails every verb, and stops."""
        from twisted.internet import reactor

        store = SQLiteStore(reactor=reactor, path=Path("unused"), max_bytes=1, retention_secs=1.0)
        await self.assertFailure(store.unfinished(), StoreError)
        await self.assertFailure(store.promise(scan=scan()), StoreError)
        await store.stopService()

    async def test_long_read(self) -> None:
        """A read that takes long does not hold the end."""
        fixture = SQLiteFixture()

        def endless() -> Steps[None]:
            yield Query(
                "WITH RECURSIVE n(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n)"
                " SELECT count(*) FROM n"
            )

        reading = fixture.store._read(endless)
        await deferLater(fixture.reactor, 0.1, lambda: None)
        failed = self.assertFailure(reading, StoreError)
        await fixture.close()
        await failed


PROMISER = """
import sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from ctsd.store.sqlite import SQLiteStore
from tests.store_suite import ended_scan, scan

store = SQLiteStore(
    reactor=reactor, path=Path(sys.argv[1]), max_bytes=2**40, retention_secs=1e9
)
store.open()
store.startService()

async def promise():
    for number in range(100000):
        store.remember(scan=ended_scan(number + 1000000))
        await store.promise(scan=scan(number))
        print(number, flush=True)

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(promise()))
reactor.run()
"""


class KilledTests(unittest.TestCase):
    """A process that dies in the middle."""

    async def test_promises_kept(self) -> None:
        """Every promise that was made before C{kill -9} is there afterwards."""
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        root = Path(__file__).parent.parent
        with subprocess.Popen(
            [sys.executable, "-c", PROMISER, directory / "x.sqlite"],
            stdout=subprocess.PIPE,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        ) as child:
            out = child.stdout
            assert out is not None
            promised = [int(out.readline()) for _ in range(40)]
            child.send_signal(signal.SIGKILL)
            promised += [int(line) for line in out if line.endswith(b"\n")]
        fixture = SQLiteFixture(directory / "x.sqlite")
        for number in promised:
            self.assertEqual(await fixture.store.load(scan_id=scan(number).id), scan(number))
        await fixture.close()


class OpenTests(unittest.SynchronousTestCase):
    """What stops the start, in one line each."""

    def setUp(self) -> None:
        """A directory."""
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = self.directory / "x.sqlite"

    def open(self, path: Path | None = None) -> SQLiteStore:
        """Open a store, without starting it."""
        store = SQLiteStore(
            reactor=Clock(),
            path=path or self.path,
            max_bytes=1,
            retention_secs=1.0,
            busy_secs=0.05,
        )
        store.open()
        return store

    def refused(self, path: Path | None = None) -> str:
        """Why a store can't be opened."""
        return self.assertRaises(StoreError, self.open, path).reason

    def test_again(self) -> None:
        """A store that is there is opened as it is, and its file is for its owner alone."""
        secret = self.open().secret()
        self.path.chmod(0o644)
        self.assertEqual(self.open().secret(), secret)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_directories(self) -> None:
        """Directories that are missing are made for their owner alone; others stay as they are."""
        self.directory.chmod(0o755)
        self.open(self.directory / "a" / "b" / "x.sqlite")
        self.assertEqual(stat.S_IMODE(self.directory.stat().st_mode), 0o755)
        self.assertEqual(stat.S_IMODE((self.directory / "a" / "b").stat().st_mode), 0o700)

    def test_root_gives(self) -> None:
        """What root makes in somebody's directory is that somebody's."""
        if os.geteuid() == 0:
            os.chown(self.directory, 4711, 4712)
        self.open(self.directory / "a" / "x.sqlite")
        owner = self.directory.stat()
        for each in (self.directory / "a", self.directory / "a" / "x.sqlite"):
            self.assertEqual((each.stat().st_uid, each.stat().st_gid), (owner.st_uid, owner.st_gid))

    def test_newer(self) -> None:
        """A store of a newer ctsd is refused and not touched."""
        self.open()
        connection = sqlite3.connect(self.path)
        connection.execute("UPDATE numbers SET value = 99 WHERE name IN ('schema', 'oldest')")
        connection.commit()
        self.assertIn("newer ctsd", self.refused())
        self.assertIn("99", self.refused())
        rows = connection.execute("SELECT value FROM numbers WHERE name = 'schema'").fetchall()
        self.assertEqual(rows, [(99,)])
        connection.close()

    def test_older(self) -> None:
        """A store of an older ctsd is brought up, in one transaction."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        bring_up(connection, scripts())
        secret = connection.execute("SELECT value FROM secrets").fetchall()
        more = [*scripts(), "CREATE TABLE a (x);\nCREATE TABLE b (x);\n"]
        bring_up(connection, more)
        bring_up(connection, more)
        self.assertEqual(connection.execute("SELECT * FROM b").fetchall(), [])
        self.assertEqual(connection.execute("SELECT value FROM secrets").fetchall(), secret)
        wrong = [*more, "CREATE TABLE c (x);\nCREATE TABLE c (x);\n"]
        self.assertRaises(sqlite3.Error, bring_up, connection, wrong)
        bring_up(connection, [*more, "CREATE TABLE c (x);\n"])
        connection.close()

    def test_something_else(self) -> None:
        """A database of something else is refused."""
        connection = sqlite3.connect(self.path)
        connection.execute("CREATE TABLE bills (x)")
        connection.close()
        self.assertIn("something else", self.refused())

    def test_no_database(self) -> None:
        """A file that is no database is refused."""
        self.path.write_bytes(b"not a database, but long enough to be one" * 100)
        self.assertIn("not a database", self.refused())

    def test_bad_places(self) -> None:
        """A place where no file can be is refused by its name."""
        self.path.write_bytes(b"")
        self.assertIn("x.sqlite", self.refused(self.path / "y.sqlite"))
        self.assertIn(str(self.directory), self.refused(self.directory))

    def test_locked(self) -> None:
        """A store that another process keeps locked is refused after a while."""
        self.open()
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        self.assertIn("locked", self.refused())
        other.close()

    def test_old_sqlite(self) -> None:
        """SQLite below 3.34 is refused, naming both versions."""
        check_sqlite((3, 34, 0))
        error = self.assertRaises(StoreError, check_sqlite, (3, 33, 9))
        self.assertIn("3.33.9", error.reason)
        self.assertIn("3.34.0", error.reason)

    def test_no_returning(self) -> None:
        """Our statements keep to what the oldest SQLite and PostgreSQL both know."""
        for each in (Path(__file__).parent.parent / "ctsd" / "store").rglob("*.py"):
            self.assertNotIn(" RETURNING ", each.read_text("utf-8"))

    def test_rows_missing(self) -> None:
        """Threats of a file that is not there, or is none of ours, are a StoreError."""
        self.assertRaises(StoreError, list, read_threats(self.path))
        self.assertFalse(self.path.exists())
        self.path.write_bytes(b"")
        self.assertRaises(StoreError, read_version, self.path)

    def test_network(self) -> None:
        """A file system of another machine is recognised, a mount below or above it apart."""
        mounts = self.directory / "mountinfo"
        mounts.write_text(
            "22 1 0:1 / / rw - ext4 /dev/sda rw\n"
            "23 22 0:2 / /srv rw,relatime shared:1 - nfs4 host:/x rw\n"
            "24 23 0:3 / /srv/local\\040disk rw - xfs /dev/sdb rw\n"
            "25 22 0:4 / /mnt rw - cifs //host/x rw\n"
            "26 22 0:4 / /mnt rw - ext4 /dev/sdc rw\n"
            "27 22 0:5 / /home rw - fuse.sshfs host: rw\n"
            "broken line\n"
        )
        for path, expected in (
            ("/srv/ctsd/x", True),
            ("/srv", True),
            ("/srvx", False),
            ("/srv/local disk/x", False),
            ("/mnt/x", False),
            ("/home/me/x", True),
            ("/var/lib", False),
        ):
            self.assertEqual(is_network_filesystem(Path(path), mounts=mounts), expected, path)
        self.assertFalse(is_network_filesystem(self.path, mounts=self.directory / "none"))
        mounts.write_text(f"22 1 0:1 / {self.directory.resolve()} rw - nfs host:/x rw\n")
        error = self.assertRaises(StoreError, make_place, self.path, mounts=mounts)
        self.assertIn("network file system", error.reason)
        self.assertFalse(self.path.exists())


class QueueTests(unittest.SynchronousTestCase):
    """Which writes share a group, on a clock of the test's own."""

    def setUp(self) -> None:
        """A queue whose groups the test ends."""
        self.clock = Clock()
        self.groups: list[tuple[Any, Deferred[Any]]] = []
        self.errors: list[BaseException | None] = []
        self.queue = WriteQueue(
            clock=self.clock,
            run=self.run_group,
            remember=lambda items: Write(
                count_steps, False, pieces=[Write(count_steps)] * len(items)
            ),
            ended=self.errors.append,
            group_secs=0.005,
            max_group=3,
            max_queued=5,
        )

    def run_group(self, group: Any) -> Any:
        """An engine that waits for the test."""
        done: Deferred[Any] = Deferred()
        self.groups.append((group, done))
        return done

    def end(self, error: Exception | None = None) -> None:
        """The newest group has ended."""
        group, done = self.groups[-1]
        if error is not None:
            done.errback(error)
        else:
            done.callback([(write, None, None) for write in group])

    def remember(self, *numbers: int) -> None:
        """Scans to remember."""
        for number in numbers:
            self.queue.put_later((ended_scan(number), ()))

    def sizes(self) -> list[list[int]]:
        """Of each group: how many pieces its writes have."""
        return [[len(write.pieces) or 1 for write in group] for group, _ in self.groups]

    def test_at_once(self) -> None:
        """A write that somebody waits for goes at once, and takes along what waits."""
        self.remember(1, 2)
        done = self.queue.put(Write(count_steps))
        self.assertEqual(self.sizes(), [[2, 1]])
        self.assertNoResult(done)
        self.end()
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waits_for_company(self) -> None:
        """Scans to remember wait for others, but not for long, nor for more than a group."""
        self.remember(1)
        self.clock.advance(0.004)
        self.remember(2)
        self.assertEqual(self.groups, [])
        self.clock.advance(0.001)
        self.assertEqual(self.sizes(), [[2]])
        self.remember(3, 4, 5, 6)
        self.clock.advance(1)
        self.assertEqual(self.sizes(), [[2]])
        self.end()
        self.assertEqual(self.sizes(), [[2], [3]])
        self.end()
        self.clock.advance(0.005)
        self.assertEqual(self.sizes(), [[2], [3], [1]])
        self.end()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_next_group(self) -> None:
        """What comes while a group is written is the next one, up to its limit."""
        done = [self.queue.put(Write(count_steps)) for _ in range(5)]
        self.assertEqual(self.sizes(), [[1]])
        self.end()
        self.assertEqual(self.sizes(), [[1], [1, 1, 1]])
        self.end()
        self.end()
        self.assertEqual([self.successResultOf(each) for each in done], [None] * 5)

    def test_too_many(self) -> None:
        """Beyond the limit a promise fails as busy, and a scan to remember is lost."""
        done = [self.queue.put(Write(count_steps)) for _ in range(6)]
        refused = self.failureResultOf(self.queue.put(Write(count_steps)), StoreError)
        self.assertIn("busy", refused.value.reason)
        self.remember(1, 2, 3, 4, 5, 6)
        self.assertEqual(self.queue.lost, 1)
        self.assertIsNone(self.queue.remembered(scan(6).id))
        while not done[-1].called:
            self.end()
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_losses_logged(self) -> None:
        """Losses are logged at once, and then once a minute with their number."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.queue.put(Write(count_steps))
        self.remember(*range(10))
        self.clock.advance(59)
        self.remember(11)
        self.clock.advance(1)
        self.remember(12)
        told = [each["count"] for each in events if "lost" in each]
        self.assertEqual(told, [1, 6])
        self.assertEqual(self.queue.lost, 7)

    def test_nothing_written(self) -> None:
        """When a group fails as a whole, everything in it does, and the next one goes on."""
        self.remember(1, 2)
        first = self.queue.put(Write(count_steps))
        second = self.queue.put(Write(count_steps))
        self.end(StoreError("locked"))
        self.failureResultOf(first, StoreError)
        self.assertEqual(self.queue.lost, 2)
        self.assertIsNone(self.queue.remembered(scan(1).id))
        self.end()
        self.successResultOf(second)
        self.assertEqual([str(each) for each in self.errors], ["locked", "None"])

    def test_engine_raises(self) -> None:
        """An engine that raises instead of failing is an error like any other."""
        self.queue.run = lambda group: 1 / 0  # type: ignore[assignment, return-value]
        self.failureResultOf(self.queue.put(Write(count_steps)), ZeroDivisionError)
        self.queue.run = self.run_group
        done = self.queue.put(Write(count_steps))
        self.end()
        self.successResultOf(done)

    def test_callback_raises(self) -> None:
        """What a waiting one does with its result is not the queue's affair."""
        done = self.queue.put(Write(count_steps))
        again: list[Deferred[Any]] = []
        done.addCallback(lambda _: again.append(self.queue.put(Write(count_steps))) or 1 / 0)
        self.end()
        self.failureResultOf(done, ZeroDivisionError)
        self.end()
        self.successResultOf(again[0])

    def test_stop(self) -> None:
        """Stopping writes what waits, in as many groups as it takes, and takes nothing more."""
        self.assertIsNone(self.successResultOf(self.queue.stop()))
        self.remember(1)
        self.assertEqual(self.queue.lost, 1)
        self.failureResultOf(self.queue.put(Write(count_steps)), StoreError)

    def test_stop_flushes(self) -> None:
        """What waits is written without waiting for company."""
        self.remember(1)
        stopped = self.queue.stop()
        self.assertEqual(self.sizes(), [[1]])
        self.assertNoResult(stopped)
        self.end()
        self.successResultOf(stopped)

    def test_stop_fails(self) -> None:
        """When the last groups can't be written, stopping does not try one after the other."""
        done = [self.queue.put(Write(count_steps)) for _ in range(5)]
        self.remember(1, 2, 3, 4)
        stopped = self.queue.stop()
        self.end(StoreError("locked"))
        self.successResultOf(stopped)
        for each in done:
            self.failureResultOf(each, StoreError)
        self.assertEqual(self.queue.lost, 4)


class RunnerTests(unittest.SynchronousTestCase):
    """Groups on a connection."""

    def setUp(self) -> None:
        """A database in memory."""
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.addCleanup(self.connection.close)
        bring_up(self.connection, scripts())

    def names(self) -> list[str]:
        """Which secrets there are."""
        rows = self.connection.execute("SELECT name FROM secrets WHERE name <> 'scan ids'")
        return [row[0] for row in rows]

    def one(self, name: str) -> Write:
        """A write that works once."""

        def insert() -> Steps[str]:
            yield Many("INSERT INTO secrets (name, value) VALUES (?, x'')", [(name,)])
            return name

        return Write(insert)

    def test_lost_transaction(self) -> None:
        """When a write takes the transaction with it, nothing counts as written."""

        def ends() -> Steps[None]:
            yield Change("ROLLBACK")
            yield Change("broken")

        self.assertRaises(
            StoreError, run_group, self.connection, [self.one("a"), Write(ends), self.one("b")]
        )
        self.assertEqual(self.names(), [])
        self.assertFalse(self.connection.in_transaction)

    def test_all_bad(self) -> None:
        """Each bad write has its own error, and half of one leaves nothing."""
        results = run_group(self.connection, [Write(bad_steps), Write(bad_steps)])
        self.assertEqual([type(error) for _, _, error in results], [StoreError, StoreError])
        self.assertEqual(self.names(), [])

    def test_durable(self) -> None:
        """A group with one write that has to survive a power loss does, as a whole."""
        for durable, level in ((True, 2), (False, 1)):
            run_group(self.connection, [Write(count_steps, False), Write(count_steps, durable)])
            rows = self.connection.execute("PRAGMA synchronous").fetchall()
            self.assertEqual(rows, [(level,)])

    def test_hopeless(self) -> None:
        """What another process keeps locked is not tried once for every write."""
        tried = []

        class Locked:
            in_transaction = False

            def execute(self, sql: str, params: Any = (), /) -> Any:
                tried.append(sql)
                if sql.startswith("BEGIN"):
                    error = sqlite3.OperationalError("database is locked")
                    error.sqlite_errorname = "SQLITE_BUSY"
                    raise error

        writes = [self.one("a"), self.one("b")]
        self.assertRaises(StoreError, run_group, Locked(), writes)  # type: ignore[arg-type]
        self.assertEqual(len([sql for sql in tried if sql.startswith("BEGIN")]), 1)

    def test_pieces(self) -> None:
        """Of a write in pieces only the bad piece is lost."""
        pieces = [self.one("a"), self.one("a"), self.one("b")]

        def whole() -> Steps[None]:
            for piece in pieces:
                yield from piece.make()

        results = run_group(self.connection, [Write(whole, pieces=pieces)])
        self.assertEqual([value for _, value, _ in results], ["a", None, "b"])
        self.assertEqual(self.names(), ["a", "b"])


class WallWatchTests(unittest.SynchronousTestCase):
    """Whether the wall clock can be trusted."""

    def test_jumps(self) -> None:
        """A jump of more than an hour, either way, counts; slewing and short steps don't."""
        for jump in (3601.0, -3601.0):
            watch = WallWatch()
            self.assertTrue(watch.steady(wall=START, monotonic=5.0))
            self.assertTrue(watch.steady(wall=START + 100 + 3599, monotonic=105.0))
            self.assertTrue(watch.steady(wall=START + 100, monotonic=105.0))
            self.assertFalse(watch.steady(wall=START + 200 + jump, monotonic=205.0))
            self.assertFalse(watch.steady(wall=START + 300 + jump, monotonic=305.0))
            self.assertFalse(watch.steady(wall=START + 400, monotonic=405.0))
            self.assertFalse(watch.steady(wall=START + 3900, monotonic=3905.0))
            self.assertTrue(watch.steady(wall=START + 4000, monotonic=4005.0))
            self.assertTrue(watch.steady(wall=START + 4001, monotonic=4006.0))
