"""
The index file that most of the local database is in.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.feeds.array_file import BadIndex
from ctsd.feeds.index import Index
from ctsd.feeds.job import Build, BuildFailed, BuiltElsewhere, Job, Refused, label_of
from ctsd.feeds.kept import Kept
from ctsd.interfaces.threads import InThread
from ctsd.records import IndexLimits


class ThreatBase:
    """
    Serves what was built last, at the next start, too, and builds it anew in a child process when
    it is told to: one build at a time.

    :ivar limits: what bounds a search in it.
    :ivar is_outdated: whether other code than ours has built what is served.
    :ivar trouble: what was wrong with the last build, for operators; empty when nothing was.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        path: Path,
        database: Path,
        reader: str,
        access: str = "",
        clock: IReactorTime,
        now: Callable[[], float],
        build: Build,
        in_thread: InThread,
        retry_secs: float = 60.0,
        limits: IndexLimits = IndexLimits(),  # noqa: B008 - it is frozen
    ) -> None:
        """
        :param path: where the index is kept; its directory is made.
        :param database: the store's file, for the child process.
        :param reader: the module that reads it there, synchronously: it has
            C{read_version(path) -> int} and C{read_threats(path) -> Iterator[Threat]}, the
            latter by ascending id.
        :param access: what these functions take instead of C{database}, if it is no file.
        :param now: POSIX seconds, by the store.
        :param retry_secs: how long to wait after a build that failed.
        """
        self.limits = limits
        self.is_outdated = False
        self.trouble = ""
        self._kept = Kept(path=path, in_thread=in_thread, now=now, limits=limits)
        self._database = database
        self._reader = reader
        self._access = access
        self._clock = clock
        self._build = build
        self._retry_secs = retry_secs
        self._code = label_of(reader=reader)
        self._label = ""
        self._building: Deferred[None] | None = None
        self._build_after = -math.inf
        self._rest_until = -math.inf

    @property
    def index(self) -> Index | None:
        """What is served; None when there is none."""
        return self._kept.index

    async def start(self) -> None:
        """Serve what an earlier start left, whatever database it is of."""
        if self._kept.index is None:
            await self._kept.start()

    async def claim(self, *, secret: bytes, version: int) -> None:
        """
        Serve no index of another database, nor one that is ahead of ours; what is built from now
        on is of ours.

        :param secret: what only this database has. Only a digest of it is written.
        :param version: the database's, asked for after L{start}: what that found may be another
            process' and very new.
        """
        identity = hashlib.blake2b(secret, digest_size=16).hexdigest()
        index = self._kept.index
        if index is not None:
            code, _, of = index.about.source.partition(" ")
            if of != identity or index.about.version > version:
                self._log.warn("the index {path} is of another database", path=self._kept.path)
                await self._close()
            else:
                self.is_outdated = code != self._code
        self._label = f"{self._code} {identity}"

    async def stop(self) -> None:
        """End a build that is running, and unmap what is served."""
        building = self._building
        if building is not None:
            building.cancel()
            await building
        await self._close()

    async def _close(self) -> None:
        closing = self._kept.close()
        if closing is not None:
            await closing

    def may_rebuild(self, *, urgent: bool) -> bool:
        """
        Whether it can be built anew now: not while it is being built, nor soon after a build has
        failed.

        :param urgent: False has builds take at most half of the time, however much is written.
        """
        now = self._clock.seconds()
        return (
            self._building is None
            and now >= self._build_after
            and (urgent or now >= self._rest_until)
        )

    def rebuild(self, served: Callable[[int], object]) -> None:
        """
        Begin to build it anew; what goes wrong is logged, and in L{trouble}.

        :param served: told the version of the database that is served then, when one is.
        """
        self._building = Deferred.fromCoroutine(self._rebuild(served))
        self._building.addErrback(self._not_built).addBoth(self._built)

    async def _rebuild(self, served: Callable[[int], object]) -> None:
        started = self._clock.seconds()
        job = Job(
            target=self._kept.path,
            source=self._database,
            reader=self._reader,
            access=self._access,
            label=self._label,
            seen=self._kept.seen,
        )
        try:
            await self._build(job)
            await self._kept.swap()
        except BuiltElsewhere:
            if not await self._kept.adopt(lambda about: about.source == self._label):
                return
        index = self._kept.index
        if index is None:
            return
        served(index.about.version)
        self.is_outdated = False
        self.trouble = ""
        self._rest_until = 2 * self._clock.seconds() - started

    def _not_built(self, failure: Failure) -> None:
        if failure.check(CancelledError) is not None:
            return
        self._build_after = self._clock.seconds() + self._retry_secs
        if failure.check(BuildFailed, Refused, BadIndex, OSError) is None:
            self._log.failure("indexing the local database failed", failure)
            self.trouble = "the local database could not be indexed: see the log"
            return
        self.trouble = f"the local database could not be indexed: {failure.value}"
        self._log.error("{trouble}", trouble=self.trouble)

    def _built(self, _: object) -> None:
        self._building = None
