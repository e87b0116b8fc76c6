"""How searchers and searches stand, as people see it."""

from __future__ import annotations

from twisted.application.service import MultiService
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctsd import answering
from ctsd.catalogue import Found
from ctsd.errors import NoSuchScan, SearchFailed, StoreError
from ctsd.interfaces.scanning import IStatus
from ctsd.model import PASSWORD, Artifact, Ended, Suppressed
from ctsd.scan_ids import ScanIds
from ctsd.sources import Sources
from ctsd.states import SearcherState, SearchState
from ctsd.status import Status
from ctsd.store.memory import MemoryStore
from tests.scanning import Local, Told, a_hit, source_of
from tests.test_scanner import House
from tests.web_fakes import FakeStatus

IP = Artifact("net.ip", "10.1.1.1")


class Speaking(Local):
    """A searcher that tells of itself."""

    def trouble(self) -> str:
        """Something."""
        return "no file"

    def describe(self) -> str:
        """Something."""
        return "3 records"

    def loading(self) -> bool:
        """So it is."""
        return True


class Mute(Local):
    """A searcher that breaks when it is to tell of itself, and when it is to stop."""

    def trouble(self) -> str:
        """Break."""
        raise ValueError("mute")

    def describe(self) -> str:
        """Say nothing that could be shown."""
        return 7  # type: ignore[return-value]

    def stop(self) -> None:
        """End everything."""
        raise SystemExit


class StatusTestCase(SynchronousTestCase):
    """A process with two searchers."""

    def setUp(self) -> None:
        """Make it."""
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.store = MemoryStore(clock=self.clock)
        self.told = Told()
        self.asked = Told()
        self.local = Speaking()
        self.services = {
            "": (
                source_of(self.local, self.clock),
                source_of(self.told, self.clock, asynchronous=True, required=False),
            ),
            "phish": (source_of(self.asked, self.clock, name="asked", asynchronous=True),),
        }
        self.off: tuple[Found, ...] = ()
        self.house = House(self.clock, self.store, dict(self.services))
        self.addCleanup(self.house.kill)
        self.status = Status(
            sources=lambda: Sources(indexes=MultiService(), services=self.services, off=self.off),
            flight=self.house.flight,
            store=self.store,
            ids=ScanIds(self.store.secret()),
        )

    def searches(self, scan_id: str, service: str = "") -> tuple[SearchState, ...]:
        """How the searchers of a scan stand."""
        found = self.status.searches(service=service, scan_id=scan_id)
        return self.successResultOf(found)


class SearcherTests(StatusTestCase):
    """Searchers and services."""

    def test_interface(self) -> None:
        """The real one and the fake keep the interface."""
        for status in (self.status, FakeStatus()):
            verifyObject(IStatus, status)

    def test_on(self) -> None:
        """What is on says how it is."""
        self.assertEqual(
            self.status.searchers(),
            (
                SearcherState(
                    name="local", mode="sync", loading=True, trouble="no file", about="3 records"
                ),
                SearcherState(name="told", mode="async", required=False),
                SearcherState(name="asked", mode="async"),
            ),
        )

    def test_off(self) -> None:
        """What is off says why, after the others."""
        self.off = (
            Found(name="a", why_off="not listed"),
            Found(name="b", mode="async", why_off="does not import", broken=True),
        )
        self.assertEqual(
            self.status.searchers()[3:],
            (
                SearcherState(name="a", why_off="not listed"),
                SearcherState(name="b", mode="async", why_off="does not import", broken=True),
            ),
        )

    def test_breaks(self) -> None:
        """A searcher that breaks when it is to tell of itself spoils nothing else."""
        self.services[""] = (source_of(Mute(), self.clock), *self.services["phish"])
        mute, asked = self.status.searchers()
        self.assertEqual((mute.name, asked.name), ("local", "asked"))
        self.assertEqual(
            (mute.trouble, mute.about, mute.loading), ("broken: ValueError", "7", False)
        )
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_does_not_stop(self) -> None:
        """A searcher that would end everything when it is to stop spoils nothing else."""
        stopped: list[str] = []
        last = Local()
        last.stop = lambda: stopped.append("last")  # type: ignore[method-assign]
        services = {
            "": (
                source_of(Mute(), self.clock, name="mute"),
                source_of(last, self.clock, name="last"),
            )
        }
        Sources(indexes=MultiService(), services=services, off=()).stop()
        self.assertEqual(stopped, ["last"])
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_services(self) -> None:
        """Every service has its searchers, in order."""
        self.assertEqual(dict(self.status.services()), {"": ("local", "told"), "phish": ("asked",)})

    def test_read_again(self) -> None:
        """When the configuration was read again, the new searchers are shown."""
        self.services = {"": (source_of(Mute(), self.clock),)}
        self.assertEqual(dict(self.status.services()), {"": ("local",)})


class SearchTests(StatusTestCase):
    """The searchers of one scan."""

    def promised(self, service: str = "phish") -> str:
        """The id of a scan that waits for its searcher."""
        first = self.house.submit(IP, service)
        self.clock.advance(1.0)
        return self.successResultOf(first).id

    def test_running(self) -> None:
        """A search that runs is seen to run."""
        (asked,) = self.searches(self.promised(), "phish")
        self.assertEqual(asked, SearchState(searcher="asked", running=True))

    def test_failed(self) -> None:
        """A searcher that could not be asked says why, and when it is asked again."""
        scan_id = self.promised()
        self.asked.tell(SearchFailed("away"))
        (asked,) = self.searches(scan_id, "phish")
        assert asked.outcome is not None
        self.assertEqual((asked.outcome.ended, asked.outcome.reason), (Ended.FAILED, "away"))
        self.assertEqual((asked.tries, asked.running), (1, False))
        self.assertEqual(asked.due_in_secs, 15)
        self.clock.advance(5)
        (asked,) = self.searches(scan_id, "phish")
        self.assertEqual(asked.due_in_secs, 10)

    def test_finished(self) -> None:
        """A finished scan still tells what each searcher had, and who is not required."""
        first = self.house.submit(IP)
        self.told.tell([a_hit()])
        local, told = self.searches(self.successResultOf(first).id)
        assert local.outcome is not None
        assert told.outcome is not None
        self.assertEqual((local.searcher, local.outcome.ended), ("local", Ended.NOTHING))
        self.assertEqual((told.outcome.ended, len(told.outcome.hits)), (Ended.FOUND, 1))
        self.assertEqual((local.required, told.required), (True, False))

    def test_suppressed(self) -> None:
        """What was found and is no hit is told of a finished scan, too."""
        first = self.house.submit(IP)
        suppressed = (Suppressed("mine", "net.ip", "a list"),)
        self.told.tell(answering.Found((), suppressed=suppressed, suppressed_more=1))
        _, told = self.searches(self.successResultOf(first).id)
        assert told.outcome is not None
        self.assertEqual(told.outcome.ended, Ended.NOTHING)
        self.assertEqual((told.outcome.suppressed, told.outcome.suppressed_more), (suppressed, 1))

    def test_other_service(self) -> None:
        """A scan is only told of in its own service."""
        scan_id = self.promised()
        failed = self.status.searches(service="", scan_id=scan_id)
        self.failureResultOf(failed, NoSuchScan)

    def test_unknown(self) -> None:
        """Ids that nobody knows are no scans, whatever they look like."""
        minted = ScanIds(self.store.secret()).mint(service="", now=self.store.now())
        for scan_id in (minted, "0" * 32):
            self.failureResultOf(self.status.searches(service="", scan_id=scan_id), NoSuchScan)

    def test_password(self) -> None:
        """Of a finished password nothing is kept; that is not told as "nobody was asked"."""
        self.asked.types = (PASSWORD,)
        first = self.house.submit(Artifact(PASSWORD, "secret"), "phish")
        self.asked.tell(None)
        scan_id = self.successResultOf(first).id
        failed = self.status.searches(service="phish", scan_id=scan_id)
        self.failureResultOf(failed, NoSuchScan)

    def test_store_away(self) -> None:
        """Without the store there is no answer."""
        minted = ScanIds(self.store.secret()).mint(service="", now=self.store.now())
        self.store.broken = True
        self.failureResultOf(self.status.searches(service="", scan_id=minted), StoreError)
