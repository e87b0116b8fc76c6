"""C{ctsd check} and C{ctsd searchers}: what the daemon would start with, without starting it."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import field, frozen
from cryptography import x509
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from zope.interface import implementer

from ctsd._cli import Commands, World, become_owner, shown, table
from ctsd._state_dir import others_write, why_unusable
from ctsd.cli_feeds_try import broken_own_lists
from ctsd.config import Listener, Settings
from ctsd.discovery import Catalogue, Found, Started, discover, start_all
from ctsd.errors import NotConfigured, SearchLater
from ctsd.feeds.array_file import BadIndex
from ctsd.feeds.file import described as told_of
from ctsd.feeds.index import Index
from ctsd.feeds.job import label_of, reference, source_of
from ctsd.feeds.looking import Contents
from ctsd.feeds.on_disk import FeedsOnDisk
from ctsd.feeds.reading import Reading
from ctsd.feeds.told import read_told
from ctsd.interfaces.feeds import IFeeds, IRecords, IThreats
from ctsd.model import JSON
from ctsd.passwords import BadPasswords, read
from ctsd.records import Derived, Indexed, LookupLimits, Matches
from ctsd.scanning.failing import DIRECTORY, read_failing
from ctsd.searcher import hook
from ctsd.searcher_setup import Parse, SearcherSetup
from ctsd.sources import feeds_on
from ctsd.states import Failing
from ctsd.store.places import is_network_filesystem

_CERTIFICATE_WARNING_SECS = 30 * 86400


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add C{check} and C{searchers}."""
    check = commands.add_parser(
        "check", parents=[common], help="say what is wrong with the configuration"
    )
    check.set_defaults(run=_check)
    searchers = commands.add_parser(
        "searchers", parents=[common], help="say which searchers are on, and why others are off"
    )
    searchers.set_defaults(run=_searchers)


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


def _started(catalogue: Catalogue, settings: Settings) -> Started:
    """
    Searchers as they start, but for what the daemon alone keeps current.

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
            return FeedsOnDisk(descriptions=on, directory=settings.feeds_dir, now=time.time)

        def feed(name: str) -> IFeeds | None:
            alone = [one for one in on if one.name == name and not one.is_warninglist]
            if not alone:
                return None
            return FeedsOnDisk(descriptions=alone, directory=settings.feeds_dir, now=time.time)

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


def _check(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    catalogue = discover(settings)
    now = world.now()
    warnings = [line for one in settings.listen for line in _listener_warnings(one, now)]
    become_owner(settings.state_dir)
    started = _started(catalogue, settings)
    warnings += _searcher_warnings(started, read_failing(settings.state_dir / DIRECTORY))
    errors = 0
    warnings += _password_warnings(settings)
    warnings += _user_warnings(settings)
    warnings += [line for one in feeds_on(settings) for line in broken_own_lists(settings, one)]
    for wrong in _state_dir_errors(settings.state_dir):
        world.complain(f"error: {settings.document.error(('state_dir',), wrong)}")
        errors += 1
    warnings += filter(None, [others_write(settings.state_dir)])
    for one in started.off:
        if one.broken and one.mode:
            world.complain(f"error: searcher {one.name} is off: {one.why_off}")
            errors += 1
    for line in warnings:
        world.complain(f"warning: {line}")
    world.say(
        f"{settings.document.name}: {_counted(errors, 'error')}, "
        f"{_counted(len(warnings), 'warning')}; on: "
        + (", ".join(found.name for found, _, _ in started.running) or "no searcher")
    )
    return 1 if errors else 0


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _state_dir_errors(directory: Path) -> Iterator[str]:
    """Why the state can't be kept there; to be looked at as the daemon's user."""
    why = why_unusable(directory)
    if why:
        yield why
    if is_network_filesystem(directory):
        yield f"{directory} is on a network file system, where locks do not work"


def _searcher_warnings(started: Started, failing: Mapping[str, Failing]) -> Iterator[str]:
    for one in started.off:
        if not (one.broken and one.mode):
            yield f"searcher {one.name} is off: {one.why_off}"
    for found, searcher, _ in started.running:
        trouble = hook(searcher, "trouble")
        if trouble:
            yield f"searcher {found.name}: {trouble}"
        if found.name in failing:
            yield f"searcher {found.name}: {failing[found.name]}"


def _listener_warnings(listener: Listener, now: float) -> Iterator[str]:
    missing = [
        what for what, there in (("TLS", listener.tls), ("auth", listener.auth)) if not there
    ]
    if missing and not listener.local:
        yield f"{listener.description} is open to other machines without {' and '.join(missing)}"
    for path in listener.certificates:
        certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
        ends = certificate.not_valid_after_utc
        left_secs = ends.timestamp() - now
        if left_secs <= 0:
            yield f"the certificate {path} has ended on {ends:%Y-%m-%d}"
        elif left_secs < _CERTIFICATE_WARNING_SECS:
            yield f"the certificate {path} ends on {ends:%Y-%m-%d}"
        elif certificate.not_valid_before_utc > datetime.fromtimestamp(now, UTC):
            yield f"the certificate {path} is not valid yet"


def _password_warnings(settings: Settings) -> Iterator[str]:
    """
    What is wrong with password files; to be looked at as the daemon's user. The daemon starts
    without them, and takes them when they are there.
    """
    for position, listener in enumerate(settings.listen):
        for path in listener.passwords:
            try:
                read(path)
                continue
            except OSError as error:
                wrong = f"{error.strerror}"
            except BadPasswords as error:
                wrong = str(error)
            told = f"the password file {path}: {wrong}; without a good one everything is 503"
            yield str(settings.document.error(("listen", position), told))


def _user_warnings(settings: Settings) -> Iterator[str]:
    """Services that are for some users alone, and are not."""
    known: set[str] = set()
    files = {path for one in settings.listen for path in one.passwords}
    for path in files:
        with contextlib.suppress(OSError, BadPasswords):
            known |= read(path).users
    for name, users in settings.users.items():
        for one in settings.listen:
            if not one.auth:
                yield f"everybody who reaches {one.description} may ask service {name}"
        for user in sorted(users - known) if files else ():
            yield f"no password file has {user}, a user of service {name}"


def _searchers(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    catalogue = discover(settings)
    become_owner(settings.state_dir)
    started = _started(catalogue, settings)
    failing = read_failing(settings.state_dir / DIRECTORY)
    rows = [("NAME", "MODE", "STATE", "ABOUT")]
    for found, searcher, _ in started.running:
        about = hook(searcher, "describe")
        trouble = hook(searcher, "trouble")
        state = "on" if not trouble else "trouble"
        fails = ""
        if found.name in failing:
            # As the daemon has said that runs now, if one does.
            state, fails = "failing", str(failing[found.name])
        rows.append(
            (found.name, found.mode or "", state, "; ".join(filter(None, (fails, trouble, about))))
        )
    for one in started.off:
        rows.append((one.name, one.mode or "-", "off", one.why_off))
    for line in table(rows):
        world.say(shown(line))
    return 0
