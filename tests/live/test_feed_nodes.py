"""Two real daemons on one PostgreSQL and one directory: one of them downloads a feed for both."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import make_pair
from tests.live.daemon import Daemon, wait_until
from tests.live.provider import Connection, Provider, serves
from tests.postgres import MISSING, Server

CONFIG = """
[store]
url = '{url}'
password = {{ env = 'PG_PASSWORD' }}
[outbound]
ca_file = "{directory}/tls/cert.pem"
feeds_dir = "{directory}/feeds"
[feeds.mine]
url = "{feed}"
internal = true
format = "lines"
indicators = [{{ field = "line", type = "net.ip" }}]
min_interval_secs = 0
every_secs = 3600
"""

GOOD = b"".join(b"203.0.113.%d\n" % number for number in range(100))

#: A dead node's lease has to end.
LONG_SECS = 120.0


class NodesTests(SynchronousTestCase):
    """Nodes that share the copies of feeds."""

    skip = MISSING or None

    def setUp(self) -> None:
        """A database, a provider."""
        self.server = Server()
        self.addCleanup(self.server.remove)
        self.database = self.server.new_database()
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(mode=0o755)
        self.provider = Provider(make_pair(), self.directory / "tls")
        self.addCleanup(self.provider.end)

    def node(self, name: str) -> Daemon:
        """A node that runs."""
        daemon = Daemon(
            self.directory / name,
            CONFIG.format(
                url=self.server.url(self.database),
                directory=self.directory,
                feed=self.provider.url("/feed"),
            ),
            environ={"PG_PASSWORD": self.server.password},
        )
        self.addCleanup(daemon.stop)
        daemon.start()
        return daemon

    def found(self, daemon: Daemon) -> bool:
        """Whether a node has the feed."""
        answer = daemon.post("net.ip", "203.0.113.7")
        return answer.status in (200, 303) and bool(answer.json["hits"])

    def test_one_for_all(self) -> None:
        """
        One node asks the provider; when it is killed in the middle of that, the other one does,
        once its lease has ended; a node that comes later finds all there.
        """
        half: list[bool] = []

        def stops_half_way(connection: Connection) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(GOOD))
            connection.send(GOOD[: len(GOOD) // 2])
            half.append(True)
            connection.wait()

        self.provider.vices["/feed"] = stops_half_way
        one = self.node("one")
        wait_until(lambda: half, "half of a file")
        other = self.node("other")
        self.assertFalse(self.found(other))
        self.provider.vices["/feed"] = serves(GOOD)
        self.assertEqual(len(self.provider.asked), 1)
        one.kill()
        wait_until(lambda: self.found(other), "the other one's copy", LONG_SECS)
        third = self.node("third")
        wait_until(lambda: self.found(third), "the same copy")
        self.assertEqual(len(self.provider.asked), 2)
        shared = self.directory / "feeds" / "mine"
        # Each had the lease once: the newer one's token is what was written last.
        self.assertGreaterEqual(json.loads((shared / "feed.json").read_bytes())["token"], 2)
        files = {each.name for each in shared.iterdir()}
        # The copy, and the index that was made when it was looked at.
        kept = sorted(each.partition("-")[0] for each in files - {"lock", "feed.json"})
        self.assertEqual(kept, ["data", "index"])
