"""
The local database as searchers: one's own intelligence, and what other searchers found. C{internal}
looks an artifact up, C{internal_text} what stands within a text or a message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ctsd.answering import MAX_HITS, Found, answer_of, some_recipients
from ctsd.artifacts import SHAPES, derived
from ctsd.interfaces.feeds import IThreats
from ctsd.model import FILE, JSON, PASSWORD, Artifact
from ctsd.records import Derived, Indexed, Within
from ctsd.search_context import SearchContext
from ctsd.searcher import BaseArtifactSearch
from ctsd.searcher_setup import SearcherSetup
from ctsd.text_search import TextArtifactSearch


class InternalArtifactSearch(BaseArtifactSearch):
    """
    Finds the threats of the local database whose artifacts match.

    A hit is the threat's name, then its properties. What a searcher found for this very artifact
    is left to that searcher when it is asked in the same scan: it would be there twice, or after
    the source has taken it back. What a service keeps to itself no other service sees.
    """

    name = "internal"
    local = True

    _threats: IThreats

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
        limits = self._threats.limits
        term, cut = some_recipients(artifact_type, search_term, limits.max_recipients)
        matches = self._threats.find(
            type=artifact_type, value=term, limit=MAX_HITS, wanted=_wanted_in(kwargs["context"])
        )
        return answer_of(matches, cut=cut, tells_cut=limits.tells_cut)


class InternalTextArtifactSearch(TextArtifactSearch):
    """
    Finds the threats of the local database that something within an artifact finds.

    What is wanted is what L{InternalArtifactSearch} wants; what that one shows in the same scan is
    not shown again.
    """

    name = "internal_text"
    beside = InternalArtifactSearch.name

    _threats: IThreats

    def start(self, setup: SearcherSetup) -> None:
        """Get the local database's index."""
        self._threats = setup.threats()
        super().start(setup)

    def loading(self) -> bool:
        """Whether the index is not there yet."""
        return self._threats.loading()

    def is_empty(self) -> bool:
        """Whether there is no threat."""
        return self._threats.is_empty()

    def has_none(self, derived: tuple[Derived, ...]) -> bool:
        """Whether no threat is found by any of these, and all can be looked at."""
        if not derived:
            return True
        matches = self._threats.find_within(derived=derived, limit=1)
        return not matches.records and not matches.at_least

    def look_up(
        self, artifact: Artifact, within: Within, context: SearchContext | None
    ) -> Found | None:
        """
        The threats that are found by what is within an artifact.

        :raises SearchLater: the index is not there yet, or can't be current.
        """
        threats = self._threats
        wanted = _wanted_in(context)
        matches = threats.find_within(derived=within.derived, limit=MAX_HITS, wanted=wanted)
        if matches.records and context is not None and self.beside in context.asked:
            shown = self._shown(artifact, wanted)
            if not shown.isdisjoint(record.threat_id for record in matches.records):
                matches = threats.find_within(
                    derived=within.derived,
                    limit=MAX_HITS,
                    wanted=lambda record: record.threat_id not in shown and wanted(record),
                )
        return answer_of(matches, cut=within.cut, tells_cut=threats.limits.tells_cut)

    def _shown(self, artifact: Artifact, wanted: Callable[[Indexed], bool]) -> set[int]:
        """The ids of the threats that the other searcher shows."""
        asked = [one.artifact for one in derived(artifact)]
        if InternalArtifactSearch.supports(artifact.type):
            asked.append(artifact)
        return {
            record.threat_id
            for one in asked
            for record in self._threats.find(
                type=one.type, value=one.value, limit=MAX_HITS, wanted=wanted
            ).records
        }


def _wanted_in(context: SearchContext | None) -> Callable[[Indexed], bool]:
    """
    Which threats are for a search: see L{InternalArtifactSearch}.

    :param context: None: all that are kept to no service.
    """
    scope, source, asked = "", b"", frozenset[str]()
    if context is not None:
        scope, source, asked = context.scope, context.source, context.asked

    def wanted(record: Indexed) -> bool:
        theirs, _, searcher = record.searcher.rpartition("/")
        if theirs and theirs != scope:
            return False
        return record.source != source or searcher not in asked

    return wanted
