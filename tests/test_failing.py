"""Which searchers keep failing, as one process tells it and another one reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ctsd.model import NOTHING, Ended, Outcome
from ctsd.scan_ids import ScanIds
from ctsd.scanning import failing
from ctsd.scanning.failing import AGAIN_SECS, FailingFile, TellsFailing, read_failing
from ctsd.scanning.flight import Flight
from ctsd.scanning.reliability import REMINDER_SECS, Reliability
from ctsd.sources import Sources
from ctsd.states import Failing
from ctsd.status import Status
from ctsd.store.memory import MemoryStore
from tests.scanning import Told, source_of

#: What a process of before said.
LEFT = '{"vt": {"since": 4.0, "last": 4.0}}'

AWAY = Outcome(Ended.FAILED, reason="s3cret.example does not answer")


def at(secs: float) -> Failing:
    """Who has failed once, then."""
    return Failing(secs, secs)


class FileCase(SynchronousTestCase):
    """A directory for files."""

    def setUp(self) -> None:
        """Name it; it is made when it is needed."""
        parent = Path(self.mktemp())
        parent.mkdir()
        self.dir = parent / "failing"

    def file(self, name: str = "daemon") -> FailingFile:
        """A process' file, which lets go of it at the end."""
        file = FailingFile(self.dir / name)
        self.addCleanup(file.write, {})
        return file


class FailingFileTests(FileCase):
    """What is written and read."""

    def test_nobody(self) -> None:
        """Where no process has said anything, nobody fails."""
        self.assertEqual(read_failing(self.dir), {})
        self.file().write({})
        self.assertFalse(self.dir.exists())

    def test_written(self) -> None:
        """What was said last counts, for nobody else to read."""
        file = self.file()
        file.write({"vt": at(5.0)})
        file.write({"vt": at(5.0), "misp": at(6.0)})
        self.assertEqual(read_failing(self.dir), {"vt": at(5.0), "misp": at(6.0)})
        self.assertEqual(file.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(os.listdir(self.dir), ["daemon"])
        file.write({})
        self.assertEqual(read_failing(self.dir), {})
        self.assertEqual(os.listdir(self.dir), [])

    def test_several(self) -> None:
        """Of several processes, the first failure and the last one count."""
        self.file("1.1").write({"vt": Failing(5, 7), "misp": at(9.0)})
        self.file("2.1").write({"vt": Failing(4, 6)})
        self.assertEqual(read_failing(self.dir), {"vt": Failing(4, 7), "misp": at(9.0)})

    def test_dead(self) -> None:
        """What a process that was killed has left does not count."""
        self.dir.mkdir()
        (self.dir / "1.1").write_text(LEFT)
        self.file("2.1").write({"misp": at(5.0)})
        self.assertEqual(read_failing(self.dir), {"misp": at(5.0)})

    def test_replaced_meanwhile(self) -> None:
        """A file that is replaced just when it is looked at is looked at again."""
        file = self.file()
        file.write({"vt": at(4.0)})
        looks: list[bool] = []
        real = failing._is_locked

        def looked(descriptor: int) -> bool:
            if not looks:
                file.write({"vt": at(4.0), "misp": at(5.0)})
            looks.append(real(descriptor))
            return looks[-1]

        self.patch(failing, "_is_locked", looked)
        self.assertEqual(read_failing(self.dir), {"vt": at(4.0), "misp": at(5.0)})
        self.assertEqual(looks, [False, True])

    def test_damaged(self) -> None:
        """What is no file of ours says nothing."""
        file = self.file()
        file.write({"vt": at(4.0)})
        for text in ("", "[]", '{"vt": 4}', '{"vt": {"since": 4}}', LEFT[:-1], "\x00"):
            file.path.write_text(text)
            self.assertEqual(read_failing(self.dir), {}, text)

    def test_failed_write(self) -> None:
        """A file that can't be replaced stays, and counts."""
        file = self.file()
        file.write({"vt": at(4.0)})

        def fails(path: Path, target: Path) -> None:
            raise OSError(28, "No space left on device")

        with_fault = self.patch(Path, "replace", fails)
        self.assertRaises(OSError, file.write, {"misp": at(5.0)})
        with_fault.restore()
        self.assertEqual(read_failing(self.dir), {"vt": at(4.0)})
        self.assertEqual(os.listdir(self.dir), ["daemon"])


class TellsFailingTests(FileCase):
    """The file follows what is known."""

    def setUp(self) -> None:
        """Begin to tell; threads do their work at once, unless they are held."""
        super().setUp()
        self.clock = Clock()
        self.reliability = Reliability(clock=self.clock, now=lambda: 1000 + self.clock.seconds())
        self.held: list[Callable[[], object]] | None = None
        self.fault: OSError | None = None
        self.written = 0
        self.tells = TellsFailing(
            reliability=self.reliability,
            file=self.file(),
            clock=self.clock,
            in_thread=self.in_thread,
        )
        self.tells.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """End it."""
        if self.tells.running:
            self.successResultOf(self.tells.stopService())

    def in_thread(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Run work, or hold it."""
        self.written += 1
        if self.held is None:
            return maybeDeferred(self.run_it, work, *args)
        done: Deferred[Any] = Deferred()
        self.held.append(lambda: maybeDeferred(self.run_it, work, *args).chainDeferred(done))
        return done

    def run_it(self, work: Callable[..., Any], *args: Any) -> object:
        """Run work, with the fault that there is."""
        if self.fault is not None:
            raise self.fault
        return work(*args)

    def test_follows(self) -> None:
        """Who begins to fail is told at once, and who ceases; who goes on, with each reminder."""
        written = self.written
        for _ in range(3):
            self.reliability.note("vt", AWAY)
            self.clock.advance(1)
        self.assertEqual(read_failing(self.dir), {"vt": at(1000)})
        self.assertEqual(self.written - written, 1)
        self.clock.advance(REMINDER_SECS)
        self.reliability.note("vt", AWAY)
        last = 1003 + REMINDER_SECS
        self.assertEqual(read_failing(self.dir), {"vt": Failing(1000, last)})
        self.reliability.note("vt", NOTHING)
        self.assertEqual(read_failing(self.dir), {})
        self.assertEqual(self.written - written, 3)

    def test_no_reasons(self) -> None:
        """Why one fails is not in the file."""
        self.reliability.note("vt", AWAY)
        self.assertNotIn("s3cret", (self.dir / "daemon").read_text())

    def test_under_way(self) -> None:
        """What changes while it is written is written after it."""
        self.held = []
        for searcher in ("vt", "misp", "otx"):
            self.reliability.note(searcher, AWAY)
        self.assertEqual(len(self.held), 1)
        while self.held:
            self.held.pop(0)()
        self.held = None
        self.assertEqual(sorted(read_failing(self.dir)), ["misp", "otx", "vt"])

    def test_left(self) -> None:
        """A process of the same name that was killed has left nothing."""
        self.stop()
        self.dir.mkdir(exist_ok=True)
        (self.dir / "daemon").write_text(LEFT)
        self.tells.startService()
        self.assertEqual(os.listdir(self.dir), [])

    def test_stopped(self) -> None:
        """When the process ends in order, its file goes."""
        self.reliability.note("vt", AWAY)
        self.stop()
        self.assertEqual(os.listdir(self.dir), [])
        self.reliability.note("misp", AWAY)
        self.assertEqual(os.listdir(self.dir), [])

    def test_fails(self) -> None:
        """When it can't be written that is logged, and it is tried again."""
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.fault = OSError(28, "No space left on device")
        self.reliability.note("vt", AWAY)
        self.assertTrue(any("No space left on device" in line for line in lines), lines)
        self.assertEqual(read_failing(self.dir), {})
        self.fault = None
        self.clock.advance(AGAIN_SECS)
        self.assertEqual(read_failing(self.dir), {"vt": at(1000)})
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StatusTests(SynchronousTestCase):
    """What people see of it."""

    def test_failing(self) -> None:
        """A searcher that keeps failing is in trouble, and since when."""
        clock = Clock()
        store = MemoryStore(clock=clock)
        services = {"": (source_of(Told(), clock, asynchronous=True),)}
        failing: dict[str, Failing] = {}
        status = Status(
            sources=lambda: Sources(indexes=MultiService(), services=services, off=()),
            flight=Flight(),
            store=store,
            ids=ScanIds(store.secret()),
            failing=lambda: failing,
        )
        (state,) = status.searchers()
        self.assertEqual((state.trouble, state.failing), ("", None))
        failing["told"] = at(1_800_000_000)
        (state,) = status.searchers()
        told = "could not be asked since 2027-01-15 08:00:00 UTC; the log says why"
        self.assertEqual((state.trouble, state.failing), (told, at(1_800_000_000)))

    def test_last(self) -> None:
        """When that was some time ago is told, too; a date that is none breaks nothing."""
        self.assertEqual(
            str(Failing(1_800_000_000, 1_800_000_060)),
            "could not be asked since 2027-01-15 08:00:00 UTC, the last time"
            " 2027-01-15 08:01:00 UTC; the log says why",
        )
        self.assertIn("since some time;", str(at(1e300)))
