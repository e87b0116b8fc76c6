"""
A file of arrays that is never modified: written whole, mapped read-only, shared by all processes
that open it.

::

    page 0      magic and format, size, where the directory is, its length, checksum
    page 1...   the arrays, each from a page of its own
    directory   JSON: what the file says of itself, and the places of its arrays

Numbers are in the machine's own byte order, which is part of the magic: a file is made where it is
used.
"""

from __future__ import annotations

import glob
import json
import mmap
import os
import struct
import sys
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from attrs import frozen

from ctsd.syncing import sync

#: The first bytes of every such file.
MAGIC: Final = b"ctsdar1" + (b"<" if sys.byteorder == "little" else b">")

#: Magic, size of the file, offset and length of the directory, checksum of all behind page 0; then
#: the checksum of these.
_HEAD: Final = struct.Struct("=8sQQQI")
_CHECKSUM: Final = struct.Struct("=I")

#: How much of page 0 is used.
HEAD_BYTES: Final = _HEAD.size + _CHECKSUM.size

#: What the places of arrays are multiples of.
PAGE: Final = mmap.ALLOCATIONGRANULARITY

#: How much is read, checked or written in one go.
_CHUNK_BYTES: Final = 1 << 20


def scratch(target: Path, process: int) -> Path:
    """Where a process writes the file that will be at C{target}."""
    return target.with_name(f".{target.name}.{process}.building")


def clear_scratch(target: Path, process: int | None = None) -> None:
    """
    Remove what a killed build of this file left behind.

    :param process: whose; None for all of them, when none can be running.
    """
    if process is not None:
        scratch(target, process).unlink(missing_ok=True)
        return
    for file in target.parent.glob(f".{glob.escape(target.name)}.*.building"):
        file.unlink(missing_ok=True)


class BadIndex(Exception):
    """This file is no index, not one of this format, or damaged; the message says which."""


class ArrayWriter:
    """
    Writes one file. A context manager: what was not L{publish}ed when it ends leaves no file
    behind, and whatever was at C{path} stays.
    """

    def __init__(self, path: Path) -> None:
        """
        :param path: where the file shall be. Its directory must exist.
        :raises OSError: it can't be written.
        """
        self._path = path
        self._scratch = scratch(path, os.getpid())
        self._scratch.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._scratch, flags, 0o600)
        self._end = PAGE
        self._buffer = bytearray()
        self._arrays: dict[str, tuple[int, int, str]] = {}

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)
        self._scratch.unlink(missing_ok=True)

    def append(self, data: bytes) -> int:
        """
        Write bytes behind those of the call before, with no array in between.

        :return: where in the file they end.
        """
        self._buffer += data
        self._end += len(data)
        if len(self._buffer) >= _CHUNK_BYTES:
            self._flush()
        return self._end

    def put(self, name: str, data: memoryview, code: str) -> None:
        """Write a whole array of numbers of this C{struct} code."""
        start = self.room(name, data.nbytes, code)
        self.write(start, data)

    def room(self, name: str, size: int, code: str) -> int:
        """
        Make room for an array of so many bytes, which the disk then has.

        :return: where in the file it begins, for L{write}.
        """
        self._flush()
        start = self._end + -self._end % PAGE
        if size:
            os.posix_fallocate(self._descriptor, start, size)
        self._end = start + size
        self._arrays[name] = (start, size, code)
        return start

    def write(self, at: int, data: memoryview) -> None:
        """Write into the room of an array."""
        rest = data.cast("B") if data.nbytes else data
        while rest:
            written = os.pwrite(self._descriptor, rest, at)
            rest = rest[written:]
            at += written

    def publish(self, about: Mapping[str, Any]) -> None:
        """Put the file in its place: durable, and at once whole for everybody."""
        self._flush()
        directory = json.dumps({"about": about, "arrays": self._arrays}).encode()
        start = self._end + -self._end % PAGE
        self.write(start, memoryview(directory))
        size = start + len(directory)
        checksum = _checksum(self._descriptor, size)
        head = _HEAD.pack(MAGIC, size, start, len(directory), checksum)
        self.write(0, memoryview(head + _CHECKSUM.pack(zlib.crc32(head))))
        os.fsync(self._descriptor)
        os.rename(self._scratch, self._path)
        sync(self._path.parent)

    def _flush(self) -> None:
        buffer, self._buffer = self._buffer, bytearray()
        self.write(self._end - len(buffer), memoryview(buffer))


@frozen(eq=False)
class ArrayFile:
    """
    An open file. After L{close} its arrays can't be used.

    :ivar about: what it says of itself.
    :ivar arrays: each with numbers of its own kind.
    :ivar places: where in the file each begins.
    :ivar whole: all of it, for slices that are copies.
    :ivar identity: what this very file is, and no other one: for those that name it.
    """

    about: dict[str, Any]
    arrays: dict[str, memoryview]
    places: dict[str, int]
    identity: str
    whole: mmap.mmap
    _descriptor: int
    _view: memoryview

    @classmethod
    def open(cls, path: Path, *, whole: bool = True) -> ArrayFile:
        """
        Map a file, after checking its size and its checksum.

        :param whole: false leaves out the checksum of the arrays, for who only wants C{about}, or
            knows the file by its C{identity}.

        This reads the whole file, so call it in a thread when it may be big: nearly all of it
        happens without the GIL. It does not read it through the map: only the pages that searches
        need become this process's.

        :raises BadIndex: it is damaged or of another format.
        :raises OSError: it can't be read.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return cls._map(descriptor, whole)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def _map(cls, descriptor: int, is_whole: bool) -> ArrayFile:
        head = os.pread(descriptor, HEAD_BYTES, 0)
        if len(head) < HEAD_BYTES:
            raise BadIndex("too short")
        magic, size, start, length, checksum = _HEAD.unpack_from(head)
        if magic != MAGIC:
            raise BadIndex("not of this format")
        if zlib.crc32(head[: _HEAD.size]) != _CHECKSUM.unpack_from(head, _HEAD.size)[0]:
            raise BadIndex("its head is damaged")
        if size != os.fstat(descriptor).st_size or start + length != size:
            raise BadIndex("not of the size that it says")
        if is_whole and _checksum(descriptor, size) != checksum:
            raise BadIndex("its checksum is wrong")
        try:
            directory = json.loads(os.pread(descriptor, length, start))
            about, places = dict(directory["about"]), dict(directory["arrays"])
        except (LookupError, TypeError, ValueError) as error:
            raise BadIndex("its directory is wrong") from error
        whole = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
        whole.madvise(mmap.MADV_RANDOM)
        view = memoryview(whole)
        arrays = {
            name: view[at : at + size].cast(code) for name, (at, size, code) in places.items()
        }
        starts = {name: at for name, (at, _, _) in places.items()}
        return cls(about, arrays, starts, f"{size:x}-{checksum:08x}", whole, descriptor, view)

    def read(self, start: int, end: int) -> bytes:
        """
        Some bytes. What is rarely read is better read so than mapped: a map of it would take
        memory for what lies around it, too.
        """
        return os.pread(self._descriptor, end - start, start)

    def close(self) -> None:
        """Unmap. For a big file this takes milliseconds, without the GIL: use a thread."""
        os.close(self._descriptor)
        # What an exception's traceback still holds is unmapped when that goes.
        with suppress(BufferError):
            for array in self.arrays.values():
                array.release()
            self._view.release()
            self.whole.close()


def _checksum(descriptor: int, size: int) -> int:
    """Of everything behind the first page."""
    checksum = 0
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    at = PAGE
    while at < size:
        count = os.preadv(descriptor, [view[: min(_CHUNK_BYTES, size - at)]], at)
        if not count:
            raise BadIndex("it was cut while it was read")
        checksum = zlib.crc32(view[:count], checksum)
        at += count
    return checksum
