"""
C{ctsd feeds}: how feeds stand, and has them brought.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import DeferredLock
from twisted.internet.task import LoopingCall

from ctsd.commands.feeds_try import Intermixed, broken_own_lists, copies_of, described
from ctsd.commands.feeds_try import add_commands as add_try
from ctsd.commands.world import Commands, World, become_owner, shown, table
from ctsd.config.environment import child_environment
from ctsd.config.settings import Settings
from ctsd.errors import CTSDError
from ctsd.feeding import make_downloads, make_outbound
from ctsd.feeds.children import Children
from ctsd.feeds.copies import BadState, Busy
from ctsd.feeds.descriptions import Description
from ctsd.feeds.download import Downloads
from ctsd.feeds.examinations import Examinations
from ctsd.feeds.feed_state import FeedState
from ctsd.feeds.indexing import trouble_of
from ctsd.feeds.job import BuildFailed, Refused
from ctsd.feeds.own_file import why_unreadable
from ctsd.feeds.visit import TooEarly, advice_of
from ctsd.pooled import in_pool
from ctsd.sources import feeds_on, own_feeds

_PROGRESS_SECS: Final = 2.0


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add C{feeds} and what can follow it."""
    parser = commands.add_parser(
        "feeds", parents=[common], help="feeds: how they stand, update, try a description"
    )
    parser.set_defaults(run=_list)
    verbs: Commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", parser_class=Intermixed
    )

    update = verbs.add_parser(
        "update", parents=[common], help="ask the providers now, as far as they allow it"
    )
    update.add_argument("name", metavar="NAME", nargs="?", help="of this feed alone")
    update.set_defaults(run=_update)

    accept = verbs.add_parser(
        "accept", parents=[common], help="take the copy that was refused after all"
    )
    accept.add_argument("name", metavar="NAME")
    accept.set_defaults(run=_accept)

    bring = verbs.add_parser(
        "import", parents=[common], help="bring a file, where there is no network"
    )
    bring.add_argument("name", metavar="NAME")
    bring.add_argument("file", metavar="FILE", type=Path)
    bring.set_defaults(run=_import)

    add_try(verbs, common)


# -- how they stand


def _list(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    on = feeds_on(settings)
    off = [one.name for one in own_feeds(settings) if not one.enabled]
    become_owner(settings.state_dir)
    if on:
        rows: list[tuple[str, ...]] = [("NAME", "AGE", "RECORDS", "REFUSED", "NEXT", "STATE")]
        rows += [_row(one, settings, world.now()) for one in on]
        for line in table(rows):
            world.say(line)
    else:
        world.say("no feed is on: [feeds.<name>] enabled = true turns one on")
    if off:
        world.say(f"off: {', '.join(sorted(off))}")
    return 0


def _row(description: Description, settings: Settings, now: float) -> tuple[str, ...]:
    file = description.provider.file
    if description.is_warninglist and file is not None:
        broken = broken_own_lists(settings, description)
        return (description.name, "-", "-", "-", "-", "; ".join(["read where it is", *broken]))
    try:
        state = copies_of(settings, description.name).state()
    except BadState as error:
        return (description.name, "-", "-", "-", "-", str(error))
    copy = state.copy
    age = records = refused = "-"
    standing = "never loaded"
    if copy is not None:
        age_secs = now - copy.checked
        age, records, refused = _span(age_secs), f"{copy.records:,}", f"{copy.refused:,}"
        standing = "good"
        if age_secs > description.max_age_secs:
            standing = "too old: nothing in it counts"
        elif age_secs > description.stale_secs:
            standing = "stale"
    following = _span(state.due - now) if description.provider.url and state.due > now else "-"
    unsearched = trouble_of(settings.feed_index, description, copy)
    # What keeps a file of ours from being read is newer than what was said of it.
    trouble = why_unreadable(description) or state.error or unsearched
    told = "; ".join(filter(None, (standing, trouble)))
    return (description.name, age, records, refused, following, told)


def _span(secs: float) -> str:
    """A span of time in its largest unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if abs(secs) >= 2 * size:
            return f"{secs / size:.0f} {unit}"
    return f"{max(secs, 0):.0f} s"


# -- bringing them


def _downloads(settings: Settings, world: World, reactor: Any) -> Downloads:
    in_thread = in_pool(reactor)
    children = Children(
        reactor=reactor, clock=reactor, environment=child_environment(world.environ, settings)
    )
    return make_downloads(
        settings,
        clock=reactor,
        outbound=make_outbound(settings, reactor=reactor, in_thread=in_thread),
        examine=Examinations(children=children, lock=DeferredLock()),
        in_thread=in_thread,
    )


def _update(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    if arguments.name:
        descriptions = [described(settings, arguments.name)]
    else:
        descriptions = [one for one in feeds_on(settings) if one.provider.url]
    if not descriptions:
        raise CTSDError("no feed is on that comes from a URL")
    for one in descriptions:
        if not one.enabled:
            raise CTSDError(f"{one.name} is off: [feeds.{one.name}] enabled = true turns it on")
        if not one.provider.url:
            raise CTSDError(f"{one.name} is a file of yours: the daemon sees when it changes")

    async def update(reactor: Any) -> int:
        become_owner(settings.state_dir)
        downloads = _downloads(settings, world, reactor)
        status = 0
        for one in descriptions:
            world.say(shown(f"{one.name}: asking {one.remotes(now=world.now())[0].shown}"))
            progress = _Progress(one, settings, world)
            progress.start(reactor)
            try:
                good = _told(one, await downloads.update(one), world)
            except (Busy, TooEarly, BadState) as error:
                world.complain(f"{one.name}: {error}")
                good = False
            finally:
                progress.stop()
            status = status if good else 1
        return status

    return world.in_reactor(update)


class _Progress:
    """Shows on a terminal how much of a feed has come."""

    def __init__(self, description: Description, settings: Settings, world: World) -> None:
        self._description = description
        self._settings = settings
        self._world = world
        self._loop = LoopingCall(self._show)

    def start(self, clock: Any) -> None:
        """Begin to look."""
        if self._world.err.isatty():
            self._loop.clock = clock
            self._loop.start(_PROGRESS_SECS, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def _show(self) -> None:
        directory = self._settings.feeds_dir / self._description.name
        size = sum(path.stat().st_size for path in directory.glob("*.part"))
        if size:
            self._world.complain(f"{self._description.name}: {size / 1e6:,.1f} MB")


def _told(description: Description, state: FeedState, world: World) -> bool:
    """Say what came of it; whether that is good."""
    if state.error:
        world.complain(f"{description.name}: {state.error}")
        refused = state.refused
        if refused is not None and refused.records and refused.reason in state.error:
            world.complain(advice_of(description.name))
        return False
    assert state.copy is not None
    world.say(
        f"{description.name}: {state.copy.records:,} records, {state.copy.refused:,} rows refused"
    )
    return True


def _accept(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    description = described(settings, arguments.name)

    async def accept(reactor: Any) -> int:
        become_owner(settings.state_dir)
        try:
            state = await _downloads(settings, world, reactor).accept(description)
        except (Busy, BadState, BuildFailed) as error:
            raise CTSDError(f"{description.name}: {error}") from None
        except Refused as error:
            raise CTSDError(f"{description.name}: its copy can't be read: {error}") from None
        except LookupError:
            raise CTSDError(f"{description.name}: no copy of it was refused") from None
        return 0 if _told(description, state, world) else 1

    return world.in_reactor(accept)


def _import(arguments: argparse.Namespace, settings: Settings, world: World) -> int:
    description = described(settings, arguments.name)
    own = description.provider.file
    if own is not None:
        # The daemon would replace it by what stands in that file.
        raise CTSDError(
            f"{description.name} is the file {own}: put what you have in its place; the daemon"
            " sees that it has changed"
        )
    file: Path = arguments.file.absolute()
    # Opened before we become somebody who may perhaps not read it.
    with file.open("rb") as opened:

        async def bring(reactor: Any) -> int:
            become_owner(settings.state_dir)
            try:
                state = await _downloads(settings, world, reactor).bring(
                    description, opened, name=file.name
                )
            except (Busy, BadState, BuildFailed, Refused) as error:
                raise CTSDError(f"{description.name}: {error}") from None
            if not _told(description, state, world):
                return 1
            _tell_age(description, state, world)
            return 0

        return world.in_reactor(bring)


def _tell_age(description: Description, state: FeedState, world: World) -> None:
    """Say that a file that was brought is old; it would be noticed late."""
    assert state.copy is not None
    age_secs = world.now() - state.copy.checked
    if age_secs <= description.stale_secs:
        return
    is_over = age_secs > description.max_age_secs
    world.complain(
        f"{description.name}: by its date of modification the file is {_span(age_secs)} old: "
        + ("too old, nothing in it counts" if is_over else "its hits say that it is stale")
    )
