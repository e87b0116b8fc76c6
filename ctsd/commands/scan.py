"""C{ctsd scan}: asks searchers about one artifact, here and now, without a daemon."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from attrs import asdict

from ctsd.artifacts import SHAPES, is_empty, shaped
from ctsd.commands.threat_files import value_of
from ctsd.commands.world import Commands, World, become_owner, shown
from ctsd.config.settings import Settings
from ctsd.errors import CTSDError, UnknownArtifact
from ctsd.model import FILE, Artifact, Ended, File, Outcome

#: The exit status when a searcher could not be asked.
COULD_NOT_ASK = 3

_CHUNK_BYTES = 2**20


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add C{scan}."""
    parser = commands.add_parser(
        "scan",
        parents=[common],
        help="ask searchers about one artifact, here and now",
        epilog="Exit status: 0 all were asked, whatever they found; 3 one could not be asked.",
    )
    parser.add_argument("type", metavar="TYPE", help="an artifact type, e.g. net.ip")
    parser.add_argument(
        "value", metavar="VALUE", nargs="?", help="its value; - reads it from standard input"
    )
    parser.add_argument("--file", metavar="F", type=Path, help="the file that comes along")
    parser.add_argument("--searcher", metavar="S", help="this one alone")
    parser.add_argument("--json", action="store_true", help="the answer as JSON")
    parser.set_defaults(run=_scan)


def _scan(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    artifact = _artifact(arguments, world)

    async def scan(reactor: Any) -> int:
        become_owner(settings.state_dir)
        outcomes = await world.run_scan(
            reactor=reactor, settings=settings, artifact=artifact, searcher=arguments.searcher
        )
        if arguments.json:
            world.say(json.dumps(_as_json(artifact, outcomes), indent=2))
        else:
            _tell(outcomes, world)
        return 0 if all(outcome.good for _, outcome in outcomes) else COULD_NOT_ASK

    return world.in_reactor(scan)


def _artifact(arguments: argparse.Namespace, world: World) -> Artifact:
    """
    What is asked.

    :raises CTSDError: it is no artifact.
    """
    type: str = arguments.type
    if type not in SHAPES:
        raise CTSDError(f"{type}: no such artifact type")
    file = _read_file(arguments.file) if arguments.file else None
    text: str | None = arguments.value
    if text == "-":
        text = world.stdin.read().decode("utf-8", "surrogateescape")
        if type != FILE and "\n" not in text.rstrip("\n"):
            text = text.rstrip("\n")
    if text is None:
        if file is None:
            raise CTSDError("expected a VALUE or --file")
        text = file.name
    try:
        artifact = shaped(Artifact(type, value_of(type, text), file))
    except UnknownArtifact:
        raise CTSDError(f"VALUE: expected {SHAPES[type].value}") from None
    if file is None and is_empty(artifact):
        raise CTSDError("VALUE: is empty")
    return artifact


def _read_file(path: Path) -> File:
    hashes = [hashlib.md5(usedforsecurity=False), hashlib.sha1(usedforsecurity=False)]
    hashes.append(hashlib.sha256())
    size = 0
    with path.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            size += len(chunk)
            for each in hashes:
                each.update(chunk)
    md5, sha1, sha256 = (each.hexdigest() for each in hashes)
    return File(
        path=Path(os.path.abspath(path)),
        name=path.name[:255],
        size=size,
        md5=md5,
        sha1=sha1,
        sha256=sha256,
    )


def _as_json(artifact: Artifact, outcomes: list[tuple[str, Outcome]]) -> dict[str, Any]:
    searchers = []
    for name, outcome in outcomes:
        one: dict[str, Any] = {"searcher": name, "ended": outcome.ended.value}
        if outcome.hits:
            one["hits"] = [json.loads(hit) for hit in outcome.hits]
        if not outcome.good:
            one["reason"] = outcome.reason
        if outcome.suppressed:
            one["suppressed"] = [asdict(each) for each in outcome.suppressed]
            one["suppressed_more"] = outcome.suppressed_more
        searchers.append(one)
    return {"type": artifact.type, "searchers": searchers}


def _tell(outcomes: list[tuple[str, Outcome]], world: World) -> None:
    if not outcomes:
        world.say("no searcher supports this type")
    for name, outcome in outcomes:
        if outcome.ended is Ended.FOUND:
            world.say(f"{name}: {len(outcome.hits)} found")
        elif outcome.ended is Ended.NOTHING:
            world.say(f"{name}: nothing")
        else:
            world.say(shown(f"{name}: could not ask: {outcome.reason or outcome.ended.value}"))
        for number, hit in enumerate(outcome.hits, 1):
            for one in json.loads(hit)["props"]:
                value = one["value"]
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                world.say(shown(f"  {number}  {one['name']}: {text}"))
        for each in outcome.suppressed:
            world.say(shown(f"  no hit: {each.type} of feed {each.feed}: {each.by}"))
        if outcome.suppressed_more:
            world.say(f"  no hit: {outcome.suppressed_more} more")
