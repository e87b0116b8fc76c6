"""The time of a server, known without asking it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

#: An answer that took longer says little about the time.
_SLOW_SECS = 0.25


@define(kw_only=True)
class ServerClock:
    """
    Goes with a clock of ours that nobody can set, by an offset that is measured now and then.

    :ivar monotonic: that clock.
    """

    monotonic: Callable[[], float]
    _offset: float | None = field(default=None, init=False)

    def now(self) -> float:
        """POSIX seconds by the server's clock; 0 before it was measured."""
        return 0.0 if self._offset is None else self.monotonic() + self._offset

    def measured(self, server: float, *, sent: float, received: float) -> None:
        """
        The server has said what time it is.

        :param server: POSIX seconds.
        :param sent: when it was asked, by our clock; C{received}: when the answer came.
        """
        if self._offset is None or received - sent < _SLOW_SECS:
            self._offset = server - (sent + received) / 2
