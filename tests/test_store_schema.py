"""The numbered files of the schema, and what an older or newer ctsd makes of a database."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctsd.errors import StoreError
from ctsd.store import postgres, sqlite, sqlite_schema
from ctsd.store.postgres_runner import Limits
from ctsd.store.postgres_schema import bring_up as bring_up_postgres
from ctsd.store.postgres_schema import connected
from ctsd.store.postgres_schema import scripts as postgres_scripts
from ctsd.store.postgres_target import Target
from ctsd.store.schema_files import oldest
from ctsd.store.sqlite_schema import bring_up, make_schema, needed_version, schema_version, scripts
from tests.postgres import MISSING, Shared

LIMITS = Limits(statement_secs=5, idle_secs=5)
COMPATIBLE = "-- compatible: yes\nCREATE TABLE added (x INTEGER);\n"
INCOMPATIBLE = "CREATE TABLE changed (x INTEGER);\n"


class FilesTests(SynchronousTestCase):
    """The files that ship."""

    def test_same_steps(self) -> None:
        """Both engines have the same versions, each as compatible as the other."""
        self.assertEqual(len(scripts()), len(postgres_scripts()))
        for count in range(1, len(scripts()) + 1):
            self.assertEqual(oldest(scripts()[:count]), oldest(postgres_scripts()[:count]))

    def test_numbers(self) -> None:
        """The files are numbered without gaps, and each but the first says if it is compatible."""
        directory = Path(sqlite_schema.__file__).parent / "schema"
        for engine in ("sqlite", "postgres"):
            names = sorted(path.name for path in directory.glob(f"{engine}_*"))
            self.assertEqual(
                names, [f"{engine}_{number:04}.sql" for number in range(1, len(names) + 1)]
            )
            for name in names[1:]:
                self.assertRegex(
                    (directory / name).read_text(), re.compile("^-- compatible: (yes|no)$", re.M)
                )

    def test_oldest(self) -> None:
        """A ctsd has to know the newest version that was not compatible."""
        first = scripts()[0]
        self.assertEqual(oldest([first]), 1)
        self.assertEqual(oldest([first, COMPATIBLE, COMPATIBLE]), 1)
        self.assertEqual(oldest([first, COMPATIBLE, INCOMPATIBLE]), 3)
        self.assertEqual(oldest([first, INCOMPATIBLE, COMPATIBLE]), 2)


class SQLiteVersionTests(SynchronousTestCase):
    """A file that an older or a newer ctsd has made."""

    def setUp(self) -> None:
        """A file with the schema that we know."""
        self.path = Path(self.mktemp()).absolute()
        self.open()

    def open(self, *more: str) -> None:
        """Open the store as a ctsd that also knows these files."""
        with patch.object(sqlite, "scripts", lambda: [*scripts(), *more]):
            sqlite.SQLiteStore(
                reactor=Clock(), path=self.path, max_bytes=1, retention_secs=1.0
            ).open()

    def bring_up(self, *more: str) -> int:
        """Bring it up as that ctsd does; which version there was."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            return bring_up(connection, [*scripts(), *more])

    def refused(self, *more: str) -> str:
        """Why that ctsd does not open it."""
        return self.assertRaises(StoreError, self.open, *more).reason

    def test_older(self) -> None:
        """An older schema is left alone, and what helps is said."""
        known = len(scripts())
        why = self.refused(COMPATIBLE)
        self.assertIn(f"is version {known}, and this ctsd needs version {known + 1}", why)
        self.assertIn("ctsd store upgrade", why)
        self.assertEqual(self.bring_up(COMPATIBLE), known)
        self.open(COMPATIBLE)
        self.assertEqual(self.bring_up(COMPATIBLE), known + 1)

    def test_newer(self) -> None:
        """A newer schema is worked with where that is compatible, and never touched."""
        self.bring_up(COMPATIBLE)
        self.open()
        self.bring_up(COMPATIBLE, INCOMPATIBLE)
        known = len(scripts())
        for knows in ((), (COMPATIBLE,)):
            self.assertIn(f"knows up to {known + len(knows)}", self.refused(*knows))
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            self.assertEqual(schema_version(connection), known + 2)
            self.assertEqual(needed_version(connection), known + 2)

    def test_made_before(self) -> None:
        """A newer schema that does not say who can work with it is refused."""
        self.bring_up(COMPATIBLE)
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("DELETE FROM numbers WHERE name = 'oldest'")
            self.assertRaises(StoreError, make_schema, connection, scripts())


class PostgresVersionTests(SynchronousTestCase):
    """The same of a database on PostgreSQL."""

    skip = MISSING or None

    def setUp(self) -> None:
        """A database with the schema that we know."""
        self.server = Shared.server()
        self.database = self.server.new_database()
        self.addCleanup(self.server.drop_database, self.database)
        self.target = Target.parse(self.server.url(self.database), self.server.password)
        self.open()

    def open(self, *more: str) -> None:
        """Open the store as a ctsd that also knows these files."""
        with patch.object(postgres, "scripts", lambda: [*postgres_scripts(), *more]):
            postgres.PostgresStore(
                reactor=Clock(), target=self.target, max_bytes=1, retention_secs=1.0
            ).open()

    def bring_up(self, *more: str) -> int:
        """Bring it up as that ctsd does; which version there was."""
        with connected(self.target) as connection, connection.cursor() as cursor:
            return bring_up_postgres(cursor, [*postgres_scripts(), *more], LIMITS)

    def refused(self, *more: str) -> str:
        """Why that ctsd does not open it."""
        return self.assertRaises(StoreError, self.open, *more).reason

    def number(self, name: str) -> Any:
        """One of the store's own numbers."""
        rows = self.server.run(self.database, "SELECT value FROM numbers WHERE name = %s", (name,))
        return rows[0][0]

    def test_older(self) -> None:
        """An older schema is left alone, and what helps is said."""
        known = len(postgres_scripts())
        self.assertIn("ctsd store upgrade", self.refused(COMPATIBLE))
        self.assertEqual(self.number("schema"), known)
        self.assertEqual(self.bring_up(COMPATIBLE), known)
        self.open(COMPATIBLE)

    def test_newer(self) -> None:
        """A newer schema is worked with where that is compatible, and never touched."""
        before = self.number("oldest")
        self.bring_up(COMPATIBLE)
        self.assertEqual(self.number("oldest"), before)
        self.open()
        self.bring_up(COMPATIBLE, INCOMPATIBLE)
        known = len(postgres_scripts())
        for knows in ((), (COMPATIBLE,)):
            self.assertIn(f"knows up to {known + len(knows)}", self.refused(*knows))
        self.assertEqual(self.number("schema"), known + 2)
        self.assertEqual(self.number("oldest"), known + 2)

    def test_fails(self) -> None:
        """When a file fails, nothing has happened."""
        self.assertRaises(StoreError, self.bring_up, COMPATIBLE, "CREATE TABLE scans (x INTEGER);")
        self.assertEqual(self.number("schema"), len(postgres_scripts()))
        self.assertEqual(
            self.server.run(self.database, "SELECT to_regclass('added') IS NULL"), [(True,)]
        )
