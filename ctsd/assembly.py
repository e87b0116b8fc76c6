"""Puts the parts of scanning together, and turns settings into what each part goes by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from ctsd.blocking import DaemonThreads
from ctsd.config.settings import Settings
from ctsd.interfaces.store import IStore
from ctsd.scan_ids import ScanIds
from ctsd.scanning.first_answers import FirstAnswers
from ctsd.scanning.flight import Flight
from ctsd.scanning.following import Following
from ctsd.scanning.isolation import ChildSearches
from ctsd.scanning.membership import Membership
from ctsd.scanning.promises import Promises
from ctsd.scanning.recent import RecentViews
from ctsd.scanning.reliability import Reliability
from ctsd.scanning.resuming import Resuming
from ctsd.scanning.rules import Rules, ScanLimits
from ctsd.scanning.running import Runner
from ctsd.scanning.scan_log import ScanLog
from ctsd.scanning.scanner import Scanner
from ctsd.scanning.searches import Searches
from ctsd.scanning.upkeep import Upkeep
from ctsd.scanning.views import Views
from ctsd.spool import Spool
from ctsd.web.limits import WebLimits

#: After how long without a word a node is taken for dead: within 15 s, with the time in which the
#: others notice, its searches are theirs.
NODE_LEASE_SECS = 12.0

#: How much of the newest answers is kept in memory.
RECENT_MAX_BYTES = 32 * 2**20


@frozen(kw_only=True)
class Scanning:
    """All that works on scans."""

    scanner: Scanner
    upkeep: Upkeep
    reliability: Reliability
    scan_log: ScanLog
    ids: ScanIds
    flight: Flight


def assemble(
    *,
    reactor: Any,
    store: IStore,
    spool: Spool,
    rules: Rules,
    reliability: Reliability,
    threads: int,
    log_values: bool,
    environment: Mapping[str, str],
    node: str = "ctsd",
    node_lease_secs: float = NODE_LEASE_SECS,
    shared: bool = False,
) -> Scanning:
    """
    Everything that works on scans, not started.

    :param store: open.
    :param threads: for searchers that block.
    :param log_values: whether the log shows artifacts' values.
    :param environment: of child processes.
    :param node: what this process is called among those that use the store.
    :param node_lease_secs: see L{Membership}.
    :param shared: whether others may use the store, see L{FirstAnswers}.
    """
    ids = ScanIds(store.secret())
    flight = Flight()
    recent = RecentViews(
        max_bytes=RECENT_MAX_BYTES, oldest=lambda: store.now() - rules.limits.retention_secs
    )
    scan_log = ScanLog(clock=reactor, values=log_values)
    runner = Runner(
        clock=reactor,
        threads=DaemonThreads(reactor=reactor, max_threads=threads),
        run_alone=ChildSearches(reactor=reactor, environment=environment),
    )
    membership = Membership(clock=reactor, store=store, name=node, lease_secs=node_lease_secs)
    views = Views(
        clock=reactor,
        store=store,
        recent=recent,
        reliability=reliability,
        rules=rules,
    )
    searches = Searches(clock=reactor, runner=runner, reliability=reliability, flight=flight)
    following = Following(clock=reactor, store=store, views=views, rules=rules)
    promises = Promises(
        clock=reactor,
        store=store,
        flight=flight,
        views=views,
        spool=spool,
        scan_log=scan_log,
        recent=recent,
        rules=rules,
        membership=membership,
        following=following,
    )
    resuming = Resuming(
        clock=reactor,
        store=store,
        flight=flight,
        views=views,
        promises=promises,
        searches=searches,
        membership=membership,
        spool=spool,
        rules=rules,
    )
    upkeep = Upkeep(
        clock=reactor,
        store=store,
        flight=flight,
        promises=promises,
        resuming=resuming,
        searches=searches,
        spool=spool,
        membership=membership,
        rules=rules,
    )
    first_answers = FirstAnswers(
        clock=reactor,
        store=store,
        ids=ids,
        spool=spool,
        scan_log=scan_log,
        rules=rules,
        reliability=reliability,
        flight=flight,
        promises=promises,
        searches=searches,
        recent=recent,
        following=following,
        shared=shared,
    )
    scanner = Scanner(
        clock=reactor,
        store=store,
        ids=ids,
        rules=rules,
        flight=flight,
        views=views,
        first_answers=first_answers,
        upkeep=upkeep,
        recent=recent,
        membership=membership,
        following=following,
    )
    return Scanning(
        scanner=scanner,
        upkeep=upkeep,
        reliability=reliability,
        scan_log=scan_log,
        ids=ids,
        flight=flight,
    )


def scan_limits(settings: Settings) -> ScanLimits:
    """What bounds scans."""
    return ScanLimits(
        first_answer_secs=settings.first_answer_secs,
        post_deadline_secs=settings.post_deadline_secs,
        scan_deadline_secs=settings.scan_deadline_secs,
        when_incomplete=settings.when_incomplete,
        retention_secs=settings.retention_days * 86400,
        max_scans=settings.max_scans,
        keep_file_secs=settings.upload.keep_secs,
    )


def web_limits(settings: Settings) -> WebLimits:
    """What bounds connections and requests."""
    http, upload = settings.http, settings.upload
    return WebLimits(
        uploads_enabled=upload.enabled,
        upload_max_bytes=upload.max_bytes,
        drain_max_bytes=max(upload.max_bytes, WebLimits().drain_max_bytes),
        max_json_bytes=http.max_json_bytes,
        max_body_memory_bytes=http.max_body_memory_bytes,
        max_connections=http.max_connections,
        idle_secs=http.idle_secs,
        min_rate_bytes_per_sec=http.min_rate_bytes_per_sec,
        drain_secs=http.drain_secs,
    )
