"""
A searcher that is on, what it is asked in one scan, and what it answers.
"""

from __future__ import annotations

import io
from functools import cached_property
from inspect import iscoroutinefunction

from attrs import field, frozen
from twisted.logger import Logger

from ctsd.model import JSON, File, Outcome
from ctsd.records import Finds
from ctsd.scanning.slots import Slots
from ctsd.searcher import BaseArtifactSearch, hook, owner_of
from ctsd.searcher_setup import SearcherSetup


@frozen
class Question:
    """
    One thing that a searcher is asked in a scan.

    :ivar how: empty for the artifact itself; else how it derives from it (C{MD5 of the file}).
    :ivar source: its digest; empty for passwords.
    """

    type: str
    value: JSON = field(repr=False)
    file: File | None = field(default=None, repr=False)
    how: str = ""
    source: bytes = field(default=b"", repr=False)


@frozen(kw_only=True)
class Ask:
    """
    What one searcher is asked in one scan.

    :ivar asked: the names of all searchers that are asked in this scan.
    """

    scan_id: str
    questions: tuple[Question, ...] = field(repr=False)
    asked: frozenset[str]


@frozen
class Answered:
    """
    What a search came to.

    :ivar finds: for the local database.
    :ivar died: the child process that ran it alone has died.
    """

    outcome: Outcome
    finds: tuple[Finds, ...] = ()
    died: bool = False


@frozen(kw_only=True, eq=False, slots=False)
class Source:
    """
    A searcher that is on, with what the configuration says of it.

    :ivar asynchronous: listed as C{async}: holds a first answer only for C{first_answer_secs}.
    :ivar required: whether a scan waits for it until its deadline.
    :ivar timeout_secs: one search of it, one try.
    :ivar scope: the service that keeps what it finds to itself; empty when everybody may see it.
    """

    _log = Logger()

    searcher: BaseArtifactSearch
    setup: SearcherSetup
    name: str
    asynchronous: bool = False
    required: bool = True
    timeout_secs: float = 30.0
    slots: Slots = field(factory=lambda: Slots(limit=4))
    scope: str = ""
    _wanted: dict[str, bool] = field(factory=dict, init=False, repr=False)

    @property
    def owner(self) -> str:
        """What the local database calls whoever found something: L{owner_of}."""
        return owner_of(self.name, self.scope)

    @cached_property
    def waits(self) -> bool:
        """Whether its search is a coroutine."""
        return iscoroutinefunction(self.searcher.search)

    @cached_property
    def local(self) -> bool:
        """Answers at once, from memory."""
        return self.searcher.local and self.waits

    @cached_property
    def looks_first(self) -> bool:
        """Whether it may know without being asked that it finds nothing."""
        ours = BaseArtifactSearch.finds_nothing
        return type(self.searcher).finds_nothing is not ours

    def supports(self, type: str) -> bool:
        """
        Whether it wants artifacts of this type. It is asked once; one that can't say is not
        asked for them, loudly.
        """
        wanted = self._wanted.get(type)
        if wanted is None:
            wanted = self._wanted[type] = self._supports(type)
        return wanted

    def _supports(self, type: str) -> bool:
        try:
            return bool(self.searcher.supports(type))
        except BaseException:
            self._log.failure(
                "Searcher {searcher} is not asked about {type}: its supports() is broken",
                searcher=self.name,
                type=type,
            )
            return False

    def trouble(self) -> str:
        """Empty when all is well; else what is wrong."""
        return str(hook(self.searcher, "trouble"))

    def describe(self) -> str:
        """What operators see beside its name."""
        return str(hook(self.searcher, "describe"))

    def loading(self) -> bool:
        """Whether it can't answer yet only because something is still loading."""
        return bool(hook(self.searcher, "loading"))

    def failed(self) -> bool:
        """Whether it can't answer, and waiting does not help."""
        return bool(hook(self.searcher, "failed"))


class SearchFile(io.BufferedReader):
    """An uploaded file as a searcher gets it: open for reading, with what is known about it."""

    def __init__(self, file: File) -> None:
        super().__init__(io.FileIO(str(file.path), "rb"))
        self._file = file

    @property
    def name(self) -> str:
        """What the client called it."""
        return self._file.name

    @property
    def path(self) -> str:
        """Where it is, for tools that want a path. It must not be changed."""
        return str(self._file.path)

    @property
    def size(self) -> int:
        """Bytes."""
        return self._file.size

    @property
    def content_type(self) -> str:
        """What the client says it is."""
        return self._file.content_type

    @property
    def md5(self) -> str:
        """Lower-case hex."""
        return self._file.md5

    @property
    def sha1(self) -> str:
        """Lower-case hex."""
        return self._file.sha1

    @property
    def sha256(self) -> str:
        """Lower-case hex."""
        return self._file.sha256
