"""What all commands share: the world around them, the reactor, and how things are shown."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import pwd
import re
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from ctsd.config.settings import Settings
from ctsd.interfaces.store import IThreatStore
from ctsd.model import Outcome
from ctsd.one_scan import run_scan
from ctsd.sources import make_store

# Characters that a terminal would act upon, or that hide what stands beside them.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


class Commands(Protocol):
    """What a module of commands adds its own to (C{argparse}'s own type is private)."""

    def add_parser(self, name: str, **kwargs: Any) -> argparse.ArgumentParser:
        """A new command."""


#: Work in the reactor: the exit status comes out.
Work = Callable[[Any], Coroutine[Any, Any, int]]


@frozen(kw_only=True)
class World:
    """
    Everything outside of a command.

    :ivar in_reactor: runs work in a reactor until it has ended.
    :ivar open_store: the local database, started, and how it is closed.
    :ivar run_scan: asks searchers; see L{ctsd.one_scan.run_scan}.
    :ivar now: POSIX seconds.
    :ivar ask_secret: asks on the terminal, without showing what is typed.
    """

    environ: Mapping[str, str] = field(repr=False)
    stdin: BinaryIO
    out: TextIO
    err: TextIO
    in_reactor: Callable[[Work], int]
    open_store: Callable[[Settings, Any], tuple[IThreatStore, Callable[[], Any]]]
    run_scan: Callable[..., Deferred[list[tuple[str, Outcome]]]]
    now: Callable[[], float]
    ask_secret: Callable[[str], str] = getpass.getpass

    def say(self, line: str) -> None:
        """One line of result."""
        print(line, file=self.out)

    def complain(self, line: str) -> None:
        """One line about what is wrong."""
        print(shown(f"ctsd: {line}"), file=self.err)


def shown(text: str) -> str:
    """A text made safe for a terminal: one line, and nothing that moves the cursor or hides."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines, with columns as wide as they need to be; the last one is not padded."""
    safe = [tuple(map(shown, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*safe, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in safe
    ]


def become_owner(state_dir: Path) -> None:
    """
    As root: become the user to whom the state belongs, for good, so that no file is left in it
    that the daemon can't write.

    Whatever this user may not read has to be imported and opened before.
    """
    os.umask(0o077)
    if os.geteuid() != 0:
        return
    try:
        owner = state_dir.stat()
    except OSError:
        # What uses it will say what is wrong with it.
        return
    if owner.st_uid == 0:
        return
    try:
        os.initgroups(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
    except KeyError:
        os.setgroups([owner.st_gid])
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)


def in_reactor(work: Work) -> int:
    """
    Run work in the global reactor, which runs once in a process.

    :raises Exception: whatever the work raises.
    """
    ended: list[int | Exception] = []

    async def whole(reactor: Any) -> None:
        try:
            ended.append(await work(reactor))
        except Exception as error:
            ended.append(error)

    with contextlib.suppress(SystemExit):  # how react always ends
        react(lambda reactor: Deferred.fromCoroutine(whole(reactor)))
    if not ended:
        raise KeyboardInterrupt
    if isinstance(ended[0], Exception):
        raise ended[0]
    return ended[0]


def _open_store(settings: Settings, reactor: Any) -> tuple[IThreatStore, Callable[[], Any]]:
    store = make_store(settings, reactor=reactor)
    store.open()
    store.startService()
    return store, store.stopService


def real_world() -> World:
    """The process' own."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    return World(
        environ=os.environ,
        stdin=sys.stdin.buffer,
        out=sys.stdout,
        err=sys.stderr,
        in_reactor=in_reactor,
        open_store=_open_store,
        run_scan=run_scan,
        now=time.time,
    )
