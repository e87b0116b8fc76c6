"""Builds what asks servers of others, and what keeps feeds current, as the configuration says."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable
from typing import Any

import ctsd
from ctsd.config.outbound import OutboundSettings
from ctsd.config.settings import Settings
from ctsd.errors import OutboundError
from ctsd.feeds import contents
from ctsd.feeds.copies import Copies
from ctsd.feeds.descriptions import Description
from ctsd.feeds.download import Downloads
from ctsd.feeds.feed_state import Copy
from ctsd.feeds.gathering import Gathering
from ctsd.feeds.turns import Turns
from ctsd.feeds.updates import Updates
from ctsd.feeds.visit import Examine
from ctsd.interfaces.outbound import IOutbound
from ctsd.interfaces.threads import InThread
from ctsd.outbound.connecting import Proxy
from ctsd.outbound.limits import Limits
from ctsd.outbound.outbound import Outbound
from ctsd.records import IndexLimits, LookupLimits


def outbound_limits(given: OutboundSettings) -> Limits:
    """C{[outbound]}, as L{Outbound} goes by it."""
    proxy = None
    if given.proxy is not None:
        user, password = given.proxy.user, given.proxy_password or ""
        shown = base64.b64encode(f"{user}:{password}".encode())
        proxy = Proxy(
            host=given.proxy.host,
            port=given.proxy.port,
            authorization=b"Basic " + shown if user or password else b"",
        )
    return Limits(
        connect_secs=given.connect_secs,
        total_secs=given.total_secs,
        stall_secs=given.stall_secs,
        download_secs=given.download_secs,
        max_bytes=given.max_bytes,
        head_max_bytes=given.max_head_bytes,
        keep_free_bytes=given.keep_free_bytes,
        max_redirects=given.max_redirects,
        max_downloads=given.max_downloads,
        user_agent=given.user_agent or f"ctsd/{ctsd.__version__} (custom threat service)",
        proxy=proxy,
        no_proxy=given.no_proxy,
        ca_file=given.ca_file,
    )


def content_limits(settings: Settings) -> contents.Limits:
    """How much of a text or a message is looked at, by C{[matching]}."""
    given = settings.matching
    return contents.Limits(
        text_chars=given.max_text_chars,
        message_bytes=given.max_message_bytes,
        parts=given.max_parts,
        found=given.max_indicators,
        certificate_bytes=given.max_certificate_bytes,
    )


def lookup_limits(settings: Settings) -> LookupLimits:
    """What bounds a search in feeds, by C{[matching]}, and whether an incomplete one is told."""
    return LookupLimits(
        max_recipients=settings.matching.max_recipients,
        max_suppressed=settings.matching.max_suppressed,
        tells_cut=settings.when_incomplete != "ignore",
    )


def index_limits(settings: Settings) -> IndexLimits:
    """What bounds a search in an index that is not one of feeds, by C{[matching]}."""
    given = settings.matching
    return IndexLimits(
        occurrences=given.max_occurrences,
        counted=given.max_counted,
        derived=given.max_derived,
        passed_over=given.max_passed_over,
    )


def make_outbound(settings: Settings, *, reactor: Any, in_thread: InThread) -> IOutbound:
    """
    Asks servers of others.

    :raises ConfigError: C{outbound.ca_file} can't be used.
    """
    limits = outbound_limits(settings.outbound)
    try:
        return Outbound(reactor=reactor, limits=limits, in_thread=in_thread)
    except OutboundError as error:
        raise settings.document.error(("outbound", "ca_file"), error.reason) from None


def make_downloads(
    settings: Settings,
    *,
    clock: Any,
    outbound: IOutbound,
    examine: Examine,
    in_thread: InThread,
) -> Downloads:
    """
    Brings feeds into L{Settings.feeds_dir}, for the daemon and for commands beside it.

    :param examine: such as L{ctsd.feeds.examinations.Examinations}.
    """
    return Downloads(
        directory=settings.feeds_dir,
        outbound=outbound,
        gathering=Gathering(
            outbound=outbound,
            clock=clock,
            in_thread=in_thread,
            total_secs=settings.outbound.download_secs,
        ),
        examine=examine,
        in_thread=in_thread,
        now=time.time,
        chance=random.random,
    )


def make_updates(
    downloads: Downloads,
    *,
    clock: Any,
    in_thread: InThread,
    taken: Callable[[Description, Copies, Copy], object],
    turns: Turns | None = None,
) -> Updates:
    """
    Keeps feeds current; not started, and of no feeds yet (L{Updates.replace}).

    :param taken: as C{turns}, see L{Updates}.
    """
    return Updates(
        clock=clock,
        downloads=downloads,
        in_thread=in_thread,
        now=time.time,
        chance=random.random,
        taken=taken,
        turns=turns,
    )
