"""
What feeds cost a scan: `python benchmarks/feeds_http.py --rows 10000000`.

Two daemons, one with 20 feeds and one without any, each alone on the first core in its turn; wrk on
the other. POSTs of each type that no feed has, and of URLs that one has; addresses and ranges that
miss are looked for before, for of random ones some are in a listed range, or have something listed
in them. Prints how long the feeds took to load, the memory of both, and the rates and processor
time of both side by side. `--help` lists the options.
"""

from __future__ import annotations

import argparse
import ipaddress
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from feeds import pss_mib, values  # noqa: E402
from http_load import CTSD, Server, Way, ask, load, wait_for  # noqa: E402
from workers import free_ports, processes  # noqa: E402

#: How many feeds have indicators of a type.
FEEDS = {"net.uri": 8, "net.name": 4, "hash.sha256": 4, "net.ip": 3, "net.cidr": 1}

#: Of these types misses are written to a file; others are made up by wrk.
WRITTEN = ("net.ip", "net.cidr")
MISSES = 200_000

CASES = [
    *(f"post-{'listed' if type in WRITTEN else 'miss'} {type}" for type in FEEDS),
    "post-hit",
]


def write_feeds(where: Path, rows: int) -> str:
    """Files of so many rows in all; what turns them on."""
    config = []
    each = rows // sum(FEEDS.values())
    for type, count in FEEDS.items():
        for number in range(count):
            name = f"{type.partition('.')[2]}{number}"
            file = where / f"{name}.txt"
            with file.open("w") as out:
                out.writelines(f"{value}\n" for value in values(type, each, number))
            config.append(
                f'[feeds.{name}]\nfile = "{file}"\nformat = "lines"\n'
                f'[[feeds.{name}.indicators]]\nfield = "line"\ntype = "{type}"\n'
                f'[feeds.{name}.properties]\nindicator = "line"\n'
            )
    return "\n".join(config)


def write_misses(where: Path) -> None:
    """Addresses that no feed has, and C{/24}s in which nothing is and that are in nothing."""
    addresses, ranges = (
        {
            int(ipaddress.IPv4Address(line.partition("/")[0]))
            for number in range(FEEDS[type])
            for line in (where / f"{type[4:]}{number}.txt").read_text().split()
        }
        for type in WRITTEN
    )
    # No listed range is wider than a /24, so what is in no /24 of these is in nothing.
    taken = {first >> 8 for first in ranges}
    used = taken | {address >> 8 for address in addresses}
    chance = random.Random("misses")
    for type in WRITTEN:
        found: list[str] = []
        while len(found) < MISSES:
            address = chance.randrange(1 << 24, 224 << 24)
            if type == "net.ip" and address not in addresses and address >> 8 not in taken:
                found.append(f"{ipaddress.IPv4Address(address)}")
            elif type == "net.cidr" and address >> 8 not in used:
                found.append(f"{ipaddress.IPv4Address(address >> 8 << 8)}/24")
        (where / type).write_text("\n".join(found) + "\n")


def start(name: str, port: int, where: Path, config: str) -> Server:
    """A daemon with a directory of its own."""
    directory = where / name
    directory.mkdir()
    listen = f"tcp:{port}:interface=127.0.0.1:backlog=1024"
    (directory / "ctsd.toml").write_text(f'listen = ["{listen}"]\n{config}')
    twistd = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile="]
    # Not pinned while it loads: its children would share its core.
    return Server(name, port, [*twistd, "ctsd", "--config", "ctsd.toml"], directory, "0,1")


def is_loaded(server: Server, values: list[str]) -> bool:
    """Whether each of these is found."""
    return all(
        ask(server.port, "POST", "/", {"type": "net.uri", "value": value}).get("hits")
        for value in values
    )


def measure(servers: list[Server], where: Path, options: argparse.Namespace) -> None:
    """Rates of both, case by case, in turns."""
    print(f"\n{options.rounds} rounds of {options.secs:g} s, {options.connections} connections")
    print(
        "\n| case | without/s | with/s | time of a POST | spread | more µs CPU | p50 ms without "
        "| with | p99 ms without | with | errors |"
    )
    print("|---" * 11 + "|")
    for number, case in enumerate(options.cases):
        runs: dict[str, list[dict]] = {server.name: [] for server in servers}
        type = case.partition(" ")[2]
        file = where / (type if type in WRITTEN else "urls")
        for round_ in range(options.rounds):
            for server in servers:
                before = server.cpu_secs()
                seed = 100 * number + round_ + 1
                way = Way(server.name, server, server.port)
                result = load(way, case, file, options.connections, options.secs, seed)
                result["cpu"] = (server.cpu_secs() - before) / result["requests"] * 1e6
                runs[server.name].append(result)
        pairs = list(zip(*runs.values(), strict=True))
        slower = [without["rate"] / with_["rate"] for without, with_ in pairs]
        more = statistics.median(with_["cpu"] - without["cpu"] for without, with_ in pairs)
        shown = [
            " | ".join(
                f"{statistics.median(run[key] for run in each):,.{places}f}"
                for each in runs.values()
            )
            for key, places in (("rate", 0), ("p50", 2), ("p99", 2))
        ]
        errors = sum(run["errors"] + run["not2xx"] for each in runs.values() for run in each)
        print(
            f"| {case} | {shown[0]} | {statistics.median(slower):.2f} "
            f"| {min(slower):.2f}-{max(slower):.2f} | {more:+.0f} | {shown[1]} | {shown[2]} "
            f"| {errors:.0f} |",
            flush=True,
        )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--secs", type=float, default=2)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--cases", nargs="*", default=CASES)
    parser.add_argument("--load-secs", type=float, default=1800)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ctsd-bench-") as directory:
        where = Path(directory)
        config = write_feeds(where, options.rows)
        ports = free_ports(2)
        servers: list[Server] = []
        try:
            started = time.monotonic()
            servers.append(start("without", ports[0], where, ""))
            servers.append(start("with", ports[1], where, config))
            wait_for(lambda: ask(ports[0], "OPTIONS", "/"), 60)
            last = []
            for number in range(FEEDS["net.uri"]):
                lines = (where / f"uri{number}.txt").read_text().splitlines()
                last.append(lines[-1])
                if not number:
                    (where / "urls").write_text("\n".join(lines[:200_000]) + "\n")
            wait_for(lambda: is_loaded(servers[1], last), options.load_secs)
            listed = [CTSD, "feeds", "--config", str(where / "with" / "ctsd.toml")]
            wait_for(lambda: not said(listed, "never"), options.load_secs)
            print(f"{options.rows:,} rows loaded in {time.monotonic() - started:.0f} s")
            for server in servers:
                memory = sum(pss_mib(process) for process in processes(server))
                print(f"memory (PSS) {server.name}: {memory:,.0f} MiB")
                subprocess.run(
                    ["taskset", "-a", "-c", "-p", "0", str(server.process.pid)],
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
            write_misses(where)
            measure(servers, where, options)
        finally:
            for server in servers:
                server.stop()


def said(command: list[str], word: str) -> bool:
    """Whether a command says a word."""
    return word in subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
