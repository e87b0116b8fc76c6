"""The store on PostgreSQL: the suite of all stores, and what is PostgreSQL's own."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial import unittest

from ctsd.errors import StoreError
from ctsd.model import PASSWORD, Artifact, EncodedHit, Ended, Outcome, Search
from ctsd.store import aging_steps, node_steps, scan_steps, threat_steps
from ctsd.store.choose import make_store
from ctsd.store.postgres import PostgresStore
from ctsd.store.postgres_clock import ServerClock
from ctsd.store.postgres_runner import Limits, begin_write, render
from ctsd.store.postgres_schema import check_server
from ctsd.store.postgres_steps import used_bytes
from ctsd.store.postgres_target import Target
from ctsd.store.steps import Change, Query, Steps, bound
from ctsd.store.threat_rows_postgres import read_threats, read_version
from tests.postgres import MISSING, POOLER_MISSING, Pooler, Server, Shared, free_port
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
    ended_scan,
    pause,
    scan,
    threat,
)
from tests.store_suite_nodes import NodeSuite
from tests.test_config import write_key_pair
from tests.test_store import TABLES


class PostgresFixture:
    """L{PostgresStore} on a real server, with dates that the test moves."""

    def __init__(
        self, server: Server | None = None, database: str = "", url: str = "", **options: Any
    ) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.server = server or Shared.server()
        self.made = not database
        self.database = database or self.server.new_database()
        self._monotonic = 0.0
        self._wall = START
        self.store = PostgresStore(
            reactor=reactor,
            target=Target.parse(url or self.server.url(self.database), self.server.password),
            retention_secs=RETENTION,
            **(
                {
                    "max_bytes": 2**40,
                    "wall_clock": lambda: self._wall,
                    "monotonic": lambda: self._monotonic,
                }
                | options
            ),
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
            await pause(0.002)

    def ruin(self) -> None:
        """Take the tables away."""
        for table in TABLES:
            self.server.run(self.database, f"DROP TABLE {table}")

    def other(self) -> PostgresFixture:
        """Another store on the same database, as in another process."""
        return PostgresFixture(self.server, self.database)

    def lock(self) -> Callable[[], None]:
        """Another process in the middle of a write; called, it ends."""
        connection = self.server.connect(self.database)
        connection.cursor().execute(
            "BEGIN; SELECT value FROM numbers WHERE name = 'writer' FOR UPDATE"
        )
        ended: Callable[[], None] = connection.close
        return ended

    async def limit_reads(self) -> int:
        """Let only so many reads wait."""
        pool = self.store._pool
        while len(pool._idle) < pool.size:
            await pause(0.002)
        pool.max_waiting = 2
        return 2 + pool.size

    async def close(self) -> None:
        """Stop, and remove the database."""
        await self.store.stopService()
        if self.made:
            self.server.drop_database(self.database)


class _OnPostgres:
    skip = MISSING or None

    def setUp(self) -> None:
        """A fresh store."""
        self.fixture: StoreFixture = PostgresFixture()

    def tearDown(self) -> Deferred[None]:
        """Give it back."""
        return Deferred.fromCoroutine(self.fixture.close())


class PostgresScanTests(_OnPostgres, ScanSuite, unittest.TestCase):
    """Scans on PostgreSQL."""


class PostgresNodeTests(_OnPostgres, NodeSuite, unittest.TestCase):
    """Nodes on PostgreSQL."""


class PostgresThreatTests(_OnPostgres, ThreatSuite, unittest.TestCase):
    """Threats on PostgreSQL."""


class PostgresAgeTests(_OnPostgres, AgeSuite, ClockJumpSuite, unittest.TestCase):
    """What goes with time, on PostgreSQL."""


class PostgresSharedTests(_OnPostgres, SharedSuite, unittest.TestCase):
    """What is shared, on PostgreSQL."""


class PostgresGroupTests(_OnPostgres, GroupSuite, unittest.TestCase):
    """Writes in groups, and beside other processes, on PostgreSQL."""


class PostgresBrokenTests(_OnPostgres, BrokenSuite, unittest.TestCase):
    """PostgreSQL without its tables."""


class PostgresTests(_OnPostgres, unittest.TestCase):
    """What only a real server can show."""

    fixture: Any

    @property
    def store(self) -> PostgresStore:
        """The store under test."""
        store: PostgresStore = self.fixture.store
        return store

    async def refuses(self, waiting: Any, error: type[Exception] = StoreError) -> Any:
        """What a Deferred fails with."""
        try:
            await waiting
        except error as raised:
            return raised
        raise AssertionError("an error was expected")

    def sql(self, sql: str, params: Any = None) -> list[Any]:
        """Run a statement on a connection of its own."""
        rows: list[Any] = self.fixture.server.run(self.fixture.database, sql, params)
        return rows

    def terminate(self) -> int:
        """End every session of the store's; how many that were."""
        return len(
            self.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )

    async def test_lost_while_idle(self) -> None:
        """Sessions that the server ends are replaced before anybody notices."""
        await self.store.promise(scan=scan(1))
        for number in range(2, 5):
            self.assertGreater(self.terminate(), 0)
            await self.store.promise(scan=scan(number))
            self.assertTrue(await self.store.load(scan_id=scan(number).id))
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_lost_in_the_middle(self) -> None:
        """A write whose session ends before the commit is written all the same, once."""
        end = self.fixture.lock()
        promised = self.store.promise(scan=scan(1))
        counted = self.store.count(name="n", window_secs=60)
        await pause(0.1)
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        await pause(0.1)
        end()
        await promised
        self.assertEqual(await counted, 1)
        self.assertTrue(await self.store.load(scan_id=scan(1).id))

    async def test_lost_at_the_end(self) -> None:
        """
        When nobody can say whether a write was committed, it fails, and is not done again: it
        could count twice.
        """
        self.sql(
            "CREATE SEQUENCE tries;"
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " PERFORM nextval('tries'), pg_terminate_backend(pg_backend_pid());"
            " RETURN NULL; END $$;"
            "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON counters DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION die()"
        )
        error = await self.refuses(self.store.count(name="n", window_secs=60))
        self.assertIn("does not answer", error.reason)
        self.assertEqual(self.sql("SELECT last_value, is_called FROM tries"), [(1, True)])
        await self.store.promise(scan=scan(1))

    async def test_frozen_writer(self) -> None:
        """A process that freezes while nobody else may write is thrown out by the server."""
        other = self.fixture.server.connect(self.fixture.database)
        self.addCleanup(other.close)
        limits = Limits(statement_secs=5, idle_secs=0.3)
        other.cursor().execute(begin_write(limits, durable=True) + "SELECT 1")
        started = time.monotonic()
        await self.store.promise(scan=scan(1))
        self.assertGreater(time.monotonic() - started, 0.2)

    async def test_no_session_state(self) -> None:
        """Nothing of a transaction stays in its session, which may be another's next."""
        await self.store.promise(scan=scan(1))
        self.store.remember(scan=ended_scan(2))
        await self.fixture.written()
        await self.store.load(scan_id=scan(1).id)
        for session in self.store._pool._idle:
            rows = await session.runQuery("SELECT name FROM pg_settings WHERE source = 'session'")
            self.assertEqual(rows, [])
            self.assertEqual(await session.runQuery("SELECT name FROM pg_prepared_statements"), [])

    async def test_deadlock(self) -> None:
        """A transaction that PostgreSQL undoes because of another is done again."""
        tries: list[int] = []

        def steps() -> Steps[int]:
            tries.append(1)
            if len(tries) < 3:
                yield Query("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$")
            rows = yield Query("SELECT 7")
            value: int = rows[0][0]
            return value

        self.assertEqual(await self.store._write(steps), 7)
        self.assertEqual(len(tries), 3)

    async def test_values_in_no_error(self) -> None:
        """What an error says, and what lies behind it, holds no value of ours."""

        def steps() -> Steps[None]:
            yield Change(
                "INSERT INTO numbers (name, value) VALUES (?, ?)", ("secret-word", "secret-word")
            )

        error = await self.refuses(self.store._write(steps))
        self.assertIn("InvalidTextRepresentation", error.reason)
        self.assertNotIn("secret-word", error.reason)
        self.assertNotIn("LINE", str(error.__cause__))

    async def test_read_only(self) -> None:
        """Reads can't write, whatever their steps say."""

        def steps() -> Steps[None]:
            yield Change("DELETE FROM secrets")

        self.assertIn("read-only", (await self.refuses(self.store._read(steps))).reason)
        self.assertEqual(self.sql("SELECT count(*) FROM secrets"), [(1,)])

    async def test_passwords_bytes(self) -> None:
        """A password is in no row."""
        secret = Artifact(PASSWORD, "hunter2-secret")
        await self.store.promise(scan=scan(1, digest=b"", artifact=secret))
        self.store.remember(scan=ended_scan(2, digest=b"digest-of-secret", artifact=secret))
        await self.fixture.written()
        for table in TABLES:
            rows = "".join(map(str, self.sql(f"SELECT t::text FROM {table} t")))
            for needle in (b"hunter2", b"digest-of-secret"):
                self.assertNotIn(needle.hex(), rows)
                self.assertNotIn(needle.decode(), rows)

    async def test_durable(self) -> None:
        """What somebody waits for is flushed by the server; answered scans need not be."""

        def level() -> Steps[str]:
            rows = yield Query("SHOW synchronous_commit")
            found: str = rows[0][0]
            return found

        self.assertEqual(await self.store._write(level), "on")
        self.assertEqual(await self.store._write(level, durable=False), "off")

    async def test_plans(self) -> None:
        """Questions that are asked often go by an index."""
        for steps, index in (
            (bound(scan_steps.find, "", b"d"), "scans_unfinished"),
            (bound(scan_steps.due, START, "me", 9), "scans_wake"),
            (bound(scan_steps.load, "x"), "scans_pkey"),
            (bound(node_steps.held, "me"), "searches_held"),
            (bound(scan_steps.unfinished, START, START, 9), "scans_new"),
            (bound(threat_steps.threats, 0, 9), "threats_pkey"),
            (bound(threat_steps.twins, [b"t"]), "threats_twin"),
            (bound(aging_steps.finished_scans, START, 9), "scans_age"),
            (bound(aging_steps.expired_threats, START, 9), "threats_expire"),
        ):
            sql, params = render(next(steps()))
            rows = self.sql(f"SET enable_seqscan = off; EXPLAIN {sql}", params)
            self.assertIn(index, " ".join(row[0] for row in rows))

    async def test_reads_for_index(self) -> None:
        """Reading the threats for an index holds up no write, and sees one state."""
        await self.store.add(threats=[threat("A"), threat("B")])
        import_id = await self.store.open_import()
        await self.store.add_to_import(import_id=import_id, threats=[threat("C")])
        access = self.store._target.as_secret()
        version = read_version(access)
        self.assertEqual(version, await self.store.version())
        reading = read_threats(access)
        names = [next(reading).name]
        await self.store.finish_import(import_id=import_id)
        await self.store.delete(threat_ids=[each.id for each in await self.store.threats(limit=2)])
        names += [each.name for each in reading]
        self.assertEqual(names, ["A", "B"])
        self.assertEqual(list(read_threats(access)), await self.store.threats())
        self.assertEqual(read_version(access), version + 3)
        self.fixture.ruin()
        error = self.assertRaises(StoreError, read_version, access)
        self.assertNotIn(self.fixture.server.password, str(error))

    async def test_disk_full(self) -> None:
        """A full disk is a StoreError and makes the store full, until a write works."""
        self.store._probe_secs = 0.05
        self.sql(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE SQLSTATE '53100'; END $$;"
            "CREATE TRIGGER full_disk BEFORE INSERT ON scans EXECUTE FUNCTION full_disk();"
            "CREATE TRIGGER full_disk BEFORE INSERT ON secrets EXECUTE FUNCTION full_disk()"
        )
        error = await self.refuses(self.store.promise(scan=scan(1)))
        self.assertIn("disk is full", error.reason)
        self.assertIn("disk is full", self.store.full())
        await pause(0.2)
        self.assertIn("disk is full", self.store.full())
        self.sql("DROP TRIGGER full_disk ON scans; DROP TRIGGER full_disk ON secrets")
        for _ in range(100):
            if not self.store.full():
                break
            await pause(0.02)
        self.assertEqual(self.store.full(), "")
        await self.store.promise(scan=scan(1))

    async def test_used_bytes(self) -> None:
        """What was removed is not counted, although the files are as large as before."""
        hit = EncodedHit(b"x" * 1500)
        for number in range(600):
            outcome = Outcome(Ended.FOUND, (hit,))
            self.store.remember(
                scan=ended_scan(number, searches=(Search(searcher="a", outcome=outcome),))
            )
        await self.fixture.written()
        files = await self.store._read(bound(used_bytes, 2**40))
        before = await self.store._read(bound(used_bytes, 0))
        self.assertGreater(before, 600 * 1500)
        self.assertLess(before, 1.5 * files)
        self.sql("DELETE FROM scans WHERE id > %s", (scan(299).id,))
        after = await self.store._read(bound(used_bytes, 0))
        self.assertLess(after, 0.55 * before)
        self.assertEqual(await self.store._read(bound(used_bytes, 2**40)), files)


class Proxy:
    """A TCP proxy that can go silent, as a cut cable does, and refuse, as a dead host does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.silent = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            self._pairs.append((client, server))
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if not self.silent:
                    target.sendall(data)
        except OSError:
            pass
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End every connection."""
        for pair in self._pairs:
            for each in pair:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        self._pairs.clear()

    def close(self) -> None:
        """End."""
        # Wakes the thread that accepts; closing alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


class AwayTests(unittest.TestCase):
    """A server that can't be reached any more."""

    skip = MISSING or None

    def setUp(self) -> None:
        """A store that reaches its server through a proxy, and soon loses patience."""
        server = Shared.server()
        self.database = server.new_database()
        self.proxy = Proxy(server.port)
        self.fixture = PostgresFixture(
            server,
            self.database,
            server.url(self.database, port=self.proxy.port),
            monotonic=time.monotonic,
            wall_clock=None,
            wait_secs=0.5,
            connect_secs=0.3,
            answer_secs=0.4,
            stop_secs=0.5,
            limits=Limits(statement_secs=0.3, idle_secs=0.3),
        )
        self.store = self.fixture.store

    async def tearDown(self) -> None:
        """Give all back."""
        await self.fixture.close()
        self.proxy.close()
        Shared.server().drop_database(self.database)

    async def failure(self, waiting: Any) -> StoreError:
        """What a Deferred fails with."""
        try:
            await waiting
        except StoreError as error:
            return error
        raise AssertionError("a StoreError was expected")

    async def works_again(self) -> None:
        """Wait until promises are made again."""
        for number in range(1000, 1200):
            try:
                await self.store.promise(scan=scan(number))
                return
            except StoreError:
                await pause(0.05)
        raise AssertionError("it does not come back")

    async def blocked(self, secs: float) -> float:
        """The longest that the reactor did nothing else within so many seconds."""
        longest, last, end = 0.0, time.monotonic(), time.monotonic() + secs
        while last < end:
            await pause(0.01)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        return longest

    async def test_cut(self) -> None:
        """A connection that is cut is made anew, and nobody notices."""
        for number in range(3):
            await self.store.promise(scan=scan(number))
            self.proxy.cut()
            self.assertTrue(await self.store.load(scan_id=scan(number).id))

    async def test_silent(self) -> None:
        """
        When nothing comes back any more, who waits is told so soon, the reactor never stands
        still, and later ones need not wait at all.
        """
        await self.store.promise(scan=scan(1))
        self.proxy.silent = True
        started = time.monotonic()
        promised = self.failure(self.store.promise(scan=scan(2)))
        reading = self.failure(self.store.load(scan_id=scan(1).id))
        promised, reading = (Deferred.fromCoroutine(each) for each in (promised, reading))
        self.assertLess(await self.blocked(1.5), 1.0)
        for error in (await promised, await reading):
            self.assertIn("does not answer", error.reason)
            self.assertGreater(error.retry_secs, 0)
        await pause(0.5)
        started = time.monotonic()
        error = await self.failure(self.store.load(scan_id=scan(1).id))
        self.assertIn("does not answer", error.reason)
        self.assertLess(time.monotonic() - started, 0.4)
        self.proxy.silent = False
        self.proxy.cut()
        await self.works_again()
        self.assertTrue(await self.store.load(scan_id=scan(1).id))

    async def test_short(self) -> None:
        """Who asks while the server starts anew waits a little, and is answered."""
        await self.store.promise(scan=scan(1))
        self.proxy.silent = True
        self.proxy.cut()
        promised = self.store.promise(scan=scan(2))
        await pause(0.1)
        self.proxy.silent = False
        self.proxy.cut()
        await promised

    async def test_stop(self) -> None:
        """Stopping ends, also then."""
        await self.store.promise(scan=scan(1))
        self.proxy.silent = True
        failures = [self.store.promise(scan=scan(n)) for n in range(2, 9)]
        for each in failures:
            each.addErrback(lambda failure: None)
        started = time.monotonic()
        await self.store.stopService()
        self.assertLess(time.monotonic() - started, 2)
        for each in failures:
            self.assertTrue(each.called)

    async def test_time(self) -> None:
        """Store time is the server's, and asking for it does not wait for it."""
        before = time.time()
        self.assertLess(abs(self.store.now() - before), 1)
        self.proxy.silent = True
        self.assertLess(abs(self.store.now() - time.time()), 1)


class OpenTests(unittest.SynchronousTestCase):
    """What stops the start, in one line each."""

    skip = MISSING or None

    def setUp(self) -> None:
        """A database."""
        self.server = Shared.server()
        self.database = self.server.new_database()
        self.addCleanup(self.server.drop_database, self.database)

    def open(self, url: str = "", password: str = "", **more: Any) -> PostgresStore:
        """Open a store, without starting it."""
        store = PostgresStore(
            reactor=Clock(),
            target=Target.parse(
                url or self.server.url(self.database), password or self.server.password
            ),
            max_bytes=1,
            retention_secs=1.0,
            **more,
        )
        store.open()
        return store

    def refused(self, url: str = "", password: str = "", **more: Any) -> str:
        """Why a store can't be opened."""
        reason = self.assertRaises(StoreError, self.open, url, password, **more).reason
        self.assertNotIn("\n", reason)
        self.assertNotIn(self.server.password, reason)
        return reason

    def user(self, name: str, *grants: str) -> str:
        """The URL for a new user with these rights."""
        self.server.run(self.database, f"CREATE USER {name} PASSWORD 'pw'")
        self.addCleanup(self.server.run, "postgres", f"DROP USER {name}")
        self.addCleanup(self.server.run, self.database, f"DROP OWNED BY {name}")
        for grant in grants:
            self.server.run(self.database, f"GRANT {grant} TO {name}")
        return self.server.url(self.database).replace("ctsd@", f"{name}@")

    def test_again(self) -> None:
        """A store that is there is opened as it is."""
        self.assertEqual(self.open().secret(), self.open().secret())

    def test_socket(self) -> None:
        """The server may be reached through a socket."""
        where = f"host={self.server.directory}&port={self.server.port}"
        self.open(f"postgresql://ctsd@/{self.database}?{where}")

    def test_at_once(self) -> None:
        """Many that start at the same time make one schema."""
        secrets: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: secrets.append(self.open().secret())) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(secrets), 8)
        self.assertEqual(len(set(secrets)), 1)

    def test_newer(self) -> None:
        """A newer schema is worked with when it says that this is possible, else refused."""
        self.open()
        self.server.run(self.database, "UPDATE numbers SET value = 99 WHERE name = 'schema'")
        self.open()
        self.server.run(self.database, "UPDATE numbers SET value = 98 WHERE name = 'oldest'")
        self.assertIn("newer ctsd", self.refused())
        self.assertEqual(
            self.server.run(self.database, "SELECT value FROM numbers WHERE name = 'schema'"),
            [(99,)],
        )

    def test_something_else(self) -> None:
        """A database of something else is refused and not touched."""
        self.server.run(self.database, "CREATE TABLE threats (x int)")
        self.assertIn("DuplicateTable", self.refused())
        self.assertEqual(
            self.server.run(self.database, "SELECT to_regclass('scans') IS NULL"), [(True,)]
        )

    def test_lax_server(self) -> None:
        """A server that may lose what it has committed is told of, by a daemon."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.open()
        self.assertEqual(events, [])
        self.open(warn=True)
        settings = [event["setting"] for event in events]
        self.assertEqual(settings, ["fsync = off", "full_page_writes = off"])

    def test_old_server(self) -> None:
        """An old PostgreSQL is refused, naming both versions."""
        check_server(130000)
        error = self.assertRaises(StoreError, check_server, 120017)
        self.assertIn("PostgreSQL 12 is too old: 13", error.reason)

    def test_password(self) -> None:
        """A wrong password is told without telling it."""
        reason = self.refused(password="wrong-pw")
        self.assertIn("password authentication failed", reason)
        self.assertNotIn("wrong-pw", reason)

    def test_nobody_there(self) -> None:
        """A port at which nobody listens."""
        port = free_port()
        self.assertIn(f"port {port}", self.refused(self.server.url(self.database, port=port)))

    def test_no_database(self) -> None:
        """A database that there is not."""
        self.assertIn("does not exist", self.refused(self.server.url("nowhere")))

    def test_read_only_user(self) -> None:
        """A user who may only read."""
        self.open()
        url = self.user("reader", "SELECT ON ALL TABLES IN SCHEMA public")
        self.assertIn("permission denied for table numbers", self.refused(url, "pw"))

    def test_no_rights(self) -> None:
        """A user who may make no tables."""
        self.server.run(self.database, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        self.assertIn("permission denied for schema public", self.refused(self.user("no"), "pw"))

    def test_enough_rights(self) -> None:
        """A user who may read and write needs no more once the tables are there."""
        self.open()
        self.open(
            self.user("writer", "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"),
            "pw",
        )

    def test_read_only_database(self) -> None:
        """A server that takes no writes, as a standby."""
        self.open()
        self.server.run(
            self.database,
            f"ALTER DATABASE {self.database} SET default_transaction_read_only = on",
        )
        self.assertIn("read-only", self.refused())

    def test_no_packages(self) -> None:
        """Without its packages, PostgreSQL is refused, and SQLite is not."""
        path = Path(self.mktemp())
        path.mkdir()
        hidden = {name: None for name in sys.modules if name.startswith("ctsd.store.postgres")}
        options: dict[str, Any] = {
            "reactor": Clock(),
            "password": "",
            "directory": path,
            "max_bytes": 1,
            "retention_secs": 1.0,
            "threat_secs": 1.0,
        }
        with patch.dict(sys.modules, {**hidden, "txpostgres": None, "psycopg2": None}):
            error = self.assertRaises(
                StoreError, make_store, url=self.server.url(self.database), **options
            )
            make_store(url="sqlite:x.sqlite", **options).open()
        self.assertIn("pip install 'ctsd[postgres]'", error.reason)


class ServerClockTests(unittest.SynchronousTestCase):
    """The server's time, by our clock."""

    def test_measured(self) -> None:
        """An answer counts in the middle of its way, and not at all when that took long."""
        ours = Clock()
        clock = ServerClock(monotonic=ours.seconds)
        self.assertEqual(clock.now(), 0.0)
        clock.measured(1000.0, sent=-2.0, received=0.0)
        self.assertEqual(clock.now(), 1001.0)
        ours.advance(5)
        self.assertEqual(clock.now(), 1006.0)
        clock.measured(3000.0, sent=4.0, received=5.0)
        self.assertEqual(clock.now(), 1006.0)
        clock.measured(2000.0, sent=4.9, received=5.0)
        self.assertAlmostEqual(clock.now(), 2000.05)


class TlsTests(unittest.TestCase):
    """TLS to PostgreSQL."""

    skip = MISSING or None

    def setUp(self) -> None:
        """A server with a certificate for C{localhost}."""
        directory = Path(self.mktemp())
        directory.mkdir()
        key, self.certificate = write_key_pair(directory, name="localhost")
        self.certificate = self.certificate.absolute()
        self.server = Server(key=key, certificate=self.certificate)
        self.addCleanup(self.server.remove)
        self.database = self.server.new_database()

    async def test_verified(self) -> None:
        """The server's certificate is verified, by the store and at its opening."""
        more = f"?sslmode=verify-full&sslrootcert={self.certificate}"
        url = self.server.url(self.database, host="localhost", more=more)
        fixture = PostgresFixture(self.server, self.database, url)
        await fixture.store.promise(scan=scan(1))
        rows = self.server.run(
            "postgres",
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            " WHERE datname = %s",
            (self.database,),
        )
        self.assertEqual(rows, [(True,)])
        await fixture.close()
        wrong = self.server.url(self.database, more=more)
        error = self.assertRaises(StoreError, PostgresFixture, self.server, self.database, wrong)
        self.assertIn("does not match", error.reason)


class _BehindPooler:
    """A store behind pgbouncer, where every transaction may be another session's."""

    skip = MISSING or POOLER_MISSING or None

    def setUp(self) -> None:
        """A pooler with few sessions, and a store of many."""
        self.server = Shared.server()
        self.database = self.server.new_database()
        self.pooler = Pooler(self.server)
        url = self.server.url(self.database, port=self.pooler.port)
        self.fixture: Any = PostgresFixture(self.server, self.database, url)

    async def tearDown(self) -> None:
        """Give all back."""
        await self.fixture.close()
        self.pooler.stop()
        self.server.drop_database(self.database)


class PooledScanTests(_BehindPooler, ScanSuite, unittest.TestCase):
    """Scans behind a pooler."""


class PooledNodeTests(_BehindPooler, NodeSuite, unittest.TestCase):
    """Nodes behind a pooler."""


class PooledThreatTests(_BehindPooler, ThreatSuite, unittest.TestCase):
    """Threats behind a pooler."""


class PooledSharedTests(_BehindPooler, SharedSuite, unittest.TestCase):
    """What is shared, behind a pooler."""
