"""What answers, made from one configuration; and made to go by another one while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ctsd.assembly import assemble, scan_limits, web_limits
from ctsd.config.listeners import Listener
from ctsd.configuration import Configuration, changed_fixed, kept
from ctsd.listening import Listening
from ctsd.pooled import in_pool
from ctsd.scanning.failing import DIRECTORY, FailingFile, TellsFailing
from ctsd.scanning.reliability import Reliability
from ctsd.scanning.rules import Rules
from ctsd.sources import Sources, start_sources
from ctsd.spool import Spool
from ctsd.status import Status
from ctsd.store.choose import node_name, on_sqlite
from ctsd.store.queued import QueuedVerbs
from ctsd.web.health import Health
from ctsd.web.page import Page
from ctsd.web.site import CTSSite, make_site

#: How long clients wait at the start while an index is loaded, looked at so often; after that,
#: whoever asks what it does not know yet is told to come again.
LOADING_SECS = 10.0
LOADING_LOOK_SECS = 0.02


class Serving(MultiService):
    """
    The searchers, the scans and the sites that ask for them.

    :ivar sources: the searchers that there are now.
    """

    _log = Logger()

    def __init__(
        self,
        configuration: Configuration,
        *,
        reactor: Any,
        store: QueuedVerbs,
        lent: Sequence[int] | None = None,
        node: str = "",
        process: str = "",
    ) -> None:
        """
        :param store: open; it is started and stopped with us.
        :param lent: see L{Listening}.
        :param node: which of several processes this is, in the store.
        :param process: the same for people.
        :raises StoreError: C{state_dir} can't be used.
        """
        super().__init__()
        self._configuration = configuration
        self._reactor = reactor
        self._store = store
        settings = configuration.settings
        self.sources = self._start_sources(configuration)
        self._rules = Rules(services=self.sources.services, limits=scan_limits(settings))
        self._spool = spool = Spool(
            reactor=reactor,
            directory=settings.upload_dir,
            max_concurrent=settings.upload.max_concurrent,
            max_bytes=settings.upload.spool_max_bytes,
            keep_free_bytes=settings.upload.keep_free_bytes,
        )
        spool.open()
        self._scanning = scanning = assemble(
            reactor=reactor,
            store=store,
            spool=spool,
            rules=self._rules,
            reliability=Reliability(clock=reactor, now=store.now),
            threads=settings.blocking_threads,
            log_values=settings.log_values,
            environment=configuration.child_environment,
            node=" ".join(filter(None, (node_name(settings.state_dir), node))),
            node_lease_secs=settings.store.node_lease_secs,
            shared=settings.workers > 1 or not on_sqlite(settings.store.url),
        )
        status = Status(
            sources=lambda: self.sources,
            flight=scanning.flight,
            store=store,
            ids=scanning.ids,
            failing=lambda: scanning.reliability.failing,
        )
        self._tells_failing = TellsFailing(
            reliability=scanning.reliability,
            file=FailingFile(settings.state_dir / DIRECTORY / (node or "daemon")),
            clock=reactor,
            in_thread=in_pool(reactor),
        )
        health = Health(status=status, scans=scanning.scanner, process=process)
        page = Page(status=status, scans=scanning.scanner, process=process)

        def site_for(listener: Listener) -> CTSSite:
            return make_site(
                reactor=reactor,
                scans=scanning.scanner,
                spool=spool,
                mint=lambda service: scanning.ids.mint(service=service, now=store.now()),
                limits=web_limits(settings),
                allowed_hosts=settings.allowed_hosts,
                loopback=listener.local,
                short_path=settings.short_path,
                users=settings.users,
                health=health,
                page=page if settings.browser_page and listener.for_people else None,
            )

        self.listening = Listening(
            reactor=reactor, listeners=settings.listen, site_for=site_for, lent=lent
        )
        for service in (store, scanning.upkeep, self.listening):
            service.setServiceParent(self)

    def _start_sources(self, configuration: Configuration) -> Sources:
        return start_sources(
            configuration.settings,
            configuration.catalogue,
            reactor=self._reactor,
            store=self._store,
            environment=configuration.child_environment,
        )

    def startService(self) -> None:
        """Start, and say what is on and what is off. Nobody is let in yet."""
        super().startService()
        self.sources.indexes.startService()
        self._tells_failing.startService()
        self._tell(self.sources)

    async def loaded(self) -> None:
        """Wait until the indexes have been loaded, or have had their time for that."""
        await self._loaded(self.sources)

    async def _loaded(self, sources: Sources) -> None:
        deadline = self._reactor.seconds() + LOADING_SECS
        while any(source.loading() for source in sources.all()):
            if self._reactor.seconds() >= deadline:
                return
            await deferLater(self._reactor, LOADING_LOOK_SECS)

    async def go_by(self, new: Configuration) -> None:
        """
        Go by another configuration from the next request on. What can't change before the next
        start stays, and is logged.
        """
        for key in changed_fixed(self._configuration.settings, new.settings):
            self._log.warn("{key} has changed; that holds from the next start on", key=key)
        settings = kept(self._configuration.settings, new.settings)
        new = evolve(new, settings=settings)
        sources, old = self._start_sources(new), self.sources
        sources.indexes.startService()
        await self._loaded(sources)
        self._configuration, self.sources = new, sources
        self._rules.replace(sources.services, scan_limits(settings))
        self.listening.reconfigure(
            limits=web_limits(settings),
            allowed_hosts=settings.allowed_hosts,
            users=settings.users,
        )
        self.listening.reload()
        await old.indexes.stopService()
        # Its searches that still run end by their own time limits.
        longest_secs = max((source.timeout_secs for source in old.all()), default=0.0)
        self._reactor.callLater(2 * longest_secs, old.stop)
        self._tell(sources)
        self._log.info("The configuration was read again")

    def _tell(self, sources: Sources) -> None:
        for source in sources.all():
            self._log.info(
                "Searcher {name} is on ({mode}{required})",
                name=source.name,
                mode="async" if source.asynchronous else "sync",
                required="" if source.required else ", not required",
            )
        for found in sources.off:
            level = self._log.error if found.broken or found.mode else self._log.info
            level("Searcher {name} is off: {why}", name=found.name, why=found.why_off)

    async def stop(self, *, drain_secs: float, idle_secs: float) -> None:
        """Stop in order, each step with its own limit; see L{Listening.stop}."""
        self.running = 0
        await self.listening.stop(drain_secs=drain_secs, idle_secs=idle_secs)
        self._scanning.scan_log.flush()
        await self._scanning.upkeep.stopService()
        await self.sources.indexes.stopService()
        self.sources.stop()
        await self._tells_failing.stopService()
        await self._store.stopService()
        self._spool.close()

    def stopService(self) -> Deferred[None]:
        """Stop, with requests in hand left to themselves."""
        return Deferred.fromCoroutine(self.stop(drain_secs=0.0, idle_secs=0.0))
