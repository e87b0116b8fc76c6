"""
The local database, searched as fast as a feed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ctsd.errors import SearchLater, StoreError
from ctsd.feeds.delta import Delta
from ctsd.feeds.file import described
from ctsd.feeds.indicators import public_suffixes
from ctsd.feeds.threat_base import ThreatBase
from ctsd.feeds.threat_finds import ThreatFinds
from ctsd.interfaces.feeds import IThreats
from ctsd.interfaces.store import THREATS, IThreatStore
from ctsd.interfaces.threads import InThread
from ctsd.model import JSON
from ctsd.records import Derived, Indexed, LookupLimits, Matches

#: After how many seconds to ask again while the database is being read or indexed.
_SOON_SECS = 2.0


@implementer(IThreats)
class ThreatIndex(Service):
    """
    The threats of the store as they are, at most C{poll_secs} late; C{quiet_secs} when the store
    tells of changes, and this one was lost on the way.

    Most are in an index file, the base (L{ThreatBase}). What has changed since it was built is in
    memory, and hides what the base has of it; when that has become much, the base is built anew.
    What can't be told is never told as "nothing": before the changes have been read once, while
    more has changed than memory may hold, and when the store has been away for C{stale_secs},
    L{find} raises L{SearchLater}.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        store: IThreatStore,
        identity: Callable[[], bytes],
        base: ThreatBase,
        clock: IReactorTime,
        in_thread: InThread,
        is_shared_host: Callable[[str], bool] = lambda host: False,
        poll_secs: float = 0.1,
        quiet_secs: float = 2.0,
        batch: int = 200,
        rebuild_at: int = 2000,
        max_delta: int = 10_000,
        stale_secs: float = 60.0,
        limits: LookupLimits = LookupLimits(),  # noqa: B008 - it is frozen
    ) -> None:
        """
        :param identity: what only this database has (C{IScanStore.secret}), asked after the start.
        :param base: nobody else's; it is started and stopped here.
        :param is_shared_host: see L{ctsd.feeds.key_index.KeyIndex.open}.
        :param poll_secs: how often the store is asked for changes, or how soon after it has told
            of one.
        :param quiet_secs: how often it is asked while it tells (L{INews}).
        :param batch: how many changes are read at a time.
        :param rebuild_at: when so many threats have changed, the base is built anew.
        :param max_delta: so many changed threats are kept in memory at most.
        :param stale_secs: how long to go on with what is known while the store does not answer.
        :param limits: see L{IThreats}; C{base.limits} bound a search in here.
        """
        self.limits = limits
        self._store = store
        self._identity = identity
        self._base = base
        self._clock = clock
        self._in_thread = in_thread
        self._is_shared_host = is_shared_host
        self._registered: Callable[[str], str | None] = lambda host: None
        self._poll_secs = poll_secs
        self._quiet_secs = quiet_secs
        self._told: Deferred[None] | None = None
        self._polled_at = -math.inf
        self._batch = batch
        self._rebuild_at = rebuild_at
        self._max_delta = max_delta
        self._stale_secs = stale_secs
        self._has_begun = False
        self._delta = Delta()
        self._version = 0
        self._lost_track = False
        self._read_at = -math.inf
        self._lock = DeferredLock()
        self._loop = LoopingCall(self._poll)
        self._loop.clock = clock
        self._reading: Deferred[None] | None = None
        self._trouble = ""

    def startService(self) -> None:
        """Begin to follow the store, which has to be open."""
        super().startService()
        self._loop.start(self._poll_secs).addErrback(self._broken)

    def stopService(self) -> Deferred[None]:
        """End a build that is running, and unmap the base."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._loop.running:
            self._loop.stop()
        if self._told is not None:
            self._told.cancel()
            self._told = None
        if self._reading is not None:
            reading = self._reading
            reading.cancel()
            await reading
        await self._base.stop()
        # Started again, all is read again.
        self._has_begun, self._version, self._delta = False, 0, Delta()
        self._lost_track, self._read_at = False, -math.inf

    def refresh(self) -> Deferred[None]:
        """
        Fires when L{find} knows all that the store knew when this was called.

        :raises StoreError: (in the Deferred) the store does not answer.
        """
        return Deferred.fromCoroutine(self._refresh())

    def find(
        self,
        *,
        type: str,
        value: JSON,
        limit: int,
        wanted: Callable[[Indexed], bool] | None = None,
    ) -> Matches:
        """See L{IRecords}."""
        return self._finds().find(type, value, limit, wanted)

    def find_within(
        self,
        *,
        derived: Iterable[Derived],
        limit: int,
        wanted: Callable[[Indexed], bool] | None = None,
    ) -> Matches:
        """See L{IThreats}."""
        return self._finds().find_within(derived, limit, wanted)

    def is_empty(self) -> bool:
        """See L{IThreats}."""
        try:
            return self._finds().is_empty
        except SearchLater:
            return False

    def _finds(self) -> ThreatFinds:
        """
        A search of what is known now.

        :raises SearchLater: too little is known.
        """
        if self._lost_track:
            raise SearchLater(_SOON_SECS, "the local database is being indexed")
        if self._clock.seconds() - self._read_at > self._stale_secs:
            reason = self._trouble or "the local database is being read"
            raise SearchLater(_SOON_SECS, reason)
        return ThreatFinds(
            base=self._base.index,
            delta=self._delta,
            now=self._store.now(),
            registered=self._registered,
            is_shared=self._is_shared_host,
            limits=self._base.limits,
        )

    def trouble(self) -> str:
        """See L{IRecords}."""
        return self._trouble or self._base.trouble

    def loading(self) -> bool:
        """See L{IRecords}."""
        return self._is_blind() and not self.trouble()

    def failed(self) -> bool:
        """See L{IRecords}."""
        return self._is_blind() and bool(self.trouble())

    def _is_blind(self) -> bool:
        return self._read_at == -math.inf or self._lost_track

    def describe(self) -> str:
        """See L{IRecords}."""
        base = self._base.index
        changed = f"{len(self._delta):,} changed threats"
        return changed if base is None else f"{described(base.about)}; {changed} since"

    def _poll(self) -> Deferred[None] | None:
        now = self._clock.seconds()
        if self._told is None:
            self._told = self._store.changed(what=THREATS)
            self._told.addCallbacks(self._changed, lambda failure: failure.trap(CancelledError))
        elif self._store.hears() and now - self._polled_at < self._quiet_secs:
            return None
        self._polled_at = now
        self._reading = self.refresh().addErrback(self._not_read)
        return self._reading

    def _changed(self, _: None) -> None:
        self._told = None

    def _not_read(self, failure: Failure) -> None:
        if failure.check(CancelledError) is not None:
            return
        if failure.check(StoreError) is None:
            self._log.failure("reading the local database's changes failed", failure)
        self._tell("the local database does not answer")

    def _broken(self, failure: Failure) -> None:
        self._log.failure("nobody follows the local database any more", failure)

    def _tell(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            self._log.error("{trouble}", trouble=trouble)
        self._trouble = trouble

    async def _refresh(self) -> None:
        await self._lock.acquire()
        try:
            if not self._has_begun:
                await self._begin()
            if not self._lost_track:
                await self._follow()
        finally:
            self._lock.release()
        much = self._base.is_outdated or len(self._delta) >= self._rebuild_at
        if (much or self._lost_track) and self._base.may_rebuild(urgent=self._lost_track):
            self._base.rebuild(self._rebased)

    async def _begin(self) -> None:
        """Serve the base that an earlier start left, if it is of this database."""
        self._registered = (await self._in_thread(public_suffixes)).privatesuffix
        await self._base.start()
        version = await self._store.version()
        await self._base.claim(secret=self._identity(), version=version)
        base = self._base.index
        if base is not None:
            self._version = base.about.version
        self._has_begun = True

    async def _follow(self) -> None:
        """Take in what has changed."""
        more = True
        while more:
            changes = await self._store.changes(since=self._version, limit=self._batch)
            # Without a base there is nothing in which a deleted threat could still be.
            if changes.gap and (self._base.index is not None or self._delta):
                self._lose_track()
                return
            self._delta.apply(changes)
            self._version = changes.version
            if len(self._delta) > self._max_delta:
                self._lose_track()
                return
            more = changes.more
        self._read_at = self._clock.seconds()
        self._tell("")

    def _lose_track(self) -> None:
        """More has changed than we may hold: say nothing until the base is built anew."""
        self._log.info("the local database has changed much, and is being indexed")
        self._lost_track = True
        self._delta = Delta()

    def _rebased(self, version: int) -> None:
        """A new base is served: what has changed up to its version is in it."""
        if self._lost_track:
            self._lost_track = False
            self._version = version
            # What has changed since the base was built is not known yet.
            self._read_at = -math.inf
        else:
            self._delta.forget(version)
