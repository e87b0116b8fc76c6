"""What listens: one site for each listen string."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.web.http import datetimeToString
from twisted.web.server import Site

from ctsd.interfaces.scanning import IScans
from ctsd.interfaces.threads import InThread
from ctsd.pooled import in_pool
from ctsd.spool import Spool
from ctsd.web.app import make_app
from ctsd.web.bodies import BodyMemory
from ctsd.web.browsers import BrowserRules, host_name
from ctsd.web.channel import Channel, Phase
from ctsd.web.health import Health
from ctsd.web.limits import WebLimits
from ctsd.web.page import Page
from ctsd.web.protocol import Protocol as CTSProtocol
from ctsd.web.request import Gate


class Door(Protocol):
    """Something before a site that lives as long as the site does, such as its certificate."""

    def start(self) -> None:
        """The site listens."""

    def stop(self) -> None:
        """It does not any more, and its last connection has ended."""

    def reload(self) -> Deferred[None]:
        """Read again what it depends on; fires when that is done, and never fails."""


class CTSSite(Site):
    """
    Answers the protocol on one listener.

    :ivar gate: asked before a request's body is invited in; None: everybody may come in.
    :ivar users: who may ask a service, by its name; who is not in it may be asked by everybody
        who comes in. Only a gate knows users.
    :ivar doors: what stands before the site; to be added to before it listens.
    :ivar page: what browsers see here; None: this listener has no page.
    :ivar draining: whether every answer is its connection's last.
    :ivar channels: all connections.
    :ivar now: the reactor's seconds, as of the last sweep.
    :ivar date: the C{Date} line of answers.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        scans: IScans,
        spool: Spool,
        cts: CTSProtocol,
        limits: WebLimits,
        browser_rules: BrowserRules,
        short_path: bool,
        gate: Gate | None,
        users: Mapping[str, frozenset[str]],
        page: Page | None,
    ) -> None:
        """
        :param cts: what answers.
        :param short_path: whether the protocol's routes are taken without Klein.
        """
        super().__init__(
            make_app().resource(), reactor=reactor, timeout=None, parsePOSTFormSubmission=False
        )
        self.scans = scans
        self.spool = spool
        self.cts = cts
        self.limits = limits
        self.browser_rules = browser_rules
        self.short_path = short_path
        self.gate = gate
        self.users = users
        self.doors: list[Door] = []
        self.page = page
        self.draining = False
        self.channels: set[Channel] = set()
        self.memory = BodyMemory(max_bytes=limits.max_body_memory_bytes)
        self.now: float = reactor.seconds()
        self.date = _date_line()
        self._sweeping = LoopingCall(self.sweep)
        self._sweeping.clock = reactor
        self._drained: Deferred[None] | None = None
        self._drain_timeout: IDelayedCall | None = None

    def reconfigure(
        self,
        *,
        limits: WebLimits,
        allowed_hosts: tuple[str, ...],
        users: Mapping[str, frozenset[str]],
    ) -> None:
        """Go by these from the next request on; all bodies' memory stays as it was."""
        self.limits = limits
        self.users = users
        self.cts.uploads_enabled = limits.uploads_enabled
        self.browser_rules = browser_rules(allowed_hosts, self.browser_rules.loopback)

    def startFactory(self) -> None:
        """Begin to listen. No access log, so nothing of twisted.web's for it."""
        self._sweeping.start(self.limits.sweep_secs, now=False)
        for door in self.doors:
            door.start()

    def stopFactory(self) -> None:
        """No more listening; connections that are open stay under the sweep until they end."""
        if not self.channels:
            self._stop_sweeping()

    def buildProtocol(self, addr: IAddress | None) -> Channel | None:  # type: ignore[override]
        """A connection; None, which closes it, when there are too many."""
        if len(self.channels) >= self.limits.max_connections:
            return None
        return Channel(self)

    def acceptableProtocols(self) -> list[bytes]:
        """What is spoken over TLS: HTTP/1.1 alone."""
        return [b"http/1.1"]

    def sweep(self) -> None:
        """Look after the times of all connections."""
        self.now = self.reactor.seconds()
        self.date = _date_line()
        for channel in list(self.channels):
            channel.check(self.now)
        self._check_drained()

    def channel_lost(self, channel: Channel) -> None:
        """A connection has ended."""
        self.channels.discard(channel)
        if not self.channels:
            self._check_drained()
            if not self.numPorts:
                self._stop_sweeping()

    def announce(self) -> None:
        """
        Say that we are about to leave, and go on: not ready, and every answer is the last one of
        its connection.
        """
        self.draining = True
        self.cts.leaving = True

    def drain(self, *, secs: float, idle_secs: float = 0.0) -> Deferred[None]:
        """
        Shut down: every answer is the last one of its connection, and connections without a
        request are closed.

        :param idle_secs: after how long these are; a client that asks until then is answered.
        :return: fires when every answer has left, or after C{secs}. May be called again: it is
            the same waiting.
        """
        if self._drained is None:
            self.draining = True
            self._drained = Deferred()
            self._drain_timeout = self.reactor.callLater(secs, self._fire_drained)
            if idle_secs and self.channels:
                self.reactor.callLater(min(idle_secs, secs), self._close_idle)
            else:
                self._close_idle()
        drained: Deferred[None] = Deferred()
        self._drained.chainDeferred(drained)
        return drained

    def _close_idle(self) -> None:
        for channel in list(self.channels):
            if channel.phase is Phase.HEAD:
                channel.close()
        self._check_drained()

    def _check_drained(self) -> None:
        if self.draining and all(channel.phase is Phase.DRAIN for channel in self.channels):
            self._fire_drained()

    def _fire_drained(self) -> None:
        timeout, self._drain_timeout = self._drain_timeout, None
        if timeout is None or self._drained is None:
            return
        if timeout.active():
            timeout.cancel()
        self._drained.callback(None)

    def _stop_sweeping(self) -> None:
        if self._sweeping.running:
            self._sweeping.stop()
            for door in self.doors:
                door.stop()


def site_behind(factory: Any) -> CTSSite:
    """
    The site that a factory wraps, perhaps several times.

    :raises TypeError: there is none; C{auth:} and C{tls-wrap:} are for ctsd alone.
    """
    site = factory
    while not isinstance(site, CTSSite):
        try:
            site = site.wrappedFactory
        except AttributeError:
            raise TypeError(f"expected a site of ctsd, not {factory!r}") from None
    return site


def _date_line() -> bytes:
    now: bytes = datetimeToString()
    return b"Date: " + now + b"\r\n"


def make_site(
    *,
    reactor: Any,
    scans: IScans,
    spool: Spool,
    mint: Callable[[str], str],
    limits: WebLimits,
    allowed_hosts: tuple[str, ...],
    loopback: bool,
    short_path: bool = True,
    gate: Gate | None = None,
    users: Mapping[str, frozenset[str]] | None = None,
    page: Page | None = None,
    health: Health | None = None,
    in_thread: InThread | None = None,
) -> CTSSite:
    """
    A site for one listen string.

    :param mint: a new id for a service's name.
    :param allowed_hosts: names that browsers may use in C{Host}; empty: any, but a loopback
        listener takes loopback names alone.
    :param loopback: whether it listens on a loopback address alone.
    :param short_path: False sends everything through Klein; the answers are the same.
    :param gate: asked before a request's body is invited in.
    :param users: who may ask a service, for services that not every user may ask.
    :param page: what browsers see here.
    :param health: what C{/health} tells.
    :param in_thread: runs what would hold the reactor; by default in its thread pool.
    """
    return CTSSite(
        reactor=reactor,
        scans=scans,
        spool=spool,
        cts=CTSProtocol(
            scans=scans,
            spool=spool,
            mint=mint,
            uploads_enabled=limits.uploads_enabled,
            inline_json_bytes=limits.inline_json_bytes,
            health=health,
            in_thread=in_thread or in_pool(reactor),
        ),
        limits=limits,
        browser_rules=browser_rules(allowed_hosts, loopback),
        short_path=short_path,
        gate=gate,
        users=users or {},
        page=page,
    )


def browser_rules(allowed_hosts: tuple[str, ...], loopback: bool) -> BrowserRules:
    """Which browsers may ask; see L{make_site}."""
    return BrowserRules(
        allowed_hosts=frozenset(host_name(name) for name in allowed_hosts), loopback=loopback
    )
