"""Request bodies that are held in memory, one by one and all together within limits."""

from __future__ import annotations

from ctsd.errors import BodyTooLarge, Unavailable


class BodyMemory:
    """How much all bodies in memory may hold together."""

    def __init__(self, *, max_bytes: int, retry_secs: int = 5) -> None:
        self.used_bytes = 0
        self._max_bytes = max_bytes
        self._retry_secs = retry_secs

    def check(self, size: int) -> None:
        """
        Whether that much more could be held now.

        :raises Unavailable: there is no room for it.
        """
        if self.used_bytes + size > self._max_bytes:
            raise Unavailable("too many large requests at once", retry_secs=self._retry_secs)

    def take(self, size: int) -> None:
        """
        Account for bytes that are to be held.

        :raises Unavailable: there is no room for them.
        """
        self.check(size)
        self.used_bytes += size

    def give(self, size: int) -> None:
        """These bytes are held no more."""
        self.used_bytes -= size


class HeldBody:
    """
    A body, or a part of one, in memory.

    :ivar data: what came so far.
    """

    __slots__ = ("_max_bytes", "_memory", "_small_bytes", "_taken", "data")

    def __init__(self, *, memory: BodyMemory, max_bytes: int, small_bytes: int) -> None:
        """
        :param max_bytes: of this one.
        :param small_bytes: up to this size it does not count for all bodies together.
        """
        self.data: bytes | bytearray = b""
        self._memory = memory
        self._max_bytes = max_bytes
        self._small_bytes = small_bytes
        self._taken = 0

    def write(self, data: bytes) -> None:
        """
        Add a piece.

        :raises BodyTooLarge: it is one too much.
        :raises Unavailable: all bodies together are too large right now.
        """
        size = len(self.data) + len(data)
        if size > self._max_bytes:
            raise BodyTooLarge(f"more than {self._max_bytes} bytes of JSON")
        if size > self._small_bytes:
            self._memory.take(size - self._taken)
            self._taken = size
        if not self.data:
            self.data = data
        elif isinstance(self.data, bytearray):
            self.data += data
        else:
            self.data = bytearray(self.data)
            self.data += data

    def finish(self) -> bytes | bytearray:
        """All of it."""
        return self.data

    def release(self) -> None:
        """Nobody needs it any more."""
        taken, self._taken = self._taken, 0
        self._memory.give(taken)
        self.data = b""
