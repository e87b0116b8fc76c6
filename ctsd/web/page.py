"""
The page for people: what this daemon is made of, and artifacts asked by hand.

A browser gets it at C{/}, with what it is made of below C{/console/}. Its script asks like the
platform does, by the protocol's own routes; what the protocol does not tell, which searchers
there are and how each one's search stands, it reads from C{/console/state} and
C{/console/scan/[<service>/]<id>}.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import ctsd
from ctsd.interfaces.scanning import IScans, IStatus
from ctsd.states import SearcherState, SearchState
from ctsd.web.answers import NO_CONTENT, Answer
from ctsd.web.targets import CONSOLE, Kind, Target

_COMMON = (
    b"X-Content-Type-Options: nosniff\r\n"
    b"Referrer-Policy: same-origin\r\n"
    b"Cross-Origin-Resource-Policy: same-origin\r\n"
)

# What the page may do: load its own script, style and icon, and ask the daemon it came from.
# `require-trusted-types-for` makes the browser refuse to turn any text into markup.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)

_DOCUMENT = (
    _COMMON
    + b"Content-Security-Policy: "
    + _POLICY.encode()
    + b"\r\nCross-Origin-Opener-Policy: same-origin\r\n"
    + b"Permissions-Policy: camera=(), geolocation=(), microphone=()\r\n"
)

# The files of the page, each with its type and headers.
_FILES = {
    "index.html": (b"text/html; charset=utf-8", _DOCUMENT),
    "page.js": (b"text/javascript; charset=utf-8", _COMMON),
    "answer.js": (b"text/javascript; charset=utf-8", _COMMON),
    "ask.js": (b"text/javascript; charset=utf-8", _COMMON),
    "text.js": (b"text/javascript; charset=utf-8", _COMMON),
    "page.css": (b"text/css; charset=utf-8", _COMMON),
    "page.svg": (b"image/svg+xml", _COMMON),
}


def wants_page(*, method: bytes, target: Target, accept: bytes) -> bool:
    """
    Whether a request is for the page or a part of it.

    :param accept: its C{Accept}: at the root a browser's names C{text/html}; whoever doesn't ask
        for that, as curl, is not meant.
    """
    if method != b"GET" and method != b"HEAD":
        return False
    if target.kind is Kind.PAGE:
        return True
    if target.kind is not Kind.SERVICE or target.service:
        return False
    kinds = (each.partition(b";")[0].strip().lower() for each in accept.split(b","))
    return b"text/html" in kinds


class Page:
    """
    Answers for the page, for all listeners that have it.

    The values in them are JSON, which the script shows as text alone.

    :param process: which of several processes this is; empty when there is one.
    """

    def __init__(self, *, status: IStatus, scans: IScans, process: str = "") -> None:
        self._process = process
        self._status = status
        self._scans = scans
        static = resources.files("ctsd.web") / "static"
        self._files = {
            name: Answer(200, (static / name).read_bytes(), headers, kind)
            for name, (kind, headers) in _FILES.items()
        }

    async def answer(self, target: Target) -> Answer:
        """
        The page, or the part of it that a target names; 204 when it has no such part.

        :raises NoSuchScan: see L{IStatus.searches}.
        :raises Unavailable: the store is away.
        """
        if target.kind is Kind.SERVICE:
            return self._files["index.html"]
        if target.scan_id:
            return _told(
                await self._status.searches(service=target.service, scan_id=target.scan_id)
            )
        name = target.path.removeprefix(f"/{CONSOLE}/")
        if name == "state":
            return self._state()
        return self._files.get(name, NO_CONTENT)

    def _state(self) -> Answer:
        """What there is: the daemon, its searchers, its services."""
        return _json(
            {
                "version": ctsd.__version__,
                "process": self._process,
                "trouble": self._scans.working(),
                "searchers": [_searcher(state) for state in self._status.searchers()],
                "services": [
                    {"name": name, "searchers": names}
                    for name, names in self._status.services().items()
                ],
            }
        )


def _searcher(state: SearcherState) -> dict[str, Any]:
    return {
        "name": state.name,
        "mode": state.mode,
        "on": not state.why_off,
        "why_off": state.why_off,
        "broken": state.broken,
        "required": state.required,
        "loading": state.loading,
        "trouble": state.trouble,
        "about": state.about,
    }


def _told(searches: tuple[SearchState, ...]) -> Answer:
    return _json({"searches": [_search(state) for state in searches]})


def _search(state: SearchState) -> dict[str, Any]:
    outcome = state.outcome
    due = state.due_in_secs
    return {
        "searcher": state.searcher,
        "required": state.required,
        "ended": outcome and outcome.ended.value,
        "hits": len(outcome.hits) if outcome else 0,
        "reason": outcome.reason if outcome else "",
        "final": outcome.final if outcome else False,
        "missing": outcome.missing if outcome else (),
        "suppressed": [
            {"feed": one.feed, "type": one.type, "by": one.by}
            for one in (outcome.suppressed if outcome else ())
        ],
        "suppressed_more": outcome.suppressed_more if outcome else 0,
        "tries": state.tries,
        "running": state.running,
        "due_in_secs": None if due is None else round(due),
    }


def _json(value: dict[str, Any]) -> Answer:
    # As ASCII: whatever a searcher says, lone surrogates too, can be sent.
    return Answer(200, json.dumps(value).encode("ascii"), _COMMON)
