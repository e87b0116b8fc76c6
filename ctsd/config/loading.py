"""C{ctsd.toml} becomes one frozen L{Settings}, or an error that names file, line and key."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from ctsd.config import checks
from ctsd.config.checks import Surroundings
from ctsd.config.document import Document, read_document
from ctsd.config.listeners import SHARED_KINDS
from ctsd.config.matching import Matching
from ctsd.config.outbound import OutboundSettings
from ctsd.config.searchers import Searchers, SearcherSettings, ServiceSettings
from ctsd.config.settings import (
    Http,
    Settings,
    Store,
    Upload,
)
from ctsd.config.store_url import secret
from ctsd.config.tables import checked as _checked
from ctsd.config.tables import keys_of
from ctsd.config.tables import read_table as _read
from ctsd.errors import ConfigError

#: The file that is read from the working directory when nobody names another.
FILE_NAME = "ctsd.toml"

#: What stands for a file's name where there is none.
_NO_FILE = "(built-in defaults)"

#: The keys of C{[feeds.<name>]} that are secrets.
FEED_SECRETS = frozenset({"key", "password"})

#: First parts of paths below the root that are no services.
RESERVED_SERVICES = frozenset({"health", "metrics", "api", "console", "static"})


def _tables(given: object, doc: Document, at: str) -> dict[str, Any]:
    """The tables C{[<at>.<name>]}, their names checked."""
    if not isinstance(given, dict):
        raise doc.error((at,), f"expected tables [{at}.<name>], not {checks.kind(given)}")
    around = Surroundings(base_dir=doc.base_dir, environ={})
    for name in given:
        _checked(checks.name, name, doc, (at, name), around)
    return given


def _read_searchers(given: object, doc: Document, around: Surroundings) -> Searchers:
    if not isinstance(given, dict):
        raise doc.error(("searchers",), f"expected a table, not {checks.kind(given)}")
    lists = keys_of(Searchers)
    rest = {key: value for key, value in given.items() if key not in lists}
    for key, value in rest.items():
        if not isinstance(value, dict):
            raise doc.error(("searchers", key), checks.unknown(key, lists))
    ours = keys_of(SearcherSettings)
    tables: dict[str, SearcherSettings] = {}
    for name, table in _tables(rest, doc, "searchers").items():
        at = ("searchers", name)
        own = {
            key: _checked(checks.with_secrets, value, doc, (*at, key), around)
            for key, value in table.items()
            if key not in ours
        }
        ruled = {key: value for key, value in table.items() if key in ours}
        tables[name] = _read(SearcherSettings, ruled, doc, at, around, own=own)
    chosen = {key: value for key, value in given.items() if key in lists}
    searchers = _read(Searchers, chosen, doc, ("searchers",), around, tables=tables)
    both = set(searchers.sync) & set(searchers.async_)
    if both:
        raise doc.error(("searchers", "async"), f"{min(both)} is in searchers.sync, too")
    return searchers


def _read_services(
    given: object, doc: Document, around: Surroundings
) -> dict[str, ServiceSettings]:
    services: dict[str, ServiceSettings] = {}
    for name, table in _tables(given, doc, "services").items():
        at = ("services", name)
        is_id = len(name) == 32 and not set(name) - set("0123456789abcdef")
        if name in RESERVED_SERVICES or is_id:
            raise doc.error(at, "expected another name: /" + name + " is taken")
        services[name] = _read(ServiceSettings, table, doc, at, around)
    return services


def _read_feeds(given: object, doc: Document, around: Surroundings) -> dict[str, dict[str, Any]]:
    """What is right in them is for L{ctsd.feeds.descriptions} to say; here, secrets are read."""
    feeds: dict[str, dict[str, Any]] = {}
    for name, table in _tables(given, doc, "feeds").items():
        if not isinstance(table, dict):
            raise doc.error(("feeds", name), f"expected a table, not {checks.kind(table)}")
        feeds[name] = {
            key: _checked(secret, value, doc, ("feeds", name, key), around)
            if key in FEED_SECRETS
            else value
            for key, value in table.items()
        }
    return feeds


def load(
    path: Path | None = None,
    *,
    environ: Mapping[str, str],
    cwd: Path | None = None,
) -> Settings:
    """
    Read the configuration, without starting or making anything.

    :param path: the file; without it C{CTSD_CONFIG}, else C{ctsd.toml} in the working directory,
        else the built-in defaults. These serve, too, when others may write to the one in the
        working directory: then L{Document.passed_over} says so.
    :param cwd: the working directory.
    :raises ConfigError: the first thing that is wrong.
    """
    return settings_of(_find(path, environ, (cwd or Path.cwd()).absolute()), environ=environ)


def settings_of(doc: Document, *, environ: Mapping[str, str]) -> Settings:
    """
    What a document says; see L{load}.

    :raises ConfigError: the first thing that is wrong.
    """
    around = Surroundings(base_dir=doc.base_dir, environ=environ)
    data = dict(doc.data)
    tables = {
        "store": _read(Store, data.pop("store", {}), doc, ("store",), around),
        "upload": _read(Upload, data.pop("upload", {}), doc, ("upload",), around),
        "http": _read(Http, data.pop("http", {}), doc, ("http",), around),
        "outbound": _read(OutboundSettings, data.pop("outbound", {}), doc, ("outbound",), around),
        "matching": _read(Matching, data.pop("matching", {}), doc, ("matching",), around),
        "searchers": _read_searchers(data.pop("searchers", {}), doc, around),
        "services": _read_services(data.pop("services", {}), doc, around),
        "feeds": _read_feeds(data.pop("feeds", {}), doc, around),
    }
    for key in data:
        if key not in keys_of(Settings):
            known = [*keys_of(Settings), *tables]
            raise doc.error((key,), checks.unknown(key, known))
    given_by_systemd = environ.get("STATE_DIRECTORY", "").split(":")[0]
    data.setdefault("state_dir", given_by_systemd or "var")
    data.setdefault("listen", ["tcp:8000:interface=127.0.0.1"])
    settings = _read(Settings, data, doc, (), around, document=doc, **tables)
    _check_users(settings)
    _check_shared(settings)
    return attrs.evolve(settings, secret_variables=frozenset(around.secret_variables))


def _check_users(settings: Settings) -> None:
    """A service for some users alone is not to be had where nobody asks who comes."""
    for name in settings.users:
        for one in settings.listen:
            if not (one.auth or one.local):
                raise settings.document.error(
                    ("services", name, "users"),
                    f"expected auth: before {one.description}, which others reach",
                )


def _check_shared(settings: Settings) -> None:
    """Workers share what listens, which not every kind of listener can do."""
    if settings.workers == 1:
        return
    for position, one in enumerate(settings.listen):
        if one.kind not in SHARED_KINDS:
            kinds = ", ".join(f"{kind}:" for kind in SHARED_KINDS)
            raise settings.document.error(
                ("listen", position), f"expected one of {kinds} with workers above 1"
            )


def _find(path: Path | None, environ: Mapping[str, str], cwd: Path) -> Document:
    if path is not None:
        return read_document(cwd / path)
    if environ.get("CTSD_CONFIG"):
        return read_document(cwd / environ["CTSD_CONFIG"])
    here = cwd / FILE_NAME
    if not os.path.lexists(here):
        return Document(name=_NO_FILE, base_dir=cwd, is_file=False)
    for checked in (cwd, here.resolve().parent, here):
        why = untrusted(checked)
        if why:
            return Document(
                name=_NO_FILE,
                base_dir=cwd,
                is_file=False,
                passed_over=ConfigError(
                    str(here), "", f"is passed over: {why}; name it with --config if it is yours"
                ),
            )
    return read_document(here)


def untrusted(path: Path) -> str:
    """
    Empty when a file or directory, and what a link leads to, belongs to root or to us and nobody
    else may write there; else why it is not to be trusted.
    """
    for follow in (False, True):
        try:
            found = path.stat(follow_symlinks=follow)
        except OSError as error:
            return f"{path}: {error.strerror}"
        if found.st_uid not in (0, os.geteuid()):
            return f"{path} belongs to another user"
        if not stat.S_ISLNK(found.st_mode) and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"others may write to {path} (chmod go-w)"
    return ""
