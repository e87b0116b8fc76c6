"""
Feeds that are not one file: MISP's, with a file for each event, and collections of TAXII. Each
becomes one file, as a parser reads it.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from attrs import evolve, field, frozen
from twisted.internet.interfaces import IReactorTime

from ctsd.errors import OutboundError
from ctsd.feeds.job import InThread
from ctsd.interfaces import IOutbound
from ctsd.remote import Download, Remote, Reply

#: A collection of more pages, or a manifest of more events, is refused.
MAX_PARTS: Final = 50_000

#: The largest page of a collection, and the largest manifest and event.
PART_MAX_BYTES: Final = 64 << 20

#: OASIS TAXII 2.1, section 1.6.8.
_TAXII: Final = "application/taxii+json;version=2.1"
_ADDED_LAST: Final = "x-taxii-date-added-last"

_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

#: How long one part may take.
_PART_SECS: Final = 300.0


@frozen(kw_only=True)
class _Page:
    """An envelope, OASIS TAXII 2.1, section 3.7."""

    more: bool = False
    next: str | None = None
    objects: list[msgspec.Raw] = field(factory=list)


@frozen(kw_only=True)
class _Event:
    """What a MISP feed's manifest says of an event."""

    timestamp: str | int = 0


class Gathering:
    """Fetches such a feed; one part after the other, in C{total_secs} all in all."""

    def __init__(
        self,
        *,
        outbound: IOutbound,
        clock: IReactorTime,
        in_thread: InThread,
        total_secs: float,
    ) -> None:
        self._outbound = outbound
        self._clock = clock
        self._in_thread = in_thread
        self._total_secs = total_secs

    async def taxii(self, remote: Remote, into: Path, *, max_bytes: int) -> Download:
        """
        All objects of a collection, in one envelope.

        :param remote: the collection, without C{objects/}.
        :param into: as for L{IOutbound.download}, as is what is returned.
        :raises OutboundError: a page could not be had, or there is no end to them.
        """
        asked = evolve(remote, url=remote.url.rstrip("/") + "/objects/")
        late = self._deadline()
        writer = _Envelope(into, max_bytes)
        params: dict[str, str] = {}
        seen: set[tuple[str, ...]] = set()
        try:
            await self._in_thread(writer.open)
            for _ in range(MAX_PARTS):
                reply = await self._get(asked, late, params, {"Accept": _TAXII})
                if reply.status != 200:
                    await self._in_thread(writer.discard)
                    return Download(status=reply.status, headers=reply.headers, url=reply.url)
                page = await self._in_thread(writer.take, reply.body)
                params = _further(page, reply.headers)
                if not params:
                    size, sha256 = await self._in_thread(writer.finish)
                    return Download(status=200, url=reply.url, size=size, sha256=sha256)
                if tuple(params.values()) in seen:
                    raise OutboundError("its pages lead in a circle")
                seen.add(tuple(params.values()))
            raise OutboundError(f"it has more than {MAX_PARTS} pages")
        except BaseException as error:
            await self._in_thread(writer.discard)
            raise _told(error) from None

    async def misp(
        self,
        remote: Remote,
        into: Path,
        *,
        max_bytes: int,
        headers: Mapping[str, str],
        before: Path | None,
    ) -> Download:
        """
        All events, each a file in one zip archive. Those that have not changed are taken from the
        archive before.

        :param remote: the directory of C{manifest.json}.
        :param headers: the conditions for the manifest.
        :param before: what this made the last time, if it did.
        :raises OutboundError: one of them could not be had.
        """
        base = remote.url.rstrip("/")
        late = self._deadline()
        reply = await self._get(evolve(remote, url=base + "/manifest.json"), late, {}, headers)
        if reply.status != 200:
            return Download(status=reply.status, headers=reply.headers, url=reply.url)
        events = await self._in_thread(_events, reply.body)
        archive = _Archive(into, before, max_bytes)
        try:
            await self._in_thread(archive.open)
            wanted = await self._in_thread(archive.begin, events)
            for uuid in wanted:
                event = await self._get(evolve(remote, url=f"{base}/{uuid}.json"), late, {}, {})
                # It is gone since: the next manifest does not have it.
                if event.status != 404:
                    if event.status != 200:
                        raise OutboundError(f"it answered {event.status} for an event")
                    await self._in_thread(archive.take, uuid, event.body)
            size, sha256 = await self._in_thread(archive.finish)
        except BaseException as error:
            await self._in_thread(archive.discard)
            raise _told(error) from None
        return Download(status=200, headers=reply.headers, url=reply.url, size=size, sha256=sha256)

    def _deadline(self) -> float:
        return self._clock.seconds() + self._total_secs

    async def _get(
        self,
        remote: Remote,
        late: float,
        params: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> Reply:
        left = late - self._clock.seconds()
        if left <= 0:
            raise OutboundError(f"not all of it within {self._total_secs:g} s")
        return await self._outbound.request(
            remote=remote,
            params=params or None,
            headers=headers,
            max_bytes=PART_MAX_BYTES,
            total_secs=min(left, _PART_SECS),
        )


def _told(error: BaseException) -> BaseException:
    """An error of the disk in the words of a download; others as they are."""
    if isinstance(error, OSError):
        return OutboundError(f"it could not be written: {error.strerror}")
    return error


def _further(page: _Page, headers: Mapping[str, str]) -> dict[str, str]:
    """
    The parameters that ask for the page after this one; none after the last.

    :raises OutboundError: it does not say.
    """
    if not page.more:
        return {}
    if page.next:
        return {"next": page.next}
    # A server that knows no C{next} goes by dates: section 3.4.
    added = headers.get(_ADDED_LAST, "")
    if not added:
        raise OutboundError("it has more pages, and does not say how to ask for them")
    return {"added_after": added}


def _events(body: bytes) -> dict[str, str]:
    """
    The events of a manifest, with what changes when they do.

    :raises OutboundError: it is none.
    """
    try:
        given = msgspec.json.decode(body, type=dict[str, _Event])
    except msgspec.DecodeError:
        raise OutboundError("its manifest.json is no manifest of a MISP feed") from None
    if len(given) > MAX_PARTS:
        raise OutboundError(f"it has more than {MAX_PARTS} events")
    for uuid in given:
        if not _UUID.fullmatch(uuid):
            raise OutboundError("its manifest.json names an event that has no UUID")
    return {uuid: str(event.timestamp) for uuid, event in sorted(given.items())}


class _Written:
    """A file in the making. Everything blocks, and raises L{OutboundError} when it gets too big."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._opened: BinaryIO | None = None

    def open(self) -> None:
        """Begin it."""
        self._opened = self._path.open("xb")

    @property
    def _file(self) -> BinaryIO:
        assert self._opened is not None
        return self._opened

    def _check_size(self) -> None:
        if self._file.tell() > self._max_bytes:
            raise OutboundError(f"it is larger than {self._max_bytes} bytes")

    def _close(self) -> tuple[int, str]:
        self._file.flush()
        self._check_size()
        os.fsync(self._file.fileno())
        self._file.close()
        with self._path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256")
            return opened.tell(), digest.hexdigest()

    def discard(self) -> None:
        """Remove it, if it was begun."""
        if self._opened is not None:
            with suppress(OSError):
                self._opened.close()
            self._path.unlink(missing_ok=True)


class _Envelope(_Written):
    """The objects of many envelopes in one."""

    _is_empty = True

    def open(self) -> None:
        """Begin it."""
        super().open()
        self._file.write(b'{"objects":[')

    def take(self, body: bytes) -> _Page:
        """A page."""
        try:
            page = msgspec.json.decode(body, type=_Page)
        except msgspec.DecodeError:
            raise OutboundError("its answer is no envelope of TAXII 2.1") from None
        for one in page.objects:
            if not self._is_empty:
                self._file.write(b",\n")
            self._file.write(one)
            self._is_empty = False
        self._check_size()
        return page

    def finish(self) -> tuple[int, str]:
        """Its size and its SHA-256; it would survive a power loss."""
        self._file.write(b"]}")
        return self._close()


class _Archive(_Written):
    """The events of a MISP feed."""

    def __init__(self, path: Path, before: Path | None, max_bytes: int) -> None:
        super().__init__(path, max_bytes)
        self._before = before
        self._events: Mapping[str, str] = {}

    def open(self) -> None:
        """Begin it."""
        super().open()
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED)

    def begin(self, events: Mapping[str, str]) -> list[str]:
        """Take what has not changed from the archive before; those that have to be fetched."""
        self._events = events
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

    def take(self, uuid: str, body: bytes) -> None:
        """An event."""
        member = zipfile.ZipInfo(f"{uuid}.json")
        member.compress_type = zipfile.ZIP_DEFLATED
        member.comment = self._events[uuid].encode("ascii")
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
