"""
What a scan's parts add up to. Pure: no clock, no store, no reactor.

The rule behind all of it (protocol.md): an answer never says "clean" when it means "could not
ask". So a scan is complete only when every required searcher was asked and has answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from attrs import define, evolve, frozen

from ctsd.errors import LostScan
from ctsd.model import EncodedHit, Ended, Hit, Outcome, Property, ScanState, ScanView
from ctsd.wire import encode_hits

#: How long to leave a source alone after its first failure; doubles with each further one.
FIRST_RETRY_SECS = 15.0

#: The longest wait between two tries of a source, and the largest C{retry_secs} of an answer.
MAX_RETRY_SECS = 900

#: The longest that a searcher may put off being asked again.
MAX_LATER_SECS = 86400.0

#: So many sources that one searcher could not ask are named.
MAX_NAMED = 10

#: C{Retry-After} of a scan that ended incomplete; a GET after that opens it again.
RESEND_SECS = 900


@define
class Part:
    """
    One searcher's part of a scan, as it stands.

    :ivar required: whether the scan waits for it.
    :ivar outcome: what may be shown: for a promised scan only what is committed.
    :ivar tries: how often it was asked.
    :ivar since: when the running search started, monotonic seconds; None when none is running.
    :ivar due: when it is asked (again), POSIX seconds in store time; None when it is done.
    :ivar takeovers: see L{ctsd.model.Search}.
    :ivar deaths: see L{ctsd.model.Search}.
    """

    searcher: str
    required: bool = True
    outcome: Outcome | None = None
    tries: int = 0
    since: float | None = None
    due: float | None = None
    takeovers: int = 0
    deaths: int = 0

    @property
    def done(self) -> bool:
        """Whether the searcher was asked and has answered."""
        return self.outcome is not None and self.outcome.good

    @property
    def lost(self) -> bool:
        """Whether it failed for good."""
        return self.outcome is not None and self.outcome.final


def hits_of(parts: Iterable[Part]) -> tuple[EncodedHit, ...]:
    """
    All hits so far, in the service's order of searchers, then in the searcher's own. What several
    of them say in the same words, as of a list that is a file for one and a feed for another, is
    there once.
    """
    return tuple(dict.fromkeys(hit for part in parts if part.outcome for hit in part.outcome.hits))


def state_of(parts: Iterable[Part]) -> ScanState:
    """
    COMPLETE when all that is required has answered; INCOMPLETE when what is missing failed for
    good; else OPEN.
    """
    missing = [part for part in parts if part.required and not part.done]
    if not missing:
        return ScanState.COMPLETE
    return ScanState.INCOMPLETE if all(part.lost for part in missing) else ScanState.OPEN


def not_asked(parts: Iterable[Part]) -> tuple[str, ...]:
    """
    The required searchers that have not answered; of one that stands for several sources, also
    those that could not be asked: C{feeds (URLhaus, OpenPhish)}.
    """
    return tuple(_named(part) for part in parts if part.required and not part.done)


def _named(part: Part) -> str:
    missing = part.outcome.missing if part.outcome is not None else ()
    if not missing:
        return part.searcher
    more = len(missing) - MAX_NAMED
    told = [*missing[:MAX_NAMED], f"and {more} more"] if more > 0 else missing
    return f"{part.searcher} ({', '.join(told)})"


def backoff_secs(outcome: Outcome, tries: int) -> float:
    """After how long a source that failed, or said "later", is asked again."""
    if outcome.after_secs is not None:
        # What a child process has answered may be no number at all.
        later = outcome.after_secs if outcome.after_secs >= 1.0 else 1.0
        return min(later, MAX_LATER_SECS)
    doubled: float = FIRST_RETRY_SECS * 2 ** min(max(tries, 1) - 1, 16)
    return min(doubled, float(MAX_RETRY_SECS))


@frozen
class Pace:
    """
    How long a search usually takes, and how long this one has run.

    :ivar usual_secs: the moving average of its searcher.
    :ivar elapsed_secs: since this search started; None when it is not running here.
    :ivar due_in_secs: when it waits: until it is asked again.
    """

    usual_secs: float = 1.0
    elapsed_secs: float | None = None
    due_in_secs: float | None = None

    @property
    def expected_secs(self) -> float:
        """In how long something may have changed."""
        if self.due_in_secs is not None:
            return max(self.due_in_secs, 0.0) + self.usual_secs
        elapsed = self.elapsed_secs or 0.0
        # What has overstayed its usual time is asked about ever more rarely.
        return max(self.usual_secs - elapsed, elapsed / 2)


def retry_secs(paces: Sequence[Pace]) -> int:
    """When the platform should ask again: when the first of the pending searches may be done."""
    soonest = min((pace.expected_secs for pace in paces), default=1.0)
    return min(max(ceil(soonest), 1), MAX_RETRY_SECS)


def naming_hit(missing: Sequence[str]) -> tuple[EncodedHit, ...]:
    """
    The hit that names the sources that could not be asked. It holds nothing that changes from one
    rescan to the next while the same sources are away.
    """
    sources = ", ".join(missing)
    return encode_hits([Hit((Property("string", "Incomplete", f"could not be asked: {sources}"),))])


def final_view(
    scan_id: str, parts: Sequence[Part], state: ScanState, when_incomplete: str
) -> ScanView:
    """
    The answer of a finished scan.

    :param when_incomplete: C{resend}, C{tell} or C{ignore}, see the configuration.
    :raises LostScan: it is INCOMPLETE, found nothing and is to be sent again.
    """
    hits = hits_of(parts)
    if state is ScanState.INCOMPLETE:
        missing = not_asked(parts)
        if hits or when_incomplete == "tell":
            hits += naming_hit(missing)
        elif when_incomplete == "resend":
            raise LostScan("could not be asked: " + ", ".join(missing), retry_secs=RESEND_SECS)
    return ScanView(id=scan_id, finished=True, hits=hits)


def merge(outcomes: Sequence[Outcome]) -> Outcome:
    """
    One searcher's outcome over all that it was asked in a scan (an artifact and what derives from
    it): a failure anywhere is a failure of the whole, with the hits that there are.
    """
    if len(outcomes) == 1:
        return outcomes[0]
    hits = tuple(dict.fromkeys(hit for outcome in outcomes for hit in outcome.hits))
    worst = None
    for outcome in outcomes:
        if not outcome.good and (worst is None or outcome.ended is Ended.FAILED):
            worst = outcome
    if worst is None:
        worst = Outcome(Ended.FOUND if hits else Ended.NOTHING)
    return evolve(
        worst,
        hits=hits,
        missing=tuple(dict.fromkeys(name for outcome in outcomes for name in outcome.missing)),
        suppressed=tuple(dict.fromkeys(one for outcome in outcomes for one in outcome.suppressed)),
        suppressed_more=sum(outcome.suppressed_more for outcome in outcomes),
    )
