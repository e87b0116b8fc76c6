"""
A million-row PhishTank file: `python benchmarks/million.py`.

Time to the final answer for one client; then the answers' latency, at a moderate load, before and
while the file is replaced and its index is built and swapped in. The daemon and its child share a
core, wrk has another.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from http_load import Server, Way, ask, load, urls, wait_for, write_feed

#: Of each of 8 connections.
PAUSE_MS = 10.0


def paced(way: Way, values: Path, secs: float, seed: int) -> dict:
    """What 8 connections measure that ask some 750 times a second together."""
    return load(way, "post-hit", values, 8, secs, seed, PAUSE_MS)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--cores", default="0", help="of the server and its child process")
    options = parser.parse_args()
    where = Path(tempfile.mkdtemp(prefix="ctsd-million-"))
    rows = urls(options.rows)
    feed, values = where / "feed.csv", where / "values"
    write_feed(feed, rows)
    values.write_text("\n".join(rows[::50]) + "\n")
    config = where / "ctsd.toml"
    config.write_text(
        f'state_dir = "var"\nlisten = ["tcp:8801:interface=127.0.0.1:backlog=1024"]\n'
        f'[searchers.phishtank]\nfile = "{feed}"\n'
    )
    twistd = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile="]
    server = Server("ctsd", 8801, [*twistd, "ctsd", "--config", str(config)], where, options.cores)
    try:
        wait_for(lambda: ask(8801, "OPTIONS", "/"), 30)
        started = time.monotonic()
        post = {"type": "net.uri", "value": rows[0]}
        wait_for(lambda: ask(8801, "POST", "/", post)["hits"], 300)
        print(f"{options.rows:,} rows served {time.monotonic() - started:.1f} s after the start")
        way = Way("plain", server, 8801)
        one = load(way, "post-hit", values, 1, 5, 1)
        print(f"one client, POST with a hit: p50 {one['p50']:.2f} ms, p99 {one['p99']:.2f} ms")
        quiet = paced(way, values, 15, 2)
        fresh = where / "fresh.csv"
        write_feed(fresh, [*rows, "http://fresh.example/"])
        fresh.replace(feed)
        busy = paced(way, values, 75, 3)
        new = ask(8801, "POST", "/", {"type": "net.uri", "value": "http://fresh.example/"})
        print(f"the new file {'is' if new['hits'] else 'is NOT'} served")
        for name, result in (("before", quiet), ("while it is swapped in", busy)):
            print(
                f"{name}: {result['rate']:,.0f}/s, p50 {result['p50']:.2f} ms, "
                f"p99 {result['p99']:.2f} ms, p99.9 {result['p999']:.2f} ms, "
                f"max {result['max']:.1f} ms, errors {result['errors'] + result['not2xx']:.0f}"
            )
        print(f"ctsd: {server.rss_mib():.0f} MiB resident (mapped index included)")
    finally:
        server.stop()
        subprocess.run(["rm", "-r", str(where)], check=True)


if __name__ == "__main__":
    main()
