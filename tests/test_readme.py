"""What the README says is true."""

from __future__ import annotations

import re
import shlex
import sys
import unittest
from pathlib import Path

from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SynchronousTestCase

import searchers
from ctsd.cli import make_parser
from ctsd.config.loading import load
from ctsd.config.settings import documented
from ctsd.discovery import discover
from ctsd.importing import modules

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


class CommandsTests(SynchronousTestCase):
    """The commands that it shows."""

    def test_first_two(self) -> None:
        """The first command runs ctsd, the second one tests it; both are the Makefile's."""
        self.assertEqual([block.strip() for block in blocks("sh")[:2]], ["make run", "make test"])
        makefile = (ROOT / "Makefile").read_text()
        for target in ("run", "test"):
            self.assertRegex(makefile, rf"(?m)^{target}:")

    def test_ctsd(self) -> None:
        """Every C{ctsd} command line is one that ctsd understands."""
        shown = [
            line
            for block in blocks("sh")
            for line in block.replace("\\\n", " ").splitlines()
            if line.startswith("ctsd ")
        ]
        shown += re.findall(r"`(ctsd [a-z]+(?: [^`]*)?)`", README)
        self.assertGreater(len(shown), 8)
        for line in shown:
            arguments = shlex.split(line.partition(" > ")[0])[1:]
            try:
                make_parser().parse_args(arguments)
            except SystemExit:
                self.fail(f"{line!r} is no command")

    def test_all_commands(self) -> None:
        """Every command that there is stands in it."""
        usage = make_parser().format_help()
        commands = re.findall(r"^ {4}([a-z]+) ", usage, re.MULTILINE)
        self.assertIn("threats", commands)
        for command in commands:
            self.assertIn(f"ctsd {command}", README)


class SettingsTests(SynchronousTestCase):
    """The table of settings, and the configurations that it shows."""

    def test_table(self) -> None:
        """It has every setting with its default, and no other."""
        rows = re.findall(r"^\| `([^`]+)` \| (.*?) \| (.*) \|$", README, re.MULTILINE)
        keys = {key.name for key in documented()}
        table = [row for row in rows if row[0] in keys]
        self.assertEqual(table, [(key.name, key.default, key.about) for key in documented()])

    def test_no_other_rows(self) -> None:
        """What stands in the table is a setting."""
        (table,) = re.findall(r"^\| key \| default .*?\n\n", README, re.DOTALL | re.MULTILINE)
        self.assertEqual(len(table.splitlines()) - 2, len(list(documented())) + 1)

    def test_examples(self) -> None:
        """Every configuration that it shows is a good one."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        examples = blocks("toml")
        self.assertEqual(len(examples), 2)
        for example in examples:
            file = directory / "ctsd.toml"
            file.write_text(example)
            load(file, environ={})

    def test_searchers(self) -> None:
        """Every searcher that ships is named, with its own keys."""
        settings = load(environ={}, cwd=Path("/"))
        self.assertGreater(len(list(modules(settings, searchers))), 0)
        for found in discover(settings).found:
            self.assertIn(f"`{found.name}`", README)
            for key in found.cls.keys if found.cls else ():
                self.assertIn(f"`{key}`", README)

    def test_files(self) -> None:
        """The files and directories that it names are there."""
        (table,) = re.findall(r"^## What is where\n(.*?)^MIT", README, re.DOTALL | re.MULTILINE)
        names = re.findall(
            r"`([\w./]+[/.][\w.]*)`", "".join(re.findall(r"^\|[^|]*\|", table, re.M))
        )
        self.assertGreater(len(names), 10)
        for name in (*names, "LICENSE", "CHANGELOG.md"):
            self.assertTrue((ROOT / name).exists(), name)


class SearcherTests(SynchronousTestCase):
    """The searcher that it shows, as it stands there."""

    def setUp(self) -> None:
        """Write the files of the example."""
        self.dir = Path(self.mktemp()).absolute()
        self.own = self.dir / "searchers"
        self.own.mkdir(parents=True, mode=0o755)
        self.searcher, self.test = blocks("python")
        (self.own / "blocklist.py").write_text(self.searcher)
        (self.dir / "test_blocklist.py").write_text(self.test)
        before = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(name) for name in set(sys.modules) - before])

    def test_its_test_passes(self) -> None:
        """The example's test runs, and passes."""
        self.patch(sys, "path", [str(self.own), str(self.dir), *sys.path])
        self.patch(sys, "dont_write_bytecode", True)
        suite = unittest.defaultTestLoader.loadTestsFromName("test_blocklist.BlocklistTests")
        result = TestResult()
        suite.run(result)
        self.assertEqual((result.errors, result.failures), ([], []))
        self.assertEqual(result.testsRun, 3)

    def test_its_test_can_fail(self) -> None:
        """The example's test is not one that always passes."""
        (self.own / "blocklist.py").write_text(self.searcher.replace("limit=10", "limit=0"))
        self.patch(sys, "path", [str(self.own), str(self.dir), *sys.path])
        self.patch(sys, "dont_write_bytecode", True)
        result = TestResult()
        unittest.defaultTestLoader.loadTestsFromName("test_blocklist.BlocklistTests").run(result)
        self.assertEqual(len(result.failures), 1)

    def test_it_is_found(self) -> None:
        """With the configuration that stands below it, it is on."""
        file = self.dir / "ctsd.toml"
        file.write_text(blocks("toml")[1])
        settings = load(file, environ={})
        on = {found.name: found for found in discover(settings).on}
        self.assertEqual(on["blocklist"].settings, {"file": "blocklist.txt"})

    def test_django_imports(self) -> None:
        """The import that replaces the Django sample's works."""
        (diff,) = blocks("diff")
        (line,) = [line[1:] for line in diff.splitlines() if line.startswith("+")]
        exec(line, {})  # noqa: S102 - that is the point
