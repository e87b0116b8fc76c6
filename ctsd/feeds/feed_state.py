"""How a feed stands, and what is known of a copy of it: what C{feed.json} holds."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Copy:
    """
    A file of a feed as its provider packed it. Times are POSIX seconds.

    :ivar file: its name in the feed's directory.
    :ivar sha256: in hexadecimal.
    :ivar fetched: when it was the provider's newest for the first time, as far as we know.
    :ivar checked: when the provider last said that it still is.
    :ivar url: where it came from, for people; of an imported one the file's name.
    :ivar source: the description's address that C{etag} and C{last_modified} belong to.
    :ivar rows: of the file; C{refused} of them could not be read.
    :ivar records: indicators that they make.
    :ivar reason: why it was refused; empty for a good one.
    """

    file: str
    size: int
    sha256: str
    fetched: float
    checked: float
    url: str = ""
    source: str = ""
    etag: str = ""
    last_modified: str = ""
    rows: int = 0
    refused: int = 0
    records: int = 0
    reason: str = ""


@frozen(kw_only=True)
class FeedState:
    """
    How a feed stands. Times are POSIX seconds; 0 is never.

    :ivar copy: the newest good one.
    :ivar refused: the newest that was refused after that, kept for L{Copies.accept}.
    :ivar tried: when its provider was asked last.
    :ivar unreached: whether nothing was sent to it then.
    :ivar not_before: the provider wants no request before that.
    :ivar due: when it is to be asked again.
    :ivar failures: how many times in a row that came to nothing.
    :ivar error: what went wrong the last time; empty when nothing did.
    :ivar token: the fencing token of the newest lease under which this was written; 0: of none.
    """

    copy: Copy | None = None
    refused: Copy | None = None
    tried: float = 0.0
    unreached: bool = False
    not_before: float = 0.0
    due: float = 0.0
    failures: int = 0
    error: str = ""
    token: int = 0
