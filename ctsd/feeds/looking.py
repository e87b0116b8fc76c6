"""
Looks into artifacts, each once, however many searchers want to know what is in it.
"""

from __future__ import annotations

from functools import lru_cache

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from ctsd.feeds.contents import TEXT_TYPES, Limits, is_quick, within
from ctsd.interfaces.feeds import IContents
from ctsd.interfaces.threads import InThread
from ctsd.model import Artifact, File
from ctsd.records import Within


@implementer(IContents)
class Contents:
    """
    See L{IContents}: what is short is looked into in the reactor, all else in a thread.
    """

    def __init__(self, *, in_thread: InThread, limits: Limits = Limits()) -> None:  # noqa: B008
        """
        :param limits: how much of a text or a message is looked at.
        """
        self._in_thread = in_thread
        self._limits = limits
        self._waiting: dict[tuple[str, str, File | None], list[Deferred[Within]]] = {}
        # For all who are asked in one scan.
        self._quick = lru_cache(maxsize=64)(self._within)

    def _within(self, type: str, value: str) -> Within:
        return within(Artifact(type, value), self._limits)

    def within_now(self, *, artifact: Artifact) -> Within | None:
        """See L{IContents}."""
        if not is_quick(artifact):
            return None
        if artifact.type in TEXT_TYPES and artifact.file is None:
            return self._quick(artifact.type, str(artifact.value))
        return within(artifact, self._limits)

    def within(self, *, artifact: Artifact) -> Deferred[Within]:
        """See L{IContents}."""
        known = self.within_now(artifact=artifact)
        if known is not None:
            return succeed(known)
        mine: Deferred[Within] = Deferred()
        key = (artifact.type, str(artifact.value), artifact.file)
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(mine)
            return mine
        self._waiting[key] = [mine]
        looking = self._in_thread(within, artifact, self._limits)
        looking.addBoth(self._tell, key)
        return mine

    def _tell(self, found: Within | Failure, key: tuple[str, str, File | None]) -> None:
        for each in self._waiting.pop(key):
            each.callback(found)
