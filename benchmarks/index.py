"""
The index of a million URLs: `python benchmarks/index.py`.

How long it takes to build in its child process, and with how much memory; what a search costs; what
the changed threats beside it cost; and how long the reactor is held up, on the one core that it
shares with the child, while an index is built and swapped in.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import LoopingCall, deferLater, react
from twisted.internet.threads import deferToThread

from ctsd.feeds.builds import Builds
from ctsd.feeds.delta import Delta
from ctsd.feeds.file import RecordsFile
from ctsd.feeds.reading import Reading
from ctsd.model import Artifact, Threat
from ctsd.records import Changes

TICK_SECS = 0.0005

HEADER = "phish_id,url,phish_detail_url,submission_time,verified,verification_time,online,target\n"


def urls(rows: int, seed: int = 1) -> Iterator[str]:
    """URLs like those of PhishTank: 50-60 characters, a few on each host."""
    chance = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(chance.choices(letters, k=chance.randint(4, 9))) for _ in range(5000)]
    for number in range(rows):
        word = partial(chance.choice, words)
        scheme = "https" if number % 2 else "http"
        host = f"{word()}-{number % (rows // 2 + 1)}.{word()}.example"
        yield f"{scheme}://{host}/{word()}/{word()}.php?x={number}"


def write_feed(path: Path, rows: int, seed: int) -> None:
    """A file of PhishTank's."""
    when = "2026-01-12T08:03:11+00:00"
    scratch = path.with_suffix(".new")
    with scratch.open("w") as file:
        file.write(HEADER)
        for number, url in enumerate(urls(rows, seed), 1):
            file.write(f"{number},{url},http://x.example/,{when},yes,{when},yes,Other\n")
    os.utime(scratch, (0, seed))
    scratch.rename(path)


def microseconds(find: Callable[[str], object], values: list[str]) -> str:
    """The cost of one search: the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for value in values:
            find(value)
        best = min(best, time.perf_counter() - started)
    return f"{best / len(values) * 1e6:.1f} µs"


class Gaps:
    """How much later than it should the reactor gets round to something."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self._last = time.perf_counter()
        self._loop = LoopingCall(self._tick)
        self._loop.start(TICK_SECS)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.seen.append(now - self._last - TICK_SECS)
        self._last = now

    def end(self) -> str:
        """Told in milliseconds."""
        self._loop.stop()
        gaps = sorted(self.seen)
        wanted = (0.5, 0.99, 0.999)
        shares = [(f"p{share * 100:g}", gaps[int(len(gaps) * share)]) for share in wanted]
        told = [f"{name} {gap * 1e3:.2f}" for name, gap in [*shares, ("max", gaps[-1])]]
        return ", ".join(told) + " ms"


def delta_of(count: int) -> Delta:
    """So many changed threats."""
    delta = Delta()
    threats = tuple(
        Threat(name=f"{number}", artifacts=(Artifact("net.uri", url),), id=number)
        for number, url in enumerate(urls(count, 7), 1)
    )
    delta.apply(Changes(version=1, threats=threats, deleted=()))
    return delta


async def measure(rows: int, where: Path) -> None:
    """Everything."""
    source = where / "feed.csv"
    index = where / "index"
    write_feed(source, rows, 1)
    file = RecordsFile(
        path=source,
        parse=Reading.of_catalogue("phishtank", source),
        index=index,
        clock=reactor,
        build=Builds(reactor=reactor, clock=reactor, lock=DeferredLock()),
        in_thread=deferToThread,
        now=time.time,
        check_secs=0.5,
    )
    started = time.monotonic()
    file.startService()
    await file.ready()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"built and loaded in {time.monotonic() - started:.1f} s; the child's peak {peak:.0f} MB")
    print(f"{index.stat().st_size / rows:.0f} bytes a row; {file.describe()}")

    def find(value: str) -> object:
        return file.find(type="net.uri", value=value, limit=10)

    known = list(urls(rows, 1))[:: max(rows // 20_000, 1)]
    hosts = [url.split("/")[2] for url in known]
    for what, values in (
        ("URL, hit", known),
        ("URL, miss", [url.replace("-", "_") for url in known]),
        ("host, hit", hosts),
        ("host, miss", [host.replace("-", "_") for host in hosts]),
        ("a part of 2,000 and more", [".example/"] * 20),
    ):
        print(f"{what}: {microseconds(find, values)}")
    delta = delta_of(2000)

    def find_changed(value: str) -> object:
        return delta.find(type="net.uri", value=value, limit=10, wanted=None, now=0.0)

    for what, values in (("URL", known[:2000]), ("host", hosts[:2000])):
        print(f"{what}, miss in 2,000 changed threats: {microseconds(find_changed, values)}")

    gaps = Gaps()
    await deferLater(reactor, 3)
    print(f"the reactor is late, quiet: {gaps.end()}")
    about = file.describe()
    serving = file._kept.index
    write_feed(source, rows - 1, 2)
    gaps = Gaps()
    while file._kept.index is serving:
        await deferLater(reactor, 0.2)
    await deferLater(reactor, 1)
    print(f"the reactor is late, while it is built and swapped in: {gaps.end()}")
    assert file.describe() != about
    await file.stopService()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--core", type=int, default=0)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    with tempfile.TemporaryDirectory(prefix="ctsd-index-") as where:
        react(lambda _: Deferred.fromCoroutine(measure(options.rows, Path(where))))


if __name__ == "__main__":
    main()
