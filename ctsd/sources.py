"""From the configuration to searchers that are ready to be asked, with the indexes they want."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from twisted.application.service import MultiService
from twisted.internet.defer import DeferredLock
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from ctsd.config import Settings
from ctsd.discovery import Catalogue, Found, start_all
from ctsd.errors import NotConfigured
from ctsd.feeding import (
    content_limits,
    index_limits,
    lookup_limits,
    make_downloads,
    make_outbound,
    make_updates,
)
from ctsd.feeds.allowed import AllowList
from ctsd.feeds.builds import Builds
from ctsd.feeds.children import Children
from ctsd.feeds.copies import Copies, Copy
from ctsd.feeds.descriptions import Description, read_description
from ctsd.feeds.examinations import Examinations
from ctsd.feeds.file import RecordsFile
from ctsd.feeds.list_files import ListFiles
from ctsd.feeds.looking import Contents
from ctsd.feeds.reading import Reading
from ctsd.feeds.screener import Screener
from ctsd.feeds.serving import Feeds
from ctsd.feeds.small_lists import built_in
from ctsd.feeds.threat_base import ThreatBase
from ctsd.feeds.threats import ThreatIndex
from ctsd.feeds.turns import Turns
from ctsd.feeds.updates import Updates
from ctsd.feeds.warninglists import Patterns, SmallLists, Warninglists
from ctsd.interfaces.feeds import IFeeds, IRecords, IThreats
from ctsd.scanning.slots import Slots
from ctsd.scanning.source import Source
from ctsd.searcher_setup import Parse, SearcherSetup
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


def own_feeds(settings: Settings) -> list[Description]:
    """
    The feeds that the configuration speaks of, by name.

    :raises ConfigError: one of them is wrong.
    """
    return [
        read_description(name, settings.feeds[name], settings.document)
        for name in sorted(settings.feeds)
    ]


def feeds_on(settings: Settings) -> list[Description]:
    """
    The feeds that are on, by name.

    :raises ConfigError: one that the configuration speaks of is wrong.
    """
    return [one for one in own_feeds(settings) if one.enabled]


def start_sources(
    settings: Settings,
    catalogue: Catalogue,
    *,
    reactor: Any,
    store: QueuedVerbs,
    environment: Mapping[str, str],
    updating: bool = True,
) -> Sources:
    """
    Start all searchers that are on.

    :param store: not open yet; its local database is indexed where a searcher asks for that.
    :param environment: of child processes, without secrets.
    :param updating: whether feeds are kept current; else what is on the disk is searched alone.
    :raises ConfigError: a feed is wrong.
    """
    indexes = MultiService()
    build = Builds(reactor=reactor, clock=reactor, lock=DeferredLock(), environment=environment)

    def in_thread(function: Any, *args: Any, **kwargs: Any) -> Any:
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *args, **kwargs)

    contents = Contents(in_thread=in_thread, limits=content_limits(settings))
    local: list[ThreatIndex] = []
    screeners: list[Screener] = []
    built_in_lists = Warninglists(small=SmallLists(built_in()), patterns=Patterns(()))

    def is_shared_host(host: str) -> bool:
        # Without feeds there are no lists but the built-in ones.
        lists = screeners[0] if screeners else built_in_lists
        return lists.is_shared_host(host)

    def threats() -> IThreats:
        if not local:
            reader = choose.threat_reader(
                url=settings.store.url,
                password=settings.store.password or "",
                directory=settings.state_dir,
            )
            index = ThreatIndex(
                store=store,
                identity=store.secret,
                base=ThreatBase(
                    path=settings.threat_index,
                    database=reader.database,
                    reader=reader.module,
                    access=reader.access,
                    clock=reactor,
                    now=store.now,
                    build=build,
                    in_thread=in_thread,
                    limits=index_limits(settings),
                ),
                clock=reactor,
                in_thread=in_thread,
                is_shared_host=is_shared_host,
                limits=lookup_limits(settings),
            )
            index.setServiceParent(indexes)
            local.append(index)
        return local[0]

    on = feeds_on(settings)
    served: list[Feeds] = []

    def feeds() -> Feeds:
        if all(one.is_warninglist for one in on):
            raise NotConfigured("no feed is on")
        if not served:
            children = Children(reactor=reactor, clock=reactor, environment=environment)
            downloads = make_downloads(
                settings,
                clock=reactor,
                outbound=make_outbound(settings, reactor=reactor, in_thread=in_thread),
                examine=Examinations(children=children, lock=DeferredLock()),
                in_thread=in_thread,
            )

            def updates(taken: Callable[[Description, Copies, Copy], object]) -> Updates:
                # Nodes that share the copies share the work; one process's name is new each time.
                turns = (
                    Turns(shared=store, holder=uuid.uuid4().hex, clock=reactor)
                    if settings.outbound.feeds_dir is not None
                    else None
                )
                return make_updates(
                    downloads, clock=reactor, in_thread=in_thread, taken=taken, turns=turns
                )

            is_listing = any(one.is_warninglist and one.provider.url for one in on)
            own_lists = [
                one.provider.file for one in on if one.is_warninglist and one.provider.file
            ]
            marking = frozenset(one.name for one in on if one.terms.on_warninglist == "mark")
            links = settings.state_dir / "index" / "warninglists-downloaded"
            lists = ListFiles(
                paths=[_own_dir(links), *own_lists] if is_listing else own_lists,
                directory=settings.state_dir / "index" / "warninglists",
                children=children,
                clock=reactor,
                in_thread=in_thread,
                now=store.now,
                max_bytes=settings.matching.max_list_bytes,
                max_files=settings.matching.max_lists,
            )
            screener = Screener(
                lists=lambda: lists.lists,
                allow_list=AllowList(store=store, holder=uuid.uuid4().hex),
                clock=reactor,
                in_thread=in_thread,
                now=store.now,
                marking=marking,
            )
            screeners.append(screener)
            service = Feeds(
                descriptions=on,
                directory=settings.feed_index,
                list_links=links,
                screener=screener,
                downloads=downloads,
                make_updates=updates if updating else None,
                children=children,
                clock=reactor,
                in_thread=in_thread,
                now=store.now,
                limits=lookup_limits(settings),
                max_counted=settings.matching.max_counted,
                lists_trouble=lists.trouble,
            )
            for each in (lists, screener, service):
                each.setServiceParent(indexes)
            served.append(service)
        return served[0]

    def setup_for(found: Found) -> SearcherSetup:
        def records(path: Path, parse: Parse | Reading, keep: str) -> IRecords:
            file = RecordsFile(
                path=path,
                parse=parse,
                index=settings.index(found.name, keep),
                clock=reactor,
                build=build,
                in_thread=in_thread,
                now=store.now,
                limits=index_limits(settings),
            )
            file.setServiceParent(indexes)
            return file

        def described(path: Path, feed: str, keep: str) -> IRecords:
            return records(path, Reading.of_catalogue(feed, path), keep)

        def feed(name: str) -> IFeeds | None:
            if not any(one.name == name and not one.is_warninglist for one in on):
                return None
            return feeds().alone(feed=name, searcher=found.name)

        return SearcherSetup(
            settings=found.settings,
            data_dir=_own_dir(settings.data_dir(found.name)),
            base_dir=settings.base_dir,
            clock=reactor,
            records=records,
            threats=threats,
            feeds=feeds,
            feed=feed,
            described=described,
            contents=lambda: contents,
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
