"""
Whether a new file of a feed may be taken. Feeds are emptied, moved and replaced by pages of HTML,
with status 200; then the last good copy is better than the new one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from attrs import frozen

from ctsd.feeds.feed_state import Copy
from ctsd.feeds.job import Refused
from ctsd.feeds.parsers.unpacking import unpacked
from ctsd.feeds.providers import Provider

#: A small file may grow by more than its ratio: an empty list of records compresses well.
_ALWAYS_BYTES: Final = 16 << 20

_HEAD_BYTES: Final = 4096

# The first thing in it that is no comment; as text, for UTF-8's and UTF-16's marks are no part.
_HTML: Final = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|script|meta)\b",
    re.IGNORECASE | re.DOTALL,
)


@frozen(kw_only=True)
class Counts:
    """
    What a parser made of a file.

    :ivar rows: how many there were.
    :ivar refused: of these, could not be read.
    :ivar records: indicators.
    """

    rows: int
    refused: int
    records: int


def unpacked_limit(provider: Provider, size: int) -> int:
    """How many bytes may come out of a file of this size."""
    grown = max(_ALWAYS_BYTES, int(size * provider.max_ratio))
    return min(provider.max_unpacked_bytes, grown)


def check_file(path: Path, provider: Provider) -> None:
    """
    Look at the beginning of a file. Blocks, and reads little.

    :raises OSError: it can't be read.
    :raises Refused: it is empty, a page of HTML, or can't be unpacked.
    """
    size = path.stat().st_size
    with unpacked(path, max_bytes=unpacked_limit(provider, size), member="*") as streams:
        for stream in streams:
            check_head(stream.read(_HEAD_BYTES))
            return
    raise Refused("there is nothing in it")


def check_head(head: bytes) -> None:
    """
    Look at the first bytes of what is in a file.

    :raises Refused: it is empty, or a page of HTML.
    """
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = head.decode(encoding, "replace")
    if not text.strip():
        raise Refused("it is empty")
    if _HTML.match(text):
        raise Refused("it is a page of HTML")


def check_rows(counts: Counts, *, least: int, most_refused: float) -> None:
    """
    Compare what is in a file with limits: those of its description, or, when a copy that was
    taken is indexed anew, with those that it has passed.

    :param least: fewer records are refused.
    :param most_refused: the share of rows that may not be readable.
    :raises Refused: it has too little in it, or too much that can't be read.
    """
    if counts.records < least:
        raise Refused(f"{counts.records} records; at least {least} are expected (min_rows)")
    if counts.refused > counts.rows * most_refused:
        raise Refused(
            f"{counts.refused} of {counts.rows} rows can't be read;"
            f" up to {most_refused:.0%} may (max_refused_share)"
        )


def check_counts(counts: Counts, provider: Provider, last: Copy | None) -> None:
    """
    Compare what is in a file with what has to be.

    :param last: the last good copy, if any.
    :raises Refused: it has too little in it, or too much that can't be read.
    """
    check_rows(counts, least=provider.min_rows, most_refused=provider.max_refused_share)
    if last is not None and counts.records < last.records * provider.min_share:
        raise Refused(
            f"{counts.records} records after {last.records}; at least"
            f" {provider.min_share:.0%} of them are expected (min_share)"
        )
