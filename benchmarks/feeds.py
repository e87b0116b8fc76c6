"""
The index of all feeds: `python benchmarks/feeds.py --rows 10000000`.

How fast the files of feeds are built and merged, with how much memory, and how big they are; what a
lookup costs that misses and one that hits, beside what an empty index costs; how much memory all
processes have; and how late the reactor answers while a feed is built and swapped in.
"""

from __future__ import annotations

import argparse
import gc
import ipaddress
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater, react
from twisted.internet.threads import deferToThread

from ctsd.feeds.feed_file import FeedAbout
from ctsd.feeds.indicators import Indicators
from ctsd.feeds.key_store import merge_feeds, write_feed
from ctsd.model import Artifact, Property
from ctsd.records import Record, hit_of
from ctsd.wire import encode_hit

#: What the indicators are, of a hundred.
SHARES = {"net.uri": 40, "net.name": 20, "hash.sha256": 20, "net.ip": 15, "net.cidr": 5}

#: Not that of the code, which may be worked at meanwhile.
LABEL = "benchmark"

#: So many lookups are measured of each kind.
LOOKUPS = 20_000


def values(type: str, rows: int, seed: int) -> Iterator[str]:
    """Indicators of a type, as they are in real feeds."""
    chance = random.Random(f"{type} {seed}")
    letters = "abcdefghijklmnopqrstuvwxyz"
    fixed = random.Random(1)
    words = ["".join(fixed.choices(letters, k=fixed.randint(4, 9))) for _ in range(5000)]
    word = partial(chance.choice, words)
    for number in range(rows):
        if type == "net.uri":
            host = f"{word()}-{chance.randrange(rows)}.{word()}.example"
            yield f"http{'s' * (number % 2)}://{host}/{word()}/{word()}.php?x={number}"
        elif type == "net.name":
            yield f"{word()}-{chance.randrange(10**9)}.{word()}.example"
        elif type == "hash.sha256":
            yield f"{chance.getrandbits(256):064x}"
        elif type == "net.ip":
            yield str(ipaddress.IPv4Address(chance.randrange(1 << 24, 224 << 24)))
        else:
            first = ipaddress.IPv4Address(chance.randrange(1 << 24, 224 << 24) & 0xFFFFFF00)
            yield f"{first}/{chance.choice((24, 24, 24, 26, 28, 29))}"


def records(rows: int, seed: int) -> Iterator[Record]:
    """The records of one feed."""
    for type, share in SHARES.items():
        for number, value in enumerate(values(type, rows * share // 100, seed)):
            yield Record(
                type=type,
                value=value,
                name=f"Feed {seed} {number}",
                properties=(
                    Property("number", "id", number),
                    Property("string", "threat", "malware_download"),
                    Property("string", "first_seen", "2026-01-12 08:03:11"),
                ),
            )


def timed(find: Callable[[Artifact], object], asked: list[Artifact]) -> tuple[float, float]:
    """The median of rounds, and the 99th percentile of single lookups, in microseconds."""
    rounds = []
    single = []
    for _ in range(3):
        started = time.perf_counter()
        for artifact in asked:
            find(artifact)
        rounds.append((time.perf_counter() - started) / len(asked))
    for artifact in asked:
        started = time.perf_counter()
        find(artifact)
        single.append(time.perf_counter() - started)
    return sorted(rounds)[1] * 1e6, sorted(single)[len(single) * 99 // 100] * 1e6


def pss_mib(process: int | str = "self") -> float:
    """What a process has of memory, shared pages by share."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def mapped_mib(where: Path, process: int | str = "self") -> float:
    """What a process has of memory in the files of a directory."""
    found = 0
    ours = False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        if not line[0].isupper() or "-" in line.split()[0]:
            ours = str(where) in line
        elif ours and line.startswith("Pss:"):
            found += int(line.split()[1])
    return found / 1024


def build(where: Path, rows: int, feeds: int) -> None:
    """Write and merge all feeds; in a child process."""
    hit = next(records(rows, 0))
    started = time.process_time()
    for _ in records(rows // feeds, 1):
        pass
    made = (time.process_time() - started) * feeds
    started = time.process_time()
    names = [f"feed{number:02d}" for number in range(feeds)]
    for number, name in enumerate(names):
        about = FeedAbout(name=name, label=LABEL)
        write_feed(where, about, records(rows // feeds, number))
    written = time.process_time() - started - made
    started, wall = time.process_time(), time.monotonic()
    merge_feeds(where, names)
    merged = time.process_time() - started
    wall = time.monotonic() - wall
    size = sum(path.stat().st_size for path in where.iterdir())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| write {rows:,} rows | {rows / written:,.0f} rows/s of one core's time |")
    print(f"| merge {feeds} feeds | {rows / merged:,.0f} rows/s; {wall:.1f} s |")
    print(f"| write and merge | {rows / (written + merged):,.0f} rows/s |")
    print(f"| builder's peak, with mapped files | {peak:,.0f} MiB |")
    shown = len(encode_hit(hit_of(hit))) + 4
    print(
        f"| disk | {size / rows:.0f} bytes a row; {size / rows - shown:.0f} beside the hit |",
        flush=True,
    )


class Gaps:
    """How much later than it should the reactor gets round to a lookup, and what that takes."""

    def __init__(self, find: Callable[[Artifact], object], asked: list[Artifact]) -> None:
        self.seen: list[float] = []
        self._find, self._asked, self._at = find, asked, 0
        self._last = time.perf_counter()
        self._loop = LoopingCall(self._tick)
        self._loop.start(0.001)

    def _tick(self) -> None:
        for _ in range(4):
            self._at = (self._at + 1) % len(self._asked)
            self._find(self._asked[self._at])
        now = time.perf_counter()
        self.seen.append(now - self._last - 0.001)
        self._last = now

    def end(self) -> str:
        """Told in milliseconds."""
        self._loop.stop()
        gaps = sorted(self.seen)
        told = [
            f"p{share * 100:g} {gaps[int(len(gaps) * share)] * 1e3:.2f}"
            for share in (0.5, 0.99, 0.999)
        ]
        return ", ".join([*told, f"max {gaps[-1] * 1e3:.2f}"])


async def measure(where: Path, rows: int, feeds: int) -> None:
    """Everything but the build."""
    indicators = Indicators(directory=where, in_thread=deferToThread, now=time.time, label=LABEL)
    empty = Indicators(
        directory=where / "empty", in_thread=deferToThread, now=time.time, label=LABEL
    )
    before = pss_mib()
    started = time.monotonic()
    await indicators.start()
    print(f"| open and check | {time.monotonic() - started:.1f} s |")
    await empty.start()
    merge_feeds(where / "empty", [])
    await empty.swap()

    def find(artifact: Artifact) -> object:
        return indicators.find(artifact=artifact, limit=10)

    def look(artifact: Artifact) -> object:
        return indicators.has_nothing(type=artifact.type, value=artifact.value)

    def find_nothing(artifact: Artifact) -> object:
        return empty.find(artifact=artifact, limit=10)

    everything = []
    for type, share in SHARES.items():
        per_feed = rows // feeds * share // 100
        known: list[str] = []
        for number in range(feeds):
            step = max(1, per_feed * feeds // LOOKUPS)
            known += [
                value for at, value in enumerate(values(type, per_feed, number)) if at % step == 0
            ]
        missing = list(values(type, LOOKUPS, feeds + 1))
        hits = [Artifact(type, value) for value in known]
        misses = [Artifact(type, value) for value in missing]
        misses = [artifact for artifact in misses if not find(artifact)]
        assert all(map(find, hits))
        random.Random(2).shuffle(hits)
        floor, _ = timed(find_nothing, misses)
        # What is asked here before anything is searched: it tells all misses, and no hit.
        assert all(map(look, misses))
        assert not any(map(look, hits))
        for what, how, asked in (
            ("miss at the first look", look, misses),
            ("miss", find, misses),
            ("hit", find, hits),
        ):
            middle, worst = timed(how, asked)
            print(
                f"| {type}, {what} | {middle:.1f} µs, p99 {worst:.1f} µs "
                f"(nothing in the index: {floor:.1f}) |"
            )
        everything += hits[:5000] + misses[:5000]
    random.Random(3).shuffle(everything)
    mapped = mapped_mib(where)
    print(
        f"| PSS of the mapped index after all that | {mapped:,.0f} MiB; of all this process "
        f"before it was opened {before:,.0f} |"
    )
    # As the daemon does after its start: what is here stays.
    gc.collect()
    gc.freeze()
    gaps = Gaps(find, everything)
    await deferLater(reactor_of(), 3)
    print(f"| reactor late, quiet | {gaps.end()} ms |")
    child = subprocess.Popen(
        [
            sys.executable,
            __file__,
            "--swap",
            str(min(rows // 2, 1_000_000)),
            "--feeds",
            str(feeds),
            "--where",
            str(where),
        ],
    )
    gaps = Gaps(find, everything)
    peak = 0.0
    while child.poll() is None:
        await deferLater(reactor_of(), 0.5)
        if child.poll() is None:
            # Reading these takes a while, so not in the reactor.
            mapped = await deferToThread(mapped_mib, where)
            peak = max(peak, before + mapped + await deferToThread(pss_mib, child.pid))
    await indicators.swap()
    await deferLater(reactor_of(), 1)
    print(
        f"| reactor late, while a feed of a million rows is built and swapped in | "
        f"{gaps.end()} ms |"
    )
    print(
        f"| PSS of this process (without the lists of this benchmark) and the child | "
        f"{peak:,.0f} MiB |"
    )
    assert indicators.feeds["feed00"].records != rows // feeds
    await indicators.close()


def reactor_of() -> object:
    """The global reactor, when it is there."""
    from twisted.internet import reactor

    return reactor


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--feeds", type=int, default=20)
    parser.add_argument("--build", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--swap", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--where", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = [f"feed{number:02d}" for number in range(options.feeds)]
    if options.build:
        build(options.where, options.rows, options.feeds)
    elif options.swap:
        os.nice(15)
        about = FeedAbout(name="feed00", label=LABEL)
        write_feed(options.where, about, records(options.swap, 99))
        merge_feeds(options.where, names)
    else:
        with tempfile.TemporaryDirectory(prefix="ctsd-feeds-", dir=options.where) as where:
            child = [sys.executable, __file__, "--build", "--rows", str(options.rows)]
            child += ["--feeds", str(options.feeds), "--where", where]
            subprocess.run(child, check=True)
            react(
                lambda _: Deferred.fromCoroutine(measure(Path(where), options.rows, options.feeds))
            )


if __name__ == "__main__":
    main()
