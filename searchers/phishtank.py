"""
PhishTank (U{https://www.phishtank.com}): URLs that people have verified as phishing.

The feed C{phishtank}, where it is on. Else a file, PhishTank's C{online-valid.csv}, which somebody
has to keep current; a small made-up one is shipped. How either is read is told by the catalogue of
feeds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ctsd.searching import (
    BaseArtifactSearch,
    Found,
    IFeeds,
    IRecords,
    SearcherSetup,
    answer_of,
    look_up,
)

#: The feed, and its description in the catalogue.
FEED: Final = "phishtank"

#: The file that is shipped.
SAMPLE: Final = Path(__file__).parent / "data" / "verified_online.csv"

#: More hits than these are counted, not shown.
MAX_HITS: Final = 10


class PhishTankArtifactSearch(BaseArtifactSearch):
    """Finds URLs of PhishTank's."""

    name = "phishtank"
    local = True
    keys = {"file": str}

    _source: IFeeds | IRecords
    _feed: IFeeds | None
    _records: IRecords

    def start(self, setup: SearcherSetup) -> None:
        """Have the file indexed; or take the feed, where no file is named and it is on."""
        file = setup.settings.get("file")
        self._feed = None if file else setup.feed(FEED)
        if self._feed is not None:
            self._source = self._feed
            return
        self._records = setup.described(setup.path(file) if file else SAMPLE, FEED)
        self._source = self._records

    def trouble(self) -> str:
        """What is wrong with the file or the feed."""
        return self._source.trouble()

    def loading(self) -> bool:
        """Whether it is being indexed for the first time."""
        return self._source.loading()

    def failed(self) -> bool:
        """Whether there is no index, and the file can't be indexed."""
        return self._feed is None and self._records.failed()

    def describe(self) -> str:
        """How many records there are."""
        return self._source.describe()

    @classmethod
    def supports(cls, artifact_type: str) -> bool:
        """URLs."""
        return artifact_type == "net.uri"

    async def search(self, artifact_type: str, search_term: str, **kwargs: Any) -> Found | None:
        """
        The records whose URL equals a whole URL, or contains a part of one.

        :raises SearchLater: the file was never loaded.
        """
        if self._feed is not None:
            context = kwargs.get("context")
            return look_up(self._feed, artifact_type, search_term, context, tells_parts=False)
        return answer_of(self._records.find(type=artifact_type, value=search_term, limit=MAX_HITS))
