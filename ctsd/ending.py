"""The signals that end a process of ours, before anything has to be stopped in order."""

from __future__ import annotations

import os
import signal

#: What ends us.
ENDINGS = (signal.SIGTERM, signal.SIGINT)


def end_early() -> None:
    """From now on each of these signals ends the process at once, with status 0."""
    for ending in ENDINGS:
        signal.signal(ending, _end)


def _end(number: int, frame: object) -> None:
    # An exception could be caught.
    os._exit(0)
