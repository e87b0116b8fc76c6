"""What a searcher is given when the daemon starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime

from ctsd.errors import NotConfigured
from ctsd.interfaces.feeds import IContents, IFeeds, IRecords, IThreats
from ctsd.records import Record

#: Reads one open source file, as lines of text, into records. Runs in a child process, so it has
#: to be a module-level function. It raises C{ValueError} when the file as a whole is wrong; for a
#: record it can't use it yields None, which is counted.
Parse = Callable[[Iterable[str]], Iterator[Record | None]]


def _no_feeds() -> IFeeds:
    raise NotConfigured("no feed is on")


def _no_contents() -> IContents:
    raise NotConfigured("nothing is looked into here")


def _no_feed(name: str) -> IFeeds | None:
    return None


def _no_catalogue(path: Path, feed: str, keep: str) -> IRecords:
    raise NotConfigured(f"no description of {feed} is here")


@frozen(kw_only=True)
class SearcherSetup:
    """
    What a searcher is given when the daemon starts.

    :ivar settings: its table C{[searchers.<name>]}, without the keys that are ctsd's own
        (C{required}, C{timeout_secs}, C{slots}); secrets are resolved already. Paths are as
        written: give them to L{path}.
    :ivar data_dir: a directory of its own in C{state_dir}, for files that it wants to keep.
    :ivar base_dir: what relative paths are relative to: the configuration file's directory.
    :ivar clock: for every wait.
    """

    settings: dict[str, Any] = field(repr=False)
    data_dir: Path
    base_dir: Path
    clock: IReactorTime
    _records: Callable[[Path, Parse, str], IRecords]
    _threats: Callable[[], IThreats]
    _feeds: Callable[[], IFeeds] = field(default=_no_feeds)
    _feed: Callable[[str], IFeeds | None] = field(default=_no_feed)
    _described: Callable[[Path, str, str], IRecords] = field(default=_no_catalogue)
    _contents: Callable[[], IContents] = field(default=_no_contents)

    def path(self, value: str | Path) -> Path:
        """A path from the settings: a relative one is relative to the configuration's file."""
        return self.base_dir / value

    def records(self, path: Path, parse: Parse, *, keep: str = "records") -> IRecords:
        """
        Index a file of indicators and keep the index current: rebuilt in a child process when
        the file has changed, swapped in atomically, kept in C{data_dir} for the next start.

        :param keep: the index's file name, when a searcher has several.
        """
        return self._records(path, parse, keep)

    def described(self, path: Path, feed: str, *, keep: str = "records") -> IRecords:
        """
        As L{records}, of a file that looks as the catalogue describes a feed.

        :param feed: its name in the catalogue.
        """
        return self._described(path, feed, keep)

    def feed(self, name: str) -> IFeeds | None:
        """
        One feed alone, for this searcher: where it is asked, the searcher C{feeds} leaves that
        feed to it.

        :return: None when there is no such feed, or it is off.
        """
        return self._feed(name)

    def threats(self) -> IThreats:
        """The local database's index."""
        return self._threats()

    def contents(self) -> IContents:
        """What looks into texts, messages and files, under the limits of the configuration."""
        return self._contents()

    def feeds(self) -> IFeeds:
        """
        The feeds that are on.

        :raises NotConfigured: none is.
        """
        return self._feeds()
