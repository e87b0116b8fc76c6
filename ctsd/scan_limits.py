"""What bounds a scan."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class ScanLimits:
    """
    What bounds a scan.

    :ivar first_answer_secs: the longest an async searcher holds the first answer.
    :ivar post_deadline_secs: the longest anything holds it.
    :ivar scan_deadline_secs: when a scan that misses a source ends incomplete.
    :ivar when_incomplete: C{resend}, C{tell} or C{ignore}.
    :ivar retention_secs: how long an answer can be asked for.
    :ivar max_scans: how many scans may be in flight.
    :ivar keep_file_secs: how long a scan's file is kept.
    :ivar recent_max_bytes: how much of the newest answers is kept in memory.
    """

    first_answer_secs: float = 1.0
    post_deadline_secs: float = 3.0
    scan_deadline_secs: float = 86400.0
    when_incomplete: str = "resend"
    retention_secs: float = 30 * 86400.0
    max_scans: int = 10_000
    keep_file_secs: float = 3600.0
    recent_max_bytes: int = 32 * 2**20
