"""C{ctsd store}: the database made, looked at, copied, saved, brought up, and the way back."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

from ctsd.commands.store_check import add_check
from ctsd.commands.store_copy import add_copy
from ctsd.commands.store_places import Progress, add_place, locked, place_for
from ctsd.commands.world import Commands, World, become_owner, shown
from ctsd.config.settings import Settings
from ctsd.errors import CTSDError
from ctsd.store.backup import restore
from ctsd.store.moving import Versions, backup_name, save, upgrade
from ctsd.store.places import lock_state


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add C{store} and what can follow it."""
    parser = commands.add_parser(
        "store", help="the database: init, upgrade, check, copy, backup, restore"
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    init = verbs.add_parser(
        "init", parents=[common], help="make the tables, where there are none yet"
    )
    add_place(init)
    init.set_defaults(run=_init)

    upgrade_ = verbs.add_parser(
        "upgrade", parents=[common], help="bring the tables to what this ctsd needs"
    )
    add_place(upgrade_)
    saved = upgrade_.add_mutually_exclusive_group()
    saved.add_argument(
        "--backup",
        metavar="FILE",
        type=Path,
        help="a new file for the backup that is made first (default: one in state_dir)",
    )
    saved.add_argument("--no-backup", action="store_true", help="make none")
    upgrade_.set_defaults(run=_upgrade)

    add_check(verbs, common)
    add_copy(verbs, common)

    backup = verbs.add_parser(
        "backup", parents=[common], help="copy the database to a file, also while daemons run"
    )
    backup.add_argument("file", metavar="FILE", type=Path, help="a new file")
    backup.set_defaults(run=_backup)

    restore_ = verbs.add_parser(
        "restore", parents=[common], help="put a backup in the place of an SQLite database"
    )
    restore_.add_argument("file", metavar="FILE", type=Path, help="what backup has written")
    restore_.set_defaults(run=_restore)


def _init(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    place = place_for(arguments, settings, world)
    become_owner(settings.state_dir)
    before = place.make()
    if before:
        world.say(shown(f"{place.name}: is there already, schema version {before}"))
    else:
        world.say(shown(f"{place.name}: made, schema version {place.versions()[0]}"))
    return 0


def _upgrade(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    place = place_for(arguments, settings, world)
    given: Path | None = arguments.backup.absolute() if arguments.backup else None
    become_owner(settings.state_dir)
    progress = Progress(world)

    def save_first(there: int) -> None:
        if arguments.no_backup:
            return
        target = given or settings.state_dir / backup_name(there, world.now())
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            save(place, target, tell=progress)
        except (CTSDError, OSError) as error:
            raise CTSDError(
                f"nothing was changed, for there could be no backup (--no-backup goes without):"
                f" {error}"
            ) from error
        finally:
            progress.over()
        world.say(shown(f"the backup of version {there} is {target}"))

    with locked(settings, place):
        versions = upgrade(place, save_first=save_first)
    world.say(shown(f"{place.name}: {_upgraded(versions)}"))
    return 0


def _upgraded(versions: Versions) -> str:
    if versions.before >= versions.now:
        return f"nothing to do, schema version {versions.now}"
    return f"schema version {versions.before} has become {versions.now}"


def _backup(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    target: Path = arguments.file.absolute()
    place = place_for(arguments, settings, world)
    become_owner(settings.state_dir)
    progress = Progress(world)
    try:
        size = save(place, target, tell=progress)
    finally:
        progress.over()
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
