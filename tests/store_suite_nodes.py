"""
What every implementation of L{INodeStore} has to do, and what it means for scans: a mixin as those
of L{tests.store_suite}.
"""

from __future__ import annotations

from attrs import evolve

from ctsd.model import NOTHING, Scan, ScanState, Search
from tests.store_suite import DAY, FAILED, FOUND, START, _Suite, finds, scan, threat


def running(number: int, *holders: str) -> Scan:
    """A scan with a search for each holder, by the names C{0}, C{1}, ..."""
    searches = tuple(Search(searcher=str(n), holder=each) for n, each in enumerate(holders))
    return scan(number, searches=searches)


class NodeSuite(_Suite):
    """Processes that share a store: they come, live, die, and hold searches."""

    async def holders(self, number: int) -> list[str]:
        """Who holds the searches of a scan."""
        whole = await self.store.load(scan_id=scan(number).id)
        return [each.holder for each in whole.searches]

    async def takes(self, number: int, holder: str) -> list[Scan]:
        """Take up a scan."""
        taken: list[Scan] = await self.store.hold(scan_ids=[scan(number).id], holder=holder)
        return taken

    async def records(self, number: int, holder: str, searcher: str = "0") -> bool:
        """Record that a searcher found something."""
        done = Search(searcher=searcher, outcome=FOUND, tries=1)
        recorded: bool = await self.store.record(
            scan_id=scan(number).id,
            search=done,
            state=ScanState.OPEN,
            holder=holder,
            finds=finds(threat()),
        )
        return recorded

    async def test_register(self) -> None:
        """Each registration is an epoch of its own; the earlier one of the name is over."""
        first, other, second = await self.node("a"), await self.node("b"), await self.node("a")
        self.assertEqual(len({first, other, second}), 3)
        self.assertFalse(await self.store.beat(holder=first, secs=10))
        self.assertTrue(await self.store.beat(holder=other, secs=10))
        self.assertTrue(await self.store.beat(holder=second, secs=10))

    async def test_epochs_grow(self) -> None:
        """Epochs grow, also over a node's end."""
        epochs = []
        for _ in range(3):
            holder = await self.node("a")
            epochs.append(int(holder.rpartition("#")[2]))
            await self.store.leave(holder=holder)
        self.assertEqual(epochs, sorted(set(epochs)))

    async def test_restart(self) -> None:
        """What a name held before it came again is nobody's, due now, and counted."""
        old = await self.node("a")
        await self.store.promise(scan=running(1, old, "", old))
        self.fixture.advance(1)
        await self.node("a")
        whole = await self.store.load(scan_id=scan(1).id)
        taken = {"due": START + 1, "takeovers": 1}
        self.assertEqual(
            whole.searches,
            (Search(searcher="0", **taken), Search(searcher="1"), Search(searcher="2", **taken)),
        )
        due = await self.store.due(now=START + 1, holder="", limit=9)
        self.assertEqual([each.id for each in due], [whole.id])

    async def test_take_over(self) -> None:
        """Who was not heard of in time is struck off, and what it held is others' to take."""
        me, dead, alive = await self.node("me"), await self.node("dead"), await self.node("alive")
        for number, holder in enumerate((me, dead, alive), 1):
            await self.store.promise(scan=running(number, holder))
        self.assertEqual(await self.store.take_over(holder=me), 0)
        self.fixture.advance(6)
        await self.store.beat(holder=alive, secs=10)
        self.fixture.advance(4)
        self.assertEqual(await self.store.take_over(holder=me), 1)
        self.assertEqual([await self.holders(n) for n in (1, 2, 3)], [[me], [""], [alive]])
        self.assertEqual(await self.store.take_over(holder=me), 0)
        self.assertFalse(await self.store.beat(holder=dead, secs=10))
        # Who was not struck off in time still lives.
        self.assertTrue(await self.store.beat(holder=me, secs=10))
        [due] = await self.store.due(now=START + 10, holder=me, limit=9)
        self.assertEqual(due.id, scan(2).id)
        [taken] = await self.takes(2, me)
        self.assertEqual((taken.searches[0].holder, taken.searches[0].takeovers), (me, 1))

    async def test_take_over_ended(self) -> None:
        """Of a scan that has ended there is nothing to take over."""
        me, dead = await self.node("me"), await self.node("dead")
        await self.store.promise(scan=running(1, dead))
        await self.store.end(scan_id=scan(1).id, state=ScanState.INCOMPLETE, holder=dead)
        self.assertEqual(await self.holders(1), [""])
        self.fixture.advance(10)
        self.assertEqual(await self.store.take_over(holder=me), 0)

    async def test_frozen(self) -> None:
        """A node that was struck off can write nothing over those who have its searches now."""
        me, frozen = await self.node("me"), await self.node("frozen")
        await self.store.promise(scan=running(1, frozen))
        self.fixture.advance(10)
        await self.store.take_over(holder=me)
        self.assertFalse(await self.records(1, frozen))
        self.assertEqual(await self.takes(1, frozen), [])
        [whole] = await self.takes(1, me)
        self.assertFalse(await self.records(1, frozen))
        ended = self.store.end(scan_id=whole.id, state=ScanState.COMPLETE, holder=frozen)
        self.assertFalse(await ended)
        self.assertIsNone(await self.store.promise(scan=running(2, frozen)))
        again = await self.node("frozen")
        self.assertFalse(await self.records(1, again))
        self.assertEqual(await self.store.load(scan_id=whole.id), whole)
        self.assertEqual(await self.names(), [])
        self.assertTrue(await self.records(1, me))

    async def test_hold(self) -> None:
        """What is due is given to one node, once; what is not due stays where it is."""
        me, other = await self.node("me"), await self.node("other")
        await self.store.promise(scan=scan(1))
        [whole] = await self.takes(1, me)
        self.assertEqual([each.holder for each in whole.searches], [me, ""])
        self.assertEqual(await self.store.load(scan_id=whole.id), whole)
        self.assertEqual(await self.takes(1, other), [])
        self.assertEqual(await self.store.due(now=START, holder=me, limit=9), [])
        self.fixture.advance(60)
        # The scan's other search is due: its node has the whole scan, and nobody else.
        self.assertEqual(await self.store.due(now=START + 60, holder=other, limit=9), [])
        self.assertEqual(await self.takes(1, other), [])
        self.assertEqual(len(await self.store.due(now=START + 60, holder=me, limit=9)), 1)
        [whole] = await self.takes(1, me)
        self.assertEqual([each.holder for each in whole.searches], [me, me])

    async def test_hold_over(self) -> None:
        """A scan whose deadline has passed is given, too, and nothing of it is held."""
        me, other = await self.node("me"), await self.node("other")
        await self.store.promise(scan=scan(1))
        await self.store.promise(scan=running(2, other))
        self.fixture.advance(DAY)
        [whole] = await self.store.hold(scan_ids=[scan(1).id, scan(2).id], holder=me)
        self.assertEqual([each.holder for each in whole.searches], ["", ""])
        ended = self.store.end(scan_id=scan(2).id, state=ScanState.INCOMPLETE, holder=me)
        self.assertFalse(await ended)
        ended = self.store.end(scan_id=scan(2).id, state=ScanState.INCOMPLETE, holder=other)
        self.assertTrue(await ended)
        self.assertEqual(await self.holders(2), [""])

    async def test_hold_many(self) -> None:
        """Many scans can be taken up at once."""
        me = await self.node("me")
        for number in range(600):
            await self.store.promise(scan=scan(number))
        taken = await self.store.hold(scan_ids=[scan(n).id for n in range(600)], holder=me)
        self.assertEqual({each.id for each in taken}, {scan(n).id for n in range(600)})

    async def test_wake(self) -> None:
        """A scan is due when the first of what nobody holds is."""
        me = await self.node("me")
        await self.store.promise(scan=scan(1))
        await self.takes(1, me)
        self.assertEqual(await self.store.due(now=START + 59, holder=me, limit=9), [])
        failed = Search(searcher="one", outcome=FAILED, due=START + 30)
        await self.store.record(scan_id=scan(1).id, search=failed, state=ScanState.OPEN, holder=me)
        self.assertEqual(await self.store.due(now=START + 29, holder=me, limit=9), [])
        self.assertEqual(len(await self.store.due(now=START + 30, holder="", limit=9)), 1)

    async def test_doubts(self) -> None:
        """A node can ask what it holds, and let go of some of it."""
        me, other = await self.node("me"), await self.node("other")
        await self.store.promise(scan=running(1, me, me))
        await self.store.promise(scan=running(2, other))
        self.assertEqual(await self.store.held(holder=me), {(scan(1).id, "0"), (scan(1).id, "1")})
        await self.store.let_go(searches=[(scan(1).id, "1"), (scan(2).id, "0")], holder=me)
        self.assertEqual([await self.holders(n) for n in (1, 2)], [[me, ""], [other]])
        whole = await self.store.load(scan_id=scan(1).id)
        self.assertEqual((whole.searches[1].due, whole.searches[1].takeovers), (START, 0))
        self.assertEqual(len(await self.store.due(now=START, holder=me, limit=9)), 1)
        self.assertEqual(await self.store.held(holder=""), set())

    async def test_leave(self) -> None:
        """A node that ends blames nothing."""
        me, other = await self.node("me"), await self.node("other")
        good = Search(searcher="good", outcome=NOTHING, tries=1)
        whole = running(1, me)
        await self.store.promise(scan=evolve(whole, searches=(*whole.searches, good)))
        await self.store.leave(holder=me)
        self.assertFalse(await self.store.beat(holder=me, secs=10))
        [taken] = await self.takes(1, other)
        self.assertEqual(taken.searches, (Search(searcher="0", due=START, holder=other), good))
