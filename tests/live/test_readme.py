"""The README's session, as it stands there, with the real daemon."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.live.daemon import Daemon, wait_until
from tests.test_readme import blocks


class SessionTests(TestCase):
    """Its curl lines give the answers that stand below them."""

    timeout = 120
    skip = None if shutil.which("curl") else "curl is not installed"

    def test_session(self) -> None:
        """Each answer is the one in the README, but for the scan's id."""
        daemon = Daemon(Path(self.mktemp()))
        daemon.start()
        self.addCleanup(daemon.stop)
        body = b'{"type": "net.uri", "value": "www.megastore.lu"}'
        wait_until(lambda: daemon.ask("POST", "/", body).json.get("hits"), "the file is indexed")
        (session,) = blocks("console")
        lines = session.splitlines()
        self.assertEqual(len(lines), 6)
        scan_id = ""
        for command, expected in zip(lines[::2], lines[1::2], strict=True):
            curl = re.sub(r"\b01a20be5\.\.\.", scan_id, command.removeprefix("$ "))
            curl = curl.replace("curl ", "curl --silent ").replace(":8000/", f":{daemon.port}/")
            answer = subprocess.run(
                ["bash", "-c", curl], capture_output=True, text=True, check=True, timeout=30
            ).stdout
            found = re.search(r'"id":"([0-9a-f]{32})"', answer)
            if found:
                scan_id = scan_id or found[1]
                answer = answer.replace(scan_id, "01a20be5...")
            self.assertEqual(answer, expected)
        self.assertTrue(scan_id)
