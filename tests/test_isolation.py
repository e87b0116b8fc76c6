"""Tests of L{ctsd.scanning.isolation} and L{ctsd.scanning.child}, with real child processes."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ctsd.errors import SearchFailed
from ctsd.model import NOTHING, PASSWORD, Artifact, Ended, Outcome, Property, Threat
from ctsd.records import Finds
from ctsd.scanning.isolation import ChildSearches, decode_answered, encode_answered
from ctsd.scanning.source import Answered
from ctsd.searcher import BaseArtifactSearch
from ctsd.wire import encode_hits
from tests.scanning import a_hit, ask_about, source_of


class Obedient(BaseArtifactSearch):
    """Does what the artifact's value says; runs in a child."""

    name = "obedient"
    isolate = True

    @classmethod
    def supports(cls, artifact_type: str) -> bool:
        """Strings."""
        return artifact_type == "string"

    def search(self, artifact_type: str, search_term: Any, **kwargs: Any) -> Any:
        """Do it."""
        print("what a searcher prints is no answer")
        if search_term.startswith("say"):
            print(search_term)
            raise SystemExit(search_term)
        if search_term == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if search_term == "sleep":
            signal.pause()
        if search_term == "fail":
            raise SearchFailed("told to")
        if search_term == "environment":
            return [a_hit(",".join(sorted(os.environ)))]
        self.store_threat_info("T", kwargs["context"], [("string", "pid", str(os.getpid()))])
        return None


class ChildTests(TestCase):
    """A search in a process of its own."""

    def setUp(self) -> None:
        """Children that find our packages."""
        environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}
        self.children = ChildSearches(reactor=reactor, environment=environment)  # type: ignore[arg-type]
        self.source = source_of(Obedient(), reactor, timeout_secs=30.0)  # type: ignore[arg-type]

    def search(self, value: str) -> Any:
        """Ask for this."""
        return self.children(self.source, ask_about("string", value))

    async def test_found(self) -> None:
        """What it finds and stores comes back, out of another process."""
        answered = await self.search("anything")
        self.assertIs(answered.outcome.ended, Ended.FOUND)
        (threat,) = answered.finds[0].threats
        self.assertNotEqual(threat.properties[0].value, str(os.getpid()))

    async def test_failed(self) -> None:
        """It can fail as any other."""
        answered = await self.search("fail")
        self.assertEqual(answered.outcome, Outcome(Ended.FAILED, reason="told to"))
        self.assertFalse(answered.died)

    async def test_died(self) -> None:
        """When it takes its process with it, that is a failure, and is known."""
        answered = await self.search("die")
        self.assertIs(answered.outcome.ended, Ended.FAILED)
        self.assertTrue(answered.died)

    async def test_what_it_says_is_hidden(self) -> None:
        """What a child says about a password is not repeated in the log."""
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        await self.children(self.source, ask_about(PASSWORD, "say hunter2"))
        await self.children(self.source, ask_about("string", "say hello"))
        said = "\n".join(lines)
        self.assertNotIn("hunter2", said)
        self.assertIn("(the artifact)", said)

    async def test_given_up(self) -> None:
        """Cancelling kills the child."""
        answered = self.search("sleep")
        await deferLater(reactor, 0.5, lambda: None)  # type: ignore[arg-type]
        answered.cancel()
        await self.assertFailure(answered, CancelledError)
        await deferLater(reactor, 0.2, lambda: None)  # type: ignore[arg-type]

    async def test_environment(self) -> None:
        """A child has the environment that it was given and no other."""
        os.environ["CTSD_TEST_SECRET"] = "s"
        self.addCleanup(os.environ.pop, "CTSD_TEST_SECRET")
        answered = await self.search("environment")
        self.assertNotIn(b"CTSD_TEST_SECRET", answered.outcome.hits[0])


class AnswerTests(SynchronousTestCase):
    """What comes back through the pipe."""

    def test_round_trip(self) -> None:
        """All of it."""
        answered = Answered(
            Outcome(Ended.FOUND, encode_hits([a_hit()])),
            (
                Finds(
                    searcher="s",
                    source=b"\0" * 16,
                    threats=(
                        Threat(
                            name="T",
                            artifacts=(Artifact("string", "\ud800\0"),),
                            properties=(Property("string", "n", "v"),),
                            searcher="s",
                        ),
                    ),
                ),
                Finds(searcher="s", source=b"1" * 16),
            ),
        )
        self.assertEqual(decode_answered(encode_answered(answered), searcher="s"), answered)

    def test_not_believed(self) -> None:
        """Bytes that are no answer, or hits that are no hits, are refused."""
        forged = encode_answered(Answered(Outcome(Ended.FOUND, (b'{"props":1},{}',))))  # type: ignore[arg-type]
        for data in (b"", b"x", b"\xff", forged, encode_answered(Answered(NOTHING))[:-3]):
            self.assertRaises(ValueError, decode_answered, data, searcher="s")
