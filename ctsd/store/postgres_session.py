"""One connection to PostgreSQL, through txpostgres, without anything that blocks or never ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import psycopg2
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IResolutionReceiver
from twisted.python.failure import Failure
from txpostgres import txpostgres
from zope.interface import implementer

from ctsd.store.postgres_schema import use_bytes
from ctsd.store.postgres_socket import SocketWatch
from ctsd.store.postgres_target import Target


class Session(txpostgres.Connection):  # type: ignore[misc]
    """
    A connection that is closed rather than cancelled, and says so.

    A connection that libpq has given up has no socket any more while psycopg2 does not call it
    closed yet: the reactor refuses it with a C{ValueError}.

    :ivar lost: called once, when it is of no use any more and nobody uses it.
    """

    def __init__(
        self,
        reactor: Any,
        lost: Callable[[Session], None],
        heard: Callable[[str], None] | None = None,
    ) -> None:
        """
        :param heard: called with what other processes tell.
        """
        super().__init__(SocketWatch(reactor))
        self._lost: Callable[[Session], None] | None = lost
        self._heard = heard

    @property
    def usable(self) -> bool:
        """Whether it is open, as far as we know."""
        return self._connection is not None and not self._connection.closed

    def doRead(self) -> None:
        """See whether the server has ended it while nothing was asked."""
        try:
            super().doRead()
        except (psycopg2.Error, ValueError):
            self.close()

    def cursorFinished(self, cursor: Any) -> None:
        """Listen again to what the server has to say without being asked."""
        try:
            super().cursorFinished(cursor)
        except ValueError:
            self.close()

    def checkForNotifies(self) -> None:
        """Hand on what other processes have told."""
        told = self._connection.notifies
        while told:
            notification = told.pop(0)
            if self._heard is not None:
                self._heard(notification.payload)

    def connectionLost(self, reason: Failure) -> None:
        """Tell who wanted to know."""
        super().connectionLost(reason)
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(self)

    def close(self) -> None:
        """Close it; who waits for an answer gets L{ConnectionDone}."""
        if self._connection is None:
            return
        super().close()
        # txpostgres leaves one alone that broke by itself; its socket is still there.
        with contextlib.suppress(psycopg2.Error):
            self._connection.close()


async def connect(
    reactor: Any,
    target: Target,
    host: tuple[str, str],
    lost: Callable[[Session], None],
    secs: float,
    heard: Callable[[str], None] | None = None,
) -> Session:
    """
    Connect to one of the target's hosts.

    :param lost: see L{Session}, as C{heard}.
    :param secs: how long it may take, looking up the name included.
    :raises psycopg2.Error: the server, or libpq, says why not.
    :raises ConnectionDone: it took too long.
    :raises OSError: the name is not known.
    """
    limit = _Limit(reactor, secs)
    try:
        # libpq would look names up by itself, and block for as long as that takes.
        addresses = await limit.race(_look_up(reactor, host[0]))
        while True:
            session = limit.session = Session(reactor, lost, heard)
            try:
                await session.connect(**target.parameters(*host, addresses.pop(0)))
                use_bytes(session.pollable())
                return session
            except BaseException as error:
                session.close()
                if not addresses or not isinstance(error, psycopg2.Error):
                    raise
    finally:
        limit.over()


class _Limit:
    """
    How long connecting may take.

    :ivar session: closed when the time is over.
    """

    def __init__(self, reactor: Any, secs: float) -> None:
        self._waiting: Deferred[Any] | None = None
        self.session: Session | None = None
        self._call = reactor.callLater(secs, self._end)

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(ConnectionDone())
        if self.session is not None:
            self.session.close()

    async def race(self, slow: Deferred[Any]) -> Any:
        """What a Deferred fires with that can't be ended, if that is in time."""
        self._waiting = waiting = Deferred[Any]()

        def ended(result: Any) -> None:
            if self._waiting is waiting:
                self._waiting = None
                waiting.callback(result)

        slow.addBoth(ended)
        return await waiting

    def over(self) -> None:
        """It was in time, or has failed."""
        if self._call.active():
            self._call.cancel()


@implementer(IResolutionReceiver)
class _Addresses:
    def __init__(self, done: Deferred[list[str]], host: str) -> None:
        self._done = done
        self._host = host
        self._found: list[str] = []

    def resolutionBegan(self, resolutionInProgress: Any) -> None:
        """Nothing is known yet."""

    def addressResolved(self, address: Any) -> None:
        """Keep it, once."""
        if address.host not in self._found:
            self._found.append(address.host)

    def resolutionComplete(self) -> None:
        """Tell it."""
        if self._found:
            self._done.callback(self._found)
        else:
            self._done.errback(OSError(f"{self._host}: the name is not known"))


def _look_up(reactor: Any, host: str) -> Deferred[list[str]]:
    done: Deferred[list[str]] = Deferred()
    if host.startswith(("/", "@")):  # a socket has no address
        done.callback([""])
    elif isIPAddress(host) or isIPv6Address(host):
        done.callback([host])
    else:
        reactor.nameResolver.resolveHostName(_Addresses(done, host), host, 0)
    return done
