"""
Warninglists that are downloaded as feeds are: where L{ctsd.feeds.list_files.ListFiles} finds the
newest copy of each, under a name that does not change.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ctsd.feeds.list_files import LIST_NAME


def link_lists(directory: Path, copies: Mapping[str, Path]) -> None:
    """
    Have C{<directory>/<name>/list.json} lead to each copy, and to no other. Blocks.

    :param copies: by a feed's name.
    :raises OSError: that can't be done.
    """
    if not copies and not directory.exists():
        return
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, path in copies.items():
        link = directory / name / LIST_NAME
        if link.is_symlink() and os.readlink(link) == str(path):
            continue
        link.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = link.with_name(f".{LIST_NAME}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(path)
        fresh.replace(link)
    for other in directory.iterdir():
        if other.name not in copies:
            (other / LIST_NAME).unlink(missing_ok=True)
