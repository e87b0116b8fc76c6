"""What is installed, from a wheel and in place, is whole and works from any directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from twisted.trial.unittest import TestCase

ROOT = Path(__file__).parents[2]

#: What a checkout has beside its files.
NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv", "var", "build", "dist", "*.egg-info", "__pycache__", "_trial_temp*", ".*_cache"
)


def run(*command: str | Path, cwd: Path = Path("/"), **environ: str) -> str:
    """What a command writes; it has to succeed."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=clean | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


class PackagingTests(TestCase):
    """Fresh environments, as a machine has them after C{pip install}."""

    timeout = 480

    def setUp(self) -> None:
        """A copy of the sources, so that nothing is left in the checkout."""
        self.dir = Path(self.mktemp()).absolute()
        self.source = self.dir / "source"
        shutil.copytree(ROOT, self.source, ignore=NOT_SOURCE)

    def environment(self, name: str, *, borrow: bool) -> Path:
        """
        The C{bin} of a fresh virtual environment.

        :param borrow: with the packages that this test runs on, but without its ctsd.
        """
        run(sys.executable, "-m", "venv", self.dir / name)
        if borrow:
            # A directory that a .pth file names is searched, but its own .pth files, one of which
            # leads to the checkout, are not read.
            (site,) = (self.dir / name / "lib").glob("python*/site-packages")
            (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
        return self.dir / name / "bin"

    def assertWorks(self, bin: Path) -> None:
        """Commands, plugin, shipped data and child processes all work from C{/}."""
        # The command `twistd`, which is not in an environment that has borrowed Twisted.
        twistd = (bin / "python", "-c", "from twisted.scripts.twistd import run; run()")
        self.assertIn(" ctsd ", run(*twistd, "--help"))
        self.assertIn("--config", run(*twistd, "ctsd", "--help"))
        for prefix in ("auth:users", "tls-wrap:key.pem:cert.pem"):
            parsing = (
                "from twisted.internet import endpoints, reactor;"
                f"endpoints.serverFromString(reactor, '{prefix}:tcp:8000')"
            )
            run(bin / "python", "-c", parsing)
        state = self.dir / "state"
        scanned = run(
            bin / "ctsd", "scan", "net.uri", "www.megastore.lu", STATE_DIRECTORY=str(state)
        )
        self.assertIn("phishtank: 1 found", scanned)
        checked = run(bin / "ctsd", "check", STATE_DIRECTORY=str(state))
        self.assertIn("0 errors, 0 warnings; on: internal, phishtank", checked)

    def pip(self, bin: Path, *arguments: str | Path) -> None:
        """Run an environment's pip."""
        run(bin / "python", "-m", "pip", "--disable-pip-version-check", "-q", *arguments)

    def test_wheel(self) -> None:
        """A wheel has every file of ours, brings what it needs, and works."""
        bin = self.environment("fresh", borrow=False)
        self.pip(bin, "wheel", "--no-deps", "-w", self.dir, self.source)
        (wheel,) = self.dir.glob("ctsd-*.whl")
        ours = {
            str(path.relative_to(self.source))
            for package in ("ctsd", "searchers", "twisted")
            for path in (self.source / package).rglob("*.*")
            if path.is_file() and path.suffix != ".cache"
        }
        with zipfile.ZipFile(wheel) as opened:
            packed = {name for name in opened.namelist() if ".dist-info/" not in name}
        self.assertEqual(packed, ours)
        self.pip(bin, "install", wheel)
        self.assertWorks(bin)

    def test_editable(self) -> None:
        """Installed in place, twistd finds the plugin as well."""
        bin = self.environment("editable", borrow=True)
        self.pip(bin, "install", "--no-deps", "-e", self.source)
        self.assertWorks(bin)
