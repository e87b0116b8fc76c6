"""How many searches of one source may run at once."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred

from ctsd.errors import SearchFailed


class Slots:
    """
    The slots of one source.

    A search that has overstayed its time keeps its slot until it really ends (a thread can't be
    stopped). When all slots are kept that way, the source is stuck, and says so at once.
    """

    def __init__(self, *, limit: int, max_waiting: int = 1000) -> None:
        self._limit = limit
        self._max_waiting = max_waiting
        self._taken = 0
        self._overstaying = 0
        self._waiting: deque[Deferred[None]] = deque()

    @property
    def stuck(self) -> bool:
        """Whether every slot is kept by a search that should have ended."""
        return self._overstaying >= self._limit

    def take(self) -> Deferred[None] | None:
        """
        Take a slot.

        :return: None when it is yours now; else a Deferred that fires when it is. Cancel it to
            leave the queue.
        :raises SearchFailed: the source is stuck, or too many wait for it.
        """
        if self._taken < self._limit:
            self._taken += 1
            return None
        self._refuse_when_stuck()
        if len(self._waiting) >= self._max_waiting:
            raise SearchFailed("too many searches wait for this source")
        turn: Deferred[None] = Deferred(self._leave)
        self._waiting.append(turn)
        return turn

    def overstay(self) -> None:
        """A search that holds a slot was given up, but has not ended."""
        self._overstaying += 1
        if self.stuck:
            while self._waiting:
                self._waiting.popleft().errback(self._stuck())

    def free(self, *, overstayed: bool) -> None:
        """A search that held a slot has ended."""
        if overstayed:
            self._overstaying -= 1
        if self._waiting:
            self._waiting.popleft().callback(None)
        else:
            self._taken -= 1

    def _leave(self, turn: Deferred[None]) -> None:
        self._waiting.remove(turn)

    def _refuse_when_stuck(self) -> None:
        if self.stuck:
            raise self._stuck()

    def _stuck(self) -> SearchFailed:
        return SearchFailed(f"stuck: {self._limit} searches have not ended in time")
