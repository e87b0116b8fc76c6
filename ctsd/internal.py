"""
The local database as a searcher: one's own intelligence, and what other searchers found.
"""

from __future__ import annotations

from typing import Any

from ctsd.artifacts import SHAPES
from ctsd.interfaces import IRecords
from ctsd.model import FILE, JSON, PASSWORD
from ctsd.records import Indexed
from ctsd.searcher import BaseArtifactSearch, Found, SearchContext, SearcherSetup

#: More hits than these are counted, not shown.
MAX_HITS = 10


class InternalArtifactSearch(BaseArtifactSearch):
    """
    Finds the threats of the local database whose artifacts match.

    A hit is the threat's name, then its properties. What a searcher found for this very artifact
    is left to that searcher when it is asked in the same scan: it would be there twice, or after
    the source has taken it back. What a service keeps to itself no other service sees.
    """

    name = "internal"
    local = True

    _threats: IRecords

    def start(self, setup: SearcherSetup) -> None:
        """Get the local database's index."""
        self._threats = setup.threats()

    def trouble(self) -> str:
        """What is wrong with the index."""
        return self._threats.trouble()

    def loading(self) -> bool:
        """Whether the index is not there yet."""
        return self._threats.loading()

    def failed(self) -> bool:
        """Whether the index can't be had."""
        return self._threats.failed()

    def describe(self) -> str:
        """How many threats there are."""
        return self._threats.describe()

    @classmethod
    def supports(cls, artifact_type: str) -> bool:
        """
        Whatever can be stored: no password, and no file's bytes (its hashes and name can).
        """
        return artifact_type in SHAPES and artifact_type not in (FILE, PASSWORD)

    async def search(self, artifact_type: str, search_term: JSON, **kwargs: Any) -> Found | None:
        """
        At most L{MAX_HITS} threats, and how many more there are; None when there are none.

        :raises SearchLater: the index is not there yet, or can't be current.
        """
        context: SearchContext = kwargs["context"]

        def wanted(record: Indexed) -> bool:
            scope, _, searcher = record.searcher.rpartition("/")
            if scope and scope != context.scope:
                return False
            return record.source != context.source or searcher not in context.asked

        matches = self._threats.find(
            type=artifact_type,
            value=search_term,
            limit=MAX_HITS,
            wanted=wanted,
        )
        if not matches.records and not matches.more:
            return None
        return Found(
            tuple([record.hit for record in matches.records]), matches.more, matches.at_least
        )
