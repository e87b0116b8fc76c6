"""A scan while this process works on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from ctsd.artifacts import derived, digest
from ctsd.model import FILE, Artifact, Scan, ScanState, ScanView, Search
from ctsd.records import Finds
from ctsd.scanning.source import Question, Source
from ctsd.scans import Pace, Part, hits_of, retry_secs, state_of

#: The types, beside a file itself, whose files are read by searchers.
_READ = frozenset({"cert.x509", "email"})


@define(eq=False, kw_only=True)
class LiveScan:
    """
    A scan with running searches, or one that waits in memory.

    :ivar started: monotonic seconds, of this process' first step on it.
    :ivar sources: the searchers that are asked, in the service's order.
    :ivar parts: by the searcher's name, in the same order.
    :ivar finds: what is to be written with the scan.
    :ivar waited_secs: how long the first answer was waited for, so far.
    :ivar promised: it is being written as a promise, or was.
    :ivar durable: its promise is written: its id may be given out.
    :ivar holder: the node and epoch in whose name its searches run, once it is promised.
    :ivar holding: its first answer is waited for although it is promised: until then optional
        searchers count, too.
    :ivar answered: whether everybody who waited for its first answer has it.
    :ivar ended: nothing is shown or written of it any more.
    :ivar lock: held while a part of it is being written.
    """

    id: str
    service: str
    digest: bytes = field(repr=False)
    artifact: Artifact
    created: float
    deadline: float
    started: float
    sources: Mapping[str, Source]
    parts: dict[str, Part]
    finds: list[Finds] = field(factory=list, repr=False)
    waited_secs: float = 0.0
    promised: bool = False
    durable: bool = False
    holder: str = ""
    holding: bool = False
    answered: bool = False
    ended: bool = False
    lock: DeferredLock = field(factory=DeferredLock, repr=False)
    timers: list[IDelayedCall] = field(factory=list, repr=False)
    _waiters: list[Deferred[ScanView]] = field(factory=list, repr=False)

    @property
    def key(self) -> tuple[str, bytes]:
        """What makes another scan an equal one."""
        return (self.service, self.digest)

    @property
    def private(self) -> bool:
        """Whether nothing of it may be written but that it is there (a password)."""
        return not self.digest

    @property
    def state(self) -> ScanState:
        """As its parts are now."""
        return state_of(self.parts.values())

    @property
    def running(self) -> bool:
        """Whether a search runs for it in this process."""
        return any(part.since is not None for part in self.parts.values())

    def waits_for_sync(self) -> bool:
        """Whether a searcher runs that is listed as C{sync}."""
        return any(
            part.since is not None and not self.sources[name].asynchronous
            for name, part in self.parts.items()
        )

    def holds_back(self, searcher: str) -> bool:
        """Whether, when this searcher has answered, the first answer still waits for others."""
        return self.holding and any(
            part.since is not None and name != searcher for name, part in self.parts.items()
        )

    def wait(self) -> Deferred[ScanView]:
        """The first answer, once more for whoever joins; cancelling it cancels nothing else."""
        waiter: Deferred[ScanView] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        return waiter

    def answer(self, result: ScanView | Failure) -> None:
        """Give everybody who waits the first answer."""
        self.answered, self.holding = True, False
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(result)

    def stop_timers(self) -> None:
        """The first answer is on its way."""
        for timer in self.timers:
            if timer.active():
                timer.cancel()
        self.timers.clear()

    def row(self) -> Scan:
        """As the store keeps it; what runs is held by L{holder}."""
        return Scan(
            id=self.id,
            service=self.service,
            state=self.state,
            created=self.created,
            deadline=self.deadline,
            digest=self.digest,
            artifact=None if self.private else self.artifact,
            searches=tuple(
                search_row(part, self.holder if part.since is not None else "")
                for part in self.parts.values()
            ),
        )

    def open_view(self, *, now: float, monotonic: float, usual: Mapping[str, float]) -> ScanView:
        """What a 303 tells."""
        paces = [
            Pace(
                usual_secs=usual.get(name, 1.0),
                elapsed_secs=None if part.since is None else monotonic - part.since,
                due_in_secs=None if part.due is None else part.due - now,
            )
            for name, part in self.parts.items()
            if part.required and not part.done and not part.lost
        ]
        return ScanView(
            id=self.id,
            finished=False,
            hits=hits_of(self.parts.values()),
            retry_secs=retry_secs(paces),
        )


def search_row(part: Part, holder: str) -> Search:
    """A part as the store keeps it."""
    return Search(
        searcher=part.searcher,
        outcome=part.outcome,
        tries=part.tries,
        due=part.due,
        holder=holder,
        takeovers=part.takeovers,
        deaths=part.deaths,
    )


def part_of(search: Search, *, required: bool) -> Part:
    """A part as the store had it."""
    return Part(
        searcher=search.searcher,
        required=required,
        outcome=search.outcome,
        tries=search.tries,
        due=search.due,
        takeovers=search.takeovers,
        deaths=search.deaths,
    )


def questions_for(
    artifact: Artifact, source_digest: bytes, sources: Iterable[Source]
) -> dict[str, tuple[Question, ...]]:
    """
    What each searcher is asked about an artifact: itself where the searcher supports it, then
    what derives from it (design: a file's hashes; the name of a file that did not come along, of
    local searchers). Searchers that are asked nothing are not in the result.
    """
    file = artifact.file
    if file is None and artifact.type != FILE:
        question = (Question(artifact.type, artifact.value, None, "", source_digest),)
        return {source.name: question for source in sources if source.supports(artifact.type)}
    asked: dict[str, tuple[Question, ...]] = {}
    for source in sources:
        questions = []
        if file is not None:
            if source.supports(artifact.type):
                own = Question(artifact.type, artifact.value, file, "", source_digest)
                questions.append(own)
            questions += _derived_questions(artifact, source)
        elif source.local and source.supports("file.name"):
            named = digest("file.name", artifact.value)
            how = "name of the file"
            questions.append(Question("file.name", artifact.value, None, how, named))
        if questions:
            asked[source.name] = tuple(questions)
    return asked


def _derived_questions(artifact: Artifact, source: Source) -> list[Question]:
    return [
        Question(other.type, other.value, None, step.how, digest(other.type, other.value))
        for step in derived(artifact)
        if source.supports((other := step.artifact).type)
    ]


def needs_file(questions: Mapping[str, tuple[Question, ...]], sources: Iterable[Source]) -> bool:
    """
    Whether a searcher wants to read the file itself, not only its hashes. One that answers from
    memory reads no message and no certificate.
    """
    return any(
        question.file is not None
        and (question.type == FILE or (question.type in _READ and not source.local))
        for source in sources
        for question in questions.get(source.name, ())
    )
