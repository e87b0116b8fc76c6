"""C{ctsd threats}: the local database by hand, beside the running daemon."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from ctsd.commands.threat_files import artifact_argument, expiry, property_argument, threat_of
from ctsd.commands.threats_import import import_threats, open_source
from ctsd.commands.world import Commands, World, become_owner, shown, table
from ctsd.config.settings import Settings
from ctsd.errors import CTSDError
from ctsd.interfaces.store import IThreatStore
from ctsd.model import JSON, Artifact, Threat
from ctsd.threat_lines import threat_line

#: A command's work with the open database; gives the exit status.
WithStore = Callable[[IThreatStore], Coroutine[Any, Any, int]]

_PAGE = 1000

#: No threat has a greater id: both engines count in 64 bits.
MAX_ID = 2**63 - 1


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add C{threats} and what can follow it."""
    parser = commands.add_parser("threats", help="the local database: threats by hand")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    add = verbs.add_parser("add", parents=[common], help="enter one threat")
    add.add_argument("--name", required=True, help="what it is called")
    add.add_argument(
        "--artifact",
        metavar="TYPE=VALUE",
        action="append",
        required=True,
        help="what it is found by, e.g. net.ip=192.0.2.7; may be repeated",
    )
    add.add_argument(
        "--property",
        metavar="TYPE:NAME=VALUE",
        action="append",
        default=[],
        help="what a hit shows, e.g. string:campaign=X; TYPE is string, number, uri, ip or "
        "lat_lng; may be repeated",
    )
    add.add_argument(
        "--expires", metavar="D", help="a date (2031-01-31), or a duration (12h, 30d, 2w)"
    )
    add.add_argument("--note", default="", help="for people; not part of a hit")
    add.set_defaults(run=_add)

    list_ = verbs.add_parser("list", parents=[common], help="one line for each threat")
    list_.add_argument("--after", metavar="ID", type=int, default=0, help="those above this id")
    list_.add_argument("--limit", metavar="N", type=_positive, default=1000, help="at most so many")
    list_.set_defaults(run=_list)

    show = verbs.add_parser("show", parents=[common], help="all about one threat")
    show.add_argument("id", metavar="ID", type=int)
    show.set_defaults(run=_show)

    delete = verbs.add_parser("delete", parents=[common], help="remove threats")
    delete.add_argument("ids", metavar="ID", type=int, nargs="+")
    delete.set_defaults(run=_delete)

    import_ = verbs.add_parser(
        "import", parents=[common], help="enter all threats of a file, or none"
    )
    import_.add_argument("file", metavar="FILE", help="JSON lines or CSV; - for standard input")
    import_.add_argument(
        "--format", choices=("jsonl", "csv"), help="when FILE's name does not tell"
    )
    import_.set_defaults(run=_import)

    export = verbs.add_parser(
        "export", parents=[common], help="write threats as JSON lines to standard output"
    )
    export.add_argument(
        "--all", action="store_true", help="also what searchers found, not only what people entered"
    )
    export.set_defaults(run=_export)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _with_store(settings: Settings, world: World, work: WithStore) -> int:
    """Open the database as its owner, work, close it."""

    async def whole(reactor: Any) -> int:
        become_owner(settings.state_dir)
        store, close = world.open_store(settings, reactor)
        try:
            return await work(store)
        finally:
            await close()

    return world.in_reactor(whole)


def _add(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    now = world.now()
    try:
        expires = expiry(arguments.expires, now=now) if arguments.expires else None
    except ValueError as error:
        raise CTSDError(f"--expires: {error}") from None
    threat = _checked(
        name=arguments.name,
        artifacts=_arguments(arguments.artifact, "--artifact", artifact_argument),
        properties=_arguments(arguments.property, "--property", property_argument),
        note=arguments.note,
        expires=expires,
    )

    async def add(store: IThreatStore) -> int:
        (threat_id,) = await store.add(threats=[threat])
        world.say(f"{threat_id}")
        return 0

    return _with_store(settings, world, add)


def _arguments(
    given: list[str], option: str, parse: Callable[[str], dict[str, JSON]]
) -> list[dict[str, JSON]]:
    parsed = []
    for text in given:
        try:
            parsed.append(parse(text))
        except ValueError as error:
            raise CTSDError(f"{option}: {error}") from None
    return parsed


def _checked(**parts: Any) -> Threat:
    try:
        return threat_of(**parts)
    except ValueError as error:
        raise CTSDError(str(error)) from None


def _list(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    if not _can_be(arguments.after):
        raise CTSDError(f"--after: expected an id from 0 to {MAX_ID}")

    async def show_all(store: IThreatStore) -> int:
        after, left = arguments.after, arguments.limit
        while left:
            page = await store.threats(after=after, limit=min(left, _PAGE))
            if not page:
                return 0
            for line in table([_row(threat) for threat in page]):
                world.say(line)
            after, left = page[-1].id, left - len(page)
        if await store.threats(after=after, limit=1):
            world.complain(f"there are more: ctsd threats list --after {after}")
        return 0

    return _with_store(settings, world, show_all)


def _row(threat: Threat) -> tuple[str, ...]:
    first = _artifact_text(threat.artifacts[0]) if threat.artifacts else ""
    more = f" (+{len(threat.artifacts) - 1})" if len(threat.artifacts) > 1 else ""
    return (
        str(threat.id),
        threat.searcher or "by hand",
        f"until {_date(threat.expires)}" if threat.expires is not None else "",
        _cut(threat.name, 40),
        _cut(first, 80) + more,
    )


def _artifact_text(artifact: Artifact) -> str:
    value = artifact.value
    return f"{artifact.type}={value if isinstance(value, str) else _as_json(value)}"


def _as_json(value: JSON) -> str:
    return json.dumps(value, ensure_ascii=False)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "\u2026"


def _date(secs: float) -> str:
    try:
        return datetime.fromtimestamp(secs, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{secs:.0f}"


def _can_be(threat_id: int) -> bool:
    return 0 <= threat_id <= MAX_ID


async def _threat(store: IThreatStore, threat_id: int) -> Threat | None:
    return await store.threat(threat_id=threat_id) if _can_be(threat_id) else None


def _show(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    async def show(store: IThreatStore) -> int:
        threat = await _threat(store, arguments.id)
        if threat is None:
            raise CTSDError(f"there is no threat {arguments.id}")
        lines = [
            f"id        {threat.id}",
            f"name      {threat.name}",
            f"from      {threat.searcher or 'by hand'}",
            f"entered   {_date(threat.created)}",
            f"expires   {_date(threat.expires) if threat.expires is not None else 'never'}",
        ]
        lines += [f"artifact  {_artifact_text(artifact)}" for artifact in threat.artifacts]
        for one in threat.properties:
            value = one.value if isinstance(one.value, str) else _as_json(one.value)
            lines.append(f"property  {one.type}:{one.name}={value}")
        if threat.note:
            lines.append(f"note      {threat.note}")
        for line in lines:
            world.say(shown(line))
        return 0

    return _with_store(settings, world, show)


def _delete(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    wanted = sorted(set(arguments.ids))

    async def delete(store: IThreatStore) -> int:
        missing = [one for one in wanted if await _threat(store, one) is None]
        if missing:
            raise CTSDError(f"there is no threat {missing[0]}; nothing was removed")
        world.say(f"{await store.delete(threat_ids=wanted)} removed")
        return 0

    return _with_store(settings, world, delete)


def _import(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    # The file is opened before we become somebody who may perhaps not read it.
    source = open_source(arguments.file, arguments.format, world)
    with source.stream:

        async def work(store: IThreatStore) -> int:
            return await import_threats(store, source, world)

        return _with_store(settings, world, work)


def _export(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    async def export(store: IThreatStore) -> int:
        after = 0
        while page := await store.threats(after=after, limit=_PAGE):
            for threat in page:
                if arguments.all or not threat.searcher:
                    world.say(threat_line(threat).decode("utf-8"))
            after = page[-1].id
        return 0

    return _with_store(settings, world, export)
