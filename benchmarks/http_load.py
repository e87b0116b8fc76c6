"""
ctsd beside a bare twisted.web Site, in one run: `python benchmarks/http_load.py`.

Each server is pinned on one core and wrk on another; servers take turns within every round, so
that a noisy machine is noisy for both. Prints a table of medians, spread and ratios. `--help`
lists the options.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
CTSD = str(Path(sys.executable).parent / "ctsd")
ROWS = 60_000
#: name, kind for load.lua
CASES = ["options", "post-hit", "post-miss", "get", "multipart-hit", "multipart-miss"]
#: what each is compared with on the bare site
YARDSTICK = {"options": "options", "get": "get"}


def urls(rows: int) -> list[str]:
    """Made-up phishing URLs of realistic length."""
    paths = ["login.php?session=%x", "wp-content/uploads/%x/index.html", "secure/%x/account/update"]
    return [
        f"http://host{n % (rows // 3)}-{(n * 7919) % 100003}.example/"
        + paths[n % 3] % (n * 2654435761)
        for n in range(rows)
    ]


def write_feed(path: Path, rows: list[str]) -> None:
    """A file in PhishTank's format."""
    with path.open("w") as feed:
        feed.write(
            "phish_id,url,phish_detail_url,submission_time,verified,verification_time,online,target\n"
        )
        for n, url in enumerate(rows, 1):
            feed.write(
                f"{n},{url},http://www.phishtank.com/phish_detail.php?phish_id={n},"
                "2026-01-01T00:00:00+00:00,yes,2026-01-01T01:00:00+00:00,yes,Some Bank\n"
            )


class Server:
    """One server on one pinned core."""

    def __init__(
        self, name: str, port: int, command: list[str], cwd: Path, core: int | str
    ) -> None:
        self.name, self.port = name, port
        self.log = (cwd / f"{name}.log").open("wb")
        pin = ["taskset", "-c", str(core)]
        self.process = subprocess.Popen(
            [*pin, *command], cwd=cwd, stdout=self.log, stderr=subprocess.STDOUT
        )

    def cpu_secs(self) -> float:
        """Processor time so far, children not included."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def ask(port: int, method: str, path: str, body: object = None) -> dict:
    """One request, for setting up."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, method=method)
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def wait_for(check, secs: float) -> None:
    """Until a check is true."""
    deadline = time.monotonic() + secs
    while True:
        try:
            if check():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"not ready within {secs} s")
        time.sleep(0.2)


@dataclass(frozen=True)
class Way:
    """A way to a server: how it listens there."""

    name: str
    server: Server
    port: int
    scheme: str = "http"
    authorization: str = ""


def load(
    way: Way,
    kind: str,
    values: Path,
    connections: int,
    secs: float,
    seed: int,
    pause_ms: float = 0.0,
    cores: str = "1",
) -> dict:
    """What wrk measures, on these cores."""
    command = ["taskset", "-c", cores, "wrk", "-t1", f"-c{connections}", f"-d{secs:g}s"]
    command += ["--timeout", "10s", "-s", str(HERE / "load.lua")]
    command += [f"{way.scheme}://127.0.0.1:{way.port}/"]
    command += ["--", kind, str(values), str(seed), way.authorization, f"{pause_ms:g}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = re.search(r"RESULT (.*)", said)[1]
    result = {k: float(v) for k, v in (pair.split("=") for pair in line.split())}
    result["rate"] = result["requests"] / result["micros"] * 1e6
    return result


def write_certificate(where: Path) -> None:
    """A key on P-256 and a certificate for it, C{key.pem} and C{cert.pem}."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (where / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (where / "key.pem").write_bytes(key.private_bytes(*form))


def write_users(where: Path) -> str:
    """A file of passwords, C{users}; the header that one of them makes."""
    subprocess.run(
        [CTSD, "passwd", "users", "ann"], input=b"secret\nsecret\n", check=True, cwd=where
    )
    return "Basic " + base64.b64encode(b"ann:secret").decode()


def add_threats(config: Path, count: int, where: Path) -> None:
    """A local database of made-up addresses, through the command line."""
    lines = where / "threats.jsonl"
    with lines.open("w") as out:
        for n in range(count):
            url = f"http://internal{n % 50021}.example/{n:x}/{(n * 2654435761) % 2**32:x}"
            threat = {
                "name": f"Campaign {n % 100}",
                "artifacts": [{"type": "net.uri", "value": url}],
                "properties": [{"type": "string", "name": "campaign", "value": str(n % 100)}],
            }
            out.write(json.dumps(threat) + "\n")
    started = time.monotonic()
    command = [CTSD, "threats", "import", "--config", str(config), str(lines)]
    subprocess.run(command, check=True, cwd=where)
    print(f"imported {count:,} threats in {time.monotonic() - started:.0f} s", flush=True)


def start_on_postgres(where: Path, config: str, twistd: list[str]) -> tuple[Any, Server]:
    """A PostgreSQL that keeps what it is given, on wrk's core, and ctsd on it."""
    from tests.postgres import Server as Database

    settings = {"shared_buffers": "256MB", "max_wal_size": "4GB"}
    database = Database(settings=settings, prefix=["taskset", "-c", "1"])
    directory = where / "postgres"
    directory.mkdir()
    password = directory / "password"
    password.write_text(database.password)
    password.chmod(0o600)
    lines = [line for line in config.splitlines() if not line.startswith("listen")]
    lines.insert(1, 'listen = ["tcp:8805:interface=127.0.0.1:backlog=1024"]')
    url = database.url(database.new_database())
    lines += ["[store]", f'url = "{url}"', f'password = {{ file = "{password}" }}']
    (directory / "ctsd.toml").write_text("\n".join(lines) + "\n")
    return database, Server(
        "postgres", 8805, [*twistd, "ctsd", "--config", "ctsd.toml"], directory, 0
    )


def print_doors(results: dict, cpu: dict, cases: list[str], doors: list[str]) -> None:
    """What doors cost: the rate through each, beside that of the plain listener."""
    print("\n| case | door | plain/s | door/s | ratio | more µs CPU | p99 ms | errors |")
    print("|---|---|---|---|---|---|---|---|")
    for case in cases:
        plain = [one["rate"] for one in results["ctsd", case]]
        for door in doors:
            runs = results[door, case]
            rates = [one["rate"] for one in runs]
            ratio = statistics.median(o / b for o, b in zip(rates, plain, strict=True))
            more = statistics.median(cpu[door, case]) - statistics.median(cpu["ctsd", case])
            print(
                f"| {case} | {door} | {statistics.median(plain):,.0f} "
                f"| {statistics.median(rates):,.0f} | {ratio:.2f} | {more:+.0f} "
                f"| {statistics.median(one['p99'] for one in runs):.1f} "
                f"| {sum(one['errors'] + one['not2xx'] for one in runs):.0f} |"
            )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--secs", type=float, default=4)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--threats", type=int, default=0, help="in the local database")
    parser.add_argument("--cases", nargs="*", default=CASES)
    parser.add_argument("--klein", action="store_true", help="short_path = false")
    parser.add_argument("--auth", action="store_true", help="what auth: costs")
    parser.add_argument("--tls", action="store_true", help="what TLS costs")
    parser.add_argument("--postgres", action="store_true", help="the store on PostgreSQL, too")
    parser.add_argument("--keep", action="store_true", help="keep the directory, say where it is")
    options = parser.parse_args()
    where = Path(tempfile.mkdtemp(prefix="ctsd-bench-"))
    rows = urls(options.rows)
    feed, values = where / "feed.csv", where / "values"
    ids = {port: where / f"ids-{port}" for port in (8801, 8805)}
    write_feed(feed, rows)
    values.write_text("\n".join(rows) + "\n")
    config = where / "ctsd.toml"
    tls = ":privateKey=key.pem:certKey=cert.pem"
    wanted = {"ctsd": "tcp:8801"}
    if options.auth:
        wanted["auth"] = "auth:users:tcp:8802"
    if options.tls:
        wanted["tls"] = f"ssl:8803{tls}"
    if options.auth and options.tls:
        wanted["both"] = f"auth:users:ssl:8804{tls}"
    write_certificate(where)
    authorization = write_users(where)
    listen = [f"{one}:interface=127.0.0.1:backlog=1024" for one in wanted.values()]
    config.write_text(
        f'state_dir = "var"\nlisten = {json.dumps(listen)}\n'
        f"short_path = {str(not options.klein).lower()}\n"
        f'[searchers.phishtank]\nfile = "{feed}"\n'
    )
    (where / "ctsd.tac").write_text((HERE.parent / "ctsd.tac").read_text())
    if options.threats:
        add_threats(config, options.threats, where)
    twistd = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile="]
    servers = [
        Server("bare", 8800, [sys.executable, str(HERE / "bare_site.py"), "8800"], where, 0),
        Server("ctsd", 8801, [*twistd, "ctsd", "--config", str(config)], where, 0),
    ]
    every = [
        Way("bare", servers[0], 8800),
        Way("ctsd", servers[1], 8801),
        Way("auth", servers[1], 8802, authorization=authorization),
        Way("tls", servers[1], 8803, "https"),
        Way("both", servers[1], 8804, "https", authorization),
    ]
    ways = [way for way in every if way.name == "bare" or way.name in wanted]
    database = None
    if options.postgres:
        database, server = start_on_postgres(where, config.read_text(), twistd)
        servers.append(server)
        ways.append(Way("postgres", server, 8805))
    try:
        wait_for(lambda: ask(8800, "OPTIONS", "/"), 30)
        wait_for(lambda: ask(8801, "OPTIONS", "/"), 30)
        post = {"type": "net.uri", "value": rows[0]}
        for port in [8801, 8805] if options.postgres else [8801]:
            wait_for(lambda: ask(port, "POST", "/", post)["hits"], 120)  # noqa: B023
            finished = [
                ask(port, "POST", "/", {"type": "net.uri", "value": url})["id"]
                for url in rows[:500]
            ]
            ids[port].write_text("\n".join(finished) + "\n")
        results: dict[tuple[str, str], list[dict]] = {}
        cpu: dict[tuple[str, str], list[float]] = {}
        for round_ in range(options.rounds):
            for case in options.cases:
                for turn, way in enumerate(ways):
                    # Values of its own, so that nobody is asked what another was asked before.
                    seed = (round_ + 1) * len(ways) + turn
                    source = ids.get(way.port, ids[8801]) if case == "get" else values
                    before = way.server.cpu_secs()
                    result = load(way, case, source, options.connections, options.secs, seed)
                    spent = way.server.cpu_secs() - before
                    results.setdefault((way.name, case), []).append(result)
                    cpu.setdefault((way.name, case), []).append(
                        spent / max(result["requests"], 1) * 1e6
                    )
        print(
            f"\n{options.rounds} rounds of {options.secs:g} s, {options.connections} connections, "
            f"{options.rows:,} rows, {options.threats:,} threats"
            + (", through Klein" if options.klein else "")
        )
        print("\n| case | bare/s | ctsd/s | spread | ratio | µs CPU | p50 ms | p99 ms | errors |")
        print("|---|---|---|---|---|---|---|---|---|")
        for case in options.cases:
            bare = [one["rate"] for one in results["bare", case]]
            ours = results["ctsd", case]
            rates = [one["rate"] for one in ours]
            ratio = statistics.median(o / b for o, b in zip(rates, bare, strict=True))
            errors = sum(one["errors"] + one["not2xx"] for one in ours)
            print(
                f"| {case} | {statistics.median(bare):,.0f} | {statistics.median(rates):,.0f} "
                f"| {min(rates):,.0f}-{max(rates):,.0f} | {ratio:.2f} "
                f"| {statistics.median(cpu['ctsd', case]):.0f} "
                f"| {statistics.median(one['p50'] for one in ours):.1f} "
                f"| {statistics.median(one['p99'] for one in ours):.1f} | {errors:.0f} |"
            )
        if len(ways) > 2:
            print_doors(results, cpu, options.cases, [way.name for way in ways[2:]])
        print(f"\nctsd: {servers[1].rss_mib():.0f} MiB resident")
    finally:
        for server in servers:
            server.stop()
        if database is not None:
            database.remove()
        if options.keep:
            print(where)
        else:
            subprocess.run(["rm", "-r", str(where)], check=True)


if __name__ == "__main__":
    main()
