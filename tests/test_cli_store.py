"""C{ctsd store}: init, upgrade, check and copy, on both engines."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ctsd.store import backup, copy_postgres, copy_sqlite, copying, moving, postgres_check
from ctsd.store.copying import layout
from ctsd.store.places import lock_state
from ctsd.store.postgres_schema import scripts as postgres_scripts
from ctsd.store.sqlite_schema import scripts
from tests.commands import CommandCase
from tests.postgres import MISSING, Shared
from tests.test_store_schema import COMPATIBLE

KNOWN = len(scripts())


def newer() -> Any:
    """As a ctsd does that knows one more file of the schema."""
    stack = contextlib.ExitStack()
    for module in (backup, moving, copy_sqlite, copying):
        stack.enter_context(patch.object(module, "scripts", lambda: [*scripts(), COMPATIBLE]))
    for module in (copy_postgres, postgres_check):
        stack.enter_context(
            patch.object(module, "scripts", lambda: [*postgres_scripts(), COMPATIBLE])
        )
    return stack


class SQLiteTests(CommandCase):
    """The default: a file in C{state_dir}."""

    def setUp(self) -> None:
        """Where it is."""
        super().setUp()
        self.database = self.dir / "var" / "ctsd.sqlite"

    def test_init(self) -> None:
        """It is made once."""
        self.assertEqual(
            self.succeed("store", "init"), f"{self.database}: made, schema version {KNOWN}\n"
        )
        self.assertEqual(self.database.stat().st_mode & 0o777, 0o600)
        self.assertIn("is there already", self.succeed("store", "init"))
        self.assertIn("whole", self.succeed("store", "check"))
        self.database.write_bytes(b"no database, but long enough " * 100)
        self.assertFails("store", "init", told="ctsd.sqlite: ")

    def test_upgrade(self) -> None:
        """A backup is made first, and its name is said."""
        self.assertFails("store", "upgrade", told="ctsd store init")
        self.succeed("store", "init")
        self.assertIn("nothing to do", self.succeed("store", "upgrade"))
        with newer():
            self.assertFails("store", "init", told="ctsd store upgrade")
            said = self.succeed("store", "upgrade").splitlines()
        saved = self.dir / "var" / f"store-version-{KNOWN}-20270115T080000Z.sqlite"
        self.assertEqual(
            said,
            [
                f"the backup of version {KNOWN} is {saved}",
                f"{self.database}: schema version {KNOWN} has become {KNOWN + 1}",
            ],
        )
        self.assertIn("whole", self.succeed("store", "check", str(saved)))
        self.assertIn(f"version {KNOWN + 1}, of a newer", self.succeed("store", "check"))
        self.succeed("store", "restore", str(saved))
        self.assertIn(f"version {KNOWN}\n", self.succeed("store", "check"))

    def test_upgrade_without_backup(self) -> None:
        """Where no backup can be made nothing happens, unless somebody says so."""
        self.succeed("store", "init")
        (self.dir / "there").write_text("mine")
        with newer():
            there = str(self.dir / "there")
            self.assertFails("store", "upgrade", "--backup", there, told="is there already")
            self.assertIn("--no-backup", self.err)
            self.assertFails("store", "upgrade", "--backup", "/none/x", told="No such file")
            self.assertIn(f"version {KNOWN}; ctsd store upgrade", self.succeed("store", "check"))
            said = self.succeed("store", "upgrade", "--no-backup")
            self.assertIn("has become", said)
            self.assertNotIn("the backup of", said)

    def test_daemon_runs(self) -> None:
        """Nothing is brought up or copied under a running daemon."""
        self.succeed("store", "init")
        lock = lock_state(self.dir / "var")
        self.addCleanup(os.close, lock)
        self.assertFails("store", "upgrade", told="another ctsd")
        self.assertFails("store", "copy", "sqlite:ctsd.sqlite", "sqlite:x", told="another ctsd")
        elsewhere = f"sqlite:{self.dir}/copy"
        self.assertFails("store", "copy", "sqlite:ctsd.sqlite", elsewhere, told="another ctsd")
        self.database.rename(self.dir / "far")
        self.config.write_text(f"store.url = 'sqlite:{self.dir}/far'")
        self.assertFails("store", "upgrade", told="another ctsd")
        self.assertFails("store", "copy", f"sqlite:{self.dir}/far", elsewhere, told="another ctsd")

    def test_copy(self) -> None:
        """Each table is told with what proves it."""
        self.succeed("store", "init")
        said = self.succeed("store", "copy", "sqlite:ctsd.sqlite", "sqlite:other.sqlite")
        lines = said.splitlines()
        self.assertEqual(lines[0].split(), ["TABLE", "ROWS", "DIGEST"])
        self.assertEqual(
            [line.split()[0] for line in lines[1:-1]], [table.name for table in layout(KNOWN)]
        )
        self.assertEqual(
            lines[-1],
            f"{self.dir}/var/other.sqlite holds what {self.database} holds: read back, and equal"
            " in every table",
        )
        self.assertFails(
            "store", "copy", "sqlite:ctsd.sqlite", "sqlite:other.sqlite", told="there already"
        )

    def test_progress(self) -> None:
        """On a terminal there is a line that counts, and is gone at the end."""
        self.succeed("store", "init")
        with contextlib.closing(sqlite3.connect(self.database)) as connection, connection:
            rows = [(b"%d" % number, b"", 0.0) for number in range(2000)]
            connection.executemany("INSERT INTO pairs VALUES (?, ?, ?)", rows)
        self.terminal = True
        self.assertEqual(self.run_command("store", "copy", "sqlite:ctsd.sqlite", "sqlite:x"), 0)
        self.assertIn("\rpairs: 2000 rows copied\x1b[K", self.err)
        self.assertTrue(self.err.endswith("\r\x1b[K"))
        self.assertEqual(self.err.count("\n"), 0)

    def test_wrong_arguments(self) -> None:
        """Each is told by its name, and no text of it."""
        for arguments, told in (
            (("x", "sqlite:y"), "FROM: expected"),
            (("sqlite:y", "postgresql://me:s3cret@host/db"), "TO: expected no password"),
            (("sqlite:y", "postgresql://host"), "TO: expected a database"),
        ):
            self.assertFails("store", "copy", *arguments, told=told)
            self.assertNotIn("s3cret", self.err)
        self.assertFails(
            "store", "init", "--password-file", str(self.dir / "none"), told="--password-file: "
        )
        self.assertFails("store", "check", "--url", "mysql:x", told="--url: expected")


class PostgresTests(CommandCase):
    """A database on PostgreSQL."""

    skip = MISSING or None

    def setUp(self) -> None:
        """An empty database, and the file with its password."""
        super().setUp()
        self.server = Shared.server()
        self.name = self.server.new_database()
        self.addCleanup(self.server.drop_database, self.name)
        (self.dir / "password").write_text(f"{self.server.password}\n")
        self.url = self.server.url(self.name)
        self.configure(self.url)

    def configure(self, url: str) -> None:
        """Have the store there."""
        self.config.write_text(
            f"searchers.async = []\n[store]\nurl = '{url}'\npassword = {{ file = 'password' }}\n"
        )

    def sql(self, sql: str) -> list[Any]:
        """Ask the database."""
        return self.server.run(self.name, sql)

    def test_init(self) -> None:
        """It is made once."""
        self.assertEqual(self.run_command("store", "check"), 1)
        self.assertIn("error: there are no tables yet", self.err)
        self.assertIn(f"database {self.name}: made, schema", self.succeed("store", "init"))
        self.assertIn("is there already", self.succeed("store", "init"))

    def test_check(self) -> None:
        """Each line says one thing; what is lax is a warning."""
        self.succeed("store", "init")
        self.assertEqual(self.run_command("store", "check"), 0)
        found = dict(line.split(None, 1) for line in self.out.splitlines()[1:])
        self.assertRegex(self.out.splitlines()[0], rf"database {self.name}: version \d+")
        clock = found.pop("clock")
        # Ours is the world's, which stands still.
        self.assertRegex(clock, r"[\d.]+ s (behind|ahead of) this machine's")
        self.assertGreater(float(clock.split()[0]), 1000)
        self.assertEqual(
            found,
            {
                "schema": f"version {KNOWN}",
                "TLS": "none",
                "commits": "fsync = off, full_page_writes = off; on no standby",
                "rights": "enough",
                "nodes": "none",
                "threats": "0 by hand, 0 found by searchers",
                "scans": "none",
            },
        )
        self.assertEqual(
            [line.partition(" = ")[0] for line in self.err.splitlines()],
            ["ctsd: warning: fsync", "ctsd: warning: full_page_writes"],
        )

    def user(self, name: str, *grants: str) -> tuple[str, ...]:
        """The options for a new user with these rights."""
        self.sql(f"CREATE USER {name} PASSWORD 'pw'")
        self.addCleanup(self.server.run, "postgres", f"DROP USER {name}")
        self.addCleanup(self.sql, f"DROP OWNED BY {name}")
        for grant in grants:
            self.sql(f"GRANT {grant} TO {name}")
        (self.dir / "pw").write_text("pw")
        url = self.url.replace("ctsd@", f"{name}@")
        return ("--url", url, "--password-file", str(self.dir / "pw"))

    def test_rights(self) -> None:
        """What a user lacks is said, right by right."""
        self.succeed("store", "init")
        options = self.user("half", "SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public")
        self.assertEqual(self.run_command("store", "check", *options), 1)
        self.assertIn("rights   not enough", self.out)
        self.assertIn("threats  0", self.out)
        self.assertIn("error: the user has no DELETE on scans\n", self.err)
        self.assertNotIn("INSERT", self.err)
        options = self.user("stranger")
        self.assertFails("store", "check", *options, told="permission denied for table numbers")
        self.sql("GRANT DELETE ON ALL TABLES IN SCHEMA public TO half")
        (self.dir / "pw").write_text("pw")
        half = ("--url", self.url.replace("ctsd@", "half@"), "--password-file", f"{self.dir}/pw")
        self.assertEqual(self.run_command("store", "check", *half), 0)

    def test_cannot_be_asked(self) -> None:
        """Without an answer there is one line, and status 1."""
        self.assertFails(
            "store", "check", "--url", "postgresql://ctsd@127.0.0.1:1/x", told="127.0.0.1:1"
        )
        (self.dir / "pw").write_text("wr0ng")
        self.assertFails(
            "store", "check", "--password-file", str(self.dir / "pw"), told="authentication failed"
        )
        self.assertNotIn("wr0ng", self.err)

    def test_read_only(self) -> None:
        """A database that takes no writes is an error."""
        self.succeed("store", "init")
        self.sql(f"ALTER DATABASE {self.name} SET default_transaction_read_only = on")
        self.assertEqual(self.run_command("store", "check"), 1)
        self.assertIn("error: nothing can be written there", self.err)

    def test_upgrade(self) -> None:
        """The backup is a file that can be copied back."""
        self.succeed("store", "init")
        self.sql("INSERT INTO pairs VALUES ('name', 'value', 5)")
        with newer():
            self.assertEqual(self.run_command("store", "check"), 0)
            self.assertIn("warning: the daemon of this version does not start before", self.err)
            said = self.succeed("store", "upgrade").splitlines()
        saved = Path(said[0].rpartition(" ")[2])
        self.assertEqual(saved.parent, self.dir / "var")
        self.assertEqual(saved.stat().st_mode & 0o777, 0o600)
        self.assertIn(f"schema version {KNOWN} has become {KNOWN + 1}", said[1])
        other = self.server.new_database()
        self.addCleanup(self.server.drop_database, other)
        self.succeed("store", "copy", f"sqlite:{saved}", self.server.url(other))
        self.assertEqual(
            self.server.run(other, "SELECT encode(value, 'escape') FROM pairs"), [("value",)]
        )

    def test_no_backup(self) -> None:
        """Where no backup can be made nothing happens."""
        self.succeed("store", "init")
        with newer():
            self.assertFails("store", "upgrade", "--backup", "/none/x", told="No such file")
            self.assertIn("nothing was changed", self.err)
            self.assertIn("; ctsd store upgrade makes", self.checked())

    def checked(self) -> str:
        """What C{check} says, warnings apart."""
        self.assertEqual(self.run_command("store", "check"), 0)
        return self.out

    def test_copy(self) -> None:
        """From SQLite, with what the configuration of SQLite knows; and back."""
        (self.dir / "ctsd.toml").write_text(
            "searchers.async = []\nstore.password = { file = 'password' }\n"
        )
        self.succeed("store", "init")
        with contextlib.closing(sqlite3.connect(self.dir / "var" / "ctsd.sqlite")) as connection:
            connection.execute("INSERT INTO pairs VALUES (x'00', x'ff', 1.5)")
            connection.commit()
        there = self.succeed("store", "copy", "sqlite:ctsd.sqlite", self.url).splitlines()
        self.assertEqual(self.sql("SELECT encode(name, 'hex'), expires FROM pairs"), [("00", 1.5)])
        self.assertFails("store", "copy", "sqlite:ctsd.sqlite", self.url, told="is not empty")
        back = self.succeed("store", "copy", self.url, "sqlite:back.sqlite").splitlines()
        self.assertEqual(there[:-1], back[:-1])

    def test_backup(self) -> None:
        """A backup is a file, also of a database on PostgreSQL."""
        self.succeed("store", "init")
        said = self.succeed("store", "backup", str(self.dir / "saved"))
        self.assertIn(f"{self.dir}/saved: ", said)
        self.assertIn("whole", self.succeed("store", "check", str(self.dir / "saved")))
        self.assertFails("store", "restore", str(self.dir / "saved"), told="store.url")

    def test_password_is_nowhere(self) -> None:
        """No command tells the password, whatever happens."""
        for arguments in (
            ("init",),
            ("check",),
            ("copy", self.url, "sqlite:x"),
            ("copy", self.url, self.url),
            ("upgrade",),
            ("check", "--url", self.url.replace(self.name, "none")),
        ):
            self.run_command("store", *arguments)
            self.assertNotIn(self.server.password, self.out + self.err)
        for path in (self.dir / "var").rglob("*"):
            self.assertNotIn(self.server.password.encode(), path.read_bytes())
