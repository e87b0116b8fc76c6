"""The PhishTank searcher in a real daemon: of its feed, and of a file."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from searchers.phishtank import SAMPLE
from tests.live.daemon import Answer, Daemon, wait_until
from tests.live.provider import Provider, serves

#: What is asked, and how many records of the sample it finds.
ASKED = (
    ("net.uri", "www.megastore.lu", 1),
    ("net.uri", "http://www.megastore.lu/login", 1),
    ("net.uri", "paperbank", 2),
    ("net.uri", "http://www.megastore.lu/", 0),
)


class PhishTankTests(TestCase):
    """The same file, as a feed and as a file."""

    timeout = 180

    def started(self, config: str) -> Daemon:
        """A daemon."""
        daemon = Daemon(Path(self.mktemp()), config)
        self.addCleanup(daemon.stop)
        daemon.start()
        return daemon

    def hits(self, daemon: Daemon, type: str, value: str) -> bytes:
        """The hits of a scan that is complete, as they were sent."""

        def complete() -> Answer | None:
            answer = daemon.post(type, value)
            return answer if answer.status == 200 else None

        answer = wait_until(complete, f"an answer without anything missing on {value}", secs=60)
        return answer.body.partition(b'"hits":')[2]

    def test_same_hits(self) -> None:
        """They are the same bytes, once, by whichever way the file came; after a kill, too."""
        provider = Provider()
        self.addCleanup(provider.end)
        provider.vices["/online-valid.csv"] = serves(SAMPLE.read_bytes())
        feed = f"""
[feeds.phishtank]
enabled = true
url = "{provider.url("/online-valid.csv")}"
insecure_http = true
internal = true
min_rows = 1
"""
        of_file = self.started(f'[searchers.phishtank]\nfile = "{SAMPLE}"\n')
        of_feed = self.started(feed)
        wanted = [self.hits(of_file, type, value) for type, value, _ in ASKED]
        for hits, (_, value, count) in zip(wanted, ASKED, strict=True):
            self.assertEqual(hits.count(b'"props"'), count, value)
        self.assertEqual([self.hits(of_feed, type, value) for type, value, _ in ASKED], wanted)
        # A host is no artifact of this searcher's: there the feed is asked with all others.
        self.assertIn(b"URL on the host", self.hits(of_feed, "net.name", "www.megastore.lu"))
        self.assertRegex(of_feed.ctsd("searchers").stdout, "phishtank +async +on +1 of 1 feeds")
        of_feed.kill()
        provider.vices.clear()
        of_feed.start()
        self.assertEqual([self.hits(of_feed, type, value) for type, value, _ in ASKED], wanted)
