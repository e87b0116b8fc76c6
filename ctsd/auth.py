"""
C{auth:USERSFILE:<any endpoint>}: an endpoint that asks for a user and a password.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from ctsd.basic import AuthLimits, BasicGate
from ctsd.blocking import DaemonThreads
from ctsd.config.endpoint_strings import taken_apart
from ctsd.errors import CTSDError
from ctsd.passwords import Passwords, read
from ctsd.watching import Watched
from ctsd.web.site import site_behind


class _Door:
    """The password file, and the threads in which it is read and hashes are computed."""

    def __init__(self, reactor: Any, path: Path, limits: AuthLimits) -> None:
        self._hashing = DaemonThreads(reactor=reactor, max_threads=limits.threads, name="hash")
        self._reading = DaemonThreads(reactor=reactor, max_threads=1, name="passwords")
        self.passwords: Watched[Passwords] = Watched(
            clock=reactor,
            what=f"The password file {path}",
            paths=[path],
            load=partial(read, path),
            in_thread=self._reading.run,
        )
        self.gate = BasicGate(
            clock=reactor,
            passwords=self.passwords,
            in_thread=self._hashing.run,
            limits=limits,
        )

    def start(self) -> None:
        """Follow the file."""
        self.passwords.start()

    def reload(self) -> Deferred[None]:
        """Read the file."""
        return self.passwords.reload()

    def stop(self) -> None:
        """Nobody comes in any more."""
        self.passwords.stop()
        self._hashing.stop()
        self._reading.stop()


@implementer(IStreamServerEndpoint)
class AuthEndpoint:
    """
    Asks for a user and a password whoever comes in by another endpoint.

    :param path: the file of passwords. It may be missing: then everything is 503 until it comes.
    """

    _log = Logger()

    def __init__(
        self, *, reactor: Any, path: Path, inner: Any, limits: AuthLimits | None = None
    ) -> None:
        self._reactor = reactor
        self._path = path
        self._inner = inner
        self._limits = limits or AuthLimits()

    def listen(self, protocolFactory: Any) -> Any:
        """
        Listen, with a gate on the site.

        :param protocolFactory: a L{CTSSite}, perhaps wrapped.
        """
        return execute(self._close, protocolFactory).addCallback(self._inner.listen)

    def _close(self, factory: Any) -> Any:
        site = site_behind(factory)
        door = _Door(self._reactor, self._path, self._limits)
        try:
            door.passwords.load()
        except (CTSDError, OSError) as error:
            self._log.error(
                "The password file {path} can't be used: {why}; everything is 503 until it can",
                path=str(self._path),
                why=str(error),
            )
        site.gate = door.gate
        site.doors.append(door)
        return factory


def auth_endpoint(
    reactor: Any, args: tuple[str, ...], kwargs: Mapping[str, str]
) -> IStreamServerEndpoint:
    """
    The endpoint of C{auth:USERSFILE:<any endpoint>}.

    :param args: what stands behind C{auth:}, as C{serverFromString} has parsed it.
    :raises BadEndpoint: something is missing.
    """
    own, rest = taken_apart("auth", args, kwargs)
    return AuthEndpoint(
        reactor=reactor, path=Path(own["users"]), inner=serverFromString(reactor, rest)
    )
