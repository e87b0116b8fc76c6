"""
One visit to a feed's directory, which is ours for so long: its provider is asked, or a file is
brought; what comes is looked at and kept, aside if it may not be taken.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from attrs import evolve, frozen
from twisted.logger import Logger

from ctsd.errors import OutboundError, Unreached
from ctsd.feeds.copies import Copies, bring
from ctsd.feeds.descriptions import Description
from ctsd.feeds.feed_state import Copy, FeedState
from ctsd.feeds.guards import Counts, check_counts, check_file, unpacked_limit
from ctsd.feeds.job import BuildFailed, Refused
from ctsd.feeds.providers import Provider
from ctsd.feeds.times import (
    is_due,
    is_over_quota,
    next_time,
    retry_time,
    righted,
    wait_secs,
    wanted_pause_secs,
)
from ctsd.feeds.waits import Steps
from ctsd.remote import Download

#: Longer addresses and errors are cut: the state has a limit.
_SHOWN_CHARS: Final = 2000


class TooEarly(Exception):
    """
    The provider may not be asked yet.

    :ivar secs: how long not.
    """

    def __init__(self, secs: float) -> None:
        super().__init__(
            f"it may be asked again in {secs:.0f} s (min_interval_secs, or what its provider said)"
        )
        self.secs = secs


class Examine(Protocol):
    """Has a parser read a file, somewhere where that holds nobody up."""

    def __call__(
        self,
        description: Description,
        path: Path,
        *,
        max_unpacked_bytes: int,
        sha256: str = "",
        index: Path | None = None,
    ) -> Awaitable[Counts]:
        """
        What is in it.

        :param index: where its index may be written on the way; None: nobody wants one.
        :param sha256: the file's, for that.
        :raises Refused: it can't be unpacked or parsed at all.
        :raises BuildFailed: nobody could look; another try may.
        """


@frozen
class Fetched:
    """
    What came of asking for a feed.

    :ivar source: the description's address that was asked; tells what an C{ETag} belongs to.
    """

    answer: Download
    source: str


class Fetch(Protocol):
    """Has a feed's file written, in one request or in many."""

    def __call__(
        self, description: Description, state: FeedState, part: Path
    ) -> Awaitable[Fetched]:
        """
        Write it to C{part}, and sync it, unless the answer's status is another one than 200.

        :param state: what is there already: with a status of 304, C{state.copy} is the newest.
        :raises OutboundError: there was no whole answer.
        """


class Visit:
    """
    What can be done with a feed while its directory is locked. What goes wrong with a provider or
    with its file is no exception, but stands in the state that is returned.
    """

    _log = Logger()

    def __init__(
        self,
        description: Description,
        copies: Copies,
        *,
        fetch: Fetch,
        examine: Examine,
        steps: Steps,
        now: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._description = description
        self._provider: Provider = description.provider
        self._copies = copies
        self._fetch = fetch
        self._examine = examine
        self._steps = steps
        self._now = now
        self._chance = chance

    async def update(self, *, if_due: bool = False, token: int = 0) -> FeedState:
        """
        Ask the provider.

        :param if_due: only if it is time: another process may have asked it meanwhile.
        :param token: of the lease under which this happens.
        :raises TooEarly: it may not be asked yet.
        """
        copies, steps = self._copies, self._steps
        read: FeedState = await steps(copies.state)
        if if_due and not is_due(read, self._provider, now=self._now()):
            return read
        state = righted(read, now=self._now())
        wait = wait_secs(state, self._provider, now=self._now())
        if wait > 0:
            if state != read:
                await steps(copies.write, state)
            raise TooEarly(wait)
        # Before the request: the minimum holds even if nobody lives to see the answer.
        state = evolve(state, tried=self._now(), unreached=False, token=token or state.token)
        await steps(copies.write, state)
        part = await steps(copies.fresh)
        # Who has no file any more wants it, also when it is not newer.
        last = await self._there(state)
        try:
            fetched = await self._fetch(self._description, evolve(state, copy=last), part)
        except OutboundError as error:
            state = evolve(state, unreached=isinstance(error, Unreached))
            return await self._failed(state, error.reason)
        answer = fetched.answer
        state = evolve(state, tried=self._now())
        if answer.status == 304 and last is not None:
            return await self._same(state, evolve(last, checked=self._now()))
        if answer.status != 200:
            return await self._bad_status(state, answer)
        copy = Copy(
            file="",
            size=answer.size,
            sha256=answer.sha256,
            fetched=self._now(),
            checked=self._now(),
            url=answer.url[:_SHOWN_CHARS],
            source=fetched.source,
            etag=self._kept(answer.headers.get("etag", "")),
            last_modified=self._kept(answer.headers.get("last-modified", "")),
        )
        if last is not None and last.sha256 == copy.sha256:
            # The very same file as before: there is nothing to look at.
            return await self._same(
                state,
                evolve(
                    copy,
                    file=last.file,
                    fetched=last.fetched,
                    rows=last.rows,
                    refused=last.refused,
                    records=last.records,
                ),
            )
        due = next_time(self._provider, now=self._now(), chance=self._chance())
        try:
            return await self._keep(evolve(state, due=due, not_before=0.0), part, copy)
        except BuildFailed as error:
            return await self._failed(state, f"nobody could read its copy: {error}")

    async def bring(self, file: BinaryIO, name: str) -> FeedState:
        """
        Take a file that somebody brought. It counts as old as it is.

        :raises OSError: it can't be read.
        :raises Refused: it is larger than a copy may be.
        :raises BuildFailed: nobody could look at it.
        """
        copies, steps = self._copies, self._steps
        state: FeedState = await steps(copies.state)
        part = await steps(copies.fresh)
        size, sha256 = await steps(bring, file, part, max_bytes=self._provider.max_bytes)
        dated = min(os.fstat(file.fileno()).st_mtime, self._now())
        last = await self._there(state)
        if last is not None and last.sha256 == sha256:
            # It was looked at, or accepted, when it came.
            copy = evolve(last, checked=max(last.checked, dated))
            state = evolve(state, copy=copy, refused=None, failures=0, error="")
            await steps(copies.write, state)
            return state
        copy = Copy(file="", size=size, sha256=sha256, fetched=dated, checked=dated, url=name)
        return await self._keep(state, part, copy)

    async def accept(self) -> FeedState:
        """
        Take the copy that was refused, unless nobody could search it: then the last good one is
        better.

        :raises LookupError: there is none.
        :raises Refused: it can't be unpacked or parsed at all, or nothing in it can be read.
        :raises BuildFailed: nobody could look at it.
        """
        copies, steps = self._copies, self._steps
        copy: Copy = await steps(copies.refused)
        # As much as its index would take: what was refused for its ratio alone may be right.
        counts = await self._examine(
            self._description,
            copies.path(copy),
            max_unpacked_bytes=self._provider.max_unpacked_bytes,
            sha256=copy.sha256,
            index=copies.fresh_index(),
        )
        if counts.refused and not counts.records:
            # An empty list may be right; this is none, such as a page that says sorry.
            raise Refused(f"not one of its {counts.rows} rows can be read")
        state: FeedState = await steps(copies.accept, _counted(copy, counts))
        return state

    async def _keep(self, state: FeedState, part: Path, copy: Copy) -> FeedState:
        """Look at a new file, and keep it: as the newest copy, or aside."""
        provider, name = self._provider, self._description.name
        try:
            await self._steps(check_file, part, provider)
            counts = await self._examine(
                self._description,
                part,
                max_unpacked_bytes=unpacked_limit(provider, copy.size),
                sha256=copy.sha256,
                index=self._copies.fresh_index(),
            )
            copy = _counted(copy, counts)
            check_counts(counts, provider, state.copy)
        except Refused as error:
            reason = str(error)[:_SHOWN_CHARS] or "it is not fit"
            # Of what nothing can be read there is nothing to accept.
            advice = f"; {advice_of(name)}" if copy.records else ""
            self._log.error(
                "Feed {name}: the copy from {url} is not taken: {reason}{advice}",
                name=name,
                url=copy.url,
                reason=reason,
                advice=advice,
            )
            state = evolve(
                state, failures=state.failures + 1, error=f"its copy is not taken: {reason}"
            )
            kept: FeedState = await self._steps(
                self._copies.keep, part, evolve(copy, reason=reason), state
            )
            return kept
        state = evolve(state, failures=0, error="")
        kept = await self._steps(self._copies.keep, part, copy, state)
        self._log.info(
            "Feed {name}: {records} records from {url}",
            name=name,
            records=copy.records,
            url=copy.url,
        )
        return kept

    async def _there(self, state: FeedState) -> Copy | None:
        """The newest good copy, if its file is there."""
        copy = state.copy
        if copy is None or not await self._steps(self._copies.path(copy).exists):
            return None
        return copy

    def _kept(self, header: str) -> str:
        """A header for the disk; empty when the provider has put a secret of ours into it."""
        secrets = filter(None, (self._provider.key, self._provider.password))
        return "" if any(secret in header for secret in secrets) else header[:1024]

    async def _same(self, state: FeedState, copy: Copy) -> FeedState:
        """There is nothing newer than our copy; one that was refused is gone there, too."""
        due = next_time(self._provider, now=self._now(), chance=self._chance())
        state = evolve(
            state, copy=copy, refused=None, due=due, not_before=0.0, failures=0, error=""
        )
        await self._steps(self._copies.write, state)
        return state

    async def _bad_status(self, state: FeedState, answer: Download) -> FeedState:
        provider, status = self._provider, answer.status
        pause = wanted_pause_secs(status, answer.headers, provider, now=self._now())
        if pause is not None:
            state = evolve(state, not_before=self._now() + pause)
        reason = f"it answered {status}"
        if is_over_quota(status, provider):
            reason = f"it says that it was asked too often ({status})"
        elif status in (401, 403):
            reason = f"it does not take our credentials, or wants some ({status})"
        return await self._failed(state, reason)

    async def _failed(self, state: FeedState, reason: str) -> FeedState:
        state = evolve(state, tried=self._now(), failures=state.failures + 1, error=reason)
        due = retry_time(state, self._provider, now=self._now(), chance=self._chance())
        state = evolve(state, due=due)
        await self._steps(self._copies.write, state)
        self._log.warn(
            "Feed {name} could not be had: {reason}; again in {secs:.0f} s",
            name=self._description.name,
            reason=reason,
            secs=due - self._now(),
        )
        return state


def advice_of(name: str) -> str:
    """What to do where a copy was refused in which there is something."""
    return f"if it is right all the same: ctsd feeds accept {name}"


def _counted(copy: Copy, counts: Counts) -> Copy:
    return evolve(copy, rows=counts.rows, refused=counts.refused, records=counts.records)
