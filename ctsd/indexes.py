"""The indexes that searchers ask for: of files, of the local database, of feeds."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import DeferredLock

from ctsd.config.settings import Settings
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
from ctsd.feeds.copies import Copies
from ctsd.feeds.descriptions import Description
from ctsd.feeds.download import Downloads
from ctsd.feeds.examinations import Examinations
from ctsd.feeds.feed_state import Copy
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
from ctsd.interfaces.feeds import IFeeds, IRecords
from ctsd.pooled import in_pool
from ctsd.searcher_setup import Parse
from ctsd.store import choose
from ctsd.store.queued import QueuedVerbs


class Indexes(MultiService):
    """
    Makes each index when a searcher asks for it first, and keeps it current while it runs.

    :ivar contents: what looks into texts, messages and files.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        feeds: Sequence[Description],
        reactor: Any,
        store: QueuedVerbs,
        environment: Mapping[str, str],
        updating: bool,
    ) -> None:
        """
        :param feeds: those that are on.
        :param store: not open yet.
        :param environment: of child processes, without secrets.
        :param updating: whether feeds are kept current; else what is on the disk is searched
            alone.
        """
        super().__init__()
        self._settings = settings
        self._on = feeds
        self._reactor = reactor
        self._store = store
        self._environment = environment
        self._updating = updating
        self._build = Builds(
            reactor=reactor, clock=reactor, lock=DeferredLock(), environment=environment
        )
        self._in_thread = in_pool(reactor)
        self._screener: Screener | None = None
        # Without feeds there are no lists but these.
        self._built_in = Warninglists(small=SmallLists(built_in()), patterns=Patterns(()))
        self.contents = Contents(in_thread=self._in_thread, limits=content_limits(settings))

    def records(self, path: Path, parse: Parse | Reading, keep: str, *, searcher: str) -> IRecords:
        """A file of a searcher's own; see L{ctsd.searcher_setup.SearcherSetup.records}."""
        file = RecordsFile(
            path=path,
            parse=parse,
            index=self._settings.index(searcher, keep),
            clock=self._reactor,
            build=self._build,
            in_thread=self._in_thread,
            now=self._store.now,
            limits=index_limits(self._settings),
        )
        file.setServiceParent(self)
        return file

    def described(self, path: Path, feed: str, keep: str, *, searcher: str) -> IRecords:
        """See L{ctsd.searcher_setup.SearcherSetup.described}."""
        return self.records(path, Reading.of_catalogue(feed, path), keep, searcher=searcher)

    @cached_property
    def threats(self) -> ThreatIndex:
        """The local database."""
        settings, reactor, store = self._settings, self._reactor, self._store
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
                build=self._build,
                in_thread=self._in_thread,
                limits=index_limits(settings),
            ),
            clock=reactor,
            in_thread=self._in_thread,
            is_shared_host=self._is_shared_host,
            limits=lookup_limits(settings),
        )
        index.setServiceParent(self)
        return index

    def feed(self, name: str, *, searcher: str) -> IFeeds | None:
        """One feed, for one searcher; None when there is no such feed, or it is off."""
        if not any(one.name == name and not one.is_warninglist for one in self._on):
            return None
        return self.feeds.alone(feed=name, searcher=searcher)

    @cached_property
    def feeds(self) -> Feeds:
        """
        All feeds that are on.

        :raises NotConfigured: none is.
        """
        if all(one.is_warninglist for one in self._on):
            raise NotConfigured("no feed is on")
        settings, reactor, store = self._settings, self._reactor, self._store
        children = Children(reactor=reactor, clock=reactor, environment=self._environment)
        downloads = make_downloads(
            settings,
            clock=reactor,
            outbound=make_outbound(settings, reactor=reactor, in_thread=self._in_thread),
            examine=Examinations(children=children, lock=DeferredLock()),
            in_thread=self._in_thread,
        )
        links = settings.state_dir / "index" / "warninglists-downloaded"
        lists = self._lists(children, links)
        screener = self._screener = Screener(
            lists=lambda: lists.lists,
            allow_list=AllowList(store=store, holder=uuid.uuid4().hex),
            clock=reactor,
            in_thread=self._in_thread,
            now=store.now,
            marking=frozenset(one.name for one in self._on if one.terms.on_warninglist == "mark"),
        )
        feeds = Feeds(
            descriptions=self._on,
            directory=settings.feed_index,
            list_links=links,
            screener=screener,
            downloads=downloads,
            make_updates=partial(self._updates, downloads) if self._updating else None,
            children=children,
            clock=reactor,
            in_thread=self._in_thread,
            now=store.now,
            limits=lookup_limits(settings),
            max_counted=settings.matching.max_counted,
            lists_trouble=lists.trouble,
        )
        for each in (lists, screener, feeds):
            each.setServiceParent(self)
        return feeds

    def _lists(self, children: Children, links: Path) -> ListFiles:
        """
        The warninglists that are files of somebody's, and those that are downloaded.

        :param links: the directory where these stand.
        """
        settings = self._settings
        lists = [one for one in self._on if one.is_warninglist]
        paths = [one.provider.file for one in lists if one.provider.file]
        if any(one.provider.url for one in lists):
            paths.insert(0, own_dir(links))
        return ListFiles(
            paths=paths,
            directory=settings.state_dir / "index" / "warninglists",
            children=children,
            clock=self._reactor,
            in_thread=self._in_thread,
            now=self._store.now,
            max_bytes=settings.matching.max_list_bytes,
            max_files=settings.matching.max_lists,
        )

    def _updates(
        self, downloads: Downloads, taken: Callable[[Description, Copies, Copy], object]
    ) -> Updates:
        # Nodes that share the copies share the work; one process's name is new each time.
        turns = (
            Turns(shared=self._store, holder=uuid.uuid4().hex, clock=self._reactor)
            if self._settings.outbound.feeds_dir is not None
            else None
        )
        return make_updates(
            downloads, clock=self._reactor, in_thread=self._in_thread, taken=taken, turns=turns
        )

    def _is_shared_host(self, host: str) -> bool:
        return (self._screener or self._built_in).is_shared_host(host)


def own_dir(path: Path) -> Path:
    """A directory that only we see, made if it is not there."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
