"""What docs/operations.md says is true."""

from __future__ import annotations

import re
import shlex
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

from twisted.trial.unittest import SynchronousTestCase

from ctsd.cli import make_parser
from ctsd.config.settings import documented
from ctsd.scanning.scan_log import _line
from ctsd.store.sqlite_schema import bring_up, scripts

OPERATIONS = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")


def table(first: str) -> list[str]:
    """The first column of the table whose first column has this name."""
    (found,) = re.findall(rf"(?m)^\| {first} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", OPERATIONS)
    return re.findall(r"(?m)^\| (.*?) \|", found)


class OperationsTests(SynchronousTestCase):
    """Tables and commands."""

    def test_tables(self) -> None:
        """Every table of the database is there, and no other."""
        with closing(connect(":memory:", isolation_level=None)) as connection:
            bring_up(connection, scripts())
            there = {
                row[0]
                for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
        self.assertEqual(set(re.findall(r"`(\w+)`", " ".join(table("table")))), there)

    def test_log(self) -> None:
        """The example of a log line is one; every field is explained."""
        scan_id = "01a20c05d992847bb1532932c33bd83a"
        self.assertIn(_line((scan_id, "", "net.ip", "found", 1, 0.1544, None)), OPERATIONS)
        line = _line(("", "", "", "", 0, 0.0, ""))
        fields = ["scan", *re.findall(r"(\w+)=", line)]
        self.assertEqual([field.strip("`") for field in table("field")], fields)

    def test_limits(self) -> None:
        """Every setting that it names is one."""
        known = {key.name for key in documented()}
        named = re.findall(r"`([\w.<>]+)`", " ".join(table("limit")))
        self.assertGreater(len(named), 15)
        self.assertEqual(set(named) - known, set())

    def test_commands(self) -> None:
        """Every command is one that ctsd understands."""
        lines = re.findall(r"(?m)^ctsd .*$", OPERATIONS)
        self.assertGreater(len(lines), 2)
        for line in lines:
            make_parser().parse_args(shlex.split(line)[1:])
