"""All of a store copied to another one, saved to a file, and brought up."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.trial import unittest
from twisted.trial.unittest import SynchronousTestCase

from ctsd.config.loading import load
from ctsd.errors import StoreError
from ctsd.opening import open_store
from ctsd.store import copy_postgres, copy_sqlite, copying, moving, sqlite_files
from ctsd.store.copy_sqlite import SQLitePlace
from ctsd.store.copying import Copied, Place, Row, Table, copy_all, layout, slices
from ctsd.store.moving import move, place_of, save, upgrade
from ctsd.store.postgres import PostgresStore
from ctsd.store.postgres_schema import scripts as postgres_scripts
from ctsd.store.postgres_target import Target
from ctsd.store.rows import name_digest
from ctsd.store.sqlite import SQLiteStore
from ctsd.store.sqlite_schema import bring_up, scripts
from ctsd.store.steps import Query
from tests.nasty_values import check, examples, fill, some
from tests.postgres import MISSING, POOLER_MISSING, Pooler, Shared
from tests.store_suite import pause
from tests.test_store_schema import COMPATIBLE, INCOMPATIBLE


def silent(table: str, rows: int, what: str) -> None:
    """Tell nobody."""


def put(path: Path, rows: Sequence[Row]) -> None:
    """Write pairs into a file, as a daemon would."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executemany("INSERT INTO pairs VALUES (?, ?, ?)", rows)


class Memory:
    """A L{copying.Writable} that keeps rows, or loses some."""

    name = "memory"
    saved = True

    def __init__(self, version: int = 0, **tables: list[Row]) -> None:
        self.version = version
        self.tables = tables
        self.loses: set[str] = set()

    def now(self) -> float:
        """Any time."""
        return 0.0

    def ask(self, query: Any) -> list[Row]:
        """Nobody uses it."""
        return []

    def rows(self, table: Table) -> Any:
        """What was inserted, the other way round."""
        return reversed(self.tables.get(table.name, []))

    def make(self, version: int) -> None:
        """Nothing to make."""
        self.version = version

    def clear(self, table: Table, where: str) -> None:
        """Nothing was there."""

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Keep them, unless they are to be lost."""
        kept = rows[1:] if table.name in self.loses else rows
        self.tables.setdefault(table.name, []).extend(kept)


class ProofTests(SynchronousTestCase):
    """What is proved, whatever the engines do."""

    def setUp(self) -> None:
        """Something to copy."""
        self.source = Memory(
            1,
            pairs=[(b"a", b"1", 1.0), (b"b", b"2", 2)],
            numbers=[("schema", 1), ("oldest", 1), ("writer", 0), ("threat", 7)],
        )

    def copied(self, target: Memory) -> dict[str, Copied]:
        """What was copied, by table."""
        return {one.table: one for one in copy_all(self.source, target, tell=silent)}

    def test_whole(self) -> None:
        """Rows are the same in whatever order they come; numbers of the engine stay at home."""
        target = Memory()
        copied = self.copied(target)
        self.assertEqual(copied["pairs"].rows, 2)
        self.assertEqual(target.tables["numbers"], [("threat", 7)])
        self.assertEqual(copied["numbers"].rows, 1)
        self.assertEqual(set(copied), {table.name for table in layout(1)})
        self.assertNotEqual(copied["pairs"].digest, copied["numbers"].digest)

    def test_lost(self) -> None:
        """A row that is missing from the copy is noticed, and so is one that is another."""
        target = Memory()
        target.loses = {"pairs"}
        error = self.assertRaises(StoreError, self.copied, target)
        self.assertIn("table pairs is not", error.reason)
        target = Memory()
        target.tables["pairs"] = [(b"c", b"", 0.0)]
        self.assertRaises(StoreError, self.copied, target)

    def test_every_part_counts(self) -> None:
        """Whatever differs in a row makes another digest: types, empty and missing values."""
        rows: list[Row] = [
            (b"a", b"1", 1.0),
            (b"a", b"1", 1.5),
            (b"a", b"", 1.0),
            (b"a", None, 1.0),
            ("a", b"1", 1.0),
            (b"a1", b"", 1.0),
            (b"", b"a1", 1.0),
        ]
        digests = set()
        for row in rows:
            self.source.tables["pairs"] = [row]
            digests.add(self.copied(Memory())["pairs"].digest)
        self.assertEqual(len(digests), len(rows))

    def test_equal_floats(self) -> None:
        """What engines read differently, but is the same number, is the same."""
        digests = set()
        for number in (0.0, -0.0, 0):
            self.source.tables["pairs"] = [(b"a", b"", number)]
            digests.add(self.copied(Memory())["pairs"].digest)
        self.assertEqual(len(digests), 1)

    def test_nothing_there(self) -> None:
        """A source without tables, or with those of a newer ctsd, is refused."""
        for version, told in ((0, "no database"), (99, "knows up to")):
            self.source.version = version
            self.assertIn(told, self.assertRaises(StoreError, self.copied, Memory()).reason)

    def test_slices(self) -> None:
        """A slice ends with its number of rows, or of bytes."""
        rows: list[Row] = [(number, b"") for number in range(2500)]
        self.assertEqual([len(piece) for piece in slices(rows)], [1000, 1000, 500])
        large = [(number, b"x" * 3_000_000) for number in range(5)]
        self.assertEqual([len(piece) for piece in slices(large)], [2, 2, 1])
        self.assertEqual(list(slices([])), [])

    def test_told(self) -> None:
        """Who waits is told how far it is."""
        told: list[tuple[str, int, str]] = []
        self.source.tables["pairs"] = [(b"%d" % number, b"", 0.0) for number in range(2500)]
        copy_all(self.source, Memory(), tell=lambda *what: told.append(what))
        self.assertEqual(
            [each for each in told if each[0] == "pairs"],
            [("pairs", number, "copied") for number in (1000, 2000, 2500)]
            + [("pairs", number, "read back") for number in (1000, 2000)],
        )


class _Places:
    """A file with something in it, and places for copies."""

    dir: Path
    mktemp: Any
    addCleanup: Any
    assertEqual: Any
    assertIn: Any
    assertRaises: Any

    def setUp(self) -> None:
        """Make it."""
        self.dir = Path(self.mktemp()).absolute()
        self.dir.mkdir()
        self.path = self.dir / "source.sqlite"
        SQLitePlace(self.path).make()
        put(self.path, [(b"name", b"value", 5.0)])
        self.file = SQLitePlace(self.path)

    def new_file(self, name: str = "copy.sqlite") -> SQLitePlace:
        """Where nothing is yet."""
        return SQLitePlace(self.dir / name)

    def database(self) -> Place:
        """An empty database on PostgreSQL."""
        server = Shared.server()
        self.name = server.new_database()
        self.addCleanup(server.drop_database, self.name)
        return place_of(url=server.url(self.name), password=server.password, directory=self.dir)

    def sql(self, sql: str, params: Any = None) -> list[Any]:
        """Ask the database."""
        return Shared.server().run(self.name, sql, params)

    def refused(self, source: Place, target: Place) -> str:
        """Why one can't be copied to the other."""
        reason: str = self.assertRaises(StoreError, move, source, target, tell=silent).reason
        return reason

    def pairs(self, place: Place) -> list[Row]:
        """What is in a table."""
        with place.original(alone=False) as tables:
            [table] = [table for table in layout(tables.version) if table.name == "pairs"]
            return list(tables.rows(table))


class FileTests(_Places, SynchronousTestCase):
    """From a file to a file."""

    def test_there(self) -> None:
        """It is a store as a daemon opens it, with all that was in the other."""
        copied = move(self.file, self.new_file(), tell=silent)
        self.assertEqual({one.table: one.rows for one in copied}["pairs"], 1)
        self.assertEqual(self.pairs(self.new_file()), [(b"name", b"value", 5.0)])
        self.assertEqual(self.new_file().file.stat().st_mode & 0o777, 0o600)
        first, second = (
            SQLiteStore(reactor=Clock(), path=path, max_bytes=1, retention_secs=1.0)
            for path in (self.path, self.dir / "copy.sqlite")
        )
        first.open()
        second.open()
        self.assertEqual(first.secret(), second.secret())

    def test_nothing_is_overwritten(self) -> None:
        """A file that is there is left alone."""
        (self.dir / "copy.sqlite").write_text("mine")
        self.assertIn("is there already", self.refused(self.file, self.new_file()))
        self.assertEqual((self.dir / "copy.sqlite").read_text(), "mine")

    def test_interrupted(self) -> None:
        """Nothing is left of a copy that did not come to its end."""

        def interrupt(table: str, rows: int, what: str) -> None:
            raise KeyboardInterrupt

        before = sorted(self.dir.iterdir())
        self.assertRaises(KeyboardInterrupt, move, self.file, self.new_file(), tell=interrupt)
        self.assertEqual(sorted(self.dir.iterdir()), before)

    def test_somebody_writes(self) -> None:
        """While another process writes, nothing is copied; nobody can write meanwhile."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with patch.object(sqlite_files, "BUSY_SECS", 0.05):
                self.assertIn("locked", self.refused(self.file, self.new_file()))
            other.execute("ROLLBACK")

            def write(table: str, rows: int, what: str) -> None:
                self.assertRaises(sqlite3.OperationalError, other.execute, "DELETE FROM pairs")

            other.execute("PRAGMA busy_timeout = 0")
            move(self.file, self.new_file(), tell=write)

    def test_living(self) -> None:
        """What a node has used a moment ago is refused, unless it is a backup of that moment."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(
                "INSERT INTO nodes (name, epoch, holder, expires) VALUES ('n1', 1, 'n1#1', ?)",
                (time.time() + 60,),
            )
            self.assertIn("is used by n1", self.refused(self.file, self.new_file()))
            save(self.file, self.dir / "saved", tell=silent)
            move(self.new_file("saved"), self.new_file("restored"), tell=silent)
            connection.execute("UPDATE nodes SET expires = 5")
        move(self.file, self.new_file(), tell=silent)

    def test_read_only(self) -> None:
        """A backup that we can't write to is read all the same."""
        with patch.object(os, "access", lambda path, mode: False):
            self.path.chmod(0o400)
            move(self.file, self.new_file(), tell=silent)

    def test_not_ours(self) -> None:
        """What is no store is refused by its name."""
        self.path.write_bytes(b"no database, but long enough " * 100)
        self.assertIn("source.sqlite: ", self.refused(self.file, self.new_file()))
        self.assertRaises(OSError, move, self.new_file("none"), self.new_file(), tell=silent)

    def test_errors_name_their_side(self) -> None:
        """What fails at the target is told of the target."""
        with patch.object(copy_sqlite, "bring_up", side_effect=sqlite3.OperationalError("full")):
            self.assertIn("copy.sqlite: ", self.refused(self.file, self.new_file()))

    def test_older(self) -> None:
        """A store of an older ctsd is brought up on its way; what was in it is there."""
        with patch.object(copy_sqlite, "scripts", lambda: [*scripts(), COMPATIBLE]):
            move(self.file, self.new_file(), tell=silent)
            self.assertEqual(self.new_file().versions()[0], len(scripts()) + 1)
        with contextlib.closing(sqlite3.connect(self.dir / "copy.sqlite")) as connection:
            self.assertEqual(connection.execute("SELECT * FROM added").fetchall(), [])
            self.assertEqual(len(connection.execute("SELECT * FROM pairs").fetchall()), 1)


class _Undo(Exception):
    """Whatever was done shall not have happened."""


class PostgresTests(_Places, SynchronousTestCase):
    """To PostgreSQL, and from there."""

    skip = MISSING or None

    def test_layout(self) -> None:
        """Both engines have the same tables and columns, in every version of the schema."""
        database = self.database()
        columns = Query(
            "SELECT table_name, string_agg(column_name, ',' ORDER BY ordinal_position)"
            " FROM information_schema.columns WHERE table_schema = 'public'"
            " GROUP BY table_name ORDER BY table_name"
        )
        for version in range(1, len(scripts()) + 1):
            with contextlib.suppress(_Undo), database.copy(newest=False) as tables:
                tables.make(version)
                wanted = [(table.name, ",".join(table.columns)) for table in layout(version)]
                self.assertEqual(tables.ask(columns), wanted)
                raise _Undo

    def test_there_and_back(self) -> None:
        """From a file to a database and back: equal at every step, and proved."""
        put(self.path, [(b"%d" % number, b"\0" * (number % 7), 0.1) for number in range(3000)])
        put(self.path, [(b"large", b"\xff" * 9_000_000, -0.0)])
        database = self.database()
        told: list[tuple[str, int, str]] = []
        there = move(self.file, database, tell=lambda *what: told.append(what))
        self.assertIn(("pairs", 3000, "read back"), told)
        back = move(database, self.new_file(), tell=silent)
        self.assertEqual(there, back)
        self.assertEqual(sorted(self.pairs(self.new_file())), sorted(self.pairs(self.file)))
        self.assertEqual({one.table: one.rows for one in there}["pairs"], 3002)

    def test_made_before(self) -> None:
        """A database with tables and nothing in them is empty; one with anything is not."""
        database = self.database()
        database.make()
        move(self.file, database, tell=silent)
        self.assertIn(
            "is not empty: there is something in pairs", self.refused(self.file, database)
        )
        self.sql("DELETE FROM pairs")
        self.sql("INSERT INTO imports VALUES (7, NULL, 0, 0, 0)")
        self.assertIn("is not empty: there is something in imp", self.refused(self.file, database))

    def test_all_or_nothing(self) -> None:
        """Nothing is left of a copy that did not come to its end, whatever ended it."""
        database = self.database()

        def interrupt(table: str, rows: int, what: str) -> None:
            if table == "pairs":
                raise KeyboardInterrupt

        self.assertRaises(KeyboardInterrupt, move, self.file, database, tell=interrupt)
        self.assertEqual(database.versions(), (0, 0))

        def terminate(table: str, rows: int, what: str) -> None:
            self.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

        reason = self.assertRaises(StoreError, move, self.file, database, tell=terminate).reason
        self.assertIn(f"database {self.name}", reason)
        self.assertNotIn("source.sqlite", reason)
        self.assertEqual(database.versions(), (0, 0))

    def test_not_the_same(self) -> None:
        """What comes back otherwise than it was written is not committed."""
        database = self.database()
        with patch.object(copy_postgres, "execute_values"):
            self.assertIn("table ", self.refused(self.file, database))
        self.assertEqual(database.versions(), (0, 0))

    def test_impossible_text(self) -> None:
        """A text that none of ours is, and that PostgreSQL can't have, is told of."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("INSERT INTO leases VALUES (x'00', 'a' || char(0), 1, 0)")
        database = self.database()
        self.assertIn("leases has a text", self.refused(self.file, database))
        self.assertEqual(database.versions(), (0, 0))

    def test_somebody_writes(self) -> None:
        """While others write, nothing is copied; nobody can write meanwhile, all can read."""
        import psycopg2

        database = self.database()
        move(self.file, database, tell=silent)
        other = Shared.server().connect(self.name)
        self.addCleanup(other.close)
        cursor = other.cursor()
        cursor.execute("BEGIN; DELETE FROM pairs")
        with patch.object(copy_postgres, "_LOCK_SECS", 0.1):
            self.assertIn("took too long", self.refused(database, self.new_file()))
        cursor.execute("ROLLBACK; SET lock_timeout = 50")

        def write(table: str, rows: int, what: str) -> None:
            cursor.execute("SELECT count(*) FROM pairs")
            self.assertRaises(psycopg2.errors.LockNotAvailable, cursor.execute, "DELETE FROM pairs")

        move(database, self.new_file(), tell=write)

    def test_daemon_of_before(self) -> None:
        """A database that a daemon of the first version has for itself is refused."""
        database = self.database()
        with database.copy(newest=False) as tables:
            tables.make(1)
        lease = "INSERT INTO leases VALUES (%s, %s, 1, extract(epoch FROM now()) + 60)"
        self.sql(lease, (name_digest("a feed"), "host (abc)"))
        with database.original(alone=False) as tables:
            self.assertEqual(copying.living(tables), [])
        self.sql(lease, (name_digest("daemon"), "host (abc)"))
        self.assertIn("used by host (abc)", self.refused(database, self.new_file()))

    def test_save(self) -> None:
        """A backup is made beside others who write, and shows one moment."""
        database = self.database()
        put(self.path, [(b"%d" % number, os.urandom(1000), 0.0) for number in range(1500)])
        move(self.file, database, tell=silent)
        stop = threading.Event()

        def write() -> None:
            connection = Shared.server().connect(self.name)
            while not stop.is_set():
                connection.cursor().execute("UPDATE pairs SET expires = expires + 1")
                stop.wait(0.02)
            connection.close()

        writing = threading.Thread(target=write)
        writing.start()
        try:
            for number in range(2):
                target = self.dir / f"save{number}"
                self.assertEqual(save(database, target, tell=silent), target.stat().st_size)
                with contextlib.closing(sqlite3.connect(target)) as connection:
                    found = connection.execute(
                        "SELECT MIN(expires) - MAX(expires), COUNT(*) FROM pairs WHERE name <> ?",
                        (b"name",),
                    ).fetchone()
                self.assertEqual(found, (0.0, 1500))
        finally:
            stop.set()
            writing.join()
        self.assertIn(
            "is there already",
            self.assertRaises(StoreError, save, database, target, tell=silent).reason,
        )

    def test_nobody_there(self) -> None:
        """A server that does not answer is told by its name; the file is not there."""
        nowhere = place_of(
            url="postgresql://ctsd@127.0.0.1:1/none", password="pw", directory=self.dir
        )
        self.assertIn("127.0.0.1:1", self.refused(nowhere, self.new_file()))
        self.assertIn("127.0.0.1:1", self.refused(self.file, nowhere))
        self.assertEqual([path.name for path in self.dir.iterdir()], ["source.sqlite"])


class UpgradeTests(_Places, SynchronousTestCase):
    """L{upgrade}."""

    skip = MISSING or None

    def setUp(self) -> None:
        """Nothing was saved yet."""
        super().setUp()
        self.saved: list[int] = []

    def newer(self, *more: str) -> Any:
        """As a ctsd does that knows more files of the schema."""
        stack = contextlib.ExitStack()
        for module in (moving, copy_sqlite, copying):
            stack.enter_context(patch.object(module, "scripts", lambda: [*scripts(), *more]))
        stack.enter_context(
            patch.object(copy_postgres, "scripts", lambda: [*postgres_scripts(), *more])
        )
        return stack

    def upgrade(self, place: Place) -> tuple[int, int]:
        """The versions before and after."""
        done = upgrade(place, save_first=self.saved.append)
        return done.before, done.now

    def test_both(self) -> None:
        """What was there stays, and is saved before."""
        known = len(scripts())
        database = self.database()
        move(self.file, database, tell=silent)
        for place in (self.file, database):
            self.assertEqual(self.upgrade(place), (known, known))
            self.assertEqual(self.saved, [])
            with self.newer(INCOMPATIBLE):
                self.assertEqual(self.upgrade(place), (known, known + 1))
            self.assertEqual(self.saved, [known])
            self.assertEqual(self.pairs_of_newer(place), 1)
            error = self.assertRaises(StoreError, self.upgrade, place)
            self.assertIn("newer ctsd", error.reason)
            self.saved.clear()

    def pairs_of_newer(self, place: Place) -> int:
        """How many rows a store of a newer ctsd still has."""
        with self.newer(INCOMPATIBLE):
            return len(self.pairs(place))

    def test_not_saved(self) -> None:
        """When it can't be saved nothing happens."""
        database = self.database()
        move(self.file, database, tell=silent)

        def fail(there: int) -> None:
            raise StoreError("no room")

        for place in (self.file, database):
            with self.newer(COMPATIBLE):
                self.assertRaises(StoreError, upgrade, place, save_first=fail)
            self.assertEqual(place.versions()[0], len(scripts()))

    def test_wrong_file(self) -> None:
        """When a file of the schema fails, nothing has happened."""
        database = self.database()
        move(self.file, database, tell=silent)
        for place in (self.file, database):
            with self.newer(COMPATIBLE, "CREATE TABLE scans (x INTEGER);"):
                self.assertRaises(StoreError, self.upgrade, place)
            self.assertEqual(place.versions()[0], len(scripts()))

    def test_living(self) -> None:
        """Nodes may go on where the new schema is compatible; else they have to be stopped."""
        database = self.database()
        database.make()
        alive = "INSERT INTO nodes VALUES ('n1', 1, 'n1#1', extract(epoch FROM now()) + 60)"
        self.sql(alive)
        with self.newer(INCOMPATIBLE):
            self.assertIn(
                "used by n1", self.assertRaises(StoreError, self.upgrade, database).reason
            )
            self.sql("DELETE FROM nodes")

            def start(there: int) -> None:
                self.sql(alive)

            error = self.assertRaises(StoreError, upgrade, database, save_first=start)
            self.assertIn("used by n1", error.reason)
        self.assertEqual(database.versions()[0], len(scripts()))
        with self.newer(COMPATIBLE):
            self.assertEqual(self.upgrade(database)[1], len(scripts()) + 1)

    def test_nothing_there(self) -> None:
        """Where there is no store yet there is nothing to bring up."""
        for place in (self.new_file(), self.database()):
            error = self.assertRaises(StoreError, self.upgrade, place)
            self.assertIn("ctsd store init", error.reason)
            place.make()
            self.assertEqual(self.upgrade(place), (len(scripts()), len(scripts())))


class NastyCopyTests(_Places, unittest.TestCase):
    """What one store gives back, its copy on the other engine does, too."""

    skip = MISSING or None

    async def opened(self, store: Any, work: Any) -> None:
        """Open a store, work with it, close it."""
        store.open()
        store.startService()
        try:
            await work(store)
        finally:
            await store.stopService()

    def sqlite(self, path: Path) -> SQLiteStore:
        """A store in a file."""
        from twisted.internet import reactor

        return SQLiteStore(reactor=reactor, path=path, max_bytes=2**40, retention_secs=1e9)

    def postgres(self) -> PostgresStore:
        """The store in the database."""
        from twisted.internet import reactor

        server = Shared.server()
        target = Target.parse(server.url(self.name), server.password)
        return PostgresStore(reactor=reactor, target=target, max_bytes=2**40, retention_secs=1e9)

    async def test_there_and_back(self) -> None:
        """SQLite, PostgreSQL, SQLite: nasty values, and any."""
        values = examples() + some(30)
        path = self.dir / "nasty.sqlite"

        async def write(store: Any) -> None:
            await fill(store, values)
            while store._queue._remembered or store._queue._in_hand:
                await pause(0.01)

        async def read(store: Any) -> None:
            await check(self, store, values)

        await self.opened(self.sqlite(path), write)
        database = self.database()
        await self.moved(SQLitePlace(path), database)
        await self.opened(self.postgres(), read)
        await self.moved(database, self.new_file())
        await self.opened(self.sqlite(self.dir / "copy.sqlite"), read)

    def moved(self, source: Place, target: Place) -> Deferred[list[Copied]]:
        """Copy in a thread."""
        return deferToThread(move, source, target, tell=silent)


class PooledTests(_Places, SynchronousTestCase):
    """Through pgbouncer, where a session is somebody else's after each transaction."""

    skip = MISSING or POOLER_MISSING or None

    def test_there_and_back(self) -> None:
        """Made, brought up, copied, saved."""
        server = Shared.server()
        pooler = Pooler(server)
        self.addCleanup(pooler.stop)
        self.database()
        database = place_of(
            url=server.url(self.name, port=pooler.port),
            password=server.password,
            directory=self.dir,
        )
        put(self.path, [(b"%d" % number, b"", 0.1) for number in range(3000)])
        self.assertEqual(database.make(), 0)
        there = move(self.file, database, tell=silent)
        self.assertEqual(move(database, self.new_file(), tell=silent), there)
        save(database, self.dir / "save", tell=silent)
        self.assertEqual(len(self.pairs(SQLitePlace(self.dir / "save"))), 3001)


class StartTests(SynchronousTestCase):
    """What a daemon does with a store of an older version at its start."""

    def setUp(self) -> None:
        """A file of the first version, with something in it."""
        self.dir = Path(self.mktemp()).absolute()
        self.path = self.dir / "var" / "ctsd.sqlite"
        self.path.parent.mkdir(parents=True)
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            bring_up(connection, scripts()[:1])
        put(self.path, [(b"name", b"value", 5.0)])
        (self.dir / "ctsd.toml").write_text("")
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def open(self, *, ours: bool = True) -> None:
        """As the daemon."""
        settings = load(self.dir / "ctsd.toml", environ={})
        open_store(settings, reactor=Clock(), ours=ours)

    def saved(self) -> list[Path]:
        """The files in which it is as it was."""
        return sorted(self.path.parent.glob("store-version-*"))

    def test_file(self) -> None:
        """A file is brought up, and is whole beside it as it was; the log says where."""
        self.open()
        [saved] = self.saved()
        for path, version in ((self.path, len(scripts())), (saved, 1)):
            self.assertEqual(SQLitePlace(path).versions()[0], version)
            with contextlib.closing(sqlite3.connect(path)) as connection:
                self.assertEqual(len(connection.execute("SELECT * FROM pairs").fetchall()), 1)
        self.assertEqual([event["saved"] for event in self.events], [saved])
        self.open()
        self.assertEqual(self.saved(), [saved])

    def test_not_saved(self) -> None:
        """When it can't be saved the daemon does not start, and nothing has happened."""
        for error in (OSError(28, "No space left on device"), StoreError("the disk is full")):
            with patch.object(moving, "back_up", side_effect=error):
                stop = self.assertRaises(SystemExit, self.open)
            self.assertIn(str(error.args[-1]), str(stop.code))
            self.assertEqual(SQLitePlace(self.path).versions()[0], 1)

    def test_not_ours(self) -> None:
        """Beside others, who may use it, a process leaves it as it is."""
        stop = self.assertRaises(SystemExit, self.open, ours=False)
        self.assertIn("ctsd store upgrade", str(stop.code))
        self.assertEqual(SQLitePlace(self.path).versions()[0], 1)

    def test_new(self) -> None:
        """Where nothing is, there is nothing to save."""
        self.path.unlink()
        self.open()
        self.assertEqual(self.saved(), [])
        self.assertEqual(SQLitePlace(self.path).versions()[0], len(scripts()))
