"""What every searcher inherits, and what is known of one whatever its author has done."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from twisted.logger import Logger

from ctsd.model import Artifact, Threat
from ctsd.properties import as_artifact, as_property
from ctsd.search_context import current_search
from ctsd.searcher_setup import SearcherSetup


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
        :param kwargs: C{context}, the L{ctsd.search_context.SearchContext}; more may come.
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
