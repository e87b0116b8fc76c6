"""Whether a directory can hold the daemon's state, seen without making anything."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def why_unusable(directory: Path) -> str:
    """Why a directory can't be used, or not be made; empty when nothing speaks against it."""
    try:
        if directory.is_dir():
            return _closed(directory, "is not ours to read and write")
        if os.path.lexists(directory):
            return f"{directory} is no directory"
        parent = next(one for one in directory.parents if os.path.lexists(one))
        if not parent.is_dir():
            return f"{directory} can't be made: {parent} is no directory"
        return _closed(parent, f"is not ours to make {directory.name} in")
    except OSError as error:
        return f"{directory}: {error.strerror}"


def _closed(directory: Path, why: str) -> str:
    open_to_us = os.access(directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)
    return "" if open_to_us else f"{directory} {why}"


def others_write(directory: Path) -> str:
    """A warning when others than its owner may write to a directory; else empty."""
    try:
        mode = directory.stat().st_mode
    except OSError:
        return ""
    exposed = mode & (stat.S_IWGRP | stat.S_IWOTH)
    return f"others may write to {directory} (chmod go-w)" if exposed else ""
