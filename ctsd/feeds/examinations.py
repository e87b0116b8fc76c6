"""Has feeds' new files parsed in child processes, so that the guards know what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import DeferredLock

from ctsd.feeds.children import Children
from ctsd.feeds.descriptions import Description
from ctsd.feeds.guards import Counts
from ctsd.feeds.job import BuildFailed

_MODULE = "ctsd.feeds.examine"


class Examinations:
    """Examines files (L{ctsd.feeds.visit.Examine}), one at a time."""

    def __init__(self, *, children: Children, lock: DeferredLock) -> None:
        """
        :param lock: held while one is parsed.
        """
        self._children = children
        self._lock = lock

    async def __call__(
        self, description: Description, path: Path, *, max_unpacked_bytes: int
    ) -> Counts:
        """See L{ctsd.feeds.visit.Examine}."""
        await self._lock.acquire()
        try:
            found: Mapping[str, Any] = await self._children.run(
                _MODULE,
                {
                    "path": str(path),
                    "layout": dict(description.given),
                    "title": description.title,
                    "max_bytes": max_unpacked_bytes,
                },
            )
        finally:
            self._lock.release()
        try:
            return Counts(rows=found["rows"], refused=found["refused"], records=found["records"])
        except (KeyError, TypeError) as error:
            raise BuildFailed("it gave an answer of another version") from error
