"""
The file that a collection of TAXII becomes: all its objects in one envelope, each on a line of its
own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from attrs import field, frozen

from ctsd.errors import OutboundError
from ctsd.feeds.written import Written

_BEGIN: Final = b'{"objects":[\n'
_END: Final = b"]}"

#: RFC 3339, as TAXII 2.1 wants it (section 2.2.4). Servers have said C{undefined}, and dates in
#: other formats.
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z")

#: What was added so long before the last object that we have is asked for again: servers add
#: several at one time, and not always in order.
_OVERLAP: Final = timedelta(hours=1)


@frozen(kw_only=True)
class Page:
    """An envelope, OASIS TAXII 2.1, section 3.7."""

    more: bool = False
    next: str | None = None
    objects: list[msgspec.Raw] = field(factory=list)


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
    """

    whole: float = 0.0
    added: str = ""

    @property
    def since(self) -> str:
        """What to ask for as C{added_after}, to miss nothing; empty when that is not possible."""
        if not self.added:
            return ""
        try:
            since = datetime.fromisoformat(self.added) - _OVERLAP
        except (ValueError, OverflowError):
            return ""
        return f"{since:%Y-%m-%dT%H:%M:%S.%f}Z"

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
        said = headers.get("x-taxii-date-added-last", "").strip()
        return max(said, self.added) if _TIMESTAMP.fullmatch(said) else ""


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
        self._is_empty = True

    def open(self) -> None:
        """Begin it."""
        super().open()
        self._file.write(_BEGIN)
        if self._before is not None:
            self._added = self._added_path.open("wb+")

    def take(self, body: bytes) -> Page:
        """A page."""
        try:
            page = msgspec.json.decode(body, type=Page)
        except msgspec.DecodeError:
            raise OutboundError("its answer is no envelope of TAXII 2.1") from None
        for one in page.objects:
            # Between tokens a space does as well, and within them there is no end of a line.
            line = bytes(one).replace(b"\n", b" ").replace(b"\r", b" ")
            if self._added is None:
                self._write(line)
            else:
                self._ids.update(filter(None, [_id_of(line)]))
                self._added.write(line + b"\n")
        if self._added is not None and self._added.tell() > self._max_bytes:
            raise OutboundError(f"it is larger than {self._max_bytes} bytes")
        self._check_size()
        return page

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


def _id_of(line: bytes) -> str | None:
    try:
        return msgspec.json.decode(line, type=_Object).id
    except msgspec.DecodeError:
        return None
