"""Requests to servers of others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from zope.interface import Interface

from ctsd.model import JSON
from ctsd.remote import Download, Remote, Reply

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


class IOutbound(Interface):
    """
    Asks servers of others, within limits, and tells nobody a secret.

    Every Deferred may fail with L{ctsd.errors.OutboundError}: there was no whole answer within
    the time and the size, or a redirect led to where it may not. An answer of any status is no
    failure. Cancelling a Deferred ends the request.
    """

    def request(
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
        """
        Ask, and have the answer in memory. Redirects are followed for C{GET} and C{HEAD} alone.

        :param headers: beside the remote's own; sent to other hosts, too: no secrets.
        :param params: are added to the address' query; gone after a redirect to another host.
        :param data: a form, or a body as it is.
        :param max_bytes: a larger answer is a failure; C{outbound.max_bytes} without it.
        :param total_secs: from now to the whole answer; C{outbound.total_secs} without it.
        """

    def download(
        *,
        remote: Remote,
        into: Path,
        max_bytes: int,
        headers: Mapping[str, str] | None = None,
        total_secs: float | None = None,
    ) -> Deferred[Download]:
        """
        Ask for a file, and have it on the disk, not in memory: as it was sent, still compressed
        when the server compressed it. It waits while another download from the same host runs.

        :param into: a file that is not there yet. It is there, and fsynced, when this fires with
            status 200; in every other case it is not.
        :param max_bytes: a larger file is a failure.
        :param headers: as for L{request}.
        :param total_secs: from the first byte sent; C{outbound.download_secs} without it.
        """
