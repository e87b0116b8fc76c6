"""Files that are read again when they change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ctsd.watching import Watched
from tests.web_fixtures import Threads


class WatchedTests(SynchronousTestCase):
    """The last good content is what counts."""

    def setUp(self) -> None:
        """A file with a number, watched."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.file = self.directory / "file"
        self.clock = Clock()
        self.threads = Threads()
        self.reads = 0
        self.taken: list[int | None] = []
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.watched = Watched(
            clock=self.clock,
            what="The file",
            paths=[self.file],
            load=self.load,
            in_thread=self.threads,
        )
        self.watched.taken = lambda: self.taken.append(self.watched.current)

    def load(self) -> int:
        """Read it."""
        self.reads += 1
        return int(self.file.read_text())

    def write(self, text: str) -> None:
        """Replace it."""
        fresh = self.directory / "fresh"
        fresh.write_text(text)
        fresh.replace(self.file)

    def start(self, text: str = "1") -> None:
        """Load it, and follow it."""
        self.write(text)
        self.assertEqual(self.watched.load(), int(text))
        self.watched.start()
        self.addCleanup(self.watched.stop)

    def told(self) -> list[str]:
        """What the log had of errors since it was asked last."""
        errors = [one for one in self.events if one["log_level"] >= LogLevel.error]
        self.events.clear()
        return [one["why"] + "; " + one["stays"] for one in errors]

    def test_unchanged(self) -> None:
        """What has not changed is not read."""
        self.start()
        self.clock.pump([1.0] * 5)
        self.assertEqual((self.reads, self.taken), (1, []))

    def test_changed(self) -> None:
        """What has changed is taken within a second."""
        self.start()
        self.write("2")
        self.assertEqual(self.watched.current, 1)
        self.clock.advance(1)
        self.assertEqual((self.watched.current, self.taken), (2, [2]))

    def test_missing_first(self) -> None:
        """A file that was not there at the start is taken when it comes."""
        self.assertRaises(FileNotFoundError, self.watched.load)
        self.watched.start()
        self.addCleanup(self.watched.stop)
        self.clock.pump([1.0] * 3)
        self.assertEqual((self.watched.current, self.told()), (None, []))
        self.write("1")
        self.clock.advance(1)
        self.assertEqual(self.watched.current, 1)

    def test_broken(self) -> None:
        """Trouble changes nothing, and is told once, when two looks have seen it."""
        self.start()
        self.write("x")
        self.clock.advance(1)
        self.assertEqual((self.watched.current, self.told()), (1, []))
        self.clock.advance(1)
        (told,) = self.told()
        self.assertIn("invalid literal", told)
        self.assertIn("what was read before stays", told)
        self.clock.pump([1.0] * 5)
        self.assertEqual((self.watched.current, self.told()), (1, []))
        self.file.unlink()
        self.clock.pump([1.0] * 2)
        self.assertIn("No such file", self.told()[0])
        self.write("3")
        self.clock.advance(1)
        self.assertEqual((self.watched.current, self.taken, self.told()), (3, [3], []))

    def test_half_written(self) -> None:
        """Trouble that has gone at the next look is not worth a line."""
        self.start()
        for text in ("x", "2", "y", "3"):
            self.write(text)
            self.clock.advance(1)
        self.assertEqual((self.watched.current, self.told()), (3, []))

    def test_written_meanwhile(self) -> None:
        """A file that changes while it is read is read once more."""
        self.start()
        self.write("2")
        real = self.watched._load

        def load() -> int:
            self.watched._load = real
            found = real()
            self.write("3")
            return found

        self.watched._load = load
        self.clock.advance(1)
        self.assertEqual(self.taken, [])
        self.clock.advance(1)
        self.assertEqual(self.taken, [3])

    def test_look(self) -> None:
        """Who asks hears of a look that began after that; there is at most one a second."""
        self.start()
        self.clock.advance(0.25)
        self.write("2")
        first, second = self.watched.look(), self.watched.look()
        self.assertNoResult(first)
        self.clock.advance(0.75)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual((self.watched.current, self.reads), (2, 2))
        self.clock.advance(10)
        self.watched.stop()
        self.clock.advance(10)
        self.successResultOf(self.watched.look())

    def test_look_during_look(self) -> None:
        """A look that had begun before does not count."""
        self.start()
        self.threads.held = True
        self.clock.advance(1)
        asked = self.watched.look()
        self.write("2")
        self.clock.advance(1)
        self.assertEqual(len(self.threads.jobs), 1)
        self.threads.jobs.pop(0)()
        self.assertNoResult(asked)
        self.threads.run()
        self.successResultOf(asked)
        self.assertEqual(self.watched.current, 2)

    def test_cancelled(self) -> None:
        """Who has given up waiting is in nobody's way."""
        self.start()
        gone, asked = self.watched.look(), self.watched.look()
        gone.addErrback(lambda _: None)
        gone.cancel()
        self.clock.advance(1)
        self.successResultOf(asked)

    def test_reload(self) -> None:
        """Reading on request reads what has not changed, and tells of trouble at once."""
        self.start()
        done = self.watched.reload()
        self.clock.advance(1)
        self.successResultOf(done)
        self.assertEqual((self.reads, self.taken), (2, [1]))
        self.write("x")
        for _ in range(2):
            self.watched.reload()
            self.clock.advance(1)
            self.assertEqual(len(self.told()), 1)
        self.assertEqual(self.watched.current, 1)

    def test_thread_breaks(self) -> None:
        """When nothing can be run in a thread, whoever waits is told all the same."""
        self.start()
        self.watched._in_thread = lambda *args: self.threads(lambda: 1 / 0)
        asked = self.watched.look()
        self.clock.advance(1)
        self.successResultOf(asked)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
