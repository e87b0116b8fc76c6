"""Downloads of feeds, without a network."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ctsd.config.document import Document
from ctsd.errors import OutboundError, StoreError, Unreached
from ctsd.feeds.copies import BadState, Busy, Copies, Disk
from ctsd.feeds.descriptions import Description, read_description
from ctsd.feeds.download import Downloads
from ctsd.feeds.feed_state import Copy, FeedState
from ctsd.feeds.gathering import Gathering
from ctsd.feeds.guards import Counts, check_counts, check_file, check_head, unpacked_limit
from ctsd.feeds.job import BuildFailed, Refused
from ctsd.feeds.times import is_due, next_time, retry_time, righted, wait_secs, wanted_pause_secs
from ctsd.feeds.turns import Turns
from ctsd.feeds.updates import FAULT_SECS, LOOK_SECS, Updates
from ctsd.feeds.visit import TooEarly
from ctsd.interfaces.outbound import IOutbound
from ctsd.remote import Download, Remote
from tests.test_feeds_turns import Shared

NOW = 1_800_000_000.0
GOOD = b"".join(b"192.0.2.%d\n" % number for number in range(100))


def describe(name: str = "mine", **own: Any) -> Description:
    """A feed of lines."""
    table = {
        "url": "https://feeds.example/{key}/list.txt",
        "key": "s3cr3t",
        "format": "lines",
        "indicators": [{"field": "line", "type": "net.ip"}],
        "every_secs": 3600,
        "min_interval_secs": 600,
        "over_quota": [509],
        **own,
    }
    return read_description(name, table, Document(name="ctsd.toml", base_dir=Path("/")))


def _at_once(function: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
    try:
        return succeed(function(*args, **kwargs))
    except BaseException:
        return fail()


@implementer(IOutbound)
class Provider:
    """
    Answers as it is told, and keeps what it was asked.

    :ivar answers: status, headers and body of the next answers; or an exception; or a Deferred.
    """

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.asked: list[tuple[Remote, dict[str, str]]] = []

    def download(self, *, remote: Remote, into: Path, headers: Any = None, **_: Any) -> Any:
        """Write the next answer's body."""
        self.asked.append((remote, dict(headers)))
        answer = self.answers.pop(0)
        if isinstance(answer, Deferred):
            return answer
        if isinstance(answer, Exception):
            return fail(answer)
        status, given, body = answer
        if status != 200:
            return succeed(Download(status=status, headers=given, url=remote.shown))
        with into.open("xb") as opened:
            opened.write(body)
        return succeed(
            Download(
                status=200,
                headers=given,
                url=remote.shown,
                size=len(body),
                sha256=hashlib.sha256(body).hexdigest(),
            )
        )

    def request(self, **_: Any) -> Any:
        """Not asked."""
        raise NotImplementedError


async def count_lines(
    _: Description, path: Path, *, max_unpacked_bytes: int, **more: Any
) -> Counts:
    """A parser of lines: those with a question mark can't be read."""
    data = path.read_bytes()
    if len(data) > max_unpacked_bytes:
        raise Refused("too much in it")
    lines = data.splitlines()
    bad = sum(b"?" in line for line in lines)
    return Counts(rows=len(lines), refused=bad, records=len(lines) - bad)


class DownloadsCase(SynchronousTestCase):
    """A provider, a clock, a directory."""

    def setUp(self) -> None:
        """Nothing is there yet."""
        self.directory = Path(self.mktemp()).absolute()
        self.provider = Provider()
        self.now = NOW
        self.description = describe()
        self.downloads = self.make()

    def make(self, **more: Any) -> Downloads:
        """Downloads whose chance is always the least."""
        given: dict[str, Any] = {
            "directory": self.directory,
            "outbound": self.provider,
            "gathering": Gathering(
                outbound=self.provider, clock=Clock(), in_thread=_at_once, total_secs=100.0
            ),
            "examine": count_lines,
            "in_thread": _at_once,
            "now": lambda: self.now,
            "chance": lambda: 0.0,
        }
        return Downloads(**{**given, **more})

    def answer(self, status: int = 200, body: bytes = GOOD, **headers: str) -> None:
        """Have the provider say this next."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.provider.answers.append((status, given, body))

    def update(self) -> FeedState:
        """Update the feed."""
        return self.successResultOf(self.downloads.update(self.description))

    def opened(self, file: Path) -> BinaryIO:
        """An open file."""
        opened = file.open("rb")
        self.addCleanup(opened.close)
        return opened

    def bring(self, file: Path) -> Deferred[FeedState]:
        """Import a file."""
        return self.downloads.bring(self.description, self.opened(file), name=file.name)

    @property
    def copies(self) -> Copies:
        """The feed's directory."""
        return Copies(self.directory / "mine")

    def served(self) -> bytes:
        """The newest good copy, as the next process would find it."""
        copy = self.copies.state().copy
        assert copy is not None
        data = self.copies.path(copy).read_bytes()
        self.assertEqual(hashlib.sha256(data).hexdigest(), copy.sha256)
        return data

    def files(self) -> list[str]:
        """What there is beside the state and the lock."""
        names = {each.name for each in (self.directory / "mine").iterdir()}
        return sorted(names - {"feed.json", "lock"})


class UpdateTests(DownloadsCase):
    """One update."""

    def test_first(self) -> None:
        """A first copy is taken, with all that is known of it; no secret is on the disk."""
        self.answer(etag='"one"', last_modified="yesterday")
        state = self.update()
        assert state.copy is not None
        self.assertEqual(self.served(), GOOD)
        self.assertEqual((state.copy.rows, state.copy.refused, state.copy.records), (100, 0, 100))
        self.assertEqual((state.copy.fetched, state.copy.checked), (NOW, NOW))
        self.assertEqual((state.error, state.failures, state.refused), ("", 0, None))
        self.assertEqual(state.due, NOW + 3600)
        self.assertEqual(state, self.copies.state())
        self.assertNotIn(b"s3cr3t", (self.directory / "mine" / "feed.json").read_bytes())
        self.assertEqual(self.provider.asked[0][1], {})

    def test_not_modified(self) -> None:
        """The next request asks for something newer; when there is none, the copy is current."""
        self.answer(etag='"one"', last_modified="yesterday")
        self.update()
        self.now += 3600
        self.answer(304)
        state = self.update()
        assert state.copy is not None
        self.assertEqual((state.copy.fetched, state.copy.checked), (NOW, NOW + 3600))
        self.assertEqual(state.due, NOW + 7200)
        self.assertEqual(
            self.provider.asked[1][1],
            {"If-None-Match": '"one"', "If-Modified-Since": "yesterday"},
        )
        self.assertEqual(self.served(), GOOD)

    def test_another_address(self) -> None:
        """What is known of one address is nothing for another one."""
        self.answer(etag='"one"')
        self.update()
        self.now += 3600
        self.description = describe(url="https://other.example/list.txt")
        self.answer(body=GOOD + b"x\n")
        self.update()
        self.assertEqual(self.provider.asked[1][1], {})

    def test_304_of_nothing(self) -> None:
        """It is no answer to a request without a condition."""
        self.answer(304)
        self.assertEqual(self.update().error, "it answered 304")

    def test_same_file(self) -> None:
        """The same file again is not looked at again."""
        self.answer(etag='"one"')
        self.update()
        self.now += 3600
        self.answer(etag='"two"')
        self.downloads = self.make(examine=None)
        state = self.update()
        assert state.copy is not None
        self.assertEqual((state.copy.etag, state.copy.records), ('"two"', 100))
        self.assertEqual((state.copy.fetched, state.copy.checked), (NOW, NOW + 3600))
        self.assertEqual(self.served(), GOOD)
        self.assertEqual(len(self.files()), 1)

    def test_gone(self) -> None:
        """A copy whose file is gone is fetched again, also when it is not newer."""
        self.answer(etag='"one"')
        copy = self.update().copy
        assert copy is not None
        for status, error in ((304, "it answered 304"), (200, "")):
            self.now += 3600
            self.copies.path(copy).unlink(missing_ok=True)
            self.answer(status, etag='"one"')
            self.assertEqual(self.update().error, error)
            self.assertEqual(self.provider.asked[-1][1], {})
        self.assertEqual(self.served(), GOOD)

    def test_newer(self) -> None:
        """A newer copy replaces the one before, whose file goes."""
        self.answer()
        self.update()
        self.now += 3600
        self.answer(body=GOOD * 2)
        self.update()
        self.assertEqual(self.served(), GOOD * 2)
        self.assertEqual(len(self.files()), 1)

    def test_statuses(self) -> None:
        """What is no file changes nothing but the state, which says what it was."""
        self.answer()
        self.update()
        for status, expected in {
            401: "it does not take our credentials, or wants some (401)",
            403: "it does not take our credentials, or wants some (403)",
            404: "it answered 404",
            429: "it says that it was asked too often (429)",
            500: "it answered 500",
            509: "it says that it was asked too often (509)",
        }.items():
            self.now += 7200
            self.answer(status)
            state = self.update()
            self.assertEqual(state.error, expected)
            self.assertEqual(self.served(), GOOD)
            self.assertEqual(len(self.files()), 1)
        self.assertEqual(state.failures, 6)

    def test_collection(self) -> None:
        """The next request for a collection begins with the good copy of the same address."""
        asked: list[dict[str, Any]] = []

        class Collections:
            """Gathers a collection."""

            async def taxii(self, remote: Remote, into: Path, **given: Any) -> Download:
                """Write it."""
                asked.append(given)
                into.write_bytes(GOOD)
                sha256 = hashlib.sha256(GOOD).hexdigest()
                return Download(
                    status=200, headers={"etag": "{1}"}, url="x", size=len(GOOD), sha256=sha256
                )

        self.description = describe(
            format="stix", indicators=[{"field": "id", "type": "net.ip"}], taxii=True
        )
        self.downloads = self.make(gathering=Collections())
        self.update()
        self.now += 3600
        state = self.update()
        assert state.copy is not None
        first, second = asked
        self.assertEqual((first["before"], first["tag"], first["now"]), (None, "", NOW))
        self.assertEqual((second["before"], second["tag"]), (self.copies.path(state.copy), "{1}"))
        self.assertEqual((second["whole_every_secs"], second["now"]), (86400.0, NOW + 3600))

    def test_no_answer(self) -> None:
        """A provider that can't be asked."""
        self.provider.answers = [OutboundError("its name has no address")]
        state = self.update()
        self.assertEqual((state.error, state.failures), ("its name has no address", 1))
        self.assertEqual(state.due, NOW + 600)
        self.assertIsNone(state.copy)

    def test_nothing_was_sent(self) -> None:
        """Where it was our network that was away, the provider's minimum keeps nobody waiting."""
        self.provider.answers = [Unreached("its name has no address")] * 7
        waits = []
        for _ in range(6):
            state = self.update()
            waits.append(state.due - self.now)
            self.now = state.due
        self.assertEqual(waits, [60, 120, 240, 480, 900, 900])
        self.now -= 899
        self.assertEqual(self.update().failures, 7)
        self.answer()
        self.assertEqual(self.update().failures, 0)
        # It was reached this time.
        self.failureResultOf(self.downloads.update(self.description), TooEarly)

    def test_a_death_on_the_way(self) -> None:
        """Whoever died before an answer may have reached the provider."""
        self.provider.answers = [Unreached("its name has no address")]
        self.update()
        waiting: Deferred[Download] = Deferred()
        self.provider.answers = [waiting]
        self.downloads.update(self.description).addErrback(lambda _: None)
        self.assertFalse(self.copies.state().unreached)

    def test_nobody_could_read_it(self) -> None:
        """A parser that can't run is no reason to refuse a copy."""

        async def broken(*_: Any, **__: Any) -> Counts:
            raise BuildFailed("it was killed by SIGKILL")

        self.downloads = self.make(examine=broken)
        self.answer()
        state = self.update()
        self.assertIn("nobody could read its copy", state.error)
        self.assertEqual((state.copy, state.refused, self.files()), (None, None, []))

    def test_a_date_in_the_address(self) -> None:
        """Today's file may not be there yet; then yesterday's is taken, if it is newer."""
        self.description = describe(url="https://feeds.example/{date}.txt", date_back_days=1)
        self.answer(404)
        self.answer(etag='"a"')
        self.update()
        urls = [remote.url for remote, _ in self.provider.asked]
        self.assertEqual(
            urls, ["https://feeds.example/2027-01-15.txt", "https://feeds.example/2027-01-14.txt"]
        )
        self.now += 3600
        self.answer(404)
        self.answer(304)
        self.assertEqual(self.update().error, "")
        conditions = [headers for _, headers in self.provider.asked[2:]]
        self.assertEqual(conditions, [{}, {"If-None-Match": '"a"'}])

    def test_busy(self) -> None:
        """One at a time, over all processes."""
        lock = self.downloads.copies("mine").lock()
        self.failureResultOf(self.downloads.update(self.description), Busy)
        self.assertEqual(self.provider.asked, [])
        lock.release()
        self.answer()
        self.update()

    def test_given_up(self) -> None:
        """A download that is given up leaves the feed to others, and the interval holds."""
        waiting: Deferred[Any] = Deferred()
        self.provider.answers = [waiting]
        update = self.downloads.update(self.description)
        update.cancel()
        self.failureResultOf(update, CancelledError)
        self.failureResultOf(self.downloads.update(self.description), TooEarly)
        self.now += 600
        self.answer()
        self.update()

    def test_given_up_in_a_thread(self) -> None:
        """Who gives up while a thread is at work leaves the feed to others when that has ended."""
        waiting: list[Callable[[], None]] = []

        def later(function: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
            done: Deferred[Any] = Deferred()
            waiting.append(lambda: _at_once(function, *args, **kwargs).chainDeferred(done))
            return done

        for steps in range(3):
            update = self.make(in_thread=later).update(self.description)
            for _ in range(steps):
                waiting.pop()()
            update.cancel()
            self.assertNoResult(update)
            waiting.pop()()
            self.failureResultOf(update, CancelledError)
            self.downloads.copies("mine").lock().release()

    def test_bad_state(self) -> None:
        """A state that can't be read is told by its file's name."""
        file = self.directory / "mine" / "feed.json"
        file.mkdir(parents=True)
        failure = self.failureResultOf(self.downloads.update(self.description), BadState)
        self.assertIn(str(file), str(failure.value))


class MendTests(DownloadsCase):
    """A state that was cut off, or makes no sense."""

    def damage(self, text: str = "{") -> None:
        """Have the state be this, written now."""
        file = self.directory / "mine" / "feed.json"
        file.write_text(text)
        os.utime(file, (self.now, self.now))

    def date_copies(self) -> None:
        """Have the copies that came just now be of now."""
        for path in (self.directory / "mine").glob("data-*"):
            if path.stat().st_mtime < NOW:
                os.utime(path, (self.now, self.now))

    def test_no_copy(self) -> None:
        """It is kept aside, one of them; the provider is asked when its interval is over."""
        (self.directory / "mine").mkdir(parents=True)
        for text in ("{", "", "[]", '{"copy": 1}', '{"tried": "x"}', "x" * 100_000):
            self.damage(text)
            with capturedLogs() as logs:
                self.failureResultOf(self.downloads.update(self.description), TooEarly)
            self.assertEqual([one["log_level"].name for one in logs], ["error"])
            self.assertEqual(self.files(), ["feed.json.broken"])
            kept = (self.directory / "mine" / "feed.json.broken").read_text()
            self.assertEqual(kept, text[:65536])
            self.assertEqual(self.copies.state(), FeedState(tried=self.now))
        self.now += 601
        self.answer()
        self.assertEqual(self.update().error, "")
        self.assertEqual(self.served(), GOOD)
        self.assertIn("feed.json.broken", self.files())

    def test_copy(self) -> None:
        """The last good copy stays the good one, as old as its file."""
        self.answer()
        before = self.update().copy
        assert before is not None
        self.date_copies()
        self.now += 7000
        self.damage()
        self.failureResultOf(self.downloads.update(self.description), TooEarly)
        copy = self.copies.state().copy
        assert copy is not None
        self.assertEqual(copy, evolve(before, url="", source=""))
        self.assertEqual(self.served(), GOOD)

    def test_refused_copy(self) -> None:
        """One that was refused is not taken for a good one."""
        self.answer()
        self.update()
        self.date_copies()
        self.now += 3600
        self.answer(body=GOOD[:100])
        self.assertIn("not taken", self.update().error)
        self.date_copies()
        self.assertEqual(len(self.files()), 2)
        self.damage()
        self.failureResultOf(self.downloads.update(self.description), TooEarly)
        self.assertEqual(self.served(), GOOD)

    def test_nothing_good(self) -> None:
        """One that guards refuse, or that is not whole, is none."""
        self.answer(body=b"<html>")
        self.update()
        self.damage()
        self.failureResultOf(self.downloads.update(self.description), TooEarly)
        self.assertEqual(self.copies.state().copy, None)
        self.now += 3600
        self.answer()
        self.update()
        (name,) = (one for one in self.files() if one.startswith("data"))
        (self.directory / "mine" / name).write_bytes(GOOD[:-50])
        self.damage()
        self.failureResultOf(self.downloads.update(self.description), TooEarly)
        self.assertEqual((self.copies.state().copy, self.files()), (None, ["feed.json.broken"]))

    def test_nobody_could_look(self) -> None:
        """Then nothing is touched, and another try may."""
        self.answer()
        self.update()
        self.damage()

        async def examine(*_: Any, **__: Any) -> Counts:
            raise BuildFailed("no memory")

        broken = self.make(examine=examine)
        failure = self.failureResultOf(broken.update(self.description), BadState)
        self.assertIn("no memory", str(failure.value))
        self.assertEqual((self.directory / "mine" / "feed.json").read_text(), "{")
        self.failureResultOf(self.downloads.update(self.description), TooEarly)
        self.assertEqual(self.served(), GOOD)

    def test_brought(self) -> None:
        """A file that somebody brings goes through the same."""
        self.answer()
        self.update()
        self.damage()
        file = self.directory / "list"
        file.write_bytes(GOOD[:100])
        self.assertIn("records after 100", self.successResultOf(self.bring(file)).error)
        self.assertEqual(self.served(), GOOD)

    def test_crash(self) -> None:
        """At any step: the provider's interval is kept, and the good copy stays."""
        self.answer()
        self.update()
        for steps in range(12):
            self.damage()
            dying = self.make(disk=DyingDisk(steps))
            with contextlib.suppress(Killed):
                dying.update(self.description).addErrback(lambda why: why.trap(TooEarly, Killed))
            self.failureResultOf(self.downloads.update(self.description), TooEarly)
            self.assertEqual(self.served(), GOOD)


class IntervalTests(DownloadsCase):
    """The provider's interval is law."""

    def test_minimum(self) -> None:
        """Nobody asks earlier, in no process; a failed request counts, too."""
        self.answer(500)
        self.update()
        for process in range(3):
            self.now += 150
            self.downloads = self.make()
            error = self.failureResultOf(self.downloads.update(self.description), TooEarly).value
            assert isinstance(error, TooEarly)
            self.assertEqual(error.secs, 600 - 150 * (process + 1))
        self.now += 150
        self.answer()
        self.update()

    def test_counts_from_before_the_request(self) -> None:
        """Even when the process dies in the middle of it."""
        self.provider.answers = [Deferred()]
        dead = self.downloads.update(self.description)
        self.assertEqual(self.copies.state().tried, NOW)
        dead.cancel()
        self.failureResultOf(dead, CancelledError)

    def test_retry_after(self) -> None:
        """Seconds and dates are followed, with any status, up to a day."""
        for status, value, expected in (
            (429, "1200", 1200.0),
            (509, "7200", 7200.0),
            (503, "Fri, 15 Jan 2027 10:00:00 GMT", 7200.0),
            (429, "99999999", 86400.0),
        ):
            self.answer(status, retry_after=value)
            state = self.update()
            self.assertAlmostEqual(state.not_before - self.now, expected, msg=value)
            self.assertGreaterEqual(state.due, state.not_before)
            self.now += expected - 1
            self.failureResultOf(self.downloads.update(self.description), TooEarly)
            self.now = NOW + 0
            (self.directory / "mine" / "feed.json").unlink()

    def test_phishtank(self) -> None:
        """PhishTank says its interval in a header of its own."""
        headers = {"x-request-limit-interval": "300 Seconds"}
        provider = self.description.provider
        self.assertEqual(wanted_pause_secs(509, headers, provider, now=NOW), 300)
        self.assertIsNone(wanted_pause_secs(500, headers, provider, now=NOW))
        self.assertIsNone(wanted_pause_secs(429, {"retry-after": "soon"}, provider, now=NOW))

    def test_a_clock_that_was_wrong(self) -> None:
        """A state from the future holds nobody up for longer than the interval."""
        self.now = NOW + 10 * 365 * 86400
        self.answer(429, retry_after="1000")
        state = self.update()
        self.now = NOW
        self.assertTrue(is_due(state, self.description.provider, now=NOW))
        self.failureResultOf(self.downloads.update(self.description), TooEarly)
        self.now += 600
        self.failureResultOf(self.downloads.update(self.description), TooEarly)
        self.now = NOW + 86400
        self.answer()
        self.update()

    def test_a_copy_of_the_future(self) -> None:
        """A copy that came while the clock was ahead grows old from when that is noticed."""
        self.answer()
        self.now = NOW + 400 * 86400.0
        self.update()
        self.now = NOW
        self.answer(500)
        self.assertTrue(is_due(self.copies.state(), self.description.provider, now=self.now))
        self.failureResultOf(self.downloads.update(self.description), TooEarly)
        for later in (0.0, 7200.0):
            self.now = NOW + later
            copy = self.copies.state().copy
            assert copy is not None
            self.assertEqual((copy.checked, copy.fetched), (NOW, NOW))
        self.assertTrue(self.update().error)
        copy = self.copies.state().copy
        assert copy is not None
        self.assertEqual(copy.checked, NOW)

    def test_backoff(self) -> None:
        """Twice as long each time, never below the minimum, never above six hours."""
        provider = describe(min_interval_secs=0, every_secs=300).provider
        secs = [
            retry_time(FeedState(failures=failures), provider, now=NOW, chance=0.0) - NOW
            for failures in range(1, 12)
        ]
        self.assertEqual(secs[:8], [60, 120, 240, 480, 960, 1920, 3600, 3600])
        daily = describe(every_secs=86400).provider
        state = FeedState(failures=10_000)
        self.assertEqual(retry_time(state, daily, now=NOW, chance=0.0) - NOW, 6 * 3600)
        self.assertEqual(retry_time(FeedState(failures=1), daily, now=NOW, chance=0.0) - NOW, 600)

    def test_jitter(self) -> None:
        """Never earlier, at most a tenth later."""
        provider = self.description.provider
        self.assertEqual(next_time(provider, now=NOW, chance=0.0), NOW + 3600)
        self.assertEqual(next_time(provider, now=NOW, chance=1.0), NOW + 3960)

    @given(
        st.floats(0, 4e9),
        st.floats(0, 4e9),
        st.floats(0, 4e9),
        st.integers(0, 100),
        st.floats(0, 4e9),
    )
    def test_any_state(
        self, tried: float, not_before: float, due: float, failures: int, now: float
    ) -> None:
        """No state on a disk keeps a feed from being asked for within a day and an interval."""
        provider = self.description.provider
        state = FeedState(tried=tried, not_before=not_before, due=due, failures=failures)
        right = righted(state, now=now)
        wait = wait_secs(right, provider, now=now)
        self.assertLessEqual(wait, 86400)
        self.assertTrue(is_due(right, provider, now=now + wait + 7 * 3600))


class GuardsTests(DownloadsCase):
    """What is not taken."""

    def setUp(self) -> None:
        """A good copy is there."""
        super().setUp()
        self.description = describe(min_rows=10)
        self.answer(etag='"good"')
        self.update()
        self.now += 3600

    def refused(self, body: bytes) -> str:
        """Why a copy is refused; the good one serves on, and this one is kept aside."""
        self.answer(body=body)
        with capturedLogs() as logs:
            state = self.update()
        assert state.refused is not None
        self.assertEqual(self.served(), GOOD)
        self.assertEqual(self.copies.path(state.refused).read_bytes(), body)
        self.assertEqual(state.error, f"its copy is not taken: {state.refused.reason}")
        self.assertEqual(state.due, self.now + 3600)
        self.assertEqual([log["log_level"] for log in logs], [LogLevel.error])
        advised = "ctsd feeds accept mine" in (formatEvent(logs[0]) or "")
        self.assertEqual(advised, bool(state.refused.records))
        self.assertLessEqual(len(self.files()), 2)
        self.now += 3600
        return state.refused.reason

    def test_guards(self) -> None:
        """Each says what was expected."""
        for body, expected in {
            b"": "it is empty",
            b" \r\n": "it is empty",
            b"<!DOCTYPE html><html>Sorry</html>": "it is a page of HTML",
            GOOD[:50]: "5 records; at least 10 are expected (min_rows)",
            b"\n".join(GOOD.splitlines()[:49]): (
                "49 records after 100; at least 50% of them are expected (min_share)"
            ),
            GOOD + b"?\n" * 12: "12 of 112 rows can't be read; up to 10% may (max_refused_share)",
        }.items():
            self.assertEqual(self.refused(body), expected)

    def test_fetched_again(self) -> None:
        """The next request asks for something newer than the good copy, and takes it."""
        self.refused(b"<html>")
        self.answer(body=GOOD * 2)
        state = self.update()
        self.assertEqual(self.provider.asked[-1][1], {"If-None-Match": '"good"'})
        self.assertEqual((state.refused, state.failures, state.error), (None, 0, ""))
        self.assertEqual(self.served(), GOOD * 2)
        self.assertEqual(len(self.files()), 1)

    def test_accept(self) -> None:
        """A refused copy can be taken all the same, once."""
        small = GOOD[: len(GOOD) // 4]
        self.refused(small)
        state = self.successResultOf(self.downloads.accept(self.description))
        self.assertEqual(self.served(), small)
        self.assertEqual((state.refused, state.failures, state.error), (None, 0, ""))
        self.failureResultOf(self.downloads.accept(self.description), LookupError)
        self.assertEqual(self.served(), small)

    def test_secret_in_a_header(self) -> None:
        """A secret that the provider says again does not get to the disk."""
        self.answer(body=GOOD * 2, etag='"for s3cr3t"', last_modified="now")
        state = self.update()
        assert state.copy is not None
        self.assertEqual((state.copy.etag, state.copy.last_modified), ("", "now"))

    def test_accept_what_was_not_looked_at(self) -> None:
        """What is in a copy is known when it is accepted, whatever it was refused for."""
        page = b"<html>\n" + GOOD
        self.refused(page)
        state = self.successResultOf(self.downloads.accept(self.description))
        assert state.copy is not None
        self.assertEqual((state.copy.rows, state.copy.records), (101, 101))
        self.assertEqual(self.served(), page)

    def test_accept_an_empty_list(self) -> None:
        """A list may be empty; what only has rows in it that can't be read is no list."""
        self.refused(b"?html?\n")
        accepting = self.downloads.accept(self.description)
        why = str(self.failureResultOf(accepting, Refused).value)
        self.assertEqual(why, "not one of its 1 rows can be read")
        self.assertEqual(self.served(), GOOD)
        self.refused(b"")
        state = self.successResultOf(self.downloads.accept(self.description))
        assert state.copy is not None
        self.assertEqual((state.copy.records, self.served()), (0, b""))

    def test_accept_what_nobody_can_read(self) -> None:
        """One that can't be searched does not take the good one's place."""
        self.refused(GOOD[:50])
        before = self.copies.state()

        async def fails(
            _: Description, path: Path, *, max_unpacked_bytes: int, **more: Any
        ) -> Counts:
            self.assertEqual(max_unpacked_bytes, self.description.provider.max_unpacked_bytes)
            raise error

        for error in (Refused("it can't be unpacked"), BuildFailed("it was killed")):
            accepting = self.make(examine=fails).accept(self.description)
            self.failureResultOf(accepting, type(error))
            self.assertEqual(self.copies.state(), before)
        self.assertEqual(self.served(), GOOD)

    def test_import(self) -> None:
        """A file that was brought passes the same guards, and is as old as it is."""
        file = self.directory / "brought.txt"
        file.write_bytes(b"<html>")
        before = self.copies.state()
        state = self.successResultOf(self.bring(file))
        assert state.refused is not None
        self.assertEqual(state.refused.reason, "it is a page of HTML")
        self.assertEqual(self.served(), GOOD)
        file.write_bytes(GOOD * 3)
        os.utime(file, (NOW - 1000, NOW - 1000))
        state = self.successResultOf(self.bring(file))
        assert state.copy is not None
        self.assertEqual(self.served(), GOOD * 3)
        self.assertEqual((state.copy.checked, state.copy.url), (NOW - 1000, "brought.txt"))
        self.assertEqual((state.due, state.tried), (before.due, before.tried))
        self.assertTrue(file.exists())

    def test_import_of_the_same(self) -> None:
        """The good copy again is not looked at; it is not older for that."""
        before = self.copies.state().copy
        assert before is not None
        file = self.directory / "brought.txt"
        file.write_bytes(GOOD)
        self.answer(500)
        self.assertTrue(self.update().error)
        self.downloads = self.make(examine=None)
        for dated, checked in ((NOW - 1000, NOW), (NOW + 60, NOW + 60)):
            os.utime(file, (dated, dated))
            state = self.successResultOf(self.bring(file))
            self.assertEqual(state.copy, evolve(before, checked=checked))
            self.assertEqual((state.error, state.failures), ("", 0))
        self.copies.path(before).unlink()
        self.downloads = self.make()
        state = self.successResultOf(self.bring(file))
        assert state.copy is not None
        self.assertEqual((self.served(), state.copy.url), (GOOD, "brought.txt"))

    def test_import_of_too_much(self) -> None:
        """One that is too large even to be kept aside."""
        self.description = describe(max_bytes=10)
        file = self.directory / "brought.txt"
        file.write_bytes(GOOD)
        self.failureResultOf(self.bring(file), Refused)
        self.assertEqual(self.served(), GOOD)

    def test_html(self) -> None:
        """Pages, however they begin; and files that only look like it."""
        for head in (
            b"<html>",
            b"\xef\xbb\xbf\r\n <!doctype HTML>",
            b"<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC>",
            b"<!-- hello\n --><HTML lang=en>",
            b"<script>",
            "\ufeff<html>".encode("utf-16-le"),
        ):
            self.assertRaises(Refused, check_head, head)
        for head in (b"# <html>", b"192.0.2.1", b'{"a": "<html>"}', b"<htmlx>", b"<pre>\n"):
            check_head(head)

    def test_packed(self) -> None:
        """What is in an archive is looked at; a ratio limits what may come out."""
        provider = describe(max_ratio=100.0, max_unpacked_bytes=1 << 30).provider
        self.assertEqual(unpacked_limit(provider, 1000), 16 << 20)
        self.assertEqual(unpacked_limit(provider, 1 << 20), 100 << 20)
        self.assertEqual(unpacked_limit(provider, 1 << 25), 1 << 30)
        file = self.directory / "packed"
        file.write_bytes(gzip.compress(b"<html>"))
        self.assertRaises(Refused, check_file, file, provider)
        file.write_bytes(gzip.compress(GOOD)[:15])
        self.assertRaises(Refused, check_file, file, provider)
        file.write_bytes(gzip.compress(GOOD))
        check_file(file, provider)

    @given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000))
    def test_shares(self, rows: int, refused: int, last: int) -> None:
        """What is taken keeps every promise of the description."""
        provider = describe(min_rows=5, min_share=0.5, max_refused_share=0.1).provider
        refused = min(refused, rows)
        counts = Counts(rows=rows, refused=refused, records=rows - refused)
        copy = Copy(file="", size=0, sha256="", fetched=0, checked=0, records=last)
        good = counts.records >= max(5, last / 2) and refused <= rows / 10
        try:
            check_counts(counts, provider, copy)
        except Refused:
            self.assertFalse(good)
        else:
            self.assertTrue(good)


class Killed(BaseException):
    """Stands for kill -9."""


class DyingDisk(Disk):
    """A disk whose process dies at one of its steps: before it, or with half of it done."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed

    def write(self, path: Path, data: bytes) -> None:
        """Half of the file is there."""
        self.left -= 1
        if self.left < 0:
            path.write_bytes(data[: len(data) // 2])
            raise Killed
        super().write(path, data)

    def rename(self, old: Path, new: Path) -> None:
        """Nothing happens."""
        self._step()
        super().rename(old, new)

    def sync(self, directory: Path) -> None:
        """Nothing happens."""
        self._step()
        super().sync(directory)

    def unlink(self, path: Path) -> None:
        """Nothing happens."""
        self._step()
        super().unlink(path)


class CrashTests(DownloadsCase):
    """A crash at any point leaves a good copy."""

    def crash_everywhere(self, work: Callable[[Downloads], Deferred[Any]]) -> int:
        """Die at each step in turn; between them all is as it was. How many steps there are."""
        before = self.served()
        for steps in range(100):
            self.now += 3600
            downloads = self.make(disk=DyingDisk(steps))
            try:
                result = work(downloads)
            except Killed:
                died = True
            else:
                died = not isinstance(getattr(result, "result", None), FeedState)
                result.addErrback(lambda failure: failure.trap(Killed))
            self.provider.answers.clear()
            # Whatever there is now was good once.
            self.assertIn(self.served(), (before, self.after))
            if not died:
                self.assertEqual(self.served(), self.after)
                return steps
            # The next process goes on from there.
            self.now += 3600
            self.answer(body=before)
            self.update()
            self.assertEqual(self.served(), before)
            self.assertEqual(len(self.files()), 1)
        raise AssertionError("it never came to an end")

    after = GOOD * 2

    def setUp(self) -> None:
        """A good copy is there."""
        super().setUp()
        self.description = describe(min_share=0.1)
        self.answer()
        self.update()

    def test_update(self) -> None:
        """In an update."""

        def work(downloads: Downloads) -> Deferred[Any]:
            self.answer(body=self.after)
            return downloads.update(self.description)

        self.assertGreater(self.crash_everywhere(work), 8)

    def test_bring(self) -> None:
        """In an import."""
        file = self.directory / "brought.txt"
        file.write_bytes(self.after)
        self.assertGreater(
            self.crash_everywhere(
                lambda downloads: downloads.bring(
                    self.description, self.opened(file), name=file.name
                )
            ),
            5,
        )

    def test_accept(self) -> None:
        """When a refused copy is accepted."""
        self.after = GOOD[:11] * 3

        def work(downloads: Downloads) -> Deferred[Any]:
            self.now += 3600
            self.answer(body=self.after)
            self.description = describe(min_rows=50)
            self.update()
            return downloads.accept(self.description)

        self.assertGreater(self.crash_everywhere(work), 3)


class UpdatesTests(DownloadsCase):
    """Feeds are kept current."""

    def setUp(self) -> None:
        """Not started yet."""
        super().setUp()
        self.clock = Clock()
        self.taken: list[tuple[str, int]] = []
        self.updates = self.start()

    def start(self, **more: Any) -> Updates:
        """Another process, so to speak."""
        given: dict[str, Any] = {
            "clock": self.clock,
            "downloads": self.downloads,
            "in_thread": _at_once,
            "now": lambda: self.now,
            "chance": lambda: 0.5,
            "taken": lambda description, copies, copy: self.taken.append(
                (description.name, copy.records)
            ),
        }
        updates = Updates(**{**given, **more})
        updates.replace([self.description])
        return updates

    def advance(self, secs: float) -> None:
        """Both clocks."""
        while secs > 0:
            step = min(secs, LOOK_SECS)
            self.now += step
            self.clock.advance(step)
            secs -= step

    def test_first(self) -> None:
        """A feed that was never had is asked for at once, then when it is due."""
        self.answer()
        self.updates.startService()
        self.assertEqual(self.taken, [("mine", 100)])
        self.advance(3590)
        self.assertEqual(len(self.provider.asked), 1)
        self.answer(body=GOOD * 2)
        self.advance(20)
        self.assertEqual(self.taken, [("mine", 100), ("mine", 200)])
        (one,) = self.updates.progress()
        self.assertEqual((one.name, one.running, one.trouble), ("mine", False, ""))
        self.successResultOf(self.updates.stopService())
        self.advance(10_000)
        self.assertEqual(len(self.provider.asked), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_restart(self) -> None:
        """A copy that is fresh serves at once, and nobody is asked."""
        self.answer()
        self.update()
        self.updates.startService()
        self.assertEqual(self.taken, [("mine", 100)])
        self.advance(3500)
        self.assertEqual(len(self.provider.asked), 1)

    def test_restart_when_it_is_old(self) -> None:
        """One that is not is asked for, within a minute or so."""
        self.answer()
        self.update()
        self.now += 86400
        self.updates.startService()
        self.assertEqual(len(self.provider.asked), 1)
        self.answer(304)
        self.advance(60)
        self.assertEqual(len(self.provider.asked), 2)

    def test_failures(self) -> None:
        """A provider that fails is asked less and less often; the copy serves on."""
        self.answer()
        self.updates.startService()
        self.provider.answers = [OutboundError("its name has no address")] * 50
        self.advance(3610)
        self.assertEqual(self.updates.progress()[0].trouble, "its name has no address")
        self.advance(86400)
        self.assertLess(len(self.provider.asked), 36)
        self.assertGreater(len(self.provider.asked), 20)
        self.assertEqual(self.taken, [("mine", 100)])

    def never_loaded(self, updates: Updates, secs: float) -> list[tuple[str, float]]:
        """Why a feed is said to be not there, and when it is asked for again."""
        with capturedLogs() as logged:
            updates.startService()
            self.advance(secs)
        return [
            (event["reason"], event["secs"])
            for event in logged
            if event["log_level"] is LogLevel.error and "never loaded" in event["log_format"]
        ]

    def test_never_loaded(self) -> None:
        """That a feed was never loaded is told once, at the first failure; at each start again."""
        self.provider.answers = [OutboundError("its name has no address")] * 50
        self.assertEqual(
            self.never_loaded(self.updates, 7200), [("its name has no address", 600.0)]
        )
        self.successResultOf(self.updates.stopService())
        asked = len(self.provider.asked)
        self.assertGreater(asked, 2)
        ((reason, secs),) = self.never_loaded(self.start(), 2)
        self.assertEqual(reason, "its name has no address")
        self.assertGreater(secs, 0)
        self.assertEqual(len(self.provider.asked), asked)

    def test_loaded(self) -> None:
        """While its copy serves, a failure is not told so."""
        self.answer()
        self.update()
        self.now += 86400
        self.provider.answers = [OutboundError("its name has no address")] * 50
        self.assertEqual(self.never_loaded(self.updates, 7200), [])

    def test_now(self) -> None:
        """One can have it now, but not earlier than its provider allows, nor twice at once."""
        self.answer()
        self.updates.startService()
        self.failureResultOf(self.updates.update("mine"), TooEarly)
        self.advance(600)
        waiting: Deferred[Any] = Deferred()
        self.provider.answers = [waiting]
        running = self.updates.update("mine")
        self.assertTrue(self.updates.progress()[0].running)
        self.failureResultOf(self.updates.update("mine"), Busy)
        waiting.callback(Download(status=304))
        self.assertEqual(self.successResultOf(running).error, "")
        self.assertRaises(LookupError, self.updates.update, "other")

    def test_two_processes(self) -> None:
        """A feed is asked for by one of them."""
        self.description = describe(min_interval_secs=0)
        others = self.start()
        self.updates = self.start()
        self.answer()
        self.updates.startService()
        others.startService()
        self.assertEqual(self.taken, [("mine", 100)] * 2)
        self.answer(304)
        self.advance(3630)
        self.assertEqual(len(self.provider.asked), 2)

    def test_two_nodes(self) -> None:
        """While another node has the lease, nobody is asked; its copy is taken."""
        shared = Shared(self.clock)

        def turns(holder: str) -> Turns:
            return Turns(shared=shared, holder=holder, clock=self.clock)  # type: ignore[arg-type]

        others = self.start(turns=turns("other"))
        self.updates = self.start(turns=turns("one"))
        waiting: Deferred[Any] = Deferred()
        self.provider.answers = [waiting]
        others.startService()
        self.updates.startService()
        self.advance(30)
        self.assertEqual(len(self.provider.asked), 1)
        waiting.errback(OutboundError("its name has no address"))
        self.answer()
        self.advance(620)
        self.assertEqual(len(self.provider.asked), 2)
        self.assertEqual(self.taken, [("mine", 100)] * 2)
        self.assertGreater(self.updates.progress()[0].state.token, 0)

    def test_no_store(self) -> None:
        """Without the store nobody knows who may."""
        shared = Shared(self.clock)
        shared.broken = lambda: fail(StoreError("away"))
        turns = Turns(shared=shared, holder="one", clock=self.clock)  # type: ignore[arg-type]
        self.updates = self.start(turns=turns)
        self.updates.startService()
        self.assertIn("the store is away", self.updates.progress()[0].trouble)
        shared.broken = None
        self.answer()
        self.advance(FAULT_SECS + LOOK_SECS)
        self.assertEqual(self.taken, [("mine", 100)])

    def test_by_another_process(self) -> None:
        """What a command does to the directory is noticed."""
        self.answer()
        self.updates.startService()
        file = self.directory / "brought.txt"
        file.write_bytes(GOOD * 2)
        self.successResultOf(self.make().bring(self.description, self.opened(file), name=file.name))
        self.advance(LOOK_SECS)
        self.assertEqual(self.taken[-1], ("mine", 200))

    def test_bad_state(self) -> None:
        """It is told, once, and nobody is asked until it is put right."""
        file = self.directory / "mine" / "feed.json"
        file.mkdir(parents=True)
        with capturedLogs() as logs:
            self.updates.startService()
            self.advance(100)
        self.assertEqual(len(logs), 1)
        self.assertIn("feed.json", self.updates.progress()[0].trouble)
        file.rmdir()
        self.answer()
        self.advance(LOOK_SECS)
        self.assertEqual(self.updates.progress()[0].trouble, "")
        self.assertEqual(self.taken, [("mine", 100)])

    def test_broken_state(self) -> None:
        """It is begun anew at once; the provider is asked when its interval is over."""
        self.answer()
        self.updates.startService()
        file = self.directory / "mine" / "feed.json"
        self.advance(1000)
        file.write_text("{")
        os.utime(file, (self.now, self.now))
        self.advance(LOOK_SECS)
        self.assertEqual(self.updates.progress()[0].trouble, "")
        self.assertIsNotNone(Copies(file.parent).state().copy)
        self.advance(500)
        self.assertEqual(len(self.provider.asked), 1)
        self.answer(body=GOOD * 2)
        self.advance(500)
        self.assertEqual(len(self.provider.asked), 2)
        self.assertEqual(self.taken[-1], ("mine", 200))

    def test_no_directory(self) -> None:
        """One that can't be read is told, and looked at again."""
        self.directory.write_text("a file")
        with capturedLogs() as logs:
            self.updates.startService()
            self.advance(100)
        self.assertEqual(len(logs), 1)
        self.assertIn("Not a directory", self.updates.progress()[0].trouble)
        self.directory.unlink()
        self.answer()
        self.advance(LOOK_SECS)
        self.assertEqual(self.taken, [("mine", 100)])

    def test_full_disk(self) -> None:
        """One that takes nothing is told, and tried again later."""

        class Full(Disk):
            full = True

            def write(self, path: Path, data: bytes) -> None:
                if self.full:
                    raise OSError(errno.ENOSPC, "No space left on device")
                super().write(path, data)

        disk = Full()
        self.downloads = self.make(disk=disk)
        self.updates = self.start()
        self.updates.startService()
        self.assertIn("No space left", self.updates.progress()[0].trouble)
        disk.full = False
        self.answer()
        self.advance(FAULT_SECS - LOOK_SECS)
        self.assertEqual(self.taken, [])
        self.advance(2 * LOOK_SECS)
        self.assertEqual(self.taken, [("mine", 100)])
        self.assertEqual(self.updates.progress()[0].trouble, "")

    def test_fault(self) -> None:
        """A fault of ours is logged, and does not end the others."""

        async def broken(*_: Any, **__: Any) -> Counts:
            raise ZeroDivisionError

        self.downloads = self.make(examine=broken)
        self.updates = self.start()
        self.answer()
        self.updates.startService()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn("a fault of ctsd", self.updates.progress()[0].trouble)

    def test_replace(self) -> None:
        """Feeds that are off, or files of ours, are not asked for; what runs is given up."""
        waiting: Deferred[Any] = Deferred()
        self.provider.answers = [waiting]
        self.updates.startService()
        self.assertEqual(len(self.provider.asked), 1)
        lines = {"format": "lines", "indicators": [{"field": "line", "type": "net.ip"}]}
        file = read_description(
            "file", {**lines, "file": "/srv/list.txt"}, Document(name="x", base_dir=Path("/"))
        )
        off = [describe(enabled=False), file]
        self.updates.replace(off)
        self.assertEqual(self.updates.progress(), [])
        self.assertTrue(waiting.called)
        self.answer()
        self.updates.replace([describe("other")])
        self.assertEqual(self.taken, [("other", 100)])

    def test_stop(self) -> None:
        """The end waits for what it has given up."""
        self.provider.answers = [Deferred()]
        self.updates.startService()
        self.successResultOf(self.updates.stopService())
        self.assertFalse(self.updates.progress()[0].running)
        lock = self.downloads.copies("mine").lock()
        lock.release()


class CopiesTests(DownloadsCase):
    """The directory."""

    def test_unknown_keys(self) -> None:
        """A state of a newer version is read."""
        (self.directory / "mine").mkdir(parents=True)
        (self.directory / "mine" / "feed.json").write_text('{"tried": 5.0, "colour": "red"}')
        self.assertEqual(self.copies.state(), FeedState(tried=5.0))

    def test_modes(self) -> None:
        """Nobody else reads what is there."""
        self.answer()
        self.update()
        self.assertEqual((self.directory / "mine").stat().st_mode & 0o777, 0o700)
        self.assertEqual((self.directory / "mine" / "feed.json").stat().st_mode & 0o777, 0o600)

    def test_a_file_that_is_gone(self) -> None:
        """A refused copy whose file somebody removed can't be accepted."""
        self.answer()
        self.update()
        self.now += 3600
        self.answer(body=b"<html>")
        state = self.update()
        assert state.refused is not None
        self.copies.path(state.refused).unlink()
        self.failureResultOf(self.downloads.accept(self.description), LookupError)
        self.assertEqual(self.copies.state(), evolve(state))
