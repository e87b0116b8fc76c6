"""C{ctsd store check}: whether the database is whole and can be worked with, and what it holds."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ctsd.commands.store_places import add_place, place_for
from ctsd.commands.world import Commands, World, become_owner, shown
from ctsd.config.settings import Settings
from ctsd.store.backup import read_contents
from ctsd.store.copying import Place

if TYPE_CHECKING:
    from ctsd.store.postgres_check import Looked


def add_check(verbs: Commands, common: argparse.ArgumentParser) -> None:
    """Add C{check}."""
    check = verbs.add_parser(
        "check",
        parents=[common],
        help="say whether the database is whole and can be worked with, and what it holds",
    )
    check.add_argument(
        "file", metavar="FILE", type=Path, nargs="?", help="a backup instead of the database"
    )
    add_place(check)
    check.set_defaults(run=_check)


def _check(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    path: Path | None = None
    place: Place | None = None
    if arguments.file is not None:
        path = arguments.file.absolute()
    else:
        place = place_for(arguments, settings, world)
        path = place.file
    become_owner(settings.state_dir)
    if path is not None:
        return _check_file(path, world)
    assert place is not None
    return _check_postgres(place, world)


def _check_file(path: Path, world: World) -> int:
    contents = read_contents(path)
    for problem in contents.problems:
        world.complain(f"{path}: {problem}")
    if contents.problems:
        return 1
    world.say(shown(f"{path}: whole, {contents.size_bytes} bytes"))
    world.say(f"schema   {_schema(contents.schema, contents.needed, contents.known)}")
    _say_counts(contents.by_hand, contents.found, contents.scans, world)
    return 0 if contents.needed <= contents.known else 1


def _check_postgres(place: Place, world: World) -> int:
    from ctsd.store.copy_postgres import PostgresPlace
    from ctsd.store.postgres_check import look

    assert isinstance(place, PostgresPlace)
    looked = look(place.target, wall_clock=world.now)
    world.say(shown(f"{place.name}: version {looked.server}"))
    world.say(f"schema   {_schema(looked.schema, looked.needed, looked.known)}")
    world.say(f"TLS      {_tls(looked)}")
    world.say(f"commits  {_commits(looked)}")
    world.say(f"rights   {'enough' if not looked.missing else 'not enough'}")
    world.say(f"clock    {abs(looked.ahead_secs):.3f} s {_ahead(looked)} this machine's")
    if looked.nodes is not None:
        world.say(shown(f"nodes    {', '.join(looked.nodes) or 'none'}"))
        _say_counts(looked.by_hand, looked.found, looked.scans, world)
    for line in _warnings(looked, place.target.is_remote):
        world.complain(f"warning: {line}")
    errors = list(_errors(looked))
    for line in errors:
        world.complain(f"error: {line}")
    return 1 if errors else 0


def _tls(looked: Looked) -> str:
    if not looked.tls:
        return "none"
    verified = {
        "verify-full": "the server's certificate and name were verified",
        "verify-ca": "the server's certificate was verified, but not its name",
    }
    return f"{looked.tls}; {verified.get(looked.verified, 'nothing was verified')}"


def _commits(looked: Looked) -> str:
    local = ", ".join(looked.lax) or "on the server's disk before they are answered"
    standbys = f"synchronous standbys {looked.standbys}" if looked.standbys else "on no standby"
    return f"{local}; {standbys}"


def _ahead(looked: Looked) -> str:
    return "ahead of" if looked.ahead_secs > 0 else "behind"


def _warnings(looked: Looked, remote: bool) -> Iterator[str]:
    for setting in looked.lax:
        yield f"{setting}: what was promised may not survive the server's power loss"
    if remote and not looked.tls:
        yield "the connection is not encrypted: say sslmode=verify-full"
    elif remote and looked.verified != "verify-full":
        yield f"sslmode={looked.verified} does not notice a server in between: say verify-full"
    if 0 < looked.schema < looked.known:
        yield "the daemon of this version does not start before ctsd store upgrade"


def _errors(looked: Looked) -> Iterator[str]:
    if not looked.schema:
        yield "there are no tables yet: say ctsd store init, or start the daemon"
    if looked.needed > looked.known:
        yield "this ctsd is too old for it"
    if looked.read_only:
        yield "nothing can be written there: it is a standby, or read-only by its settings"
    for each in looked.missing:
        yield f"the user has no {each}"


def _say_counts(by_hand: int, found: int, scans: Mapping[str, int], world: World) -> None:
    world.say(f"threats  {by_hand} by hand, {found} found by searchers")
    counted = ", ".join(f"{number} {state}" for state, number in sorted(scans.items()))
    world.say(f"scans    {counted or 'none'}")


def _schema(there: int, needed: int, known: int) -> str:
    if not there:
        return "none"
    if needed > known:
        return f"version {there}, for a ctsd that knows {needed}; this one knows up to {known}"
    if there > known:
        return f"version {there}, of a newer ctsd; this one can work with it"
    if there < known:
        return f"version {there}; ctsd store upgrade makes it {known}"
    return f"version {there}"
