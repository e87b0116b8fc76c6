"""
A connection of its own on which PostgreSQL tells what other processes have written.

What is told while it is lost is lost, and a pooler may keep it to itself: L{News} knows whether
anything arrives, and nobody relies on it alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.store.news import News
from ctsd.store.postgres_session import Session, connect
from ctsd.store.postgres_steps import LISTEN
from ctsd.store.postgres_target import Target

#: Waits between tries to connect: doubled each time, a random part of it taken.
_FIRST_WAIT_SECS = 0.5
_LONGEST_WAIT_SECS = 30.0


@define(kw_only=True, eq=False)
class Listener:
    """
    Listens, and connects again when the connection is lost, or nothing arrives on it.

    :ivar target: the server itself, not a pooler.
    :ivar connect_secs: how long connecting may take.
    :ivar look_secs: how often it is looked whether anything arrives.
    :ivar random: between 0 and 1.
    """

    _log = Logger()

    reactor: Any
    target: Target
    news: News
    connect_secs: float
    look_secs: float = 15.0
    random: Callable[[], float] = random.random
    _session: Session | None = field(default=None, init=False)
    _connecting: Deferred[None] | None = field(default=None, init=False)
    _call: IDelayedCall | None = field(default=None, init=False)
    _wait_secs: float = field(default=_FIRST_WAIT_SECS, init=False)
    _turn: int = field(default=0, init=False)
    _running: bool = field(default=False, init=False)
    _told: bool = field(default=False, init=False)

    def start(self) -> None:
        """Begin to listen."""
        self._running = True
        self._connect()

    def stop(self) -> None:
        """Listen no more."""
        self._running = False
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._close()

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _connect(self) -> None:
        self._call = None
        Deferred.fromCoroutine(self._open()).addErrback(self._not_open)

    async def _open(self) -> None:
        hosts = self.target.hosts
        host = hosts[self._turn % len(hosts)]
        self._turn += 1
        session = await connect(
            self.reactor, self.target, host, self._lost, self.connect_secs, self.news.tell
        )
        limit = self.reactor.callLater(self.connect_secs, session.close)
        try:
            await session.cursor().execute(LISTEN)
        except BaseException:
            session.close()
            raise
        finally:
            if limit.active():
                limit.cancel()
        if not self._running:
            session.close()
            return
        self._session = session
        # Before we listened, anything may have been told.
        self.news.missed()
        self._call = self.reactor.callLater(self.look_secs, self._look)

    def _look(self) -> None:
        self._call = None
        if self.news.hears():
            self._told, self._wait_secs = False, _FIRST_WAIT_SECS
            self._call = self.reactor.callLater(self.look_secs, self._look)
            return
        if not self._told:
            self._told = True
            self._log.warn(
                "Nothing that PostgreSQL tells arrives here, so we ask: store.listen_url has to"
                " lead to the server itself, not to a pooler"
            )
        self._close()
        self._again()

    def _lost(self, session: Session) -> None:
        if session is not self._session:
            return
        self._session = None
        self.news.missed()
        if self._running:
            if self._call is not None:
                self._call.cancel()
            self._again()

    def _not_open(self, failure: Failure) -> None:
        # What it means that the server is away others tell.
        self._log.debug("Listening failed: {why}", why=failure.getErrorMessage())
        if self._running:
            self._again()

    def _again(self) -> None:
        pause = self._wait_secs * (0.5 + self.random() / 2)
        self._wait_secs = min(2 * self._wait_secs, _LONGEST_WAIT_SECS)
        self._call = self.reactor.callLater(pause, self._connect)
