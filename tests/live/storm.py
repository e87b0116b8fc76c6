"""
Nodes behind HAProxy on one PostgreSQL, with a steady load, while all that can happen to them does:
what clients were told is kept, so that it can be held against itself.
"""

from __future__ import annotations

import html
import http.client
import json
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from tests.live.daemon import Daemon, free_port
from tests.postgres import MISSING as NO_POSTGRES
from tests.postgres import Server

#: For C{skip}: why there can be no storm; empty when there can.
MISSING = NO_POSTGRES or (
    "" if shutil.which("haproxy") else "haproxy is not installed (Debian: haproxy)"
)

#: Two searchers, one of which answers in time for the first answer and one that never does.
SEARCHERS = '''
from ctsd.searching import BaseArtifactSearch, Hit, string
from twisted.internet.task import deferLater


class QuickArtifactSearch(BaseArtifactSearch):
    """Needs a moment."""

    name = "quick"
    secs = 0.05

    def supports(self, artifact_type):
        return artifact_type == "string"

    async def search(self, artifact_type, search_term, *, context, **kwargs):
        await deferLater(context.clock, self.secs)
        return [Hit((string(self.name, search_term),))]


class SlowArtifactSearch(QuickArtifactSearch):
    """Needs some seconds."""

    name = "slow"
    secs = 3.0
'''

CONFIG = """
first_answer_secs = 0.3
[searchers]
sync = ["internal"]
async = ["quick", "slow"]
path = ["own"]
[searchers.quick]
slots = 500
[searchers.slow]
slots = 500
[store]
url = '{url}'
password = {{ env = 'PG_PASSWORD' }}
node_lease_secs = {lease}
"""

BALANCER = """
global
    maxconn 2000
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 6s
    option redispatch
    retries 2
    option httpchk GET /health/ready
frontend all
    bind 127.0.0.1:{port}
    default_backend nodes
backend nodes
    balance roundrobin
    default-server check inter 300ms fall 2 rise 1
{servers}
"""


@frozen(kw_only=True)
class Told:
    """
    What a client was told of a scan.

    :ivar asked: when it asked, and C{at} when it was told, monotonic seconds.
    """

    asked: float
    at: float
    status: int
    body: bytes


@define(eq=False)
class Storm:
    """
    Clients that post artifacts and ask for their scans, and what they were told.

    :ivar told: by the scan's id, in the order in which it was told.
    :ivar values: what was posted, by the scan's id.
    :ivar counts: of answers, by what they were.
    :ivar happened: what was done to whom, and how often.
    """

    server: Server
    nodes: list[Daemon]
    balancer: int
    random: random.Random
    told: dict[str, list[Told]] = field(factory=lambda: defaultdict(list))
    values: dict[str, str] = field(factory=dict)
    counts: Counter[str] = field(factory=Counter)
    happened: Counter[str] = field(factory=Counter)
    _lock: threading.Lock = field(factory=threading.Lock)
    _open: deque[tuple[float, str]] = field(factory=deque)
    _number: int = 0
    _calm: threading.Event = field(factory=threading.Event)
    _over: threading.Event = field(factory=threading.Event)
    _frozen: set[Daemon] = field(factory=set)

    def rage(self, secs: float, *, kill_secs: float, frozen_secs: float, away_secs: float) -> None:
        """
        Post and ask for so long, while a node is killed every C{kill_secs}, one is frozen for
        C{frozen_secs} and PostgreSQL is away for C{away_secs}; then ask until all scans are final,
        or two minutes are over.
        """
        clients = [threading.Thread(target=self._post) for _ in range(8)]
        clients += [threading.Thread(target=self._ask_again) for _ in range(8)]
        keepers = [threading.Thread(target=self._keep, args=(node,)) for node in self.nodes]
        for thread in (*clients, *keepers):
            thread.start()
        ends = time.monotonic() + secs
        deeds = [
            (ends - 0.75 * secs, lambda: self._freeze(frozen_secs)),
            (ends - 0.4 * secs, lambda: self._restart_postgres(away_secs)),
        ]
        try:
            while time.monotonic() < ends:
                time.sleep(kill_secs)
                if deeds and time.monotonic() > deeds[0][0]:
                    deeds.pop(0)[1]()
                else:
                    self._kill()
            self._calm.set()
            patience = time.monotonic() + 120
            while self._open and time.monotonic() < patience:
                time.sleep(0.2)
        finally:
            self._calm.set()
            self._over.set()
            for thread in (*clients, *keepers):
                thread.join()

    # -- what happens

    def _kill(self) -> None:
        node = self.random.choice([node for node in self.nodes if node not in self._frozen])
        with suppress(ProcessLookupError):
            node.signal(signal.SIGKILL)
        self.happened["kill -9"] += 1

    def _freeze(self, secs: float) -> None:
        node = self.random.choice(self.nodes)
        self._frozen.add(node)
        node.signal(signal.SIGSTOP)
        self.happened["frozen"] += 1

        def thaw() -> None:
            node.signal(signal.SIGCONT)
            self._frozen.discard(node)

        timer = threading.Timer(secs, thaw)
        timer.daemon = True
        timer.start()

    def _restart_postgres(self, secs: float) -> None:
        self.server.stop()
        time.sleep(secs)
        self.server.start()
        self.happened["PostgreSQL restarted"] += 1

    def _keep(self, node: Daemon) -> None:
        """As a supervisor does."""
        while not self._over.is_set():
            if node.process is None or node.process.poll() is not None:
                node.run()
            time.sleep(0.2)

    # -- clients

    def _post(self) -> None:
        while not self._calm.is_set():
            with self._lock:
                self._number += 1
                # Some come twice at about the same time.
                value = f"value {self._number - self._number % 5 % 2}"
            body = json.dumps({"type": "string", "value": value}).encode()
            told = self._ask("POST", "/", body)
            if told is not None:
                with self._lock:
                    self.values.setdefault(told, value)
                    self._open.append((time.monotonic() + 1, told))
            time.sleep(0.05)

    def _ask_again(self) -> None:
        while not self._over.is_set():
            with self._lock:
                due, scan_id = self._open.popleft() if self._open else (0.0, "")
            if not scan_id:
                time.sleep(0.1)
                continue
            time.sleep(max(min(due - time.monotonic(), 1.0), 0.0))
            again = self._ask("GET", "/" + scan_id)
            # Some are asked for again after their end: they must not say anything else.
            if again is not None or self.told[scan_id][-1].status != 200 or self._is_young(scan_id):
                with self._lock:
                    self._open.append((time.monotonic() + 1, scan_id))

    def _is_young(self, scan_id: str) -> bool:
        return sum(told.status == 200 for told in self.told[scan_id]) < 3

    def _ask(self, method: str, path: str, body: bytes | None = None) -> str | None:
        """One request; the scan's id when the answer is 303, and it was not told to the POST."""
        asked = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.balancer, timeout=20)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            status, answer = response.status, response.read()
            ours = "json" in response.headers.get("Content-Type", "")
        except (OSError, http.client.HTTPException) as error:
            self._count(f"{method} {type(error).__name__}")
            return None
        finally:
            connection.close()
        self._count(f"{method} {status}" + ("" if ours or status == 204 else " by the balancer"))
        if not ours or status not in (200, 303):
            if status == 204:
                raise AssertionError(f"{path} is not known any more")
            return None
        scan_id: str = json.loads(answer)["id"]
        told = Told(asked=asked, at=time.monotonic(), status=status, body=answer)
        with self._lock:
            self.told[scan_id].append(told)
        return scan_id if status == 303 or method == "POST" else None

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    # -- what it comes to

    def wrong(self) -> list[str]:
        """Scans that did not become final with all their hits, and answers that contradict."""
        found = []
        for scan_id, all_told in self.told.items():
            finals = {told.body for told in all_told if told.status == 200}
            value = html.escape(self.values[scan_id])
            if len(finals) != 1:
                found.append(f"{scan_id} has {len(finals)} final answers")
                continue
            [final] = finals
            names = [hit["props"][0]["name"] for hit in json.loads(final)["hits"]]
            if names != ["quick", "slow"] or final.count(f'"{value}"'.encode()) != 2:
                found.append(f"{scan_id} of {value!r} ended with {final!r}")
            first = min(told.at for told in all_told if told.status == 200)
            for told in all_told:
                if told.status == 303 and told.asked > first:
                    found.append(f"{scan_id} was open again {told.asked - first:.1f} s later")
                for hit in json.loads(told.body)["hits"]:
                    if json.dumps(hit, separators=(",", ":")).encode() not in final:
                        found.append(f"{scan_id} has lost a hit")
        return found

    def leftovers(self, database: str) -> int:
        """How many searches are held, or scans open, in the store."""
        [[held, open_]] = self.server.run(
            database,
            "SELECT (SELECT COUNT(*) FROM searches WHERE holder <> ''),"
            " (SELECT COUNT(*) FROM scans WHERE state = 'open')",
        )
        return int(held + open_)

    def report(self) -> str:
        """What was done, and what came of it."""
        lines = [f"  scans that were told: {len(self.told)}"]
        finals = sum(any(told.status == 200 for told in each) for each in self.told.values())
        lines.append(f"  of these final: {finals}")
        for title, counts in (("happened", self.happened), ("answers", self.counts)):
            shown = ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))
            lines.append(f"  {title}: {shown}")
        return "\n".join(lines)


@contextmanager
def storm(directory: Path, *, nodes: int = 3, lease: float = 12.0, seed: int = 1) -> Iterator[Any]:
    """
    Nodes that are ready, behind a balancer.

    :return: the storm, and the name of its database.
    """
    server = Server(settings={"max_connections": "200", "fsync": "off"})
    daemons: list[Daemon] = []
    balancing: subprocess.Popen[bytes] | None = None
    try:
        database = server.new_database()
        for number in range(nodes):
            daemon = Daemon(
                directory / f"node{number}",
                CONFIG.format(url=server.url(database), lease=lease),
                searchers={"searchers.py": SEARCHERS},
                environ={"PG_PASSWORD": server.password},
            )
            daemons.append(daemon)
            daemon.start()
        port = free_port()
        servers = "\n".join(
            f"    server node{number} 127.0.0.1:{daemon.port}"
            for number, daemon in enumerate(daemons)
        )
        config = directory / "haproxy.cfg"
        config.write_text(BALANCER.format(port=port, servers=servers))
        with (directory / "haproxy.log").open("wb") as log:
            balancing = subprocess.Popen(
                ["haproxy", "-db", "-f", str(config)], stdout=log, stderr=log
            )
        time.sleep(1)
        yield Storm(server, daemons, port, random.Random(seed)), database
    finally:
        for daemon in daemons:
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.signal(signal.SIGCONT)
            daemon.stop()
        if balancing is not None:
            balancing.kill()
            balancing.wait()
        server.remove()
