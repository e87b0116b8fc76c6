"""
Values that a store may be given by others and has to give back as they were: one suite, run on
every implementation through its own verbs, and through copies from one to the other.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ctsd.model import (
    JSON,
    Artifact,
    EncodedHit,
    Ended,
    Outcome,
    Property,
    Scan,
    Search,
    Suppressed,
    Threat,
)
from tests import strategies
from tests.store_suite import ended_scan, finds, scan

_DEEP: Any = "leaf"
for _ in range(200):
    _DEEP = [_DEEP]

#: Texts that are trouble somewhere: for C, for UTF-8, for an index, for SQL, for a terminal.
TEXTS: tuple[str, ...] = (
    "",
    " ",
    "\0",
    "a\0b",
    "\0" * 5000,
    "\ud800",
    "\udfff\ud800",
    "\ud83d\ude00",
    "\U0001f600",
    "e\u0301 \u00e9",
    "\u202egnp.exe\u202c",
    "\ufeff\ufffe\uffff",
    "\u0130\u0131\u017f\u1e9e",
    "\r\n\t\x0b\x1b[2J",
    "'; DROP TABLE scans; --",
    "%s ? $1 :name \\' E'\\\\' {}",
    "\\x00",
    "\\000\\134",
    "NaN",
    "12 kB" + "x" * 12_000,
    "12 kB that are no ASCII " + "\u20ac" * 4_000,
    "1 MB\0" + "x" * 1_000_000,
)

#: Numbers and structures likewise.
VALUES: tuple[JSON, ...] = (
    None,
    True,
    0,
    -0.0,
    5e-324,
    1.7976931348623157e308,
    0.1 + 0.2,
    1e22,
    2**53 + 1,
    -(2**63) - 1,
    2**64,
    10**300,
    [],
    {},
    {"": {"": [""]}},
    {"a\0b": "\ud800", "\ud800": None},
    _DEEP,
    list(range(5000)),
)

#: Bytes: of hits, of keys' values.
BYTES: tuple[bytes, ...] = (
    b"",
    b"\0",
    b"\n",
    bytes(range(256)),
    b"\\x00'\"",
    b"\xff" * 1_000_000,
)

#: Dates and durations, POSIX seconds.
DATES: tuple[float, ...] = (0.0, 1e-9, 1_700_000_000.123456, 2.0**53, 1e300)


def outcomes(text: str, hit: bytes) -> tuple[Outcome, ...]:
    """What searchers can make of a scan, with this in every place of it."""
    return (
        Outcome(Ended.FOUND, (EncodedHit(hit), EncodedHit(b"{}"))),
        Outcome(Ended.FAILED, reason=text, after_secs=0.1, final=True),
        Outcome(
            Ended.LATER,
            reason=text,
            missing=(text,),
            suppressed=(Suppressed(text, text, text),),
            suppressed_more=1,
        ),
    )


def nasty_scan(number: int, *, text: str, value: JSON, hit: bytes, date: float) -> Scan:
    """An open scan that holds all of it."""
    searches = tuple(
        Search(searcher=f"s{place}", outcome=each, due=date)
        for place, each in enumerate(outcomes(text, hit))
    )
    return scan(number, artifact=Artifact(f"t{text[:20_000]}", value), searches=searches)


def nasty_threat(*, text: str, value: JSON) -> Threat:
    """A threat that holds all of it; where others choose a name, it is no megabyte."""
    name = text[:20_000]
    return Threat(
        name=name,
        artifacts=(Artifact(f"t{name}", value), Artifact("net.name", text)),
        properties=(Property("string", name, value), Property(f"t{name}", "n", name)),
        note=name,
    )


def examples() -> list[dict[str, Any]]:
    """All of these values, each together with some of the others."""
    longest = max(map(len, (TEXTS, VALUES, BYTES, DATES)))
    return [
        {
            "text": TEXTS[number % len(TEXTS)],
            "value": VALUES[number % len(VALUES)],
            "hit": BYTES[number % len(BYTES)],
            "date": DATES[number % len(DATES)],
        }
        for number in range(longest)
    ]


def some(count: int) -> list[dict[str, Any]]:
    """
    Values that Hypothesis makes. It only makes them here: the tests are asynchronous, which it
    does not go together with.
    """
    found: list[dict[str, Any]] = []

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        strategies.texts,
        strategies.json_values,
        st.binary(max_size=60),
        strategies.dates,
    )
    def collect(text: str, value: JSON, hit: bytes, date: float) -> None:
        found.append({"text": text, "value": value, "hit": hit, "date": date})

    collect()
    return found


async def fill(store: Any, values: list[dict[str, Any]]) -> None:
    """Put all of these values into a store, in every place that they can come to."""
    for number, each in enumerate(values):
        text, value, hit = each["text"], each["value"], each["hit"]
        found = finds(
            nasty_threat(text=text, value=value),
            source=number.to_bytes(16),
            searcher=f"f{text[:20_000]}",
        )
        open_scan = nasty_scan(number, **each)
        await store.promise(scan=open_scan, finds=found)
        store.remember(scan=ended_scan(10_000 + number, searches=open_scan.searches))
        entered = evolve(nasty_threat(text=text, value=value), name=f"entered {number}")
        await store.add(threats=[entered])
        await store.put(key=f"{number}{text}", value=hit, secs=1e6)
        await store.count(name=f"{number}{text}", window_secs=1e6, amount=2**40 + number)
        await store.lease(name=f"{number}{text}", holder="me", secs=1e6)


def entered_threats(threats: list[Threat]) -> list[Threat]:
    """Those that people entered."""
    return [each for each in threats if not each.searcher]


async def check(case: Any, store: Any, values: list[dict[str, Any]]) -> None:
    """All that L{fill} has put into a store is there, as it was."""
    threats = await store.threats(limit=10_000)
    entered = entered_threats(threats)
    case.assertEqual(len(entered), len(values))
    case.assertEqual(len(threats), 2 * len(values))
    for number, each in enumerate(values):
        text, value = each["text"], each["value"]
        whole = nasty_scan(number, **each)
        read = await store.load(scan_id=whole.id)
        _same(case, read, whole)
        ended = await store.load(scan_id=ended_scan(10_000 + number).id)
        _same(case, ended.searches, whole.searches)
        wanted = evolve(nasty_threat(text=text, value=value), name=f"entered {number}")
        _same(case, evolve(entered[number], id=0, created=0.0), wanted)
        case.assertEqual(await store.get(key=f"{number}{text}"), each["hit"])
        sum_ = await store.count(name=f"{number}{text}", window_secs=1e6, amount=0)
        case.assertEqual(sum_, 2**40 + number)
        case.assertIsNone(await store.lease(name=f"{number}{text}", holder="other", secs=1))
    for each in values:
        name = each["text"][:20_000]
        case.assertIn(name, [one.name for one in threats if one.searcher == f"f{name}"])
    case.assertIsNone(await store.get(key="nobody's"))


def _same(case: Any, read: Any, written: Any) -> None:
    # 0 == -0.0 == False, and 1 == True.
    case.assertEqual(details(read), details(written))


def details(value: Any) -> Any:
    """A value in all its details: what it is made of, with the types of all parts."""
    if hasattr(value, "__attrs_attrs__"):
        return [(one.name, details(getattr(value, one.name))) for one in value.__attrs_attrs__]
    if isinstance(value, tuple):
        return [type(value), *map(details, value)]
    return repr(value)


class NastySuite:
    """Whatever others send is kept as it is."""

    fixture: Any

    async def test_nasty_values(self) -> None:
        """Values that are trouble somewhere are read as they were written."""
        values = examples()
        await fill(self.fixture.store, values)
        await self.fixture.written()
        await check(self, self.fixture.store, values)

    async def test_any_values(self) -> None:
        """Any values are."""
        values = some(40)
        await fill(self.fixture.store, values)
        await self.fixture.written()
        await check(self, self.fixture.store, values)
