"""Tests of what makes an index one that other code has built."""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctsd import properties
from ctsd.feeds import build, job
from ctsd.feeds.job import FORMS, READING_FORMS, label_of, reference
from ctsd.feeds.parsers import parse
from tests import feeding
from tests.test_layers import ROOT, imported


def imports_of(start: Path) -> set[str]:
    """What a module of ctsd imports of ctsd, itself and all of it, as L{FORMS} has it."""
    home = ROOT / "ctsd"
    found: set[Path] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            names = (name.split(".") for name in imported(path) if name.startswith("ctsd."))
            paths = (home.joinpath(*name[1:]).with_suffix(".py") for name in names)
            waiting += filter(Path.is_file, paths)
    return {str(path.relative_to(home)) for path in found}


class LabelTests(SynchronousTestCase):
    """An index is built anew when the code that decides what stands in it has changed."""

    def test_all_that_decides(self) -> None:
        """All that a build imports of ctsd counts."""
        self.assertEqual(set(FORMS), imports_of(Path(build.__file__)))

    def test_each_counts(self) -> None:
        """A change of any of these modules is another label."""
        labels = {label_of()}
        for name in FORMS:
            self.patch(job, "FORMS", tuple(one for one in FORMS if one != name))
            labels.add(label_of())
        self.assertEqual(len(labels), len(FORMS) + 1)

    def test_descriptions(self) -> None:
        """What a description says counts, and all that makes records of it."""
        parsing = imports_of(Path(parse.__file__)) | imports_of(Path(properties.__file__))
        # Seams have no say in it.
        parsing -= {*FORMS, "interfaces/feeds.py"}
        self.assertEqual(set(READING_FORMS), parsing | {"feeds/reading.py"})
        labels = {label_of(), label_of(reading="{}"), label_of(reading="[]")}
        for name in READING_FORMS:
            others = tuple(one for one in READING_FORMS if one != name)
            self.patch(job, "READING_FORMS", others)
            labels.add(label_of(reading="{}"))
        self.assertEqual(len(labels), len(READING_FORMS) + 3)

    def test_parse_function(self) -> None:
        """So is a change of the parse function's module."""
        module = Path(self.mktemp())
        labels = set()
        for text in ("one", "two"):
            module.write_text(text)
            labels.add(label_of(parse=f"{module}:parse"))
        labels |= {label_of(), label_of(parse=reference(feeding.records))}
        self.assertEqual(len(labels), 4)

    def test_reader(self) -> None:
        """So is a change of what reads the local database, and of what lies beside it."""
        package = Path(self.mktemp()).absolute()
        package.mkdir()
        (package / "ctsd_test_reader.py").write_text("")
        self.patch(sys, "path", [str(package), *sys.path])
        labels = {label_of(), label_of(reader="ctsd.store.threat_rows")}
        for text in ("one", "two"):
            (package / "rows.py").write_text(text)
            labels.add(label_of(reader="ctsd_test_reader"))
        self.assertEqual(len(labels), 4)
