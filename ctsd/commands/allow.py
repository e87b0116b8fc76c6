"""C{ctsd allow}: what is no finding whatever feeds say, beside the running daemon."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final, cast

from attrs import evolve

from ctsd.commands.threat_files import expiry
from ctsd.commands.world import Commands, World, become_owner, table
from ctsd.config.settings import Settings
from ctsd.errors import CTSDError
from ctsd.feeds.allowed import Allowed, AllowList, current, of_value
from ctsd.interfaces.store import IShared

#: The longest reason, and name. All of the list is read whenever it has changed.
MAX_WORDS_CHARS: Final = 1000


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add C{allow} and what can follow it."""
    parser = commands.add_parser("allow", help="what is no finding whatever feeds say")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    value_help = (
        "a value, e.g. net.name=example.com (and all below it), net.cidr=192.0.2.0/24 (and all"
        " in it), net.uri=https://example.com/x"
    )

    add = verbs.add_parser("add", parents=[common], help="allow a value")
    add.add_argument("value", metavar="TYPE=VALUE", help=value_help)
    add.add_argument(
        "--until", metavar="D", help="a date (2031-01-31), or a duration (12h, 30d, 2w)"
    )
    add.add_argument("--why", default="", help="for those who wonder later")
    add.add_argument("--by", default="", help="who says so (default: who runs this command)")
    add.set_defaults(run=_add)

    list_ = verbs.add_parser("list", parents=[common], help="one line for each value")
    list_.set_defaults(run=_list)

    remove = verbs.add_parser("remove", parents=[common], help="allow a value no more")
    remove.add_argument("value", metavar="TYPE=VALUE", help="as it was added, or spelled otherwise")
    remove.set_defaults(run=_remove)


def _value(text: str) -> tuple[str, str]:
    type, equals, value = text.partition("=")
    if not equals:
        raise CTSDError("expected TYPE=VALUE, e.g. net.name=example.com")
    return type, value


def _with_list(
    settings: Settings,
    world: World,
    work: Callable[[AllowList, IShared], Coroutine[Any, Any, int]],
) -> int:
    """Open the database as its owner, work, close it."""

    async def whole(reactor: Any) -> int:
        become_owner(settings.state_dir)
        store, close = world.open_store(settings, reactor)
        shared = cast(IShared, store)
        try:
            allow_list = AllowList(
                store=shared,
                holder=f"ctsd allow {os.getpid()}",
                max_allowed=settings.matching.max_allowed,
            )
            return await work(allow_list, shared)
        except ValueError as error:
            raise CTSDError(str(error)) from None
        finally:
            await close()

    return world.in_reactor(whole)


def _add(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    try:
        until = expiry(arguments.until, now=world.now()) if arguments.until else None
    except ValueError as error:
        raise CTSDError(f"--until: {error}") from None
    try:
        value = of_value(*_value(arguments.value))
    except ValueError as error:
        raise CTSDError(str(error)) from None
    by = arguments.by or world.environ.get("SUDO_USER") or world.environ.get("USER", "")
    for option, text in (("--why", arguments.why), ("--by", by)):
        if len(text) > MAX_WORDS_CHARS:
            raise CTSDError(f"{option}: expected at most {MAX_WORDS_CHARS:,} characters")
    entry = evolve(value, until=until, why=arguments.why, by=by)

    async def add(allow_list: AllowList, shared: IShared) -> int:
        is_new = await allow_list.add(entry)
        world.say("allowed" if is_new else "allowed anew")
        return 0

    return _with_list(settings, world, add)


def _list(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    async def show_all(allow_list: AllowList, shared: IShared) -> int:
        entries = current(await allow_list.entries(), shared.now())
        for line in table([_row(entry) for entry in entries]) if entries else ():
            world.say(line)
        return 0

    return _with_list(settings, world, show_all)


def _row(entry: Allowed) -> tuple[str, ...]:
    until = "for ever" if entry.until is None else f"until {_date(entry.until)}"
    return f"{entry.type}={entry.value}", until, entry.by, entry.why


def _date(secs: float) -> str:
    return datetime.fromtimestamp(secs, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _remove(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    # Not what may be added: an older version may have allowed more.
    type, value = _value(arguments.value)
    entry = Allowed(type=type, value=value)

    async def remove(allow_list: AllowList, shared: IShared) -> int:
        if not await allow_list.remove(entry):
            raise CTSDError("that is not allowed: ctsd allow list shows what is")
        world.say("removed")
        return 0

    return _with_list(settings, world, remove)
