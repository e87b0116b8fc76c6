"""Whether the wall clock can be trusted with removing what is old."""

from __future__ import annotations

from attrs import define, field
from twisted.logger import Logger


@define(kw_only=True)
class WallWatch:
    """
    Compares the wall clock with one that nobody can set.

    :ivar jump_secs: a wall clock that moved by more than this against the other one has jumped.
    :ivar quiet_secs: after a jump it is trusted again when it has not jumped for so long.
    """

    _log = Logger()

    jump_secs: float = 3600.0
    quiet_secs: float = 3600.0
    _offset: float | None = field(default=None, init=False)
    _jumped: float | None = field(default=None, init=False)

    def steady(self, *, wall: float, monotonic: float) -> bool:
        """
        Whether expiry may go by C{wall}; says loudly when that changes.

        :param wall: POSIX seconds by the clock that may be set.
        :param monotonic: seconds by the one that may not.
        """
        offset = wall - monotonic
        jump = 0.0 if self._offset is None else offset - self._offset
        self._offset = offset
        if abs(jump) > self.jump_secs:
            self._jumped = monotonic
            self._log.critical(
                "the clock jumped by {jump_secs} s: nothing expires before it has kept still for"
                " {quiet_secs} s",
                jump_secs=round(jump),
                quiet_secs=round(self.quiet_secs),
            )
        elif self._jumped is not None and monotonic - self._jumped >= self.quiet_secs:
            self._jumped = None
            self._log.warn("the clock keeps still again: what is old expires")
        return self._jumped is None
