"""
C{ctsd feeds try}: shows what a description makes of a file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, execute

from ctsd.artifacts import SHAPES
from ctsd.commands.world import Commands, World, shown
from ctsd.config.checks import unknown
from ctsd.config.settings import Settings
from ctsd.errors import CTSDError
from ctsd.feeds.copies import BadState, Copies
from ctsd.feeds.descriptions import (
    Description,
    catalogue_sample,
    names_of_catalogue,
    read_description,
)
from ctsd.feeds.feed_file import FeedAbout
from ctsd.feeds.guards import Counts, check_counts, check_file
from ctsd.feeds.indicators import Indicators
from ctsd.feeds.job import Refused
from ctsd.feeds.key_store import merge_feeds, write_feed
from ctsd.feeds.list_files import broken_lists
from ctsd.feeds.parsers.fitting import fits
from ctsd.feeds.parsers.tally import Tally
from ctsd.feeds.reading import Reading
from ctsd.interfaces.threads import InThread
from ctsd.model import Artifact
from ctsd.records import Record

#: So many records are shown of a file, and of one reason why rows are left out.
_SHOWN_RECORDS: Final = 3

#: How many hits of a value are shown.
_SHOWN_HITS: Final = 10

#: What a value is taken for, unless somebody says what it is: the first of these that it can be.
_GUESSES: Final = (
    "net.ip",
    "net.cidr",
    "hash.md5",
    "hash.sha1",
    "hash.sha256",
    "threat.report.cve",
    "email.header.sender_address",
    "net.name",
    "net.uri",
    "threat.malware.family",
)


class Intermixed(argparse.ArgumentParser):
    """
    A parser for which options may stand between arguments: C{try NAME --file SAMPLE VALUE}.
    C{argparse} before Python 3.13 takes an argument that may be missing for missing there.
    """

    _intermixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See C{argparse}."""
        if self._intermixing:
            return super().parse_known_args(args, namespace)
        self._intermixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixing = False


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add C{try} to what can follow C{feeds}."""
    try_ = commands.add_parser(
        "try", parents=[common], help="show what a description makes of a file, and refuses of it"
    )
    try_.add_argument("name", metavar="NAME", help="a feed of the catalogue, or one's own")
    try_.add_argument(
        "value", metavar="[TYPE=]VALUE", nargs="?", help="show the hits that it would give"
    )
    try_.add_argument(
        "--file",
        metavar="SAMPLE",
        type=Path,
        help="a file as its provider sends it (default: what was downloaded last, else a sample)",
    )
    try_.add_argument("--type", metavar="TYPE", help="the artifact type of VALUE")
    try_.set_defaults(run=_try)


def described(settings: Settings, name: str) -> Description:
    """
    A feed of the catalogue, or of the configuration.

    :raises ConfigError: it is wrong.
    :raises CTSDError: there is none.
    """
    known = {*names_of_catalogue(), *settings.feeds}
    if name not in known:
        raise CTSDError(f"{shown(name)}: {unknown(name, known, 'feed')}")
    return read_description(name, settings.feeds.get(name, {}), settings.document)


def copies_of(settings: Settings, name: str) -> Copies:
    """What is on the disk of a feed."""
    return Copies(settings.feeds_dir / name)


def broken_own_lists(settings: Settings, description: Description) -> list[str]:
    """
    What is wrong with a warninglist, or a directory of them, that is ours. Reads all of it.

    :param description: of any feed.
    """
    file = description.provider.file
    if file is None or not description.is_warninglist:
        return []
    given = settings.matching
    return broken_lists(file, max_bytes=given.max_list_bytes, max_files=given.max_lists)


def _try(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    if arguments.type is not None and arguments.type not in SHAPES:
        raise CTSDError(f"{arguments.type}: no such artifact type")
    description = described(settings, arguments.name)
    file, what = _file_of(arguments.file, description, settings)
    reading = Reading.of(description, file)
    tally = Tally()
    world.say(shown(f"{description.name} ({description.title}), {what}: {file}"))
    first: list[Record] = []
    try:
        with tempfile.TemporaryDirectory() as directory:
            records = reading.records(tally, now=world.now())
            # All of them are indexed on the way, for VALUE is looked for as the daemon does.
            about = FeedAbout(name=description.name)
            noting = _noting(records, first)
            write_feed(Path(directory), about, noting, substring=reading.substring)
            _tell_tally(tally, world)
            if file != catalogue_sample(description.name):
                _tell_guards(tally, description, file, world)
            for record in first:
                _tell_record(record, world)
            if arguments.value is not None:
                return _tell_hits(arguments, description, Path(directory), world)
    except Refused as error:
        raise CTSDError(f"{file}: {error}") from None
    return 0


def _file_of(given: Path | None, description: Description, settings: Settings) -> tuple[Path, str]:
    """The file to try, and what it is."""
    if given is not None:
        return given, "the file"
    if description.provider.file is not None:
        return description.provider.file, "your file"
    copies = copies_of(settings, description.name)
    try:
        state = copies.state()
    except BadState as error:
        raise CTSDError(str(error)) from None
    if state.copy is not None:
        return copies.path(state.copy), "what was downloaded last"
    sample = catalogue_sample(description.name)
    if sample is None:
        raise CTSDError(f"{description.name}: nothing was downloaded yet; expected --file")
    return sample, "the sample that ships"


def _noting(records: Iterator[Record], first: list[Record]) -> Iterator[Record]:
    for record in records:
        if len(first) < _SHOWN_RECORDS:
            first.append(record)
        yield record


def _tell_tally(tally: Tally, world: World) -> None:
    world.say(
        f"{tally.rows:,} rows: {tally.records:,} records, {tally.unwanted:,} left out,"
        f" {tally.bad:,} refused"
    )
    for what, reasons in (("refused", tally.refused), ("left out", tally.left_out)):
        for reason, count in sorted(reasons.items(), key=lambda each: -each[1]):
            world.say(f"{what}: {count:,}  {reason}")
            for row, text in tally.examples[reason]:
                world.say(shown(f"    row {row:,}: {text}"))


def _tell_guards(tally: Tally, description: Description, file: Path, world: World) -> None:
    """Say whether this file would be taken if it were downloaded."""
    try:
        check_file(file, description.provider)
        counts = Counts(rows=tally.rows, refused=tally.bad, records=tally.records)
        check_counts(counts, description.provider, None)
    except Refused as error:
        world.say(f"as a download it would not be taken: {error}")


def _tell_record(record: Record, world: World) -> None:
    world.say(shown(f"{record.type}  {record.value}"))
    for one in record.properties:
        world.say(shown(f"    {one.name} ({one.type}): {_text(one.value)}"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _tell_hits(
    arguments: argparse.Namespace, description: Description, directory: Path, world: World
) -> int:
    type, value = arguments.type, arguments.value
    said, sign, rest = value.partition("=")
    if type is None and sign and said in SHAPES:
        # As with other commands.
        type, value = said, rest
    type = type or next((one for one in _GUESSES if not fits(one, value)), "string")
    merge_feeds(directory, [description.name])
    indicators = Indicators(
        directory=directory, in_thread=cast(InThread, execute), now=world.now, label=""
    )
    # All of it happens here and now: no thread is used.
    Deferred.fromCoroutine(indicators.start())
    found = indicators.find(artifact=Artifact(type, value), limit=_SHOWN_HITS)
    world.say(shown(f"{type} {value}: {sum(len(one.matched) + one.more for one in found)} found"))
    for one in found:
        for number, matched in enumerate(one.matched, 1):
            for prop in json.loads(matched.record.hit)["props"]:
                world.say(shown(f"  {number}  {prop['name']}: {_text(prop['value'])}"))
            if matched.how:
                world.say(f"  {number}  Matched: {matched.how}")
    Deferred.fromCoroutine(indicators.close())
    return 0
