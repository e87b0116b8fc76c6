"""What the daemon keeps for its searchers, as commands beside it see that: nothing is built."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from zope.interface import implementer

from ctsd.catalogue import Catalogue, Found, Started
from ctsd.config.settings import Settings
from ctsd.discovery import start_all
from ctsd.errors import NotConfigured, SearchLater
from ctsd.feeds.array_file import BadIndex
from ctsd.feeds.descriptions import Description
from ctsd.feeds.file import described as told_of
from ctsd.feeds.index import Index
from ctsd.feeds.job import label_of, reference, source_of
from ctsd.feeds.looking import Contents
from ctsd.feeds.on_disk import FeedsOnDisk
from ctsd.feeds.own_file import stat_of
from ctsd.feeds.reading import Reading
from ctsd.feeds.told import read_told
from ctsd.interfaces.feeds import IFeeds, IRecords, IThreats
from ctsd.model import JSON
from ctsd.records import Derived, Indexed, LookupLimits, Matches
from ctsd.searcher_setup import Parse, SearcherSetup
from ctsd.sources import feeds_on


@implementer(IRecords)
@frozen(kw_only=True)
class _KeptRecords:
    """
    Says what the daemon's index of a file holds, and what it has found wrong with the file, and
    builds nothing.

    :ivar label: see L{label_of}.
    """

    source: Path | None
    index: Path
    label: str = ""

    def find(
        self,
        *,
        type: str,
        value: JSON,
        limit: int,
        wanted: Callable[[Indexed], bool] | None = None,
    ) -> Matches:
        """Nothing is searched here."""
        raise SearchLater(1.0, "nothing is loaded")

    def trouble(self) -> str:
        """Empty when the file can be read, and the daemon has found nothing wrong with it."""
        if self.source is None:
            return ""
        try:
            stat_of(self.source)
            with self.source.open("rb") as opened:
                source = source_of(self.label, os.fstat(opened.fileno()))
        except OSError as error:
            return f"{self.source} can't be read: {error.strerror}"
        told = read_told(self.index)
        # Of another file than is there now, it is of no interest any more.
        return told.trouble if told.source in ("", source) else ""

    def loading(self) -> bool:
        """Nothing is loaded here."""
        return False

    def failed(self) -> bool:
        """Nothing is tried here."""
        return False

    def describe(self) -> str:
        """What the index says of itself."""
        try:
            index = Index.open(self.index, now=time.time)
        except (OSError, BadIndex):
            # The local database needs no index while it is small.
            return "not indexed yet" if self.source else ""
        try:
            return told_of(index.about)
        finally:
            index.close()


@implementer(IThreats)
@frozen(kw_only=True)
class _KeptThreats(_KeptRecords):
    """Says what the daemon's index of the local database holds."""

    limits: LookupLimits = field(factory=LookupLimits)

    def find_within(
        self,
        *,
        derived: Iterable[Derived],
        limit: int,
        wanted: Callable[[Indexed], bool] | None = None,
    ) -> Matches:
        """Nothing is searched here."""
        raise SearchLater(1.0, "nothing is loaded")

    def is_empty(self) -> bool:
        """Nothing is searched here."""
        return False


def _at_once(function: Any, *args: Any, **kwargs: Any) -> Any:
    return maybeDeferred(function, *args, **kwargs)


def _on_disk(descriptions: Sequence[Description], settings: Settings) -> IFeeds:
    return FeedsOnDisk(
        descriptions=descriptions,
        directory=settings.feeds_dir,
        index=settings.feed_index,
        now=time.time,
    )


def start_beside(catalogue: Catalogue, settings: Settings) -> Started:
    """
    Start searchers beside the daemon: what it keeps current is here only told of.

    :raises ConfigError: a feed is wrong.
    """
    on = feeds_on(settings)

    def setup_for(found: Found) -> SearcherSetup:
        def records(path: Path, parse: Parse, keep: str) -> IRecords:
            return _KeptRecords(
                source=path,
                index=settings.index(found.name, keep),
                label=label_of(parse=reference(parse)),
            )

        def described(path: Path, feed: str, keep: str) -> IRecords:
            reading = Reading.of_catalogue(feed, path)
            return _KeptRecords(
                source=path,
                index=settings.index(found.name, keep),
                label=label_of(reading=reading.as_text()),
            )

        def threats() -> IThreats:
            return _KeptThreats(source=None, index=settings.threat_index)

        def feeds() -> IFeeds:
            if all(one.is_warninglist for one in on):
                raise NotConfigured("no feed is on")
            return _on_disk(on, settings)

        def feed(name: str) -> IFeeds | None:
            alone = [one for one in on if one.name == name and not one.is_warninglist]
            if not alone:
                return None
            return _on_disk(alone, settings)

        return SearcherSetup(
            settings=found.settings,
            data_dir=settings.data_dir(found.name),
            clock=Clock(),
            base_dir=settings.base_dir,
            records=records,
            threats=threats,
            feeds=feeds,
            feed=feed,
            described=described,
            contents=lambda: Contents(in_thread=_at_once),
        )

    return start_all(catalogue, setup_for)
