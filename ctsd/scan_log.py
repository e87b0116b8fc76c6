"""One log line a scan, written in batches: a line by itself costs more than the scan."""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: Lines are written this long after the first of a batch, or when there are so many.
FLUSH_SECS = 0.25
MAX_LINES = 1000


class ScanLog:
    """
    Collects what is logged of scans: id, service, type, outcome, seconds; no artifact's value.

    :param enabled: False to log none of it.
    """

    _log = Logger()

    def __init__(self, *, clock: IReactorTime, enabled: bool = True) -> None:
        self._clock = clock
        self._enabled = enabled
        self._lines: list[tuple[str, str, str, str, int, float]] = []
        self._flush_at: IDelayedCall | None = None

    def add(
        self, *, scan_id: str, service: str, type: str, outcome: str, hits: int, secs: float
    ) -> None:
        """Note a scan that has ended."""
        if not self._enabled:
            return
        self._lines.append((scan_id, service, type, outcome, hits, secs))
        if len(self._lines) >= MAX_LINES:
            self.flush()
        elif self._flush_at is None:
            self._flush_at = self._clock.callLater(FLUSH_SECS, self.flush)

    def flush(self) -> None:
        """Write what there is."""
        if self._flush_at is not None:
            if self._flush_at.active():
                self._flush_at.cancel()
            self._flush_at = None
        lines, self._lines = self._lines, []
        if lines:
            self._log.info("{lines}", lines="\n".join(map(_line, lines)), scans=len(lines))


def _line(entry: tuple[str, str, str, str, int, float]) -> str:
    scan_id, service, type, outcome, hits, secs = entry
    # The type came from outside, and one that we don't know may hold anything.
    shown = type[:60].encode("unicode_escape", "surrogatepass").decode("ascii")
    return (
        f"scan {scan_id} service=/{service} type={shown} outcome={outcome} "
        f"hits={hits} secs={secs:.4f}"
    )
