"""
kill -9 of a daemon, and of the process that indexes for it, at each moment between a feed's new
copy and the swap: what was indexed when the copy was looked at is taken over, merged with the
indexes of other feeds, and swapped in.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from twisted.internet import reactor
from twisted.internet.defer import DeferredLock
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ctsd.config.loading import load
from ctsd.feeding import make_downloads, make_outbound
from ctsd.feeds.array_file import ArrayFile
from ctsd.feeds.children import Children
from ctsd.feeds.copies import Busy, Copies
from ctsd.feeds.descriptions import read_description
from ctsd.feeds.examinations import Examinations
from ctsd.feeds.job import lock_builds
from tests.live.daemon import PATIENCE_SECS, Daemon, children, wait_until

#: So many that the merge takes a while.
ROWS = 60_000

#: Of the feed that is indexed after it.
OTHER_ROWS = 40_000

FEEDS = {"bad": ROWS, "worse": OTHER_ROWS}


class KillsTests(TestCase):
    """Each next start serves all of the newest copy, and leaves nothing behind."""

    timeout = 300

    async def setUp(self) -> None:
        """Two feeds, whose provider is nowhere: people bring their files."""
        feeds = "".join(
            f"""
[feeds.{name}]
url = "https://127.0.0.1:1/{name}"
internal = true
format = "lines"
indicators = [{{ field = "line", type = "net.name" }}]
"""
            for name in FEEDS
        )
        self.daemon = Daemon(Path(self.mktemp()), "[searchers]\nasync = []\n" + feeds)
        self.addCleanup(self.daemon.stop)
        self.index = self.daemon.state_dir / "index" / "feeds"
        settings = load(self.daemon.config, environ={})
        self.descriptions = {
            name: read_description(name, settings.feeds[name], settings.document) for name in FEEDS
        }
        self.downloads = make_downloads(
            settings,
            clock=reactor,
            outbound=make_outbound(settings, reactor=reactor, in_thread=deferToThread),
            examine=Examinations(
                children=Children(reactor=reactor, clock=reactor), lock=DeferredLock()
            ),
            in_thread=deferToThread,
        )
        self.versions = dict.fromkeys(FEEDS, -1)
        self.turn = -1
        self.addCleanup(self.let_index)
        await self.bring("bad", "worse")
        self.daemon.start()
        self.served()

    # -- what comes

    async def bring(self, *feeds: str) -> None:
        """A newer copy is taken, with a name of this version's own."""
        for feed in feeds:
            self.versions[feed] += 1
            lines = [f"h{number}.{feed}.example" for number in range(FEEDS[feed] - 1)]
            path = self.daemon.directory / "list.txt"
            path.write_text("\n".join([*lines, f"v{self.versions[feed]}.{feed}.example"]))
            with path.open("rb") as file:
                await self._bring(feed, file)

    async def _bring(self, feed: str, file: BinaryIO) -> None:
        while True:
            try:
                state = await self.downloads.bring(self.descriptions[feed], file, name="list.txt")
            except Busy:
                # The daemon looks for its provider just now.
                await deferLater(reactor, 0.1)
            else:
                self.assertEqual(state.error, "")
                return

    def copies(self, feed: str) -> Copies:
        """Its directory."""
        return Copies(self.daemon.state_dir / "feeds" / feed)

    def index_of(self, feed: str) -> Path:
        """What was made when its newest copy was looked at."""
        copies = self.copies(feed)
        copy = copies.state().copy
        assert copy is not None
        return copies.index(copy)

    def keep_from_indexing(self) -> None:
        """As another process would that indexes in the same directory."""
        self.turn = wait_until(lambda: lock_builds(self.index), "our turn")

    def let_index(self) -> None:
        """It is the daemon's turn."""
        turn, self.turn = self.turn, -1
        if turn >= 0:
            os.close(turn)

    # -- moments

    def combined(self) -> int:
        """Which index of all feeds is there."""
        return (self.index / "combined").stat().st_ino

    def is_merging(self) -> bool:
        """Whether the next one is being written."""
        return any(self.index.glob(".combined.*"))

    def is_taken_over(self) -> bool:
        """Whether the index of the newest copy lies beside the one of before."""
        return len([*self.index.glob("bad.*.feed")]) == 2

    def stopped_when(
        self, check: Callable[[], bool], before: int, whom: Callable[[], Sequence[int]]
    ) -> bool:
        """
        Wait for a moment, and stop time for some processes.

        :param before: the index of all feeds; with the next one it is too late.
        :return: whether it was not too late then; else time goes on.
        """
        deadline = time.monotonic() + PATIENCE_SECS
        while not check() and self.combined() == before:
            if time.monotonic() > deadline:
                raise AssertionError("the moment did not come")
            time.sleep(0.0005)
        stopped = whom()
        self.send(signal.SIGSTOP, *stopped)
        if check() and self.combined() == before:
            return True
        self.send(signal.SIGCONT, *stopped)
        return False

    def children(self) -> list[int]:
        """The daemon's."""
        return [child for daemon in self.itself() for child in children(daemon)]

    def itself(self) -> list[int]:
        """The daemon."""
        assert self.daemon.process is not None
        return [self.daemon.process.pid]

    def send(self, number: signal.Signals, *processes: int) -> None:
        """Send them a signal, those that are still there."""
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def kill(self) -> None:
        """kill -9, of all of it; and start again."""
        ours = self.children()
        self.daemon.kill()
        self.send(signal.SIGKILL, *ours)
        self.let_index()
        self.daemon.start()

    # -- what is served

    def found(self, value: str) -> bool:
        """Whether a name has a hit, when nobody is away."""

        def complete() -> Any:
            answer = self.daemon.post("net.name", value)
            return answer if answer.status == 200 else None

        answer = wait_until(complete, f"an answer without anything missing on {value}")
        return bool(answer.json["hits"])

    def served(self) -> None:
        """The newest copies are, whole, and nothing else lies anywhere."""
        for feed, version in self.versions.items():
            newest = f"v{version}.{feed}.example"
            wait_until(partial(self.found, newest), f"a hit of {newest}")
            self.assertFalse(self.found(f"v{version - 1}.{feed}.example"))
            self.assertTrue(self.found(f"h0.{feed}.example"))
            wait_until(partial(self.is_tidy, feed), f"nothing else lies beside {feed}")
        with contextlib.closing(ArrayFile.open(self.index / "combined")) as index:
            told = index.about["feeds"]
        self.assertEqual({one["about"]["name"]: one["about"]["records"] for one in told}, FEEDS)
        self.assertEqual(
            {path.name for path in self.index.iterdir()},
            {"combined", *(one["file"] for one in told)},
        )

    def is_tidy(self, feed: str) -> bool:
        """Whether there is nothing in its directory but its copy, and what was made of that."""
        copies = self.copies(feed)
        copy = copies.state().copy
        assert copy is not None
        there = {path.name for path in copies.path(copy).parent.iterdir()}
        return there <= {"feed.json", "lock", copy.file, copies.index(copy).name}

    async def test_moments(self) -> None:
        """One after the other."""
        for moment in (self._taken, self._taken_over, self._in_the_merge, self._before_the_swap):
            for _ in range(5):
                if await moment():
                    break
            else:
                self.fail(f"missed each time: {moment.__doc__}")
            self.kill()
            self.served()

    async def _taken(self) -> bool:
        """Its copy is taken, and nobody has indexed it."""
        before = self.combined()
        self.keep_from_indexing()
        await self.bring("bad")
        return not self.is_taken_over() and self.combined() == before

    async def _taken_over(self) -> bool:
        """What was made of one feed lies in its place, while another one is indexed."""
        before = self.combined()
        self.keep_from_indexing()
        await self.bring("bad", "worse")
        self.index_of("worse").unlink()
        self.let_index()
        return self.stopped_when(
            lambda: self.is_taken_over() and not self.is_merging(), before, self.children
        )

    async def _in_the_merge(self) -> bool:
        """The index of all feeds is being written."""
        before = self.combined()
        await self.bring("bad")
        return self.stopped_when(self.is_merging, before, self.children)

    async def _before_the_swap(self) -> bool:
        """The child has done all; the daemon does not know yet."""
        before = self.combined()
        await self.bring("bad")
        caught = self.stopped_when(self.is_taken_over, before, self.itself)
        if caught:
            wait_until(lambda: self.combined() != before, "it is merged")
        return caught
