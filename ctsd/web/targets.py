"""
What a path means: a service, one of its scans, or nothing.

Slashes may be doubled, missing or at the end, everywhere: each form is answered directly, since a
redirect would read as "not finished" to the platform.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from urllib.parse import unquote_to_bytes

from attrs import frozen

from ctsd.model import ROOT_SERVICE

_ID = re.compile(r"[0-9a-f]{32}")
_ABSOLUTE = re.compile(rb"https?://[^/?]*", re.IGNORECASE)

#: The first part of the paths of what the page is made of.
CONSOLE = "console"


class Kind(Enum):
    """What may be asked at a target."""

    SERVICE = "service"
    SCAN = "scan"
    READY = "ready"
    HEALTH = "health"
    PAGE = "page"
    NOTHING = "nothing"


@frozen
class Target:
    """
    What a request is about.

    :ivar service: its name, for SERVICE, SCAN and what PAGE tells about a scan.
    :ivar scan_id: 32 hex digits, for SCAN and PAGE; nobody says that they are a scan's.
    :ivar path: decoded and without doubled slashes, for SCAN, PAGE and NOTHING.
    """

    kind: Kind
    service: str = ROOT_SERVICE
    scan_id: str = ""
    path: str = ""


ROOT = Target(Kind.SERVICE)
_READY = Target(Kind.READY)
_HEALTH = Target(Kind.HEALTH, path="/health")


def segments_of(target: bytes) -> list[str]:
    """The parts of a request target's path that are not empty, percent-decoded once."""
    if not target.startswith(b"/"):
        target = _ABSOLUTE.sub(b"", target, count=1)
    path = target.partition(b"?")[0]
    if b"%" in path:
        path = unquote_to_bytes(path)
    return [segment for segment in path.decode("utf-8", "replace").split("/") if segment]


def find_target(target: bytes, has_service: Callable[..., bool]) -> Target:
    """
    What a request target means.

    :param has_service: L{ctsd.interfaces.scanning.IScans.has_service}. A service comes before
        an id of the root service that looks the same.
    """
    if target == b"/":
        return ROOT
    segments = segments_of(target)
    if not segments or segments == ["*"]:
        return ROOT
    first, *rest = segments
    path = "/" + "/".join(segments)
    if has_service(service=first):
        if not rest:
            return Target(Kind.SERVICE, first)
        if len(rest) == 1 and _ID.fullmatch(rest[0]):
            return Target(Kind.SCAN, first, rest[0], path)
    elif not rest and _ID.fullmatch(first):
        return Target(Kind.SCAN, ROOT_SERVICE, first, path)
    elif segments == ["health", "ready"]:
        return _READY
    elif segments == ["health"]:
        return _HEALTH
    elif first == CONSOLE:
        return _of_page(rest, path, has_service)
    return Target(Kind.NOTHING, path=path)


def _of_page(rest: list[str], path: str, has_service: Callable[..., bool]) -> Target:
    """C{scan/[<service>/]<id>}, or the name of something that the page is made of."""
    if rest[:1] != ["scan"]:
        return Target(Kind.PAGE, path=path)
    *names, scan_id = rest[1:] or [""]
    service = "/".join(names)
    if _ID.fullmatch(scan_id) and (service == ROOT_SERVICE or has_service(service=service)):
        return Target(Kind.PAGE, service, scan_id, path)
    return Target(Kind.NOTHING, path=path)
