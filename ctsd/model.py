"""
The words of the field, as frozen values. No behaviour beyond what follows from the fields.

A value that came from outside never shows in a C{repr}: an artifact may be a password.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import NewType

from attrs import field, frozen

#: A JSON value as it was decoded.
JSON = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]

#: One ArtifactHitDTO as the bytes that go to the platform. Only L{ctsd.wire} makes one, once, so
#: that a partial answer, the final one and the store hold the very same bytes.
EncodedHit = NewType("EncodedHit", bytes)

#: The name of the service at the root URL.
ROOT_SERVICE = ""

#: The type whose values are never written anywhere.
PASSWORD = "system.user.password"

#: The type of an uploaded file.
FILE = "file.content"


class Secret(str):
    """A secret of the configuration: a string like any other, but for its C{repr}."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "(secret)"


@frozen(kw_only=True)
class File:
    """
    An uploaded file, or one that C{ctsd scan --file} reads.

    :ivar path: where its bytes are.
    :ivar name: what the client called it, as text of at most 255 characters.
    :ivar content_type: what the client says it is.
    :ivar size: bytes.
    :ivar md5: lower-case hex, as L{sha1} and L{sha256}.
    """

    path: Path
    name: str = field(repr=False)
    size: int
    md5: str = field(repr=False)
    sha1: str = field(repr=False)
    sha256: str = field(repr=False)
    content_type: str = "application/octet-stream"


@frozen
class Artifact:
    """
    What the platform asks about: a ThreatServiceArtifactDTO, perhaps with its file.

    :ivar type: one of protocol's artifact types, e.g. C{net.ip}; or one that is not known.
    :ivar value: its value in the shape that the type has (L{ctsd.artifacts.SHAPES}).
    :ivar file: the file that came along.
    """

    type: str
    value: JSON = field(repr=False)
    file: File | None = None


@frozen
class Property:
    """
    One property of a hit or a threat (ArtifactPropertyDTO).

    :ivar type: C{string}, C{number}, C{uri}, C{ip} or C{lat_lng}.
    """

    type: str
    name: str
    value: JSON


@frozen
class Hit:
    """One finding: its properties, in the order in which they are shown."""

    props: tuple[Property, ...]


@frozen(kw_only=True)
class Threat:
    """
    An entry of the local database.

    :ivar id: the store's number for it; 0 before it is stored.
    :ivar name: e.g. C{PhishTank Record 17}.
    :ivar artifacts: what it is found by.
    :ivar properties: what a hit of it shows.
    :ivar searcher: which searcher stored it; empty when a person entered it.
    :ivar source: the normal form's digest of the artifact that the searcher was asked for
        (L{ctsd.artifacts.digest}); empty when a person entered it.
    :ivar expires: POSIX seconds in store time, or None for never.
    :ivar created: POSIX seconds in store time.
    """

    name: str
    artifacts: tuple[Artifact, ...] = field(default=(), repr=False)
    properties: tuple[Property, ...] = field(default=(), repr=False)
    id: int = 0
    searcher: str = ""
    source: bytes = field(default=b"", repr=False)
    note: str = field(default="", repr=False)
    expires: float | None = None
    created: float = 0.0


class Ended(Enum):
    """How one searcher's part of a scan stands."""

    FOUND = "found"
    NOTHING = "nothing"
    FAILED = "failed"
    LATER = "later"


@frozen
class Suppressed:
    """
    A finding that is no hit, for the scan's history: what was found, not its value.

    :ivar feed: which has it.
    :ivar type: its artifact type.
    :ivar by: the name of the warninglist, or who allowed the value and why.
    """

    feed: str
    type: str
    by: str


@frozen
class Outcome:
    """
    What one searcher made of one scan.

    :ivar hits: for FOUND, at least one.
    :ivar reason: for FAILED and LATER, why; no secrets, no artifact's value.
    :ivar after_secs: for LATER, and for FAILED where the source said so: when to ask again.
    :ivar final: a failure that no further try can mend (C{crashed}, its file is gone).
    :ivar missing: for LATER, where the searcher stands for several sources: the names of those
        that could not be asked.
    :ivar suppressed: what was found and is no hit; C{suppressed_more} counts what is not kept.
    """

    ended: Ended
    hits: tuple[EncodedHit, ...] = field(default=(), repr=False)
    reason: str = ""
    after_secs: float | None = None
    final: bool = False
    missing: tuple[str, ...] = ()
    suppressed: tuple[Suppressed, ...] = ()
    suppressed_more: int = 0

    @property
    def good(self) -> bool:
        """Whether the source was asked and has answered."""
        return self.ended is Ended.FOUND or self.ended is Ended.NOTHING


#: What a source that has nothing on an artifact is: one value, used everywhere.
NOTHING = Outcome(Ended.NOTHING)


class ScanState(Enum):
    """
    Where a scan stands in the store.

    OPEN: it was answered 303 and is not finished. COMPLETE: every required searcher answered.
    INCOMPLETE: its deadline passed before that.
    """

    OPEN = "open"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"


@frozen(kw_only=True)
class Search:
    """
    One searcher's part of a promised scan, as the store keeps it.

    :ivar outcome: the newest outcome, or None before the first.
    :ivar tries: how often it was asked.
    :ivar due: when to ask (again), POSIX seconds in store time; None when it is done.
    :ivar holder: the node and epoch that is asking right now (L{ctsd.interfaces.store.INodeStore});
        empty when none is.
    :ivar takeovers: how often it was taken over from a process that died while asking.
    :ivar deaths: how often a child process that asked for it alone has died.
    """

    searcher: str
    outcome: Outcome | None = None
    tries: int = 0
    due: float | None = None
    holder: str = ""
    takeovers: int = 0
    deaths: int = 0


@frozen(kw_only=True)
class Scan:
    """
    A scan as the store keeps it.

    :ivar id: see L{ctsd.scan_ids}; the 32 hex digits of a UUIDv8.
    :ivar service: the service it belongs to; L{ROOT_SERVICE} for the one with all searchers.
    :ivar digest: L{ctsd.artifacts.digest} of what was asked; empty for passwords.
    :ivar artifact: what was asked, while there may still be somebody to ask; None when the scan
        is complete, and for passwords.
    :ivar searches: in the service's order of searchers.
    :ivar created: POSIX seconds in store time.
    :ivar deadline: when it ends incomplete, POSIX seconds in store time.
    """

    id: str
    service: str
    state: ScanState
    created: float
    deadline: float
    digest: bytes = field(default=b"", repr=False)
    artifact: Artifact | None = None
    searches: tuple[Search, ...] = ()


@frozen(kw_only=True)
class ScanView:
    """
    What can be told about a scan right now.

    :ivar finished: False makes it a 303.
    :ivar retry_secs: whole seconds, at least 1; only meaningful when not finished.
    """

    id: str
    finished: bool
    hits: tuple[EncodedHit, ...] = field(default=(), repr=False)
    retry_secs: int = 5
