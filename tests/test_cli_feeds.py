"""C{ctsd feeds}, without a network."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed

from ctsd import cli
from ctsd.commands import feeds
from ctsd.config.document import Document
from ctsd.feeds.descriptions import names_of_catalogue, read_description
from ctsd.feeds.feed_state import Copy, FeedState
from ctsd.feeds.key_store import source_label
from ctsd.feeds.reading import made_of
from ctsd.feeds.told import Told, write_told
from tests.commands import NOW, CommandCase

MINE = """
[feeds.mine]
title = "Mine"
url = "https://intel.example/list.csv"
every_secs = 3600
max_age_days = 2
format = "csv"
header = true
indicators = [{ field = "value", type = ["net.ip", "net.name"] }]
properties = { why = "why" }
"""

LIST = "value,why\n203.0.113.1,scans us\nbad.example,phishes\n<td>,?\n"


class FeedsCase(CommandCase):
    """Runs the commands."""

    def configure(self, text: str) -> None:
        """Add to the configuration."""
        self.config.write_text(f'state_dir = "state"\n{text}')

    def keep(self, name: str, data: bytes = b"", **state: Any) -> None:
        """Put a copy of a feed on the disk."""
        directory = self.dir / "state" / "feeds" / name
        directory.mkdir(parents=True, exist_ok=True)
        copy = state.pop("copy", None)
        if copy is not None:
            (directory / copy.file).write_bytes(data)
        kept = FeedState(copy=copy, **state)
        (directory / "feed.json").write_bytes(msgspec.json.encode(kept))


def copy(checked: float = NOW, **more: Any) -> Copy:
    """A good copy."""
    given = {"records": 1234, "refused": 5, "size": 1, "sha256": "0" * 64, "file": "data-x"}
    return Copy(fetched=checked, checked=checked, **{**given, **more})


class ListTests(FeedsCase):
    """How feeds stand."""

    def test_none(self) -> None:
        """Without a feed it says how to have one, and which are off."""
        self.configure("[feeds.urlhaus]\nenabled = false\n")
        self.assertIn("no feed is on", self.succeed("feeds"))
        self.assertIn("off: urlhaus", self.out)

    def test_standings(self) -> None:
        """Each with its age, what it holds, when it is asked again, and what is wrong."""
        names = ("bad", "fresh", "never", "old", "stale")
        self.configure("".join(MINE.replace("feeds.mine", f"feeds.{name}") for name in names))
        self.keep("fresh", copy=copy(NOW - 30), due=NOW + 1800)
        self.keep("stale", copy=copy(NOW - 3 * 3600), due=NOW - 1, error="it answered 500")
        self.keep("old", copy=copy(NOW - 3 * 86400))
        self.keep("bad")
        (self.dir / "state" / "feeds" / "bad" / "feed.json").write_text("{")
        lines = dict(
            (line.split(maxsplit=1)) for line in self.succeed("feeds").splitlines() if line
        )
        self.assertEqual(lines["NAME"].split(), ["AGE", "RECORDS", "REFUSED", "NEXT", "STATE"])
        self.assertRegex(lines["fresh"], r"^30 s +1,234 +5 +30 min +good$")
        self.assertRegex(lines["stale"], r"^3 h +1,234 +5 +- +stale; it answered 500$")
        self.assertRegex(lines["old"], r"^3 d .* too old")
        self.assertRegex(lines["never"], r"never loaded$")
        self.assertRegex(lines["bad"], r"feed\.json")

    def test_not_indexed(self) -> None:
        """A copy that the daemon can't index is told."""
        self.configure(MINE)
        self.keep("mine", copy=copy(NOW - 30))
        table = tomllib.loads(MINE)["feeds"]["mine"]
        description = read_description("mine", table, Document(name="x", base_dir=Path("/")))
        source = made_of(description, sha256=copy().sha256, label=source_label())
        index = self.dir / "state" / "index" / "feeds"
        index.mkdir(parents=True)
        write_told(index / "mine", Told("its copy could not be indexed: no room", source))
        self.assertRegex(self.succeed("feeds"), r"mine .* good; its copy could not be .* no room")

    def test_own_file(self) -> None:
        """A file of ours that can't be read is told, although no daemon has tried."""
        self.configure(MINE.replace('url = "https://intel.example/list.csv"', 'file = "l"'))
        self.assertRegex(self.succeed("feeds"), r"mine .* never loaded; .*l can't be read: No such")
        os.mkfifo(self.dir / "l")
        self.assertRegex(self.succeed("feeds"), r"l can't be read: it is no regular file")
        (self.dir / "l").unlink()
        (self.dir / "l").write_text("value,why\n")
        self.assertRegex(self.succeed("feeds"), r"never loaded\n")

    def test_own_lists(self) -> None:
        """Warninglists are read where they are, a file or a directory, if they are there."""
        self.configure("[feeds.lists]\nfile = 'l'\nformat = 'warninglist'\n")
        self.assertRegex(self.succeed("feeds"), r"lists .*l is no warninglist: No such file")
        (self.dir / "l").mkdir()
        self.assertIn("l has no warninglist in it: expected list.json", self.succeed("feeds"))
        for name in ("a", "b", "c"):
            (self.dir / "l" / name).mkdir()
            (self.dir / "l" / name / "list.json").write_text("{")
        (self.dir / "l" / "c" / "list.json").write_text(
            '{"name": "C", "type": "string", "list": []}'
        )
        self.assertRegex(self.succeed("feeds"), r"lists .* read where it is; .*/a/.*; .*/b/")
        self.assertNotIn("/c/", self.out)
        self.assertEqual(self.run_command("check"), 0)
        for name in ("a", "b"):
            self.assertIn(f"{name}/list.json is no warninglist: it is no JSON\n", self.err)
        self.assertNotIn("/c/", self.err)

    def test_wrong(self) -> None:
        """A feed that is wrong is told with its line."""
        self.configure("[feeds.mine]\nformat = 'lines'\n")
        self.assertFails("feeds", told="feeds.mine")


class TryTests(FeedsCase):
    """What a description makes of a file."""

    def sample(self, text: str = LIST) -> str:
        """A file."""
        file = self.dir / "list.csv"
        file.write_text(text)
        return str(file)

    def test_rows(self) -> None:
        """What was taken, what was refused and why, what the records look like."""
        self.configure(MINE)
        out = self.succeed("feeds", "try", "mine", "--file", self.sample())
        self.assertIn("3 rows: 2 records, 0 left out, 1 refused", out)
        self.assertIn("refused: 1  is none of net.ip, net.name", out)
        self.assertIn('row 3: {"value": "<td>", "why": "?"}', out)
        self.assertIn("as a download it would not be taken: 1 of 3 rows can't be read", out)
        self.assertIn("net.ip  203.0.113.1\n    feed (string): Mine\n", out)
        self.assertNotIn("found", out)

    def test_hits(self) -> None:
        """What a value would find, wherever the option stands."""
        self.configure(MINE)
        for arguments in (
            ("mine", "--file", self.sample(), "http://www.bad.example/x"),
            ("mine", "http://www.bad.example/x", "--file", self.sample()),
            ("--file", self.sample(), "mine", "http://www.bad.example/x"),
        ):
            out = self.succeed("feeds", "try", *arguments)
            self.assertIn("net.uri http://www.bad.example/x: 1 found", out)
            self.assertIn("  1  why: phishes\n", out)
            self.assertIn("  1  Matched: parent domain of the URL's host\n", out)
        out = self.succeed("feeds", "try", "mine", "--file", self.sample(), "198.51.100.1")
        self.assertIn("net.ip 198.51.100.1: 0 found", out)
        out = self.succeed(
            "feeds", "try", "mine", "--file", self.sample(), "bad.example", "--type", "string"
        )
        self.assertIn("string bad.example: 0 found", out)
        out = self.succeed("feeds", "try", "mine", "--file", self.sample(), "net.name=bad.example")
        self.assertIn("net.name bad.example: 1 found", out)
        out = self.succeed(
            "feeds", "try", "mine", "--file", self.sample(), "net.name=bad.example", "--type=string"
        )
        self.assertIn("string net.name=bad.example: 0 found", out)

    def test_whole_catalogue(self) -> None:
        """Every feed that ships can be tried without anything, and shows a record."""
        self.configure("")
        for name in names_of_catalogue():
            out = self.succeed("feeds", "try", name)
            self.assertIn("the sample that ships", out)
            self.assertNotIn(" 0 records", out)
            self.assertNotIn("would not be taken", out)

    def test_downloaded(self) -> None:
        """Without a file, what was downloaded last is looked at."""
        self.configure(MINE)
        self.assertFails("feeds", "try", "mine", told="nothing was downloaded yet")
        self.keep("mine", LIST.encode(), copy=copy())
        self.assertIn("what was downloaded last", self.succeed("feeds", "try", "mine"))

    def test_own_file(self) -> None:
        """A feed that is a file of one's own is looked at there."""
        self.sample()
        self.configure(MINE.replace('url = "https://intel.example/list.csv"', 'file = "list.csv"'))
        self.assertIn("your file", self.succeed("feeds", "try", "mine"))

    def test_failures(self) -> None:
        """No such feed, no such file, not the format."""
        self.configure(MINE)
        self.assertFails(
            "feeds", "try", "urlhouse", told="urlhouse: no such feed; did you mean urlhaus?"
        )
        self.assertFails(
            "feeds", "try", "mine", "--file", str(self.dir / "no"), told="No such file"
        )
        self.assertFails(
            "feeds",
            "try",
            "mine",
            "x",
            "--type",
            "net.nome",
            told="net.nome: no such artifact type",
        )
        self.assertEqual(self.run_command("feeds", "try"), 2)
        empty = self.sample("a,b\n")
        self.assertEqual(self.run_command("feeds", "try", "mine", "--file", empty), 1)
        self.assertIn("no column value", self.err)

    def test_hidden_characters(self) -> None:
        """What stands in a feed does not move the terminal's cursor."""
        self.configure(MINE)
        sample = self.sample("value,why\n203.0.113.1,\x1b[2Jgone\n\x1b[2J,x\n")
        self.assertNotIn("\x1b", self.succeed("feeds", "try", "mine", "--file", sample))


class BringTests(FeedsCase):
    """Commands that bring feeds, as far as no network is needed."""

    def test_nothing_to_update(self) -> None:
        """Without a feed from somewhere there is nothing to ask."""
        self.configure("")
        self.assertFails("feeds", "update", told="no feed is on")
        self.configure(MINE.replace('url = "https://intel.example/list.csv"', 'file = "list.csv"'))
        self.assertFails("feeds", "update", "mine", told="is a file of yours")

    def test_off(self) -> None:
        """Nobody is asked for a feed that is off, whose terms nobody may have accepted."""
        self.configure("")
        self.assertFails("feeds", "update", "openphish", told="openphish is off: [feeds.openphish]")
        self.assertFalse((self.dir / "state" / "feeds" / "openphish").exists())

    def bring(self, state: FeedState) -> int:
        """Import a file of which this comes; the exit status."""

        class Downloads:
            """Takes a file."""

            def bring(self, *_: Any, **__: Any) -> Deferred[FeedState]:
                """So it stands then."""
                return succeed(state)

        self.configure(MINE)
        self.patch(feeds, "_downloads", lambda *_: Downloads())
        (self.dir / "list.csv").write_text(LIST)
        return self.run_command("feeds", "import", "mine", str(self.dir / "list.csv"))

    def test_import_old(self) -> None:
        """It is told at once that a file is so old that its date matters."""
        for days, told in ((0, ""), (1.5, "36 h old: its hits say"), (3, "3 d old: too old")):
            status = self.bring(FeedState(copy=copy(NOW - days * 86400)))
            self.assertEqual((status, self.out), (0, "mine: 1,234 records, 5 rows refused\n"))
            self.assertIn(told, self.err)
            self.assertEqual(bool(self.err), bool(told))

    def test_import_of_own_file(self) -> None:
        """A feed that is a file of ours is what stands in that file, whatever is brought."""
        self.configure(MINE.replace('url = "https://intel.example/list.csv"', 'file = "list.csv"'))
        (self.dir / "other.csv").write_text(LIST)
        self.assertFails(
            "feeds",
            "import",
            "mine",
            str(self.dir / "other.csv"),
            told=f"mine is the file {self.dir / 'list.csv'}: put what you have in its place",
        )
        self.assertFalse((self.dir / "state" / "feeds").exists())

    def test_refused(self) -> None:
        """How to have a refused copy all the same stands beside why it was refused."""
        refused = copy(reason="3 records after 100")
        error = "its copy is not taken: 3 records after 100"
        self.assertEqual(self.bring(FeedState(refused=refused, error=error)), 1)
        self.assertIn("ctsd feeds accept mine", self.err)
        for state in (
            FeedState(refused=refused, error="it answered 500"),
            # There is nothing in it that could be accepted.
            FeedState(refused=copy(reason=refused.reason, records=0), error=error),
        ):
            self.assertEqual(self.bring(state), 1)
            self.assertNotIn("accept", self.err)

    def test_usage(self) -> None:
        """Each command stands in the help."""
        parser = cli.make_parser()
        for line in ("feeds update", "feeds update x", "feeds accept x", "feeds import x y"):
            self.assertTrue(callable(parser.parse_args(line.split()).run), line)
