"""
Which searchers keep failing, in a small file of each process: for who looks from another one.

A file counts while its writer lives: that keeps it locked, and what a process that was killed has
left is locked by nobody. It holds names and dates, and never why: reasons can hold values.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path

from attrs import asdict, define
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.interfaces.threads import InThread
from ctsd.scanning.reliability import Reliability
from ctsd.states import Failing

#: Where all files are, in C{state_dir}.
DIRECTORY = "failing"

#: A file that could not be written is tried again after so long.
AGAIN_SECS = 60.0

_MAX_BYTES = 1 << 20
_MAX_FILES = 1000
#: So often a file may be replaced while it is looked at.
_LOOKS = 5


@define
class FailingFile:
    """
    The file of this process.

    :ivar path: where it is; its directory is made when it is needed.
    """

    path: Path
    _descriptor: int | None = None

    def write(self, failing: Mapping[str, Failing]) -> None:
        """
        (Blocks.) Replace what it says; without anyone who fails there is no file.

        :param failing: those who fail, by the searcher's name.
        :raises OSError: it can't be written.
        """
        if not failing:
            self.path.unlink(missing_ok=True)
            self._let_go(None)
            return
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}.new")
        descriptor = os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        try:
            # Before it has its name: whoever finds it unlocked takes us for dead.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            said = {name: asdict(one) for name, one in failing.items()}
            data = json.dumps(said).encode("ascii")
            if os.write(descriptor, data) != len(data):
                raise OSError(0, "written in part")
            fresh.replace(self.path)
        except OSError:
            os.close(descriptor)
            fresh.unlink(missing_ok=True)
            raise
        self._let_go(descriptor)

    def _let_go(self, following: int | None) -> None:
        before, self._descriptor = self._descriptor, following
        if before is not None:
            os.close(before)


def read_failing(directory: Path) -> dict[str, Failing]:
    """
    The searchers that fail, as the processes that live now have said it, by name. Empty where
    nobody may look.

    :param directory: where all L{FailingFile}s are.
    """
    found: dict[str, Failing] = {}
    try:
        names = sorted(os.listdir(directory))[:_MAX_FILES]
    except OSError:
        return found
    for name in names:
        if name.startswith("."):
            continue
        for searcher, one in _said(directory / name).items():
            other = found.get(searcher, one)
            found[searcher] = Failing(min(one.since, other.since), max(one.last, other.last))
    return found


def _said(path: Path) -> dict[str, Failing]:
    """What a file says, if its writer lives."""
    for _ in range(_LOOKS):
        try:
            with path.open("rb") as opened:
                if _is_locked(opened.fileno()):
                    given = json.loads(opened.read(_MAX_BYTES))
                    return {
                        str(name): Failing(float(one["since"]), float(one["last"]))
                        for name, one in given.items()
                    }
                if os.path.samestat(os.fstat(opened.fileno()), path.stat()):
                    return {}
                # It was replaced after we had opened it.
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return {}
    return {}


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


class TellsFailing(Service):
    """Keeps the file of this process as L{Reliability} knows it, off the reactor."""

    _log = Logger()

    def __init__(
        self,
        *,
        reliability: Reliability,
        file: FailingFile,
        clock: IReactorTime,
        in_thread: InThread,
    ) -> None:
        """
        :param in_thread: runs what blocks.
        """
        self._reliability = reliability
        self._file = file
        self._clock = clock
        self._in_thread = in_thread
        self._told: dict[str, Failing] | None = None
        self._writing = DeferredLock()
        self._again: IDelayedCall | None = None

    def startService(self) -> None:
        """Begin with what is known; what a process of our name has left goes."""
        super().startService()
        self._told = None
        self._reliability.changed = self._look
        self._look()

    def stopService(self) -> Deferred[None]:
        """Remove the file."""
        super().stopService()
        if self._again is not None and self._again.active():
            self._again.cancel()
        return self._look()

    def _look(self) -> Deferred[None]:
        """Write what has changed; fires when that is done, and never fails."""
        written = self._writing.run(lambda: Deferred.fromCoroutine(self._write()))
        return written.addErrback(self._failed)

    async def _write(self) -> None:
        known = dict(self._reliability.failing) if self.running else {}
        if known != self._told:
            self._told = None
            await self._in_thread(self._file.write, known)
            self._told = known

    def _failed(self, failure: Failure) -> None:
        self._log.error(
            "It can't be written which searchers fail: {why}", why=failure.getErrorMessage()
        )
        if self.running and (self._again is None or not self._again.active()):
            self._again = self._clock.callLater(AGAIN_SECS, self._look)
