"""What the commands of C{ctsd store} share: which store is meant, and how far a copy is."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ctsd.commands.world import World
from ctsd.config.checks import Surroundings, Wrong
from ctsd.config.settings import Settings
from ctsd.config.store_url import secret, store_url
from ctsd.errors import CTSDError
from ctsd.store.copying import Place
from ctsd.store.moving import place_of
from ctsd.store.places import lock_state

#: On a terminal a number is shown so often, elsewhere so often.
_TERMINAL_EVERY_ROWS = 1000
_LOG_EVERY_ROWS = 100_000


def add_place(parser: argparse.ArgumentParser) -> None:
    """Let a command take another store than the configuration's."""
    parser.add_argument(
        "--url", metavar="URL", help="another store than store.url, e.g. with another user"
    )
    parser.add_argument(
        "--password-file", metavar="FILE", type=Path, help="its password, instead of store.password"
    )


def place_for(arguments: argparse.Namespace, settings: Settings, world: World) -> Place:
    """
    The store that a command is about.

    :raises CTSDError: an option is wrong.
    """
    return place_at(
        "--url",
        getattr(arguments, "url", None),
        "--password-file",
        getattr(arguments, "password_file", None),
        settings,
        world,
    )


def place_at(
    url_name: str,
    url: str | None,
    file_name: str,
    password_file: Path | None,
    settings: Settings,
    world: World,
) -> Place:
    """
    A store by its URL, which means what it would mean as C{store.url}.

    :param url_name: what the argument is called, and C{file_name} that of the password's file.
    :param url: None for C{store.url}.
    :param password_file: None for C{store.password}.
    :raises CTSDError: one of them is wrong; says which.
    """
    password = settings.store.password or ""
    if password_file is not None:
        password = _checked(file_name, password_file, settings, world)
    where = settings.store.url
    if url is not None:
        try:
            where = store_url(url, Surroundings(base_dir=settings.base_dir, environ={}))
        except Wrong as wrong:
            raise CTSDError(f"{url_name}: {wrong.expected}") from None
    return place_of(url=where, password=password, directory=settings.state_dir)


def _checked(name: str, file: Path, settings: Settings, world: World) -> str:
    around = Surroundings(base_dir=Path.cwd(), environ=world.environ)
    try:
        return secret({"file": str(file)}, around)
    except Wrong as wrong:
        raise CTSDError(f"{name}: {wrong.expected}") from None


@contextmanager
def locked(settings: Settings, *places: Place) -> Iterator[None]:
    """
    Keep daemons from starting that would use one of these files.

    :raises StoreError: one runs.
    """
    ours = place_of(url=settings.store.url, password="", directory=settings.state_dir)
    directories = set()
    for file in filter(None, (place.file for place in places)):
        # Another directory is a daemon's when it has that file.
        if (file.parent / "lock").exists():
            directories.add(file.parent)
        if settings.state_dir.exists() and (file == ours.file or file.parent == settings.state_dir):
            directories.add(settings.state_dir)
    with ExitStack() as stack:
        for directory in sorted(directories):
            stack.callback(os.close, lock_state(directory))
        yield


class Progress:
    """Says on standard error how far a copy is; L{ctsd.store.copying.Tell}."""

    def __init__(self, world: World) -> None:
        self._err = world.err
        self._terminal = world.err.isatty()
        self._said = False

    def __call__(self, table: str, rows: int, what: str) -> None:
        """So many rows of a table have been dealt with."""
        if rows % (_TERMINAL_EVERY_ROWS if self._terminal else _LOG_EVERY_ROWS):
            return
        text = f"{table}: {rows} rows {what}"
        self._err.write(f"\r{text}\x1b[K" if self._terminal else f"{text}\n")
        self._err.flush()
        self._said = True

    def over(self) -> None:
        """Leave a terminal's line as it was."""
        if self._terminal and self._said:
            self._err.write("\r\x1b[K")
