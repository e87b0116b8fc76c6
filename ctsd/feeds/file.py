"""
Indicators in a file that somebody else keeps current.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ctsd.errors import SearchLater
from ctsd.feeds.array_file import BadIndex
from ctsd.feeds.index import About
from ctsd.feeds.job import (
    Build,
    BuildFailed,
    BuiltElsewhere,
    Job,
    Refused,
    label_of,
    reference,
    source_of,
)
from ctsd.feeds.kept import Kept
from ctsd.feeds.own_file import stat_of
from ctsd.feeds.reading import Reading
from ctsd.feeds.told import Told, write_told
from ctsd.interfaces.feeds import IRecords
from ctsd.interfaces.threads import InThread
from ctsd.model import JSON
from ctsd.records import Indexed, IndexLimits, Matches
from ctsd.searcher_setup import Parse

#: How often a file that is still being written is looked at again before its turn is over.
_LOOKS = 5


@frozen
class _Verdict:
    """What was wrong with a source, and until when it is not tried again (by the clock)."""

    source: str = ""
    trouble: str = ""
    until: float = -math.inf


@implementer(IRecords)
class RecordsFile(Service):
    """
    Keeps an index of a file current, and searches it.

    The file is looked at every C{check_secs}. When it has changed and kept still, an index is
    built in a child process and swapped in. What can't be believed is refused, and the last good
    index goes on serving, at the next start too, until the file has changed again.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        path: Path,
        parse: Parse | Reading,
        index: Path,
        clock: IReactorTime,
        build: Build,
        in_thread: InThread,
        now: Callable[[], float],
        check_secs: float = 5.0,
        still_secs: float = 2.0,
        min_share: float = 0.5,
        max_bytes: int = 4 << 30,
        retry_secs: float = 60.0,
        limits: IndexLimits = IndexLimits(),  # noqa: B008 - it is frozen
    ) -> None:
        """
        :param path: the source.
        :param parse: reads it; a function at its module's top level, for a child process calls it,
            or what a feed's description says of it.
        :param index: where the index is kept; its directory is made.
        :param now: POSIX seconds.
        :param check_secs: how often the source is looked at.
        :param still_secs: how long a changed source has to keep still before it is taken.
        :param min_share: a source with less than this share of the last good one's records is
            refused.
        :param max_bytes: a larger source is refused.
        :param retry_secs: how long to wait after a build that failed.
        :raises ValueError: C{parse} can't be called by a child process.
        """
        self._path = path
        if isinstance(parse, Reading):
            self._parse, self._reading = "", parse.as_text()
        else:
            self._parse, self._reading = reference(parse), ""
        self._label = label_of(parse=self._parse, reading=self._reading)
        self._clock = clock
        self._build = build
        self._in_thread = in_thread
        self._now = now
        self._check_secs = check_secs
        self._still_secs = still_secs
        self._min_share = min_share
        self._max_bytes = max_bytes
        self._retry_secs = retry_secs
        self._kept = Kept(path=index, in_thread=in_thread, now=now, limits=limits)
        self._loop = LoopingCall(self._turn)
        self._loop.clock = clock
        self._running: Deferred[None] | None = None
        self._trouble = ""
        # What the trouble is with, and what other processes read of it; None: perhaps the past's.
        self._trouble_source = ""
        self._told: Told | None = None
        self._verdict = _Verdict()
        self._is_ready = False
        self._waiting: list[Deferred[None]] = []

    def startService(self) -> None:
        """Begin to look at the source."""
        super().startService()
        self._loop.start(self._check_secs).addErrback(self._broken)

    def stopService(self) -> Deferred[None]:
        """End a build that is running, and unmap the index."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._loop.running:
            self._loop.stop()
        if self._running is not None:
            running = self._running
            running.cancel()
            await running
        closing = self._kept.close()
        if closing is not None:
            await closing
        self._settle()

    def ready(self) -> Deferred[None]:
        """
        Fires when the first look at the source is over, however it ended: L{find} then answers,
        or L{trouble} says why it can't.
        """
        if self._is_ready:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def find(
        self,
        *,
        type: str,
        value: JSON,
        limit: int,
        wanted: Callable[[Indexed], bool] | None = None,
    ) -> Matches:
        """See L{IRecords}."""
        index = self._kept.index
        if index is None:
            raise SearchLater(self._check_secs, self._trouble or f"{self._path.name} is being read")
        return index.find(type=type, value=value, limit=limit, wanted=wanted)

    def trouble(self) -> str:
        """See L{IRecords}."""
        return self._trouble

    def loading(self) -> bool:
        """See L{IRecords}."""
        return self._kept.index is None and not self._trouble

    def failed(self) -> bool:
        """See L{IRecords}."""
        return self._kept.index is None and bool(self._trouble)

    def describe(self) -> str:
        """See L{IRecords}."""
        index = self._kept.index
        if index is None:
            return "nothing loaded"
        return described(index.about)

    def _turn(self) -> Deferred[None]:
        looking = Deferred.fromCoroutine(self._look()).addErrback(self._ended)
        looking.addCallback(lambda _: Deferred.fromCoroutine(self._keep_told()))
        self._running = looking.addErrback(self._ended)
        return self._running

    def _ended(self, failure: Failure) -> None:
        """A turn that was not foreseen to fail must not end the loop."""
        if failure.check(CancelledError) is None:
            self._log.failure("looking at {path} failed", failure, path=self._path)
            self._tell("it could not be read: an internal error, see the log")

    def _broken(self, failure: Failure) -> None:
        self._log.failure("nobody looks at {path} any more", failure, path=self._path)

    async def _look(self) -> None:
        try:
            if not self._is_ready:
                await self._kept.start()
            await self._take()
        finally:
            self._settle()

    def _settle(self) -> None:
        self._is_ready = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    async def _take(self) -> None:
        """Have the source as it is now served, if that is possible."""
        try:
            source = await self._still()
        except OSError as error:
            self._tell(f"{self._path} can't be read: {error.strerror}")
            return
        index = self._kept.index
        if index is not None and index.about.source == source:
            self._tell("")
            return
        if not source or await self._adopted(source):
            return
        verdict = self._verdict
        if source == verdict.source and self._clock.seconds() < verdict.until:
            self._tell(verdict.trouble, source)
            return
        least = 0 if index is None else math.ceil(index.about.records * self._min_share)
        job = Job(
            target=self._kept.path,
            source=self._path,
            parse=self._parse,
            reading=self._reading,
            label=self._label,
            least=least,
            max_bytes=self._max_bytes,
            seen=self._kept.seen,
        )
        try:
            about = await self._build(job)
            await self._kept.swap()
        except BuiltElsewhere:
            await self._adopted(source)
        except Refused as error:
            self._verdict = _Verdict(source, f"{self._path} is refused: {error}", math.inf)
            self._tell(self._verdict.trouble, source)
        except (BuildFailed, BadIndex, OSError) as error:
            until = self._clock.seconds() + self._retry_secs
            self._verdict = _Verdict(source, f"{self._path} could not be indexed: {error}", until)
            self._tell(self._verdict.trouble, source)
        else:
            self._tell("")
            self._log.info("serving {path}: {about}", path=self._path, about=described(about))

    async def _adopted(self, source: str) -> bool:
        """Whether another process has indexed this source; if so, that index is served now."""
        if not await self._kept.adopt(lambda about: about.source == source):
            return False
        self._tell("")
        index = self._kept.index
        if index is not None:
            self._log.info("serving {path}: {about}", path=self._path, about=described(index.about))
        return True

    async def _still(self) -> str:
        """
        What the source is now; empty while it is being written.

        :raises OSError: it is not there, or can't be read.
        """
        stat = await self._in_thread(stat_of, self._path)
        for _ in range(_LOOKS):
            source = source_of(self._label, stat)
            if self._now() - stat.st_mtime >= self._still_secs:
                return source
            await deferLater(self._clock, self._still_secs)
            stat = await self._in_thread(stat_of, self._path)
            if source_of(self._label, stat) == source:
                return source
        return ""

    async def _keep_told(self) -> None:
        """Let other processes know what is wrong."""
        told = Told(self._trouble, self._trouble_source)
        if told == self._told or not self.running:
            return
        self._told = told
        try:
            await self._in_thread(write_told, self._kept.path, told)
        except OSError as error:
            self._log.warn(
                "what is wrong with {path} can't be kept: {why}",
                path=self._path,
                why=error.strerror,
            )

    def _tell(self, trouble: str, source: str = "") -> None:
        """Note what is wrong, and with what, and say so once."""
        self._trouble_source = source
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            going_on = "the last good copy serves" if self._kept.index else "nothing serves"
            self._log.error("{trouble}; {going_on}", trouble=trouble, going_on=going_on)
        else:
            self._log.info("{path} is well again", path=self._path)


def described(about: About) -> str:
    """An index for people: its records, what could not be used, its date."""
    built = datetime.fromtimestamp(about.built, UTC)
    skipped = f", {about.skipped:,} malformed" if about.skipped else ""
    return f"{about.records:,} records{skipped}, indexed {built:%Y-%m-%d %H:%M} UTC"


__all__ = ["RecordsFile", "described"]
