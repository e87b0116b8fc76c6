"""
What is wrong with a source, in a small file beside its index: for who looks from another process.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from attrs import asdict, frozen

_MAX_BYTES = 65536


@frozen
class Told:
    """
    What the daemon has said last of a source.

    :ivar trouble: empty when all is well.
    :ivar source: what the source was then (L{ctsd.feeds.job.source_of}); empty: whatever it is.
    """

    trouble: str = ""
    source: str = ""


def _beside(index: Path) -> Path:
    return index.with_name(f"{index.name}.trouble")


def write_told(index: Path, told: Told) -> None:
    """
    Keep what was told of an index's source; nothing is kept of one that is well.

    :raises OSError: it can't be written.
    """
    path = _beside(index)
    if not told.trouble:
        path.unlink(missing_ok=True)
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        fresh.write_text(json.dumps(asdict(told)), encoding="ascii")
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def read_told(index: Path) -> Told:
    """What was told last; that all is well when nothing is kept, or nothing that can be read."""
    try:
        with _beside(index).open("rb") as opened:
            given = json.loads(opened.read(_MAX_BYTES))
        return Told(trouble=str(given["trouble"]), source=str(given["source"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Told()
