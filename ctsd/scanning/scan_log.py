"""One log line a scan, written in batches: a line by itself costs more than the scan."""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ctsd.model import JSON, PASSWORD, Artifact

#: Id, service, type, outcome, hits, seconds, value.
_Entry = tuple[str, str, str, str, int, float, JSON]

#: Lines are written this long after the first of a batch, or when there are so many.
FLUSH_SECS = 0.25
MAX_LINES = 1000


class ScanLog:
    """
    Collects what is logged of scans: id, service, type, outcome, seconds; no artifact's value.

    :param values: whether values are logged, too; those of passwords never are.
    """

    _log = Logger()

    def __init__(self, *, clock: IReactorTime, values: bool = False) -> None:
        self._clock = clock
        self._values = values
        self._lines: list[_Entry] = []
        self._flush_at: IDelayedCall | None = None

    def add(
        self,
        *,
        scan_id: str,
        service: str,
        artifact: Artifact,
        outcome: str,
        hits: int,
        secs: float,
    ) -> None:
        """Note a scan that has ended."""
        value = artifact.value if self._values and artifact.type != PASSWORD else None
        self._lines.append((scan_id, service, artifact.type, outcome, hits, secs, value))
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


def _line(entry: _Entry) -> str:
    scan_id, service, type, outcome, hits, secs, value = entry
    line = (
        f"scan {scan_id} service=/{service} type={_escaped(type, 60)} outcome={outcome} "
        f"hits={hits} secs={secs:.4f}"
    )
    return line if value is None else f"{line} value={_escaped(str(value), 300)}"


def _escaped(text: str, max_chars: int) -> str:
    # It came from outside, and may hold anything.
    return text[:max_chars].encode("unicode_escape", "surrogatepass").decode("ascii")
