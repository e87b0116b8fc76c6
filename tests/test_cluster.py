"""Tests of several nodes on one store: scans that meet, nodes that die, freeze and wake up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctsd.errors import LostScan, SearchFailed, StoreError, Unavailable
from ctsd.model import FILE, Artifact, File, ScanView
from ctsd.scanning.flight import Keys
from ctsd.store.memory import MemoryStore
from tests.scanning import Local, Told, a_hit, source_of
from tests.test_scanner import IP, House


class ClusterTestCase(SynchronousTestCase):
    """Nodes C{a} and C{b}, each with a local and a remote searcher of its own."""

    def setUp(self) -> None:
        """One store, one clock."""
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.store = MemoryStore(clock=self.clock)
        self.told = {name: Told() for name in "ab"}
        self.a, self.b = self.node("a"), self.node("b")

    def node(self, name: str, **more: Any) -> House:
        """A node."""
        services = more.pop("services", None) or {"": [Local(), self.told[name]]}
        return House(self.clock, self.store, services, node=name, shared=True, **more)

    def freeze(self, house: House) -> None:
        """Its process gets no time any more."""
        for _, loop in house.upkeep._loops:
            loop.stop()

    def thaw(self, house: House) -> None:
        """It goes on."""
        for secs, loop in house.upkeep._loops:
            loop.start(secs)

    def wait(self, secs: int) -> None:
        """Let time pass."""
        self.clock.pump([0.25] * (4 * secs))

    def promised(self, house: House, artifact: Artifact = IP) -> ScanView:
        """A scan of a node whose remote search still runs after the first answer."""
        answer = house.submit(artifact)
        self.clock.advance(1)
        view: ScanView = self.successResultOf(answer)
        self.assertFalse(view.finished)
        return view

    def final(self, house: House, scan_id: str) -> ScanView:
        """A scan's final answer."""
        view: ScanView = self.successResultOf(house.view(scan_id))
        self.assertTrue(view.finished)
        return view


class JoinTests(ClusterTestCase):
    """Equal scans of two nodes are one search."""

    def test_first_answer(self) -> None:
        """The second one has the results of the first one in its own first answer."""
        first, second = self.a.submit(), self.b.submit()
        self.clock.advance(0.5)
        self.assertEqual([len(each.asked) for each in self.told.values()], [1, 0])
        self.told["a"].tell([a_hit()])
        view = self.successResultOf(first)
        self.assertTrue(view.finished)
        self.assertNoResult(second)
        self.wait(1)
        self.assertEqual(self.successResultOf(second), view)
        self.assertEqual(self.final(self.b, view.id), view)

    def test_told(self) -> None:
        """When the store tells of a change, nobody waits for longer."""
        changed: list[Deferred[None]] = []

        def tell(*, what: str) -> Deferred[None]:
            changed.append(Deferred())
            return changed[-1]

        self.store.changed = tell  # type: ignore[method-assign]
        first, second = self.a.submit(), self.b.submit()
        self.told["a"].tell([a_hit()])
        self.assertNoResult(second)
        changed[-1].callback(None)
        self.assertEqual(self.successResultOf(second), self.successResultOf(first))

    def test_open(self) -> None:
        """Without a result in time both are told the same: ask again."""
        first, second = self.a.submit(), self.b.submit()
        self.wait(1)
        views = [self.successResultOf(each) for each in (first, second)]
        self.assertEqual(len({view.id for view in views}), 1)
        self.assertEqual([view.finished for view in views], [False, False])

    def test_sync(self) -> None:
        """For a sync searcher of another node a first answer waits as for one of its own."""
        told = Told()
        services = {"": [source_of(told, self.clock)]}
        a, b = self.node("c", services=services), self.node("d", services=services)
        first, second = a.submit(), b.submit()
        self.wait(2)
        self.assertNoResult(first)
        self.assertNoResult(second)
        told.tell([a_hit()])
        self.wait(1)
        self.assertEqual(self.successResultOf(first), self.successResultOf(second))

    def test_later(self) -> None:
        """A scan that another node has promised is joined, and asked for, anywhere."""
        view = self.promised(self.a)
        self.assertFalse(self.successResultOf(self.b.view(view.id)).finished)
        joined = self.promised(self.b)
        self.assertEqual(joined.id, view.id)
        self.told["a"].tell([a_hit()])
        final = self.final(self.b, view.id)
        self.assertEqual(final, self.final(self.a, view.id))
        self.assertEqual(len(final.hits), 1)

    def test_waiting(self) -> None:
        """A scan that waits for a source that is away is joined without waiting for that."""
        answer = self.a.submit()
        self.told["a"].tell(SearchFailed("away"))
        view = self.successResultOf(answer)
        self.assertEqual(self.successResultOf(self.b.submit()).id, view.id)

    def test_local(self) -> None:
        """Scans that only ask local searchers don't meet, and touch no store before they end."""
        house = self.node("c", services={"": [Local([a_hit()])]})
        self.store.broken = True
        self.assertTrue(self.successResultOf(house.submit()).finished)

    def test_nothing_shown_that_is_not_written(self) -> None:
        """A first answer waits for what it shows to be written."""
        answer = self.a.submit()
        written: Deferred[None] = Deferred()
        record = self.store.record
        self.store.record = lambda **given: written.addCallback(  # type: ignore[method-assign]
            lambda _: record(**given)
        )
        self.told["a"].tell([a_hit()])
        self.assertNoResult(answer)
        written.callback(None)
        self.assertTrue(self.successResultOf(answer).finished)

    def test_optional(self) -> None:
        """An optional searcher's hits are in the first answer, when they come in time."""
        for late in (False, True):
            needed, optional = Told(), Told()
            sources = [
                source_of(needed, self.clock, name="needed", asynchronous=True),
                source_of(optional, self.clock, name="optional", required=False, asynchronous=True),
            ]
            house = self.node(f"late {late}", services={"": sources})
            answer = house.submit(Artifact("net.ip", f"10.0.0.{int(late)}"))
            needed.tell([a_hit()])
            self.assertNoResult(answer)
            if not late:
                optional.tell([a_hit("more")])
            else:
                self.clock.advance(1)
            view = self.successResultOf(answer)
            self.assertEqual((view.finished, len(view.hits)), (True, 1 if late else 2))
            self.assertEqual(self.final(self.a, view.id), view)

    def test_store_is_away(self) -> None:
        """Without the store no remote searcher is asked, and the scan is refused."""
        self.store.broken = True
        refused = self.a.submit()
        self.failureResultOf(refused, StoreError)
        self.assertEqual(self.told["a"].asked, [])
        self.store.broken = False
        self.wait(1)
        self.assertFalse(self.promised(self.a).finished)

    def test_store_is_slow(self) -> None:
        """A scan whose promise is written too late is refused, and finished all the same."""
        written: Deferred[None] = Deferred()
        promise = self.store.promise
        self.store.promise = lambda **given: written.addCallback(  # type: ignore[method-assign]
            lambda _: promise(**given)
        )
        answer = self.a.submit()
        self.clock.advance(3)
        self.failureResultOf(answer, Unavailable)
        written.callback(None)
        self.told["a"].tell([a_hit()])
        [scan] = self.scans()
        self.assertEqual(len(self.final(self.b, scan).hits), 1)

    def scans(self) -> list[str]:
        """The ids of all scans."""
        rows = self.store._connection.execute("SELECT id FROM scans").fetchall()
        return [row[0] for row in rows]

    def test_doubt(self) -> None:
        """A promise of which we don't know that it was written does not stay ours for ever."""
        promise = self.store.promise

        def unknown(**given: Any) -> Deferred[Any]:
            promise(**given)
            return fail(StoreError("no answer"))

        self.store.promise = unknown  # type: ignore[method-assign]
        self.failureResultOf(self.a.submit(), StoreError)
        self.store.promise = promise  # type: ignore[method-assign]
        [scan] = self.scans()
        self.wait(3)
        told = self.told["a"] if self.told["a"].asked else self.told["b"]
        told.tell([a_hit()])
        self.assertEqual(len(self.final(self.a, scan).hits), 1)

    def test_late_doubt(self) -> None:
        """Also when it is written only after we have given it up, and looked."""
        promise, late = self.store.promise, []

        def unknown(**given: Any) -> Deferred[Any]:
            late.append(given)
            return fail(StoreError("no answer"))

        self.store.promise = unknown  # type: ignore[method-assign]
        self.failureResultOf(self.a.submit(), StoreError)
        self.store.promise = promise  # type: ignore[method-assign]
        self.wait(30)
        self.successResultOf(promise(**late[0]))
        self.wait(3)
        self.assertEqual([len(each.asked) for each in self.told.values()].count(1), 1)

    def test_keys(self) -> None:
        """So many unfinished scans are known; the oldest are forgotten first."""
        keys = Keys(2)
        for digest in (b"a", b"b", b"a", b"c"):
            keys.add(("", digest))
        self.assertEqual([("", each) in keys for each in (b"a", b"b", b"c")], [False, True, True])
        keys.discard(("", b"b"))
        keys.discard(("", b"b"))
        self.assertEqual(len(keys), 1)

    def test_unfinished(self) -> None:
        """What another node has left open is known soon: its good outcomes are not asked again."""
        a, b = (self.node(name, scan_deadline_secs=10) for name in "ab")
        answer = a.submit()
        self.told["a"].tell(SearchFailed("away"))
        view = self.successResultOf(answer)
        self.wait(12)
        self.failureResultOf(a.view(view.id), LostScan)
        asked = len(b.scanner._rules.services[""][0].searcher.asked)
        b.submit()
        self.assertEqual(len(b.scanner._rules.services[""][0].searcher.asked), asked)


class TakeOverTests(ClusterTestCase):
    """Nothing that was promised depends on its node."""

    def test_killed(self) -> None:
        """Within 15 s another node does what a dead one was doing."""
        self.wait(13)
        view = self.promised(self.a)
        self.a.kill()
        self.wait(14)
        self.assertEqual(len(self.told["b"].asked), 1)
        self.told["b"].tell([a_hit()])
        self.assertEqual(len(self.final(self.b, view.id).hits), 1)
        [search] = [
            each
            for each in self.successResultOf(self.store.load(scan_id=view.id)).searches
            if each.searcher == "told"
        ]
        self.assertEqual((search.takeovers, search.holder), (1, ""))

    def test_stopped(self) -> None:
        """A node that stops hands over at once, and nothing is blamed."""
        view = self.promised(self.a)
        self.successResultOf(self.a.upkeep.stopService())
        self.wait(2)
        self.told["b"].tell([a_hit()])
        self.assertEqual(len(self.final(self.b, view.id).hits), 1)
        scan = self.successResultOf(self.store.load(scan_id=view.id))
        self.assertEqual([each.takeovers for each in scan.searches], [0, 0])

    def test_frozen(self) -> None:
        """A frozen node that wakes up changes nothing, tells nothing old, and goes on."""
        self.wait(13)
        view = self.promised(self.a)
        old = self.a.membership.holder
        self.freeze(self.a)
        self.wait(14)
        self.told["b"].tell([a_hit("new")])
        final = self.final(self.b, view.id)
        # Before it has noticed anything:
        self.assertEqual(self.final(self.a, view.id), final)
        self.told["a"].tell([a_hit("old")])
        self.assertEqual(self.final(self.a, view.id), final)
        self.assertNotEqual(self.a.membership.holder, old)
        self.thaw(self.a)
        again = self.promised(self.a)
        self.assertNotEqual(again.id, view.id)
        self.told["a"].tell([a_hit("newer")])
        self.assertEqual(len(self.final(self.b, again.id).hits), 1)

    def test_frozen_while_running(self) -> None:
        """A result that comes too late is dropped, while the new holder is still at it."""
        self.wait(13)
        view = self.promised(self.a)
        self.freeze(self.a)
        self.wait(14)
        self.told["a"].tell([a_hit("old")])
        for house in (self.a, self.b):
            self.assertEqual(self.successResultOf(house.view(view.id)).hits, ())
        self.assertEqual(len(self.a.flight), 0)
        self.told["b"].tell([a_hit("new")])
        self.assertIn(b"new", self.final(self.a, view.id).hits[0])

    def test_frozen_in_the_first_answer(self) -> None:
        """Who still waits for a first answer then gets what the store has."""
        self.wait(13)
        answer = self.a.submit()
        self.clock.advance(0.5)
        self.successResultOf(self.store.leave(holder=self.a.membership.holder))
        self.told["a"].tell([a_hit("old")])
        view = self.successResultOf(answer)
        self.assertEqual((view.finished, view.hits), (False, ()))
        self.wait(2)
        told = self.told["a"] if self.told["a"].waiting else self.told["b"]
        told.tell([a_hit("new")])
        self.assertIn(b"new", self.final(self.a, view.id).hits[0])

    def test_struck_off_before_a_promise(self) -> None:
        """A node that learns only from a refused promise that it is none any more, makes it
        under a new epoch."""
        old = self.a.membership.holder
        self.successResultOf(self.store.leave(holder=old))
        view = self.promised(self.a)
        self.assertNotEqual(self.a.membership.holder, old)
        self.told["a"].tell([a_hit()])
        self.assertEqual(len(self.final(self.b, view.id).hits), 1)

    def test_cut(self) -> None:
        """Nodes that were all cut off from the store take nothing from each other."""
        self.wait(13)
        view = self.promised(self.a)
        self.store.broken = True
        self.wait(25)
        self.store.broken = False
        self.told["a"].tell([a_hit()])
        self.wait(20)
        self.assertEqual(self.told["b"].asked, [])
        self.assertEqual(len(self.final(self.b, view.id).hits), 1)

    def test_one_of_many(self) -> None:
        """A search that is due is done by one node."""
        answer = self.a.submit()
        self.told["a"].tell(SearchFailed("away"))
        view = self.successResultOf(answer)
        self.wait(17)
        asked = [len(each.asked) for each in self.told.values()]
        self.assertEqual(sum(asked), 2)
        told = self.told["a" if asked[0] == 2 else "b"]
        told.tell([a_hit()])
        self.assertEqual(self.final(self.a, view.id), self.final(self.b, view.id))

    def test_not_young(self) -> None:
        """A node that has just come takes nobody for dead yet."""
        self.promised(self.a)
        self.a.kill()
        self.b.kill()
        self.wait(20)
        self.told["c"] = Told()
        self.node("c")
        self.wait(11)
        self.assertEqual(self.told["c"].asked, [])
        self.wait(3)
        self.assertEqual(len(self.told["c"].asked), 1)

    def test_file(self) -> None:
        """A file's scan goes on where its file can be seen; elsewhere it ends honestly."""
        for told in self.told.values():
            told.types = (FILE,)
        self.wait(13)
        views = []
        for number, name in enumerate(("here", "gone")):
            path = Path(self.mktemp())
            path.write_bytes(b"x")
            digest = f"{number}" * 64
            file = File(
                path=path, name=name, size=1, md5=digest[:32], sha1=digest[:40], sha256=digest
            )
            views.append(self.promised(self.a, Artifact(FILE, name, file)))
        path.unlink()
        self.a.kill()
        self.wait(14)
        self.assertEqual(len(self.told["b"].asked), 1)
        self.told["b"].tell([a_hit()])
        self.assertEqual(len(self.final(self.b, views[0].id).hits), 1)
        # Somebody who has the other one may come back.
        self.assertFalse(self.successResultOf(self.b.view(views[1].id)).finished)
        self.wait(60)
        lost = self.failureResultOf(self.b.view(views[1].id), LostScan).value
        self.assertIn("told", lost.reason)

    def test_file_comes_back(self) -> None:
        """A node that restarts does the scans of its own files, though another one was first."""
        for told in self.told.values():
            told.types = (FILE,)
        path, away = Path(self.mktemp()), Path(self.mktemp())
        path.write_bytes(b"x")
        file = File(path=path, name="f", size=1, md5="0" * 32, sha1="0" * 40, sha256="0" * 64)
        view = self.promised(self.a, Artifact(FILE, "f", file))
        path.rename(away)
        self.successResultOf(self.a.upkeep.stopService())
        self.wait(20)
        self.assertEqual(self.told["b"].asked, [])
        away.rename(path)
        self.freeze(self.b)
        self.told["a"] = Told((FILE,))
        self.node("a")
        self.wait(2)
        self.told["a"].tell([a_hit()])
        self.assertEqual(len(self.final(self.b, view.id).hits), 1)

    def test_name_twice(self) -> None:
        """Two processes of one name don't take turns for ever: the first one takes another."""
        twin = self.node("a")
        view = self.promised(self.a)
        self.wait(10)
        houses = (self.a, twin, self.b)
        epochs = [house.membership.holder for house in houses]
        self.assertEqual(len({each.rpartition("#")[0] for each in epochs}), 3)
        for told in self.told.values():
            while told.waiting:
                told.tell([a_hit()])
        self.assertEqual(self.final(self.a, view.id), self.final(self.b, view.id))
        self.wait(20)
        self.assertEqual(epochs, [house.membership.holder for house in houses])
