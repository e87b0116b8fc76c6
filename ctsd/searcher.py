"""
What every searcher inherits, and what a running search knows of itself.

Authors import all of this from L{ctsd.searching}.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ctsd.errors import NotConfigured
from ctsd.interfaces.feeds import IContents, IFeeds, IRecords, IThreats
from ctsd.interfaces.scanning import ISearcher
from ctsd.model import JSON, Artifact, EncodedHit, File, Hit, Suppressed, Threat
from ctsd.properties import as_artifact, as_property
from ctsd.records import Record


def _names(given: Iterable[str] | str) -> tuple[str, ...]:
    if isinstance(given, str):
        # As a sequence it would be told letter by letter.
        return (given,) if given else ()
    return tuple(given)


@frozen
class Found:
    """
    Hits, and how many there are beyond those.

    :ivar hits: at most as many as are worth showing (10); L{Hit}s, or what an index has made of
        them (L{ctsd.records.Indexed.hit}).
    :ivar more: how many further findings there are.
    :ivar at_least: whether C{more} is a lower bound.
    :ivar missing: the names of the sources that could not be asked, where the searcher stands for
        several; it is then asked again in C{after_secs}, and its hits so far are shown at once. A
        text is one name.
    :ivar suppressed: what was found and is no hit, as much of it as is kept with the scan;
        C{suppressed_more} counts the rest.
    """

    hits: tuple[Hit | EncodedHit, ...] = ()
    more: int = 0
    at_least: bool = False
    missing: tuple[str, ...] = field(default=(), converter=_names)
    after_secs: float = 60.0
    suppressed: tuple[Suppressed, ...] = ()
    suppressed_more: int = 0


#: What C{search} may give.
Answer = Iterable[Hit | Threat] | Found | None

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


@define(kw_only=True)
class SearchContext:
    """
    One running search.

    :ivar id: the scan's id.
    :ivar type: the artifact's type.
    :ivar value: its value, as C{search_term}.
    :ivar searcher: the searcher's name.
    :ivar scope: the service that keeps finds to itself; empty when everybody may see them.
    :ivar source: the artifact's digest; empty for passwords, whose finds are not stored.
    :ivar asked: the names of all searchers that are asked for this artifact in this scan.
    :ivar setup: see L{SearcherSetup}; its parts are here, too.
    :ivar file: what came along with an artifact of another type than C{file.content}: a message,
        a certificate.
    :ivar found: what C{store_threat_info} was told so far.
    """

    id: str
    type: str
    value: JSON = field(repr=False)
    searcher: str
    scope: str = ""
    source: bytes = field(default=b"", repr=False)
    asked: frozenset[str] = frozenset()
    setup: SearcherSetup
    file: File | None = field(default=None, repr=False)
    found: list[Threat] = field(factory=list, repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        """The searcher's settings."""
        return self.setup.settings

    @property
    def data_dir(self) -> Path:
        """The searcher's own directory."""
        return self.setup.data_dir

    @property
    def clock(self) -> IReactorTime:
        """For every wait."""
        return self.setup.clock


#: The search that runs in this context; the scanner sets it around every call.
current_search: ContextVar[SearchContext] = ContextVar("ctsd.current_search")


def owner_of(searcher: str, scope: str) -> str:
    """How the local database names a searcher (L{Threat.searcher}): C{[<scope>/]<searcher>}."""
    return f"{scope}/{searcher}" if scope else searcher


_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def name_of(cls: type) -> str:
    """A searcher's name: its C{name}, else its class name in snake case without its ending."""
    given = cls.__dict__.get("name")
    if isinstance(given, str) and given:
        return given
    snake = _WORD_START.sub("_", cls.__name__).lower()
    return snake.removesuffix("_artifact_search")


@implementer(ISearcher)
class BaseArtifactSearch:
    """
    The base of all searchers: say what you support, and search.

    C{async def search} runs in the reactor and must not block; a plain C{def search} may block, it
    runs in a thread. Either returns hits (L{Hit}, or L{Threat}, whose properties make one), or
    calls L{store_threat_info} for each finding, or both. What goes wrong is told with
    L{ctsd.errors.SearchLater} or L{ctsd.errors.SearchFailed}; anything else that is raised counts
    as failed and is logged with its traceback.

    :cvar name: the name in the configuration; by default the class name in snake case, without
        C{ArtifactSearch}.
    :cvar local: True for an C{async def search} that answers from memory, without awaiting.
    :cvar isolate: True to run every search in a child process (native code on foreign bytes).
    :cvar slots: how many searches may run at once; C{slots} in the configuration overrides it.
    :cvar keys: the keys of C{[searchers.<name>]} that it understands, with their types.
    """

    name: ClassVar[str] = ""
    local: ClassVar[bool] = False
    isolate: ClassVar[bool] = False
    slots: ClassVar[int] = 4
    keys: ClassVar[dict[str, type | tuple[type, ...]]] = {}

    def start(self, setup: SearcherSetup) -> None:
        """
        Get ready, once, before the first search. Must not block.

        :raises NotConfigured: this searcher is off, and why (a key that is missing).
        """

    def stop(self) -> None:
        """Let go of what C{start} took."""

    def trouble(self) -> str:
        """Empty when all is well; else what is wrong, for operators."""
        return ""

    def loading(self) -> bool:
        """Whether it can't answer yet only because something is still loading."""
        return False

    def failed(self) -> bool:
        """Whether it can't answer, and waiting does not help: the daemon is not healthy."""
        return False

    def describe(self) -> str:
        """What operators see beside its name, e.g. how many records it has."""
        return ""

    @classmethod
    def supports(cls, artifact_type: str) -> bool:
        """Whether this searcher wants artifacts of that type."""
        raise NotImplementedError(f"{cls.__name__} does not say what it supports")

    def finds_nothing(self, artifact_type: str, search_term: Any) -> bool:
        """
        Whether it is certain that L{search} would find nothing. The searcher is not asked then,
        which costs more than such a look. Must not block; false when in doubt.

        :param search_term: as in L{search}; when a file came along, what is known of that, as a
            L{ctsd.model.File}.
        """
        return False

    def search(self, artifact_type: str, search_term: Any, **kwargs: Any) -> Any:
        """
        Look an artifact up.

        :param artifact_type: e.g. C{net.ip}.
        :param search_term: its value in the shape of its type; for C{file.content} an open,
            read-only binary file with C{.name}, C{.size}, C{.content_type}, C{.md5}, C{.sha1},
            C{.sha256}.
        :param kwargs: C{context}, the L{SearchContext}; more may come.
        """
        raise NotImplementedError(f"{type(self).__name__} does not search")

    @classmethod
    def store_threat_info(
        cls,
        name: str,
        source_artifact: Any,
        properties_list: Iterable[Any],
        artifacts_list: Iterable[Any] | None = None,
    ) -> Threat:
        """
        Note a finding: it becomes a hit of this search, and an entry of the local database when
        the search has ended well. Touches no store, so it can be called from coroutines and
        threads alike.

        :param source_artifact: what was searched: an L{Artifact}, the C{context}, or anything
            with C{type} and C{value}; None for the artifact that is being searched.
        :param properties_list: L{Property} values, C{(type, name, value)} or dicts of these; one
            with a missing field is dropped.
        :param artifacts_list: related artifacts (a file's hashes) that shall find it, too.
        :raises RuntimeError: called outside of a search.
        :raises ValueError: the threat has no name.
        """
        if name is None or name == "":
            raise ValueError("a threat needs a name")
        try:
            search = current_search.get()
        except LookupError:
            raise RuntimeError("store_threat_info is for use during a search") from None
        source = Artifact(search.type, search.value)
        if source_artifact is not None:
            source = as_artifact(source_artifact) or source
        threat = Threat(
            name=str(name),
            artifacts=(source, *filter(None, map(as_artifact, artifacts_list or ()))),
            properties=tuple(filter(None, map(as_property, properties_list))),
            searcher=search.searcher,
            source=search.source,
        )
        search.found.append(threat)
        return threat


#: What a hook that is broken stands for; see L{hook}.
_BROKEN_HOOKS: dict[str, Callable[[BaseException], Any]] = {
    "trouble": lambda error: f"broken: {type(error).__name__}",
    "describe": lambda error: "",
    "loading": lambda error: False,
    "failed": lambda error: True,
}


def hook(searcher: BaseArtifactSearch, name: str) -> Any:
    """
    What a searcher says of itself, whatever its author has done.

    :param name: C{trouble} and C{describe} give a string, C{loading} and C{failed} a bool.
    """
    try:
        said = getattr(searcher, name)()
        if name in ("trouble", "describe"):
            return str(said or "")
        return bool(said)
    except BaseException as error:
        Logger(__name__).failure("{name}() of a searcher is broken", name=name)
        return _BROKEN_HOOKS[name](error)


__all__ = [
    "Answer",
    "Awaitable",
    "BaseArtifactSearch",
    "Found",
    "NotConfigured",
    "Parse",
    "SearchContext",
    "SearcherSetup",
    "current_search",
    "hook",
    "name_of",
    "owner_of",
]
