"""
Tests of L{ctsd.scanning.running} and L{ctsd.scanning.asking}: whatever a searcher does, there is
an answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ctsd.answering import Found
from ctsd.errors import SearchFailed, SearchLater
from ctsd.model import (
    FILE,
    NOTHING,
    PASSWORD,
    Artifact,
    Ended,
    File,
    Outcome,
    Property,
    Secret,
    Suppressed,
    Threat,
)
from ctsd.scanning.asking import ask_local
from ctsd.scanning.running import BUSY_RETRY_SECS, Runner
from ctsd.scanning.slots import Slots
from ctsd.scanning.source import Answered, Ask, Question, Source
from ctsd.scans import backoff_secs
from ctsd.searcher import BaseArtifactSearch, name_of
from tests.scanning import Blocking, Local, Threads, Told, a_hit, ask_about, source_of


class LocalTests(SynchronousTestCase):
    """Searchers that answer from memory."""

    def ask(self, result: Any, **more: Any) -> Answered:
        """What a local searcher's answer comes to."""
        return ask_local(source_of(Local(result), Clock()), ask_about(**more))

    def test_nothing(self) -> None:
        """None and nothing are both "nothing found"."""
        self.assertIs(self.ask(None).outcome, NOTHING)
        self.assertIs(self.ask([]).outcome, NOTHING)

    def test_hits(self) -> None:
        """A hit is found."""
        outcome = self.ask([a_hit("worse")]).outcome
        self.assertIs(outcome.ended, Ended.FOUND)
        self.assertIn(b"worse", outcome.hits[0])

    def test_a_threat_is_a_hit(self) -> None:
        """A threat's properties make a hit; one without properties shows its name."""
        threats = [Threat(name="T1", properties=(Property("string", "p", "v"),)), Threat(name="T2")]
        hits = self.ask(threats).outcome.hits
        self.assertIn(b'"p"', hits[0])
        self.assertIn(b"T2", hits[1])

    def test_more(self) -> None:
        """What a searcher did not show is said in the last hit."""
        hits = self.ask(Found((a_hit(),), more=7)).outcome.hits
        self.assertIn(b"7 ", hits[-1])

    def test_suppressed(self) -> None:
        """What was found and is no hit goes with the outcome; of a password nothing does."""
        one = Suppressed("mine", "net.ip", "a list")
        found = Found(suppressed=(one,), suppressed_more=2)
        outcome = self.ask(found).outcome
        self.assertEqual(outcome, Outcome(Ended.NOTHING, suppressed=(one,), suppressed_more=2))
        self.assertIs(self.ask(found, type=PASSWORD).outcome, NOTHING)

    def test_missing(self) -> None:
        """Sources that could not be asked are named; a text is one name, not its letters."""
        for given, names in (
            ("URLhaus", ("URLhaus",)),
            (["URLhaus", "Mine"], ("URLhaus", "Mine")),
            (("Mine",), ("Mine",)),
        ):
            outcome = self.ask(Found(missing=given)).outcome
            self.assertEqual((outcome.ended, outcome.missing), (Ended.LATER, names))
            self.assertEqual(outcome.reason, f"{', '.join(names)} can't be asked")
        self.assertIs(self.ask(Found(missing="")).outcome, NOTHING)

    def test_later_and_failed(self) -> None:
        """A source that says later, or could not ask, has not answered."""
        later = self.ask(SearchLater(7, "loading")).outcome
        self.assertEqual((later.ended, later.after_secs), (Ended.LATER, 7.0))
        failed = self.ask(SearchFailed("no key")).outcome
        self.assertEqual(
            (failed.ended, failed.reason, failed.good), (Ended.FAILED, "no key", False)
        )

    def test_broken(self) -> None:
        """Anything else that is raised is a failure, logged with its traceback, without the
        artifact's value."""
        outcome = self.ask(ValueError("what about 10.1.1.1?")).outcome
        self.assertEqual((outcome.ended, outcome.reason), (Ended.FAILED, "broken: ValueError"))
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_secrets_stay_hidden(self) -> None:
        """A secret of the settings, often part of a failed request's address, is not repeated."""
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        settings = {"keys": [{"key": Secret("s3cret")}], "url": "http://a.example/"}
        for error in (OSError("http://a.example/?key=s3cret"), SearchFailed("?key=s3cret")):
            source = source_of(Local(error), Clock())
            source.setup.settings.update(settings)
            lines.append(ask_local(source, ask_about()).outcome.reason)
        said = "\n".join(lines)
        self.assertNotIn("s3cret", said)
        self.assertEqual(said.count("key=(secret)"), 2)

    def test_password_stays_hidden(self) -> None:
        """Whatever a searcher says about a password is not repeated."""
        failed = self.ask(SearchFailed("hunter2 is bad"), type=PASSWORD, value="hunter2").outcome
        self.assertNotIn("hunter2", failed.reason)

    def test_must_not_wait(self) -> None:
        """A local searcher that waits has failed: nobody would wait for it."""

        class Waiting(Local):
            async def search(self, *args: Any, **kwargs: Any) -> Any:
                await Deferred()

        outcome = ask_local(source_of(Waiting(), Clock()), ask_about()).outcome
        self.assertIs(outcome.ended, Ended.FAILED)

    def test_no_hit(self) -> None:
        """What is neither a hit nor a threat is the searcher's fault, and never "nothing"."""
        for garbage in (["x"], "x", b"", 0, False, {}, succeed([a_hit()])):
            self.assertEqual(self.ask(garbage).outcome.reason, "broken: TypeError")
        self.assertEqual(len(self.ask(a_hit()).outcome.hits), 1)

    def test_base_exceptions(self) -> None:
        """Whatever is raised is the searcher's failure alone."""
        for error in (SystemExit(1), KeyboardInterrupt(), GeneratorExit(), BaseException()):
            outcome = self.ask(error).outcome
            self.assertEqual(outcome.reason, f"broken: {type(error).__name__}")

    def test_later_when(self) -> None:
        """ "Later" has to be a time from now; a reason need not be text."""
        for never in (float("nan"), float("inf"), -1):
            self.assertRaises(ValueError, SearchLater, never)
        self.assertEqual(self.ask(SearchFailed(None)).outcome.reason, "None")  # type: ignore[arg-type]

    def test_supports_is_broken(self) -> None:
        """A searcher that can't say what it supports is asked nothing; that is told once."""

        class Broken(Local):
            def supports(self, artifact_type: str) -> bool:
                raise SystemExit(1)

        source = source_of(Broken(), Clock())
        self.assertFalse(source.supports("net.ip"))
        self.assertFalse(source.supports("net.ip"))
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_hooks_are_broken(self) -> None:
        """What a searcher says of itself is never an exception."""

        class Broken(Local):
            def trouble(self) -> str:
                raise ValueError

            describe = loading = failed = trouble  # type: ignore[assignment]

        source = source_of(Broken(), Clock())
        said = (source.trouble(), source.describe(), source.loading(), source.failed())
        self.assertEqual(said, ("broken: ValueError", "", False, True))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 4)


class Sample(BaseArtifactSearch):
    """A searcher of the Django sample, but for its import line."""

    @classmethod
    def supports(cls, artifact_type):  # type: ignore[no-untyped-def]
        """As there."""
        return artifact_type == "net.uri"

    @classmethod
    def search(cls, artifact_type, search_term, **kwargs):  # type: ignore[no-untyped-def]
        """As there."""
        context = kwargs.get("context")
        cls.store_threat_info(
            name="PhishTank Record 1",
            source_artifact=Artifact(type=artifact_type, value=search_term),
            properties_list=[
                Property(type="number", name="id", value=1),
                Property(type="string", name="url", value=context.value),
                {"type": "string", "name": "target"},
            ],
            artifacts_list=[Artifact(type="net.name", value="www.megastore.lu")],
        )


class RunnerTests(SynchronousTestCase):
    """Searchers that wait, block, or are run alone."""

    def setUp(self) -> None:
        """A runner whose time and threads the test drives."""
        self.clock = Clock()
        self.threads = Threads()
        self.alone: list[Ask] = []
        self.runner = Runner(
            clock=self.clock,
            threads=self.threads,  # type: ignore[arg-type]
            run_alone=self.run_alone,
        )

    def run_alone(self, source: Source, ask: Ask) -> Deferred[Answered]:
        """A child process that finds nothing."""
        self.alone.append(ask)
        return succeed(Answered(NOTHING))

    def source(self, searcher: BaseArtifactSearch, **more: Any) -> Source:
        """A searcher that has 5 s."""
        return source_of(searcher, self.clock, timeout_secs=5.0, **more)

    def test_coroutine(self) -> None:
        """A coroutine's hits, and that there is nothing else to store, are its answer."""
        told = Told()
        answer = self.runner.ask(self.source(told), ask_about())
        self.assertNoResult(answer)
        told.tell([a_hit()])
        answered = self.successResultOf(answer)
        self.assertIs(answered.outcome.ended, Ended.FOUND)
        self.assertEqual(answered.finds[0].threats, ())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_deferred(self) -> None:
        """A coroutine may return a Deferred; a plain function may not."""
        told = Told()
        answer = self.runner.ask(self.source(told), ask_about())
        told.tell(None)
        self.successResultOf(answer)

        class Returning(Told):
            async def search(self, *args: Any, **kwargs: Any) -> Any:
                return succeed([a_hit()])

        answer = self.runner.ask(self.source(Returning()), ask_about())
        self.assertEqual(len(self.successResultOf(answer).outcome.hits), 1)
        plain = Blocking(lambda *args, **kwargs: succeed([a_hit()]))
        answer = self.runner.ask(self.source(plain), ask_about())
        self.threads.run()
        self.assertEqual(self.successResultOf(answer).outcome.reason, "broken: TypeError")

    def test_nothing_to_run_it_with(self) -> None:
        """Without a process or thread to be had it has failed, and its slot is free again."""

        def no_process(*args: Any) -> Any:
            raise OSError("no file descriptors")

        self.runner._run_alone = no_process
        source = self.source(Told(), slots=Slots(limit=1))
        for _ in range(3):
            answered = self.successResultOf(self.runner.ask(source, ask_about(), alone=True))
            self.assertEqual(answered.outcome.reason, "could not be run: OSError")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 3)

    def test_nameless_threat(self) -> None:
        """A threat needs a name; a number is one."""
        searcher = Blocking(lambda *args, **kwargs: Blocking.store_threat_info(None, None, []))  # type: ignore[arg-type]
        answer = self.runner.ask(self.source(searcher), ask_about())
        self.threads.run()
        self.assertEqual(self.successResultOf(answer).outcome.reason, "broken: ValueError")

    def test_stores(self) -> None:
        """What is both returned and stored counts once; it goes to the local database, too."""

        class Storing(Told):
            async def search(self, *args: Any, **kwargs: Any) -> Any:
                found = await super().search(*args, **kwargs)
                return [
                    self.store_threat_info(
                        name=found,
                        source_artifact=kwargs["context"],
                        properties_list=[{"type": "string", "name": "n", "value": "v"}, ("a", "b")],
                        artifacts_list=[Artifact("hash.md5", "0" * 32)],
                    )
                ]

        storing = Storing()
        answer = self.runner.ask(self.source(storing), ask_about())
        storing.tell("T")
        answered = self.successResultOf(answer)
        self.assertEqual(len(answered.outcome.hits), 1)
        (threat,) = answered.finds[0].threats
        self.assertEqual([each.type for each in threat.artifacts], ["net.ip", "hash.md5"])
        self.assertEqual(len(threat.properties), 1)
        self.assertEqual(threat.source, b"d" * 16)

    def test_store_outside_of_a_search(self) -> None:
        """C{store_threat_info} is for use during a search."""
        self.assertRaises(RuntimeError, Told.store_threat_info, "T", None, [])

    def test_timeout(self) -> None:
        """A coroutine that takes too long is cancelled, and has failed."""
        told = Told()
        answer = self.runner.ask(self.source(told), ask_about())
        self.clock.advance(4.9)
        self.assertNoResult(answer)
        self.clock.advance(0.2)
        outcome = self.successResultOf(answer).outcome
        self.assertEqual(outcome.reason, "no answer within 5 s")
        self.assertEqual(told.cancelled, 1)

    def test_blocking(self) -> None:
        """A plain function runs in a thread, with the same API."""
        searcher = Blocking(lambda *args, context: [a_hit(context.value)])
        answer = self.runner.ask(self.source(searcher), ask_about())
        self.assertNoResult(answer)
        self.threads.run()
        self.assertIn(b"10.1.1.1", self.successResultOf(answer).outcome.hits[0])

    def test_blocking_stores(self) -> None:
        """A thread knows which search it belongs to."""
        searcher = Blocking(
            lambda *args, **kwargs: (
                Blocking.store_threat_info("T", None, [("string", "n", "v")]) and None
            )
        )
        answer = self.runner.ask(self.source(searcher), ask_about())
        self.threads.run()
        self.assertEqual(self.successResultOf(answer).finds[0].threats[0].name, "T")

    def test_sample(self) -> None:
        """A searcher of the Django sample works: class methods, keywords, unsaved values; a
        property with a missing field is dropped."""
        sample = Sample()
        self.assertEqual(name_of(Sample), "sample")
        answer = self.runner.ask(self.source(sample), ask_about("net.uri", "http://a.example/"))
        self.threads.run()
        answered = self.successResultOf(answer)
        self.assertEqual(answered.outcome.hits[0].count(b'"name"'), 2)
        (threat,) = answered.finds[0].threats
        self.assertEqual(len(threat.artifacts), 2)

    def test_names(self) -> None:
        """A class is called what it says, else after itself, without C{ArtifactSearch} alone."""
        given = {
            "WebSearchArtifactSearch": "web_search",
            "WebSearch": "web_search",
            "ArtifactSearch": "artifact_search",
            "RFC1918ArtifactSearch": "rfc1918",
        }
        for name, expected in given.items():
            self.assertEqual(name_of(type(name, (BaseArtifactSearch,), {})), expected)
        self.assertEqual(
            name_of(type("X", (BaseArtifactSearch,), {"name": "phishtank"})), "phishtank"
        )

    def test_stuck_threads(self) -> None:
        """Threads that overstay keep their slots; when none is left the source is stuck; when a
        thread ends, it is not."""
        source = self.source(Blocking(lambda *args, **kwargs: None), slots=Slots(limit=1))
        answer = self.runner.ask(source, ask_about())
        job = self.threads.jobs[0]
        job._started = True  # as if the thread were in it
        self.clock.advance(5)
        self.assertEqual(self.successResultOf(answer).outcome.reason, "no answer within 5 s")
        again = self.successResultOf(self.runner.ask(source, ask_about()))
        self.assertIn("stuck", again.outcome.reason)
        job.done.callback(Answered(NOTHING))
        self.threads.jobs.clear()
        third = self.runner.ask(source, ask_about())
        self.threads.run()
        self.assertIs(self.successResultOf(third).outcome, NOTHING)

    def test_no_free_thread(self) -> None:
        """A call that no thread has started when its time is over is never started."""
        called: list[int] = []
        source = self.source(Blocking(lambda *args, **kwargs: called.append(1)))
        answer = self.runner.ask(source, ask_about())
        self.clock.advance(5)
        self.assertIs(self.successResultOf(answer).outcome.ended, Ended.FAILED)
        self.threads.run()
        self.assertEqual(called, [])
        self.assertFalse(source.slots.stuck)

    def test_no_free_slot(self) -> None:
        """Waiting for a slot has an end. It is tried again soon, however often that was so."""
        source = self.source(Told(), slots=Slots(limit=1))
        first, second, third = [self.runner.ask(source, ask_about()) for _ in range(3)]
        self.clock.advance(5)
        self.assertEqual(self.successResultOf(first).outcome.reason, "no answer within 5 s")
        self.assertNoResult(second)
        busy = self.successResultOf(third).outcome
        self.assertEqual((busy.ended, busy.reason), (Ended.FAILED, "no free slot within 5 s"))
        self.assertEqual(backoff_secs(busy, tries=9), BUSY_RETRY_SECS)

    def test_cancel(self) -> None:
        """Cancelling the answer gives the search up."""
        told = Told()
        answer = self.runner.ask(self.source(told), ask_about())
        answer.cancel()
        self.assertEqual(self.successResultOf(answer).outcome.reason, "given up")
        self.assertEqual(told.cancelled, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_alone(self) -> None:
        """A searcher that asks for it, and a search that is suspect, run in a child."""

        class Isolated(Told):
            isolate = True

        self.successResultOf(self.runner.ask(self.source(Isolated()), ask_about()))
        self.successResultOf(self.runner.ask(self.source(Told()), ask_about(), alone=True))
        self.assertEqual(len(self.alone), 2)

    def test_derived(self) -> None:
        """What derives from an artifact says so; one question that fails spoils the whole."""
        told = Told(("hash.md5", "hash.sha1"))
        ask = Ask(
            scan_id="0" * 32,
            questions=(
                Question("hash.md5", "0" * 32, how="MD5 of the file", source=b"a" * 16),
                Question("hash.sha1", "0" * 40, how="SHA-1 of the file", source=b"b" * 16),
            ),
            asked=frozenset(),
        )
        answer = self.runner.ask(self.source(told), ask)
        told.tell([a_hit()])
        told.tell(SearchFailed("away"))
        outcome = self.successResultOf(answer).outcome
        self.assertIn(b"MD5 of the file", outcome.hits[0])
        self.assertEqual((outcome.ended, outcome.reason), (Ended.FAILED, "away"))

    def test_file_is_gone(self) -> None:
        """A file that somebody removed can't be searched, ever."""
        file = File(path=Path("/nonexistent/f"), name="f", size=1, md5="", sha1="", sha256="")
        source = self.source(Told((FILE,)))
        answered = self.successResultOf(self.runner.ask(source, ask_about(FILE, "f", file=file)))
        self.assertEqual(
            answered.outcome,
            Outcome(Ended.FAILED, reason="the file was removed by the host", final=True),
        )

    def test_stop(self) -> None:
        """Everything that runs is given up."""
        told = Told()
        answer = self.runner.ask(self.source(told), ask_about())
        self.runner.stop()
        self.assertEqual(told.cancelled, 1)
        self.successResultOf(answer)
