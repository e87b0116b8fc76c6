"""Tests of builds in child processes: real ones."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

import ctsd
from ctsd.feeds.builds import Builds
from ctsd.feeds.children import start_of
from ctsd.feeds.index import Index
from ctsd.feeds.job import (
    BuildFailed,
    BuiltElsewhere,
    Job,
    Refused,
    lock_builds,
    look_of,
    reference,
)
from ctsd.store.sqlite_schema import bring_up, scripts
from tests import feeding
from tests.feeding import url, write_source


class BuildsTests(TestCase):
    """Indexes are built in processes that don't outlive us."""

    timeout = 60

    def setUp(self) -> None:
        """A source, and an index that is there already."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.source = directory / "source"
        self.target = directory / "index"
        write_source(self.source, [url("http://one.example/"), url("http://two.example/")])

    def builds(self, **more: Any) -> Builds:
        """Real ones."""
        given: dict[str, Any] = {"reactor": reactor, "clock": reactor, "lock": DeferredLock()}
        return Builds(**{**given, **more})

    def job(self, parse: Callable[..., Any] = feeding.records, **more: Any) -> Job:
        """Build an index of the source."""
        return Job(target=self.target, source=self.source, parse=reference(parse), **more)

    def leftovers(self) -> list[str]:
        """What stands beside the source and the index."""
        names = {each.name for each in self.target.parent.iterdir()}
        return sorted(names - {"source", "index"})

    async def test_builds(self) -> None:
        """What comes of a build is an index, and what it says of itself."""
        about = await self.builds()(self.job(label="code"))
        index = Index.open(self.target, now=time.time)
        self.addCleanup(index.close)
        self.assertEqual(index.about, about)
        self.assertEqual((about.records, about.skipped), (2, 0))
        self.assertTrue(about.source.startswith("code "))
        self.assertEqual(self.leftovers(), [])

    async def test_builds_from_the_database(self) -> None:
        """The local database's own file is read where it is."""
        database = self.source.with_name("source")
        database.unlink()
        connection = sqlite3.connect(database, isolation_level=None)
        bring_up(connection, scripts())
        connection.close()
        about = await self.builds()(
            Job(
                target=self.target,
                source=database,
                reader="ctsd.store.threat_rows",
                label="of this one",
            )
        )
        self.assertEqual((about.source, about.records), ("of this one", 0))

    async def test_no_database(self) -> None:
        """A database that can't be read fails the build."""
        job = Job(target=self.target, source=self.source / "none", reader="ctsd.store.threat_rows")
        await self.assertFailure(self.builds()(job), BuildFailed)

    async def test_refused(self) -> None:
        """Why a source is refused comes back."""
        self.source.write_text("<html>")
        error = await self.assertFailure(self.builds()(self.job()), Refused)
        self.assertEqual(str(error), "it has no header")

    async def test_a_parse_function_that_breaks(self) -> None:
        """Where it broke is told, but nothing that may stand in the source."""
        error = await self.assertFailure(self.builds()(self.job(feeding.stumbling)), BuildFailed)
        self.assertIn("KeyError at ", str(error))
        self.assertNotIn("secret.example", str(error))

    async def test_too_slow(self) -> None:
        """A build that takes too long is ended."""
        building = self.builds(timeout_secs=1.5)(self.job(feeding.sleeping))
        error = await self.assertFailure(building, BuildFailed)
        self.assertIn("longer than 1.5 s", str(error))
        self.assertEqual(self.leftovers(), [])

    async def test_cancelled(self) -> None:
        """A build that is cancelled has ended when that is told, and the next one can run."""
        builds = self.builds()
        first = builds(self.job(feeding.sleeping))
        await self.scratch_of(self.target.parent)
        second = builds(self.job())
        first.cancel()
        await self.assertFailure(first, CancelledError)
        self.assertEqual((await second).records, 2)
        self.assertEqual(self.leftovers(), [])

    async def test_cancelled_while_it_waits(self) -> None:
        """A build that waits for another's end can be cancelled, too."""
        lock = DeferredLock()
        await lock.acquire()
        builds = self.builds(lock=lock)
        building = builds(self.job())
        building.cancel()
        await self.assertFailure(building, CancelledError)
        lock.release()
        self.assertEqual((await builds(self.job())).records, 2)

    async def test_one_process_at_a_time(self) -> None:
        """A build waits while another process builds in that directory."""
        turn = lock_builds(self.target.parent)
        assert turn is not None
        building = self.builds()(self.job())
        await deferLater(reactor, 1.0)  # type: ignore[arg-type]
        self.assertFalse(self.target.exists())
        os.close(turn)
        self.assertEqual((await building).records, 2)
        after = lock_builds(self.target.parent)
        assert after is not None
        os.close(after)

    async def test_built_elsewhere(self) -> None:
        """When another index is there than whoever asks has seen, there is no build."""
        builds = self.builds()
        await builds(self.job(seen=""))
        before = look_of(self.target)
        await self.assertFailure(builds(self.job(seen="")), BuiltElsewhere)
        self.assertEqual(look_of(self.target), before)
        await builds(self.job(seen=before))
        self.assertNotEqual(look_of(self.target), before)

    async def test_cancelled_while_another_process_builds(self) -> None:
        """It does not wait for that one's end."""
        turn = lock_builds(self.target.parent)
        assert turn is not None
        self.addCleanup(os.close, turn)
        building = self.builds()(self.job())
        building.cancel()
        await self.assertFailure(building, CancelledError)

    async def test_no_directory(self) -> None:
        """Without a place for the index the build fails."""
        job = Job(target=self.source / "index", source=self.source, parse="x.py:y")
        await self.assertFailure(self.builds()(job), BuildFailed)

    async def test_killed(self) -> None:
        """After kill -9 of a build the old index is as it was, and nothing is left behind."""
        builds = self.builds()
        await builds(self.job())
        before = self.target.read_bytes()
        building = builds(self.job(feeding.sleeping))
        scratch = await self.scratch_of(self.target.parent)
        os.kill(int(scratch.split(".")[2]), signal.SIGKILL)
        error = await self.assertFailure(building, BuildFailed)
        self.assertIn("killed by SIGKILL", str(error))
        self.assertEqual(self.target.read_bytes(), before)
        self.assertEqual(self.leftovers(), [])

    async def test_what_it_may_know(self) -> None:
        """No secret in our environment reaches a build; it stands back behind us."""
        environment = {**os.environ, "CTSD_SECRET": "hunter22"}
        builds = self.builds(environment=environment)
        building = builds(self.job(feeding.sleeping))
        process = int((await self.scratch_of(self.target.parent)).split(".")[2])
        known = Path(f"/proc/{process}/environ").read_bytes()
        niceness = os.getpriority(os.PRIO_PROCESS, process)
        score = Path(f"/proc/{process}/oom_score_adj").read_text()
        building.cancel()
        await self.assertFailure(building, CancelledError)
        self.assertIn(b"PATH=", known)
        self.assertNotIn(b"hunter22", known)
        self.assertGreater(niceness, os.getpriority(os.PRIO_PROCESS, 0))
        self.assertEqual(int(score), 1000)

    async def test_ends_with_the_daemon(self) -> None:
        """A build whose daemon has died ends by itself."""
        start = start_of("ctsd.feeds.build")
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", start, str(Path(ctsd.__file__).parent.parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        self.addCleanup(process.kill)
        assert process.stdin is not None
        job = self.job(feeding.sleeping)
        process.stdin.write(
            b'{"target": "%b", "source": "%b", "parse": "%b"}\n'
            % (bytes(job.target), bytes(job.source), job.parse.encode())
        )
        process.stdin.flush()
        await self.scratch_of(self.target.parent)
        process.stdin.close()
        self.assertEqual(process.wait(10), 3)

    async def test_says_too_much(self) -> None:
        """A build's output is bounded."""
        error = await self.assertFailure(self.builds(max_output_bytes=10)(self.job()), BuildFailed)
        self.assertEqual(str(error), "it said too much")

    async def scratch_of(self, directory: Path) -> str:
        """The name of the file that a build writes, as soon as there is one."""
        while True:
            for each in directory.glob(".index.*.building"):
                return each.name
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]


class CannotStartTests(TestCase):
    """A machine without room for another process."""

    def test_no_process(self) -> Deferred[object]:
        """It is told as a failed build."""

        class Full:
            def spawnProcess(self, *args: object, **kwargs: object) -> None:
                raise BlockingIOError(11, "Resource temporarily unavailable")

        full: Any = Full()
        builds = Builds(reactor=full, clock=reactor, lock=DeferredLock())  # type: ignore[arg-type]
        building = builds(Job(target=Path("index"), source=Path("source"), parse="x.py:y"))
        return self.assertFailure(building, BuildFailed)
