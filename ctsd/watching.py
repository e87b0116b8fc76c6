"""Files that are read again when they change: passwords, keys, certificates."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.interfaces.threads import InThread

_T = TypeVar("_T")

# What a file looks like from outside; None: it is not there.
_Look: TypeAlias = tuple[tuple[int, ...] | None, ...]


def _look(paths: Sequence[Path]) -> _Look:
    def one(path: Path) -> tuple[int, ...] | None:
        try:
            found = os.stat(path)
        except OSError:
            return None
        return (
            found.st_dev,
            found.st_ino,
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
        )

    return tuple(map(one, paths))


class _Changing(Exception):
    """A file was written while it was read."""


class Watched(Generic[_T]):
    """
    What some files hold, current within a second or so.

    What can't be read or makes no sense changes nothing: the last good content stays. Two looks
    have to see the same trouble before it is logged, because somebody may be writing.

    :ivar current: the last good content; None until there was one.
    :ivar taken: called whenever C{current} has changed.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: Any,
        what: str,
        paths: Sequence[Path],
        load: Callable[[], _T],
        in_thread: InThread,
        look_secs: float = 1.0,
    ) -> None:
        """
        :param what: what the files are, for the log.
        :param load: reads them; called in a thread. Its exceptions' texts are logged.
        :param look_secs: the least time between two looks, and the time between two when nobody
            asks for one.
        """
        self.current: _T | None = None
        self.taken: Callable[[], object] = lambda: None
        self._clock = clock
        self._what = what
        self._paths = tuple(paths)
        self._load = load
        self._in_thread = in_thread
        self._look_secs = look_secs
        self._seen: _Look | None = None
        self._bad: _Look | None = None
        self._told = False
        self._forced = False
        self._looking = False
        self._looked_at = clock.seconds() - look_secs
        self._next: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock

    def load(self) -> _T:
        """
        Read the files now, holding everything up: for the start.

        :raises Exception: whatever is wrong with them; the caller tells.
        """
        self._looked_at = self._clock.seconds()
        seen = _look(self._paths)
        try:
            self.current = current = self._load()
        except Exception:
            self._bad, self._told = seen, True
            raise
        self._seen = seen
        return current

    def start(self) -> None:
        """Look from time to time."""
        if not self._loop.running:
            self._loop.start(self._look_secs, now=False)

    def stop(self) -> None:
        """Look no more, unless somebody asks for it."""
        if self._loop.running:
            self._loop.stop()

    def look(self) -> Deferred[None]:
        """
        Look whether the files have changed, and read them if so.

        :return: fires after a look that began after this call; never fails.
        """
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        self._schedule()
        return waiting

    def reload(self) -> Deferred[None]:
        """Read the files, changed or not, and log what is wrong with them; as L{look}."""
        self._forced = True
        return self.look()

    def _tick(self) -> None:
        if self._next is None and not self._looking:
            self._begin()

    def _schedule(self) -> None:
        if self._next is not None or self._looking or not self._waiting:
            return
        wait_secs = self._looked_at + self._look_secs - self._clock.seconds()
        if wait_secs <= 0:
            self._begin()
        else:
            self._next = self._clock.callLater(wait_secs, self._begin)

    def _begin(self) -> None:
        self._next = None
        self._looking = True
        self._looked_at = self._clock.seconds()
        waiting, self._waiting = self._waiting, []
        forced, self._forced = self._forced, False
        known = None if forced else self._seen
        read = self._in_thread(_read, self._paths, known, self._load)
        read.addCallbacks(partial(self._found, forced=forced), self._lost)
        read.addBoth(self._ended, waiting)

    def _found(self, result: tuple[_Look, _T | Exception | None], *, forced: bool) -> None:
        seen, content = result
        if isinstance(content, Exception):
            again = seen == self._bad
            if forced or (again and not self._told):
                self._told = True
                self._log.error(
                    "{what} can't be used: {why}; {stays}",
                    what=self._what,
                    why=str(content) or type(content).__name__,
                    stays="there was none before"
                    if self.current is None
                    else "what was read before stays in use",
                )
            elif not again:
                self._told = False
            self._bad = seen
            return
        self._bad, self._told = None, False
        if content is not None:
            self._seen = seen
            self.current = content
            self.taken()
            self._log.info("{what} was read again", what=self._what)

    def _lost(self, failure: Failure) -> None:
        self._log.failure("{what} could not be looked at", failure, what=self._what)

    def _ended(self, _: object, waiting: list[Deferred[None]]) -> None:
        self._looking = False
        for each in waiting:
            each.callback(None)
        self._schedule()


def _read(
    paths: Sequence[Path], known: _Look | None, load: Callable[[], _T]
) -> tuple[_Look, _T | Exception | None]:
    """
    What the files look like now, with their content, or what is wrong with it, if they are not as
    they were known.
    """
    seen = _look(paths)
    if seen == known:
        return seen, None
    try:
        content = load()
    except Exception as error:
        return seen, error
    if _look(paths) != seen:
        return seen, _Changing("it is being written")
    return seen, content
