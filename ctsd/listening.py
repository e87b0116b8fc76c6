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

from ctsd.config.endpoint_strings import on_lent, reloading
from ctsd.config.listeners import Listener
from ctsd.web.limits import WebLimits
from ctsd.web.site import CTSSite


class Listening(Service):
    """
    Listens on endpoint strings, each with a site of its own (what one listener puts in front of
    its site must not reach another). Nobody is let in before L{accept}. What is C{ssl:} there
    becomes our own TLS, which reads its files again.

    :param site_for: makes the site of a listener.
    :param lent: descriptors of sockets that listen already and that somebody else keeps, one for
        each listener; None: we open our own.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        listeners: Sequence[Listener],
        site_for: Callable[[Listener], CTSSite],
        lent: Sequence[int] | None = None,
    ) -> None:
        self._reactor = reactor
        self._listeners = listeners
        self._site_for = site_for
        self._lent = lent
        self._ports: list[Any] = []
        self._sites: list[CTSSite] = []

    def privilegedStartService(self) -> None:
        """
        Listen, before privileges are dropped.

        :raises SystemExit: an address can't be had; the message is one line.
        """
        super().privilegedStartService()
        for at, listener in enumerate(self._listeners):
            site = self._site_for(listener)
            description = reloading(listener.description)
            if self._lent is not None:
                description = on_lent(description, self._lent[at])
            self._ports.append(listen(self._reactor, listener, description, site))
            self._sites.append(site)
        for port in self._ports:
            port.stopReading()

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

    def announce(self) -> None:
        """Say to balancers and clients that we are about to leave, and go on answering."""
        for site in self._sites:
            site.announce()

    async def stop(self, *, drain_secs: float, idle_secs: float) -> None:
        """
        Accept nothing more, and finish the requests in hand.

        :param drain_secs: how long these may take.
        :param idle_secs: how long a client may still ask on a connection that is open.
        """
        ports, self._ports = self._ports, []
        sites, self._sites = self._sites, []
        closing: list[Any] = []
        for port in ports:
            if self._lent is None:
                # Twisted's port never tells when e.g. its Unix socket was removed by somebody else.
                stopped = maybeDeferred(port.stopListening)
                closing.append(stopped.addTimeout(drain_secs, self._reactor))
            else:
                # It must go on listening; our descriptor of it ends with our process.
                port.stopReading()
        draining = [site.drain(secs=drain_secs, idle_secs=idle_secs) for site in sites]
        await DeferredList([*closing, *draining], consumeErrors=True)


def listen(reactor: Any, listener: Listener, description: str, factory: Any) -> Any:
    """
    Listen on an endpoint string at once.

    :param listener: whose it is, or of which it is a part.
    :return: the port.
    :raises SystemExit: that is not possible; the message is one line.
    """
    listening: list[Any] = []
    failed: list[Failure] = []
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except (LookupError, AttributeError):
        # What Twisted raises for a socket, or a domain, that there is not.
        if listener.kind != "systemd":
            raise
        raise cannot_listen(listener, "no such socket came from systemd") from None
    endpoint.listen(factory).addCallbacks(listening.append, failed.append)
    if failed:
        raise cannot_listen(listener, reason_of(failed[0].value))
    return listening[0]


def reason_of(error: BaseException | None) -> str:
    """Why nobody can listen there, in a few words."""
    if isinstance(error, CannotListenError):
        error = error.socketError
    return getattr(error, "strerror", None) or str(error)


def cannot_listen(listener: Listener, why: str) -> SystemExit:
    """The end of a start, in one line."""
    return SystemExit(f"ctsd: can't listen on {listener.description}: {why}")
