"""
What searchers have in common that look for what stands within texts, messages and files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Final

from twisted.logger import Logger

from ctsd.answering import Found
from ctsd.artifacts import derived
from ctsd.interfaces.feeds import IContents
from ctsd.model import FILE, Artifact, File
from ctsd.records import Derived, Within
from ctsd.search_context import SearchContext
from ctsd.searcher import BaseArtifactSearch
from ctsd.searcher_setup import SearcherSetup

#: What indicators are looked for within.
_TEXTS: Final = frozenset({"cert.x509", "email", "email.body", "string", FILE})


class TextArtifactSearch(BaseArtifactSearch):
    """
    Looks up the addresses, hosts, URLs, hashes and CVEs within a text, an e-mail, or an uploaded
    message, and the fingerprint of an uploaded certificate.

    Of what is too long to be looked at whole, the last hit says what was not looked at. When
    nothing was found in the rest, a hit says only that, for "nothing" would be untrue; it is left
    to the configuration (L{ctsd.records.LookupLimits.tells_cut}), for it turns the artifact red.

    :cvar beside: the searcher that looks up the artifact itself, and its file's hashes.
    """

    beside: ClassVar[str]

    _log: ClassVar[Logger] = Logger()
    _contents: IContents

    def start(self, setup: SearcherSetup) -> None:
        """Get what looks into artifacts."""
        self._contents = setup.contents()

    @classmethod
    def supports(cls, artifact_type: str) -> bool:
        """Texts and files."""
        return artifact_type in _TEXTS

    def finds_nothing(self, artifact_type: str, search_term: Any) -> bool:
        """Whether it is short, and nothing is known of what is in it."""
        if self.is_empty():
            return True
        if isinstance(search_term, File):
            artifact = Artifact(artifact_type, search_term.name, search_term)
        else:
            artifact = Artifact(artifact_type, search_term)
        within = self._contents.within_now(artifact=artifact)
        return within is not None and not within.cut and self.has_none(within.derived)

    async def search(self, artifact_type: str, search_term: Any, **kwargs: Any) -> Found | None:
        """What something within the artifact finds."""
        context: SearchContext | None = kwargs.get("context")
        if artifact_type == FILE:
            artifact = Artifact(FILE, search_term.name, _file(search_term))
        else:
            file = context.file if context is not None else None
            if artifact_type == "cert.x509" and file is None:
                # The other one looks it up.
                return None
            artifact = Artifact(artifact_type, search_term, file)
        within: Within = await self._contents.within(artifact=artifact)
        if within.cut:
            self._log.warn(
                "Scan {scan_id}: not looked at: {cut}",
                scan_id=id_of(context),
                cut="; ".join(within.cut),
            )
        looked_up = within.derived
        if context is not None and self.beside in context.asked:
            # The other one is asked for a file's hashes by itself.
            others = {one.artifact for one in derived(artifact)}
            looked_up = tuple(one for one in looked_up if one.artifact not in others)
        return self.look_up(artifact, Within(looked_up, within.cut), context)

    def is_empty(self) -> bool:
        """Whether it is certain that nothing can be found at all."""
        return False

    def has_none(self, derived: tuple[Derived, ...]) -> bool:
        """Whether it is certain that nothing is known of any of these."""
        raise NotImplementedError

    def look_up(
        self, artifact: Artifact, within: Within, context: SearchContext | None
    ) -> Found | None:
        """What the indicators within an artifact find."""
        raise NotImplementedError


def id_of(context: SearchContext | None) -> str:
    """The scan's id, for the log."""
    return context.id if context is not None else "-"


def _file(opened: Any) -> File:
    """What a searcher is given of a file, as the artifact has it."""
    return File(
        path=Path(opened.path),
        name=opened.name,
        size=opened.size,
        md5=opened.md5,
        sha1=opened.sha1,
        sha256=opened.sha256,
        content_type=opened.content_type,
    )
