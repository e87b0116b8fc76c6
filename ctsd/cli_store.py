"""C{ctsd store}: a copy of the database, the way back, and whether it is whole."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

from ctsd._cli import Commands, World, become_owner, shown
from ctsd.config import Settings
from ctsd.errors import CTSDError
from ctsd.store.backup import Contents, back_up, read_contents, restore
from ctsd.store.places import lock_state


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add C{store} and what can follow it."""
    parser = commands.add_parser("store", help="the database: backup, restore, check")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    backup = verbs.add_parser(
        "backup", parents=[common], help="copy the database, also while the daemon runs"
    )
    backup.add_argument("file", metavar="FILE", type=Path, help="a new file")
    backup.set_defaults(run=_backup)

    restore_ = verbs.add_parser(
        "restore", parents=[common], help="put a backup in the database's place"
    )
    restore_.add_argument("file", metavar="FILE", type=Path, help="what backup has written")
    restore_.set_defaults(run=_restore)

    check = verbs.add_parser(
        "check", parents=[common], help="say whether the database is whole, and what it holds"
    )
    check.add_argument(
        "file", metavar="FILE", type=Path, nargs="?", help="a backup instead of the database"
    )
    check.set_defaults(run=_check)


def _backup(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    target: Path = arguments.file.absolute()
    become_owner(settings.state_dir)
    size = back_up(settings.store_path, target)
    world.say(shown(f"{target}: {size} bytes"))
    return 0


def _restore(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    source: Path = arguments.file
    database = settings.store_path
    # Opened before we become somebody who may perhaps not read it.
    with source.open("rb") as backup:
        _refuse_unfinished(source, database)
        become_owner(settings.state_dir)
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = lock_state(settings.state_dir)
        try:
            moment = datetime.fromtimestamp(world.now(), UTC)
            old = restore(
                backup, str(source), database, set_aside=f".replaced-{moment:%Y%m%dT%H%M%SZ}"
            )
            # It may tell of threats that this database does not know; the daemon makes a new one.
            settings.threat_index.unlink(missing_ok=True)
        finally:
            os.close(lock)
    world.say(shown(f"{database} is what {source} was"))
    if old is not None:
        world.say(shown(f"the one before is {old}"))
    return 0


def _refuse_unfinished(source: Path, database: Path) -> None:
    if database.exists() and source.samefile(database):
        raise CTSDError(f"{source} is the database itself")
    log = Path(f"{source}-wal")
    if log.exists() and log.stat().st_size:
        raise CTSDError(f"{source} is no backup: there is a log beside it, {log}")


def _check(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    path: Path = settings.store_path if arguments.file is None else arguments.file.absolute()
    become_owner(settings.state_dir)
    contents = read_contents(path)
    for problem in contents.problems:
        world.complain(f"{path}: {problem}")
    if contents.problems:
        return 1
    world.say(shown(f"{path}: whole, {contents.size_bytes} bytes"))
    world.say(f"schema   {_schema(contents)}")
    world.say(f"threats  {contents.by_hand} by hand, {contents.found} found by searchers")
    counted = ", ".join(f"{number} {state}" for state, number in sorted(contents.scans.items()))
    world.say(f"scans    {counted or 'none'}")
    return 0 if contents.schema <= contents.known else 1


def _schema(contents: Contents) -> str:
    if contents.schema > contents.known:
        return f"version {contents.schema}; this ctsd knows up to {contents.known}"
    if contents.schema < contents.known:
        return f"version {contents.schema}; the daemon's next start makes it {contents.known}"
    return f"version {contents.schema}"
