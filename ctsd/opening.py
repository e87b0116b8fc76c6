"""What a daemon has to have before it may listen: its directory for itself, and a store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from ctsd.config.settings import Settings
from ctsd.config.state_dir import why_unusable
from ctsd.errors import ConfigError, StoreError
from ctsd.sources import make_store
from ctsd.store.moving import backup_name, place_of, save, upgrade
from ctsd.store.places import is_network_filesystem, lock_state
from ctsd.store.queued import QueuedVerbs


def take_state_dir(settings: Settings) -> int:
    """
    Make C{state_dir}, if need be, and lock it.

    :return: the lock's descriptor.
    :raises SystemExit: it can't be made or used, or another process uses it; one line says so.
    """
    directory = settings.state_dir
    try:
        _refuse_network(settings, directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return lock_state(directory)
        except OSError as error:
            why = why_unusable(directory) or f"{directory} can't be used: {error.strerror}"
            raise settings.document.error(("state_dir",), why) from None
    except ConfigError as error:
        raise SystemExit(f"ctsd: {error}") from None
    except StoreError as error:
        raise SystemExit(f"ctsd: {error.reason}") from None


def _refuse_network(settings: Settings, path: Path) -> None:
    if is_network_filesystem(path):
        raise settings.document.error(
            ("state_dir",), f"{path} is on a network file system, where locks do not work"
        )


def open_store(settings: Settings, *, reactor: Any, ours: bool) -> QueuedVerbs:
    """
    The store, open and not started. Blocks.

    :param ours: whether nobody else has it open: a file of an older ctsd is then saved and brought
        up before. A database on PostgreSQL, which other nodes may use, never is.
    :raises SystemExit: it can't be had; one line says why.
    """
    try:
        if ours:
            _bring_up(settings)
        store = make_store(settings, reactor=reactor, alone=True)
        store.open()
    except StoreError as error:
        raise SystemExit(f"ctsd: {error.reason}") from None
    return store


def _bring_up(settings: Settings) -> None:
    place = place_of(
        url=settings.store.url,
        password=settings.store.password or "",
        directory=settings.state_dir,
    )
    if place.file is None or not place.versions()[0]:
        return
    saved: list[Path] = []

    def save_first(there: int) -> None:
        saved.append(settings.state_dir / backup_name(there, time.time()))
        save(place, saved[0], tell=lambda table, rows, what: None)

    try:
        versions = upgrade(place, save_first=save_first)
    except OSError as error:
        raise StoreError(
            f"the store can't be saved before it is brought up: {error.strerror}; ctsd store"
            " upgrade can put the backup elsewhere, or go without"
        ) from error
    if saved:
        Logger(__name__).warn(
            "the store's schema was version {before} and is {now}; as it was it is in {saved}",
            before=versions.before,
            now=versions.now,
            saved=saved[0],
        )
