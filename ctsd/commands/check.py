"""C{ctsd check} and C{ctsd searchers}: what the daemon would start with, without starting it."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from ctsd.catalogue import Started
from ctsd.commands.feeds_try import broken_own_lists
from ctsd.commands.kept_indexes import start_beside
from ctsd.commands.world import Commands, World, become_owner, shown, table
from ctsd.config.listeners import Listener
from ctsd.config.settings import Settings
from ctsd.config.state_dir import others_write, why_unusable
from ctsd.discovery import discover
from ctsd.passwords import BadPasswords, read
from ctsd.scanning.failing import DIRECTORY, read_failing
from ctsd.searcher import hook
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


def _check(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    catalogue = discover(settings)
    now = world.now()
    warnings = [line for one in settings.listen for line in _listener_warnings(one, now)]
    become_owner(settings.state_dir)
    started = start_beside(catalogue, settings)
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
    started = start_beside(catalogue, settings)
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
