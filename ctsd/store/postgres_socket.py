"""
How the reactor watches a socket that libpq may close whenever it likes.

libpq closes a socket from within its own calls; its number then may be another socket's. The
reactor goes by numbers: told to forget a socket that is closed already, it keeps half of it, and
whoever gets that number next is never heard of. So it watches a duplicate, which is ours to close.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor, IReadWriteDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IReadWriteDescriptor)
class _Duplicate:
    """A descriptor of our own for the socket of something pollable."""

    def __init__(self, pollable: Any) -> None:
        """
        :raises ValueError: it has no socket (any more).
        """
        number = pollable.fileno()
        if number < 0:
            raise ValueError("it has no socket")
        self._pollable = pollable
        self._number = os.dup(number)

    def fileno(self) -> int:
        """The duplicate; -1 when it is closed."""
        return self._number

    def doRead(self) -> None:
        """There is something to read."""
        self._pollable.doRead()

    def doWrite(self) -> None:
        """There is room to write."""
        self._pollable.doWrite()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has given it up."""
        self._pollable.connectionLost(reason)

    def logPrefix(self) -> str:
        """For the log."""
        return str(self._pollable.logPrefix())

    def close(self) -> None:
        """Be no descriptor any more."""
        number, self._number = self._number, -1
        os.close(number)


class SocketWatch:
    """
    The part of the reactor that txpostgres needs, for one connection: it reads for one of its
    pollables at a time, and writes for one.
    """

    def __init__(self, reactor: Any) -> None:
        self.callLater: Callable[..., Any] = reactor.callLater
        self._reactor = reactor
        self._reader: _Duplicate | None = None
        self._writer: _Duplicate | None = None

    def addReader(self, pollable: IReadDescriptor) -> None:
        """
        Tell it when there is something to read.

        :raises ValueError: it has no socket (any more).
        """
        self.removeReader(pollable)
        self._reader = _Duplicate(pollable)
        self._reactor.addReader(self._reader)

    def removeReader(self, pollable: IReadDescriptor) -> None:
        """Read for nobody."""
        reader, self._reader = self._reader, None
        if reader is not None:
            self._reactor.removeReader(reader)
            reader.close()

    def addWriter(self, pollable: IWriteDescriptor) -> None:
        """
        Tell it when there is room to write.

        :raises ValueError: it has no socket (any more).
        """
        self.removeWriter(pollable)
        self._writer = _Duplicate(pollable)
        self._reactor.addWriter(self._writer)

    def removeWriter(self, pollable: IWriteDescriptor) -> None:
        """Write for nobody."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self._reactor.removeWriter(writer)
            writer.close()
