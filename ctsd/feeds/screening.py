"""
What feeds have found, without what is no finding: warninglists and one's own allow list. Threats
that people entered are never screened: they don't come from here.
"""

from __future__ import annotations

from collections.abc import Container

from attrs import define, field

from ctsd.feeds.allowed import AllowedValues
from ctsd.feeds.warninglists import Warninglists
from ctsd.model import Suppressed
from ctsd.records import Indexed

#: What stands before the name of a list that lets a hit through and marks it.
MARK_PROPERTY = "Warninglist"


@define
class Screening:
    """
    One search's screening; its L{wanted} goes to L{ctsd.interfaces.feeds.IIndicators.find}::

        screening = Screening(lists=lists, allowed=allowed, now=now, marking=feeds_that_mark)
        found = indicators.find(artifact=artifact, limit=10, wanted=screening.wanted)
        screening.mark(feed, record)            # the list's name, for L{MARK_PROPERTY}; or ""

    :ivar lists: the warninglists.
    :ivar allowed: what people allow.
    :ivar now: POSIX seconds; what is not allowed any more does not count.
    :ivar marking: the names of feeds whose hits are marked instead of left out, when a
        warninglist has them; what is allowed is left out all the same.
    :ivar suppressed: what was left out.
    """

    lists: Warninglists
    allowed: AllowedValues = field(factory=AllowedValues)
    now: float = 0.0
    marking: Container[str] = ()
    suppressed: list[Suppressed] = field(factory=list)

    def wanted(self, feed: str, record: Indexed) -> bool:
        """Whether a record that was found is a hit."""
        entry = self.allowed.find(record.type, record.value, self.now)
        if entry is not None:
            self._suppress(feed, record, entry.told())
            return False
        if feed in self.marking:
            return True
        listed = self.lists.listed(record.type, record.value)
        if listed:
            self._suppress(feed, record, listed)
        return not listed

    def mark(self, feed: str, record: Indexed) -> str:
        """The warninglist that a hit is to be marked with; empty when it isn't."""
        if feed not in self.marking:
            return ""
        return self.lists.listed(record.type, record.value)

    def _suppress(self, feed: str, record: Indexed, by: str) -> None:
        self.suppressed.append(Suppressed(feed, record.type, by))
