"""What one reading of the configuration comes to, and the next one."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ctsd.configuration import Configuration
from ctsd.errors import ConfigError


class AgainTests(SynchronousTestCase):
    """A file in the working directory, read again."""

    def setUp(self) -> None:
        """Work in a directory with a file."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(mode=0o755)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(directory)
        self.file = directory / "ctsd.toml"
        self.file.write_text("retention_days = 2")

    def warnings(self) -> list[str]:
        """What the log will have of passed over files."""
        told: list[str] = []

        def observe(event: dict[str, object]) -> None:
            if "is passed over" in str(event.get("error")):
                told.append(str(event["error"]))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return told

    def test_changed(self) -> None:
        """What it says now holds."""
        before = Configuration.read(None, {})
        self.file.write_text("retention_days = 3")
        self.assertEqual(before.again().settings.retention_days, 3)

    def test_becomes_unsafe(self) -> None:
        """One to which others may write now changes nothing, which is told with its name."""
        before = Configuration.read(None, {})
        self.file.chmod(0o666)
        error = self.assertRaises(ConfigError, before.again)
        self.assertIn(f"{self.file}: ", str(error))
        self.assertIn(f"others may write to {self.file}", str(error))

    def test_goes(self) -> None:
        """One that has gone changes nothing either."""
        before = Configuration.read(None, {})
        self.file.unlink()
        error = self.assertRaises(ConfigError, before.again)
        self.assertEqual(str(error), f"{self.file}: is not there any more")

    def test_passed_over(self) -> None:
        """One that is passed over from the start is told of each time; made safe, it is taken."""
        told = self.warnings()
        self.file.chmod(0o666)
        before = Configuration.read(None, {})
        self.assertEqual(before.settings.retention_days, 30)
        self.assertEqual(before.again().settings.retention_days, 30)
        self.assertEqual(len(told), 2)
        self.assertIn(f"{self.file}: is passed over", told[0])
        self.file.chmod(0o644)
        self.assertEqual(before.again().settings.retention_days, 2)
        self.assertEqual(len(told), 2)

    def test_comes(self) -> None:
        """One that comes to where none was is taken."""
        self.file.unlink()
        before = Configuration.read(None, {})
        self.file.write_text("retention_days = 3")
        self.assertEqual(before.again().settings.retention_days, 3)
