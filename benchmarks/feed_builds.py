"""
From a feed's file as it was downloaded to the index that is served: `python
benchmarks/feed_builds.py --rows 500000`.

Files in the formats of the catalogue are made, and each goes the daemon's way, on one core: it is
counted for the guards, and indexed on the way (`examine`); then what was made is taken over, and
merged (`index`). Beside that, what building costs when nothing was made on the way: after a change
of a description or of the code (`anew`).
"""

from __future__ import annotations

import argparse
import gc
import ipaddress
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import asdict

from ctsd.config.document import Document
from ctsd.feeds.descriptions import Description, read_description
from ctsd.feeds.examine import examine
from ctsd.feeds.feed_file import FeedAbout
from ctsd.feeds.feed_work import work
from ctsd.feeds.key_store import key_label
from ctsd.feeds.reading import RARELY, Reading

#: A feed that the catalogue has none of.
HASHES: dict[str, Any] = {
    "title": "Hashes",
    "url": "https://hashes.example/list.txt",
    "format": "lines",
    "indicators": [{"field": "line", "type": "hash.sha256"}],
    "properties": {"hash": "line"},
}


TAGS = ("None", "32-bit,elf,mips", "exe", "elf,Mozi")


class Made:
    """Makes values as they are in real feeds."""

    def __init__(self, rows: int) -> None:
        self.chance = random.Random(1)
        self._rows = rows
        letters = "abcdefghijklmnopqrstuvwxyz"
        self._words = [
            "".join(self.chance.choices(letters, k=self.chance.randint(4, 9))) for _ in range(5000)
        ]

    def word(self) -> str:
        """One of some thousand."""
        return self.chance.choice(self._words)

    def host(self) -> str:
        """Hardly ever the same."""
        return f"{self.word()}-{self.chance.randrange(self._rows)}.{self.word()}.example"

    def url(self, number: int) -> str:
        """No two are the same."""
        scheme = "https" if number % 2 else "http"
        return f"{scheme}://{self.host()}/{self.word()}/{self.word()}.php?x={number}"

    def address(self) -> ipaddress.IPv4Address:
        """Any."""
        return ipaddress.IPv4Address(self.chance.randrange(1 << 24, 224 << 24))


def phishtank(made: Made, rows: int) -> Iterator[str]:
    """A URL in twenty is quoted, for it has a comma."""
    yield ("phish_id,url,phish_detail_url,submission_time,verified,verification_time,online,target")
    for number in range(rows):
        url = made.url(number)
        if number % 20 == 0:
            url = f'"{url}&a=1,2"'
        id, minute = 9_000_000 - number, number % 60
        yield (
            f"{id},{url},"
            f"http://www.phishtank.com/phish_detail.php?phish_id={id},"
            f"2026-01-12T08:{minute:02d}:11+00:00,yes,2026-01-12T09:{minute:02d}:00+00:00,yes,"
            f"{'Other' if number % 3 else 'Bank of Nowhere'}"
        )


def urlhaus(made: Made, rows: int) -> Iterator[str]:
    """Every other URL is on an address and a port."""
    for number in range(rows):
        id, minute = 3_500_000 + number, number % 60
        url = made.url(number)
        if number % 2:
            url = f"http://{made.address()}:{made.chance.randrange(1000, 60000)}/{made.word()}.sh"
        fields = (
            *(id, f"2026-01-20 09:{minute:02d}:12", url, "online" if number % 3 else "offline"),
            *("2026-01-20 09:58:12", "malware_download", TAGS[number % 4]),
            *(f"https://urlhaus.abuse.ch/url/{id}/", "somebody"),
        )
        yield ",".join(f'"{field}"' for field in fields)


def spamhaus(made: Made, rows: int) -> Iterator[str]:
    """Ranges."""
    for number in range(rows):
        range_ = ipaddress.IPv4Network((int(made.address()) & 0xFFFFFF00, 24))
        yield json.dumps({"cidr": str(range_), "sblid": f"SBL{number}", "rir": "ripencc"})


#: By a feed's name: what its file is, and its lines.
FILES: dict[str, tuple[str, Callable[[Made, int], Iterator[str]]]] = {
    "openphish": ("lines of URLs", lambda made, rows: map(made.url, range(rows))),
    "phishing_army": ("lines of hosts", lambda made, rows: (made.host() for _ in range(rows))),
    "cins": ("lines of addresses", lambda made, rows: (str(made.address()) for _ in range(rows))),
    "hashes": (
        "lines of SHA-256",
        lambda made, rows: (f"{made.chance.getrandbits(256):064x}" for _ in range(rows)),
    ),
    "urlhaus": ("CSV, 9 columns, 7 properties", urlhaus),
    "phishtank": ("CSV, 8 columns, found by parts, too", phishtank),
    "spamhaus_drop_v4": ("JSON lines of ranges", spamhaus),
}


def described(name: str) -> Description:
    """The feed as the catalogue has it."""
    document = Document(name="benchmark", base_dir=Path("/"))
    return read_description(name, HASHES if name == "hashes" else {}, document)


def measure(name: str, where: Path, rows: int) -> None:
    """One feed; in a process of its own."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    gc.set_threshold(RARELY)
    file, made = where / f"{name}.data", where / f"{name}.made"
    with file.open("w") as out:
        out.writelines(f"{line}\n" for line in FILES[name][1](Made(rows), rows))
    reading = Reading.of(described(name), file).as_json()
    about = FeedAbout(name=name, label=key_label(), source="benchmark")

    def index(made: Path) -> float:
        wanted: dict[str, Any] = {"reading": reading, "source": about.source, "made": str(made)}
        wanted |= {"least": 1, "most_refused": 0.0}
        started = time.process_time()
        done = work({"directory": str(where), "names": [name], "works": {name: wanted}})
        took = time.process_time() - started
        assert done[name]["records"] == rows, done
        return took

    def examined(index: Path | None) -> float:
        started = time.process_time()
        counts = examine(
            {
                "reading": reading,
                "index": None if index is None else str(index),
                "about": asdict(about),
            }
        )
        took = time.process_time() - started
        assert counts["records"] == rows, counts
        return took

    first = examined(made)
    second = index(made)
    counted = examined(None)
    anew = index(where / "none")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"| {FILES[name][0]} | {rows / (first + second):,.0f} | {rows / first:,.0f}"
        f" | {rows / second:,.0f} | {rows / counted:,.0f} | {rows / anew:,.0f} | {peak:,.0f} |",
        flush=True,
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--feeds", nargs="*", choices=FILES, default=list(FILES))
    parser.add_argument("--one", choices=FILES, help=argparse.SUPPRESS)
    parser.add_argument("--where", type=Path)
    options = parser.parse_args()
    if options.one:
        measure(options.one, options.where, options.rows)
        return
    print(f"{options.rows:,} rows each, rows a second of one core's time:\n")
    print("| file | file to index | examine | index | counted alone | anew | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    for name in options.feeds:
        with tempfile.TemporaryDirectory(prefix="ctsd-builds-", dir=options.where) as where:
            child = [sys.executable, __file__, "--one", name, "--where", where]
            subprocess.run([*child, "--rows", str(options.rows)], check=True)


if __name__ == "__main__":
    main()
