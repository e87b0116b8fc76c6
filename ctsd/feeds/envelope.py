"""
The file that a collection of TAXII becomes: all its objects in one envelope, each on a line of its
own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from attrs import evolve, field, frozen

from ctsd.errors import OutboundError
from ctsd.feeds.written import Written

_BEGIN: Final = b'{"objects":[\n'
_END: Final = b"]}"

#: RFC 3339, as TAXII 2.1 wants it (section 2.1), and with an offset, as some servers have it.
#: Others have said C{undefined}, and dates in other formats.
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")
_ADDED_LAST: Final = "x-taxii-date-added-last"

#: What was added so long before the last object that we have is asked for again: servers add
#: several at one time, and not always in order.
_OVERLAP: Final = timedelta(hours=1)

#: As much of it where a page is asked for by date. Servers keep more digits than they tell.
_PAGE_OVERLAP: Final = timedelta(milliseconds=1)

#: What may stand in an envelope without objects. A server that says more means something else.
_ENVELOPE: Final = frozenset({"more", "next", "objects", "type", "id", "spec_version"})
_NO_ENVELOPE: Final = "its answer is no envelope of TAXII 2.1"


@frozen(kw_only=True)
class Page:
    """
    An envelope, OASIS TAXII 2.1, section 3.7.

    :ivar next: empty when there is none.
    :ivar likeness: the same for a page with the same objects.
    """

    more: bool = False
    next: str = ""
    likeness: int = 0
    objects: list[msgspec.Raw] = field(factory=list)


@frozen(kw_only=True)
class _Answer:
    """An envelope as servers write it: null for what is not there, numbers for C{next}."""

    more: bool | None = None
    next: str | int | None = None
    objects: list[msgspec.Raw] | None = None


@frozen(kw_only=True)
class _Object:
    """What is looked at of an object."""

    id: str | None = None


@frozen(kw_only=True)
class Gathered:
    """
    What is known of the objects in a file. It is kept as the file's C{ETag}, so that the same
    objects are the same file.

    :ivar whole: POSIX seconds: when all of the collection was fetched.
    :ivar added: when the last of them was added to it, by its server; empty when it did not say.
    :ivar collection: which collection they are of.
    """

    whole: float = 0.0
    added: str = ""
    collection: str = ""

    @property
    def since(self) -> str:
        """What to ask for as C{added_after}, to miss nothing; empty when that is not possible."""
        return _before(self.added, _OVERLAP)

    @property
    def tag(self) -> str:
        """All of it, as a text."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def of_tag(cls, tag: str) -> Gathered:
        """What L{tag} says; nothing is known by any other text."""
        try:
            return msgspec.json.decode(tag, type=cls)
        except msgspec.DecodeError:
            return cls()

    def later(self, headers: Mapping[str, str], page: Page) -> str:
        """
        C{added} after a further page.

        :param headers: of the answer that it came in.
        """
        if not page.objects:
            return self.added
        said = _before(headers.get(_ADDED_LAST, ""), timedelta())
        return max(said, self.added) if said else ""


def page_after(headers: Mapping[str, str]) -> str:
    """
    What asks for the page after one without a C{next}, as C{added_after}; empty when its server
    does not say. That page begins with the last objects of this one: several may have been added
    at one time, some of them on either side.

    :param headers: of the answer that the page came in.
    """
    return _before(headers.get(_ADDED_LAST, ""), _PAGE_OVERLAP)


def _before(text: str, by: timedelta) -> str:
    """
    A timestamp so much earlier, in UTC and with all digits (OpenTAXII 0.9 wants a fraction); empty
    for what is none.
    """
    if not _TIMESTAMP.fullmatch(text.strip()):
        return ""
    try:
        moment = datetime.fromisoformat(text.strip()).astimezone(UTC) - by
    except (ValueError, OverflowError):
        return ""
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


class Envelope(Written):
    """
    The objects of many envelopes in one. Those of an earlier file come first, but for those of
    which there is something newer: that is the order in which they were added.
    """

    def __init__(self, path: Path, max_bytes: int, before: Path | None = None) -> None:
        """
        :param before: what this made the last time, to begin with.
        """
        super().__init__(path, max_bytes)
        self._before = before
        self._added: BinaryIO | None = None
        self._added_path = path.with_name(f"added-{path.name}")
        self._ids: set[str] = set()
        self._last: set[int] = set()
        self._is_empty = True

    def open(self) -> None:
        """Begin it."""
        super().open()
        self._file.write(_BEGIN)
        if self._before is not None:
            self._added = self._added_path.open("wb+")

    def take(self, body: bytes, *, overlaps: bool = False) -> Page:
        """
        A page.

        :param overlaps: whether it may begin with objects of the page before, which are not taken
            again.
        """
        page = _page_of(body)
        last, self._last = self._last, set()
        likeness = 0
        for one in page.objects:
            # Between tokens a space does as well, and within them there is no end of a line.
            line = bytes(one).replace(b"\n", b" ").replace(b"\r", b" ")
            own = hash(line)
            likeness = hash((likeness, own))
            self._last.add(own)
            if overlaps and own in last:
                continue
            if self._added is None:
                self._write(line)
            else:
                self._ids.update(filter(None, [_id_of(line)]))
                self._added.write(line + b"\n")
        if self._added is not None and self._added.tell() > self._max_bytes:
            raise OutboundError(f"it is larger than {self._max_bytes} bytes")
        self._check_size()
        return evolve(page, likeness=likeness)

    def finish(self) -> tuple[int, str]:
        """Its size and its SHA-256; it would survive a power loss."""
        if self._added is not None:
            assert self._before is not None
            for line in _lines(self._before):
                if _id_of(line) not in self._ids:
                    self._write(line)
                    self._check_size()
            self._added.seek(0)
            for line in self._added:
                self._write(line.rstrip(b"\n"))
            self._drop_added()
        self._file.write(b"\n" + _END)
        return self._close()

    def discard(self) -> None:
        """Remove it, if it was begun."""
        self._drop_added()
        super().discard()

    def _write(self, line: bytes) -> None:
        if not self._is_empty:
            self._file.write(b",\n")
        self._file.write(line)
        self._is_empty = False

    def _drop_added(self) -> None:
        if self._added is not None:
            with suppress(OSError):
                self._added.close()
            self._added = None
            self._added_path.unlink(missing_ok=True)


def _lines(path: Path) -> Iterator[bytes]:
    """The objects in a file that an L{Envelope} was."""
    with path.open("rb") as opened:
        opened.read(len(_BEGIN))
        for line in opened:
            if line.startswith(_END):
                return
            if line.strip():
                yield line.rstrip(b"\n").removesuffix(b",")


def _page_of(body: bytes) -> Page:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        # An error, a collection, whatever a proxy says: no list of nothing.
        if answer.objects is None and msgspec.json.decode(body, type=dict).keys() - _ENVELOPE:
            raise OutboundError(_NO_ENVELOPE)
    except msgspec.DecodeError:
        raise OutboundError(_NO_ENVELOPE) from None
    more_at = "" if answer.next is None else str(answer.next)
    return Page(more=bool(answer.more), next=more_at, objects=answer.objects or [])


def _id_of(line: bytes) -> str | None:
    try:
        return msgspec.json.decode(line, type=_Object).id
    except msgspec.DecodeError:
        return None
