"""
Where uploaded files lie while a scan needs them.

Writing, hashing, fsync and unlinking happen in threads; one job at a time for each file, which
takes all that arrived while the one before it ran.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ctsd.errors import StoreError, Unavailable
from ctsd.interfaces.scanning import ISpool
from ctsd.interfaces.threads import InThread
from ctsd.pooled import in_pool
from ctsd.spool_file import SpoolFile

_GIB = 1024**3

# What the name of a process' lock ends with.
_LOCK = ".lock"


@implementer(ISpool)
class Spool:
    """
    A directory of uploaded files: mode 0700, files 0600 with random names. Several processes may
    use one directory; each knows by a lock which files are those of one that lives.

    :ivar used_bytes: of all files that are there, including those that are being written.
    :ivar writing: how many are being written.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        directory: Path,
        max_concurrent: int = 16,
        max_bytes: int = 20 * _GIB,
        keep_free_bytes: int = _GIB // 4,
        retry_secs: int = 60,
        in_thread: InThread | None = None,
    ) -> None:
        """
        :param reactor: whose thread pool does the work.
        :param max_concurrent: how many files may be written at once.
        :param max_bytes: how much all files together may take.
        :param keep_free_bytes: what stays free on the disk.
        :param retry_secs: after how long a client that was turned away may come again.
        :param in_thread: what runs the work instead, e.g. at once in tests.
        """
        self.directory = directory
        self.used_bytes = 0
        self.writing = 0
        self._max_concurrent = max_concurrent
        self._max_bytes = max_bytes
        self._keep_free_bytes = keep_free_bytes
        self._retry_secs = retry_secs
        self._sizes: dict[Path, int] = {}
        # What this process wrote begins like this, so a sweep never takes a file in the making.
        self._epoch = token_hex(8)
        self._lock: int | None = None
        self._recounting = False
        self._in_thread = in_thread or in_pool(reactor)

    def open(self) -> None:
        """
        Make the directory, and tell other processes that what we write there is in use.

        :raises StoreError: that is not possible.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _take_lock(self._lock_path)
        except OSError as error:
            raise StoreError(f"{self.directory} can't be used: {error.strerror}") from error

    def close(self) -> None:
        """At the end: what nobody needs of ours is anybody's to remove."""
        if self._lock is not None:
            self._lock_path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    @property
    def _lock_path(self) -> Path:
        return self.directory / f"{self._epoch}{_LOCK}"

    def check(self, *, size: int = 0) -> None:
        """
        Whether a file of (at least) this size could be taken now.

        :raises Unavailable: it could not, and why.
        """
        if self.writing >= self._max_concurrent:
            raise self.unavailable("too many uploads at once")
        if self.used_bytes + size > self._max_bytes:
            raise self._full()
        if self._free_bytes() < self._keep_free_bytes + size:
            raise self.unavailable("the disk is full")

    def create(
        self, *, on_level: Callable[[int], None], on_failure: Callable[[Unavailable], None]
    ) -> SpoolFile:
        """
        Begin a file.

        :param on_level: told how many bytes wait to be written, whenever some were.
        :param on_failure: told, once, that the file is lost.
        :raises Unavailable: see L{check}.
        """
        self.check()
        path = self.directory / f"{self._epoch}-{token_hex(16)}"
        return SpoolFile(self, path, self._in_thread, on_level, on_failure)

    def remove(self, *, paths: Iterable[Path]) -> None:
        """See L{ISpool}."""
        ours = [path for path in paths if path.parent == self.directory]
        if ours:
            self._in_thread(_unlink_all, ours).addCallbacks(
                lambda _: self._forget(ours), self._complain
            )

    def missing(self, *, paths: Iterable[Path]) -> Deferred[set[Path]]:
        """See L{ISpool}."""
        missing: Deferred[set[Path]] = self._in_thread(_gone, list(paths)).addCallback(set)
        return missing

    def sweep(self, *, keep: set[Path]) -> None:
        """
        See L{ISpool}. What other processes that live have written stays, too.
        """
        self._in_thread(_sweep, self.directory, self._epoch, keep).addCallbacks(
            self._swept, self._complain
        )

    def unavailable(self, reason: str) -> Unavailable:
        """The error for a client that we turn away."""
        return Unavailable(reason, retry_secs=self._retry_secs)

    def take(self, size: int) -> None:
        """
        Account for bytes that are about to be written.

        :raises Unavailable: there is no room for them.
        """
        if self.used_bytes + size > self._max_bytes:
            raise self._full()
        self.used_bytes += size

    def give(self, size: int) -> None:
        """These bytes are gone again."""
        self.used_bytes -= size

    def keep(self, path: Path, size: int) -> None:
        """A file is complete; its bytes (already taken) stay until it is removed."""
        self._sizes[path] = size

    def check_free(self) -> None:
        """
        (In a thread.) Whether writing may go on.

        :raises OSError: the disk is about to be full.
        """
        if self._free_bytes() < self._keep_free_bytes:
            raise OSError(errno.ENOSPC, "less than upload.keep_free_bytes is left")

    def _free_bytes(self) -> int:
        directory = self.directory
        while not directory.exists() and directory.parent != directory:
            directory = directory.parent
        found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize

    def _forget(self, paths: list[Path]) -> None:
        for path in paths:
            self.used_bytes -= self._sizes.pop(path, 0)

    def _swept(self, kept: dict[Path, int]) -> None:
        for path, size in kept.items():
            if path not in self._sizes:
                self._sizes[path] = size
                self.used_bytes += size

    def _full(self) -> Unavailable:
        if not self._recounting:
            # Others may have removed what we have found here, and count.
            self._recounting = True
            self._in_thread(_gone, list(self._sizes)).addCallbacks(
                self._forget, self._complain
            ).addCallback(self._recounted)
        return self.unavailable("the spool is full")

    def _recounted(self, _: None) -> None:
        self._recounting = False

    def _complain(self, failure: Failure) -> None:
        self._log.failure("could not clean the spool directory", failure=failure)


def _unlink_all(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _gone(paths: list[Path]) -> list[Path]:
    return [path for path in paths if not path.exists()]


def _sweep(directory: Path, epoch: str, keep: set[Path]) -> dict[Path, int]:
    """
    Unlink what is not to be kept, but for what living processes have written; the sizes of what
    dead ones have left and is to be kept.
    """
    kept = {}
    living = {epoch: True}
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in directory.iterdir():
        writer = path.name.partition("-")[0].removesuffix(_LOCK)
        if writer not in living:
            living[writer] = _lives(directory / f"{writer}{_LOCK}")
        if living[writer] or path.name.endswith(_LOCK):
            continue
        if path in keep:
            kept[path] = path.stat().st_size
        else:
            path.unlink(missing_ok=True)
    return kept


def _take_lock(path: Path) -> int:
    """Lock a file, which is made; the descriptor that keeps it so."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        # Somebody has taken it for one that was left, and removed it, before it was locked.
        os.close(descriptor)


def _lives(lock: Path) -> bool:
    """Whether the process that made a lock has it still; else the lock is removed."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.unlink(missing_ok=True)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
