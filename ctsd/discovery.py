"""
Which searchers exist, which of them are on, and why the others are off.

A searcher is a class that inherits L{ctsd.searching.BaseArtifactSearch} and is defined, without a
leading underscore, in a module of the package C{searchers} or in a file of a directory in
C{searchers.path}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from attrs import evolve
from twisted.logger import Logger

import searchers
from ctsd.catalogue import Catalogue, Found, Started
from ctsd.config.checks import NAME, kind, unknown
from ctsd.config.document import KeyPath
from ctsd.config.searchers import SearcherSettings
from ctsd.config.settings import Settings
from ctsd.errors import ConfigError, NotConfigured
from ctsd.feed_searchers import FeedsArtifactSearch, FeedsTextArtifactSearch
from ctsd.importing import flaw_in, message_of, modules, named, searchers_in
from ctsd.internal import InternalArtifactSearch, InternalTextArtifactSearch
from ctsd.model import ROOT_SERVICE
from ctsd.searcher import BaseArtifactSearch, name_of
from ctsd.searcher_setup import SearcherSetup

_NOT_LISTED = "not listed under searchers.sync or .async"

#: The searchers that are ctsd's own.
BUILT_IN: tuple[type[BaseArtifactSearch], ...] = (
    InternalArtifactSearch,
    InternalTextArtifactSearch,
    FeedsArtifactSearch,
    FeedsTextArtifactSearch,
)

#: What is on without being listed as soon as the configuration has a feed, and how.
_WITH_FEEDS = {"feeds": "sync", "feeds_text": "async"}

#: What is on without being listed where the local database is: it is a part of that, so it is
#: asked in the same services.
_WITH_INTERNAL = {"internal_text": "async"}

#: Who looks for what stands within texts, beside who looks up the artifacts themselves.
_TEXTS = {"internal": "internal_text", "feeds": "feeds_text"}

# Keys of [searchers] that are no searcher's name.
_RESERVED = frozenset({"sync", "async", "path"})


def discover(
    settings: Settings,
    *,
    package: ModuleType = searchers,
    built_in: Iterable[type[BaseArtifactSearch]] = BUILT_IN,
) -> Catalogue:
    """
    Import all searchers and match them with the configuration. Starts nothing.

    :raises ConfigError: a directory is not to be trusted, two searchers have one name, or the
        configuration speaks of a searcher, or of a searcher's key, that there is not.
    """
    known: dict[str, Found] = {}
    broken: list[Found] = []
    for cls in built_in:
        _add(known, Found(name=name_of(cls), cls=cls))
    for origin, module in modules(settings, package):
        if isinstance(module, str):
            broken.append(Found(name=Path(origin).stem, origin=origin, why_off=module, broken=True))
            continue
        for cls in searchers_in(module):
            _add(known, Found(name=name_of(cls), cls=cls, origin=origin))
    for one in broken:
        # What it would have been called can't be known; its file's name is the best guess.
        known.setdefault(one.name, one)
    _check_names(settings, known)
    listed = _listed(settings, known)
    # Nobody needs to be told that what only feeds want is off while there is none.
    others = known.keys() - listed - _WITH_FEEDS.keys() - _WITH_INTERNAL.keys()
    ordered = [*listed, *sorted(others)]
    found = [_configured(known[name], listed.get(name), settings) for name in ordered]
    found.sort(key=lambda one: not one.on)
    on = [one.name for one in found if one.on]
    services = {ROOT_SERVICE: tuple(on)}
    for name, service in settings.services.items():
        services[name] = tuple(one for one in _with_texts(service.searchers) if one in on)
    return Catalogue(found=tuple(found), services=services)


def start_all(catalogue: Catalogue, setup_for: Callable[[Found], SearcherSetup]) -> Started:
    """
    Make and start every searcher that is on.

    One that can't start is off, with its reason; the others start all the same.

    :param setup_for: makes what a searcher's C{start} is given.
    """
    running: list[tuple[Found, BaseArtifactSearch, SearcherSetup]] = []
    off: list[Found] = []
    for found in catalogue.on:
        assert found.cls is not None
        try:
            setup = setup_for(found)
            searcher = found.cls()
            searcher.start(setup)
        except NotConfigured as error:
            off.append(found.off(message_of(error) or "not configured"))
        except BaseException as error:
            # An author's code: whatever it raises is no reason for us to end.
            Logger(__name__).failure("searcher {name} does not start", name=found.name)
            off.append(found.off(f"does not start: {named(error)}", broken=True))
        else:
            running.append((found, searcher, setup))
    started = {found.name for found, _, _ in running}
    services = {
        service: tuple(name for name in names if name in started)
        for service, names in catalogue.services.items()
    }
    return Started(running=tuple(running), off=(*off, *catalogue.off), services=services)


def _listed(settings: Settings, known: dict[str, Found]) -> dict[str, str]:
    """The searchers that the configuration wants, sync ones first, and as what."""
    named = {
        **dict.fromkeys(settings.searchers.sync, "sync"),
        **dict.fromkeys(settings.searchers.async_, "async"),
    }
    more = _WITH_INTERNAL if "internal" in named else {}
    if settings.feeds:
        more = {**more, **_WITH_FEEDS}
    named |= {name: mode for name, mode in more.items() if name in known and name not in named}
    return dict(sorted(named.items(), key=lambda each: each[1] != "sync"))


def _with_texts(names: Iterable[str]) -> Iterator[str]:
    """A service's searchers, with what is asked along with one of them behind it."""
    named = tuple(names)
    for name in named:
        yield name
        if name in _TEXTS and _TEXTS[name] not in named:
            yield _TEXTS[name]


def _add(known: dict[str, Found], one: Found) -> None:
    where = one.origin or "ctsd"
    if one.name in _RESERVED or not NAME.fullmatch(one.name):
        raise ConfigError(where, "", f"a searcher can't be called {one.name!r}")
    if one.name in known:
        other = known[one.name].origin or "ctsd itself"
        raise ConfigError(where, "", f"a searcher called {one.name} is in {other}, too")
    known[one.name] = one


def _check_names(settings: Settings, known: dict[str, Found]) -> None:
    """Everything that the configuration calls a searcher has to be one."""
    lists = (("sync", settings.searchers.sync), ("async", settings.searchers.async_))
    listed = _listed(settings, known)
    spoken_of: list[tuple[KeyPath, str]] = [
        (("searchers", key, position), name)
        for key, names in lists
        for position, name in enumerate(names)
    ]
    spoken_of += [(("searchers", name), name) for name in settings.searchers.tables]
    for service, ours in settings.services.items():
        for position, name in enumerate(ours.searchers):
            at: KeyPath = ("services", service, "searchers", position)
            spoken_of.append((at, name))
            if name in known and name not in listed:
                raise settings.document.error(at, f"{name} is {_NOT_LISTED}")
    for at, name in spoken_of:
        if name not in known:
            message = unknown(name, known, f"searcher as {name}")
            raise settings.document.error(at, f"{message}; known: {', '.join(sorted(known))}")


def _configured(found: Found, mode: str | None, settings: Settings) -> Found:
    table = settings.searchers.tables.get(found.name, SearcherSettings())
    slots = table.slots or found.slots
    timeout_secs = table.timeout_secs or settings.search_timeout_secs
    cls = found.cls
    if cls is not None:
        flaw = flaw_in(cls)
        if flaw:
            found = found.off(flaw, broken=True)
        else:
            slots = table.slots or cls.slots
            _check_keys(found.name, cls, table.own, settings)
    why_off = found.why_off or ("" if mode else _NOT_LISTED)
    return evolve(
        found,
        mode=mode,
        why_off=why_off,
        required=table.required,
        timeout_secs=timeout_secs,
        slots=slots,
        settings=dict(table.own),
    )


_KINDS = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "an array",
    dict: "a table",
}


def _check_keys(
    name: str, cls: type[BaseArtifactSearch], own: dict[str, Any], settings: Settings
) -> None:
    for key, value in own.items():
        at = ("searchers", name, key)
        if key not in cls.keys:
            raise settings.document.error(
                at, unknown(key, (*cls.keys, "required", "timeout_secs", "slots"))
            )
        wanted = cls.keys[key]
        types = wanted if isinstance(wanted, tuple) else (wanted,)
        given = str if isinstance(value, str) else type(value)
        fits = given in types or (given is int and float in types)
        if not fits:
            expected = " or ".join(_KINDS.get(one, one.__name__) for one in types)
            raise settings.document.error(at, f"expected {expected}, not {_shown(value)}")


def _shown(value: object) -> str:
    # A number may have been a secret's, too: only its kind is told.
    return "a number" if type(value) in (int, float) else kind(value)
