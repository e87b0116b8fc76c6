"""All searchers, on and off, and those that have started."""

from __future__ import annotations

from typing import Any

from attrs import evolve, field, frozen

from ctsd.searcher import BaseArtifactSearch
from ctsd.searcher_setup import SearcherSetup


@frozen(kw_only=True)
class Found:
    """
    One searcher, on or off.

    :ivar cls: None when its module does not import.
    :ivar origin: the file that it is in.
    :ivar mode: C{sync}, C{async}, or None when it is not listed.
    :ivar why_off: empty when it is on.
    :ivar broken: it is off because something is wrong with it, not because nobody wants it.
    :ivar settings: the searcher's own keys, secrets resolved.
    """

    name: str
    cls: type[BaseArtifactSearch] | None = None
    origin: str = ""
    mode: str | None = None
    why_off: str = ""
    broken: bool = False
    required: bool = True
    timeout_secs: float = 30.0
    slots: int = 4
    settings: dict[str, Any] = field(factory=dict, repr=False)

    @property
    def on(self) -> bool:
        """Whether it is asked."""
        return not self.why_off

    def off(self, why: str, *, broken: bool = False) -> Found:
        """The same searcher, off."""
        return evolve(self, why_off=why, broken=broken)


@frozen(kw_only=True)
class Catalogue:
    """
    All searchers: those that are on, sync before async, in the order of the configuration; then
    the others by name.

    :ivar services: the names of each service's searchers that are on, in its own order; the root
        service has all.
    """

    found: tuple[Found, ...]
    services: dict[str, tuple[str, ...]]

    @property
    def on(self) -> tuple[Found, ...]:
        """Those that are asked."""
        return tuple(one for one in self.found if one.on)

    @property
    def off(self) -> tuple[Found, ...]:
        """Those that are not."""
        return tuple(one for one in self.found if not one.on)


@frozen(kw_only=True)
class Started:
    """
    What came of starting searchers.

    :ivar running: those that are on and have started, with what they were given.
    :ivar off: all others.
    :ivar services: as L{Catalogue.services}, with those alone that have started.
    """

    running: tuple[tuple[Found, BaseArtifactSearch, SearcherSetup], ...]
    off: tuple[Found, ...]
    services: dict[str, tuple[str, ...]]
