"""The daemon: started and stopped in order, and made to read its configuration again."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from attrs import evolve, frozen
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd._state_dir import others_write, why_unusable
from ctsd.assembly import assemble, scan_limits, web_limits
from ctsd.config import Listener, Settings, child_environment, load
from ctsd.discovery import Catalogue, discover
from ctsd.errors import ConfigError, StoreError
from ctsd.listening import Listening
from ctsd.notify import Notifier
from ctsd.scanning.reliability import Reliability
from ctsd.scanning.rules import Rules
from ctsd.sources import Sources, child_variables, make_store, start_sources
from ctsd.spool import Spool
from ctsd.status import Status
from ctsd.store.places import is_network_filesystem, lock_state
from ctsd.web.page import Page
from ctsd.web.site import CTSSite, make_site

# What ends us.
ENDINGS = (signal.SIGTERM, signal.SIGINT)

#: How long requests in hand may take when the daemon stops.
DRAIN_SECS = 5.0

#: How long clients wait at the start while an index is loaded, looked at so often; after that,
#: whoever asks what it does not know yet is told to come again.
LOADING_SECS = 10.0
LOADING_LOOK_SECS = 0.02

#: Settings that hold until the next start; of C{upload} and C{http}, what is not about a request.
FIXED = (
    "state_dir",
    "listen",
    "store",
    "blocking_threads",
    "short_path",
    "log_values",
    "browser_page",
)
FIXED_UPLOAD = ("max_concurrent", "spool_max_bytes", "keep_free_bytes")
FIXED_HTTP = ("max_body_memory_bytes",)


@frozen(kw_only=True)
class Configuration:
    """
    What a file says, and which searchers it means.

    :ivar path: the file that was named, if any: it is read again on SIGHUP.
    """

    path: Path | None
    environ: Mapping[str, str] = attrs.field(repr=False)
    settings: Settings
    catalogue: Catalogue

    @classmethod
    def read(cls, path: Path | None, environ: Mapping[str, str]) -> Configuration:
        """
        Read it.

        :raises ConfigError: something in it is wrong.
        """
        settings = load(path, environ=environ)
        return cls(path=path, environ=environ, settings=settings, catalogue=discover(settings))

    def again(self) -> Configuration:
        """
        Read it again.

        :raises ConfigError: something in it is wrong.
        """
        return Configuration.read(self.path, self.environ)

    @property
    def child_environment(self) -> dict[str, str]:
        """The environment of child processes."""
        return child_variables(child_environment(self.environ, self.settings), sys.path)


class Daemon(MultiService):
    """
    All of it, started and stopped in order.

    At the start: the lock on C{state_dir}, the store, the sockets, then everything else. At the
    end: requests in hand, promises, indexes, the store.
    """

    _log = Logger()

    def __init__(self, configuration: Configuration, *, reactor: Any) -> None:
        super().__init__()
        self._configuration = configuration
        self._reactor = reactor
        self._notifier = Notifier(clock=reactor, environ=configuration.environ)
        self._reloading = DeferredLock()
        # Waits must not depend on a wall clock that somebody sets.
        reactor.seconds = time.monotonic

    def privilegedStartService(self) -> None:
        """
        Open the store, then the sockets.

        :raises SystemExit: one of them can't be had; one line says why.
        """
        settings = self._configuration.settings
        for ending in ENDINGS:
            signal.signal(ending, _end_early)
        try:
            self._lock = _take_state_dir(settings)
            self._store = make_store(settings, reactor=self._reactor, alone=True)
            self._store.open()
        except ConfigError as error:
            raise SystemExit(f"ctsd: {error}") from None
        except StoreError as error:
            raise SystemExit(f"ctsd: {error.reason}") from None
        warning = others_write(settings.state_dir)
        if warning:
            self._log.warn("state_dir: {warning}", warning=warning)
        self._compose()
        super().privilegedStartService()

    def _compose(self) -> None:
        settings, reactor, store = self._configuration.settings, self._reactor, self._store
        self._sources = self._start_sources(self._configuration)
        self._rules = Rules(services=self._sources.services, limits=scan_limits(settings))
        spool = Spool(
            reactor=reactor,
            directory=settings.state_dir / "spool",
            max_concurrent=settings.upload.max_concurrent,
            max_bytes=settings.upload.spool_max_bytes,
            keep_free_bytes=settings.upload.keep_free_bytes,
        )
        self._scanning = scanning = assemble(
            reactor=reactor,
            store=store,
            spool=spool,
            rules=self._rules,
            reliability=Reliability(clock=reactor),
            threads=settings.blocking_threads,
            log_values=settings.log_values,
            environment=self._configuration.child_environment,
        )

        status = Status(
            sources=lambda: self._sources, flight=scanning.flight, store=store, ids=scanning.ids
        )
        page = Page(status=status, scans=scanning.scanner) if settings.browser_page else None

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
                page=page if listener.for_people else None,
            )

        self._listening = Listening(
            reactor=reactor,
            listeners=settings.listen,
            site_for=site_for,
            drain_secs=DRAIN_SECS,
        )
        for service in (store, scanning.upkeep, self._listening):
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
        """Start, and say what is on and what is off."""
        super().startService()
        self._sources.indexes.startService()
        self._tell(self._sources)
        self._reactor.callWhenRunning(self._running)
        # The reactor puts its own in place before it calls us: what comes until then waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)

    def _running(self) -> None:
        # twistd raises SIGTERM again at its end, which makes for status 143; ours ends with 0.
        for ending in ENDINGS:
            signal.signal(ending, self._end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)
        signal.signal(signal.SIGHUP, self._hang_up)
        self._notifier.startService()
        Deferred.fromCoroutine(self._open()).addErrback(self._not_open)

    async def _open(self) -> None:
        """Let clients in, once the indexes have been loaded or have had their time for that."""
        await self._loaded(self._sources)
        # What is here now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        self._listening.accept()
        self._log.info("ctsd is ready")
        self._notifier.ready(self._sources.summary())

    async def _loaded(self, sources: Sources) -> None:
        deadline = self._reactor.seconds() + LOADING_SECS
        while any(source.loading() for source in sources.all()):
            if self._reactor.seconds() >= deadline:
                return
            await deferLater(self._reactor, LOADING_LOOK_SECS)

    def _not_open(self, failure: Failure) -> None:
        self._log.failure("ctsd could not open", failure)
        # A reactor that is stopped ends with status 0, and a supervisor would not start us again.
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self._reactor.stop()

    # -- reading the configuration again

    def _hang_up(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self.reload)

    def reload(self) -> Deferred[None]:
        """
        Read the configuration again. A good one holds from the next request on; one that is wrong
        changes nothing. Both are logged, as is what can't change before the next start.

        :return: fires when that is done; never fails.
        """
        self._notifier.reloading()
        return (
            self._reloading.run(self._reload)
            .addErrback(self._not_reloaded)
            .addCallback(lambda _: self._notifier.ready(self._sources.summary()))
        )

    def _not_reloaded(self, failure: Failure) -> None:
        self._log.failure("The configuration could not be read again", failure)

    async def _reload(self) -> None:
        try:
            new = self._configuration.again()
        except ConfigError as error:
            self._log.error("The configuration is not taken: {error}", error=error)
            return
        for key in _fixed(self._configuration.settings, new.settings):
            self._log.warn("{key} has changed; that holds from the next start on", key=key)
        settings = _with_fixed(self._configuration.settings, new.settings)
        new = evolve(new, settings=settings)
        sources, old = self._start_sources(new), self._sources
        sources.indexes.startService()
        await self._loaded(sources)
        self._configuration, self._sources = new, sources
        self._rules.replace(sources.services, scan_limits(settings))
        self._listening.reconfigure(
            limits=web_limits(settings),
            allowed_hosts=settings.allowed_hosts,
            users=settings.users,
        )
        self._listening.reload()
        await old.indexes.stopService()
        # Its searches that still run end by their own time limits.
        longest_secs = max((source.timeout_secs for source in old.all()), default=0.0)
        self._reactor.callLater(2 * longest_secs, old.stop)
        self._tell(sources)
        self._log.info("The configuration was read again")

    # -- the end

    def _end(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._stop_reactor)

    def _stop_reactor(self) -> None:
        with suppress(ReactorNotRunning):  # a second signal
            self._reactor.stop()

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

    def stopService(self) -> Deferred[None]:
        """Stop in order; each step has its own limit, all together below 10 s."""
        self.running = 0
        self._notifier.stopping()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._listening.stop()
        self._scanning.scan_log.flush()
        await self._scanning.upkeep.stopService()
        await self._sources.indexes.stopService()
        self._sources.stop()
        await self._store.stopService()
        self._notifier.stopService()
        os.close(self._lock)


def _end_early(number: int, frame: object) -> None:
    # Nothing is there yet that must be stopped in order, and an exception could be caught.
    os._exit(0)


def _fixed(old: Settings, new: Settings) -> list[str]:
    """The settings that have changed, but can't before the next start."""
    changed = [key for key in FIXED if getattr(old, key) != getattr(new, key)]
    for table, keys in (("upload", FIXED_UPLOAD), ("http", FIXED_HTTP)):
        before, after = getattr(old, table), getattr(new, table)
        changed += [f"{table}.{key}" for key in keys if getattr(before, key) != getattr(after, key)]
    return changed


def _with_fixed(old: Settings, new: Settings) -> Settings:
    """The new settings, with what can't change as it was."""
    return evolve(new, **{key: getattr(old, key) for key in FIXED})


def _take_state_dir(settings: Settings) -> int:
    """
    Make C{state_dir}, if need be, and lock it.

    :return: the lock's descriptor.
    :raises ConfigError: it can't be made or used.
    :raises StoreError: another process uses it.
    """
    directory = settings.state_dir
    for path in (directory, directory / "spool"):
        if is_network_filesystem(path):
            raise settings.document.error(
                ("state_dir",), f"{path} is on a network file system, where locks do not work"
            )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return lock_state(directory)
    except OSError as error:
        why = why_unusable(directory) or f"{directory} can't be used: {error.strerror}"
        raise settings.document.error(("state_dir",), why) from None
