"""What the tests of feeds share: sources, a build without a process, threads without threads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed

from ctsd.feeds.build import run
from ctsd.feeds.delta import records_of
from ctsd.feeds.index import About
from ctsd.feeds.job import BuiltElsewhere, Job, look_of
from ctsd.model import Artifact, Property, Threat
from ctsd.records import Record
from ctsd.store.memory import MemoryStore
from ctsd.stored import decode_threat, encode_threat

P = ParamSpec("P")
T = TypeVar("T")

HEADER = "records of a test\n"


def records(lines: Iterable[str]) -> Iterator[Record | None]:
    """The parse function of the tests' own format: a header, then a record as JSON a line."""
    rest = iter(lines)
    if next(rest, "") != HEADER:
        raise ValueError("it has no header")
    for line in rest:
        try:
            threat = decode_threat(line.encode("utf-8", "surrogatepass"))
        except ValueError:
            yield None
        else:
            yield from records_of(threat)


def _line(record: Record) -> str:
    threat = Threat(
        name=record.name,
        artifacts=(Artifact(record.type, record.value),),
        properties=record.properties,
        id=record.threat_id,
        searcher=record.searcher,
        source=record.source,
        expires=record.expires,
    )
    return encode_threat(threat).decode("utf-8") + "\n"


def stumbling(lines: Iterable[str]) -> Iterator[Record | None]:
    """A parse function with a fault of its own."""
    raise KeyError("http://secret.example/")


def sleeping(lines: Iterable[str]) -> Iterator[Record | None]:
    """A parse function that takes an hour."""
    import time

    time.sleep(3600)
    return iter(())


def write_source(path: Path, given: Iterable[Record], *, junk: int = 0) -> None:
    """Put a whole source file in place."""
    lines = list(map(_line, given))
    scratch = path.with_suffix(".new")
    scratch.write_text(HEADER + "".join(lines) + "no record\n" * junk, encoding="utf-8")
    scratch.rename(path)


def url(value: str, name: str = "", **more: Any) -> Record:
    """A record of a URL."""
    return Record(type="net.uri", value=value, name=name or f"about {value}", **more)


def threat(name: str, *given: tuple[str, Any], **more: Any) -> Threat:
    """A threat with these artifacts."""
    return Threat(
        name=name,
        artifacts=tuple(Artifact(*each) for each in given),
        properties=(Property("string", "campaign", name),),
        **more,
    )


def at_once(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
    """Stands in for a thread."""
    return maybeDeferred(function, *args, **kwargs)


class Builder:
    """
    Builds in this process, at once.

    :ivar jobs: what was asked for.
    :ivar error: what every build fails with.
    :ivar held: a list: builds wait there to be let go.
    :ivar before: called before each.
    """

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self.jobs: list[Job] = []
        self.error: Exception | None = None
        self.held: list[Deferred[None]] | None = None
        self.before = before

    def __call__(self, job: Job) -> Deferred[About]:
        """See L{ctsd.feeds.job.Build}."""
        self.jobs.append(job)
        if self.error is not None:
            return fail(self.error)
        go: Deferred[None] = Deferred()
        if self.held is None:
            go = succeed(None)
        else:
            self.held.append(go)
        return go.addCallback(lambda _: self._run(job))

    def _run(self, job: Job) -> About:
        if job.seen is not None and job.seen != look_of(job.target):
            raise BuiltElsewhere("another process has built it")
        self.before()
        return run(job)

    def release(self) -> None:
        """Let the builds that wait go on."""
        held, self.held = self.held or [], None
        for each in held:
            each.callback(None)


def dump(store: MemoryStore, path: Path, result: Callable[[Deferred[Any]], Any]) -> None:
    """Write a memory store's threats where L{read_threats} reads them."""
    lines = [json.dumps(result(store.version())).encode()]
    after = 0
    while some := result(store.threats(after=after)):
        lines.extend(map(encode_threat, some))
        after = some[-1].id
    path.write_bytes(b"\n".join(lines))


def read_version(path: Path) -> int:
    """As L{ctsd.store.threat_rows.read_version}."""
    return int(path.read_bytes().partition(b"\n")[0])


def read_threats(path: Path) -> Iterator[Threat]:
    """As L{ctsd.store.threat_rows.read_threats}."""
    yield from map(decode_threat, path.read_bytes().split(b"\n")[1:])
