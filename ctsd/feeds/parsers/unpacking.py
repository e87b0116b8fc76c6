"""
A file as its provider packed it, as a stream of what is in it, and never more of that than a limit.

How it is packed is told by its first bytes (RFC 1952 for gzip, the formats' own documents for the
others): no text of indicators begins like that, and names and headers lie.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, BinaryIO, Final, cast

from ctsd.feeds.job import Refused

_GZIP: Final = b"\x1f\x8b\x08"
_BZ2: Final = b"BZh"
_BZ2_BLOCK: Final = b"1AY&SY"
_XZ: Final = b"\xfd7zXZ\x00"
_ZIP: Final = b"PK\x03\x04"

#: What a decompressor of xz may take: its dictionary is as large as the file says.
_XZ_BYTES: Final = 128 << 20

#: The end of a zip archive (APPNOTE.TXT, 4.3.16), and the most that may stand behind it.
_ZIP_END: Final = b"PK\x05\x06"
_ZIP64_END: Final = b"PK\x06\x07"
_ZIP_TAIL_BYTES: Final = 22 + 65535 + 20

#: A zip archive's directory is held in memory: no provider's has more than some thousand files.
_DIRECTORY_BYTES: Final = 16 << 20

_READ_BYTES: Final = 256 << 10

_BROKEN: Final = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


class Unpacked:
    """
    The stream of what is in a file.

    :ivar bytes: how many were read.
    """

    def __init__(self, stream: IO[bytes], limit: Limit) -> None:
        self._stream = stream
        self._limit = limit

    def read(self, size: int = -1) -> bytes:
        """
        The next bytes; none at the end.

        :raises Refused: it is broken, or larger than it may be.
        """
        size = _READ_BYTES if size < 0 else min(size, _READ_BYTES)
        try:
            data = self._stream.read(size)
        except _BROKEN as error:
            raise Refused(f"it can't be unpacked: {_why(error)}") from error
        except (RuntimeError, NotImplementedError, ValueError, struct.error) as error:
            # zipfile's words for a password, an unknown method, and nonsense.
            raise Refused(f"it can't be unpacked: {_why(error)}") from error
        self._limit.take(len(data))
        return data


class Limit:
    """How much may still come out of a file."""

    def __init__(self, max_bytes: int, named: str = "") -> None:
        """
        :param named: the keys that say so, if there are any.
        """
        self._left = max_bytes
        self._told = f"it holds more than {max_bytes:,} bytes{named and f' ({named})'}"

    def take(self, size: int) -> None:
        """
        Count bytes.

        :raises Refused: that is too much.
        """
        self._left -= size
        if self._left < 0:
            raise Refused(self._told)


@contextmanager
def unpacked(
    path: Path,
    *,
    max_bytes: int,
    named: str = "max_unpacked_bytes, max_ratio",
    member: str = "",
) -> Iterator[Iterator[Unpacked]]:
    """
    What is in a file: one stream, or with a zip archive one for each file in it that is asked for,
    one after the other.

    :param max_bytes: of what comes out of it, all together.
    :param named: the keys that say so.
    :param member: of a zip archive: the file's name, or a pattern with C{*}; empty for the first.
    :raises OSError: it can't be read.
    :raises Refused: it is broken, has no such file, or too much in it; also from the streams.
    """
    limit = Limit(max_bytes, named)
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(0)
        if head.startswith((_ZIP, _ZIP_END)):
            yield _members(file, member, limit)
        else:
            yield iter([Unpacked(_stream(file, head), limit)])


def _stream(file: BinaryIO, head: bytes) -> IO[bytes]:
    if head.startswith(_GZIP):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file, mode="rb"))
    if head.startswith(_BZ2) and head[4:].startswith(_BZ2_BLOCK):
        return bz2.BZ2File(file)
    if head.startswith(_XZ):
        return cast(IO[bytes], _Xz(file))
    return file


class _Xz:
    """C{lzma.LZMAFile} has no limit of memory; this has."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decompressor = lzma.LZMADecompressor(memlimit=_XZ_BYTES)

    def read(self, size: int) -> bytes:
        """The next bytes; none at the end."""
        while not self._decompressor.eof:
            packed = b""
            if self._decompressor.needs_input:
                packed = self._file.read(_READ_BYTES)
                if not packed:
                    raise EOFError("it ends too early")
            data = self._decompressor.decompress(packed, size)
            if data:
                return data
        rest = self._decompressor.unused_data.lstrip(b"\0") or self._file.read(1)
        if rest.strip(b"\0"):
            raise lzma.LZMAError("something stands behind its end")
        return b""


def _members(file: BinaryIO, member: str, limit: Limit) -> Iterator[Unpacked]:
    _check_directory(file)
    try:
        archive = zipfile.ZipFile(file)
    except (*_BROKEN, ValueError, NotImplementedError, struct.error) as error:
        raise Refused(f"it can't be unpacked: {_why(error)}") from error
    inside = [one for one in archive.infolist() if not one.is_dir()]
    chosen = [one for one in inside if not member or fnmatchcase(one.filename, member)]
    if not chosen:
        raise Refused("there is no such file in the archive" if member else "the archive is empty")
    for one in chosen if any(sign in member for sign in "*?[") else chosen[:1]:
        try:
            with archive.open(one) as opened:
                yield Unpacked(opened, limit)
        except (*_BROKEN, RuntimeError, NotImplementedError, ValueError, struct.error) as error:
            raise Refused(f"it can't be unpacked: {_why(error)}") from error


def _check_directory(file: BinaryIO) -> None:
    """An archive says how large its directory is, before it is read."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _ZIP_TAIL_BYTES))
    tail = file.read()
    at = tail.rfind(_ZIP_END)
    if at < 0 or len(tail) < at + 22:
        raise Refused("it can't be unpacked: it ends too early")
    if _ZIP64_END in tail[max(0, at - 20) : at]:
        raise Refused("it can't be unpacked: zip archives above 4 GiB are not read")
    (directory_bytes,) = struct.unpack_from("<I", tail, at + 12)
    if directory_bytes > _DIRECTORY_BYTES:
        raise Refused(f"its directory has more than {_DIRECTORY_BYTES:,} bytes")
    file.seek(0)


def _why(error: BaseException) -> str:
    text = str(error.args[0] if error.args else error)
    return (text or type(error).__name__)[:200]
