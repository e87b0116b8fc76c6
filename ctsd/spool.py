"""
Where uploaded files lie while a scan needs them.

Writing, hashing, fsync and unlinking happen in threads; one job at a time for each file, which
takes all that arrived while the one before it ran.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from secrets import token_hex
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ctsd.errors import Unavailable
from ctsd.interfaces import ISpool
from ctsd.model import File

_GIB = 1024**3

#: Runs a function in a thread: C{(function, *arguments)} to a Deferred of its result.
InThread = Callable[..., "Deferred[Any]"]


@implementer(ISpool)
class Spool:
    """
    A directory of uploaded files: mode 0700, files 0600 with random names.

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
        self._in_thread = in_thread or (
            lambda work, *args: deferToThreadPool(reactor, reactor.getThreadPool(), work, *args)
        )

    def check(self, *, size: int = 0) -> None:
        """
        Whether a file of (at least) this size could be taken now.

        :raises Unavailable: it could not, and why.
        """
        if self.writing >= self._max_concurrent:
            raise self.unavailable("too many uploads at once")
        if self.used_bytes + size > self._max_bytes:
            raise self.unavailable("the spool is full")
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

    def sweep(self, *, keep: set[Path]) -> None:
        """
        See L{ISpool}. One process at a time writes into a spool directory.
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
            raise self.unavailable("the spool is full")
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
            raise OSError("less than keep_free_bytes is left")

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

    def _complain(self, failure: Failure) -> None:
        self._log.failure("could not clean the spool directory", failure=failure)


class SpoolFile:
    """
    A file in the making: what is written to it goes to the disk and through three hashes.

    :ivar size: bytes that were given to it.
    """

    _log = Logger()

    def __init__(
        self,
        spool: Spool,
        path: Path,
        in_thread: InThread,
        on_level: Callable[[int], None],
        on_failure: Callable[[Unavailable], None],
    ) -> None:
        self.size = 0
        self._spool = spool
        self._path = path
        self._in_thread = in_thread
        self._on_level = on_level
        self._on_failure = on_failure
        self._disk = _Disk(path, spool.check_free)
        self._chunks: list[bytes] = []
        self._waiting_bytes = 0
        self._busy = False
        self._lost = False
        self._done = False
        self._whole: Deferred[File] | None = None
        self._describe: Callable[[tuple[str, str, str]], File] | None = None
        spool.writing += 1

    def write(self, data: bytes) -> int:
        """
        Take a piece, to be written soon.

        :return: how many bytes wait to be written.
        :raises Unavailable: there is no room; the file is gone.
        """
        if self._lost:
            return 0
        try:
            self._spool.take(len(data))
        except Unavailable:
            self.discard()
            raise
        self.size += len(data)
        self._waiting_bytes += len(data)
        self._chunks.append(data)
        if not self._busy:
            self._work()
        return self._waiting_bytes

    def finish(self, *, name: str, content_type: str) -> Deferred[File]:
        """
        The file is complete; call this once.

        :return: fires when it would survive a power loss; never, when it failed or was discarded
            before (C{on_failure} was told).
        """
        self._whole = Deferred()
        self._describe = lambda hashes: File(
            path=self._path,
            name=name,
            content_type=content_type,
            size=self.size,
            md5=hashes[0],
            sha1=hashes[1],
            sha256=hashes[2],
        )
        if not self._busy and not self._lost:
            self._end()
        return self._whole

    def discard(self) -> None:
        """
        Forget the file and unlink it, soon. Not for a file that somebody else has by now.
        """
        if self._done:
            self._spool.remove(paths=[self._path])
            return
        if self._lost:
            return
        self._lost = True
        self._chunks.clear()
        if not self._busy:
            self._unlink()

    def _work(self) -> None:
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._busy = True
        self._in_thread(self._disk.write, data).addCallbacks(
            self._worked, self._broke, callbackArgs=(len(data),)
        )

    def _worked(self, _: object, size: int) -> None:
        self._busy = False
        self._waiting_bytes -= size
        if self._lost:
            self._unlink()
            return
        if self._chunks:
            self._work()
        elif self._whole is not None:
            self._end()
        self._on_level(self._waiting_bytes)

    def _end(self) -> None:
        self._busy = True
        self._in_thread(self._disk.finish).addCallbacks(self._ended, self._broke)

    def _ended(self, hashes: tuple[str, str, str]) -> None:
        self._busy = False
        if self._lost:
            self._unlink()
            return
        self._done = True
        self._spool.writing -= 1
        self._spool.keep(self._path, self.size)
        assert self._whole is not None
        assert self._describe is not None
        self._whole.callback(self._describe(hashes))

    def _broke(self, failure: Failure) -> None:
        self._busy = False
        lost, self._lost = self._lost, True
        self._chunks.clear()
        self._log.failure("could not store an upload", failure=failure)
        self._unlink()
        if not lost:
            self._on_failure(self._spool.unavailable("the upload could not be stored"))

    def _unlink(self) -> None:
        self._spool.writing -= 1
        self._in_thread(self._disk.discard).addBoth(self._unlinked)

    def _unlinked(self, result: object) -> None:
        self._spool.give(self.size)
        if isinstance(result, Failure):
            self._log.failure("could not remove an upload", failure=result)


class _Disk:
    """The blocking half of a L{SpoolFile}; one thread at a time."""

    def __init__(self, path: Path, check_free: Callable[[], None]) -> None:
        self._path = path
        self._check_free = check_free
        self._fd = -1
        # Not for security: what the world calls a file by.
        self._hashes = tuple(
            hashlib.new(name, usedforsecurity=False) for name in ("md5", "sha1", "sha256")
        )

    def write(self, data: bytes) -> None:
        self._open()
        for each in self._hashes:
            each.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        self._check_free()

    def finish(self) -> tuple[str, str, str]:
        self._open()
        os.fsync(self._fd)
        self._close()
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        md5, sha1, sha256 = (each.hexdigest() for each in self._hashes)
        return md5, sha1, sha256

    def discard(self) -> None:
        self._close()
        self._path.unlink(missing_ok=True)

    def _open(self) -> None:
        if self._fd >= 0:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _unlink_all(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _sweep(directory: Path, epoch: str, keep: set[Path]) -> dict[Path, int]:
    """Unlink what is not to be kept; the sizes of the rest, but for this process's own."""
    kept = {}
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in directory.iterdir():
        if path.name.startswith(epoch):
            continue
        if path in keep:
            kept[path] = path.stat().st_size
        else:
            path.unlink(missing_ok=True)
    return kept
