"""
Two workers beside one process, in one run: `python benchmarks/workers.py`.

The workers share both cores with wrk, so that what wrk needs is lost to them. The one process is
measured twice: sharing its one core with wrk ("same"), which is what one core does where two do
what the workers do, and with wrk on the other core ("apart"). On a machine that does other things,
too, read how many cores each really had, and "2 x one / two": what two cores do at what a request
costs. Then: ids that one
worker issues and the other is asked for, all workers replaced under load, and what memory each
costs. Prints counts. `--help` lists the options.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from http_load import ROWS, Server, Way, ask, load, urls, wait_for, write_feed  # noqa: E402

CASES = ["post-hit", "post-miss", "get"]
KIB = 1024


def processes(server: Server) -> list[int]:
    """The daemon's process, and those of its workers."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [server.process.pid, *map(int, children.read_text().split())]


def cpu_secs(server: Server) -> float:
    """Processor time so far of the daemon and its workers."""
    total = 0.0
    for process in processes(server):
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def idle_secs() -> float:
    """Time so far in which a core had nothing to do, or waited for the disk; of all cores."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")


def pss_mib(process: int) -> float:
    """Memory, with what several processes map shared out among them."""
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1]) / KIB


def start(name: str, port: int, workers: int, where: Path, feed: Path, core: str) -> Server:
    """A daemon with a directory of its own."""
    directory = where / name
    directory.mkdir()
    listen = f"tcp:{port}:interface=127.0.0.1:backlog=1024"
    (directory / "ctsd.toml").write_text(
        f'listen = ["{listen}"]\nworkers = {workers}\n[searchers.phishtank]\nfile = "{feed}"\n'
    )
    twistd = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile="]
    return Server(name, port, [*twistd, "ctsd", "--config", "ctsd.toml"], directory, core)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    import socket

    found = [socket.socket() for _ in range(count)]
    for each in found:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in found]
    for each in found:
        each.close()
    return ports


class Pairs(threading.Thread):
    """Posts, and asks for the id at once, each on a connection of its own."""

    def __init__(self, port: int, rows: list[str], enough: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.rows, self.enough = port, rows, enough
        self.asked = self.lost = 0
        self.failed: list[str] = []

    def run(self) -> None:
        """Until it is enough."""
        for row in self.rows:
            if self.enough.is_set():
                return
            try:
                status, posted = self._ask("POST", "/", {"type": "net.uri", "value": row})
                if status != 200:
                    raise OSError(f"status {status}")
                got = self._ask("GET", "/" + json.loads(posted)["id"])
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                continue
            self.asked += 1
            self.lost += got != (200, posted)

    def _ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def scaling(one: Server, two: Server, values: dict, options: argparse.Namespace) -> None:
    """Rates of both, case by case, in turns."""
    results: dict[tuple[str, str], list[dict]] = {}
    for round_ in range(options.rounds):
        for case in options.cases:
            for turn, (name, server, cores) in enumerate(
                (("same", one, "0"), ("two", two, "0,1"), ("apart", one, "1"))
            ):
                source = values[server.name, "ids" if case == "get" else "urls"]
                before, idle = cpu_secs(server), idle_secs()
                result = load(
                    Way(name, server, server.port),
                    case,
                    source,
                    options.connections,
                    options.secs,
                    round_ * 3 + turn + 1,
                    cores=cores,
                )
                spent = cpu_secs(server) - before
                result["cpu"] = spent / max(result["requests"], 1) * 1e6
                result["cores"] = spent / options.secs
                result["idle"] = (idle_secs() - idle) / options.secs
                results.setdefault((name, case), []).append(result)
    print(f"\n{options.rounds} rounds of {options.secs:g} s, {options.connections} connections")
    print(
        "\n| case | same/s | apart/s | two/s | two / same | spread | two / apart | spread "
        "| µs CPU same | two | 2 x one / two | cores same | apart | two | idle "
        "| p99 ms same | two | errors |"
    )
    print("|---" * 18 + "|")
    for case in options.cases:
        runs = {name: results[name, case] for name in ("same", "apart", "two")}

        def ratios(name: str) -> str:
            each = [b["rate"] / a["rate"] for a, b in zip(runs[name], runs["two"], strict=True)]  # noqa: B023
            return f"{statistics.median(each):.2f} | {min(each):.2f}-{max(each):.2f}"

        def median(name: str, key: str) -> float:
            return statistics.median(run[key] for run in runs[name])  # noqa: B023

        errors = sum(run["errors"] + run["not2xx"] for each in runs.values() for run in each)
        print(
            f"| {case} | {median('same', 'rate'):,.0f} | {median('apart', 'rate'):,.0f} "
            f"| {median('two', 'rate'):,.0f} | {ratios('same')} | {ratios('apart')} "
            f"| {median('same', 'cpu'):.0f} | {median('two', 'cpu'):.0f} "
            f"| {2 * median('same', 'cpu') / median('two', 'cpu'):.2f} "
            f"| {median('same', 'cores'):.2f} | {median('apart', 'cores'):.2f} "
            f"| {median('two', 'cores'):.2f} | {median('two', 'idle'):.2f} "
            f"| {median('same', 'p99'):.1f} | {median('two', 'p99'):.1f} | {errors:.0f} |"
        )


def ids(two: Server, rows: list[str], secs: float) -> None:
    """Ids that one worker issues, asked for at any."""
    enough = threading.Event()
    clients = [Pairs(two.port, rows[number::4], enough) for number in range(4)]
    for client in clients:
        client.start()
    time.sleep(secs)
    enough.set()
    for client in clients:
        client.join(60)
    print(
        f"\nids: {sum(client.asked for client in clients):,} asked for right after the POST, "
        f"{sum(client.lost for client in clients)} lost, "
        f"{sum(len(client.failed) for client in clients)} failed"
    )


def replaced(two: Server, values: Path, rows: list[str], options: argparse.Namespace) -> None:
    """All workers replaced again and again, under load."""
    log = Path(two.log.name)
    command = ["wrk", "-t1", f"-c{options.connections}", f"-d{options.replace_secs:g}s"]
    command += ["--timeout", "10s", "-s", str(HERE / "load.lua")]
    command += [f"http://127.0.0.1:{two.port}/", "--", "post-hit", str(values), "99", ""]
    wrk = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    enough = threading.Event()
    clients = [Pairs(two.port, rows[number::2], enough) for number in range(2)]
    for client in clients:
        client.start()
    times = log.read_text().count("All workers were replaced")
    begun = times
    while wrk.poll() is None:
        if log.read_text().count("All workers were replaced") == begun:
            two.process.send_signal(signal.SIGUSR2)
            begun += 1
        time.sleep(0.2)
    enough.set()
    for client in clients:
        client.join(60)
    wait_for(lambda: log.read_text().count("All workers were replaced") == begun, 60)
    said = re.search(r"RESULT (.*)", wrk.communicate()[0])[1]
    result = {k: float(v) for k, v in (pair.split("=") for pair in said.split())}
    print(
        f"\nreplaced {begun - times} times under load:\n"
        f"  keep-alive: {result['requests']:,.0f} requests, {result['errors']:.0f} broken, "
        f"{result['not2xx']:.0f} not 200; p99 {result['p99']:.0f} ms, longest {result['max']:.0f}\n"
        f"  a connection each: {2 * sum(client.asked for client in clients):,} requests, "
        f"{sum(len(client.failed) for client in clients)} failed, "
        f"{sum(client.lost for client in clients)} ids lost"
    )


def memory(*servers: Server) -> None:
    """What each process costs."""
    print("\nmemory (PSS):")
    for server in servers:
        each = [pss_mib(process) for process in processes(server)]
        print(
            f"  {server.name}: {sum(each):.0f} MiB ("
            + ", ".join(f"{one:.0f}" for one in each)
            + ")"
        )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--secs", type=float, default=2)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--replace-secs", type=float, default=12)
    parser.add_argument("--cases", nargs="*", default=CASES)
    options = parser.parse_args()
    where = Path(tempfile.mkdtemp(prefix="ctsd-bench-"))
    rows = urls(options.rows)
    feed = where / "feed.csv"
    write_feed(feed, rows)
    ports = free_ports(2)
    one = start("one", ports[0], 1, where, feed, "0")
    two = start("two", ports[1], 2, where, feed, "0,1")
    values = {}
    try:
        post = {"type": "net.uri", "value": rows[0]}
        for name, server in (("one", one), ("two", two)):
            wait_for(lambda: ask(server.port, "POST", "/", post)["hits"], 120)  # noqa: B023
            issued = [
                ask(server.port, "POST", "/", {"type": "net.uri", "value": row})["id"]
                for row in rows[:500]
            ]
            values[name, "ids"], values[name, "urls"] = where / f"{name}.ids", where / "urls"
            values[name, "ids"].write_text("\n".join(issued) + "\n")
        (where / "urls").write_text("\n".join(rows) + "\n")
        if options.cases:
            scaling(one, two, values, options)
            ids(two, rows, 3)
        memory(one, two)
        if options.replace_secs:
            one.stop()
            replaced(two, where / "urls", rows, options)
    finally:
        for server in (one, two):
            if server.process.poll() is None:
                server.stop()


if __name__ == "__main__":
    main()
