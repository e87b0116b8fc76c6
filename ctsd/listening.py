"""Every socket that ctsd listens on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.python.failure import Failure

from ctsd.config import Listener
from ctsd.endpoint_strings import reloading
from ctsd.web.limits import WebLimits
from ctsd.web.site import CTSSite


class Listening(Service):
    """
    Listens on endpoint strings, each with a site of its own (what one listener puts in front of
    its site must not reach another). Nobody is let in before L{accept}. What is C{ssl:} there
    becomes our own TLS, which reads its files again.

    :param site_for: makes the site of a listener.
    :param drain_secs: how long requests in hand may take when we stop.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        listeners: Sequence[Listener],
        site_for: Callable[[Listener], CTSSite],
        drain_secs: float,
    ) -> None:
        self._reactor = reactor
        self._listeners = listeners
        self._site_for = site_for
        self._drain_secs = drain_secs
        self._ports: list[Any] = []
        self._sites: list[CTSSite] = []

    def privilegedStartService(self) -> None:
        """
        Listen, before privileges are dropped.

        :raises SystemExit: an address can't be had; the message is one line.
        """
        super().privilegedStartService()
        for listener in self._listeners:
            site = self._site_for(listener)
            failed: list[Failure] = []
            endpoint = self._endpoint(listener)
            endpoint.listen(site).addCallbacks(self._ports.append, failed.append)
            self._sites.append(site)
            if failed:
                raise SystemExit(f"ctsd: {_why(listener, failed[0])}")
        for port in self._ports:
            port.stopReading()

    def _endpoint(self, listener: Listener) -> IStreamServerEndpoint:
        try:
            endpoint: IStreamServerEndpoint = serverFromString(
                self._reactor, reloading(listener.description)
            )
        except (LookupError, AttributeError):
            # What Twisted raises for a socket, or a domain, that there is not.
            if listener.kind != "systemd":
                raise
            raise SystemExit(
                f"ctsd: can't listen on {listener.description}: no such socket came from systemd"
            ) from None
        return endpoint

    def accept(self) -> None:
        """Let in who has come; until now connections have waited in their sockets' queues."""
        for port in self._ports:
            port.startReading()

    def reconfigure(
        self,
        *,
        limits: WebLimits,
        allowed_hosts: tuple[str, ...],
        users: Mapping[str, frozenset[str]],
    ) -> None:
        """Go by these from the next request on."""
        for site in self._sites:
            site.reconfigure(limits=limits, allowed_hosts=allowed_hosts, users=users)

    def reload(self) -> Deferred[None]:
        """
        Read certificates and passwords again, changed or not; what is wrong with them is logged,
        and what was good before stays.

        :return: fires when that is done; never fails.
        """
        reading = [door.reload() for site in self._sites for door in site.doors]
        return DeferredList(reading).addCallback(lambda _: None)

    async def stop(self) -> None:
        """Accept nothing more, and finish the requests in hand."""
        closing: list[Any] = [
            # Twisted's port never tells when e.g. its Unix socket was removed by somebody else.
            maybeDeferred(port.stopListening).addTimeout(self._drain_secs, self._reactor)
            for port in self._ports
        ]
        draining = [site.drain(secs=self._drain_secs) for site in self._sites]
        self._ports, self._sites = [], []
        await DeferredList([*closing, *draining], consumeErrors=True)


def _why(listener: Listener, failure: Failure) -> str:
    error = failure.value
    reason = str(error)
    if isinstance(error, CannotListenError):
        reason = getattr(error.socketError, "strerror", None) or str(error.socketError)
    return f"can't listen on {listener.description}: {reason}"
