"""A feed's new file is parsed once: what was made of it when it was looked at is taken over."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

from attrs import asdict, evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ctsd.config.document import Document
from ctsd.feeds.array_file import ArrayFile
from ctsd.feeds.descriptions import Description, read_description
from ctsd.feeds.examine import examine
from ctsd.feeds.feed_file import FeedAbout, FeedFile
from ctsd.feeds.feed_state import FeedState
from ctsd.feeds.feed_work import work
from ctsd.feeds.guards import Counts
from ctsd.feeds.job import BuildFailed, Refused
from ctsd.feeds.key_store import COMBINED, key_label, source_label, take_feed
from ctsd.feeds.reading import Reading, made_of
from tests.test_feeds_download import GOOD, DownloadsCase, count_lines

LINES = "http://one.example/a\nno URL\nhttp://two.example/b\n"
SHA256 = "5e" * 32


def describe(**keys: Any) -> Description:
    """A feed of URLs."""
    table = {
        "title": "Mine",
        "url": "https://feeds.example/mine",
        "format": "lines",
        "indicators": [{"field": "line", "type": "net.uri"}],
        "properties": {"url": "line"},
        **keys,
    }
    return read_description("mine", table, Document(name="test", base_dir=Path("/")))


class MadeCase(SynchronousTestCase):
    """A file, and the directories of a feed and of the index."""

    def setUp(self) -> None:
        """The file is there, and nothing is made of it."""
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir()
        self.directory = self.home / "index"
        self.file = self.home / "data"
        self.file.write_text(LINES)
        self.made = self.home / "made"
        self.description = describe()
        self.label = key_label()
        self.sha256 = SHA256
        self.about = FeedAbout(name="mine", label=self.label, source=self.source())

    def source(self, sha256: str = "") -> str:
        """What an index of the file calls its source."""
        return made_of(self.description, sha256=sha256 or self.sha256, label=source_label())

    def examine(self, index: Path | None, **about: str) -> dict[str, int]:
        """Have the file looked at."""
        given = {**asdict(self.about), **about}
        reading = Reading.of(self.description, self.file).as_json()
        return examine(
            {
                "reading": reading,
                "index": None if index is None else str(index),
                "about": given,
            }
        )

    def work(self) -> dict[str, Any]:
        """Have it indexed."""
        wanted = {
            "source": self.source(),
            "reading": Reading.of(self.description, self.file).as_json(),
            "made": str(self.made),
            "least": 1,
            "most_refused": 0.5,
        }
        return work(
            {"directory": str(self.directory), "names": ["mine"], "works": {"mine": wanted}}
        )

    def left(self) -> list[str]:
        """What lies beside the file, and what in the index that is not whole."""
        beside = [path.name for path in self.home.iterdir() if path.name not in ("data", "index")]
        return sorted([*beside, *(path.name for path in self.directory.glob(".*"))])


class ExamineTests(MadeCase):
    """What is told of a file, and what is written."""

    def test_counts(self) -> None:
        """The same is counted, whether an index is written or not."""
        for index in (None, self.made):
            self.assertEqual(self.examine(index), {"rows": 3, "refused": 1, "records": 2})
        self.assertEqual(self.left(), ["made"])

    def test_no_room(self) -> None:
        """An index that can't be written keeps no file from being counted."""
        gone = self.home / "nowhere" / "made"
        self.assertEqual(self.examine(gone), {"rows": 3, "refused": 1, "records": 2})

    def test_refused(self) -> None:
        """A file that can't be parsed is told, and leaves nothing."""
        self.description = describe(
            format="csv", header=True, indicators=[{"field": "url", "type": "net.uri"}]
        )
        self.assertRaises(Refused, self.examine, self.made)
        self.assertEqual(self.left(), [])

    def test_no_file(self) -> None:
        """A file that is gone is no file without records."""
        self.file.unlink()
        self.assertRaises(OSError, self.examine, self.made)
        self.assertEqual(self.left(), [])


class TakeTests(MadeCase):
    """What was made is taken, if it is what would be made now."""

    def arrays(self) -> dict[str, bytes]:
        """What is in the feed's file of the index, but for the time and what is said of it."""
        (path,) = self.directory.glob("mine.*.feed")
        file = ArrayFile.open(path)
        self.addCleanup(file.close)
        return {name: bytes(array) for name, array in file.arrays.items()}

    def test_taken(self) -> None:
        """It is what the index would have had without it; and is not parsed again."""
        self.work()
        without = self.arrays()
        for path in self.directory.iterdir():
            path.unlink()
        self.examine(self.made)
        self.file.unlink()
        self.assertEqual(self.work(), {"mine": {"records": 2}})
        self.assertEqual(self.arrays(), without)
        self.assertEqual(self.left(), ["made"])

    def test_same_file(self) -> None:
        """It takes no room of its own beside the index."""
        self.examine(self.made)
        self.work()
        (path,) = self.directory.glob("mine.*.feed")
        self.assertTrue(path.samefile(self.made))

    def test_other_disk(self) -> None:
        """What lies on another disk is copied."""
        self.examine(self.made)
        with patch("os.link", side_effect=OSError(errno.EXDEV, "another disk")):
            said = take_feed(self.directory, self.about, self.made)
        assert said is not None
        self.assertEqual(said.records, 2)
        (path,) = self.directory.glob("mine.*.feed")
        self.assertEqual(path.read_bytes(), self.made.read_bytes())
        self.assertFalse(path.samefile(self.made))
        self.assertEqual(self.left(), ["made"])

    def test_none(self) -> None:
        """Without one, the file is parsed."""
        for _ in range(2):
            self.assertIs(take_feed(self.directory, self.about, self.made), None)
            self.assertEqual(self.left(), [])
        self.assertEqual(self.work(), {"mine": {"records": 2}})

    def test_of_another(self) -> None:
        """Of another copy, by another description or other code: it goes, the file is parsed."""
        others = ({"source": self.source("00" * 32)}, {"label": "older"}, {"name": "other"})
        for other in others:
            self.examine(self.made, **other)
            self.assertEqual(self.work(), {"mine": {"records": 2}}, other)
            (path,) = self.directory.glob("mine.*.feed")
            opened = FeedFile.open(path)
            opened.close()
            said = opened.about
            self.assertEqual((said.name, said.label), ("mine", self.label))
            self.assertEqual((said.source, self.left()), (self.source(), []), other)

    def test_damaged(self) -> None:
        """One that was damaged goes, wherever that is, and the file is parsed."""
        self.examine(self.made)
        whole = self.made.read_bytes()
        for at in (0, 20, len(whole) // 2, len(whole) - 1):
            self.made.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            self.assertIs(take_feed(self.directory, self.about, self.made), None, at)
            self.assertEqual(self.left(), [])
        self.made.write_bytes(whole[:-1])
        self.assertEqual(self.work(), {"mine": {"records": 2}})

    def test_no_merge(self) -> None:
        """When all can't be merged, for the disk is full say, no try takes more of it."""
        full = patch("ctsd.feeds.key_store.merge", side_effect=OSError(errno.ENOSPC, "full"))
        self.work()
        with full:
            for text in (LINES, LINES, LINES * 2, LINES * 2, LINES * 3):
                self.file.write_text(text)
                self.sha256 = hashlib.sha256(text.encode()).hexdigest()
                self.assertRaises(OSError, self.work)
                self.assertLessEqual(len(list(self.directory.glob("mine.*.feed"))), 3)
                self.assertEqual(self.left(), [])
        self.file.unlink()
        self.assertEqual(self.work(), {"mine": {"records": 6}})
        self.assertEqual(len(list(self.directory.glob("mine.*.feed"))), 1)

    def test_nothing_new(self) -> None:
        """Nothing is merged when nothing is new; but when the index is gone."""
        self.work()
        self.file.unlink()
        self.sha256 = "00" * 32
        with patch("ctsd.feeds.feed_work.merge_feeds") as merging:
            self.assertIn("No such file", self.work()["mine"]["failed"])
            self.assertEqual(merging.call_count, 0)
            (self.directory / COMBINED).unlink()
            self.work()
            self.assertEqual(merging.call_count, 1)

    def test_newest(self) -> None:
        """What is taken is newer than what is there, also when the clock has gone back."""
        self.work()
        (old,) = self.directory.glob("mine.*.feed")
        later = old.with_name(f"mine.{10**19:020d}.feed")
        os.rename(old, later)
        about = evolve(self.about, source=self.source("00" * 32))
        self.examine(self.made, source=about.source)
        take_feed(self.directory, about, self.made)
        newest = max(path.name for path in self.directory.glob("mine.*.feed"))
        self.assertTrue((self.directory / newest).samefile(self.made))


class KeptTests(DownloadsCase):
    """What becomes of an index in the feed's directory."""

    def setUp(self) -> None:
        """Who looks at a file writes an index of it, too."""
        super().setUp()
        self.asked: list[str] = []
        self.downloads = self.make(examine=self.examine)

    async def examine(
        self, description: Description, path: Path, *, index: Path | None, **given: Any
    ) -> Counts:
        """A parser of lines."""
        counts = await count_lines(description, path, **given)
        if index is not None:
            self.asked.append(given["sha256"])
            index.write_text(given["sha256"])
        return counts

    def update(self) -> FeedState:
        """Update the feed; then an hour goes by."""
        state = super().update()
        self.now += 3600
        return state

    def kept(self) -> list[str]:
        """What is in the indexes that are there, and whatever else there is in vain."""
        found = []
        for path in self.copies.fresh_index().parent.iterdir():
            if path.name.startswith("index-"):
                found.append(path.read_text())
            elif path.name.endswith((".part", ".building")):
                found.append(path.name)
        return found

    def test_good(self) -> None:
        """That of the good copy is kept, and goes with it."""
        for body in (GOOD, GOOD + b"http://more.example/\n"):
            self.answer(body=body)
            copy = self.update().copy
            assert copy is not None
            self.assertEqual(self.kept(), [copy.sha256])
            self.assertEqual(self.copies.index(copy).read_text(), copy.sha256)

    def test_refused(self) -> None:
        """That of a refused copy goes at once; who accepts the copy has it made again."""
        self.answer()
        good = self.update().copy
        assert good is not None
        self.answer(body=GOOD[:50])
        refused = self.update().refused
        assert refused is not None
        self.assertEqual(self.kept(), [good.sha256])
        self.successResultOf(self.downloads.accept(self.description))
        self.assertEqual(self.kept(), [refused.sha256])
        self.assertEqual(len(self.asked), 3)

    def test_same(self) -> None:
        """Of a file that is there already none is made."""
        self.answer()
        self.update()
        file = self.directory / "brought"
        file.write_bytes(GOOD)
        with file.open("rb") as opened:
            self.successResultOf(self.downloads.bring(self.description, opened, name="brought"))
        self.assertEqual(len(self.asked), 1)

    def test_killed(self) -> None:
        """What was left when its process was killed goes before the next file comes."""
        self.answer()
        copy = self.update().copy
        assert copy is not None
        directory = self.copies.fresh_index().parent
        for name in ("new.index.part", ".new.index.part.17.building", "index-" + "0" * 32):
            (directory / name).write_text("half")
        waiting: Deferred[Any] = Deferred()
        self.provider.answers.append(waiting)
        updating = self.downloads.update(self.description)
        self.assertEqual(self.kept(), [copy.sha256])
        updating.cancel()
        self.failureResultOf(updating)

    def test_nobody_could_look(self) -> None:
        """When nobody could look, the index of the last good copy stays."""

        async def fails(_: Description, path: Path, *, index: Path, **given: Any) -> Counts:
            index.write_text("half")
            raise BuildFailed("it was killed")

        self.answer()
        copy = self.update().copy
        assert copy is not None
        self.downloads = self.make(examine=fails)
        self.answer(body=GOOD + b"http://more.example/\n")
        self.update()
        self.assertEqual(self.kept(), [copy.sha256])
