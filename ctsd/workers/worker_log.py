"""The log of a worker, on the same standard output as those of the others."""

from __future__ import annotations

import os

from twisted.logger import (
    FileLogObserver,
    LogEvent,
    formatEventAsClassicLogText,
    globalLogBeginner,
)

#: What is written at once to a pipe is not mixed with what others write (pipe(7), PIPE_BUF).
_AT_ONCE_BYTES = 4096


class Lines:
    """A file of whole lines, which others write to as well."""

    encoding = "utf-8"

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> None:
        """Write some lines, as many as fit at once."""
        piece = b""
        for line in text.encode("utf-8", "backslashreplace").splitlines(keepends=True):
            if piece and len(piece) + len(line) > _AT_ONCE_BYTES:
                self._write(piece)
                piece = b""
            piece += line
        self._write(piece)

    def flush(self) -> None:
        """Everything was written already."""

    def _write(self, piece: bytes) -> None:
        while piece:
            piece = piece[os.write(self._descriptor, piece) :]


def begin_log(process: str, descriptor: int = 1) -> None:
    """
    Log as twistd does, with C{process} at the beginning of where a line comes from.

    :param descriptor: where to.
    """

    def text(event: LogEvent) -> str | None:
        level = event.get("log_level")
        system = event.get("log_system") or (
            f"{event.get('log_namespace', '-')}#{level.name if level else '-'}"
        )
        return formatEventAsClassicLogText({**event, "log_system": f"{process} {system}"})

    # No file, but all of one that an observer uses.
    observer = FileLogObserver(Lines(descriptor), text)  # type: ignore[arg-type]
    globalLogBeginner.beginLoggingTo([observer])
