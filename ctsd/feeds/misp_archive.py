"""
The file that a MISP feed becomes: an archive of its events.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from attrs import frozen

from ctsd.errors import OutboundError
from ctsd.feeds.written import Written

#: A collection of more pages, or a manifest of more events, is refused.
MAX_PARTS: Final = 50_000

_NO_MANIFEST: Final = "its manifest.json is no manifest of a MISP feed"
_TIMESTAMP_CHARS: Final = 100
_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

#: What stands for an event that can't be had: a row that is refused.
_REFUSED: Final = b'{"Event":null}'

_BOM: Final = b"\xef\xbb\xbf"


@frozen(kw_only=True)
class _Event:
    """What a MISP feed's manifest says of an event."""

    timestamp: str | int = 0


@frozen(kw_only=True)
class _EventFile:
    """The file of an event."""

    Event: msgspec.Raw


@frozen
class Manifest:
    """
    What is in a MISP feed's manifest.

    :ivar events: by UUID, what changes when an event does.
    :ivar refused: how many entries are none.
    """

    events: Mapping[str, str]
    refused: int


def read_manifest(body: bytes) -> Manifest:
    """
    A manifest.

    :raises OutboundError: it is none, or has no events.
    """
    try:
        given = msgspec.json.decode(body.removeprefix(_BOM), type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        raise OutboundError(f"{_NO_MANIFEST}: it is no JSON object") from None
    if not given:
        raise OutboundError("its manifest.json names no events")
    if len(given) > MAX_PARTS:
        raise OutboundError(f"it has more than {MAX_PARTS} events")
    read = {uuid: _timestamp(uuid, said) for uuid, said in sorted(given.items())}
    events = {uuid: timestamp for uuid, timestamp in read.items() if timestamp is not None}
    if not events:
        raise OutboundError(f"{_NO_MANIFEST}: nothing in it is an event with a UUID")
    return Manifest(events, len(read) - len(events))


def _timestamp(uuid: str, said: msgspec.Raw) -> str | None:
    """What a manifest says of when an event changed; None when the entry is no event's."""
    try:
        timestamp = str(msgspec.json.decode(said, type=_Event).timestamp)
    except msgspec.DecodeError:
        return None
    sound = _UUID.fullmatch(uuid) and timestamp.isascii() and len(timestamp) <= _TIMESTAMP_CHARS
    return timestamp if sound else None


def _is_event(body: bytes) -> bool:
    try:
        msgspec.json.decode(body.removeprefix(_BOM).decode(), type=_EventFile)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


class Archive(Written):
    """
    The events of a MISP feed.

    :ivar kept: how many there are.
    :ivar refused: how many are gone, or no events.
    """

    def __init__(self, path: Path, before: Path | None, max_bytes: int) -> None:
        super().__init__(path, max_bytes)
        self._before = before
        self._events: Mapping[str, str] = {}
        self.kept = self.refused = 0

    def open(self) -> None:
        """Begin it."""
        super().open()
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED)

    def begin(self, manifest: Manifest) -> list[str]:
        """Take what has not changed from the archive before; those that have to be fetched."""
        self._events = events = manifest.events
        for _ in range(manifest.refused):
            self._refuse()
        if self._before is None:
            return list(events)
        taken: set[str] = set()
        try:
            with zipfile.ZipFile(self._before) as before:
                for member in before.infolist():
                    uuid = member.filename.removesuffix(".json")
                    if member.comment.decode("ascii", "replace") == events.get(uuid):
                        self.take(uuid, before.read(member))
                        taken.add(uuid)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError):
            pass  # what was not taken from it is fetched
        return [uuid for uuid in events if uuid not in taken]

    def take(self, uuid: str, body: bytes | None) -> None:
        """
        The file of an event; None of one that is gone.

        :raises OutboundError: it gets too big.
        """
        if body is None or not _is_event(body):
            self._refuse()
        else:
            self._add(f"{uuid}.json", body, self._events[uuid])
            self.kept += 1

    def _refuse(self) -> None:
        # By its name it is none of the events, and fetched again the next time.
        self._add(f"refused/{self.refused}.json", _REFUSED, "")
        self.refused += 1

    def _add(self, name: str, body: bytes, comment: str) -> None:
        member = zipfile.ZipInfo(name)
        member.compress_type = zipfile.ZIP_DEFLATED
        member.comment = comment.encode("ascii")
        self._zip.writestr(member, body)
        self._check_size()

    def finish(self) -> tuple[int, str]:
        """Its size and its SHA-256; it would survive a power loss."""
        self._zip.close()
        return self._close()

    def discard(self) -> None:
        """Remove it, if it was begun."""
        if self._opened is not None:
            with suppress(OSError, ValueError):  # it may be closed already
                self._zip.close()
        super().discard()
