"""
A file that a feed becomes which is not one file, while it is being written.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ctsd.errors import OutboundError


class Written:
    """A file in the making. Everything blocks, and raises L{OutboundError} when it gets too big."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._opened: BinaryIO | None = None

    def open(self) -> None:
        """Begin it."""
        self._opened = self._path.open("xb")

    @property
    def _file(self) -> BinaryIO:
        assert self._opened is not None
        return self._opened

    def _check_size(self) -> None:
        if self._file.tell() > self._max_bytes:
            raise OutboundError(f"it is larger than {self._max_bytes} bytes")

    def _close(self) -> tuple[int, str]:
        self._file.flush()
        self._check_size()
        os.fsync(self._file.fileno())
        self._file.close()
        with self._path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256")
            return opened.tell(), digest.hexdigest()

    def discard(self) -> None:
        """Remove it, if it was begun."""
        if self._opened is not None:
            with suppress(OSError):
                self._opened.close()
            self._path.unlink(missing_ok=True)
