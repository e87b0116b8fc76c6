"""
What is on the disk of a feed: its newest good copy, a copy that was refused, and how its provider
was asked last. C{feed.json} names the files; nothing else makes a file count.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from attrs import evolve

from ctsd.feeds.feed_state import Copy, FeedState
from ctsd.feeds.job import Refused
from ctsd.syncing import sync

_STATE: Final = "feed.json"
_BROKEN: Final = "feed.json.broken"
_DATA: Final = "data-"
_INDEX: Final = "index-"
_NEW_INDEX: Final = "new.index.part"
#: What the names of files end with that are being written.
_UNFINISHED: Final = (".part", ".building")
_LOCK: Final = "lock"
_STATE_MAX_BYTES: Final = 65536
_READ_BYTES: Final = 1 << 20


class BadState(Exception):
    """C{feed.json} is no state of a feed, or can't be read; the message names it."""


class BrokenState(BadState):
    """What is in C{feed.json} is no state: it was cut off, say. Who visits the feed begins anew."""


class Busy(Exception):
    """Another process, or another part of this one, is at this feed."""


class Disk:
    """The steps that change something on the disk; tests make one of them the last one."""

    def write(self, path: Path, data: bytes) -> None:
        """A file that would survive a power loss, its name apart."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name."""
        os.replace(old, new)

    def sync(self, directory: Path) -> None:
        """Have the names in a directory survive a power loss."""
        sync(directory)

    def unlink(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)


class Lock:
    """A feed that is ours for a while; at most until this process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Others may have it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Copies:
    """
    The directory of one feed. Everything in here blocks, and may raise C{OSError}.

    Who changes something holds the lock. A crash at any point leaves the state before or the one
    after: a file is whole before C{feed.json} names it, and goes when that no longer does.
    """

    def __init__(self, directory: Path, disk: Disk | None = None) -> None:
        self._directory = directory
        self._disk = disk or Disk()

    def state(self) -> FeedState:
        """
        How it stands.

        :raises BadState: nobody can tell.
        :raises BrokenState: nobody ever will.
        """
        path = self._directory / _STATE
        try:
            with path.open("rb") as opened:
                data = opened.read(_STATE_MAX_BYTES)
        except FileNotFoundError:
            return FeedState()
        except OSError as error:
            raise BadState(f"{path} can't be read: {error.strerror}") from error
        try:
            return msgspec.json.decode(data, type=FeedState)
        except msgspec.DecodeError as error:
            raise BrokenState(f"{path} is no state of a feed: {error}") from error

    def mark(self) -> tuple[int, ...]:
        """What changes when the state does; nothing more can be told from it."""
        try:
            found = os.stat(self._directory / _STATE)
        except OSError:
            return ()
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def path(self, copy: Copy) -> Path:
        """Where a copy is."""
        return self._directory / copy.file

    def index(self, copy: Copy) -> Path:
        """
        Where the index lies that was made when the copy was looked at
        (L{ctsd.feeds.key_store.take_feed}), if one was.
        """
        return self._directory / _index_name(copy)

    def fresh_index(self) -> Path:
        """Where the index of a new file may be written, for L{keep} and L{accept}."""
        return self._directory / _NEW_INDEX

    def lock(self) -> Lock:
        """
        Make the directory, if need be, and have it alone.

        :raises Busy: another one has it.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._directory / _LOCK, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Busy("it is being updated") from None
        return Lock(descriptor)

    def fresh(self) -> Path:
        """Where a new file may be written; what is left of an earlier one is gone."""
        self._sweep(self.state())
        return self._directory / "new.part"

    def write(self, state: FeedState) -> None:
        """
        Make this the state, and remove the files that it does not name.

        :raises Busy: what is there was written under a newer lease.
        """
        if self.state().token > state.token:
            raise Busy("another node has taken it over")
        self._put(state)
        self._sweep(state)

    def _put(self, state: FeedState) -> None:
        fresh = self._directory / (_STATE + ".part")
        self._disk.write(fresh, msgspec.json.encode(state))
        self._disk.rename(fresh, self._directory / _STATE)
        self._disk.sync(self._directory)

    def left(self) -> tuple[float, list[Path]]:
        """
        What can be told of a feed whose state is broken.

        :return: when the state was written last, which is not before its provider was asked last;
            and the copies that there are, the oldest first.
        """
        files = [path for path in self._directory.iterdir() if path.name.startswith(_DATA)]
        files.sort(key=lambda path: path.stat().st_mtime)
        return (self._directory / _STATE).stat().st_mtime, files

    def begin_anew(self, state: FeedState) -> Path:
        """
        Make this the state in place of a broken one, and remove the files that it does not name.

        :return: where what was in the broken one is kept, until the next one is broken.
        """
        aside = self._directory / _BROKEN
        with (self._directory / _STATE).open("rb") as opened:
            self._disk.write(aside, opened.read(_STATE_MAX_BYTES))
        self._put(state)
        self._sweep(state)
        return aside

    def keep(self, part: Path, copy: Copy, state: FeedState) -> FeedState:
        """
        Keep a new file, which was synced: as the good copy, or aside when it has a C{reason}.

        :param copy: what is known of it, without a name.
        :param state: how things stand now, but for the copies.
        :return: how they stand then.
        """
        copy = evolve(copy, file=name_of(copy.sha256))
        self._disk.rename(part, self._directory / copy.file)
        if not copy.reason:
            self._keep_index(copy)
        self._disk.sync(self._directory)
        if copy.reason:
            state = evolve(state, refused=copy)
        else:
            state = evolve(state, copy=copy, refused=None)
        self.write(state)
        return state

    def refused(self) -> Copy:
        """
        The copy that was refused.

        :raises LookupError: there is none.
        """
        refused = self.state().refused
        if refused is None or not self.path(refused).exists():
            raise LookupError("no copy of it was refused")
        return refused

    def accept(self, refused: Copy) -> FeedState:
        """Make the refused copy the good one, with what is known of it now."""
        copy = evolve(refused, reason="")
        self._keep_index(copy)
        state = evolve(self.state(), copy=copy, refused=None, failures=0, error="")
        self.write(state)
        return state

    def _keep_index(self, copy: Copy) -> None:
        """Keep the index that was made of a copy. It says by itself of what it was made."""
        made = self.fresh_index()
        if made.exists():
            self._disk.rename(made, self.index(copy))

    def _sweep(self, state: FeedState) -> None:
        named = {copy.file for copy in (state.copy, state.refused) if copy is not None}
        if state.copy is not None:
            named.add(_index_name(state.copy))
        for path in self._directory.iterdir():
            ours = path.name.startswith((_DATA, _INDEX)) or path.name.endswith(_UNFINISHED)
            if ours and path.name not in named:
                self._disk.unlink(path)


def name_of(sha256: str) -> str:
    """What a copy is called."""
    return f"{_DATA}{sha256[:32]}"


def _index_name(copy: Copy) -> str:
    return f"{_INDEX}{copy.sha256[:32]}"


def bring(source: BinaryIO, into: Path, *, max_bytes: int) -> tuple[int, str]:
    """
    Copy an open file to a new one, and sync it.

    :return: its size and its SHA-256.
    :raises OSError: it can't be read or written.
    :raises Refused: it is larger than C{max_bytes}.
    """
    digest = hashlib.sha256()
    size = 0
    with into.open("xb") as written:
        os.fchmod(written.fileno(), 0o600)
        while data := source.read(_READ_BYTES):
            size += len(data)
            if size > max_bytes:
                raise Refused(f"it is larger than {max_bytes:,} bytes")
            digest.update(data)
            written.write(data)
        written.flush()
        os.fsync(written.fileno())
    return size, digest.hexdigest()
