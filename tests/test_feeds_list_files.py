"""Tests of warninglists in files that somebody else keeps current."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ctsd.feeds.children import Children
from ctsd.feeds.job import BuildFailed, lock_builds
from ctsd.feeds.list_files import MAX_TOLD, RETRY_SECS, ListFiles, broken_lists
from ctsd.feeds.list_work import work
from tests.feeding import at_once


class Working:
    """
    Stands in for child processes.

    :ivar count: how often work was done.
    :ivar error: what it fails with.
    """

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None

    def run(self, module: str, given: Mapping[str, Any]) -> Deferred[Any]:
        """As L{Children.run}."""
        assert module == "ctsd.feeds.list_work"
        self.count += 1
        if self.error is not None:
            return fail(self.error)
        return succeed(work(json.loads(json.dumps(given))))


def write_list(path: Path, kind: str, *entries: str, name: str = "") -> None:
    """A list in MISP's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"name": name or path.parent.name, "type": kind, "list": entries}))
    fresh.rename(path)


class ListFilesTests(SynchronousTestCase):
    """L{ListFiles}."""

    def setUp(self) -> None:
        """A directory of lists."""
        self.patch(os, "fsync", lambda descriptor: None)
        self.clock = Clock()
        self.working: Any = Working()
        self.home = Path(self.mktemp())
        self.source = self.home / "lists"
        write_list(self.source / "hosts" / "list.json", "hostname", "big.example")
        write_list(self.source / "words" / "list.json", "substring", "blog.example/")
        self.files = self.start()

    def start(self, *paths: Path) -> ListFiles:
        """A service that looks at some paths."""
        files = ListFiles(
            paths=paths or [self.source],
            directory=self.home / "index",
            children=self.working,
            clock=self.clock,
            in_thread=at_once,
            now=lambda: 0.0,
            max_bytes=1000,
        )
        files.startService()
        self.addCleanup(files.stopService)
        return files

    def listed(self, value: str, type: str = "net.name") -> str:
        """The list that a value is on."""
        return self.files.lists.listed(type, value)

    def test_served(self) -> None:
        """All lists of a directory are served, beside those that are always there."""
        self.assertEqual(self.listed("www.big.example"), "hosts")
        self.assertEqual(self.listed("http://a.blog.example/x", "net.uri"), "words")
        self.assertTrue(self.listed("8.8.8.8", "net.ip"))
        self.assertEqual(self.listed("evil.example"), "")
        self.assertEqual(self.files.trouble(), "")

    def test_changed(self) -> None:
        """A list that has changed, come or gone counts at the next look; else nothing is built."""
        self.clock.advance(30)
        self.assertEqual(self.working.count, 1)
        write_list(self.source / "hosts" / "list.json", "hostname", "other.example")
        self.clock.advance(30)
        self.assertEqual((self.listed("big.example"), self.listed("other.example")), ("", "hosts"))
        (self.source / "hosts" / "list.json").unlink()
        self.clock.advance(30)
        self.assertEqual(self.listed("other.example"), "")
        self.assertEqual(self.working.count, 3)

    def test_restart(self) -> None:
        """What an earlier start has built serves at once."""
        self.files = self.start()
        self.assertEqual(self.listed("big.example"), "hosts")
        self.assertEqual(self.working.count, 1)

    def test_told_again(self) -> None:
        """What is wrong is told after the next start, too; and no more when it is over."""
        (self.source / "words" / "list.json").write_text("{")
        self.clock.advance(30)
        why = self.files.trouble()
        self.assertIn("words/list.json is no warninglist", why)
        self.files = self.start()
        self.assertEqual((self.files.trouble(), self.working.count), (why, 2))

        def away(function: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
            return fail(OSError(errno.EMFILE, "too many open files"))

        with patch.object(self.files, "_in_thread", away):
            self.clock.advance(30)
        self.assertIn("too many open files", self.files.trouble())
        self.clock.advance(30)
        self.assertEqual((self.files.trouble(), self.working.count), (why, 2))

    def test_no_list(self) -> None:
        """What is no list is left out, and each is told once; the others count."""
        html = self.source / "html" / "list.json"
        html.parent.mkdir()
        html.write_text("<html>")
        large = self.source / "large" / "list.json"
        write_list(large, "cidr", *["192.0.2.0/24"] * 100)
        with capturedLogs() as logs:
            self.clock.pump([30.0, 30.0])
        self.assertEqual(self.listed("big.example"), "hosts")
        troubles = [
            f"{html} is no warninglist: it is no JSON",
            f"{large} is no warninglist: more than 1,000 bytes",
        ]
        self.assertEqual(self.files.trouble(), "; ".join(troubles))
        self.assertEqual([one["trouble"] for one in logs if "trouble" in one], troubles)
        html.unlink()
        os.mkfifo(html)
        large.unlink()
        self.clock.advance(30)
        self.assertEqual(self.files.trouble(), f"{html} is no warninglist: it is no regular file")
        html.unlink()
        self.clock.advance(30)
        self.assertEqual(self.files.trouble(), "")

    def test_many_broken(self) -> None:
        """Of very many that are no lists, it is told how many more there are."""
        for number in range(MAX_TOLD + 5):
            write_list(self.source / f"no{number:03}" / "list.json", "none")
        self.clock.advance(30)
        self.assertEqual(self.listed("big.example"), "hosts")
        self.assertIn(f"no{MAX_TOLD - 1:03}", self.files.trouble())
        self.assertNotIn(f"no{MAX_TOLD:03}", self.files.trouble())
        self.assertTrue(self.files.trouble().endswith("; and 5 more are no warninglists"))

    def test_too_many(self) -> None:
        """Files beyond the limit are left out, and that is told."""
        files = ListFiles(
            paths=[self.source],
            directory=self.home / "few",
            children=self.working,
            clock=self.clock,
            in_thread=at_once,
            now=lambda: 0.0,
            max_files=1,
        )
        files.startService()
        self.addCleanup(files.stopService)
        self.assertEqual(files.trouble(), "1 warninglists beyond max_lists = 1 are left out")
        self.assertTrue(files.lists.listed("net.name", "big.example"))

    def test_looked_at(self) -> None:
        """What is wrong with lists is told without a daemon, too."""

        def broken(path: Path, max_files: int = 10) -> list[str]:
            return broken_lists(path, max_bytes=1000, max_files=max_files)

        self.assertEqual(broken(self.source), [])
        self.assertEqual(broken(self.source / "hosts" / "list.json"), [])
        bad = self.source / "words" / "list.json"
        bad.write_text("{}")
        self.assertEqual(
            broken(self.source), [f"{bad} is no warninglist: name: a text was expected"]
        )
        self.assertIn("1 warninglists beyond", broken(self.source, 1)[0])
        (self.home / "empty").mkdir()
        self.assertIn("has no warninglist in it", broken(self.home / "empty")[0])
        self.assertIn("No such file", broken(self.home / "none")[0])

    def test_build_failed(self) -> None:
        """A build that failed is told, the last lists serve, and it is tried again later."""
        self.working.error = BuildFailed("no room")
        write_list(self.source / "hosts" / "list.json", "hostname", "other.example")
        self.clock.advance(30)
        self.clock.advance(30)
        self.assertEqual(self.working.count, 2)
        self.assertIn("no room", self.files.trouble())
        self.assertEqual(self.listed("big.example"), "hosts")
        self.working.error = None
        self.clock.pump([30.0] * int(RETRY_SECS // 30))
        self.assertEqual(self.listed("other.example"), "hosts")
        self.assertEqual(self.files.trouble(), "")

    def test_another_builds(self) -> None:
        """While another process builds, none is begun here; what it has built serves then."""
        turn = lock_builds(self.home / "index")
        assert turn is not None
        write_list(self.source / "hosts" / "list.json", "hostname", "other.example")
        self.clock.advance(30)
        self.assertEqual(self.working.count, 1)
        os.close(turn)
        self.clock.advance(30)
        self.assertEqual(self.listed("other.example"), "hosts")

    def test_damaged(self) -> None:
        """A damaged index is made anew."""
        self.successResultOf(self.files.stopService())
        (self.home / "index" / "combined").unlink()
        self.files = self.start()
        self.assertEqual((self.listed("big.example"), self.working.count), ("hosts", 2))

    def test_no_room(self) -> None:
        """Where no index can be, that is told, and the lists that are always there count."""
        (self.home / "taken").touch()
        files = ListFiles(
            paths=[self.source],
            directory=self.home / "taken",
            children=self.working,
            clock=self.clock,
            in_thread=at_once,
            now=lambda: 0.0,
        )
        files.startService()
        self.addCleanup(files.stopService)
        self.assertIn("can't be read", files.trouble())
        self.assertTrue(files.lists.listed("net.ip", "8.8.8.8"))

    def test_one_file(self) -> None:
        """A path may be a list."""
        write_list(self.home / "ours.json", "string", "ours.example", name="Ours")
        self.files = self.start(self.home / "ours.json")
        self.assertEqual(self.listed("ours.example"), "Ours")

    def test_nowhere(self) -> None:
        """A path that is not there is told."""
        self.files = self.start(self.home / "none.json")
        self.assertIn("No such file", self.files.trouble())


class ChildTests(TestCase):
    """With a real child process."""

    async def test_child(self) -> None:
        """It does what is asked of it."""
        from twisted.internet import reactor

        home = Path(self.mktemp()).absolute()
        write_list(home / "hosts" / "list.json", "hostname", "big.example")
        children = Children(reactor=reactor, clock=reactor)  # type: ignore[arg-type]
        built = await children.run(
            "ctsd.feeds.list_work",
            {
                "directory": str(home / "index"),
                "files": [str(home / "hosts" / "list.json")],
                "max_bytes": 1000,
                "made_of": "this",
            },
        )
        self.assertEqual(built, {"lists": 1, "records": 1, "failed": 0})
