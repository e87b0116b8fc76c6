"""How the daemon and its searchers are, for monitoring: names and states, and nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import ctsd
from ctsd.interfaces.scanning import IScans, IStatus
from ctsd.states import SearcherState
from ctsd.web.answers import Answer


class Health:
    """
    Answers C{GET /health}.

    :param process: which of several processes this is; empty when there is one.
    """

    def __init__(self, *, status: IStatus, scans: IScans, process: str = "") -> None:
        self._status = status
        self._scans = scans
        self._process = process

    def answer(self, *, leaving: bool) -> Answer:
        """
        200 or 503, as C{/health/ready} says, and why: C{status} is C{ok}; C{degraded} when
        somebody who is listed can't be asked, or C{unavailable}.

        :param leaving: whether load balancers are to turn away.
        """
        trouble = "about to leave" if leaving else self._scans.working()
        searchers = self._status.searchers()
        told = {
            "status": "unavailable" if trouble else _status_of(searchers),
            "trouble": trouble,
            "version": ctsd.__version__,
            "process": self._process,
            "searchers": [_told(state) for state in searchers],
        }
        return Answer(503 if trouble else 200, json.dumps(told).encode("ascii"))


def _status_of(searchers: tuple[SearcherState, ...]) -> str:
    wrong = any(
        one.failing is not None or one.trouble or (one.why_off and (one.mode or one.broken))
        for one in searchers
    )
    return "degraded" if wrong else "ok"


def _told(state: SearcherState) -> dict[str, Any]:
    """What a searcher's trouble is may hold paths and what others said: that is not told."""
    told: dict[str, Any] = {
        "name": state.name,
        "mode": state.mode,
        "required": state.required,
        "state": _state_of(state),
    }
    if state.why_off:
        told["why_off"] = state.why_off
    if state.failing is not None:
        told["failing_since"] = _date(state.failing.since)
        told["failing_last"] = _date(state.failing.last)
    return told


def _date(secs: float) -> str:
    return datetime.fromtimestamp(int(secs), UTC).isoformat().replace("+00:00", "Z")


def _state_of(state: SearcherState) -> str:
    if state.why_off:
        return "off"
    if state.failing is not None:
        return "failing"
    if state.trouble:
        return "trouble"
    return "loading" if state.loading else "on"
