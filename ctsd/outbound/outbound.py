"""Asks servers of others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore
from twisted.logger import Logger
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from ctsd.errors import OutboundError
from ctsd.interfaces.outbound import IOutbound
from ctsd.interfaces.threads import InThread
from ctsd.model import JSON
from ctsd.outbound.bodies import InMemory, OnDisk, gunzip
from ctsd.outbound.exchange import Exchange, Question
from ctsd.outbound.hops import first_hop
from ctsd.outbound.limits import Limits
from ctsd.outbound.trust import make_policy
from ctsd.remote import Download, Remote, Reply


@implementer(IOutbound)
class Outbound:
    """See L{IOutbound}."""

    _log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        limits: Limits,
        in_thread: InThread,
        policy: IPolicyForHTTPS | None = None,
    ) -> None:
        """
        :param in_thread: for files and decompression.
        :param policy: what certificates have to be like; made from C{limits.ca_file} without it.
        """
        self._reactor = reactor
        self._limits = limits
        self._in_thread = in_thread
        self._policy = policy if policy is not None else make_policy(limits.ca_file)
        self._downloads = DeferredSemaphore(limits.max_downloads)
        # One lock a host that is being asked for a file or waits for that.
        self._hosts: dict[str, DeferredLock] = {}
        if limits.proxy is not None:
            self._log.warn(
                "Requests go through {proxy}, which resolves names itself: whether a feed or a "
                "redirect leads to a private address can't be checked here",
                proxy=limits.proxy,
            )

    def request(
        self,
        *,
        remote: Remote,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | bytes | None = None,
        json: JSON = None,
        max_bytes: int | None = None,
        total_secs: float | None = None,
    ) -> Deferred[Reply]:
        """See L{IOutbound}."""
        question = Question(
            remote=remote,
            method=method,
            headers=headers or {},
            params=params,
            data=data,
            json=json,
        )
        return Deferred.fromCoroutine(
            self._request(
                question,
                self._limits.max_bytes if max_bytes is None else max_bytes,
                self._limits.total_secs if total_secs is None else total_secs,
            )
        )

    async def _request(self, question: Question, max_bytes: int, total_secs: float) -> Reply:
        exchange = self._exchange(question, total_secs)
        try:
            head = await exchange.head()
            sink = InMemory()
            await exchange.read(head, sink, max_bytes)
        finally:
            exchange.close()
        body = sink.value
        if head.encoding in ("gzip", "x-gzip"):
            body = await self._in_thread(gunzip, body, max_bytes)
        elif head.encoding:
            raise OutboundError("its answer is compressed in a way that nobody asked for")
        return Reply(status=head.status, headers=head.headers, url=head.url, body=body)

    def download(
        self,
        *,
        remote: Remote,
        into: Path,
        max_bytes: int,
        headers: Mapping[str, str] | None = None,
        total_secs: float | None = None,
    ) -> Deferred[Download]:
        """See L{IOutbound}."""
        question = Question(remote=remote, headers=headers or {}, accept_encoding=b"gzip")
        return Deferred.fromCoroutine(
            self._in_turn(
                question,
                into,
                max_bytes,
                self._limits.download_secs if total_secs is None else total_secs,
            )
        )

    async def _in_turn(
        self, question: Question, into: Path, max_bytes: int, total_secs: float
    ) -> Download:
        host = first_hop(question.remote, {}).host
        lock = self._hosts.setdefault(host, DeferredLock())
        await lock.acquire()
        try:
            await self._downloads.acquire()
            try:
                return await self._download(question, into, max_bytes, total_secs)
            finally:
                self._downloads.release()
        finally:
            lock.release()
            if not lock.locked:
                self._hosts.pop(host, None)

    async def _download(
        self, question: Question, into: Path, max_bytes: int, total_secs: float
    ) -> Download:
        exchange = self._exchange(question, total_secs)
        sink = OnDisk(into, self._in_thread, keep_free_bytes=self._limits.keep_free_bytes)
        size, sha256 = 0, ""
        whole = False
        try:
            head = await exchange.head()
            if head.status == 200:
                if head.encoding not in ("", "gzip", "x-gzip"):
                    raise OutboundError("its file is compressed in a way that nobody asked for")
                await exchange.read(head, sink, max_bytes)
                size, sha256 = await sink.finish()
            whole = head.status == 200
        finally:
            exchange.close()
            if not whole:
                await sink.discard()
        return Download(
            status=head.status, headers=head.headers, url=head.url, size=size, sha256=sha256
        )

    def _exchange(self, question: Question, total_secs: float) -> Exchange:
        return Exchange(
            question,
            reactor=self._reactor,
            limits=self._limits,
            policy=self._policy,
            total_secs=total_secs,
            stall_secs=self._limits.stall_secs,
        )
