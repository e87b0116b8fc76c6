"""A feed is kept current from a real server that has every vice, in processes that are killed."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ctsd.config.loading import load
from ctsd.feeding import make_downloads, make_outbound
from ctsd.feeds.children import Children
from ctsd.feeds.copies import Copies
from ctsd.feeds.descriptions import read_description
from ctsd.feeds.examinations import Examinations
from ctsd.feeds.feed_state import FeedState
from tests.certificates import make_pair
from tests.live import provider
from tests.live.daemon import PATIENCE_SECS, ROOT, children, wait_until
from tests.live.provider import Connection, Provider, redirects, says, serves

CONFIG = """
state_dir = "var"
[outbound]
ca_file = "tls/cert.pem"
stall_secs = 1
download_secs = 3
[feeds.mine]
url = "{url}"
key = {{ env = "FEED_KEY" }}
headers = {{ Auth-Key = "{{key}}" }}
internal = true
format = "lines"
indicators = [{{ field = "line", type = "net.ip" }}]
every_secs = 3600
min_interval_secs = 0
max_bytes = 2000000
min_rows = 10
over_quota = [509]
"""
KEY = "s3cr3t/key"


def addresses(count: int) -> bytes:
    """A file of so many addresses."""
    return b"".join(b"%d.%d.0.1\n" % (1 + at // 250, at % 250) for at in range(count))


GOOD = addresses(2000)


class FeedCase(TestCase):
    """A provider with TLS, and a configuration that names it."""

    timeout = 300

    def setUp(self) -> None:
        """Start it."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(mode=0o755)
        self.provider = Provider(make_pair(), self.directory / "tls")
        self.addCleanup(self.provider.end)
        self.file = self.directory / "ctsd.toml"
        self.file.write_text(CONFIG.format(url=self.provider.url("/feed")))
        settings = load(self.file, environ={"FEED_KEY": KEY})
        self.description = read_description("mine", settings.feeds["mine"], settings.document)
        outbound = make_outbound(settings, reactor=reactor, in_thread=deferToThread)
        self.downloads = make_downloads(
            settings,
            clock=reactor,
            outbound=outbound,
            examine=Examinations(
                children=Children(reactor=reactor, clock=reactor), lock=DeferredLock()
            ),
            in_thread=deferToThread,
        )

    @property
    def vice(self) -> provider.Vice:
        """What the provider does."""
        return self.provider.vices["/feed"]

    @vice.setter
    def vice(self, vice: provider.Vice) -> None:
        self.provider.vices["/feed"] = vice

    def update(self) -> Deferred[FeedState]:
        """Ask it."""
        return self.downloads.update(self.description)

    def served(self) -> bytes:
        """The copy that serves, unpacked."""
        copies = Copies(self.directory / "var" / "feeds" / "mine")
        copy = copies.state().copy
        assert copy is not None
        data = copies.path(copy).read_bytes()
        self.assertEqual(hashlib.sha256(data).hexdigest(), copy.sha256)
        return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


class VicesTests(FeedCase):
    """The last good copy goes on serving, whatever the provider does."""

    async def test_vices(self) -> None:
        """Each is told for what it is, and leaves the good copy as it was."""
        self.vice = serves(GOOD, 'ETag: "one"')
        state = await self.update()
        assert state.copy is not None
        self.assertEqual((state.error, state.copy.records), ("", 2000))
        bomb = provider.bomb(64 << 20, GOOD)
        inside = io.BytesIO()
        with zipfile.ZipFile(inside, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("list.txt", GOOD + b"\n" * (64 << 20))
        html = b"<!DOCTYPE html><html><body>Please accept our terms</body></html>"
        elsewhere = f"https://127.0.0.1:{self.provider.port}/feed"
        vices: list[tuple[provider.Vice, str]] = [
            (provider.drips, "no whole answer within 3 s"),
            (provider.silent, "nothing came for 1 s"),
            (provider.silent_after_head, "nothing came for 1 s"),
            (provider.endless_body, "it is larger than 2000000 bytes"),
            (provider.endless_head, "the head of its answer is too large"),
            (provider.cut_by_length, "its answer was cut short"),
            (provider.cut_in_chunks, "its answer was cut short"),
            (provider.resets, "its answer was cut short"),
            (provider.no_http, "its answer is no HTTP"),
            (serves(html, "Content-Type: text/csv"), "its copy is not taken: it is a page of HTML"),
            (serves(b""), "its copy is not taken: it is empty"),
            (serves(bomb), "its copy is not taken: it holds more than"),
            (serves(bomb, "Content-Encoding: gzip"), "its copy is not taken: it holds more than"),
            (serves(inside.getvalue()), "its copy is not taken: it holds more than"),
            (serves(gzip.compress(GOOD)[:-20]), "its copy is not taken: it can't be unpacked"),
            (serves(gzip.compress(GOOD)[:-4] + b"oops"), "its copy is not taken: it can't be"),
            (serves(addresses(900)), "900 records after 2000; at least 50% of them"),
            (serves(addresses(5)), "5 records; at least 10 are expected"),
            (serves(GOOD + b"what?\n" * 400), "400 of 2400 rows can't be read; up to 10% may"),
            (says("429 Too Many", "Retry-After: 0"), "asked too often (429)"),
            (says("509 Over"), "asked too often (509)"),
            (says("401 No"), "does not take our credentials, or wants some (401)"),
            (says("500 Oops", body=html), "it answered 500"),
            (redirects("https://169.254.169.254/latest"), "169.254.169.254 is a link-local"),
            (redirects(elsewhere), "127.0.0.1 is a loopback address"),
            (redirects("/feed"), "it redirects more than 5 times"),
            (redirects("http://example.com/"), "expected https"),
            (redirects("https://example.com/s3cr3t%2Fkey"), "with our secret in the path"),
            (says("206 Partial", body=GOOD[:100]), "it answered 206"),
        ]
        for number, (vice, expected) in enumerate(vices):
            self.vice = vice
            state = await self.update()
            self.assertIn(expected, state.error)
            self.assertNotIn("s3cr3t", repr(state))
            self.assertEqual(state.failures, number + 1)
            self.assertEqual(self.served(), GOOD)
        self.vice = says("304 Not Modified")
        state = await self.update()
        self.assertEqual((state.error, state.failures, state.refused), ("", 0, None))
        self.assertEqual(self.provider.asked[-1].headers["if-none-match"], '"one"')
        self.vice = serves(gzip.compress(GOOD * 2), "Content-Encoding: gzip")
        state = await self.update()
        self.assertEqual(state.error, "")
        self.assertEqual(self.served(), GOOD * 2)
        names = {each.name for each in (self.directory / "var" / "feeds" / "mine").iterdir()}
        # The copy, and the index that was made when it was looked at.
        kept = sorted(each.partition("-")[0] for each in names - {"lock", "feed.json"})
        self.assertEqual(kept, ["data", "index"])
        self.assertTrue(all(one.headers["auth-key"] == KEY for one in self.provider.asked))

    async def test_retry_after(self) -> None:
        """What the provider asks for holds in the next process, too."""
        self.vice = says("429 Too Many", "Retry-After: 3600")
        state = await self.update()
        self.assertGreater(state.not_before, time.time() + 3500)
        done = subprocess.run(
            [sys.executable, "-m", "tests.live.feed_updater", str(self.file)],
            cwd=ROOT,
            env={**os.environ, "FEED_KEY": KEY},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECS,
            check=False,
        )
        self.assertIn("TooEarly", done.stdout + done.stderr)
        self.assertEqual(len(self.provider.asked), 1)


class KillTests(FeedCase):
    """kill -9."""

    def kill_at(self, moment: Callable[[int], Any]) -> None:
        """
        Have a process update the feed, and kill it at some moment.

        :param moment: is given the process, and waits.
        """
        with subprocess.Popen(
            [sys.executable, "-m", "tests.live.feed_updater", str(self.file)],
            cwd=ROOT,
            env={**os.environ, "FEED_KEY": KEY},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                assert process.stdout is not None
                self.assertEqual(process.stdout.readline(), b"started\n")
                moment(process.pid)
            finally:
                process.kill()

    def test_in_a_download(self) -> None:
        """In the middle of the body; the next process takes the whole file, and tidies up."""
        self.vice = serves(GOOD)
        self.kill_at(lambda _: wait_until(self._copy, "a first copy"))
        half: list[bool] = []

        def stops_half_way(connection: Connection) -> None:
            body = GOOD * 40
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            connection.send(body[: len(body) // 2])
            half.append(True)
            connection.wait()

        self.vice = stops_half_way
        part = self.directory / "var" / "feeds" / "mine" / "new.part"
        self.kill_at(lambda _: wait_until(lambda: half and part.exists(), "half of a file"))
        self.assertEqual(self.served(), GOOD)
        self.vice = serves(GOOD * 2)
        self.kill_at(lambda _: wait_until(lambda: self.served() == GOOD * 2, "a second copy"))

    def test_at_any_time(self) -> None:
        """Whenever it is, what is there is whole, and was served once."""
        bodies = [GOOD, GOOD * 2, GOOD * 3]
        state = {"at": 0}

        def changes(connection: Connection) -> None:
            state["at"] += 1
            connection.answer("200 OK", body=bodies[state["at"] % 3])

        self.vice = changes
        self.kill_at(lambda _: wait_until(self._copy, "a first copy"))
        chance = random.Random(5)
        for _ in range(8):
            self.kill_at(lambda _: time.sleep(chance.uniform(0.0, 1.0)))
            self.assertIn(self.served(), bodies)
        self.vice = serves(GOOD * 4)
        self.kill_at(lambda _: wait_until(lambda: self.served() == GOOD * 4, "a last copy"))

    async def test_in_an_examination(self) -> None:
        """
        While a child parses the file and indexes it on the way, and when it is done and nobody was
        told: the copy of before serves, with its index, and the next process tidies up.
        """
        self.vice = serves(GOOD)
        await self.update()
        feed = self.directory / "var" / "feeds" / "mine"
        first = self._names()
        self.assertEqual(len(first), 4)
        self.vice = serves(addresses(60_000))

        def is_parsed(process: int) -> list[int]:
            # By its name: what a killed one has left lies there until the next one begins.
            return [
                child
                for child in children(process)
                if (feed / f".new.index.part.{child}.building").exists()
            ]

        def with_its_child(process: int) -> None:
            found = wait_until(lambda: is_parsed(process), "it is parsed")
            for each in (*found, process):
                os.kill(each, signal.SIGKILL)

        def when_it_is_made(process: int) -> None:
            wait_until(lambda: is_parsed(process), "it is parsed")
            os.kill(process, signal.SIGSTOP)
            wait_until((feed / "new.index.part").exists, "its index is made")

        for moment in (with_its_child, when_it_is_made):
            self.kill_at(moment)
            self.assertEqual(self.served(), GOOD)
            self.assertLess(first, self._names())
        self.vice = says("304 Not Modified")
        await self.update()
        self.assertEqual(self._names(), first)

    def _names(self) -> set[str]:
        return {path.name for path in (self.directory / "var" / "feeds" / "mine").iterdir()}

    def _copy(self) -> object:
        return Copies(self.directory / "var" / "feeds" / "mine").state().copy
