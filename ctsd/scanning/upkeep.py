"""What goes on without being asked: take up what is due, remove what has aged."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.errors import StoreError
from ctsd.interfaces import IScanStore, ISpool
from ctsd.scanning.flight import Flight
from ctsd.scanning.promises import Promises
from ctsd.scanning.rules import Rules


class Upkeep(Service):
    """
    Takes over what a process before this one left, and keeps at what is due.

    :param holder: who this process is, in the store.
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
        store: IScanStore,
        flight: Flight,
        promises: Promises,
        spool: ISpool,
        holder: str,
        rules: Rules,
        resume_limit: int = 100,
    ) -> None:
        self._clock = clock
        self._store = store
        self._flight = flight
        self._promises = promises
        self._spool = spool
        self._holder = holder
        self._rules = rules
        self._resume_limit = resume_limit
        self._waiting: list[Deferred[None]] = []
        self._loops = [
            (self.poll_secs, LoopingCall(lambda: Deferred.fromCoroutine(self._poll()))),
            (self.age_secs, LoopingCall(lambda: Deferred.fromCoroutine(self._age()))),
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
        """Leave what is promised to the next start."""
        super().stopService()
        self._flight.stopping = True
        for _, loop in self._loops:
            if loop.running:
                loop.stop()
        return Deferred.fromCoroutine(self._promises.let_go())

    def _stopped(self, failure: Failure) -> None:
        self._log.failure("Upkeep has stopped", failure)

    async def until_ready(self) -> None:
        """Wait until the store has told what was left unfinished."""
        if not self.ready:
            waiting: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(waiting)
            await waiting

    async def _open(self) -> None:
        taken = await self._store.take_over(holder=self._holder)
        if taken:
            self._log.warn("{taken} searches were left by a process that died", taken=taken)
        self._flight.unfinished |= await self._store.unfinished()
        self._spool.sweep(keep=await self._store.files())
        self.ready = True
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    async def _poll(self) -> None:
        trouble = ""
        try:
            if not self.ready:
                await self._open()
            room = max(min(self._rules.limits.max_scans - len(self._flight), self._resume_limit), 1)
            for scan in await self._store.due(now=self._store.now(), limit=room):
                await self._promises.take_up(scan)
        except StoreError as error:
            trouble = error.reason
            if trouble != self.trouble:
                self._log.error("The store does not work: {reason}", reason=trouble)
        except Exception:
            trouble = "taking up what is due failed"
            self._log.failure("Taking up what is due failed")
        self.trouble = trouble

    async def _age(self) -> None:
        try:
            await self._store.age(now=self._store.now())
        except StoreError as error:
            self._log.error("Nothing was aged: {reason}", reason=error.reason)
        except Exception:
            self._log.failure("Aging failed")
