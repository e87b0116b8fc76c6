"""
What every implementation of L{IStore} has to do: mixins for a C{TestCase} with a fixture.

The fixture is C{self.fixture}, made by C{self.make_fixture()}; see L{StoreFixture}.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from ctsd.errors import StoreError
from ctsd.interfaces.store import INodeStore, IScanStore, IShared, IStore, IThreatStore
from ctsd.model import (
    NOTHING,
    PASSWORD,
    Artifact,
    EncodedHit,
    Ended,
    File,
    Outcome,
    Property,
    Scan,
    ScanState,
    Search,
    Suppressed,
    Threat,
)
from ctsd.records import Finds
from ctsd.store.steps import Change, Query, Steps

START = 1_700_000_000.0
DAY = 86400.0
WEEK = 7 * DAY
RETENTION = 30 * DAY

#: What can't be written as JSON.
NO_JSON: Any = {(): "x"}

HIT = EncodedHit(b'{"props":[{"type":"string","name":"target","value":"Bank"}]}')
LISTED = Suppressed("mine", "net.ip", "a list")
FOUND = Outcome(Ended.FOUND, (HIT, HIT), suppressed=(LISTED,), suppressed_more=3)
FAILED = Outcome(Ended.FAILED, reason="HTTP 500", after_secs=30.0)
LATER = Outcome(Ended.LATER, reason="queued", after_secs=5.5, missing=("Mine",))


async def pause(secs: float) -> None:
    """Let the reactor do other things."""
    from twisted.internet import reactor

    await deferLater(reactor, secs, lambda: None)  # type: ignore[arg-type]


class StoreFixture(Protocol):
    """One store, whose clocks the test moves."""

    store: Any

    def advance(self, secs: float) -> None:
        """Let time pass, on the wall clock and the other one."""

    async def written(self) -> None:
        """Wait until what was remembered is written."""

    def ruin(self) -> None:
        """Take the tables away: from now on every statement fails."""

    async def close(self) -> None:
        """Give everything back."""


def scan(number: int = 1, **changes: Any) -> Scan:
    """A promised scan with two searches, due now."""
    values: dict[str, Any] = {
        "id": f"{number:032x}",
        "service": "",
        "state": ScanState.OPEN,
        "created": START + number,
        "deadline": START + DAY,
        "digest": number.to_bytes(16),
        "artifact": Artifact("net.name", f"host{number}.example"),
        "searches": (Search(searcher="one", due=START), Search(searcher="two", due=START + 60)),
    }
    return Scan(**(values | changes))


def ended_scan(number: int = 1, **changes: Any) -> Scan:
    """A scan that ended in its first answer."""
    searches = (
        Search(searcher="two", outcome=FOUND, tries=1),
        Search(searcher="one", outcome=NOTHING, tries=1),
    )
    return scan(number, **({"state": ScanState.COMPLETE, "searches": searches} | changes))


def threat(name: str = "Botnet", value: str = "192.0.2.1", **changes: Any) -> Threat:
    """A threat that a person entered."""
    return Threat(
        **(
            {
                "name": name,
                "artifacts": (Artifact("net.ip", value),),
                "properties": (Property("string", "campaign", "X"),),
            }
            | changes
        )
    )


def finds(*threats: Threat, source: bytes = b"s" * 16, searcher: str = "feed") -> list[Finds]:
    """What one search found."""
    return [Finds(searcher=searcher, source=source, threats=threats)]


class _Suite:
    fixture: StoreFixture
    assertEqual: Any
    assertTrue: Any
    assertFalse: Any
    assertIn: Any
    assertRegex: Any
    assertNotIn: Any
    assertIsNone: Any
    assertGreater: Any
    assertLessEqual: Any
    fail: Any

    @property
    def store(self) -> Any:
        """The store under test."""
        return self.fixture.store

    async def refuses(self, error: type[Exception], waiting: Any) -> Exception:
        """What a Deferred fails with, which has to be of that type."""
        try:
            result = await waiting
        except error as raised:
            return raised
        raise AssertionError(f"{error.__name__} expected, got {result!r}")

    async def node(self, name: str = "me", secs: float = 10.0) -> str:
        """A new node's holder."""
        holder: str = await self.store.register(name=name, secs=secs)
        return holder

    async def held(self, whole: Scan, name: str = "me") -> tuple[str, Scan]:
        """A promised scan whose first search a new node runs; the node and the scan."""
        holder = await self.node(name)
        first, *others = whole.searches
        running = evolve(whole, searches=(evolve(first, holder=holder, due=None), *others))
        await self.store.promise(scan=running)
        return holder, running

    async def all_threats(self) -> list[Threat]:
        """Everything in the local database."""
        found: list[Threat] = await self.store.threats()
        return found

    async def names(self) -> list[str]:
        """The names in the local database."""
        return [each.name for each in await self.all_threats()]


class ScanSuite(_Suite):
    """Scans: remembered, promised, taken up again, ended."""

    def test_provides(self) -> None:
        """The store has every verb of its interfaces."""
        for interface in (IStore, IScanStore, INodeStore, IThreatStore, IShared):
            self.assertTrue(verifyObject(interface, self.store))

    def test_secret(self) -> None:
        """The store has a secret of 32 bytes that stays."""
        self.assertEqual(len(self.store.secret()), 32)
        self.assertEqual(self.store.secret(), self.store.secret())

    async def test_unknown(self) -> None:
        """A scan that nobody wrote is not there, and nothing that is written to it makes one."""
        self.assertIsNone(await self.store.load(scan_id="0" * 32))
        me = await self.node()
        self.assertEqual(await self.store.hold(scan_ids=["0" * 32], holder=me), [])
        ended = self.store.end(scan_id="0" * 32, state=ScanState.COMPLETE, holder=me)
        self.assertFalse(await ended)
        recorded = self.store.record(
            scan_id="0" * 32,
            search=Search(searcher="one"),
            state=ScanState.OPEN,
            holder=me,
            finds=finds(threat()),
        )
        self.assertFalse(await recorded)
        self.assertIsNone(await self.store.load(scan_id="0" * 32))
        self.assertIsNone(await self.store.reopen(scan_id="0" * 32, deadline=START))
        self.assertEqual(await self.names(), [])

    async def test_remember(self) -> None:
        """A scan that ended at once is there at once, without its artifact, and stays so."""
        whole = ended_scan()
        self.store.remember(scan=whole)
        kept = evolve(whole, artifact=None)
        self.assertEqual(await self.store.load(scan_id=whole.id), kept)
        await self.fixture.written()
        self.assertEqual(await self.store.load(scan_id=whole.id), kept)
        self.assertEqual(await self.store.unfinished(), set())

    async def test_remember_many(self) -> None:
        """Every one of many scans is written, with what was found."""
        for number in range(700):
            self.store.remember(
                scan=ended_scan(number),
                finds=finds(threat(f"T{number}"), source=number.to_bytes(16))
                if number % 100 == 0
                else (),
            )
        await self.fixture.written()
        for number in range(700):
            self.assertTrue(await self.store.load(scan_id=f"{number:032x}"))
        self.assertEqual(await self.names(), [f"T{n}" for n in range(0, 700, 100)])

    async def test_remember_incomplete(self) -> None:
        """A scan that ended incomplete in its first answer can be opened again."""
        whole = scan(state=ScanState.INCOMPLETE)
        self.store.remember(scan=whole)
        await self.fixture.written()
        self.assertEqual(await self.store.load(scan_id=whole.id), whole)
        self.assertEqual((await self.store.find(service="", digest=whole.digest)), whole)

    async def test_promise(self) -> None:
        """A promised scan is read as it was written, file and all."""
        file = File(
            path=Path("/spool/a b"), name="x\0y\udc80", size=3, md5="1", sha1="2", sha256="3"
        )
        searches = (
            Search(searcher="z", outcome=FAILED, tries=3, due=START + 0.25, takeovers=1, deaths=2),
            Search(searcher="a", outcome=LATER, holder=await self.node()),
            Search(searcher="m", outcome=FOUND),
            Search(searcher="b", outcome=NOTHING),
            Search(searcher="c"),
        )
        whole = scan(artifact=Artifact("file.content", None, file), searches=searches)
        await self.store.promise(scan=whole)
        self.assertEqual(await self.store.load(scan_id=whole.id), whole)
        self.assertEqual(await self.store.files(), {Path("/spool/a b")})
        self.assertEqual(await self.store.unfinished(), {("", whole.digest)})

    async def test_promise_twice(self) -> None:
        """A promise that is made again changes nothing: the first one may have been kept."""
        me, whole = await self.held(scan())
        await self.store.record(
            scan_id=whole.id,
            search=Search(searcher="one", outcome=FOUND),
            state=ScanState.OPEN,
            holder=me,
        )
        before = await self.store.load(scan_id=whole.id)
        self.assertEqual(await self.store.promise(scan=whole), before)
        self.assertEqual(await self.store.load(scan_id=whole.id), before)

    async def test_promise_equal(self) -> None:
        """Of equal scans of one service one is written: the others learn which."""
        digest = b"d" * 16
        first = scan(1, digest=digest)
        self.assertEqual(await self.store.promise(scan=first), first)
        second = scan(2, digest=digest)
        self.assertEqual(await self.store.promise(scan=second, finds=finds(threat())), first)
        self.assertIsNone(await self.store.load(scan_id=second.id))
        self.assertEqual(await self.names(), [])
        other = scan(3, digest=digest, service="other")
        self.assertEqual(await self.store.promise(scan=other), other)
        await self.store.end(scan_id=first.id, state=ScanState.INCOMPLETE, holder="")
        self.assertEqual(await self.store.promise(scan=second), second)

    async def test_promise_of_nobody(self) -> None:
        """A scan is not written in the name of what is no node."""
        whole = scan(searches=(Search(searcher="one", holder="nobody#1"), Search(searcher="two")))
        self.assertIsNone(await self.store.promise(scan=whole, finds=finds(threat())))
        self.assertIsNone(await self.store.load(scan_id=whole.id))
        self.assertEqual(await self.names(), [])

    async def test_record(self) -> None:
        """What one searcher made of a scan replaces what it had made of it, and nothing else."""
        me, whole = await self.held(scan())
        mine = Search(searcher="one", outcome=FAILED, tries=1, due=START + 90)
        recorded = self.store.record(
            scan_id=whole.id, search=mine, state=ScanState.OPEN, holder=me, finds=finds(threat())
        )
        self.assertTrue(await recorded)
        read = await self.store.load(scan_id=whole.id)
        self.assertEqual(read, evolve(whole, searches=(mine, whole.searches[1])))
        self.assertEqual(await self.names(), ["Botnet"])

    async def test_record_last(self) -> None:
        """When the last searcher has answered, the artifact is gone and the hits are there."""
        me, whole = await self.held(
            scan(
                artifact=Artifact(
                    "file.content",
                    "x",
                    File(path=Path("/f"), name="f", size=0, md5="", sha1="", sha256=""),
                )
            )
        )
        done = Search(searcher="one", outcome=FOUND, tries=1)
        recorded = self.store.record(
            scan_id=whole.id,
            search=done,
            state=ScanState.COMPLETE,
            holder=me,
            finds=finds(threat()),
        )
        self.assertTrue(await recorded)
        read = await self.store.load(scan_id=whole.id)
        self.assertIsNone(read.artifact)
        self.assertEqual(read.state, ScanState.COMPLETE)
        self.assertEqual([each.holder for each in read.searches], ["", ""])
        self.assertEqual(read.searches[0], done)
        self.assertEqual(await self.store.files(), set())
        self.assertEqual(await self.store.unfinished(), set())
        self.assertEqual(await self.names(), ["Botnet"])

    async def test_record_late(self) -> None:
        """What comes after the end changes nothing: that answer has been given."""
        me, whole = await self.held(scan())
        await self.store.end(scan_id=whole.id, state=ScanState.COMPLETE, holder=me)
        before = await self.store.load(scan_id=whole.id)
        late = Search(searcher="one", outcome=FOUND, tries=1)
        for state in (ScanState.OPEN, ScanState.COMPLETE):
            recorded = self.store.record(
                scan_id=whole.id, search=late, state=state, holder=me, finds=finds(threat())
            )
            self.assertFalse(await recorded)
        self.assertEqual(await self.store.load(scan_id=whole.id), before)
        self.assertEqual(await self.names(), [])

    async def test_find(self) -> None:
        """The newest unfinished scan of a service for a digest is found; no other is."""
        digest = b"d" * 16
        await self.store.promise(scan=scan(3, digest=digest, state=ScanState.INCOMPLETE))
        await self.store.promise(scan=scan(1, digest=digest))
        await self.store.promise(scan=scan(4, digest=digest, service="other"))
        await self.store.promise(scan=scan(5))
        self.store.remember(scan=ended_scan(6, digest=digest))
        await self.fixture.written()
        self.assertEqual((await self.store.find(service="", digest=digest)).id, scan(3).id)
        self.assertEqual((await self.store.find(service="other", digest=digest)).id, scan(4).id)
        self.assertIsNone(await self.store.find(service="none", digest=digest))
        self.assertEqual(
            await self.store.unfinished(),
            {("", digest), ("other", digest), ("", scan(5).digest)},
        )
        self.assertEqual(
            await self.store.unfinished(since=START + 4),
            {("other", digest), ("", scan(5).digest)},
        )
        self.assertEqual(
            await self.store.unfinished(since=START + 4, until=START + 5), {("other", digest)}
        )
        self.assertEqual(await self.store.unfinished(limit=1), {("", scan(5).digest)})

    async def test_due(self) -> None:
        """Scans come when a search is due or their deadline has passed, longest waiting first."""
        none = (Search(searcher="one", outcome=FOUND),)
        await self.store.promise(scan=scan(1, searches=none, deadline=START + 20))
        await self.store.promise(scan=scan(2, searches=(Search(searcher="one", due=START + 30),)))
        await self.store.promise(scan=scan(3, searches=(Search(searcher="one", due=START + 10),)))
        await self.store.promise(scan=scan(4, searches=none))
        await self.store.promise(scan=scan(5, state=ScanState.INCOMPLETE))

        async def due(secs: float, limit: int = 9) -> list[str]:
            scans = await self.store.due(now=START + secs, holder="", limit=limit)
            return [each.id[-1] for each in scans]

        self.assertEqual(await due(9.9), [])
        self.assertEqual(await due(10), ["3"])
        self.assertEqual(await due(30), ["3", "1", "2"])
        self.assertEqual(await due(30, 2), ["3", "1"])
        self.assertEqual(
            (await self.store.due(now=START + 10, holder="", limit=1))[0].searches[0].due,
            START + 10,
        )
        me = await self.node()
        self.fixture.advance(10)
        await self.store.hold(scan_ids=[scan(3).id], holder=me)
        await self.store.record(
            scan_id=scan(3).id,
            search=Search(searcher="one", outcome=FAILED, due=START + 40),
            state=ScanState.OPEN,
            holder=me,
        )
        self.assertEqual(await due(39), ["1", "2"])
        late = (Search(searcher="one", due=START + 99),)
        await self.store.promise(scan=scan(6, searches=late, deadline=START + 35))
        self.assertEqual(await due(35), ["1", "2", "6"])
        await self.store.end(scan_id=scan(6).id, state=ScanState.COMPLETE, holder="")
        self.assertEqual(await due(40), ["1", "2", "3"])

    async def test_end(self) -> None:
        """A scan whose deadline has passed keeps its artifact, for it may be opened again."""
        await self.store.promise(scan=scan(1))
        await self.store.end(scan_id=scan(1).id, state=ScanState.INCOMPLETE, holder="")
        self.assertEqual(
            await self.store.load(scan_id=scan(1).id), scan(1, state=ScanState.INCOMPLETE)
        )
        self.assertEqual(await self.store.due(now=START + 9 * DAY, holder="", limit=9), [])
        ended = self.store.end(scan_id=scan(1).id, state=ScanState.COMPLETE, holder="")
        self.assertFalse(await ended)
        self.assertEqual(await self.store.unfinished(), {("", scan(1).digest)})
        await self.store.promise(scan=scan(2))
        await self.store.end(scan_id=scan(2).id, state=ScanState.COMPLETE, holder="")
        self.assertIsNone((await self.store.load(scan_id=scan(2).id)).artifact)
        self.assertEqual(await self.store.unfinished(), {("", scan(1).digest)})

    async def test_reopen(self) -> None:
        """A scan that ended incomplete goes on: good outcomes stay, the others are due."""
        good = Search(searcher="one", outcome=FOUND, tries=1)
        nothing = Search(searcher="two", outcome=NOTHING, tries=1)
        bad = Search(searcher="three", outcome=FAILED, tries=4, due=START + 9)
        whole = scan(searches=(good, bad, nothing, Search(searcher="four")))
        await self.store.promise(scan=whole)
        self.assertIsNone(await self.store.reopen(scan_id=whole.id, deadline=START + 3 * DAY))
        await self.store.end(scan_id=whole.id, state=ScanState.INCOMPLETE, holder="")
        self.fixture.advance(100)
        opened = await self.store.reopen(scan_id=whole.id, deadline=START + 3 * DAY)
        self.assertEqual(
            opened,
            evolve(
                whole,
                deadline=START + 3 * DAY,
                searches=(
                    good,
                    evolve(bad, due=START + 100),
                    nothing,
                    Search(searcher="four", due=START + 100),
                ),
            ),
        )
        self.assertEqual(await self.store.load(scan_id=whole.id), opened)
        self.assertEqual(await self.store.due(now=START + 100, holder="", limit=9), [opened])
        await self.store.end(scan_id=whole.id, state=ScanState.COMPLETE, holder="")
        self.assertIsNone(await self.store.reopen(scan_id=whole.id, deadline=START + 3 * DAY))

    async def test_password(self) -> None:
        """Of a password's scan nothing is kept but that it was."""
        secret = Artifact(PASSWORD, "hunter2-secret")
        searches = (Search(searcher="one", outcome=FOUND, due=START),)
        bare = scan(1, digest=b"", artifact=None, searches=())
        await self.store.promise(
            scan=scan(1, digest=b"", artifact=secret, searches=searches),
            finds=finds(threat(artifacts=(secret,)), source=b""),
        )
        self.store.remember(scan=ended_scan(2, digest=b"", artifact=secret))
        # A caller that forgot to leave the digest out:
        await self.store.promise(scan=scan(3, artifact=secret), finds=finds(threat()))
        # One whose artifact is gone already, so that only the missing digest tells.
        await self.store.promise(
            scan=scan(4, digest=b"", artifact=None, searches=searches, deadline=START + 9 * DAY)
        )
        self.assertEqual((await self.store.load(scan_id=scan(4).id)).searches, ())
        await self.store.record(
            scan_id=scan(1).id,
            search=searches[0],
            state=ScanState.OPEN,
            holder="",
            finds=finds(threat()),
        )
        kept = await self.store.load(scan_id=scan(2).id)
        self.assertEqual(kept.searches, ())
        await self.fixture.written()
        self.assertEqual(await self.store.load(scan_id=scan(2).id), kept)
        self.assertEqual(await self.store.load(scan_id=scan(1).id), bare)
        self.assertEqual((await self.store.load(scan_id=scan(3).id)).digest, b"")
        self.assertEqual(await self.names(), [])
        self.assertEqual(await self.store.unfinished(), set())
        self.assertIsNone(await self.store.find(service="", digest=b""))
        self.assertEqual(len(await self.store.due(now=START + DAY, holder="", limit=9)), 2)
        await self.store.end(scan_id=scan(1).id, state=ScanState.INCOMPLETE, holder="")
        self.assertIsNone(await self.store.reopen(scan_id=scan(1).id, deadline=START + DAY))

    async def test_nasty_values(self) -> None:
        """Any JSON value, and any bytes of hits, are read as they were written."""
        examples: list[tuple[Any, bytes, str]] = []

        # Hypothesis and an asynchronous test don't go together: it only makes the values here.
        @settings(max_examples=60, deadline=None, database=None)
        @given(JSON_VALUES, st.binary(max_size=60), TEXTS)
        def collect(value: Any, hit: bytes, reason: str) -> None:
            examples.append((value, hit, reason))

        collect()
        examples.append(("\0\ud800" + "x" * 200_000, b"\n\0", "\0\udfff"))
        for number, (value, hit, text) in enumerate(examples):
            outcomes = (
                Outcome(Ended.FOUND, (EncodedHit(hit),)),
                Outcome(Ended.FAILED, reason=text, final=True),
            )
            searches = tuple(
                Search(searcher=f"s{place}", outcome=each) for place, each in enumerate(outcomes)
            )
            whole = scan(number, artifact=Artifact(f"t{text}", value), searches=searches)
            self.store.remember(scan=ended_scan(number + 1000, searches=searches))
            entered = Threat(
                name=text,
                artifacts=(Artifact(f"t{text}", value),),
                properties=(Property("string", text, value),),
                note=text,
            )
            found = finds(entered, source=number.to_bytes(16), searcher=f"f{text}")
            await self.store.promise(scan=whole, finds=found)
            self.assertEqual(await self.store.load(scan_id=whole.id), whole)
            [threat_id] = await self.store.add(threats=[entered])
            read = await self.store.threat(threat_id=threat_id)
            self.assertEqual(evolve(read, id=0, created=0.0), entered)
            await self.store.put(key=text, value=hit, secs=60)
            self.assertEqual(await self.store.get(key=text), hit)
            self.assertTrue(await self.store.lease(name=text, holder="me", secs=0))
        await self.fixture.written()
        for number, _ in enumerate(examples):
            read = await self.store.load(scan_id=scan(number + 1000).id)
            self.assertEqual(
                read.searches, (await self.store.load(scan_id=scan(number).id)).searches
            )


TEXTS = st.text(st.characters(codec=None), max_size=12)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


class ThreatSuite(_Suite):
    """The local database: by hand, by searchers, and what changed."""

    async def found(self, *threats: Threat, **which: Any) -> None:
        """A search ends with these."""
        self.numbers = getattr(self, "numbers", 100) + 1
        await self.store.promise(scan=scan(self.numbers), finds=finds(*threats, **which))

    async def test_add(self) -> None:
        """What people enter is there, with an id and a date, in order of ids."""
        first = threat("A", note="by hand", expires=START + DAY)
        second = threat("B", artifacts=())
        ids = await self.store.add(threats=[first, second])
        self.assertEqual(ids, sorted(set(ids)))
        self.assertEqual(
            await self.all_threats(),
            [evolve(first, id=ids[0], created=START), evolve(second, id=ids[1], created=START)],
        )
        self.assertEqual(await self.store.threats(after=ids[0]), (await self.all_threats())[1:])
        self.assertEqual(await self.store.threats(limit=1), (await self.all_threats())[:1])
        self.assertEqual(await self.store.threat(threat_id=ids[1]), (await self.all_threats())[1])
        self.assertIsNone(await self.store.threat(threat_id=ids[1] + 1))
        self.assertEqual(await self.store.add(threats=[]), [])

    async def test_add_twice(self) -> None:
        """Entering the same again gives what is there; its note and date make no difference."""
        two = threat("B", artifacts=(Artifact("net.ip", "1"), Artifact("net.name", "x")))
        turned = evolve(two, artifacts=two.artifacts[::-1], note="again", expires=START + 5)
        ids = await self.store.add(threats=[threat(), two, threat()])
        self.assertEqual(ids[0], ids[2])
        self.assertEqual(await self.store.add(threats=[turned, threat()]), [ids[1], ids[0]])
        others = [
            threat(name="Other"),
            threat(value="192.0.2.2"),
            threat(properties=()),
            threat(artifacts=(Artifact("net.name", "192.0.2.1"),)),
        ]
        self.assertEqual(len(set(await self.store.add(threats=others)) - set(ids)), 4)
        self.assertEqual(len(await self.all_threats()), 6)

    async def test_add_password(self) -> None:
        """A threat with a password is refused, and so is what came with it."""
        wrong = threat(artifacts=(Artifact("net.ip", "1"), Artifact(PASSWORD, "hunter2-secret")))
        error = await self.refuses(ValueError, self.store.add(threats=[threat(), wrong]))
        self.assertNotIn("hunter2", str(error))
        self.assertEqual(await self.all_threats(), [])

    async def test_add_for_searcher(self) -> None:
        """A threat that is entered for a searcher is the searcher's."""
        one = threat(searcher="feed", source=b"s" * 16)
        [first] = await self.store.add(threats=[one])
        [again] = await self.store.add(threats=[one])
        self.assertEqual(first, again)
        self.assertEqual((await self.all_threats())[0].expires, START + WEEK)
        [other] = await self.store.add(threats=[evolve(one, name="Second", artifacts=())])
        self.assertEqual([each.id for each in await self.all_threats()], [first, other])

    async def test_delete(self) -> None:
        """What is removed is gone, and its id never comes back."""
        ids = await self.store.add(threats=[threat(str(n)) for n in range(3)])
        self.assertEqual(await self.store.delete(threat_ids=[*ids[1:], ids[1], 999]), 2)
        self.assertEqual(await self.names(), ["0"])
        [new] = await self.store.add(threats=[threat("3")])
        self.assertGreater(new, ids[-1])
        self.assertEqual(await self.store.delete(threat_ids=[]), 0)

    async def test_delete_many(self) -> None:
        """More can be removed than one statement takes."""
        ids = await self.store.add(threats=[threat(str(n)) for n in range(1203)])
        self.assertEqual(await self.store.delete(threat_ids=ids), 1203)
        self.assertEqual(await self.names(), [])

    async def test_finds(self) -> None:
        """What a searcher found is its own, for a week when it names no date."""
        await self.found(threat("A"), threat("B", expires=START + 60))
        first, second = await self.all_threats()
        self.assertEqual((first.searcher, first.source), ("feed", b"s" * 16))
        self.assertEqual((first.expires, first.created), (START + WEEK, START))
        self.assertEqual(second.expires, START + 60)

    async def test_finds_again(self) -> None:
        """Found again, a threat keeps its id; newer values replace older ones, nothing doubles."""
        await self.found(
            threat(properties=(Property("string", "a", "1"), Property("string", "b", "2")))
        )
        [before] = await self.all_threats()
        self.fixture.advance(DAY)
        await self.found(
            threat(
                artifacts=(Artifact("net.ip", "192.0.2.1"), Artifact("hash.md5", "ff")),
                properties=(Property("number", "b", 3), Property("string", "c", "4")),
            )
        )
        [after] = await self.all_threats()
        self.assertEqual((after.id, after.created), (before.id, START))
        self.assertEqual(after.expires, START + DAY + WEEK)
        self.assertEqual(
            after.properties,
            (
                Property("string", "a", "1"),
                Property("number", "b", 3),
                Property("string", "c", "4"),
            ),
        )
        self.assertEqual(
            after.artifacts, (Artifact("net.ip", "192.0.2.1"), Artifact("hash.md5", "ff"))
        )

    async def test_finds_same_again(self) -> None:
        """The same finding within the hour is no change; a new date is one later on."""
        await self.found(threat())
        version = await self.store.version()
        self.fixture.advance(3000)
        await self.found(threat())
        self.assertEqual(await self.store.version(), version)
        self.fixture.advance(3000)
        await self.found(threat())
        self.assertEqual(await self.store.version(), version + 1)
        [after] = await self.all_threats()
        self.assertEqual(after.expires, START + 6000 + WEEK)

    async def test_finds_less(self) -> None:
        """What a searcher does not find any more is removed; with nothing found, all of it."""
        await self.found(threat("A"), threat("B"))
        await self.found(threat("C"), source=b"t" * 16)
        await self.found(threat("D"), searcher="other")
        await self.store.add(threats=[threat("A")])
        await self.found(threat("B"))
        self.assertEqual(await self.names(), ["B", "C", "D", "A"])
        await self.found()
        self.assertEqual(await self.names(), ["C", "D", "A"])

    async def test_finds_doubled(self) -> None:
        """Two findings of one name are one threat, that is found by the artifacts of both."""
        await self.found(threat(value="192.0.2.1"), threat(value="192.0.2.2"), threat())
        [one] = await self.all_threats()
        self.assertEqual([each.value for each in one.artifacts], ["192.0.2.1", "192.0.2.2"])

    async def test_finds_password(self) -> None:
        """A searcher's password artifact is left out, and a threat that has no other."""
        secret = Artifact(PASSWORD, "hunter2-secret")
        await self.found(
            threat("A", artifacts=(secret, Artifact("net.ip", "192.0.2.1"))),
            threat("B", artifacts=(secret,)),
        )
        [one] = await self.all_threats()
        self.assertEqual(one.artifacts, (Artifact("net.ip", "192.0.2.1"),))

    async def test_finds_without_upload(self) -> None:
        """A threat does not name the file that was uploaded."""
        file = File(path=Path("/spool/1"), name="x", size=0, md5="", sha1="", sha256="")
        await self.found(threat(artifacts=(Artifact("file.content", "x", file),)))
        [one] = await self.all_threats()
        self.assertEqual(one.artifacts, (Artifact("file.content", "x"),))

    async def test_changes(self) -> None:
        """Who follows the changes learns of each threat as it is now, and of what is gone."""
        start = await self.store.version()
        ids = await self.store.add(threats=[threat(str(n)) for n in range(3)])
        await self.store.delete(threat_ids=ids[:1])
        told = await self.store.changes(since=start)
        self.assertEqual([each.id for each in told.threats], ids[1:])
        self.assertEqual((told.deleted, told.more, told.gap), ((ids[0],), False, False))
        self.assertEqual(told.version, await self.store.version())
        self.assertGreater(told.version, start)
        empty = await self.store.changes(since=told.version)
        self.assertEqual((empty.threats, empty.deleted), ((), ()))
        self.assertEqual(empty.version, told.version)

    async def test_changes_in_pieces(self) -> None:
        """Pieces of any size tell everything, in the end."""
        kept: dict[int, str] = {}
        ids = await self.store.add(threats=[threat(str(n)) for n in range(5)])
        import_id = await self.store.open_import()
        await self.store.add_to_import(
            import_id=import_id, threats=[threat(f"i{n}") for n in range(4)]
        )
        await self.store.finish_import(import_id=import_id)
        await self.store.delete(threat_ids=[ids[1], ids[3]])
        await self.store.add(threats=[threat("last")])
        expected = {each.id: each.name for each in await self.all_threats()}
        for limit in (1, 2, 3, 7, 100):
            since, more, kept = 0, True, {}
            while more:
                told = await self.store.changes(since=since, limit=limit)
                self.assertLessEqual(len(told.threats) + len(told.deleted), limit)
                for threat_id in told.deleted:
                    kept.pop(threat_id, None)
                kept.update((each.id, each.name) for each in told.threats)
                self.assertTrue(told.version > since or not told.more)
                since, more = told.version, told.more
            self.assertEqual(kept, expected)
            self.assertEqual(since, await self.store.version())

    async def test_import(self) -> None:
        """An import is invisible until it is finished, and then there as a whole."""
        await self.store.add(threats=[threat("old")])
        before = await self.store.version()
        import_id = await self.store.open_import()
        add = [threat(str(n)) for n in range(1200)]
        self.assertEqual(
            await self.store.add_to_import(import_id=import_id, threats=add[:700]), 700
        )
        self.assertEqual(
            await self.store.add_to_import(import_id=import_id, threats=add[600:]), 500
        )
        self.assertEqual(await self.names(), ["old"])
        self.assertEqual(await self.store.version(), before)
        self.assertEqual((await self.store.changes(since=0)).deleted, ())
        [entered] = await self.store.add(threats=[threat("meanwhile")])
        self.assertEqual(await self.store.finish_import(import_id=import_id), 1200)
        self.assertEqual(len(await self.store.threats(limit=5000)), 1202)
        self.assertEqual(await self.store.version(), before + 1201)
        told = await self.store.changes(since=before, limit=5000)
        self.assertEqual(told.threats[0].id, entered)
        self.assertEqual([each.name for each in told.threats[1:]], [str(n) for n in range(1200)])
        one = (await self.store.changes(since=before + 1, limit=1)).threats[0]
        self.assertEqual(one, await self.store.threat(threat_id=one.id))
        self.assertEqual(await self.store.delete(threat_ids=[one.id]), 1)
        self.assertEqual((await self.store.changes(since=before + 1201)).deleted, (one.id,))

    async def test_import_twice(self) -> None:
        """What is there already is not imported again."""
        await self.store.add(threats=[threat("A")])
        for expected in (1, 0):
            import_id = await self.store.open_import()
            many = [threat("A"), threat("B"), threat("B")]
            added = await self.store.add_to_import(import_id=import_id, threats=many)
            self.assertEqual(added, expected)
            self.assertEqual(await self.store.finish_import(import_id=import_id), expected)
        self.assertEqual(await self.names(), ["A", "B"])

    async def test_import_abandoned(self) -> None:
        """An import that is given up leaves nothing, and takes nothing more."""
        import_id = await self.store.open_import()
        add = [threat(str(n)) for n in range(1200)]
        await self.store.add_to_import(import_id=import_id, threats=add)
        self.assertEqual(await self.store.abandon_import(import_id=import_id), 1200)
        self.assertEqual(await self.store.abandon_import(import_id=import_id), 0)
        self.assertEqual(await self.names(), [])
        self.assertEqual((await self.store.changes(since=0)).deleted, ())
        for verb in (
            self.store.add_to_import(import_id=import_id, threats=[threat()]),
            self.store.finish_import(import_id=import_id),
            self.store.finish_import(import_id=0),
            self.store.finish_import(import_id=77),
        ):
            await self.refuses(ValueError, verb)
        self.assertEqual(len(await self.store.add(threats=[threat("5")])), 1)
        self.assertEqual(await self.names(), ["5"])

    async def test_import_finished_stays(self) -> None:
        """A finished import can't be abandoned."""
        import_id = await self.store.open_import()
        await self.store.add_to_import(import_id=import_id, threats=[threat()])
        await self.store.finish_import(import_id=import_id)
        self.assertEqual(await self.store.abandon_import(import_id=import_id), 0)
        self.assertEqual(await self.names(), ["Botnet"])

    async def test_import_password(self) -> None:
        """An import refuses a piece with a password and can go on."""
        import_id = await self.store.open_import()
        wrong = [threat("A"), threat("B", artifacts=(Artifact(PASSWORD, "x"),))]
        await self.refuses(ValueError, self.store.add_to_import(import_id=import_id, threats=wrong))
        await self.store.add_to_import(import_id=import_id, threats=[threat("C")])
        await self.store.finish_import(import_id=import_id)
        self.assertEqual(await self.names(), ["C"])

    async def test_finds_imported(self) -> None:
        """A searcher's threats that were imported are its own afterwards, without doubles."""
        import_id = await self.store.open_import()
        one = threat("A", searcher="feed", source=b"s" * 16)
        await self.store.add_to_import(import_id=import_id, threats=[one, one])
        await self.found(threat("B"))
        await self.store.finish_import(import_id=import_id)
        self.assertEqual(await self.names(), ["A", "A", "B"])
        self.fixture.advance(DAY)
        await self.found(threat("A"))
        self.assertEqual(await self.names(), ["A"])
        version = await self.store.version()
        told = await self.store.changes(since=version - 3)
        self.assertEqual(([each.name for each in told.threats], len(told.deleted)), (["A"], 2))


class AgeSuite(_Suite):
    """What goes with time, and what does not."""

    async def age(self) -> int:
        """Let the store remove what is old."""
        count: int = await self.store.age(now=self.store.now())
        return count

    async def promise(self, number: int, state: ScanState) -> None:
        """A promised scan that has come to this state."""
        await self.store.promise(scan=scan(number, state=state))

    async def test_now(self) -> None:
        """Store time is what the clock says."""
        self.assertEqual(self.store.now(), START)
        self.fixture.advance(1.5)
        self.assertEqual(self.store.now(), START + 1.5)

    async def test_retention(self) -> None:
        """Finished scans go after their time; an open one never does."""
        self.store.remember(scan=ended_scan(1))
        await self.fixture.written()
        await self.promise(2, ScanState.INCOMPLETE)
        await self.promise(3, ScanState.OPEN)
        self.store.remember(scan=ended_scan(4, created=START + DAY))
        await self.fixture.written()
        self.assertEqual(await self.age(), 0)
        self.fixture.advance(RETENTION + 3)
        self.assertEqual(await self.age(), 2)
        there = [await self.store.load(scan_id=scan(n).id) is not None for n in (1, 2, 3, 4)]
        self.assertEqual(there, [False, False, True, True])
        self.assertEqual(len((await self.store.load(scan_id=scan(3).id)).searches), 2)

    async def test_retention_many(self) -> None:
        """More goes than one small transaction removes."""
        for number in range(1100):
            self.store.remember(scan=ended_scan(number, created=START))
        await self.fixture.written()
        self.fixture.advance(RETENTION + 1)
        self.assertEqual(await self.age(), 1100)

    async def test_expired_threats(self) -> None:
        """A searcher's threats go with their date, and are told as deleted."""
        await self.store.promise(scan=scan(), finds=finds(threat("A")))
        ids = [each.id for each in await self.all_threats()]
        await self.store.add(threats=[threat("B"), threat("C", expires=START + 30 * DAY)])
        version = await self.store.version()
        self.fixture.advance(WEEK - 1)
        self.assertEqual(await self.age(), 0)
        self.fixture.advance(1)
        self.assertEqual(await self.age(), 1)
        self.assertEqual(await self.names(), ["B", "C"])
        self.assertEqual((await self.store.changes(since=version)).deleted, tuple(ids))
        self.fixture.advance(23 * DAY)
        await self.age()
        self.assertEqual(await self.names(), ["B"])

    async def test_tombstones(self) -> None:
        """Deletions are forgotten in the end, and who slept through that is told."""
        [first] = await self.store.add(threats=[threat()])
        version = await self.store.version()
        await self.store.delete(threat_ids=[first])
        self.fixture.advance(WEEK)
        await self.age()
        self.assertEqual((await self.store.changes(since=version)).deleted, (first,))
        self.fixture.advance(1)
        await self.age()
        told = await self.store.changes(since=version)
        self.assertEqual((told.deleted, told.gap), ((), True))
        self.assertFalse((await self.store.changes(since=version + 1)).gap)

    async def test_stale_import(self) -> None:
        """An import that nobody finished is gone a day after it was last added to."""
        import_id = await self.store.open_import()
        await self.store.add_to_import(import_id=import_id, threats=[threat("A")])
        self.fixture.advance(DAY)
        await self.store.add_to_import(
            import_id=import_id, threats=[threat(str(n)) for n in range(700)]
        )
        self.fixture.advance(DAY)
        self.assertEqual(await self.age(), 0)
        self.fixture.advance(1)
        self.assertEqual(await self.age(), 701)
        await self.refuses(ValueError, self.store.finish_import(import_id=import_id))

    async def test_emptied_import(self) -> None:
        """A finished import of which nothing is left changes nothing for who follows."""
        import_id = await self.store.open_import()
        await self.store.add_to_import(import_id=import_id, threats=[threat("A")])
        await self.store.finish_import(import_id=import_id)
        [one] = await self.all_threats()
        await self.store.delete(threat_ids=[one.id])
        await self.age()
        [new] = await self.store.add(threats=[threat("B")])
        told = await self.store.changes(since=0)
        self.assertEqual([each.id for each in told.threats], [new])
        self.assertEqual(told.deleted, (one.id,))

    async def test_shared_expires(self) -> None:
        """Leases, counters and keys that mean nothing any more go, and tokens still grow."""
        token = await self.store.lease(name="n", holder="me", secs=5)
        await self.store.count(name="n", window_secs=60)
        await self.store.put(key="k", value=b"v", secs=5)
        self.fixture.advance(2 * DAY)
        await self.age()
        self.assertGreater(await self.store.lease(name="n", holder="me", secs=5), token)

    async def test_max_bytes(self) -> None:
        """Above the store's size the oldest finished scans go, however young."""
        hit = EncodedHit(b"x" * 1000)
        outcome = Outcome(Ended.FOUND, (hit,))
        await self.promise(0, ScanState.OPEN)
        for number in range(1, 1201):
            self.store.remember(
                scan=ended_scan(number, searches=(Search(searcher="a", outcome=outcome),))
            )
        await self.fixture.written()
        self.store.aging.max_bytes = 1_000_000
        self.assertGreater(await self.age(), 499)
        self.assertEqual(self.store.full(), "")
        self.assertIsNone(await self.store.load(scan_id=scan(1).id))
        self.assertTrue(await self.store.load(scan_id=scan(1200).id))
        self.assertTrue(await self.store.load(scan_id=scan(0).id))

    async def test_full(self) -> None:
        """When nothing more can go, the store says why it is full, until it is not."""
        await self.promise(1, ScanState.OPEN)
        self.store.aging.max_bytes = 10
        await self.age()
        self.assertIn("store.max_bytes", self.store.full())
        self.store.aging.max_bytes = 10_000_000
        await self.age()
        self.assertEqual(self.store.full(), "")


class ClockJumpSuite(_Suite):
    """A wall clock that somebody set; the fixture's C{set_wall} moves it alone."""

    async def test_jump(self) -> None:
        """After a jump nothing expires before the clock has kept still for an hour."""
        fixture: Any = self.fixture
        self.store.remember(scan=ended_scan(1))
        await self.fixture.written()
        await self.store.age(now=self.store.now())
        fixture.set_wall(START + 2 * RETENTION)
        self.assertEqual(await self.store.age(now=self.store.now()), 0)
        self.fixture.advance(3599)
        self.assertEqual(await self.store.age(now=self.store.now()), 0)
        self.fixture.advance(1)
        self.assertEqual(await self.store.age(now=self.store.now()), 1)


class SharedSuite(_Suite):
    """Leases, counters and keys."""

    async def test_lease(self) -> None:
        """One holder has a lease at a time; the token grows when the holder changes."""
        lease = self.store.lease
        first = await lease(name="n", holder="a", secs=10)
        self.assertIsNone(await lease(name="n", holder="b", secs=10))
        self.fixture.advance(9)
        self.assertEqual(await lease(name="n", holder="a", secs=10), first)
        self.fixture.advance(9)
        self.assertIsNone(await lease(name="n", holder="b", secs=10))
        self.fixture.advance(1)
        second = await lease(name="n", holder="b", secs=10)
        self.assertGreater(second, first)
        self.assertIsNone(await lease(name="n", holder="a", secs=10))
        self.fixture.advance(10)
        self.assertGreater(await lease(name="n", holder="a", secs=10), second)
        self.assertTrue(await lease(name="other", holder="c", secs=10))

    async def test_release(self) -> None:
        """A lease that is given back can be taken; who does not have it can't give it back."""
        first = await self.store.lease(name="n", holder="a", secs=10)
        await self.store.release(name="n", holder="b")
        self.assertIsNone(await self.store.lease(name="n", holder="b", secs=10))
        await self.store.release(name="n", holder="a")
        self.assertGreater(await self.store.lease(name="n", holder="b", secs=10), first)
        await self.store.release(name="unknown", holder="a")

    async def test_count(self) -> None:
        """A counter adds up within its window and starts anew in the next."""
        count = self.store.count
        self.fixture.advance(-START % 60)
        self.assertEqual(await count(name="n", window_secs=60), 1)
        self.assertEqual(await count(name="n", window_secs=60, amount=4), 5)
        self.assertEqual(await count(name="m", window_secs=60), 1)
        self.fixture.advance(59)
        self.assertEqual(await count(name="n", window_secs=60), 6)
        self.fixture.advance(1)
        self.assertEqual(await count(name="n", window_secs=60, amount=0), 0)
        self.assertEqual(await count(name="n", window_secs=60), 1)

    async def test_pairs(self) -> None:
        """A value is there until it expires, is replaced or dropped."""
        store = self.store
        self.assertIsNone(await store.get(key="k"))
        await store.put(key="k", value=b"\0\xff", secs=10)
        self.assertEqual(await store.get(key="k"), b"\0\xff")
        await store.put(key="k", value=b"", secs=20)
        self.fixture.advance(19)
        self.assertEqual(await store.get(key="k"), b"")
        self.fixture.advance(1)
        self.assertIsNone(await store.get(key="k"))
        await store.put(key="k", value=b"x", secs=10)
        await store.drop(key="k")
        await store.drop(key="k")
        self.assertIsNone(await store.get(key="k"))


def bad_steps() -> Steps[None]:
    """A write that begins well and fails."""
    yield Change("INSERT INTO secrets (name, value) VALUES ('half', ?)", (b"",))
    yield Change("INSERT INTO secrets (name, value) VALUES ('half', ?)", (b"",))


def count_steps() -> Steps[int]:
    """A write that needs no arguments."""
    yield Change("UPDATE numbers SET value = value + 1 WHERE name = 'token'")
    rows = yield Query("SELECT value FROM numbers WHERE name = 'token'")
    value: int = rows[0][0]
    return value


class GroupSuite(_Suite):
    """
    Writes that share a transaction, and that meet those of other processes.

    The fixture has, beside what all have: C{other()}, a fixture of another store on the same
    database; C{lock()}, which begins a write in another process and returns what ends it;
    C{limit_reads()}, which lets only a few reads wait and says how many.
    """

    fixture: Any

    async def test_load_before_written(self) -> None:
        """A scan is there while it waits for its group, and while the group is written."""
        end = self.fixture.lock()
        self.store.remember(scan=ended_scan(1))
        await pause(0.05)
        self.store.remember(scan=ended_scan(2))
        self.assertTrue(await self.store.load(scan_id=scan(1).id))
        self.assertTrue(await self.store.load(scan_id=scan(2).id))
        end()
        await self.fixture.written()
        self.assertTrue(await self.store.load(scan_id=scan(1).id))
        self.assertTrue(await self.store.load(scan_id=scan(2).id))

    async def test_grouped(self) -> None:
        """A burst of promises shares few transactions."""
        groups: list[int] = []
        run = self.store._queue.run

        def counting(group: Any) -> Any:
            groups.append(len(group))
            return run(group)

        self.store._queue.run = counting
        await gatherResults([self.store.promise(scan=scan(n)) for n in range(100)])
        self.assertEqual(groups, [1, 99])

    async def test_one_bad_write(self) -> None:
        """What shares its group with a write that fails is written all the same."""
        end = self.fixture.lock()
        first = self.store.promise(scan=scan(1))
        self.store.remember(scan=ended_scan(2))
        self.store.remember(scan=ended_scan(3, searches=(Search(searcher=object()),)))  # type: ignore[arg-type]
        before = self.store.promise(scan=scan(4))
        bad = self.store._write(bad_steps)
        wrong = self.store.promise(scan=scan(5, artifact=Artifact("net.ip", NO_JSON)))
        after = self.store.promise(scan=scan(6))
        end()
        await first
        await before
        await after
        await self.refuses(StoreError, bad)
        await self.refuses(ValueError, wrong)
        await self.fixture.written()
        there = [await self.store.load(scan_id=scan(n).id) is not None for n in range(1, 7)]
        self.assertEqual(there, [True, True, False, True, False, True])
        self.assertEqual(self.store.lost, 1)
        await self.store._write(count_steps)

    async def test_two_processes(self) -> None:
        """What C{ctsd threats} writes the daemon sees, and both write at once."""
        other = self.fixture.other()
        try:
            self.assertEqual(other.store.secret(), self.store.secret())
            version = await self.store.version()
            writes = []
            for number in range(50):
                writes.append(other.store.add(threats=[threat(f"o{number}")]))
                writes.append(self.store.add(threats=[threat(f"m{number}")]))
                if number % 10 == 0:
                    await pause(0.001)
            ids = [each[0] for each in await gatherResults(writes)]
            self.assertEqual(len(set(ids)), 100)
            told = await self.store.changes(since=version)
            self.assertEqual({each.id for each in told.threats}, set(ids))
            await other.store.delete(threat_ids=ids[:3])
            told = await self.store.changes(since=told.version)
            self.assertEqual(set(told.deleted), set(ids[:3]))
            self.assertTrue(await other.store.lease(name="n", holder="other", secs=9))
            self.assertIsNone(await self.store.lease(name="n", holder="me", secs=9))
        finally:
            await other.close()

    async def test_waits_for_lock(self) -> None:
        """While another process writes for a while, ours waits, and the reactor does not."""
        end = self.fixture.lock()
        promised = self.store.promise(scan=scan())
        for _ in range(10):
            await pause(0.01)
            self.assertIsNone(await self.store.load(scan_id=scan().id))
        self.assertFalse(promised.called)
        end()
        await promised
        self.assertTrue(await self.store.load(scan_id=scan().id))

    async def test_too_many_reads(self) -> None:
        """Reads that wait are limited; those within the limit are answered."""
        limit = await self.fixture.limit_reads()
        reads = [self.store.unfinished() for _ in range(limit)]
        error = await self.refuses(StoreError, self.store.unfinished())
        self.assertIn("busy", str(error))
        await gatherResults(reads)
        await self.store.unfinished()

    async def test_cancelled(self) -> None:
        """Cancelling a wait cancels the wait alone."""
        promised = self.store.promise(scan=scan(1))
        promised.addErrback(lambda failure: None)
        promised.cancel()
        reading = self.store.load(scan_id=scan(1).id)
        reading.addErrback(lambda failure: None)
        reading.cancel()
        await self.store.promise(scan=scan(2))
        self.assertTrue(await self.store.load(scan_id=scan(1).id))


class BrokenSuite(_Suite):
    """When the database does not answer, every verb says so, and what it says is a 503."""

    def verbs(self) -> Sequence[tuple[str, dict[str, Any]]]:
        """Every verb with arguments."""
        scan_id = scan().id
        return [
            ("promise", {"scan": scan()}),
            ("load", {"scan_id": scan_id}),
            ("find", {"service": "", "digest": b"d"}),
            ("unfinished", {}),
            ("register", {"name": "n", "secs": 1}),
            ("beat", {"holder": "me", "secs": 1}),
            ("take_over", {"holder": "me"}),
            ("held", {"holder": "me"}),
            ("let_go", {"searches": [(scan_id, "one")], "holder": "me"}),
            ("leave", {"holder": "me"}),
            ("hold", {"scan_ids": [scan_id], "holder": "me"}),
            (
                "record",
                {
                    "scan_id": scan_id,
                    "search": Search(searcher="one"),
                    "state": ScanState.OPEN,
                    "holder": "me",
                },
            ),
            ("end", {"scan_id": scan_id, "state": ScanState.COMPLETE, "holder": "me"}),
            ("reopen", {"scan_id": scan_id, "deadline": START}),
            ("due", {"now": START, "holder": "", "limit": 1}),
            ("files", {}),
            ("age", {"now": START}),
            ("add", {"threats": [threat()]}),
            ("open_import", {}),
            ("add_to_import", {"import_id": 1, "threats": [threat()]}),
            ("finish_import", {"import_id": 1}),
            ("abandon_import", {"import_id": 1}),
            ("threats", {}),
            ("threat", {"threat_id": 1}),
            ("delete", {"threat_ids": [1]}),
            ("version", {}),
            ("changes", {"since": 0}),
            ("lease", {"name": "n", "holder": "me", "secs": 1}),
            ("release", {"name": "n", "holder": "me"}),
            ("count", {"name": "n", "window_secs": 1}),
            ("get", {"key": "k"}),
            ("put", {"key": "k", "value": b"", "secs": 1}),
            ("drop", {"key": "k"}),
        ]

    async def test_every_verb(self) -> None:
        """Every verb fails with a StoreError whose cause is the driver's own error."""
        verbs = self.verbs()
        tested = {name for name, _ in verbs} | {
            "now",
            "secret",
            "full",
            "remember",
            "changed",
            "hears",
        }
        self.assertEqual(tested, set(IStore.names(all=True)))
        self.fixture.ruin()
        for name, arguments in verbs:
            error = await self.refuses(StoreError, getattr(self.store, name)(**arguments))
            self.assertRegex(str(error.__cause__), "no such table|relation .* does not exist")

    async def test_remember(self) -> None:
        """A scan that can't be remembered is counted, and nobody fails."""
        self.fixture.ruin()
        self.store.remember(scan=ended_scan(1))
        self.store.remember(scan=ended_scan(2))
        await self.fixture.written()
        self.assertEqual(self.store.lost, 2)

    async def test_not_json(self) -> None:
        """A value that is no JSON fails alone."""
        await self.refuses(
            ValueError, self.store.promise(scan=scan(1, artifact=Artifact("net.ip", NO_JSON)))
        )
        await self.store.promise(scan=scan(2))
        self.assertTrue(await self.store.load(scan_id=scan(2).id))
        self.assertIsNone(await self.store.load(scan_id=scan(1).id))
