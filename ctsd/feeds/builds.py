"""
Has indexes built in child processes, one after the other, and never waits for one for ever.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from attrs import asdict, evolve
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorProcess, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ctsd.feeds.array_file import clear_scratch
from ctsd.feeds.children import Children
from ctsd.feeds.index import About
from ctsd.feeds.job import BuildFailed, BuiltElsewhere, Job, lock_builds, look_of


class Builds:
    """
    Builds indexes (L{ctsd.feeds.job.Build}): each in a child process that ends with us, that
    stands back behind us on a busy core, and that knows none of our secrets. Of all processes
    that build in one directory, one does at a time.
    """

    #: How often it is tried whether another process is done.
    turn_secs = 0.5

    _log = Logger()

    def __init__(
        self,
        *,
        reactor: IReactorProcess,
        clock: IReactorTime,
        lock: DeferredLock,
        timeout_secs: float = 1800.0,
        environment: Mapping[str, str] = os.environ,
        max_output_bytes: int = 65536,
    ) -> None:
        """
        :param lock: held during a build, so that one runs at a time.
        :param timeout_secs: a build that takes longer is ended.
        :param environment: where the variables that are L{ctsd.feeds.children.PASSED} come from.
        :param max_output_bytes: a build that says more is ended.
        """
        self._clock = clock
        self._lock = lock
        self._children = Children(
            reactor=reactor,
            clock=clock,
            timeout_secs=timeout_secs,
            environment=environment,
            max_output_bytes=max_output_bytes,
        )

    def __call__(self, job: Job) -> Deferred[About]:
        """See L{ctsd.feeds.job.Build}. A build that is cancelled has ended when this fires."""
        return Deferred.fromCoroutine(self._build(job))

    async def _build(self, job: Job) -> About:
        await self._lock.acquire()
        try:
            turn = await self._turn(job.target.parent)
            try:
                if job.seen is not None and look_of(job.target) != job.seen:
                    raise BuiltElsewhere("another process has built it")
                return await self._run(evolve(job, seen=None))
            finally:
                os.close(turn)
        finally:
            self._lock.release()

    async def _turn(self, directory: Path) -> int:
        """Wait until no other process builds there; the descriptor that keeps others out."""
        while True:
            try:
                turn = lock_builds(directory)
            except OSError as error:
                raise BuildFailed(f"{directory}: {error.strerror}") from error
            if turn is not None:
                return turn
            await deferLater(self._clock, self.turn_secs)

    async def _run(self, job: Job) -> About:
        started = self._clock.seconds()
        given = {**asdict(job), "target": str(job.target), "source": str(job.source)}
        answer = await self._children.run(
            "ctsd.feeds.build", given, gone=lambda process: clear_scratch(job.target, process)
        )
        try:
            about = About(**answer)
        except TypeError as error:
            raise BuildFailed("it gave an answer of another version") from error
        self._log.info(
            "built {target}: {records} records, {skipped} skipped, {seconds:.1f} s",
            target=str(job.target),
            records=about.records,
            skipped=about.skipped,
            seconds=self._clock.seconds() - started,
        )
        return about
