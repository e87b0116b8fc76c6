"""
Builds the daemon from its configuration: the only room that knows all others.

`twistd -n ctsd --config FILE` and C{ctsd.tac} both end here.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from ctsd.blocking import DaemonThreads
from ctsd.config import Listener, Settings, child_environment, load
from ctsd.discovery import Catalogue, discover
from ctsd.errors import ConfigError, StoreError
from ctsd.flight import Flight
from ctsd.isolation import ChildSearches
from ctsd.listening import Listening
from ctsd.promises import Promises
from ctsd.recent import RecentViews
from ctsd.reliability import Reliability
from ctsd.rules import Rules, ScanLimits
from ctsd.running import Runner
from ctsd.scan_ids import ScanIds
from ctsd.scan_log import ScanLog
from ctsd.scanner import Scanner
from ctsd.sources import Sources, child_variables, start_sources
from ctsd.spool import Spool
from ctsd.store.sqlite import SQLiteStore
from ctsd.upkeep import Upkeep
from ctsd.views import Views
from ctsd.web.limits import WebLimits
from ctsd.web.site import CTSSite, make_site

#: How long requests in hand may take when the daemon stops.
DRAIN_SECS = 5.0

#: How much of the newest answers is kept in memory.
RECENT_MAX_BYTES = 32 * 2**20

#: How long clients wait at the start while an index is loaded, looked at so often; after that,
#: whoever asks what it does not know yet is told to come again.
LOADING_SECS = 10.0
LOADING_LOOK_SECS = 0.02


class Options(usage.Options):
    """The options of `twistd ctsd`."""

    optParameters = [
        ["config", "c", None, "ctsd.toml; default: $CTSD_CONFIG, ./ctsd.toml, built-in defaults"]
    ]
    synopsis = "[--config FILE]"


def makeService(options: Mapping[str, Any]) -> MultiService:
    """
    The daemon, not started.

    :raises SystemExit: the configuration is wrong; one line says where and how.
    """
    from twisted.internet import reactor

    return make_daemon(options.get("config"), environ=os.environ, reactor=reactor)


def make_daemon(config: str | None, *, environ: Mapping[str, str], reactor: Any) -> Daemon:
    """
    The daemon of a configuration file, not started.

    :raises SystemExit: as L{makeService}.
    """
    try:
        settings = load(Path(config) if config else None, environ=environ)
        catalogue = discover(settings)
    except ConfigError as error:
        raise SystemExit(f"ctsd: {error}") from None
    return Daemon(settings, catalogue, reactor=reactor, environ=environ)


class Daemon(MultiService):
    """
    All of it, started and stopped in order.

    At the start: the lock on C{state_dir}, the store, the sockets, then everything else. At the
    end: requests in hand, promises, indexes, the store.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        *,
        reactor: Any,
        environ: Mapping[str, str],
    ) -> None:
        super().__init__()
        self._settings = settings
        self._catalogue = catalogue
        self._reactor = reactor
        self._environ = environ
        # Waits must not depend on a wall clock that somebody sets.
        reactor.seconds = time.monotonic

    def privilegedStartService(self) -> None:
        """
        Open the store, then the sockets.

        :raises SystemExit: one of them can't be had; one line says why.
        """
        settings = self._settings
        try:
            _make_private(settings.state_dir)
            self._lock = _only_one(settings.state_dir)
            self._store = SQLiteStore(
                reactor=self._reactor,
                path=settings.store_path,
                max_bytes=settings.store.max_bytes,
                retention_secs=settings.retention_days * 86400,
                threat_secs=settings.store.threat_days * 86400,
            )
            self._store.open()
        except StoreError as error:
            raise SystemExit(f"ctsd: {error.reason}") from None
        except OSError as error:
            raise SystemExit(f"ctsd: {settings.state_dir}: {error.strerror}") from None
        self._compose()
        super().privilegedStartService()

    def _compose(self) -> None:
        settings, reactor, store = self._settings, self._reactor, self._store
        holder = uuid.uuid4().hex
        environment = child_variables(child_environment(self._environ, settings), sys.path)
        self._sources = start_sources(
            settings, self._catalogue, reactor=reactor, store=store, environment=environment
        )
        rules = Rules(services=self._sources.services, limits=_scan_limits(settings))
        spool = Spool(
            reactor=reactor,
            directory=settings.state_dir / "spool",
            max_concurrent=settings.upload.max_concurrent,
            max_bytes=settings.upload.spool_max_bytes,
            keep_free_bytes=settings.upload.keep_free_bytes,
        )
        ids = ScanIds(store.secret())
        flight = Flight()
        recent = RecentViews(max_bytes=RECENT_MAX_BYTES)
        scan_log = ScanLog(clock=reactor, values=settings.log_values)
        runner = Runner(
            clock=reactor,
            threads=DaemonThreads(reactor=reactor, max_threads=settings.blocking_threads),
            run_alone=ChildSearches(reactor=reactor, environment=environment),
        )
        reliability = Reliability(clock=reactor)
        views = Views(
            clock=reactor, store=store, flight=flight, reliability=reliability, rules=rules
        )
        promises = Promises(
            clock=reactor,
            store=store,
            flight=flight,
            views=views,
            runner=runner,
            spool=spool,
            scan_log=scan_log,
            recent=recent,
            reliability=reliability,
            rules=rules,
            holder=holder,
        )
        self._upkeep = Upkeep(
            clock=reactor,
            store=store,
            flight=flight,
            promises=promises,
            spool=spool,
            holder=holder,
            rules=rules,
        )
        self._scanner = Scanner(
            clock=reactor,
            store=store,
            ids=ids,
            spool=spool,
            scan_log=scan_log,
            rules=rules,
            reliability=reliability,
            flight=flight,
            views=views,
            promises=promises,
            upkeep=self._upkeep,
            recent=recent,
        )
        web_limits = _web_limits(settings)

        def site_for(listener: Listener) -> CTSSite:
            return make_site(
                reactor=reactor,
                scans=self._scanner,
                spool=spool,
                mint=lambda service: ids.mint(service=service, now=store.now()),
                limits=web_limits,
                allowed_hosts=settings.allowed_hosts,
                loopback=listener.local,
                short_path=settings.short_path,
            )

        self._listening = Listening(
            reactor=reactor,
            listeners=settings.listen,
            site_for=site_for,
            drain_secs=DRAIN_SECS,
        )
        for service in (
            store,
            self._sources.indexes,
            self._scanner,
            self._upkeep,
            self._listening,
        ):
            service.setServiceParent(self)

    def startService(self) -> None:
        """Start, and say what is on and what is off."""
        super().startService()
        self._tell(self._sources)
        self._reactor.callWhenRunning(self._running)

    def _running(self) -> None:
        # twistd raises SIGTERM again at its end, which makes for status 143; ours ends with 0.
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, self._end)
        Deferred.fromCoroutine(self._open()).addErrback(self._not_open)

    async def _open(self) -> None:
        """Let clients in, once the indexes have been loaded or have had their time for that."""
        deadline = self._reactor.seconds() + LOADING_SECS
        while any(source.searcher.loading() for source in self._sources.all()):
            if self._reactor.seconds() >= deadline:
                break
            await deferLater(self._reactor, LOADING_LOOK_SECS)
        # What is here now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        self._listening.accept()
        self._log.info("ctsd is ready")

    def _not_open(self, failure: Failure) -> None:
        self._log.failure("ctsd could not open", failure)
        self._reactor.stop()

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
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._listening.stop()
        self._scanner.stopService()
        await self._upkeep.stopService()
        await self._sources.indexes.stopService()
        self._sources.stop()
        await self._store.stopService()
        os.close(self._lock)


def _scan_limits(settings: Settings) -> ScanLimits:
    return ScanLimits(
        first_answer_secs=settings.first_answer_secs,
        post_deadline_secs=settings.post_deadline_secs,
        scan_deadline_secs=settings.scan_deadline_secs,
        when_incomplete=settings.when_incomplete,
        retention_secs=settings.retention_days * 86400,
        max_scans=settings.max_scans,
        keep_file_secs=settings.upload.keep_secs,
    )


def _web_limits(settings: Settings) -> WebLimits:
    http, upload = settings.http, settings.upload
    return WebLimits(
        uploads_enabled=upload.enabled,
        upload_max_bytes=upload.max_bytes,
        drain_max_bytes=upload.max_bytes,
        max_json_bytes=http.max_json_bytes,
        max_body_memory_bytes=http.max_body_memory_bytes,
        max_connections=http.max_connections,
        idle_secs=http.idle_secs,
        min_rate_bytes_per_sec=http.min_rate_bytes_per_sec,
        drain_secs=http.drain_secs,
    )


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _only_one(state_dir: Path) -> int:
    """
    The lock that says that this process uses this C{state_dir}.

    :raises SystemExit: another one does.
    """
    lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SystemExit(f"ctsd: {state_dir} is used by another ctsd that is running") from None
    return lock
