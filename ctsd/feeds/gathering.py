"""
Feeds that are not one file: MISP's, with a file for each event, and collections of TAXII. Each
becomes one file, as a parser reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ctsd.errors import OutboundError, Unreached
from ctsd.feeds.envelope import Envelope, Gathered, Page, page_after
from ctsd.feeds.misp_archive import MAX_PARTS, Archive, read_manifest
from ctsd.feeds.taxii import find_collection, told_collections
from ctsd.interfaces.outbound import IOutbound
from ctsd.interfaces.threads import InThread
from ctsd.remote import Download, Remote, Reply

#: The largest page of a collection, and the largest manifest and event.
PART_MAX_BYTES: Final = 64 << 20

#: OASIS TAXII 2.1, section 1.6.8.
_TAXII: Final = {"Accept": "application/taxii+json;version=2.1"}

#: Statuses that a server may have for C{added_after} alone: it does not know it, or has nothing.
_NOT_SINCE: Final = frozenset({400, 404, 406, 416, 422})

#: Those for a C{next} that it knows no more: medallion 3 forgets it after 30 s, and at a restart.
_NOT_NEXT: Final = frozenset({400, 404, 410, 416, 422})

#: Statuses that say nothing of what is there.
_NOT_NOW: Final = frozenset({200, 401, 403, 406, 429, 503})

#: What statuses mean here, sections 3.4, 5.2 and 5.4.
_MEANT: Final = {
    400: "it does not take the question (400); it may want another page_objects",
    403: "this user may not read the collection (403)",
    404: "there is no such collection, or this user may not read it (404)",
    406: "it does not speak TAXII 2.1 (406)",
}

_CIRCLE: Final = "its pages lead in a circle"
_CROWDED: Final = (
    "more of its objects were added at one time than stand on a page: page_objects has to be larger"
)

#: How long one part may take.
_PART_SECS: Final = 300.0


class _Asking:
    """Asks for one part after the other, in C{total_secs} all in all."""

    def __init__(self, outbound: IOutbound, clock: IReactorTime, total_secs: float) -> None:
        self._outbound = outbound
        self._clock = clock
        self._total_secs = total_secs
        self._late = clock.seconds() + total_secs
        self._begun = False

    async def __call__(
        self,
        remote: Remote,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
    ) -> Reply:
        """
        Its answer.

        :raises Unreached: nothing was sent to it, nor to anybody before.
        :raises OutboundError: it can't be had.
        """
        left = self._late - self._clock.seconds()
        if left <= 0:
            raise OutboundError(f"not all of it within {self._total_secs:g} s")
        try:
            reply = await self._outbound.request(
                remote=remote,
                params=params or None,
                headers=headers,
                max_bytes=PART_MAX_BYTES,
                total_secs=min(left, _PART_SECS),
            )
        except Unreached as error:
            if self._begun:
                raise OutboundError(error.reason) from None
            raise
        self._begun = True
        return reply


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
        collection: str = "",
        page_objects: int = 0,
        whole_every_secs: float = 0.0,
        before: Path | None = None,
        tag: str = "",
    ) -> Download:
        """
        All objects of a collection, in one envelope: fetched, or those that were there before, but
        for those that were added or changed since, which are fetched.

        :param remote: the collection, without C{objects/}; with C{collection} a discovery or an
            API root.
        :param into: as for L{IOutbound.download}, as is what is returned.
        :param now: POSIX seconds.
        :param collection: its id, alias or title.
        :param page_objects: how many are asked for at once; 0: as many as the server likes.
        :param whole_every_secs: so often all of them are fetched: nobody tells of objects that are
            taken out of a collection.
        :param before: what this made the last time, if it did; C{tag} is the C{ETag} that it gave
            it then.
        :raises OutboundError: a page could not be had, or there is no end to them.
        """
        asking = self._asking()

        async def ask(asked: Remote) -> Reply:
            return await asking(asked, _TAXII)

        found = await find_collection(remote, collection, ask) if collection else remote
        if isinstance(found, Reply):
            if found.status == 406:
                raise OutboundError(_MEANT[406])
            return Download(status=found.status, headers=found.headers, url=found.url)
        asked = evolve(found, url=found.url.rstrip("/") + "/objects/")
        new = Gathered(whole=now, collection=sha256(asked.url.encode()).hexdigest()[:16])
        known = Gathered.of_tag(tag)
        since = known.since if known.collection == new.collection else ""
        # OASIS' own server, medallion 3, answers 500 to a C{next} without a C{limit}.
        wanted = {"limit": str(page_objects)} if page_objects else {}
        if before is not None and since and 0 <= now - known.whole < whole_every_secs:
            answer = await self._pages(
                asked,
                Envelope(into, max_bytes, before),
                asking,
                known,
                {**wanted, "added_after": since},
            )
            if answer.status not in _NOT_SINCE:
                return answer
        answer = await self._pages(asked, Envelope(into, max_bytes), asking, new, wanted)
        if answer.status not in _NOT_NOW and not collection:
            there = await told_collections(remote, ask)
            if there:
                raise OutboundError(f"url is not a collection's, say which by collection: {there}")
        if answer.status in _MEANT:
            raise OutboundError(_MEANT[answer.status])
        return answer

    async def _pages(
        self,
        asked: Remote,
        writer: Envelope,
        asking: _Asking,
        known: Gathered,
        wanted: Mapping[str, str],
    ) -> Download:
        """
        Fetch a collection, page by page.

        :param wanted: the parameters of each request.
        """
        params = dict(wanted)
        # What came the last time that the same was asked: medallion 3 has one C{next} for all
        # pages, and goes on all the same.
        seen: dict[tuple[str, ...], int] = {}
        try:
            await self._in_thread(writer.open)
            for _ in range(MAX_PARTS):
                reply = await asking(asked, _TAXII, params)
                if reply.status in _NOT_NEXT and "next" in params:
                    raise OutboundError(f"it no longer knows its own next page ({reply.status})")
                if reply.status != 200:
                    await self._in_thread(writer.discard)
                    return Download(status=reply.status, headers=reply.headers, url=reply.url)
                by_date = bool(seen) and "next" not in params
                page = await self._in_thread(writer.take, reply.body, overlaps=by_date)
                known = evolve(known, added=known.later(reply.headers, page))
                further = _further(page, reply.headers)
                if not further:
                    size, digest = await self._in_thread(writer.finish)
                    return Download(
                        status=200,
                        headers={"etag": known.tag},
                        url=reply.url,
                        size=size,
                        sha256=digest,
                    )
                question = tuple(params.values())
                if seen.get(question) == page.likeness:
                    raise OutboundError(_CIRCLE if page.next else _CROWDED)
                seen[question] = page.likeness
                params = {**wanted, **further}
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
        archive before. One that is gone, or none, leaves a file there that parsers refuse, so that
        the guards see how many there are.

        :param remote: the directory of C{manifest.json}.
        :param headers: the conditions for the manifest.
        :param before: what this made the last time, if it did.
        :raises OutboundError: one of them could not be had, or none is there.
        """
        base = remote.url.rstrip("/")
        asking = self._asking()
        reply = await asking(evolve(remote, url=base + "/manifest.json"), headers)
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
                event = await asking(evolve(remote, url=f"{base}/{uuid}.json"), {})
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
            size, digest = await self._in_thread(archive.finish)
        except BaseException as error:
            await self._in_thread(archive.discard)
            raise _told(error) from None
        return Download(status=200, headers=reply.headers, url=reply.url, size=size, sha256=digest)

    def _asking(self) -> _Asking:
        return _Asking(self._outbound, self._clock, self._total_secs)


def _told(error: BaseException) -> BaseException:
    """An error of the disk in the words of a download; others as they are."""
    if isinstance(error, OSError):
        return OutboundError(f"it could not be written: {error.strerror}")
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
    # A server that knows no C{next} goes by dates: section 3.5.
    since = page_after(headers)
    if not since:
        raise OutboundError("it has more pages, and does not say how to ask for them")
    return {"added_after": since}
