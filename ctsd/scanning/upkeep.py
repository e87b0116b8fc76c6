"""What goes on without being asked: live, take up what is due, remove what has aged."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.errors import StoreError
from ctsd.interfaces.scanning import ISpool
from ctsd.interfaces.store import IStore
from ctsd.scanning.flight import MAX_UNFINISHED, Flight
from ctsd.scanning.membership import Membership
from ctsd.scanning.promises import Promises
from ctsd.scanning.resuming import Resuming
from ctsd.scanning.rules import Rules
from ctsd.scanning.searches import Searches

#: What we have given up may still be written so much later, by a database that was frozen.
_DOUBT_SECS = 60.0
#: Scans of other nodes are looked at when they are so old: most have ended before.
_SETTLED_SECS = 5.0
#: A scan may be written so long after it could have been looked at.
_WRITTEN_SECS = 10.0


class Upkeep(Service):
    """
    Keeps this process a node of the store, takes over what others left, and keeps at what is due.

    :param resume_limit: at most so many scans are taken up at once.
    :ivar ready: whether the store has told what was left unfinished.
    :ivar trouble: empty when the store works; else what is wrong with it.
    """

    _log = Logger()

    #: How often the store is asked what is due.
    poll_secs = 1.0
    #: How often what has aged is removed.
    age_secs = 60.0

    def __init__(
        self,
        *,
        clock: IReactorTime,
        store: IStore,
        flight: Flight,
        promises: Promises,
        resuming: Resuming,
        searches: Searches,
        spool: ISpool,
        membership: Membership,
        rules: Rules,
        resume_limit: int = 100,
    ) -> None:
        self._clock = clock
        self._store = store
        self._flight = flight
        self._promises = promises
        self._resuming = resuming
        self._searches = searches
        self._spool = spool
        self._membership = membership
        self._rules = rules
        self._resume_limit = resume_limit
        self._waiting: list[Deferred[None]] = []
        self._known_until = 0.0
        self._doubtful_until = -math.inf
        self._loops = [
            (secs, LoopingCall(lambda work=work: Deferred.fromCoroutine(work())))
            for secs, work in (
                (membership.beat_secs, self._beat),
                (self.poll_secs, self._poll),
                (self.age_secs, self._age),
            )
        ]
        self.ready = False
        self.trouble = ""

    def startService(self) -> None:
        """Begin, at once."""
        super().startService()
        for secs, loop in self._loops:
            loop.clock = self._clock
            loop.start(secs).addErrback(self._stopped)

    def stopService(self) -> Deferred[None]:
        """Leave what is promised to the other nodes, or to the next start."""
        super().stopService()
        self._flight.stopping = True
        for _, loop in self._loops:
            if loop.running:
                loop.stop()
        self._searches.stop()
        return Deferred.fromCoroutine(self._safely(self._membership.leave, "Leaving failed"))

    def _stopped(self, failure: Failure) -> None:
        self._log.failure("Upkeep has stopped", failure)

    async def until_ready(self) -> None:
        """Wait until the store has told what was left unfinished."""
        if not self.ready:
            waiting: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(waiting)
            await waiting

    async def _safely(self, work: Callable[[], Awaitable[None]], what: str) -> None:
        """Do something; what goes wrong is logged."""
        try:
            await work()
        except StoreError as error:
            self._log.error("{what}: {reason}", what=what, reason=error.reason)
        except Exception:
            self._log.failure("{what}", what=what)

    async def _beat(self) -> None:
        if not self.ready:
            return  # it is part of the start
        try:
            await self._promises.renew()
        except StoreError:
            pass  # who polls tells it
        except Exception:
            self._log.failure("Telling the store that we live failed")

    async def _poll(self) -> None:
        trouble = ""
        try:
            if not self.ready:
                await self._open()
            if not self._membership.holder:
                await self._promises.renew()
            await self._take_over()
            await self._take_up()
            await self._resuming.take_up_private()
            await self._settle_doubts()
            await self._learn()
        except StoreError as error:
            trouble = error.reason
            if trouble != self.trouble:
                self._log.error("The store does not work: {reason}", reason=trouble)
        except Exception:
            trouble = "taking up what is due failed"
            self._log.failure("Taking up what is due failed")
        if trouble:
            self._flight.doubtful = True
        self.trouble = trouble

    async def _open(self) -> None:
        await self._promises.renew()
        await self._learn_all()
        self._spool.sweep(keep=await self._store.files())
        self.ready = True
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    async def _take_over(self) -> None:
        if not self._membership.may_judge:
            return
        taken = await self._store.take_over(holder=self._membership.holder)
        if taken:
            self._log.warn("{taken} searches were left by a node that died", taken=taken)

    async def _take_up(self) -> None:
        holder = self._membership.holder
        room = max(min(self._rules.limits.max_scans - len(self._flight), self._resume_limit), 1)
        limit = room + self._resuming.elsewhere
        due = await self._store.due(now=self._store.now(), holder=holder, limit=limit)
        due = await self._resuming.without_elsewhere(due)
        if not due or self._flight.stopping:
            return
        held = await self._store.hold(scan_ids=[scan.id for scan in due], holder=holder)
        if holder != self._membership.holder:
            return
        for scan in held:
            await self._resuming.take_up(scan)

    async def _settle_doubts(self) -> None:
        """
        What the store has written without our knowing, for its answer was lost, must not look as
        if we were at it for ever.
        """
        now = self._clock.seconds()
        if self._flight.doubtful:
            self._flight.doubtful = False
            self._doubtful_until = now + _DOUBT_SECS
        if now >= self._doubtful_until:
            return
        holder = self._membership.holder
        held = await self._store.held(holder=holder)
        idle = sorted(one for one in held if not self._flight.runs(*one))
        if idle:
            await self._store.let_go(searches=idle, holder=holder)

    async def _learn_all(self) -> None:
        """Know of what is unfinished at the start: nothing of it is ours."""
        for key in await self._store.unfinished(limit=MAX_UNFINISHED):
            self._flight.unfinished.add(key)
        self._known_until = self._store.now()

    async def _learn(self) -> None:
        """Know of the unfinished scans that other nodes have written."""
        until = self._store.now() - _SETTLED_SECS
        learned = await self._store.unfinished(
            since=self._known_until - _WRITTEN_SECS, until=until, limit=MAX_UNFINISHED
        )
        for key in learned:
            self._flight.unfinished.add(key)
        self._known_until = until

    async def _age(self) -> None:
        await self._safely(self._remove_old, "Nothing was aged")

    async def _remove_old(self) -> None:
        await self._store.age(now=self._store.now())
