"""Where the bodies of answers go: into memory or onto the disk, up to a limit."""

from __future__ import annotations

import errno
import hashlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol as NetProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from ctsd.errors import OutboundError
from ctsd.interfaces.threads import InThread

# Data waits until there is so much of it, then a thread writes it; nothing is read while more
# than that waits.
_PIECE_BYTES = 256 * 1024


class Sink(Protocol):
    """Takes a body."""

    def write(self, data: bytes) -> bool:
        """
        Take a piece; whether further ones may come at once.

        :raises OutboundError: it can't be kept.
        """

    def on_room(self, resume: Callable[[], object]) -> None:
        """Have this called when further pieces may come again."""


class Body(NetProtocol):
    """
    Reads the body of an answer.

    :ivar done: fires at its end; fails with what was wrong, and L{OutboundError} when it is too
        large.
    """

    def __init__(self, sink: Sink, *, max_bytes: int, on_data: Callable[[], object]) -> None:
        """
        :param on_data: called with each piece.
        """
        self.done: Deferred[None] = Deferred(lambda _: None)
        self._sink = sink
        self._left = max_bytes
        self._max_bytes = max_bytes
        self._on_data = on_data
        self._over = False

    def connectionMade(self) -> None:
        """Get ready to wait for the disk."""
        self._sink.on_room(self._resume)

    def _resume(self) -> None:
        self.transport.resumeProducing()  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Take a piece."""
        if self._over:
            return
        self._left -= len(data)
        if self._left < 0:
            self._end(Failure(OutboundError(f"it is larger than {self._max_bytes} bytes")))
            return
        self._on_data()
        try:
            more = self._sink.write(data)
        except OutboundError:
            self._end(Failure())
            return
        if not more:
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The body has ended. One with neither length nor chunks ends with its connection (RFC 9112,
        section 6.3): nobody can tell whether it is whole.
        """
        if not self._over:
            whole = reason.check(ResponseDone, PotentialDataLoss)
            self._end(None if whole else reason)

    def _end(self, result: Failure | None) -> None:
        self._over = True
        done = self.done
        if not done.called:
            done.callback(result)


class InMemory:
    """A body in memory."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> bool:
        """See L{Sink}."""
        self._pieces.append(data)
        return True

    def on_room(self, resume: Callable[[], object]) -> None:
        """See L{Sink}."""

    @property
    def value(self) -> bytes:
        """All of it."""
        return b"".join(self._pieces)


class OnDisk:
    """A body on the disk, written and hashed in threads."""

    def __init__(self, path: Path, in_thread: InThread, *, keep_free_bytes: int) -> None:
        """
        :param keep_free_bytes: what leaves less free disk than this is not written.
        """
        self._file = _File(path, keep_free_bytes)
        self._in_thread = in_thread
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._busy: Deferred[None] | None = None
        self._failed: Failure | None = None
        self._resume: Callable[[], object] | None = None
        self._full = False

    def write(self, data: bytes) -> bool:
        """See L{Sink}."""
        if self._failed is not None:
            raise _unwritten(self._failed.value)
        self._pieces.append(data)
        self._waiting_bytes += len(data)
        if self._busy is None and self._waiting_bytes >= _PIECE_BYTES:
            self._begin()
        self._full = self._waiting_bytes >= _PIECE_BYTES
        return not self._full

    def on_room(self, resume: Callable[[], object]) -> None:
        """See L{Sink}."""
        self._resume = resume

    async def finish(self) -> tuple[int, str]:
        """
        Wait until all of it would survive a power loss.

        :return: its size and its SHA-256.
        :raises OutboundError: it could not be written.
        """
        while self._busy is not None or (self._pieces and self._failed is None):
            await self._written()
        if self._failed is not None:
            raise _unwritten(self._failed.value)
        try:
            size, sha256 = await self._in_thread(self._file.finish)
        except OSError as error:
            raise _unwritten(error) from error
        return size, sha256

    async def discard(self) -> None:
        """Remove it."""
        self._pieces.clear()
        while self._busy is not None:
            await self._written()
        await self._in_thread(self._file.discard)

    def _begin(self) -> Deferred[None]:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._waiting_bytes = 0
        busy: Deferred[None] = self._in_thread(self._file.write, data)
        self._busy = busy
        busy.addBoth(self._ended)
        return busy

    def _ended(self, result: object) -> None:
        self._busy = None
        if isinstance(result, Failure):
            self._failed = self._failed or result
            self._pieces.clear()
        elif self._waiting_bytes >= _PIECE_BYTES:
            self._begin()
        if self._full and self._resume is not None:
            self._full = False
            self._resume()

    async def _written(self) -> None:
        """Wait for the write that runs, or do the next one."""
        if self._busy is None:
            self._begin()
        if self._busy is not None:
            # Somebody who gives up waiting must not end the write.
            waiting: Deferred[None] = Deferred(lambda _: None)
            self._busy.addBoth(_tell, waiting)
            await waiting


def _tell(_: object, waiting: Deferred[None]) -> None:
    if not waiting.called:
        waiting.callback(None)


class _File:
    """The blocking half of L{OnDisk}; one thread at a time."""

    def __init__(self, path: Path, keep_free_bytes: int) -> None:
        self._path = path
        self._keep_free_bytes = keep_free_bytes
        self._fd = -1
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        self._open()
        disk = os.fstatvfs(self._fd)
        if disk.f_bavail * disk.f_frsize - len(data) < self._keep_free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._hash.update(data)
        self._size += len(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def finish(self) -> tuple[int, str]:
        self._open()
        os.fsync(self._fd)
        self._close()
        return self._size, self._hash.hexdigest()

    def discard(self) -> None:
        made = self._fd >= 0 or self._size
        self._close()
        if made:
            self._path.unlink(missing_ok=True)

    def _open(self) -> None:
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._path, flags, 0o600)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _unwritten(error: BaseException | None) -> OutboundError:
    why = error.strerror if isinstance(error, OSError) else type(error).__name__
    return OutboundError(f"it could not be written: {why}")


def gunzip(data: bytes, max_bytes: int) -> bytes:
    """
    A small body, decompressed; for a thread.

    :raises OutboundError: it is no gzip, cut short, or becomes too large.
    """
    unpacker = zlib.decompressobj(31)
    try:
        unpacked = unpacker.decompress(data, max_bytes + 1)
    except zlib.error:
        raise OutboundError("its answer is no gzip, as it claims") from None
    if len(unpacked) > max_bytes:
        raise OutboundError(f"it is larger than {max_bytes} bytes, decompressed")
    if not unpacker.eof:
        raise OutboundError("its answer was cut short")
    return unpacked
