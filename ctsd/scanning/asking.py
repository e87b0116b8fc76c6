"""
What one searcher is asked in one scan, and what its answer comes to: whatever it returns, stores
or raises becomes an L{Outcome}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.answering import Found
from ctsd.errors import SearchFailed, SearchLater
from ctsd.model import FILE, NOTHING, PASSWORD, Ended, File, Hit, Outcome, Threat
from ctsd.properties import string
from ctsd.records import Finds
from ctsd.scanning.hiding import hiding
from ctsd.scanning.source import Answered, Ask, Question, SearchFile, Source
from ctsd.scans import merge
from ctsd.search_context import SearchContext, current_search
from ctsd.wire import encode_hits

#: The usual answer.
_NOTHING = Answered(NOTHING)

#: More findings of one search than this are not even counted.
MAX_FINDINGS = 1000


class _Asking:
    """What one ask has come to so far, question by question."""

    _log = Logger()

    def __init__(self, source: Source, ask: Ask) -> None:
        self._source = source
        self._ask = ask
        self._outcomes: list[Outcome] = []
        self._finds: list[Finds] = []

    def context(self, question: Question) -> SearchContext:
        """What a search of this question knows of itself."""
        ask, source = self._ask, self._source
        return SearchContext(
            id=ask.scan_id,
            type=question.type,
            value=question.value,
            searcher=source.name,
            scope=source.scope,
            source=question.source,
            asked=ask.asked,
            setup=source.setup,
            file=question.file,
        )

    def add(self, answer: Any, context: SearchContext, question: Question) -> None:
        """One question was answered."""
        if answer is None and not context.found and self._source.searcher.local:
            self._outcomes.append(NOTHING)
            return
        found = _found(answer, context.found)
        hits = encode_hits(found.hits, more=found.more, at_least=found.at_least, how=question.how)
        outcome = Outcome(Ended.FOUND, hits) if hits else NOTHING
        if found.missing:
            reason = f"{', '.join(found.missing)} can't be asked"
            outcome = Outcome(
                Ended.LATER, hits, reason, after_secs=found.after_secs, missing=found.missing
            )
        if found.suppressed and question.type != PASSWORD:
            outcome = evolve(
                outcome,
                suppressed=found.suppressed,
                suppressed_more=found.suppressed_more,
            )
        self._outcomes.append(outcome)
        if question.source and (context.found or not self._source.searcher.local):
            self._finds.append(
                Finds(
                    searcher=self._source.owner,
                    source=question.source,
                    threats=tuple(
                        evolve(threat, searcher=self._source.owner) for threat in context.found
                    ),
                )
            )

    def fail(self, failure: Failure, question: Question) -> None:
        """One question was not answered."""
        error = failure.value
        if isinstance(error, SearchLater):
            outcome = Outcome(
                Ended.LATER,
                reason=self._hiding(error.reason, question),
                after_secs=error.after_secs,
            )
        elif isinstance(error, SearchFailed):
            outcome = Outcome(Ended.FAILED, reason=self._hiding(error.reason, question))
        elif isinstance(error, FileNotFoundError) and _is_gone(question.file):
            outcome = Outcome(Ended.FAILED, reason="the file was removed by the host", final=True)
        else:
            self._log.error(
                "Searcher {searcher} broke in scan {scan_id}: {traceback}",
                searcher=self._source.name,
                scan_id=self._ask.scan_id,
                traceback=self._hiding(failure.getTraceback(), question),
            )
            outcome = Outcome(Ended.FAILED, reason=f"broken: {type(error).__name__}")
        self._outcomes.append(outcome)

    def _hiding(self, text: str, question: Question) -> str:
        return hiding(text, question, self._source.setup.settings)

    def answered(self) -> Answered:
        """All of it."""
        if len(self._outcomes) == 1 and self._outcomes[0] is NOTHING and not self._finds:
            return _NOTHING
        return Answered(merge(self._outcomes), tuple(self._finds))


def ask_local(source: Source, ask: Ask) -> Answered:
    """Ask a searcher that answers from memory; nothing here waits."""
    asking = _Asking(source, ask)
    for question in ask.questions:
        context = asking.context(question)
        token = current_search.set(context)
        try:
            asking.add(_answer_now(_call(source, question, context)), context, question)
        except BaseException:
            asking.fail(Failure(), question)
        finally:
            current_search.reset(token)
    return asking.answered()


async def ask_waiting(source: Source, ask: Ask) -> Answered:
    """Ask a searcher with an C{async def search}."""
    asking = _Asking(source, ask)
    for question in ask.questions:
        context = asking.context(question)
        current_search.set(context)
        try:
            answer = await _call(source, question, context)
            while isinstance(answer, Deferred):
                answer = await answer
            asking.add(answer, context, question)
        except (CancelledError, GeneratorExit):
            raise
        except BaseException:
            asking.fail(Failure(), question)
    return asking.answered()


def ask_blocking(source: Source, ask: Ask) -> Answered:
    """Ask a searcher with a plain C{def search}; called in a thread."""
    asking = _Asking(source, ask)
    for question in ask.questions:
        context = asking.context(question)
        current_search.set(context)
        try:
            asking.add(_call(source, question, context), context, question)
        except BaseException:
            asking.fail(Failure(), question)
    return asking.answered()


def _call(source: Source, question: Question, context: SearchContext) -> Any:
    term: object = question.value
    if question.type == FILE and question.file is not None:
        term = SearchFile(question.file)
    return source.searcher.search(question.type, term, context=context)


def _answer_now(coroutine: Any) -> Any:
    """What a coroutine that doesn't wait returns."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise SearchFailed("a local searcher must not wait for anything")


def _found(answer: Any, stored: list[Threat]) -> Found:
    """
    What a search has found: what it returned, then what it stored; what it did both with counts
    once.
    """
    if isinstance(answer, Found):
        if not stored:
            return answer
        given, rest = list[Any](answer.hits), answer
    else:
        given, rest = list(islice(_findings(answer), MAX_FINDINGS)), Found()
    if stored:
        seen = {id(threat) for threat in given}
        given += [threat for threat in stored[:MAX_FINDINGS] if id(threat) not in seen]
    return evolve(rest, hits=tuple(map(_hit, given)))


def _findings(answer: Any) -> Iterable[Any]:
    """
    What a search returned, one by one.

    :raises TypeError: that is no answer: taken for "nothing" it would be told as "clean".
    """
    if answer is None:
        return ()
    if isinstance(answer, Hit | Threat):
        return (answer,)
    if isinstance(answer, Iterable) and not isinstance(answer, str | bytes | Mapping | Deferred):
        return answer
    raise TypeError(f"a searcher returns hits, not {type(answer).__name__}")


def _hit(finding: Any) -> Hit:
    if isinstance(finding, Hit):
        return finding
    if isinstance(finding, Threat):
        return Hit(finding.properties or (string("Threat", finding.name),))
    raise TypeError(f"a searcher gives Hit or Threat, not {type(finding).__name__}")


def _is_gone(file: File | None) -> bool:
    return file is not None and not file.path.exists()
