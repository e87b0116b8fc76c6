"""Brings feeds: their directories, and all that changes something in them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO

from twisted.internet.defer import Deferred

from ctsd.feeds.copies import Copies, Disk, Lock
from ctsd.feeds.descriptions import Description
from ctsd.feeds.feed_state import Copy, FeedState
from ctsd.feeds.gathering import Gathering
from ctsd.feeds.layout import MISP
from ctsd.feeds.mending import mend
from ctsd.feeds.visit import Examine, Fetched, Visit
from ctsd.feeds.waits import Steps
from ctsd.interfaces.outbound import IOutbound
from ctsd.interfaces.threads import InThread
from ctsd.remote import Download


class Downloads:
    """
    Updates feeds when somebody says so, and takes what people bring.

    Deferreds may fail with L{ctsd.feeds.copies.Busy} (another process, or another part of this
    one, is at this feed), L{ctsd.feeds.copies.BadState} and C{OSError}, beside what stands there.
    Cancelling one ends the request; the directory is released when no thread is in it any more.
    """

    def __init__(
        self,
        *,
        directory: Path,
        outbound: IOutbound,
        gathering: Gathering,
        examine: Examine,
        in_thread: InThread,
        now: Callable[[], float],
        chance: Callable[[], float],
        disk: Disk | None = None,
    ) -> None:
        """
        :param directory: has one for each feed.
        :param outbound: fetches feeds that are a file, and C{gathering} those that are not.
        :param now: POSIX seconds.
        :param chance: from 0 to 1, another one each time.
        """
        self._directory = directory
        self._outbound = outbound
        self._gathering = gathering
        self._examine = examine
        self._in_thread = in_thread
        self._now = now
        self._chance = chance
        self._disk = disk

    def copies(self, name: str) -> Copies:
        """A feed's directory; all of it blocks."""
        return Copies(self._directory / name, self._disk)

    def update(
        self, description: Description, *, if_due: bool = False, token: int = 0
    ) -> Deferred[FeedState]:
        """
        Ask a feed's provider. What goes wrong with it or with its file is no failure, but stands
        in the state.

        :param if_due: only if it is time; else whether it is or not.
        :param token: of the lease under which this happens, if it does under one.
        :return: fires with how the feed stands then.
        :raises TooEarly: (L{ctsd.feeds.visit}) the provider may not be asked yet.
        """

        def work(visit: Visit) -> Awaitable[FeedState]:
            return visit.update(if_due=if_due, token=token)

        return self._visit(description, work, token)

    def bring(self, description: Description, file: BinaryIO, *, name: str) -> Deferred[FeedState]:
        """
        Take a file that somebody brought, through the same guards. It counts as old as it is.

        :param file: open until this fires.
        :param name: what people call it.
        :return: fires with how the feed stands then; a file that was refused stands in C{refused}.
        :raises Refused: (L{ctsd.feeds.job}, as the next) it is larger than a copy may be.
        :raises BuildFailed: nobody could look at it.
        """
        return self._visit(description, lambda visit: visit.bring(file, name))

    def accept(self, description: Description) -> Deferred[FeedState]:
        """
        Take the copy that was refused, if it can be read at all.

        :return: fires with how the feed stands then.
        :raises LookupError: there is none.
        :raises Refused: (L{ctsd.feeds.job}, as the next) it can't be read.
        :raises BuildFailed: nobody could look at it.
        """
        return self._visit(description, Visit.accept)

    def _visit(
        self,
        description: Description,
        work: Callable[[Visit], Awaitable[FeedState]],
        token: int = 0,
    ) -> Deferred[FeedState]:
        async def visit() -> FeedState:
            copies = self.copies(description.name)
            steps = Steps(self._in_thread)
            locks: list[Lock] = []
            try:
                # Who gives up while a thread takes the lock has it all the same.
                await steps(lambda: locks.append(copies.lock()))
                await mend(
                    description,
                    copies,
                    examine=self._examine,
                    steps=steps,
                    now=self._now,
                    token=token,
                )
                return await work(
                    Visit(
                        description,
                        copies,
                        fetch=self._fetch,
                        examine=self._examine,
                        steps=steps,
                        now=self._now,
                        chance=self._chance,
                    )
                )
            finally:
                await steps.settled()
                for lock in locks:
                    lock.release()

        return Deferred.fromCoroutine(visit())

    async def _fetch(self, description: Description, state: FeedState, part: Path) -> Fetched:
        provider = description.provider
        if provider.taxii or description.layout.format == MISP:
            return await self._gather(description, state, part)
        fetched = Fetched(Download(status=404), "")
        # Where its address has a date in it, today's need not be there yet.
        for remote in description.remotes(now=self._now()):
            answer = await self._outbound.download(
                remote=remote,
                into=part,
                headers=if_newer(state.copy, remote.shown),
                max_bytes=provider.max_bytes,
            )
            fetched = Fetched(answer, remote.shown)
            if answer.status != 404:
                break
        return fetched

    async def _gather(self, description: Description, state: FeedState, part: Path) -> Fetched:
        (remote, *_) = description.remotes(now=self._now())
        max_bytes = description.provider.max_bytes
        copy = state.copy
        ours = copy is not None and copy.source == remote.shown
        before = self.copies(description.name).path(copy) if copy and ours else None
        if description.provider.taxii:
            answer = await self._gathering.taxii(
                remote,
                part,
                max_bytes=max_bytes,
                now=self._now(),
                collection=description.provider.collection,
                page_objects=description.provider.page_objects,
                whole_every_secs=description.provider.whole_every_secs,
                before=before,
                tag=copy.etag if copy else "",
            )
            return Fetched(answer, remote.shown)
        answer = await self._gathering.misp(
            remote,
            part,
            max_bytes=max_bytes,
            headers=if_newer(copy, remote.shown),
            before=before,
        )
        return Fetched(answer, remote.shown)


def if_newer(copy: Copy | None, source: str) -> dict[str, str]:
    """The headers of a request that wants nothing but something newer than a copy."""
    if copy is None or copy.source != source:
        return {}
    headers = {"If-None-Match": copy.etag, "If-Modified-Since": copy.last_modified}
    return {name: value for name, value in headers.items() if value}
