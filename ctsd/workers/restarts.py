"""When a worker that has ended is started again, and when no more."""

from __future__ import annotations

from attrs import define, field

#: A worker that ends right after its start is started again after so long, then twice that.
FIRST_WAIT_SECS = 1.0
MAX_WAIT_SECS = 30.0

#: One that was up for so long begins with the first wait again.
STEADY_SECS = 60.0

#: So many ends of one worker within this time are too many.
MAX_ENDS = 10
WINDOW_SECS = 300.0


@define
class Restarts:
    """The ends of one worker, in monotonic seconds."""

    _ends: list[float] = field(factory=list)
    _wait_secs: float = FIRST_WAIT_SECS

    def ended(self, *, now: float, up_secs: float) -> float | None:
        """
        One more end.

        :param up_secs: how long it was ready.
        :return: seconds until it is to be started again; None: no more.
        """
        self._ends = [*(end for end in self._ends if now - end < WINDOW_SECS), now]
        if len(self._ends) >= MAX_ENDS:
            return None
        if up_secs >= STEADY_SECS:
            self._wait_secs = FIRST_WAIT_SECS
        wait_secs = self._wait_secs
        self._wait_secs = min(2 * wait_secs, MAX_WAIT_SECS)
        return wait_secs
