"""How well each searcher does: a source that keeps failing is loud, but not on every scan."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import define
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ctsd.model import NOTHING, Ended, Outcome
from ctsd.states import Failing

#: A source that keeps failing is logged so often.
REMINDER_SECS = 600.0


@define
class _Streak:
    since: float
    last: float
    told_at: float
    failures: int = 0


class Reliability:
    """
    Notes the outcomes of searches, and tells when a source begins and ceases to fail.

    :ivar usual_secs: how long each searcher usually takes, by its name (a moving average).
    :ivar changed: called when a source begins or ceases to fail, and with each reminder.
    """

    _log = Logger()

    def __init__(self, *, clock: IReactorTime, now: Callable[[], float]) -> None:
        """
        :param now: POSIX seconds, for dates.
        """
        self._clock = clock
        self._now = now
        self._streaks: dict[str, _Streak] = {}
        self.usual_secs: dict[str, float] = {}
        self.changed: Callable[[], object] = lambda: None

    def took(self, searcher: str, secs: float) -> None:
        """A search has taken so long."""
        self.usual_secs[searcher] = 0.8 * self.usual_secs.get(searcher, secs) + 0.2 * secs

    def note(self, searcher: str, outcome: Outcome) -> None:
        """
        A search has ended so. A failure that no further try can mend, for its file is gone, says
        nothing of the source.
        """
        if outcome is NOTHING or outcome.good:
            if searcher in self._streaks:
                self._recovered(searcher)
        elif outcome.ended is Ended.FAILED and not outcome.final:
            self._failed(searcher, outcome.reason)

    @property
    def failing(self) -> Mapping[str, Failing]:
        """The sources whose newest search has failed, by name."""
        return {
            searcher: Failing(since=streak.since, last=streak.last)
            for searcher, streak in self._streaks.items()
        }

    def _failed(self, searcher: str, reason: str) -> None:
        now, date = self._clock.seconds(), self._now()
        streak = self._streaks.get(searcher)
        if streak is None:
            streak = _Streak(since=date, last=date, told_at=now - REMINDER_SECS)
            self._streaks[searcher] = streak
        streak.last = date
        streak.failures += 1
        if now - streak.told_at >= REMINDER_SECS:
            streak.told_at = now
            self.changed()
            self._log.error(
                "Searcher {searcher} could not be asked ({failures} times): {reason}",
                searcher=searcher,
                failures=streak.failures,
                reason=reason,
            )

    def _recovered(self, searcher: str) -> None:
        streak = self._streaks.pop(searcher)
        self.changed()
        self._log.info(
            "Searcher {searcher} answers again, after {failures} failures",
            searcher=searcher,
            failures=streak.failures,
        )
