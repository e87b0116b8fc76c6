"""
Builds one index, in a process of its own (L{ctsd.feeds.inside}), which is given a L{Job}.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from attrs import asdict

from ctsd.feeds.delta import records_of
from ctsd.feeds.index import About
from ctsd.feeds.inside import answer
from ctsd.feeds.job import Job, Refused, source_of
from ctsd.records import Line, Record

#: A line longer than this is no line of a list of indicators.
MAX_LINE_CHARS = 1 << 20


def run(job: Job, *, now: Callable[[], float] = time.time) -> About:
    """
    Build an index here and now.

    :return: what the index says of itself.
    :raises Refused: the source is not fit to be served.
    :raises OSError: the source can't be read, or the index not be written.
    """
    return _from_file(job, now) if job.parse or job.reading else _from_database(job, now)


def _from_file(job: Job, now: Callable[[], float]) -> About:
    from ctsd.feeds.writer import IndexWriter

    with (
        open(job.source, encoding="utf-8-sig", errors="replace", newline="") as source,
        IndexWriter(job.target, now=now) as writer,
    ):
        before = os.fstat(source.fileno())
        if before.st_size > job.max_bytes:
            raise Refused(f"{before.st_size:,} bytes, more than the limit of {job.max_bytes:,}")
        skipped = 0
        try:
            if job.reading:
                for line in _described(job.reading):
                    if line is None or not writer.add_line(line):
                        skipped += 1
            else:
                for record in load_parse(job.parse)(_lines(source)):
                    if record is None or not writer.add(record):
                        skipped += 1
        except ValueError as error:
            raise Refused(str(error)) from error
        after = os.stat(job.source)
        label = source_of(job.label, before)
        if source_of(job.label, after) != label:
            raise Refused("it changed while it was read")
        _enough(writer.records, max(job.least, 1), skipped)
        return writer.publish(About(source=label, skipped=skipped))


def _from_database(job: Job, now: Callable[[], float]) -> About:
    from ctsd.feeds.writer import IndexWriter

    reader = importlib.import_module(job.reader)
    # The version first: what changes meanwhile is then in the index and told as a change.
    database = job.access or job.source
    version = reader.read_version(database)
    skipped = 0
    with IndexWriter(job.target, now=now) as writer:
        for threat in reader.read_threats(database):
            for record in records_of(threat):
                if not writer.add(record):
                    skipped += 1
        return writer.publish(About(source=job.label, version=version, skipped=skipped))


def _enough(records: int, least: int, skipped: int) -> None:
    if not records:
        raise Refused(f"none of its records can be used ({skipped:,} are malformed)")
    if records < least:
        raise Refused(
            f"it has shrunk to {records:,} records ({skipped:,} are malformed);"
            f" fewer than {least:,} are not believed"
        )


def _lines(source: IO[str]) -> Iterator[str]:
    while line := source.readline(MAX_LINE_CHARS + 1):
        if len(line) > MAX_LINE_CHARS:
            raise Refused(f"a line of more than {MAX_LINE_CHARS:,} characters")
        yield line


def _described(reading: str) -> Iterator[Line | None]:
    """The records of a file that a description fits."""
    # By its name, as the reader of the local database: what decides here has a label of its own.
    module = importlib.import_module("ctsd.feeds.reading")
    lines: Iterator[Line | None] = module.Reading(**json.loads(reading)).counted(now=time.time())
    return lines


def load_parse(reference: str) -> Callable[[Iterable[str]], Iterator[Record | None]]:
    """
    The parse function that C{<module's file>:<function>} or C{<module>:<function>} names.

    :raises Refused: there is none.
    """
    where, _, name = reference.rpartition(":")
    if where.endswith(".py"):
        spec = importlib.util.spec_from_file_location("_ctsd_parse", where)
        if spec is None or spec.loader is None:
            raise Refused(f"{where} is no module")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    parse = getattr(module, name, None)
    if not callable(parse):
        raise Refused(f"{where} has no function {name}")
    return cast(Callable[[Iterable[str]], Iterator[Record | None]], parse)


def main() -> int:
    """Do what the first line of standard input says."""
    return answer(_built)


def _built(given: dict[str, Any]) -> dict[str, Any]:
    paths = {"target": Path(given["target"]), "source": Path(given["source"])}
    return asdict(run(Job(**{**given, **paths})))


if __name__ == "__main__":
    sys.exit(main())
