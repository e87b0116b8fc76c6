"""What a running search knows of itself."""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from ctsd.model import JSON, File, Threat
from ctsd.searcher_setup import SearcherSetup


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
