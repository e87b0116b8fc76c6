"""C{ctsd store copy}: everything from one store into another one."""

from __future__ import annotations

import argparse
from pathlib import Path

from ctsd.commands.store_places import Progress, locked, place_at
from ctsd.commands.world import Commands, World, become_owner, shown, table
from ctsd.config.settings import Settings
from ctsd.store.moving import move


def add_copy(verbs: Commands, common: argparse.ArgumentParser) -> None:
    """Add C{copy}."""
    copy = verbs.add_parser(
        "copy",
        parents=[common],
        help="copy everything from a store that nobody uses into an empty one",
    )
    copy.add_argument("source", metavar="FROM", help="as store.url: sqlite:... or postgresql://...")
    copy.add_argument("target", metavar="TO", help="likewise; nothing may be there")
    for name, what in (("from", "FROM"), ("to", "TO")):
        copy.add_argument(
            f"--{name}-password-file",
            metavar="FILE",
            type=Path,
            help=f"the password for {what}, instead of store.password",
        )
    copy.set_defaults(run=_copy)


def _copy(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    source = place_at(
        "FROM",
        arguments.source,
        "--from-password-file",
        arguments.from_password_file,
        settings,
        world,
    )
    target = place_at(
        "TO", arguments.target, "--to-password-file", arguments.to_password_file, settings, world
    )
    become_owner(settings.state_dir)
    if target.file is not None and target.file.parent == settings.state_dir:
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    progress = Progress(world)
    with locked(settings, source, target):
        try:
            copied = move(source, target, tell=progress)
        finally:
            progress.over()
    rows = [("TABLE", "ROWS", "DIGEST")]
    rows += [(one.table, str(one.rows), one.digest) for one in copied]
    for line in table(rows):
        world.say(line)
    world.say(
        shown(f"{target.name} holds what {source.name} holds: read back, and equal in every table")
    )
    return 0
