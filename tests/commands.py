"""A world without reactor, database and terminal, in which tests run C{ctsd}'s commands."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctsd import cli
from ctsd.commands.world import Work, World
from ctsd.model import Outcome
from ctsd.store.memory import MemoryStore

#: What time it is there.
NOW = 1_800_000_000.0


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


class TypedInput(io.BytesIO):
    """Standard input that is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


class CommandCase(SynchronousTestCase):
    """
    Runs commands.

    :ivar store: the local database.
    :ivar closed: how often it was closed.
    :ivar environ: the environment, which names the configuration.
    :ivar stdin: what can be read from standard input.
    :ivar terminal: whether standard error is one, and C{on_terminal} whether standard input is;
        there C{ask_secret} answers.
    :ivar out: what the last command wrote, and C{err}.
    :ivar asked: what scans were asked for, and C{outcomes} what comes of them.
    """

    def setUp(self) -> None:
        """Make a directory with a configuration, and a store."""
        self.dir = Path(self.mktemp()).absolute()
        self.dir.mkdir(mode=0o755)
        self.config = self.dir / "ctsd.toml"
        self.config.write_text("[searchers]\nsync = ['internal']\nasync = []\n")
        self.environ = {"CTSD_CONFIG": str(self.config)}
        self.clock = Clock()
        self.clock.advance(NOW)
        self.store: Any = MemoryStore(clock=self.clock)
        self.closed = 0
        self.asked: list[dict[str, Any]] = []
        self.outcomes: list[tuple[str, Outcome]] = []
        self.stdin = b""
        self.terminal = self.on_terminal = False
        self.ask_secret: Callable[[str], str] = self.fail
        self.out = self.err = ""

    def run_command(self, *arguments: str) -> int:
        """Run one; its exit status."""
        out, err = io.StringIO(), Terminal() if self.terminal else io.StringIO()
        self.patch(cli.sys, "stdout", out)
        self.patch(cli.sys, "stderr", err)
        world = World(
            environ=self.environ,
            stdin=TypedInput() if self.on_terminal else io.BytesIO(self.stdin),
            out=out,
            err=err,
            in_reactor=self._in_reactor,
            open_store=lambda settings, reactor: (self.store, self._close),
            run_scan=self._run_scan,
            now=self.clock.seconds,
            ask_secret=self.ask_secret,
        )
        try:
            return cli.run(arguments, world)
        finally:
            self.out, self.err = out.getvalue(), err.getvalue()

    def succeed(self, *arguments: str) -> str:
        """Run one that goes well; what it wrote."""
        status = self.run_command(*arguments)
        self.assertEqual((status, self.err), (0, ""))
        return self.out

    def assertFails(self, *arguments: str, told: str) -> None:
        """The command fails with one line that tells this."""
        self.assertEqual(self.run_command(*arguments), 1, self.out)
        self.assertEqual(self.err.count("\n"), 1, self.err)
        self.assertTrue(self.err.startswith("ctsd: "), self.err)
        self.assertIn(told, self.err)

    def _in_reactor(self, work: Work) -> int:
        ended: list[int] = []
        failed: list[BaseException] = []
        done = Deferred.fromCoroutine(work(self.clock))
        done.addCallbacks(ended.append, lambda failure: failed.append(failure.value))
        for error in failed:
            raise error
        return ended[0]

    def _close(self) -> Deferred[None]:
        self.closed += 1
        return succeed(None)

    def _run_scan(self, **what: Any) -> Deferred[list[tuple[str, Outcome]]]:
        self.asked.append(what)
        return succeed(self.outcomes)
