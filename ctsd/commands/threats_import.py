"""C{ctsd threats import}: all of a file, or nothing of it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from attrs import frozen

from ctsd.commands.threat_files import Numbered, format_of, read_csv, read_lines
from ctsd.commands.world import World
from ctsd.errors import CTSDError
from ctsd.interfaces.store import IThreatStore
from ctsd.model import Threat

# One write transaction of the daemon's database each, so that the daemon gets its turn.
_BATCH = 1000
_MAX_ERRORS = 10
_TERMINAL_EVERY = 5_000
_LOG_EVERY = 100_000


@frozen
class Source:
    """
    What is imported.

    :ivar name: for messages.
    :ivar size: bytes; 0 when it is not known.
    """

    name: str
    stream: BinaryIO
    format: str
    size: int


def open_source(name: str, format: str | None, world: World) -> Source:
    """
    Open a file, or standard input when it is called C{-}.

    :raises CTSDError: nobody says what format it has.
    """
    found = format or format_of(name)
    if not found:
        raise CTSDError(f"{name}: say --format jsonl or --format csv; its name does not tell")
    if name == "-":
        return Source("standard input", world.stdin, found, 0)
    stream = open(name, "rb")  # noqa: SIM115 - the caller closes it
    status = os.fstat(stream.fileno())
    return Source(name, stream, found, status.st_size if stat.S_ISREG(status.st_mode) else 0)


async def import_threats(store: IThreatStore, source: Source, world: World) -> int:
    """
    Import a file; the exit status. Errors are told with their lines, at most ten of them.
    """
    threats: Iterator[Numbered]
    if source.format == "csv":
        threats = read_csv(source.stream, now=world.now())
    else:
        threats = read_lines(source.stream)
    import_id = await store.open_import()
    try:
        failed = await _write_all(store, import_id, source, threats, world)
        if not failed:
            entered = await store.finish_import(import_id=import_id)
            world.say(f"{entered} threats entered")
            return 0
    except BaseException:
        with contextlib.suppress(CTSDError):
            await store.abandon_import(import_id=import_id)
        raise
    await store.abandon_import(import_id=import_id)
    world.complain(f"{source.name}: nothing was entered")
    return 1


async def _write_all(
    store: IThreatStore, import_id: int, source: Source, threats: Iterator[Numbered], world: World
) -> int:
    """Write what there is up to the first error, tell errors; how many there were."""
    batch: list[Threat] = []
    count = failed = 0
    for number, threat in threats:
        if isinstance(threat, ValueError):
            failed += 1
            world.complain(f"{source.name}:{number}: {threat}")
            if failed == _MAX_ERRORS:
                world.complain(f"{source.name}: further lines were not looked at")
                break
        elif not failed:
            batch.append(threat)
            count += 1
        if len(batch) == _BATCH:
            await store.add_to_import(import_id=import_id, threats=batch)
            batch = []
            _progress(count, source, world)
    if batch and not failed:
        await store.add_to_import(import_id=import_id, threats=batch)
    if world.err.isatty() and count >= _TERMINAL_EVERY:
        world.err.write("\r\x1b[K")
    return failed


def _progress(count: int, source: Source, world: World) -> None:
    terminal = world.err.isatty()
    if count % (_TERMINAL_EVERY if terminal else _LOG_EVERY):
        return
    share = ""
    if source.size:
        # Standard input and pipes have no size, and can't tell where they are.
        share = f" ({100 * source.stream.tell() // source.size} %)"
    text = f"{count} threats read{share}"
    world.err.write(f"\r{text}\x1b[K" if terminal else f"{text}\n")
    world.err.flush()
