"""What the tests of scans share: searchers that do as they are told, and a scanner around them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ctsd.blocking import Job
from ctsd.model import Hit
from ctsd.properties import string
from ctsd.scanning.slots import Slots
from ctsd.scanning.source import Ask, Question, Source
from ctsd.searcher import BaseArtifactSearch
from ctsd.searcher_setup import SearcherSetup


def a_hit(text: str = "bad") -> Hit:
    """A finding."""
    return Hit((string("verdict", text),))


class Told(BaseArtifactSearch):
    """A coroutine searcher: every search waits until the test tells it how to end."""

    name = "told"

    def __init__(self, types: tuple[str, ...] = ("net.ip",)) -> None:
        self.types = types
        self.asked: list[tuple[str, Any]] = []
        self.cancelled = 0
        self._answers: list[Deferred[Any]] = []

    def supports(self, artifact_type: str) -> bool:  # type: ignore[override]
        """Only what the test says."""
        return artifact_type in self.types

    async def search(self, artifact_type: str, search_term: Any, **kwargs: Any) -> Any:
        """Wait."""
        self.asked.append((artifact_type, search_term))
        self.context = kwargs["context"]
        answer: Deferred[Any] = Deferred(self._cancel)
        self._answers.append(answer)
        return await answer

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled += 1

    @property
    def waiting(self) -> bool:
        """Whether a search waits to be told."""
        return any(not each.called for each in self._answers)

    def tell(self, result: Any) -> None:
        """
        End the oldest search that was not given up: an exception is raised, anything else is
        returned.
        """
        answer = next(each for each in self._answers if not each.called)
        self._answers.remove(answer)
        if isinstance(result, BaseException):
            answer.errback(result)
        else:
            answer.callback(result)


class Local(BaseArtifactSearch):
    """A local searcher that always says the same."""

    name = "local"
    local = True

    def __init__(self, result: Any = (), types: tuple[str, ...] = ("net.ip",)) -> None:
        self.result = result
        self.types = types
        self.asked: list[tuple[str, Any]] = []

    def supports(self, artifact_type: str) -> bool:  # type: ignore[override]
        """Only what the test says."""
        return artifact_type in self.types

    async def search(self, artifact_type: str, search_term: Any, **kwargs: Any) -> Any:
        """Say it."""
        self.asked.append((artifact_type, search_term))
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


class Looking(Local):
    """
    A searcher that may know that it finds nothing.

    :ivar looked: for what it was asked whether it knows.
    """

    name = "looking"
    sure: Any = False

    def __init__(self, result: Any = (), types: tuple[str, ...] = ("net.ip",)) -> None:
        super().__init__(result, types)
        self.looked: list[Any] = []

    def finds_nothing(self, artifact_type: str, search_term: Any) -> bool:
        """What the test says."""
        self.looked.append(search_term)
        if isinstance(self.sure, BaseException):
            raise self.sure
        return bool(self.sure)


class Blocking(BaseArtifactSearch):
    """A plain C{def search}."""

    name = "blocking"

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def supports(self, artifact_type: str) -> bool:  # type: ignore[override]
        """Addresses."""
        return artifact_type == "net.ip"

    def search(self, artifact_type: str, search_term: Any, **kwargs: Any) -> Any:
        """Do it."""
        return self.call(artifact_type, search_term, **kwargs)


class Threads:
    """Threads that run when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def submit(self, call: Callable[[], Any]) -> Job:
        """Remember the call."""
        job = Job(call)
        self.jobs.append(job)
        return job

    def stop(self) -> None:
        """Nothing is started any more."""

    def callFromThread(self, call: Callable[..., Any], *args: Any) -> None:
        """As the reactor's, at once."""
        call(*args)

    def run(self) -> None:
        """Run the oldest call."""
        self.jobs.pop(0).run(self)  # type: ignore[arg-type]


def setup_for(clock: Any) -> SearcherSetup:
    """What a searcher is given, without indexes."""

    def none(*args: object) -> Any:
        raise AssertionError("no indexes here")

    return SearcherSetup(
        settings={},
        data_dir=Path("data"),
        base_dir=Path("base"),
        clock=clock,
        records=none,
        threats=none,
    )


def source_of(searcher: BaseArtifactSearch, clock: Clock, **more: Any) -> Source:
    """A searcher that is on."""
    more.setdefault("name", searcher.name)
    more.setdefault("slots", Slots(limit=2))
    return Source(searcher=searcher, setup=setup_for(clock), **more)


def ask_about(type: str = "net.ip", value: Any = "10.1.1.1", **more: Any) -> Ask:
    """One question."""
    return Ask(
        scan_id="0" * 32,
        questions=(Question(type, value, source=b"d" * 16, **more),),
        asked=frozenset({"told"}),
    )
