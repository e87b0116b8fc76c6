"""
Has feeds' new files parsed in child processes, so that the guards know what is in them; and indexed
at once, for those that are taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import asdict, evolve
from twisted.internet.defer import DeferredLock

from ctsd.feeds.array_file import clear_scratch
from ctsd.feeds.children import Children
from ctsd.feeds.descriptions import Description
from ctsd.feeds.feed_file import FeedAbout
from ctsd.feeds.guards import Counts
from ctsd.feeds.job import BuildFailed
from ctsd.feeds.key_store import key_label, source_label
from ctsd.feeds.reading import Reading, made_of

_MODULE = "ctsd.feeds.examine"


class Examinations:
    """Examines files (L{ctsd.feeds.visit.Examine}), one at a time."""

    def __init__(self, *, children: Children, lock: DeferredLock) -> None:
        """
        :param lock: held while one is parsed.
        """
        self._children = children
        self._lock = lock
        # It reads files: once, before there is somebody to hold up.
        self._label = key_label()
        self._source_label = source_label()

    async def __call__(
        self,
        description: Description,
        path: Path,
        *,
        max_unpacked_bytes: int,
        sha256: str = "",
        index: Path | None = None,
    ) -> Counts:
        """See L{ctsd.feeds.visit.Examine}. A warninglist has no index of this kind."""
        reading = evolve(Reading.of(description, path), max_bytes=max_unpacked_bytes)
        about = FeedAbout(
            name=description.name,
            label=self._label,
            source=made_of(description, sha256=sha256, label=self._source_label),
        )
        if description.is_warninglist:
            index = None

        def gone(process: int | None) -> None:
            if index is not None:
                clear_scratch(index, process)

        await self._lock.acquire()
        try:
            found: Mapping[str, Any] = await self._children.run(
                _MODULE,
                {
                    "reading": reading.as_json(),
                    "about": asdict(about),
                    "index": None if index is None else str(index),
                },
                gone=gone,
            )
        finally:
            self._lock.release()
        try:
            return Counts(rows=found["rows"], refused=found["refused"], records=found["records"])
        except (KeyError, TypeError) as error:
            raise BuildFailed("it gave an answer of another version") from error
