"""Some connections to PostgreSQL that come back by themselves."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import psycopg2
from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.errors import StoreError
from ctsd.store.postgres_schema import explain
from ctsd.store.postgres_session import Session, connect
from ctsd.store.postgres_target import Target

#: Waits between tries to connect: doubled each time, a random part of it taken.
_FIRST_WAIT_SECS = 0.1
_LONGEST_WAIT_SECS = 5.0


@define(kw_only=True, eq=False)
class Pool:
    """
    Lends connections, one user at a time; a lost one is replaced, with pauses that grow.

    Who asks while there is none waits a little, for the server may only be starting anew; when it
    has been away for longer, nobody waits.

    :ivar size: how many connections.
    :ivar wait_secs: how long who asks waits for one.
    :ivar connect_secs: how long connecting may take.
    :ivar max_waiting: how many may wait.
    :ivar opened: called with every new connection before anybody else gets it.
    :ivar random: between 0 and 1.
    """

    _log = Logger()

    reactor: Any
    target: Target
    size: int
    wait_secs: float
    connect_secs: float
    max_waiting: int
    opened: Callable[[Session], Deferred[None]]
    random: Callable[[], float] = random.random
    _idle: list[Session] = field(factory=list, init=False)
    _lent: set[Session] = field(factory=set, init=False)
    _waiting: deque[_Waiter] = field(factory=deque, init=False)
    _connecting: int = field(default=0, init=False)
    _sleeping: set[IDelayedCall] = field(factory=set, init=False)
    _turn: int = field(default=0, init=False)
    _running: bool = field(default=False, init=False)
    _away_since: float | None = field(default=None, init=False)
    _why: str = field(default="", init=False)
    _told: bool = field(default=False, init=False)
    _stops: list[Deferred[None]] = field(factory=list, init=False)

    def start(self) -> None:
        """Begin to connect."""
        self._running = True
        self._away_since = self.reactor.seconds()
        for _ in range(self.size):
            self._connect(_FIRST_WAIT_SECS)

    def stop(self) -> Deferred[None]:
        """Close everything, also what is lent; fires when nothing is left."""
        self._running = False
        while self._sleeping:
            self._sleeping.pop().cancel()
        # Who is told may well come here again.
        while self._waiting:
            self._waiting.popleft().give_up(StoreError("the store is closing"))
        while self._idle:
            self._idle.pop().close()
        for session in list(self._lent):
            session.close()
        stopped: Deferred[None] = Deferred()
        self._stops.append(stopped)
        self._check_stopped()
        return stopped

    def acquire(self, *, first: bool = False) -> Deferred[Session]:
        """
        Borrow a connection; L{release} it afterwards, whatever happens.

        :param first: go before others who wait.
        :raises StoreError: (in the Deferred) there is none.
        """
        if not self._running:
            return fail(StoreError("the store is not open"))
        while self._idle:
            session = self._idle.pop()
            if session.usable:
                self._lent.add(session)
                return succeed(session)
        secs = self.wait_secs
        if self._away_since is not None:
            secs = self._away_since + secs - self.reactor.seconds()
        if secs <= 0:
            return fail(self._away())
        if len(self._waiting) >= self.max_waiting:
            return fail(StoreError("the store is busy: too many reads are waiting", retry_secs=5))
        waiter = _Waiter(self._give_up)
        waiter.timer = self.reactor.callLater(secs, waiter.time_out)
        if first:
            self._waiting.appendleft(waiter)
        else:
            self._waiting.append(waiter)
        return waiter.done

    def release(self, session: Session, *, broken: bool = False, silent: bool = False) -> None:
        """
        Give a connection back.

        :param broken: whether it must not be used again.
        :param silent: whether the server did not answer: the others are not to be trusted, either.
        """
        if broken:
            session.close()
        self._lent.discard(session)
        if silent:
            for other in list(self._idle):
                other.close()
        if not self._running:
            session.close()
            self._check_stopped()
        elif session.usable:
            self._away_since = None
            self._offer(session)
        else:
            self._replace()

    def _away(self) -> StoreError:
        why = f": {self._why}" if self._why else ""
        return StoreError(f"PostgreSQL does not answer{why}", retry_secs=10)

    def _give_up(self, waiter: _Waiter) -> None:
        self._waiting.remove(waiter)
        if self._away_since is not None:
            waiter.give_up(self._away())
        else:
            waiter.give_up(StoreError("the store is busy: PostgreSQL is slow", retry_secs=5))

    def _offer(self, session: Session) -> None:
        if self._waiting:
            self._lent.add(session)
            self._waiting.popleft().take(session)
        else:
            self._idle.append(session)

    def _lost(self, session: Session) -> None:
        if session in self._idle:
            self._idle.remove(session)
            self._replace()

    def _replace(self) -> None:
        if not self._running:
            return
        if not self._idle and self._away_since is None:
            self._away_since = self.reactor.seconds()
        self._connect(_FIRST_WAIT_SECS)

    def _connect(self, wait_secs: float) -> None:
        self._connecting += 1
        connecting = Deferred.fromCoroutine(self._open())
        connecting.addCallbacks(self._connected, self._not_connected, errbackArgs=(wait_secs,))
        connecting.addErrback(
            lambda failure: self._log.failure("connecting ended in an unexpected way", failure)
        )

    async def _open(self) -> Session:
        hosts = self.target.hosts
        host = hosts[self._turn % len(hosts)]
        self._turn += 1
        session = await connect(self.reactor, self.target, host, self._lost, self.connect_secs)
        limit = self.reactor.callLater(self.connect_secs, session.close)
        try:
            await self.opened(session)
        except BaseException:
            session.close()
            raise
        finally:
            if limit.active():
                limit.cancel()
        return session

    def _connected(self, session: Session) -> None:
        self._connecting -= 1
        if not self._running:
            session.close()
            self._check_stopped()
            return
        self._away_since, self._why = None, ""
        if self._told:
            self._told = False
            self._log.info("PostgreSQL answers again")
        self._offer(session)

    def _not_connected(self, failure: Failure, wait_secs: float) -> None:
        self._connecting -= 1
        if not self._running:
            self._check_stopped()
            return
        self._why = _why(failure)
        if self._away_since is not None and not self._told:
            self._told = True
            self._log.error("PostgreSQL does not answer: {why}", why=self._why)
        pause = wait_secs * (0.5 + self.random() / 2)

        def again() -> None:
            self._sleeping.discard(call)
            self._connect(min(2 * wait_secs, _LONGEST_WAIT_SECS))

        call = self.reactor.callLater(pause, again)
        self._sleeping.add(call)

    def _check_stopped(self) -> None:
        if not self._lent and not self._connecting:
            while self._stops:
                self._stops.pop().callback(None)


@define(eq=False)
class _Waiter:
    """Who waits for a connection."""

    _timed_out: Callable[[_Waiter], None]
    timer: IDelayedCall | None = field(default=None, init=False)
    done: Deferred[Session] = field(factory=Deferred, init=False)

    def time_out(self) -> None:
        """It has taken too long."""
        self.timer = None
        self._timed_out(self)

    def take(self, session: Session) -> None:
        """Here it is."""
        self._no_timer()
        self.done.callback(session)

    def give_up(self, error: StoreError) -> None:
        """There will be none."""
        self._no_timer()
        self.done.errback(error)

    def _no_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def _why(failure: Failure) -> str:
    error = failure.value
    if isinstance(error, psycopg2.Error):
        return explain(error).reason
    if isinstance(error, ConnectionDone | ConnectionLost):
        return "connecting took too long"
    return str(error)
