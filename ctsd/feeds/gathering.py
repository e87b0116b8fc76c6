"""
Feeds that are not one file: MISP's, with a file for each event, and collections of TAXII. Each
becomes one file, as a parser reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ctsd.errors import OutboundError, Unreached
from ctsd.feeds.envelope import Envelope, Gathered, Page
from ctsd.feeds.job import InThread
from ctsd.feeds.misp_archive import MAX_PARTS, Archive, read_manifest
from ctsd.interfaces.outbound import IOutbound
from ctsd.remote import Download, Remote, Reply

#: The largest page of a collection, and the largest manifest and event.
PART_MAX_BYTES: Final = 64 << 20

#: OASIS TAXII 2.1, section 1.6.8.
_TAXII: Final = "application/taxii+json;version=2.1"
_ADDED_LAST: Final = "x-taxii-date-added-last"

#: Statuses that a server may have for C{added_after} alone: it does not know it, or has nothing.
_NOT_SINCE: Final = frozenset({400, 404, 406, 416, 422})

#: How long one part may take.
_PART_SECS: Final = 300.0


class Gathering:
    """Fetches such a feed; one part after the other, in C{total_secs} all in all."""

    _log = Logger()

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

    async def taxii(
        self,
        remote: Remote,
        into: Path,
        *,
        max_bytes: int,
        now: float,
        whole_every_secs: float = 0.0,
        before: Path | None = None,
        tag: str = "",
    ) -> Download:
        """
        All objects of a collection, in one envelope: fetched, or those that were there before, but
        for those that were added or changed since, which are fetched.

        :param remote: the collection, without C{objects/}.
        :param into: as for L{IOutbound.download}, as is what is returned.
        :param now: POSIX seconds.
        :param whole_every_secs: so often all of them are fetched: nobody tells of objects that are
            taken out of a collection.
        :param before: what this made the last time, if it did; C{tag} is the C{ETag} that it gave
            it then.
        :raises OutboundError: a page could not be had, or there is no end to them.
        """
        asked = evolve(remote, url=remote.url.rstrip("/") + "/objects/")
        late = self._deadline()
        known = Gathered.of_tag(tag)
        since = known.since
        if before is not None and since and 0 <= now - known.whole < whole_every_secs:
            answer = await self._pages(
                asked, Envelope(into, max_bytes, before), late, known, {"added_after": since}
            )
            if answer.status not in _NOT_SINCE:
                return answer
        return await self._pages(asked, Envelope(into, max_bytes), late, Gathered(whole=now), {})

    async def _pages(
        self,
        asked: Remote,
        writer: Envelope,
        late: float,
        known: Gathered,
        wanted: Mapping[str, str],
    ) -> Download:
        """
        Fetch a collection, page by page.

        :param wanted: the parameters of each request.
        """
        params = dict(wanted)
        seen: set[tuple[str, ...]] = set()
        try:
            await self._in_thread(writer.open)
            for _ in range(MAX_PARTS):
                reply = await self._get(asked, late, params, {"Accept": _TAXII})
                if reply.status != 200:
                    await self._in_thread(writer.discard)
                    return Download(status=reply.status, headers=reply.headers, url=reply.url)
                page = await self._in_thread(writer.take, reply.body)
                known = evolve(known, added=known.later(reply.headers, page))
                further = _further(page, reply.headers)
                if not further:
                    size, sha256 = await self._in_thread(writer.finish)
                    return Download(
                        status=200,
                        headers={"etag": known.tag},
                        url=reply.url,
                        size=size,
                        sha256=sha256,
                    )
                params = {**wanted, **further}
                if tuple(params.values()) in seen:
                    raise OutboundError("its pages lead in a circle")
                seen.add(tuple(params.values()))
            raise OutboundError(f"it has more than {MAX_PARTS} pages")
        except BaseException as error:
            await self._in_thread(writer.discard)
            raise _told(error, begun=bool(seen)) from None

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
        archive before. One that is gone, or none, leaves a file there that parsers refuse, so that
        the guards see how many there are.

        :param remote: the directory of C{manifest.json}.
        :param headers: the conditions for the manifest.
        :param before: what this made the last time, if it did.
        :raises OutboundError: one of them could not be had, or none is there.
        """
        base = remote.url.rstrip("/")
        late = self._deadline()
        reply = await self._get(evolve(remote, url=base + "/manifest.json"), late, {}, headers)
        if reply.status == 404:
            raise OutboundError("it has no manifest.json (404): url has to be where that lies")
        if reply.status != 200:
            return Download(status=reply.status, headers=reply.headers, url=reply.url)
        manifest = await self._in_thread(read_manifest, reply.body)
        archive = Archive(into, before, max_bytes)
        try:
            await self._in_thread(archive.open)
            wanted = await self._in_thread(archive.begin, manifest)
            for uuid in wanted:
                event = await self._get(evolve(remote, url=f"{base}/{uuid}.json"), late, {}, {})
                if event.status not in (200, 404):
                    raise OutboundError(f"it answered {event.status} for event {uuid}")
                # One that is gone since is not in the next manifest.
                body = event.body if event.status == 200 else None
                await self._in_thread(archive.take, uuid, body)
            if not archive.kept:
                raise OutboundError("none of the events of its manifest.json is there")
            if archive.refused:
                self._log.warn(
                    "{url}: {refused} events are left out: they are gone (404), or no events",
                    url=reply.url,
                    refused=archive.refused,
                )
            size, sha256 = await self._in_thread(archive.finish)
        except BaseException as error:
            await self._in_thread(archive.discard)
            raise _told(error, begun=True) from None
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


def _told(error: BaseException, *, begun: bool) -> BaseException:
    """
    An error of the disk in the words of a download; others as they are.

    :param begun: whether the server has answered before.
    """
    if isinstance(error, OSError):
        return OutboundError(f"it could not be written: {error.strerror}")
    if begun and isinstance(error, Unreached):
        return OutboundError(error.reason)
    return error


def _further(page: Page, headers: Mapping[str, str]) -> dict[str, str]:
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
