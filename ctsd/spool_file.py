"""A file on its way into the spool directory."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.errors import Unavailable
from ctsd.interfaces.threads import InThread
from ctsd.model import File
from ctsd.syncing import sync

if TYPE_CHECKING:
    from ctsd.spool import Spool


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
        error = failure.value
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            self._log.error("an upload could not be stored: {reason}", reason=error.strerror)
        else:
            self._log.failure("an upload could not be stored", failure=failure)
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
        sync(self._path.parent)
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
