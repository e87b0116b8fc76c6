"""Tests of the file of indicators that somebody else keeps current."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctsd.errors import SearchLater
from ctsd.feeds.file import RecordsFile
from ctsd.feeds.job import BuildFailed, reference
from ctsd.feeds.reading import Reading
from ctsd.feeds.told import Told, read_told, write_told
from ctsd.records import Record
from tests import feeding
from tests.feeding import Builder, at_once, url, write_source


def urls(host: str, count: int) -> list[Record]:
    """So many records."""
    return [url(f"http://{host}/{number}") for number in range(count)]


class RecordsFileTests(SynchronousTestCase):
    """It serves the last good copy, whatever becomes of the file."""

    def setUp(self) -> None:
        """A place, and a builder."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.source = self.directory / "source"
        self.clock = Clock()
        self.wall = 1e9
        self.builder = Builder()
        self.records = self.make()

    def make(self, **more: Any) -> RecordsFile:
        """As at a start of the daemon."""
        given: dict[str, Any] = {
            "path": self.source,
            "parse": feeding.records,
            "index": self.directory / "kept" / "index",
            "clock": self.clock,
            "build": self.builder,
            "in_thread": at_once,
            "now": lambda: self.wall + self.clock.seconds(),
        }
        return RecordsFile(**{**given, **more})

    def start(self, records: RecordsFile | None = None) -> None:
        """Start it, to be stopped in the end."""
        self.records = records or self.records
        self.records.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """Stop it."""
        if self.records.running:
            self.successResultOf(self.records.stopService())

    def restart(self, **more: Any) -> None:
        """As a restart of the daemon."""
        self.stop()
        self.start(self.make(**more))

    def put(self, given: list[Record], *, age: float = 60.0, junk: int = 0) -> None:
        """A new source, last written so many seconds ago."""
        write_source(self.source, given, junk=junk)
        at = self.wall + self.clock.seconds() - age
        os.utime(self.source, (at, at))

    def count(self, host: str) -> int:
        """How many records of a host are found."""
        found = self.records.find(type="net.uri", value=host, limit=0)
        return int(found.more)

    def parse_function(self, first: str) -> Any:
        """Our parse function in a module of its own, which does something else first."""
        module = self.directory / "elsewhere.py"
        module.write_text(
            f"from tests import feeding\n\ndef records(lines):\n{first}"
            "    return feeding.records(lines)\n"
        )
        return runpy.run_path(str(module))["records"]

    def test_serves_at_once_what_has_kept_still(self) -> None:
        """A file that lies there is served without waiting."""
        self.put(urls("one.example", 3), junk=2)
        self.start()
        self.assertEqual(self.count("one.example"), 3)
        self.assertIn("3 records, 2 malformed", self.records.describe())
        self.assertEqual(self.records.trouble(), "")

    def test_described(self) -> None:
        """A file that a description fits is read by that; what it refuses is malformed."""
        layout = {
            "format": "csv",
            "header": True,
            "indicators": [{"field": "link", "type": "net.uri"}],
        }
        reading = Reading(path=str(self.source), layout=layout, title="Mine", max_bytes=1 << 20)
        self.start(self.make(parse=reading))
        for text, count, trouble in (
            ("link,why\nhttp://one.example/,x\nnone\nhttp://one.example/2,y\n", 2, ""),
            ("url,why\nhttp://two.example/,x\n", 2, "its header has no column link"),
            ("link\nhttp://one.example/\nhttp://one.example/3\nhttp://one.example/4\n", 3, ""),
        ):
            self.source.write_text(text)
            at = self.wall + self.clock.seconds() - 60
            os.utime(self.source, (at, at))
            self.clock.advance(5)
            self.assertEqual(self.count("one.example"), count)
            self.assertIn(trouble, self.records.trouble())
            self.assertEqual(bool(trouble), bool(self.records.trouble()))
        self.assertNotIn("malformed", self.records.describe())
        builds = len(self.builder.jobs)
        self.restart(parse=reading)
        self.assertEqual(len(self.builder.jobs), builds)
        self.restart(parse=evolve(reading, layout={**layout, "plain": True}))
        self.assertEqual(len(self.builder.jobs), builds + 1)

    def test_takes_a_change(self) -> None:
        """A new file is served after the next look, and its predecessor no more."""
        self.put(urls("one.example", 3))
        self.start()
        self.put(urls("two.example", 4))
        self.clock.advance(5)
        self.assertEqual((self.count("one.example"), self.count("two.example")), (0, 4))
        self.clock.pump([5.0] * 5)
        self.assertEqual(len(self.builder.jobs), 2)

    def test_waits_while_it_is_written(self) -> None:
        """A file that changes all the time is not taken, and the old one goes on."""
        self.put(urls("one.example", 3))
        self.start()
        for number in range(4, 40):
            self.put(urls("two.example", number), age=0)
            self.clock.advance(1)
        self.assertEqual((self.count("one.example"), len(self.builder.jobs)), (3, 1))
        self.clock.pump([2.0] * 4)
        self.assertEqual(self.count("two.example"), 39)

    def test_a_date_in_the_future(self) -> None:
        """A file with a date to come is taken when it has kept still."""
        self.put(urls("one.example", 3), age=-1e6)
        self.start()
        self.assertTrue(self.records.loading())
        self.clock.advance(2)
        self.assertEqual(self.count("one.example"), 3)

    def test_missing_at_the_start(self) -> None:
        """A missing file is told and is "later"; it is taken when it appears."""
        self.start()
        self.assertIn("No such file", self.records.trouble())
        self.assertFalse(self.records.loading())
        error = self.assertRaises(SearchLater, self.count, "one.example")
        self.assertIn("No such file", error.reason)
        self.put(urls("one.example", 3))
        self.clock.advance(5)
        self.assertEqual((self.count("one.example"), self.records.trouble()), (3, ""))

    def test_pipe(self) -> None:
        """A pipe, which would be read for ever, is never opened."""
        os.mkfifo(self.source)
        self.start()
        self.assertTrue(self.records.trouble().endswith("can't be read: it is no regular file"))
        self.assertEqual(self.builder.jobs, [])

    def test_missing_later(self) -> None:
        """A file that vanishes goes on serving from its index, after a restart too, loudly."""
        self.put(urls("one.example", 3))
        self.start()
        self.source.unlink()
        self.clock.advance(5)
        self.assertIn("No such file", self.records.trouble())
        self.assertEqual(self.count("one.example"), 3)
        self.restart()
        self.assertIn("No such file", self.records.trouble())
        self.assertEqual(self.count("one.example"), 3)

    def test_restart_builds_nothing_anew(self) -> None:
        """The kept index serves at once when the file is the same."""
        self.put(urls("one.example", 3))
        self.start()
        self.restart()
        self.assertEqual((self.count("one.example"), len(self.builder.jobs)), (3, 1))

    def test_another_parse_function_builds_anew(self) -> None:
        """An index that other code has made is made again."""
        self.put(urls("one.example", 3))
        self.start()
        self.stop()
        self.start(self.make(parse=self.parse_function("")))
        self.assertEqual((self.count("one.example"), len(self.builder.jobs)), (3, 2))

    def test_shrunk(self) -> None:
        """A file with less than half of the records is refused, once, until it changes."""
        self.put(urls("one.example", 10))
        self.start()
        self.put(urls("two.example", 4))
        self.clock.pump([5.0] * 5)
        self.assertIn("shrunk to 4 records", self.records.trouble())
        self.assertEqual((self.count("one.example"), len(self.builder.jobs)), (10, 2))
        self.put(urls("two.example", 5))
        self.clock.advance(5)
        self.assertEqual((self.count("two.example"), self.records.trouble()), (5, ""))

    def test_refused_again_after_it_was_away(self) -> None:
        """What is wrong is told again when a refused file comes back."""
        self.put(urls("one.example", 10))
        self.start()
        self.put(urls("two.example", 4))
        self.clock.advance(5)
        away = self.source.rename(self.directory / "away")
        self.clock.advance(5)
        self.assertIn("No such file", self.records.trouble())
        away.rename(self.source)
        self.clock.advance(5)
        self.assertIn("shrunk", self.records.trouble())

    def test_wrong_header(self) -> None:
        """A file of something else is refused, and says why."""
        self.put(urls("one.example", 3))
        self.start()
        self.source.write_text("<html>too many requests</html>\n")
        os.utime(self.source, (self.wall, self.wall - 60))
        self.clock.advance(5)
        self.assertIn("it has no header", self.records.trouble())
        self.assertEqual(self.count("one.example"), 3)

    def test_no_valid_record(self) -> None:
        """A file without one valid record is refused, a first one too."""
        self.put([], junk=7)
        self.start()
        self.assertIn("none of its records can be used (7 are malformed)", self.records.trouble())
        self.assertRaises(SearchLater, self.count, "one.example")

    def test_too_large(self) -> None:
        """A file above the limit is refused unread."""
        self.put(urls("one.example", 100))
        self.start(self.make(max_bytes=1000))
        self.assertIn("more than the limit of 1,000", self.records.trouble())

    def test_a_line_without_end(self) -> None:
        """A file that is one endless line is refused, not read into memory."""
        self.source.write_text(feeding.HEADER + "x" * (3 << 20))
        os.utime(self.source, (0, 0))
        self.start()
        self.assertIn("a line of more than", self.records.trouble())

    def test_changed_while_it_was_read(self) -> None:
        """What was read while it was written is not believed; the next look takes it."""
        grow = f"    open({str(self.source)!r}, 'a').write('no record\\n')\n"
        self.put(urls("one.example", 3))
        self.start(self.make(parse=self.parse_function(grow)))
        self.assertIn("changed while it was read", self.records.trouble())
        self.assertRaises(SearchLater, self.count, "one.example")
        self.restart()
        self.clock.advance(5)
        self.assertEqual((self.count("one.example"), self.records.trouble()), (3, ""))

    def test_a_failed_build_is_tried_again_later(self) -> None:
        """A build that fails is told, and tried again after a while."""
        self.put(urls("one.example", 3))
        self.start()
        self.builder.error = BuildFailed("it was killed by SIGKILL")
        self.put(urls("two.example", 3))
        self.clock.pump([5.0] * 6)
        self.assertIn("killed by SIGKILL", self.records.trouble())
        self.assertEqual((self.count("one.example"), len(self.builder.jobs)), (3, 2))
        self.builder.error = None
        self.clock.pump([5.0] * 12)
        self.assertEqual((self.count("two.example"), self.records.trouble()), (3, ""))

    def test_a_fault_of_ours_ends_nothing(self) -> None:
        """Whatever a build raises, the file is looked at again."""
        self.builder.error = ZeroDivisionError()
        self.put(urls("one.example", 3))
        self.start()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn("internal error", self.records.trouble())
        self.builder.error = None
        self.clock.advance(5)
        self.assertEqual((self.count("one.example"), self.records.trouble()), (3, ""))

    def test_a_damaged_index_is_built_anew(self) -> None:
        """An index that was cut while nobody looked is refused and made again."""
        self.put(urls("one.example", 3))
        self.start()
        self.stop()
        kept = self.directory / "kept" / "index"
        os.truncate(kept, kept.stat().st_size // 2)
        self.start(self.make())
        self.assertEqual((self.count("one.example"), len(self.builder.jobs)), (3, 2))

    def test_a_build_that_gives_a_damaged_index(self) -> None:
        """A new index that can't be opened does not replace the one that serves."""
        self.put(urls("one.example", 3))
        self.start()
        kept = self.directory / "kept" / "index"
        build = self.builder

        def damaging(job: Any) -> Any:
            return build(job).addCallback(lambda about: (os.truncate(kept, 100), about)[1])

        self.records._build = damaging  # type: ignore[assignment]
        self.put(urls("two.example", 3))
        self.clock.advance(5)
        self.assertIn("could not be indexed", self.records.trouble())
        self.assertEqual(self.count("one.example"), 3)

    def test_stop_ends_a_build(self) -> None:
        """Stopping while an index is built ends that; whoever waits for it is told."""
        self.builder.held = []
        self.put(urls("one.example", 3))
        self.start()
        ready = self.records.ready()
        self.assertNoResult(ready)
        self.successResultOf(self.records.stopService())
        self.successResultOf(ready)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_old_index_is_unmapped(self) -> None:
        """After a swap nothing of the old index is open."""
        self.put(urls("one.example", 3))
        self.start()
        old = self.records._kept.index
        assert old is not None
        self.put(urls("two.example", 3))
        self.clock.advance(5)
        self.assertRaises(ValueError, memoryview, old._whole)

    def test_the_swap_is_in_threads(self) -> None:
        """Nothing that reads all of a file happens in the reactor."""
        names = []

        def in_thread(function: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
            names.append(getattr(function, "__name__", ""))
            return at_once(function, *args, **kwargs)

        self.put(urls("one.example", 3))
        self.start(self.make(in_thread=in_thread))
        self.put(urls("two.example", 3))
        self.clock.advance(5)
        self.assertEqual(names.count("_open"), 3)
        self.assertEqual(names.count("close"), 1)

    def together(self, **more: Any) -> RecordsFile:
        """Another process that keeps the same index."""
        other = self.make(**more)
        other.startService()
        self.addCleanup(lambda: self.successResultOf(other.stopService()))
        return other

    def test_one_builds_for_all(self) -> None:
        """Of two processes that see a new file at once one builds, and both serve what it built."""
        built: list[None] = []
        self.builder.before = lambda: built.append(None)
        self.put(urls("one.example", 3))
        self.builder.held = []
        self.start()
        other = self.together()
        self.assertEqual(len(self.builder.jobs), 2)
        self.builder.release()
        self.assertEqual(len(built), 1)
        for each in (self.records, other):
            self.assertEqual(each.find(type="net.uri", value="one.example", limit=0).more, 3)
            self.assertEqual(each.trouble(), "")

    def test_takes_what_another_process_built(self) -> None:
        """A process that looks later finds the new index there, and builds nothing."""
        self.put(urls("one.example", 3))
        self.start()
        self.clock.advance(2)
        other = self.together()
        self.put(urls("two.example", 4))
        self.clock.advance(3)
        self.assertEqual(self.count("two.example"), 4)
        self.clock.advance(2)
        self.assertEqual(other.find(type="net.uri", value="two.example", limit=0).more, 4)
        self.assertEqual(len(self.builder.jobs), 2)

    def test_other_code_beside_it(self) -> None:
        """
        Two processes whose code makes different indexes of a file both serve their own, and don't
        build in turns for ever.
        """
        self.put(urls("one.example", 3))
        self.start()
        self.together(parse=self.parse_function("    pass\n"))
        self.put(urls("two.example", 4))
        self.clock.pump([5.0] * 10)
        self.assertEqual(self.count("two.example"), 4)
        self.assertEqual(len(self.builder.jobs), 4)

    def told(self) -> Told:
        """What other processes see."""
        return read_told(self.directory / "kept" / "index")

    def test_trouble_is_kept(self) -> None:
        """What is wrong with a file is there for other processes to read, until all is well."""
        self.put(urls("one.example", 10))
        self.start()
        self.assertEqual(os.listdir(self.directory / "kept"), ["index"])
        self.put(urls("two.example", 4))
        self.clock.advance(5)
        told = self.told()
        self.assertIn("shrunk to 4 records", told.trouble)
        self.assertEqual(told.source.split()[1:3], [str(n) for n in self.stat()])
        self.restart()
        self.assertEqual(self.told(), told)
        self.source.rename(self.directory / "away")
        self.clock.advance(5)
        self.assertEqual((self.told().trouble, self.told().source), (self.records.trouble(), ""))
        self.put(urls("two.example", 5))
        self.clock.advance(5)
        self.assertEqual(os.listdir(self.directory / "kept"), ["index"])

    def stat(self) -> tuple[int, int]:
        """Size and date of the source."""
        stat = self.source.stat()
        return stat.st_size, stat.st_mtime_ns

    def test_trouble_of_the_past(self) -> None:
        """What was wrong before a restart, and was mended since, is forgotten."""
        (self.directory / "kept").mkdir()
        write_told(self.directory / "kept" / "index", Told("old trouble"))
        self.put(urls("one.example", 3))
        self.start()
        self.assertEqual(self.told(), Told())

    def test_trouble_that_is_not_kept(self) -> None:
        """A full disk, or garbage in that place, ends nothing."""
        names: list[str] = []

        def full(function: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
            names.append(getattr(function, "__name__", ""))
            if function is write_told:
                return fail(OSError(28, "No space left on device"))
            return at_once(function, *args, **kwargs)

        self.start(self.make(in_thread=full))
        self.clock.pump([5.0] * 5)
        self.assertEqual(names.count("write_told"), 1)
        self.put(urls("one.example", 3))
        self.clock.advance(5)
        self.assertEqual(self.count("one.example"), 3)
        for garbage in (b"", b"[]", b"{}", b"\xff"):
            (self.directory / "kept" / "index.trouble").write_bytes(garbage)
            self.assertEqual(self.told(), Told())

    def test_a_parse_function_has_to_be_found(self) -> None:
        """One that a child process can't call is refused when the searcher starts."""
        self.assertRaises(ValueError, self.make, parse=lambda lines: iter(()))
        self.assertRaises(ValueError, reference, len)
        self.assertTrue(reference(feeding.records).endswith("feeding.py:records"))
