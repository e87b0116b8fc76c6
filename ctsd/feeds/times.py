"""When a provider may be asked, and when it will be. Pure; times are POSIX seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import evolve

from ctsd.feeds.feed_state import FeedState
from ctsd.feeds.providers import Provider
from ctsd.remote import retry_after_secs

#: What a provider asks for by C{Retry-After} is followed up to this.
PATIENCE_SECS: Final = 86400.0

_FIRST_RETRY_SECS: Final = 60.0
_MOST_RETRY_SECS: Final = 6 * 3600.0
_LEAST_MOST_RETRY_SECS: Final = 3600.0
_MOST_UNREACHED_RETRY_SECS: Final = 900.0

#: Requests are late by up to this share of their interval, so that not all come at once.
_JITTER: Final = 0.1


def righted(state: FeedState, *, now: float) -> FeedState:
    """
    A state in which nothing is later than it can be: whoever wrote it may have had a wall clock
    that was wrong. What was asked in the future was asked now, and a copy of the future is of now:
    else it would not grow old for as long as that clock was ahead.
    """
    copy = state.copy
    if copy is not None and copy.checked > now:
        copy = evolve(copy, checked=now, fetched=min(copy.fetched, now))
    return evolve(
        state,
        copy=copy,
        tried=min(state.tried, now),
        not_before=min(state.not_before, now + PATIENCE_SECS),
    )


def wait_secs(state: FeedState, provider: Provider, *, now: float) -> float:
    """
    How long nobody may ask a provider, whoever wants it: its own minimum since the last request,
    and what it asked for.

    :param state: L{righted}.
    """
    return max(0.0, state.tried + _least_secs(state, provider) - now, state.not_before - now)


def _least_secs(state: FeedState, provider: Provider) -> float:
    # Who tried without reaching it had waited for that before.
    return 0.0 if state.unreached else provider.min_interval_secs


def is_due(state: FeedState, provider: Provider, *, now: float) -> bool:
    """Whether it is time to ask for a feed."""
    return not due_secs(state, provider, now=now)


def due_secs(state: FeedState, provider: Provider, *, now: float) -> float:
    """In how long it is time to ask for a feed; 0: now."""
    if righted(state, now=now) != state:
        return 0.0  # whoever asks puts it right
    # What was written down may be from before somebody wanted it more often.
    longest = (
        provider.every_secs if not state.failures else max(provider.every_secs, _MOST_RETRY_SECS)
    )
    due = min(state.due, state.tried + longest * (1 + _JITTER))
    return max(0.0, due - now, wait_secs(state, provider, now=now))


def next_time(provider: Provider, *, now: float, chance: float) -> float:
    """
    When to ask after it went well.

    :param chance: from 0 to 1.
    """
    return now + provider.every_secs * (1 + _JITTER * chance)


def retry_time(state: FeedState, provider: Provider, *, now: float, chance: float) -> float:
    """
    When to ask after C{state.failures} failures in a row: a minute after the first, then twice as
    long each time, up to how often it is asked for anyway (at least an hour, at most six); up to a
    quarter of an hour when nothing was sent to it, for then it is our network that is away.
    """
    most = min(max(provider.every_secs, _LEAST_MOST_RETRY_SECS), _MOST_RETRY_SECS)
    if state.unreached:
        most = _MOST_UNREACHED_RETRY_SECS
    doubled = _FIRST_RETRY_SECS * 2.0 ** min(max(state.failures - 1, 0), 30)
    secs = max(min(doubled, most), _least_secs(state, provider)) * (1 + _JITTER * chance)
    return max(now + secs, min(state.not_before, now + PATIENCE_SECS))


def wanted_pause_secs(
    status: int, headers: Mapping[str, str], provider: Provider, *, now: float
) -> float | None:
    """
    How long a provider wants no request, by its answer; None when it did not say.

    C{Retry-After} counts with every status; PhishTank says C{X-Request-Limit-Interval: 300
    Seconds} with its 509 (https://www.phishtank.com/api_info.php).
    """
    said = retry_after_secs(headers.get("retry-after", ""), now=now)
    if said is None and is_over_quota(status, provider):
        first = headers.get("x-request-limit-interval", "").strip().partition(" ")[0]
        said = retry_after_secs(first, now=now)
    return None if said is None else min(said, PATIENCE_SECS)


def is_over_quota(status: int, provider: Provider) -> bool:
    """Whether an answer means that the provider was asked too often."""
    return status == 429 or status in provider.over_quota
