"""From the configuration to searchers that are ready to be asked, with the indexes they want."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from twisted.application.service import MultiService
from twisted.internet.defer import DeferredLock
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from ctsd.config import Settings
from ctsd.discovery import Catalogue, Found, start_all
from ctsd.feeds.builds import Builds
from ctsd.feeds.file import RecordsFile
from ctsd.feeds.threats import ThreatIndex
from ctsd.interfaces import IRecords
from ctsd.scanning.slots import Slots
from ctsd.scanning.source import Source
from ctsd.searcher import Parse, SearcherSetup
from ctsd.store import choose
from ctsd.store.queued import QueuedVerbs


@frozen(kw_only=True)
class Sources:
    """
    The searchers that are on.

    :ivar indexes: the services that keep their indexes current; to be started.
    :ivar services: the searchers of each service, in order.
    :ivar off: the others.
    """

    indexes: MultiService
    services: Mapping[str, tuple[Source, ...]]
    off: tuple[Found, ...]

    def all(self) -> list[Source]:
        """Every searcher that is on, once."""
        return list({one.name: one for ones in self.services.values() for one in ones}.values())

    def summary(self) -> str:
        """How many are on and off, in a few words."""
        return f"searchers: {len(self.all())} on, {len(self.off)} off"

    def stop(self) -> None:
        """Let every searcher let go of what it has."""
        for source in self.all():
            try:
                source.searcher.stop()
            except BaseException:
                Logger(__name__).failure("Searcher {name} does not stop", name=source.name)


def make_store(settings: Settings, *, reactor: Any, alone: bool = False) -> QueuedVerbs:
    """
    The store of a configuration; see L{choose.make_store}.

    :param alone: whether it is a daemon's: which wants to hear what others tell, and warns.
    :raises StoreError: there can be none.
    """
    return choose.make_store(
        reactor=reactor,
        url=settings.store.url,
        password=settings.store.password or "",
        directory=settings.state_dir,
        max_bytes=settings.store.max_bytes,
        retention_secs=settings.retention_days * 86400,
        threat_secs=settings.store.threat_days * 86400,
        warn=alone,
        listen_url=_listen_url(settings) if alone else "",
    )


def _listen_url(settings: Settings) -> str:
    given = settings.store.listen_url
    return settings.store.url if given is None else given


def start_sources(
    settings: Settings,
    catalogue: Catalogue,
    *,
    reactor: Any,
    store: QueuedVerbs,
    environment: Mapping[str, str],
) -> Sources:
    """
    Start all searchers that are on.

    :param store: not open yet; its local database is indexed where a searcher asks for that.
    :param environment: of child processes, without secrets.
    """
    indexes = MultiService()
    build = Builds(reactor=reactor, clock=reactor, lock=DeferredLock(), environment=environment)

    def in_thread(function: Any, *args: Any, **kwargs: Any) -> Any:
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *args, **kwargs)

    local: list[ThreatIndex] = []

    def threats() -> IRecords:
        if not local:
            reader = choose.threat_reader(
                url=settings.store.url,
                password=settings.store.password or "",
                directory=settings.state_dir,
            )
            index = ThreatIndex(
                store=store,
                identity=store.secret,
                database=reader.database,
                reader=reader.module,
                access=reader.access,
                index=settings.threat_index,
                clock=reactor,
                build=build,
                in_thread=in_thread,
            )
            index.setServiceParent(indexes)
            local.append(index)
        return local[0]

    def setup_for(found: Found) -> SearcherSetup:
        def records(path: Path, parse: Parse, keep: str) -> IRecords:
            file = RecordsFile(
                path=path,
                parse=parse,
                index=settings.index(found.name, keep),
                clock=reactor,
                build=build,
                in_thread=in_thread,
                now=store.now,
            )
            file.setServiceParent(indexes)
            return file

        return SearcherSetup(
            settings=found.settings,
            data_dir=_own_dir(settings.data_dir(found.name)),
            base_dir=settings.base_dir,
            clock=reactor,
            records=records,
            threats=threats,
        )

    started = start_all(catalogue, setup_for)
    by_name = {
        found.name: Source(
            searcher=searcher,
            setup=setup,
            name=found.name,
            asynchronous=found.mode == "async",
            required=found.required,
            timeout_secs=found.timeout_secs,
            # A worker's part of them.
            slots=Slots(limit=-(-found.slots // settings.workers)),
        )
        for found, searcher, setup in started.running
    }
    return Sources(
        indexes=indexes,
        services={
            service: tuple(_scoped(by_name[name], service, settings) for name in names)
            for service, names in started.services.items()
        },
        off=started.off,
    )


def _scoped(source: Source, service: str, settings: Settings) -> Source:
    ours = settings.services.get(service)
    return evolve(source, scope=service) if ours and ours.threats == "own" else source


def _own_dir(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def child_variables(environ: Mapping[str, str], path: list[str]) -> dict[str, str]:
    """An environment in which a child process of ours finds the same modules as we."""
    return {**environ, "PYTHONPATH": os.pathsep.join(one for one in path if one)}
