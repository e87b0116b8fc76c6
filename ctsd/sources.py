"""From the configuration to searchers that are ready to be asked, with the indexes they want."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from attrs import evolve, frozen
from twisted.application.service import MultiService
from twisted.logger import Logger

from ctsd.catalogue import Catalogue, Found
from ctsd.config.settings import Settings
from ctsd.discovery import start_all
from ctsd.feeds.descriptions import Description, read_description
from ctsd.indexes import Indexes, own_dir
from ctsd.scanning.slots import Slots
from ctsd.scanning.source import Source
from ctsd.searcher_setup import SearcherSetup
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
    indexes = Indexes(
        settings,
        feeds=feeds_on(settings),
        reactor=reactor,
        store=store,
        environment=environment,
        updating=updating,
    )

    def setup_for(found: Found) -> SearcherSetup:
        return SearcherSetup(
            settings=found.settings,
            data_dir=own_dir(settings.data_dir(found.name)),
            base_dir=settings.base_dir,
            clock=reactor,
            records=partial(indexes.records, searcher=found.name),
            threats=lambda: indexes.threats,
            feeds=lambda: indexes.feeds,
            feed=partial(indexes.feed, searcher=found.name),
            described=partial(indexes.described, searcher=found.name),
            contents=lambda: indexes.contents,
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


def child_variables(environ: Mapping[str, str], path: list[str]) -> dict[str, str]:
    """An environment in which a child process of ours finds the same modules as we."""
    return {**environ, "PYTHONPATH": os.pathsep.join(one for one in path if one)}
