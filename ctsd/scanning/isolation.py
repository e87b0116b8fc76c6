"""
Searches in child processes of their own: native code on foreign bytes, and searches that stood by
when a process died.

The request goes to the child by pickle through a pipe, the answer comes back as lines of base64:
a child that foreign bytes have taken over must not be believed more than that.
"""

from __future__ import annotations

import base64
import pickle
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.model import Ended, Outcome
from ctsd.records import Finds
from ctsd.scanning.hiding import hiding
from ctsd.scanning.source import Answered, Ask, Source
from ctsd.stored import decode_outcome, decode_threat, encode_outcome, encode_threat
from ctsd.wire import is_encoded_hit

#: An answer larger than this is none.
MAX_ANSWER_BYTES = 16 * 2**20

#: So much of what a child says on its standard error is kept for the log.
MAX_COMPLAINT_BYTES = 4000


@frozen(kw_only=True)
class ChildRequest:
    """
    What a child needs to run one search: the searcher, what it was set up with, the questions.

    :ivar file: the module that defines the searcher's class.
    """

    file: str
    module: str
    cls: str
    name: str
    settings: dict[str, Any] = field(repr=False)
    data_dir: Path
    base_dir: Path
    timeout_secs: float
    scope: str
    ask: Ask = field(repr=False)


def encode_request(source: Source, ask: Ask) -> bytes:
    """What the child reads from its standard input."""
    cls = type(source.searcher)
    request = ChildRequest(
        file=str(Path(sys.modules[cls.__module__].__file__ or "").absolute()),
        module=cls.__module__,
        cls=cls.__qualname__,
        name=source.name,
        settings=source.setup.settings,
        data_dir=source.setup.data_dir,
        base_dir=source.setup.base_dir,
        timeout_secs=source.timeout_secs,
        scope=source.scope,
        ask=ask,
    )
    pickled = pickle.dumps(request)
    return len(pickled).to_bytes(8, "big") + pickled


def encode_answered(answered: Answered) -> bytes:
    """What the child writes to its standard output."""
    lines = [base64.b64encode(encode_outcome(answered.outcome))]
    for finds in answered.finds:
        threats = [base64.b64encode(encode_threat(threat)) for threat in finds.threats]
        lines.append(b" ".join([finds.source.hex().encode(), *threats]))
    return b"\n".join(lines)


def decode_answered(data: bytes, *, searcher: str) -> Answered:
    """
    What a child has answered.

    :raises ValueError: that is no answer.
    """
    try:
        return _decoded(data, searcher)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not an answer") from error


def _decoded(data: bytes, searcher: str) -> Answered:
    first, *rest = data.split(b"\n")
    outcome = decode_outcome(base64.b64decode(first, validate=True))
    if not all(is_encoded_hit(hit) for hit in outcome.hits):
        raise ValueError("a hit is malformed")
    finds = []
    for line in rest:
        source, *threats = line.split(b" ")
        finds.append(
            Finds(
                searcher=searcher,
                source=bytes.fromhex(source.decode("ascii")),
                threats=tuple(
                    decode_threat(base64.b64decode(threat, validate=True)) for threat in threats
                ),
            )
        )
    return Answered(outcome, tuple(finds))


class ChildSearches:
    """
    Runs searches alone, each in a child process.

    :param environment: the children's environment, without secrets.
    """

    def __init__(self, *, reactor: IReactorProcess, environment: Mapping[str, str]) -> None:
        self._reactor = reactor
        self._environment = dict(environment)

    def __call__(self, source: Source, ask: Ask) -> Deferred[Answered]:
        """See L{ctsd.scanning.running.RunAlone}."""
        child = _Child(source, ask)
        command = [sys.executable, "-m", "ctsd.scanning.child"]
        self._reactor.spawnProcess(child, command[0], command, env=self._environment)
        return child.answered


class _Child(ProcessProtocol):
    _log = Logger()

    def __init__(self, source: Source, ask: Ask) -> None:
        self.answered: Deferred[Answered] = Deferred(self._give_up)
        self._source = source
        self._ask = ask
        self._answer = bytearray()
        self._complaint = bytearray()

    def connectionMade(self) -> None:
        assert self.transport is not None
        # Standard input stays open: the child ends when it is closed, so with us.
        self.transport.write(encode_request(self._source, self._ask))

    def outReceived(self, data: bytes) -> None:
        self._answer += data
        if len(self._answer) > MAX_ANSWER_BYTES:
            self._kill()

    def errReceived(self, data: bytes) -> None:
        self._complaint += data
        del self._complaint[:-MAX_COMPLAINT_BYTES]

    def processEnded(self, reason: Failure) -> None:
        died = reason.check(ProcessTerminated) is not None
        if self._complaint:
            self._log.warn(
                "Searcher {searcher} in a child: {complaint}",
                searcher=self._source.name,
                complaint=self._hidden(self._complaint.decode("utf-8", "replace")),
            )
        if self.answered.called:
            return
        try:
            if died:
                raise ValueError("its process died")
            answered = decode_answered(bytes(self._answer), searcher=self._source.owner)
        except Exception as error:
            outcome = Outcome(Ended.FAILED, reason=f"in a child process: {error}")
            answered = Answered(outcome, died=died)
        self.answered.callback(answered)

    def _hidden(self, text: str) -> str:
        for question in self._ask.questions:
            text = hiding(text, question, self._source.setup.settings)
        return text

    def _give_up(self, _: Deferred[Answered]) -> None:
        self._kill()

    def _kill(self) -> None:
        assert self.transport is not None
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")
