"""Copies of the database, the way back, and C{ctsd store}."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctsd.errors import StoreError
from ctsd.store import backup as backup_module
from ctsd.store.backup import back_up, read_contents, restore
from ctsd.store.places import lock_state, refuse_network
from ctsd.store.sqlite import SQLiteStore
from ctsd.store.sqlite_schema import scripts
from tests.commands import CommandCase


def make_database(path: Path) -> None:
    """A new one, as a daemon makes it."""
    SQLiteStore(reactor=Clock(), path=path, max_bytes=1 << 30, retention_secs=1e6).open()


@contextlib.contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that others see at once."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def put(path: Path, name: str) -> None:
    """Write something that L{names} finds again."""
    with connected(path) as connection:
        connection.execute("INSERT INTO pairs VALUES (?, x'', 0)", (name,))


def names(path: Path) -> list[str]:
    """What was L{put}, in order."""
    with connected(path) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM pairs ORDER BY name")]


def damage(path: Path) -> None:
    """Overwrite pages in the middle of a database."""
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xee" * 4096 * 8)


class BackupCase(SynchronousTestCase):
    """A database with one entry."""

    def setUp(self) -> None:
        """Make it."""
        self.dir = Path(self.mktemp()).absolute()
        self.database = self.dir / "var" / "ctsd.sqlite"
        make_database(self.database)
        put(self.database, "first")
        self.file = self.dir / "backup"

    def restored(self, file: Path | None = None) -> Path | None:
        """Restore a backup."""
        source = file or self.file
        with source.open("rb") as stream:
            return restore(stream, str(source), self.database, set_aside=".old")

    def here(self, directory: Path | None = None) -> list[str]:
        """The names in a directory."""
        return sorted(path.name for path in (directory or self.dir).iterdir())


class BackUpTests(BackupCase):
    """L{back_up}."""

    def refused(self, target: Path | None = None) -> str:
        """Why there is no backup; nothing is left of the attempt."""
        before = self.here()
        error = self.assertRaises(StoreError, back_up, self.database, target or self.file)
        self.assertEqual(self.here(), before)
        return str(error.reason)

    def test_one_file(self) -> None:
        """It is one whole file, for its owner alone, that needs nothing beside it."""
        umask = os.umask(0)
        self.addCleanup(os.umask, umask)
        self.assertEqual(back_up(self.database, self.file), self.file.stat().st_size)
        self.assertEqual(self.here(), ["backup", "var"])
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        self.assertEqual(names(self.file), ["first"])
        with connected(self.file) as connection:
            self.assertEqual(connection.execute("PRAGMA journal_mode").fetchone(), ("delete",))

    def test_what_is_in_the_log_alone(self) -> None:
        """What a daemon has committed, but only to its write-ahead log, is in it."""
        with connected(self.database) as daemon:
            daemon.execute("PRAGMA wal_autocheckpoint = 0")
            daemon.execute("INSERT INTO pairs VALUES ('second', x'', 0)")
            self.assertGreater(Path(f"{self.database}-wal").stat().st_size, 0)
            back_up(self.database, self.file)
        self.assertEqual(names(self.file), ["first", "second"])

    def test_while_others_write(self) -> None:
        """It shows one moment, however much is written meanwhile, and comes to an end."""
        self.patch(backup_module, "_PAGES", 1)
        with connected(self.database) as connection:
            rows = [(f"filler {number:05}", os.urandom(4096)) for number in range(500)]
            connection.executemany("INSERT INTO pairs VALUES (?, ?, 0)", rows)
        stop = threading.Event()
        written: list[int] = []

        def write() -> None:
            with connected(self.database) as connection:
                while not stop.is_set():
                    connection.execute("BEGIN IMMEDIATE")
                    for half in "ab":
                        connection.execute(
                            "INSERT INTO pairs VALUES (?, x'', 0)", (f"{half} {len(written)}",)
                        )
                    connection.execute("COMMIT")
                    written.append(1)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            while not written:
                pass
            before = len(written)
            back_up(self.database, self.file)
            after = len(written)
        finally:
            stop.set()
            writer.join()
        found = names(self.file)
        halves = [len([name for name in found if name.startswith(half)]) for half in "ab"]
        self.assertEqual(halves[0], halves[1])
        self.assertGreater(after, before)
        self.assertGreaterEqual(halves[0], before)
        self.assertLessEqual(halves[0], after)

    def test_existing(self) -> None:
        """A file that is there is not overwritten, nor is what a link names."""
        self.file.write_text("mine")
        self.assertIn("is there already", self.refused())
        self.assertEqual(self.file.read_text(), "mine")
        link = self.dir / "link"
        link.symlink_to(self.dir / "nowhere")
        self.assertIn("is there already", self.refused(link))

    def test_made_meanwhile(self) -> None:
        """Nor is one that somebody made while the copy was."""
        copied = backup_module._verified

        def verified(part: Path) -> Any:
            self.file.write_text("mine")
            return copied(part)

        self.patch(backup_module, "_verified", verified)
        self.assertRaises(StoreError, back_up, self.database, self.file)
        self.assertEqual(self.file.read_text(), "mine")
        self.assertEqual(self.here(), ["backup", "var"])

    def test_no_hard_links(self) -> None:
        """A file system without hard links is good enough."""

        def link(source: Path, target: Path) -> None:
            raise PermissionError(1, "Operation not permitted")

        self.patch(backup_module.os, "link", link)
        back_up(self.database, self.file)
        self.assertEqual(self.here(), ["backup", "var"])
        self.assertEqual(names(self.file), ["first"])

    def test_damaged(self) -> None:
        """Of a database that is damaged there is no backup."""
        self.assertEqual(len(names(self.database)), 1)
        with connected(self.database) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        damage(self.database)
        self.assertIn(str(self.database), self.refused())

    def test_no_database(self) -> None:
        """There is none, or something else, or one that nobody has begun to use."""
        self.assertRaises(FileNotFoundError, back_up, self.dir / "none", self.file)
        self.assertEqual(self.here(), ["var"])
        other = self.dir / "other"
        other.write_bytes(b"no database, but long enough " * 100)
        self.database = other
        self.assertIn("not a database", self.refused())
        other.write_bytes(b"")
        self.assertIn("there is no database", self.refused())
        with connected(other) as connection:
            connection.execute("CREATE TABLE t (x)")
        self.assertIn("database of something else", self.refused())

    def test_no_directory(self) -> None:
        """A directory that is not there."""
        self.assertRaises(FileNotFoundError, back_up, self.database, self.dir / "no" / "file")


class RestoreTests(BackupCase):
    """L{restore}."""

    def setUp(self) -> None:
        """Make a backup, then write on."""
        super().setUp()
        back_up(self.database, self.file)
        put(self.database, "second")

    def refused(self, file: Path | None = None) -> str:
        """Why nothing was restored; the database is as it was, and nothing lies about."""
        error = self.assertRaises(StoreError, self.restored, file)
        self.assertEqual(names(self.database), ["first", "second"])
        self.assertEqual(self.here(self.database.parent), ["ctsd.sqlite"])
        return str(error.reason)

    def test_back(self) -> None:
        """The database is the backup's, and the old one is whole beside it."""
        old = self.restored()
        self.assertEqual(old, self.database.with_name("ctsd.sqlite.old"))
        assert old is not None
        self.assertEqual(names(old), ["first", "second"])
        self.assertEqual(names(self.database), ["first"])
        self.assertEqual(self.database.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.here(self.database.parent), ["ctsd.sqlite", "ctsd.sqlite.old"])
        make_database(self.database)  # a daemon takes it
        self.assertEqual(names(self.database), ["first"])

    def test_after_a_crash(self) -> None:
        """What a crash has left in the log goes with the old database, not into the new one."""
        copy = self.dir / "crashed"
        with connected(self.database) as daemon:
            daemon.execute("PRAGMA wal_autocheckpoint = 0")
            daemon.execute("INSERT INTO pairs VALUES ('third', x'', 0)")
            copy.write_bytes(self.database.read_bytes())
            Path(f"{copy}-wal").write_bytes(Path(f"{self.database}-wal").read_bytes())
        self.database = copy
        old = self.restored()
        assert old is not None
        self.assertEqual(names(old), ["first", "second", "third"])
        self.assertEqual(names(copy), ["first"])

    def test_log_of_one_that_is_gone(self) -> None:
        """A log without its database does not get into the new one."""
        self.database.unlink()
        Path(f"{self.database}-wal").write_bytes(b"rest")
        self.assertIsNone(self.restored())
        self.assertEqual(names(self.database), ["first"])

    def test_damaged_database(self) -> None:
        """A database that is damaged gives way, with what is left of its log."""
        self.database.write_bytes(b"rubbish" * 1000)
        Path(f"{self.database}-wal").write_bytes(b"rest")
        old = self.restored()
        assert old is not None
        self.assertEqual(old.read_bytes()[:7], b"rubbish")
        self.assertEqual(Path(f"{old}-wal").read_bytes(), b"rest")
        self.assertEqual(names(self.database), ["first"])

    def test_damaged_backup(self) -> None:
        """A backup that is damaged, cut off, empty or something else is refused."""
        whole = self.file.read_bytes()
        damage(self.file)
        self.assertIn(str(self.file), self.refused())
        self.file.write_bytes(whole[: len(whole) // 2])
        self.assertIn(str(self.file), self.refused())
        self.file.write_bytes(b"")
        self.assertIn("is empty", self.refused())
        self.file.write_bytes(b"no database, but long enough " * 100)
        self.assertIn("not a database", self.refused())

    def test_newer(self) -> None:
        """A backup of a newer ctsd is refused."""
        with connected(self.file) as connection:
            connection.execute("UPDATE numbers SET value = 999 WHERE name IN ('schema', 'oldest')")
        self.assertIn("newer ctsd", self.refused())

    def test_newer_but_compatible(self) -> None:
        """A backup of a newer ctsd whose schema we can work with is taken."""
        with connected(self.file) as connection:
            connection.execute("UPDATE numbers SET value = 999 WHERE name = 'schema'")
        self.assertIsNotNone(self.restored())

    def test_in_use(self) -> None:
        """A database that another process has open is not taken away from it."""
        with connected(self.database) as other:
            other.execute("SELECT * FROM pairs").fetchall()
            error = self.assertRaises(StoreError, self.restored)
            self.assertIn("another process", error.reason)
            other.execute("INSERT INTO pairs VALUES ('third', x'', 0)")
        self.assertEqual(names(self.database), ["first", "second", "third"])

    def test_never_overwrites(self) -> None:
        """What has the name for the old one stays."""
        self.database.with_name("ctsd.sqlite.old").write_text("mine")
        error = self.assertRaises(StoreError, self.restored)
        self.assertIn("is there already", error.reason)
        self.assertEqual(names(self.database), ["first", "second"])


class ContentsTests(BackupCase):
    """L{read_contents}."""

    def test_counts(self) -> None:
        """Threats by who entered them, without unfinished imports; scans by state."""
        with connected(self.database) as connection:
            for number, (import_id, twin) in enumerate(
                [(0, b"t"), (0, None), (0, None), (1, b"t")], 1
            ):
                connection.execute(
                    "INSERT INTO threats VALUES (?, ?, 0, x'', x'', ?, NULL, 0, x'')",
                    (number, import_id, twin),
                )
            connection.execute("INSERT INTO imports VALUES (1, NULL, 1, 0, 0)")
            for number, state in enumerate(["open", "complete", "complete"]):
                connection.execute(
                    "INSERT INTO scans VALUES (?, '', ?, 0, 0, 0, x'', NULL, NULL, NULL)",
                    (f"{number}", state),
                )
        contents = read_contents(self.database)
        self.assertEqual((contents.by_hand, contents.found), (1, 2))
        self.assertEqual(contents.scans, {"open": 1, "complete": 2})
        self.assertEqual(contents.problems, ())
        self.assertEqual(contents.schema, contents.known)

    def test_damaged(self) -> None:
        """What is wrong with it."""
        with connected(self.database) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        damage(self.database)
        try:
            problems = read_contents(self.database).problems
        except StoreError as error:
            problems = (error.reason,)
        self.assertTrue(problems)


class PlacesTests(BackupCase):
    """Where a daemon may run."""

    def test_network(self) -> None:
        """Every path is looked at; the error names the one that is far away."""
        mounts = self.dir / "mountinfo"
        mounts.write_text(
            f"22 1 0:1 / / rw - ext4 /dev/sda rw\n"
            f"23 22 0:2 / {self.dir.resolve()}/var/spool rw - nfs4 host:/x rw\n"
        )
        refuse_network(self.dir, self.dir / "var", mounts=mounts)
        error = self.assertRaises(
            StoreError, refuse_network, self.dir, self.dir / "var" / "spool", mounts=mounts
        )
        self.assertIn("var/spool is on a network file system", error.reason)

    def test_lock(self) -> None:
        """One has it at a time."""
        lock = lock_state(self.dir)
        error = self.assertRaises(StoreError, lock_state, self.dir)
        self.assertIn("another ctsd", error.reason)
        os.close(lock)
        os.close(lock_state(self.dir))


class CommandTests(CommandCase):
    """C{ctsd store}."""

    def setUp(self) -> None:
        """Make a database where the configuration has it."""
        super().setUp()
        self.database = self.dir / "var" / "ctsd.sqlite"
        make_database(self.database)
        put(self.database, "first")
        self.file = self.dir / "backup"

    def test_backup_and_restore(self) -> None:
        """There and back; the old database's name is told, and its index is gone."""
        said = self.succeed("store", "backup", str(self.file))
        self.assertEqual(said, f"{self.file}: {self.file.stat().st_size} bytes\n")
        put(self.database, "second")
        index = self.dir / "var" / "index" / "threats"
        index.parent.mkdir()
        index.write_bytes(b"index")
        self.assertIn("whole", self.succeed("store", "check", str(self.file)))
        lines = self.succeed("store", "restore", str(self.file)).splitlines()
        old = Path(lines[1].removeprefix("the one before is "))
        self.assertEqual(old.name, "ctsd.sqlite.replaced-20270115T080000Z")
        self.assertEqual(names(old), ["first", "second"])
        self.assertEqual(names(self.database), ["first"])
        self.assertFalse(index.exists())

    def test_new_machine(self) -> None:
        """A backup makes a state_dir where there is none."""
        self.succeed("store", "backup", str(self.file))
        (self.dir / "var").rename(self.dir / "away")
        self.assertEqual(len(self.succeed("store", "restore", str(self.file)).splitlines()), 1)
        self.assertEqual(names(self.database), ["first"])
        self.assertEqual((self.dir / "var").stat().st_mode & 0o777, 0o700)

    def test_check(self) -> None:
        """What it found."""
        self.assertEqual(
            self.succeed("store", "check").splitlines(),
            [
                f"{self.database}: whole, {self.database.stat().st_size} bytes",
                f"schema   version {len(scripts())}",
                "threats  0 by hand, 0 found by searchers",
                "scans    none",
            ],
        )

    def test_check_schema(self) -> None:
        """A newer schema is an error unless we can work with it; an older one is not."""
        known = len(scripts())
        for schema, oldest, status, told in (
            (999, 999, 1, f"knows up to {known}"),
            (999, known, 0, "this one can work with it"),
            (0, 0, 0, "none"),
        ):
            with connected(self.database) as connection:
                connection.executemany(
                    "UPDATE numbers SET value = ? WHERE name = ?",
                    [(schema, "schema"), (oldest, "oldest")],
                )
            self.assertEqual(self.run_command("store", "check"), status)
            self.assertIn(told, self.out)

    def test_check_damaged(self) -> None:
        """Damage is said on standard error, with status 1."""
        with connected(self.database) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        damage(self.database)
        self.assertEqual(self.run_command("store", "check"), 1)
        self.assertEqual(self.out, "")
        self.assertIn(f"ctsd: {self.database}: ", self.err)

    def test_errors(self) -> None:
        """Each is one line, status 1."""
        nowhere = str(self.dir / "nowhere")
        self.file.write_text("mine")
        self.assertFails("store", "backup", str(self.file), told="is there already")
        self.assertFails("store", "backup", nowhere + "/x", told="No such file")
        self.assertFails("store", "restore", nowhere, told="No such file")
        self.assertFails("store", "restore", str(self.file), told="not a database")
        self.assertFails("store", "restore", str(self.dir), told="Is a directory")
        self.assertFails("store", "check", nowhere, told="No such file")
        self.assertFails("store", "restore", str(self.database), told="the database itself")
        self.assertEqual(names(self.database), ["first"])
        self.database.unlink()
        self.assertFails("store", "check", told="No such file")
        self.assertFails("store", "backup", nowhere, told="No such file")

    def test_no_backup(self) -> None:
        """A copy of a database with its log beside it is no backup: half of it would be lost."""
        self.succeed("store", "backup", str(self.file))
        Path(f"{self.file}-wal").write_bytes(b"log")
        self.assertFails("store", "restore", str(self.file), told="no backup")

    def test_daemon_runs(self) -> None:
        """Nothing is restored under a running daemon."""
        self.succeed("store", "backup", str(self.file))
        lock = lock_state(self.dir / "var")
        self.addCleanup(os.close, lock)
        self.assertFails("store", "restore", str(self.file), told="another ctsd")
