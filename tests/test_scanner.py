"""
Tests of scans, from the artifact to the final answer: L{ctsd.scanning} as a whole, on the shipped
fakes, without real time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctsd.errors import (
    LostScan,
    NoSuchScan,
    NoSuchService,
    SearchFailed,
    SearchLater,
    StoreError,
    Unavailable,
)
from ctsd.interfaces.scanning import IScans
from ctsd.model import (
    FILE,
    NOTHING,
    PASSWORD,
    Artifact,
    Ended,
    File,
    Outcome,
    Scan,
    ScanView,
)
from ctsd.records import Finds
from ctsd.scan_ids import ScanIds
from ctsd.scanning.first_answers import FirstAnswers
from ctsd.scanning.flight import Flight
from ctsd.scanning.following import Following
from ctsd.scanning.membership import Membership
from ctsd.scanning.promises import Promises
from ctsd.scanning.recent import RecentViews
from ctsd.scanning.reliability import Reliability
from ctsd.scanning.resuming import Resuming
from ctsd.scanning.rules import Rules, ScanLimits
from ctsd.scanning.running import Runner
from ctsd.scanning.scan_log import ScanLog
from ctsd.scanning.scanner import Scanner
from ctsd.scanning.searches import Searches
from ctsd.scanning.source import Answered, Ask, Source
from ctsd.scanning.upkeep import Upkeep
from ctsd.scanning.views import Views
from ctsd.scans import FIRST_RETRY_SECS, RESEND_SECS
from ctsd.searcher import BaseArtifactSearch
from ctsd.store.memory import MemoryStore
from tests.scanning import Local, Looking, Threads, Told, a_hit, source_of

IP = Artifact("net.ip", "10.1.1.1")


class FakeSpool:
    """Remembers what was removed."""

    def __init__(self) -> None:
        self.removed: list[Path] = []
        self.kept: set[Path] | None = None

    def remove(self, *, paths: Iterable[Path]) -> None:
        """Note it."""
        self.removed += paths

    def missing(self, *, paths: Iterable[Path]) -> Deferred[set[Path]]:
        """Look."""
        return succeed({path for path in paths if not path.exists()})

    def sweep(self, *, keep: set[Path]) -> None:
        """Note it."""
        self.kept = keep


class House:
    """One process: a scanner with its parts, on a store that may outlive it."""

    def __init__(
        self,
        clock: Clock,
        store: MemoryStore,
        searchers: dict[str, Iterable[BaseArtifactSearch | Source]],
        *,
        node: str = "node",
        start: bool = True,
        shared: bool = False,
        **limits: Any,
    ) -> None:
        self.clock, self.store = clock, store
        self.spool = FakeSpool()
        self.threads = Threads()
        self.alone: list[Ask] = []
        self.alone_answer = Answered(NOTHING)
        services = {
            name: tuple(
                one if isinstance(one, Source) else source_of(one, clock, asynchronous=True)
                for one in ones
            )
            for name, ones in searchers.items()
        }
        rules = Rules(services=services, limits=ScanLimits(**limits))
        reliability = Reliability(clock=clock, now=store.now)
        self.flight = Flight()
        self.recent = RecentViews(
            max_bytes=10_000, oldest=lambda: store.now() - rules.limits.retention_secs
        )
        scan_log = ScanLog(clock=clock)
        self.membership = Membership(clock=clock, store=store, name=node, lease_secs=12.0)
        views = Views(
            clock=clock,
            store=store,
            recent=self.recent,
            reliability=reliability,
            rules=rules,
        )
        following = Following(clock=clock, store=store, views=views, rules=rules)
        searches = Searches(
            clock=clock,
            runner=Runner(clock=clock, threads=self.threads, run_alone=self.run_alone),  # type: ignore[arg-type]
            reliability=reliability,
            flight=self.flight,
        )
        self.promises = Promises(
            clock=clock,
            store=store,
            flight=self.flight,
            views=views,
            spool=self.spool,  # type: ignore[arg-type]
            scan_log=scan_log,
            recent=self.recent,
            rules=rules,
            membership=self.membership,
            following=following,
        )
        resuming = Resuming(
            clock=clock,
            store=store,
            flight=self.flight,
            views=views,
            promises=self.promises,
            searches=searches,
            membership=self.membership,
            spool=self.spool,  # type: ignore[arg-type]
            rules=rules,
        )
        self.upkeep = Upkeep(
            clock=clock,
            store=store,
            flight=self.flight,
            promises=self.promises,
            resuming=resuming,
            searches=searches,
            spool=self.spool,  # type: ignore[arg-type]
            membership=self.membership,
            rules=rules,
        )
        first_answers = FirstAnswers(
            clock=clock,
            store=store,
            ids=ScanIds(store.secret()),
            spool=self.spool,  # type: ignore[arg-type]
            scan_log=scan_log,
            rules=rules,
            reliability=reliability,
            flight=self.flight,
            promises=self.promises,
            searches=searches,
            recent=self.recent,
            following=following,
            shared=shared,
        )
        self.scanner = Scanner(
            clock=clock,
            store=store,
            ids=ScanIds(store.secret()),
            rules=rules,
            flight=self.flight,
            views=views,
            first_answers=first_answers,
            upkeep=self.upkeep,
            recent=self.recent,
            membership=self.membership,
            following=following,
        )
        if start:
            self.upkeep.startService()

    def kill(self) -> None:
        """The process is gone, without a word."""
        self.flight.stopping = True
        for _, loop in self.upkeep._loops:
            if loop.running:
                loop.stop()

    def run_alone(self, source: Source, ask: Ask) -> Deferred[Answered]:
        """A child process."""
        self.alone.append(ask)
        answered: Deferred[Answered] = Deferred()
        answered.callback(self.alone_answer)
        return answered

    def submit(self, artifact: Artifact = IP, service: str = "") -> Deferred[ScanView]:
        """POST."""
        return self.scanner.submit(service=service, artifact=artifact)

    def view(self, scan_id: str, service: str = "") -> Deferred[ScanView]:
        """GET."""
        return self.scanner.view(service=service, scan_id=scan_id)


class ScanTestCase(SynchronousTestCase):
    """One process, one coroutine searcher, one local searcher."""

    def setUp(self) -> None:
        """Time that the test drives."""
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.store = MemoryStore(clock=self.clock)
        self.told = Told()
        self.local = Local()
        self.houses: list[House] = []
        self.house = self.make_house()

    def make_house(self, services: Any = None, **more: Any) -> House:
        """A process, instead of the one before it; it finds what that one has left."""
        for house in self.houses:
            house.kill()
        house = House(self.clock, self.store, services or {"": [self.local, self.told]}, **more)
        self.houses.append(house)
        return house

    def promised(self, artifact: Artifact = IP) -> ScanView:
        """A scan whose remote search still runs after the first answer."""
        answer = self.house.submit(artifact)
        self.clock.advance(1)
        view = self.successResultOf(answer)
        self.assertFalse(view.finished)
        return view


class FirstAnswerTests(ScanTestCase):
    """What a POST gets."""

    def test_interface(self) -> None:
        """The scanner is what the web side asks for."""
        verifyObject(IScans, self.house.scanner)

    def test_local(self) -> None:
        """When only local searchers are asked, the answer is there at once, and can be had again,
        also from another process on the same store."""
        house = self.make_house({"": [Local([a_hit()])]})
        view = self.successResultOf(house.submit())
        self.assertTrue(view.finished)
        self.assertEqual(len(view.hits), 1)
        self.assertEqual(self.successResultOf(house.view(view.id)), view)
        other = self.make_house({"": []})
        self.assertEqual(self.successResultOf(other.view(view.id)), view)

    def test_looks_first(self) -> None:
        """
        A local searcher that is certain to find nothing is not asked; one that is not, or whose
        look is broken, is.
        """
        looking = Looking([a_hit()])
        house = self.make_house({"": [looking]})
        for sure, hits in ((True, 0), (False, 1), (ValueError("broken"), 1)):
            looking.sure = sure
            view = self.successResultOf(house.submit())
            self.assertEqual((view.finished, len(view.hits)), (True, hits))
            self.assertEqual(self.successResultOf(house.view(view.id)), view)
        self.assertEqual(len(looking.asked), 2)

    def test_looks_first_and_waits(self) -> None:
        """One that is not local looks first, too, beside any others; it is asked like any other."""
        looking = Looking([a_hit("looked")])
        looking.local = False
        for others in ((self.local,), (self.local, self.told)):
            house = self.make_house({"": [*others, looking]}, shared=True)
            for sure in (True, False, ValueError("broken")):
                looking.sure = sure
                self.local.asked.clear()
                looking.asked.clear()
                answer = house.submit()
                if self.told in others:
                    self.told.tell([])
                view = self.successResultOf(answer)
                self.assertTrue(view.finished)
                self.assertEqual(len(view.hits), len(looking.asked))
                self.assertEqual(len(looking.asked), 0 if sure is True else 1)
                self.assertEqual(len(self.local.asked), 1)

    def test_in_time(self) -> None:
        """An async searcher that is quick enough is in the first answer."""
        answer = self.house.submit()
        self.clock.advance(0.9)
        self.assertNoResult(answer)
        self.told.tell([a_hit()])
        view = self.successResultOf(answer)
        self.assertTrue(view.finished)
        self.assertEqual(len(view.hits), 1)
        self.house.upkeep.stopService()
        self.assertEqual(
            [call for call in self.clock.getDelayedCalls() if call.getTime() > 1_700_000_002], []
        )

    def test_promised(self) -> None:
        """One that is not is promised, with the hits that there are."""
        self.local.result = [a_hit("early")]
        view = self.promised()
        self.assertEqual(len(view.hits), 1)
        self.assertGreaterEqual(view.retry_secs, 1)
        self.told.tell([a_hit("late")])
        final = self.successResultOf(self.house.view(view.id))
        self.assertTrue(final.finished)
        self.assertEqual(final.hits[:1], view.hits)
        self.assertIn(b"late", final.hits[1])

    def test_sync_may_take_longer(self) -> None:
        """A sync searcher holds the first answer up to the deadline of a POST, not beyond."""
        told = Told()
        house = self.make_house({"": [source_of(told, self.clock)]})
        quick, slow = house.submit(), house.submit(Artifact("net.ip", "10.9.9.9"))
        self.clock.advance(2)
        self.assertNoResult(quick)
        told.tell(None)
        self.assertTrue(self.successResultOf(quick).finished)
        self.clock.advance(1)
        self.assertFalse(self.successResultOf(slow).finished)

    def test_failed_is_not_clean(self) -> None:
        """A searcher that failed keeps the scan open."""
        answer = self.house.submit()
        self.told.tell(SearchFailed("away"))
        self.assertFalse(self.successResultOf(answer).finished)

    def test_optional(self) -> None:
        """Unless it is not required."""
        told = Told()
        house = self.make_house({"": [source_of(told, self.clock, required=False)]})
        failed, silent = house.submit(), house.submit(Artifact("net.ip", "10.9.9.9"))
        told.tell(SearchFailed("away"))
        self.assertTrue(self.successResultOf(failed).finished)
        self.clock.advance(3)
        self.assertTrue(self.successResultOf(silent).finished)

    def test_once(self) -> None:
        """A scan ends once, and is written once: also when searchers answer without waiting, and
        when one that is not required answers late."""
        written: list[str] = []
        remember = self.store.remember

        def note(*, scan: Scan, finds: Sequence[Finds] = ()) -> None:
            written.append(scan.id)
            remember(scan=scan, finds=finds)

        self.store.remember = note  # type: ignore[method-assign]
        quick, late = [Local([a_hit(name)]) for name in "ab"], Told()
        sources = [source_of(one, self.clock, name=f"quick{at}") for at, one in enumerate(quick)]
        for each in quick:
            each.local = False  # type: ignore[misc]
        sources.append(source_of(late, self.clock, asynchronous=True, required=False))
        house = self.make_house({"quick": sources[:2], "": sources})
        view = self.successResultOf(house.submit(service="quick"))
        self.assertEqual(len(view.hits), 2)
        answer = house.submit()
        self.clock.advance(1)
        other = self.successResultOf(answer)
        late.tell([a_hit("late")])
        self.assertEqual(written, [view.id, other.id])
        self.assertEqual(self.successResultOf(house.view(other.id)), other)

    def test_joined(self) -> None:
        """An equal scan in flight is joined: one search, one id. Whoever hangs up hangs up
        alone."""
        first, gone, second = self.house.submit(), self.house.submit(), self.house.submit()
        gone.cancel()
        self.failureResultOf(gone)
        self.told.tell([a_hit()])
        self.assertEqual(self.successResultOf(first), self.successResultOf(second))
        self.assertEqual(len(self.told.asked), 1)

    def test_joined_later(self) -> None:
        """Also after its first answer; but not in another service."""
        house = self.make_house({"": [self.told], "own": [self.told]})
        answer = house.submit()
        self.clock.advance(1)
        view = self.successResultOf(answer)
        self.assertEqual(self.successResultOf(house.submit()).id, view.id)
        other = house.submit(service="own")
        self.clock.advance(1)
        self.assertNotEqual(self.successResultOf(other).id, view.id)
        self.failureResultOf(house.view(view.id, "own"), NoSuchScan)

    def test_unknown_service(self) -> None:
        """There is no such service."""
        self.failureResultOf(self.house.submit(service="nope"), NoSuchService)

    def test_unknown_artifact(self) -> None:
        """A type or shape that we don't know is no error and no hit, and can be asked for."""
        for artifact in (Artifact("net.new", "x"), Artifact("net.ip", {"a": 1})):
            view = self.successResultOf(self.house.submit(artifact))
            self.assertEqual((view.finished, view.hits), (True, ()))
        self.assertEqual(self.local.asked, [])

    def test_empty(self) -> None:
        """An empty value is not asked about."""
        view = self.successResultOf(self.house.submit(Artifact("net.ip", " ")))
        self.assertTrue(view.finished)
        self.assertEqual(self.told.asked, [])

    def test_too_many(self) -> None:
        """Beyond the limit there is a clear refusal."""
        house = self.make_house(max_scans=1)
        house.submit()
        refused = house.submit(Artifact("net.ip", "10.9.9.9"))
        self.assertIn("too many", self.failureResultOf(refused, Unavailable).value.reason)

    def test_store_is_away(self) -> None:
        """What can't be promised is not: the platform sends it again."""
        answer = self.house.submit()
        self.store.promise = lambda **_: fail(StoreError("away"))  # type: ignore[method-assign]
        self.clock.advance(1)
        self.failureResultOf(answer, StoreError)
        del self.store.promise
        again = self.house.submit()
        self.clock.advance(1)
        self.assertFalse(self.successResultOf(again).finished)

    def test_store_is_slow(self) -> None:
        """A promise that is not written in time is no answer; it is kept all the same."""
        written: Deferred[None] = Deferred()
        self.store.promise = lambda scan, **_: written.addCallback(lambda _: scan)  # type: ignore
        answer, joined = self.house.submit(), self.house.submit()
        self.clock.advance(1)
        self.assertNoResult(answer)
        self.clock.advance(2)
        self.failureResultOf(answer, Unavailable)
        self.failureResultOf(joined, Unavailable)
        written.callback(None)
        self.assertFalse(self.successResultOf(self.house.submit()).finished)

    def test_store_is_full(self) -> None:
        """A full store takes no promises, but answers what needs none."""
        self.store.full = lambda: "full"  # type: ignore[method-assign]
        self.assertEqual(self.house.scanner.working(), "full")
        house = self.make_house({"": [self.local]})
        self.assertTrue(self.successResultOf(house.submit()).finished)
        answer = self.house.submit(Artifact("net.ip", "10.9.9.9"))
        self.clock.advance(1)
        self.failureResultOf(answer, Unavailable)

    def test_stopping(self) -> None:
        """A process that stops takes nothing."""
        self.successResultOf(self.house.upkeep.stopService())
        self.failureResultOf(self.house.submit(), Unavailable)


class PromiseTests(ScanTestCase):
    """What happens after a 303."""

    def test_asked_again(self) -> None:
        """A searcher that failed is asked again, ever more rarely, and the answer is complete
        when it has answered."""
        answer = self.house.submit()
        self.told.tell(SearchFailed("away"))
        view = self.successResultOf(answer)
        self.assertEqual(len(self.house.flight), 0)  # it waits as a row
        self.clock.pump([1] * int(FIRST_RETRY_SECS + 2))
        self.assertEqual(len(self.told.asked), 2)
        self.told.tell(SearchFailed("still away"))
        later = self.successResultOf(self.house.view(view.id))
        self.assertGreaterEqual(later.retry_secs, 2 * FIRST_RETRY_SECS - 1)
        self.clock.pump([1] * int(2 * FIRST_RETRY_SECS + 2))
        self.assertEqual(len(self.told.asked), 3)
        self.told.tell([a_hit()])
        self.assertTrue(self.successResultOf(self.house.view(view.id)).finished)

    def test_later(self) -> None:
        """A searcher that says when is asked then; a local one, too."""
        self.local.result = SearchLater(5, "loading")
        answer = self.house.submit()
        self.told.tell(None)
        view = self.successResultOf(answer)
        self.assertFalse(view.finished)
        self.local.result = [a_hit()]
        self.clock.pump([1] * 7)
        final = self.successResultOf(self.house.view(view.id))
        self.assertEqual((final.finished, len(final.hits)), (True, 1))

    def test_nothing_shown_that_is_not_written(self) -> None:
        """A late hit shows when it is committed, not before; the store's absence delays it."""
        view = self.promised()
        record = self.store.record
        self.store.record = lambda **_: fail(StoreError("away"))  # type: ignore[method-assign]
        self.told.tell([a_hit()])
        self.assertEqual(self.successResultOf(self.house.view(view.id)).hits, ())
        self.store.record = record  # type: ignore[method-assign]
        self.clock.pump([1] * 5)
        self.assertEqual(len(self.successResultOf(self.house.view(view.id)).hits), 1)

    def test_answer_while_being_promised(self) -> None:
        """A search that ends while the promise is being written is not lost."""
        promise, written = self.store.promise, Deferred[None]()

        def slowly(**given: Any) -> Deferred[None]:
            return written.addCallback(lambda _: promise(**given))

        self.store.promise = slowly  # type: ignore[method-assign]
        answer = self.house.submit()
        self.clock.advance(1)
        self.told.tell([a_hit()])
        self.assertNoResult(answer)
        written.callback(None)
        view = self.successResultOf(answer)
        final = self.successResultOf(self.house.view(view.id))
        self.assertEqual((final.finished, len(final.hits)), (True, 1))

    def test_deadline_resend(self) -> None:
        """At its deadline the scan is to be sent again, with the names of who is missing; asked
        for after that, it is opened again, and keeps what was good."""
        self.house = self.make_house(scan_deadline_secs=100)
        view = self.promised()
        for _ in range(102):
            if self.told.waiting:
                self.told.tell(SearchFailed("away"))
            self.clock.advance(1)
        lost = self.failureResultOf(self.house.view(view.id), LostScan).value
        self.assertIn("told", lost.reason)
        self.assertLessEqual(lost.retry_secs, RESEND_SECS)
        asked = len(self.local.asked)
        self.clock.pump([60] * 16)
        self.assertFalse(self.successResultOf(self.house.view(view.id)).finished)
        self.clock.pump([1] * 2)
        self.told.tell([a_hit()])
        self.assertTrue(self.successResultOf(self.house.view(view.id)).finished)
        self.assertEqual(len(self.local.asked), asked)

    def test_sent_again(self) -> None:
        """A POST equal to a scan that ended incomplete asks only whom it misses."""
        self.house = self.make_house(scan_deadline_secs=10)
        self.local.result = [a_hit()]
        view = self.promised()
        self.clock.pump([1] * 12)
        incomplete = self.successResultOf(self.house.view(view.id))
        self.assertIn(b"told", incomplete.hits[-1])
        self.told._answers.clear()
        asked = len(self.local.asked)
        again = self.house.submit()
        self.told.tell(None)
        final = self.successResultOf(again)
        self.assertNotEqual(final.id, view.id)
        self.assertEqual((final.finished, final.hits), (True, incomplete.hits[:1]))
        self.assertEqual(len(self.local.asked), asked)

    def test_late_answer_of_an_ended_scan(self) -> None:
        """What comes after the end changes nothing."""
        self.house = self.make_house(scan_deadline_secs=10, when_incomplete="ignore")
        view = self.promised()
        self.clock.pump([1] * 12)
        self.told.tell([a_hit()])
        final = self.successResultOf(self.house.view(view.id))
        self.assertEqual((final.finished, final.hits), (True, ()))


class RestartTests(ScanTestCase):
    """Nothing that was promised depends on the process."""

    def restarted(self, **more: Any) -> House:
        """The process dies without a word; another one starts on its store."""
        self.told._answers.clear()
        self.house = self.make_house(**more)
        self.clock.advance(0)
        return self.house

    def test_killed(self) -> None:
        """A search that died with its process is done again."""
        view = self.promised()
        house = self.restarted()
        self.clock.pump([1] * 2)
        self.assertFalse(self.successResultOf(house.view(view.id)).finished)
        self.told.tell([a_hit()])
        final = self.successResultOf(house.view(view.id))
        self.assertEqual((final.finished, len(final.hits)), (True, 1))

    def test_equal_scan_after_restart(self) -> None:
        """An artifact that is sent again joins the promise that another process made."""
        view = self.promised()
        house = self.restarted()
        self.assertEqual(self.successResultOf(house.submit()).id, view.id)

    def test_suspect(self) -> None:
        """From the second takeover a search runs alone; two deaths there are its end."""
        view = self.promised()
        self.restarted()
        self.clock.pump([1] * 2)
        self.assertEqual(len(self.told.asked), 2)
        house = self.restarted(start=False)
        house.alone_answer = Answered(Outcome(Ended.FAILED, reason="its process died"), died=True)
        house.upkeep.startService()
        self.clock.pump([1] * int(5 * FIRST_RETRY_SECS))
        self.assertEqual(len(self.told.asked), 2)
        self.assertEqual(len(house.alone), 2)
        self.assertIn("told", self.failureResultOf(house.view(view.id), LostScan).value.reason)

    def test_graceful_stop_blames_nobody(self) -> None:
        """A stop lets go of what runs: the next process does not suspect it."""
        self.promised()
        for _ in range(3):
            self.successResultOf(self.house.upkeep.stopService())
            self.restarted()
            self.clock.pump([1] * 2)
        self.assertEqual(self.house.alone, [])
        self.assertEqual(len(self.told.asked), 4)

    def test_searcher_is_gone(self) -> None:
        """A searcher that is no longer configured could not be asked: that is not "nothing"."""
        view = self.promised()
        house = self.make_house({"": [self.local]})
        self.clock.pump([1] * 3)
        self.assertIn("told", self.failureResultOf(house.view(view.id), LostScan).value.reason)

    def test_not_ready_yet(self) -> None:
        """An artifact that comes before the store was read waits for that, as long as a POST
        may."""
        house = self.make_house(start=False)
        answer = house.submit()
        self.assertNoResult(answer)
        house.upkeep.startService()
        self.told.tell(None)
        self.assertTrue(self.successResultOf(answer).finished)
        never = self.make_house(start=False).submit()
        self.clock.advance(3)
        self.failureResultOf(never, Unavailable)

    def test_store_comes_late(self) -> None:
        """A store that does not work at the start is tried again, and said to be away."""
        register = self.store.register
        self.store.register = lambda **_: fail(StoreError("away"))  # type: ignore[method-assign]
        house = self.make_house()
        self.assertEqual(house.scanner.working(), "away")
        self.store.register = register  # type: ignore[method-assign]
        self.clock.advance(1)
        self.assertEqual(house.scanner.working(), "")


class ViewTests(ScanTestCase):
    """What a GET gets for ids that are not there."""

    def test_foreign(self) -> None:
        """An id that we can't have issued."""
        for scan_id in ("", "x", "0" * 32, "/../", ScanIds(b"k" * 32).mint(service="", now=1.0)):
            self.failureResultOf(self.house.view(scan_id), NoSuchScan)

    def test_asked_for_again(self) -> None:
        """A finished answer that was read from the store is remembered, once."""
        house = self.make_house({"": [Local([a_hit()])]})
        view = self.successResultOf(house.submit())
        other = self.make_house({"": []})
        loads: list[str] = []
        load = self.store.load
        self.store.load = lambda *, scan_id: (loads.append(scan_id), load(scan_id=scan_id))[1]  # type: ignore[method-assign]
        for _ in range(3):
            self.assertEqual(self.successResultOf(other.view(view.id)), view)
        self.assertEqual(loads, [view.id])

    def test_lost(self) -> None:
        """One that we have issued and lost is not "nothing found"; once it is old, it is over."""
        ids = ScanIds(self.store.secret())
        young = self.house.view(ids.mint(service="", now=self.store.now()))
        self.assertNoResult(young)
        self.clock.pump([0.1] * 12)
        self.failureResultOf(young, LostScan)
        old = ids.mint(service="", now=self.store.now() - 86400)
        self.failureResultOf(self.house.view(old), LostScan)
        older = ids.mint(service="", now=self.store.now() - 31 * 86400)
        self.failureResultOf(self.house.view(older), NoSuchScan)


class PasswordTests(ScanTestCase):
    """The values of passwords are nowhere but in this process."""

    def setUp(self) -> None:
        """A searcher that takes passwords."""
        super().setUp()
        self.told.types = (PASSWORD,)
        self.password = Artifact(PASSWORD, "hunter2")

    def test_answered_while_the_process_lives(self) -> None:
        """Promised, answered here, and lost with the process."""
        view = self.promised(self.password)
        self.told.tell(SearchFailed("hunter2 is away"))
        self.clock.pump([1] * int(FIRST_RETRY_SECS + 2))
        self.assertEqual(len(self.told.asked), 2)
        self.told.tell([a_hit()])
        final = self.successResultOf(self.house.view(view.id))
        self.assertEqual((final.finished, len(final.hits)), (True, 1))
        other = self.make_house()
        self.failureResultOf(other.view(view.id), LostScan)

    def test_lost_with_the_process(self) -> None:
        """A promised one that was not finished ends with its process."""
        view = self.promised(self.password)
        self.told._answers.clear()
        other = self.make_house()
        self.clock.pump([1] * 3)
        self.failureResultOf(other.view(view.id), LostScan)
        self.assertEqual(len(self.told.asked), 1)

    def test_not_written(self) -> None:
        """Neither value nor digest is in what the store is given."""
        given: list[Any] = []
        promise = self.store.promise
        self.store.promise = lambda **more: (given.append(more), promise(**more))[1]  # type: ignore[method-assign]
        self.promised(self.password)
        (scan,) = [each["scan"] for each in given]
        self.assertEqual((scan.digest, scan.artifact), (b"", None))


class FileTests(ScanTestCase):
    """Uploaded files."""

    def file(self, name: str = "f") -> Artifact:
        """A file in the spool."""
        path = self.spool / name
        path.write_bytes(b"x")
        file = File(
            path=path,
            name="evil.exe",
            size=1,
            md5="0" * 32,
            sha1="0" * 40,
            sha256="0" * 64,
        )
        return Artifact(FILE, "evil.exe", file)

    def setUp(self) -> None:
        """A directory for files."""
        super().setUp()
        self.spool = Path(self.mktemp())
        self.spool.mkdir()

    def test_hashes(self) -> None:
        """Hash searchers are asked about the file; when nobody reads it, it goes at once."""
        self.local.types = ("hash.md5", "hash.sha256")
        self.local.result = [a_hit()]
        view = self.successResultOf(self.house.submit(self.file()))
        self.assertEqual([each for each, _ in self.local.asked], ["hash.md5", "hash.sha256"])
        self.assertEqual(len(view.hits), 2)
        self.assertIn(b"MD5 of the file", view.hits[0])
        self.assertEqual(self.house.spool.removed, [self.spool / "f"])

    def test_looks_first(self) -> None:
        """
        Who may know that it finds nothing is shown what is known of the file, and does not keep
        it: the scan may stay open without it for others.
        """
        looking = Looking((), (FILE,))
        looking.local, looking.sure = False, True
        artifact = self.file()
        house = self.make_house({"": [looking]})
        self.assertTrue(self.successResultOf(house.submit(artifact)).finished)
        self.assertEqual((looking.looked, looking.asked), ([artifact.file], []))
        self.assertEqual(house.spool.removed, [self.spool / "f"])
        self.told.types = ("hash.md5",)
        house = self.make_house({"": [looking, self.told]}, keep_file_secs=60)
        answer = house.submit(self.file())
        self.clock.advance(1)
        view = self.successResultOf(answer)
        self.clock.pump([1] * 62)
        self.told.tell([])
        self.assertTrue(self.successResultOf(house.view(view.id)).finished)

    def test_takes_files(self) -> None:
        """A service takes files when a searcher can use them or their hashes."""
        self.assertFalse(self.house.scanner.takes_files(service=""))
        for type in (FILE, "hash.sha1"):
            house = self.make_house({"": [Told((type,))]})
            self.assertTrue(house.scanner.takes_files(service=""))

    def test_kept_as_long_as_needed(self) -> None:
        """A file stays while its scan is open, at most C{keep_file_secs}; an equal one that
        comes meanwhile goes at once."""

        class Reading(Told):
            name = "reading"

            async def search(self, *args: Any, **kwargs: Any) -> Any:
                raise SearchFailed("no scanner")

        house = self.make_house({"": [Reading((FILE,))]}, keep_file_secs=60)
        answer = house.submit(self.file())
        self.clock.advance(1)
        view = self.successResultOf(answer)
        self.assertEqual(house.spool.removed, [])
        self.successResultOf(house.submit(self.file("again")))
        self.assertEqual(house.spool.removed, [self.spool / "again"])
        self.clock.pump([1] * 62)
        self.assertIn(self.spool / "f", house.spool.removed)
        self.failureResultOf(house.view(view.id), LostScan)

    def test_swept(self) -> None:
        """At the start, what open scans need is kept."""
        self.told.types = (FILE,)
        house = self.make_house({"": [Blocked((FILE,))]})
        house.submit(self.file())
        self.clock.advance(1)
        other = self.make_house()
        self.assertEqual(other.spool.kept, {self.spool / "f"})

    def test_without_a_file(self) -> None:
        """Nobody is asked for a file that did not come; local searchers look its name up."""
        self.told.types = (FILE, "file.name")
        self.local.types = (FILE, "file.name")
        view = self.successResultOf(self.house.submit(Artifact(FILE, "evil.exe")))
        self.assertTrue(view.finished)
        self.assertEqual(self.local.asked, [("file.name", "evil.exe")])
        self.assertEqual(self.told.asked, [])


class Blocked(Told):
    """Reads files, and never ends."""

    async def search(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for ever."""
        return await Deferred()


class LogTests(ScanTestCase):
    """One line a scan."""

    def logged(self, values: bool) -> str:
        """What is logged of one scan."""
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        log = ScanLog(clock=self.clock, values=values)
        for artifact in (IP, Artifact(PASSWORD, "hunter2"), Artifact("string", "a\nb")):
            log.add(scan_id="x", service="", artifact=artifact, outcome="nothing", hits=0, secs=0.0)
        log.flush()
        globalLogPublisher.removeObserver(observe)
        return "\n".join(lines)

    def test_values(self) -> None:
        """Values are logged when that is asked for, escaped; passwords never."""
        self.assertNotIn("10.1.1.1", self.logged(values=False))
        shown = self.logged(values=True)
        self.assertIn("value=10.1.1.1", shown)
        self.assertIn("value=a\\nb", shown)
        self.assertNotIn("hunter2", shown)

    def test_line(self) -> None:
        """Id, service, type, outcome and seconds; never the value."""
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        house = self.make_house({"": [Local([a_hit()])]})
        view = self.successResultOf(house.submit())
        house.submit(Artifact("evil\ntype", "x"))
        self.clock.advance(1)
        text = "\n".join(lines)
        self.assertIn(f"scan {view.id} service=/ type=net.ip outcome=found hits=1 secs=", text)
        self.assertNotIn("10.1.1.1", text)
        self.assertNotIn("evil\ntype", text)
