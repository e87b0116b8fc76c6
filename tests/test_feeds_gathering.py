"""Feeds that are not one file, without a network."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ctsd.config.loading import load
from ctsd.errors import OutboundError, Unreached
from ctsd.feeds import gathering, misp_archive
from ctsd.feeds.descriptions import read_description
from ctsd.feeds.envelope import Gathered
from ctsd.feeds.gathering import Gathering
from ctsd.feeds.parsers.parse import parse
from ctsd.feeds.parsers.tally import Tally
from ctsd.interfaces.outbound import IOutbound
from ctsd.remote import Download, Remote, Reply

ONE = "5a5e3c33-f1a0-4b1f-9d0a-000000000001"
TWO = "5a5e3c33-f1a0-4b1f-9d0a-000000000002"

NOW = 1_800_000_000.0
ADDED = "2026-01-01T12:00:00.5Z"
SINCE = "?added_after=2026-01-01T11:00:00.500000Z"


def _at_once(function: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
    try:
        return succeed(function(*args, **kwargs))
    except BaseException:
        return fail()


@implementer(IOutbound)
class Server:
    """
    Answers by address and parameters.

    :ivar says: status, body and more headers, or less of it, by C{url?name=value}; of a list, one
        after the other.
    """

    def __init__(self, clock: Clock) -> None:
        self.says: dict[str, Any] = {}
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        self.conditions: list[dict[str, str]] = []
        self.secs = 0.0
        self._clock = clock

    def request(
        self, *, remote: Remote, headers: Any, params: Any, max_bytes: int, total_secs: float
    ) -> Any:
        """Answer."""
        url = remote.url
        if params:
            url += "?" + "&".join(f"{name}={value}" for name, value in params.items())
        self.asked.append(url)
        self.conditions.append(dict(headers))
        self._clock.advance(min(self.secs, total_secs))
        said = self.says.get(url, (404, b""))
        if isinstance(said, list):
            said = said.pop(0)
        if isinstance(said, Exception):
            return fail(said)
        status, body, *more = said if isinstance(said, tuple) else (200, said)
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        headers = {**self.headers, **(more[0] if more else {})}
        return succeed(Reply(status=status, headers=headers, url=remote.shown, body=body))

    def download(self, **_: Any) -> Any:
        """Not asked."""
        raise NotImplementedError


def _at(event: tuple[float, Any]) -> float:
    return event[0]


class GatheringCase(SynchronousTestCase):
    """A server, and a file to write."""

    def setUp(self) -> None:
        """Nothing is there yet."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.into = self.directory / "new.part"
        self.clock = Clock()
        self.server = Server(self.clock)
        self.gathering = Gathering(
            outbound=self.server, clock=self.clock, in_thread=_at_once, total_secs=100.0
        )

    def found(self, work: Any) -> Download:
        """What came of it; its size and digest are those of the file."""
        answer: Download = self.successResultOf(Deferred.fromCoroutine(work))
        if answer.status == 200:
            data = self.into.read_bytes()
            self.assertEqual(
                (answer.size, answer.sha256), (len(data), hashlib.sha256(data).hexdigest())
            )
        else:
            self.assertFalse(self.into.exists())
        return answer

    def refused(self, work: Any) -> str:
        """Why it failed; no file is left."""
        failure = self.failureResultOf(Deferred.fromCoroutine(work), OutboundError)
        self.assertFalse(self.into.exists())
        return str(failure.value)


class TaxiiTests(GatheringCase):
    """Collections of TAXII 2.1."""

    url = "https://taxii.example/api/collections/9/"
    objects = url + "objects/"

    def taxii(self, max_bytes: int = 1 << 20, **more: Any) -> Any:
        """Fetch it."""
        return self.gathering.taxii(
            Remote(url=self.url), self.into, max_bytes=max_bytes, now=NOW, **more
        )

    def page(self, *names: str, **more: Any) -> dict[str, Any]:
        """An envelope."""
        return {"objects": [{"type": "indicator", "id": name} for name in names], **more}

    def test_pages(self) -> None:
        """All pages become one envelope."""
        self.server.says = {
            self.objects: self.page("a", "b", more=True, next="2"),
            self.objects + "?next=2": {"more": True, "next": "3"},
            self.objects + "?next=3": self.page("c"),
        }
        self.assertEqual(self.found(self.taxii()).status, 200)
        envelope = json.loads(self.into.read_bytes())
        self.assertEqual([one["id"] for one in envelope["objects"]], ["a", "b", "c"])
        self.assertEqual(self.server.asked[0], self.objects)
        self.assertEqual(
            self.server.conditions[0], {"Accept": "application/taxii+json;version=2.1"}
        )

    def test_unreached(self) -> None:
        """Only a server that has not answered yet has not been troubled."""
        self.server.says = {self.objects: Unreached("its name has no address")}
        error = self.failureResultOf(Deferred.fromCoroutine(self.taxii()), OutboundError).value
        self.assertIsInstance(error, Unreached)
        self.server.says = {
            self.objects: self.page("a", more=True, next="2"),
            self.objects + "?next=2": Unreached("its name has no address"),
        }
        error = self.failureResultOf(Deferred.fromCoroutine(self.taxii()), OutboundError).value
        self.assertNotIsInstance(error, Unreached)

    def ids(self) -> list[str]:
        """Of what was written."""
        return [one["id"] for one in json.loads(self.into.read_bytes())["objects"]]

    def test_medallion(self) -> None:
        """
        As medallion 3.0.0 has it (OASIS' own server): one C{next} for all pages, and none without
        a C{limit}, which it answers with a 500; after a restart, or 30 s, it knows it no more.
        """
        of_next = self.objects + "?limit=2&next=a0c5"
        self.server.says = {
            self.objects + "?limit=2": self.page("a", "b", more=True, next="a0c5"),
            of_next: [
                self.page("c", "d", more=True, next="a0c5"),
                self.page("e", "f", more=True, next="a0c5"),
                self.page("g", more=False),
            ],
            self.objects + "?next=a0c5": (500, b"<!doctype html>"),
        }
        self.found(self.taxii(page_objects=2))
        self.assertEqual(self.ids(), list("abcdefg"))
        self.into.unlink()
        wrong = {
            "description": "The server did not understand the request or filter parameters: "
            "'next' not valid.",
            "http_status": "400",
            "title": "ProcessingError",
        }
        self.server.says[of_next] = [self.page("c", "d", more=True, next="a0c5"), (400, wrong)]
        self.assertEqual(
            self.refused(self.taxii(page_objects=2)), "it no longer knows its own next page (400)"
        )

    def test_opentaxii(self) -> None:
        """
        As OpenTAXII 0.9.3 has it: C{added_after} has to have a fraction, else it is a 400, and a
        further page is asked for with the same C{limit}.
        """
        self.server.says = {
            self.objects + "?limit=1": (
                200,
                self.page("a", more=True, next="MjAy"),
                {"x-taxii-date-added-last": "2026-11-24T18:52:33.719851Z"},
            ),
            self.objects + "?limit=1&next=MjAy": (
                200,
                self.page("b", more=False),
                {"x-taxii-date-added-last": "2026-11-24T18:52:35Z"},
            ),
        }
        tag = self.found(self.taxii(page_objects=1)).headers["etag"]
        self.assertEqual(Gathered.of_tag(tag).since, "2026-11-24T17:52:35.000000Z")

    def test_as_servers_write_it(self) -> None:
        """A number for C{next}, null for what is not there, an offset for UTC; a STIX bundle."""
        self.server.says = {
            self.objects: (
                200,
                {**self.page("a"), "more": True, "next": 50},
                {"x-taxii-date-added-last": "2024-01-17T17:11:20.183201+01:00"},
            ),
            self.objects + "?next=50": {"objects": None, "more": None, "next": None},
        }
        tag = self.found(self.taxii()).headers["etag"]
        self.assertEqual(self.ids(), ["a"])
        self.assertEqual(Gathered.of_tag(tag).added, "2024-01-17T16:11:20.183201Z")
        self.into.unlink()
        self.server.says = {self.objects: self.page("a", type="bundle", id="bundle--1")}
        self.found(self.taxii())
        self.assertEqual(self.ids(), ["a"])

    def test_something_else(self) -> None:
        """What is no envelope is not taken for an empty one."""
        for body in (
            b"[]",
            b"<html>",
            {"title": "ProcessingError", "http_status": "500"},
            {"collections": []},
        ):
            self.server.says = {self.objects: body}
            self.assertEqual(self.refused(self.taxii()), "its answer is no envelope of TAXII 2.1")

    @given(
        st.lists(st.integers(0, 3), min_size=1, max_size=30),
        st.integers(1, 6),
        st.sampled_from((1, 10_000)),
    )
    def test_all_by_date(self, gaps: list[int], size: int, digits: int) -> None:
        """
        By dates all objects come, each once, whatever were added at one time and however many
        digits their server tells; or it is told that they can't.
        """
        self.into.unlink(missing_ok=True)
        moments = [sum(gaps[: number + 1]) * 2_000 for number in range(len(gaps))]

        def written(moment: int) -> str:
            return f"2026-01-01T00:00:00.{moment:06}Z"

        class ByDate(Server):
            """Pages of so many objects, added after so many microseconds."""

            def request(self, *, params: Any, **given: Any) -> Any:
                """Answer."""
                asked = params["added_after"] if params else ""
                after = int(asked[20:26]) if "T00:00:00" in asked else -1
                there = [number for number, at in enumerate(moments) if at > after]
                page = {"objects": [{"id": str(n)} for n in there[:size]]}
                more = {"more": True} if len(there) > size else {}
                last = moments[there[:size][-1]] // digits * digits if there else 0
                body = json.dumps({**page, **more}).encode()
                headers = {"x-taxii-date-added-last": written(last)}
                return succeed(Reply(status=200, headers=headers, url="", body=body))

        self.gathering = Gathering(
            outbound=ByDate(self.clock), clock=self.clock, in_thread=_at_once, total_secs=100.0
        )
        work = Deferred.fromCoroutine(self.taxii())
        if isinstance(getattr(work, "result", None), Download):
            self.assertEqual(self.ids(), [str(number) for number in range(len(moments))])
        else:
            failure = self.failureResultOf(work, OutboundError)
            self.assertIn("page_objects has to be larger", str(failure.value))
            near = [sum(at - 1_000 - digits <= each <= at for each in moments) for at in moments]
            self.assertGreaterEqual(max(near), size)

    def test_empty(self) -> None:
        """A collection without objects."""
        self.server.says = {self.objects: {}}
        self.found(self.taxii())
        self.assertEqual(json.loads(self.into.read_bytes()), {"objects": []})

    def test_by_date(self) -> None:
        """A server that has no C{next} goes by dates."""
        self.server.headers = {"x-taxii-date-added-last": "2026-01-01T00:00:00Z"}
        self.server.says = {
            self.objects: self.page("a", more=True),
            self.objects + "?added_after=2025-12-31T23:59:59.999000Z": self.page(
                "a", "b", next=None
            ),
        }
        self.found(self.taxii())
        self.assertEqual(self.ids(), ["a", "b"])
        self.server.headers = {}
        self.into.unlink()
        self.assertIn("does not say how", self.refused(self.taxii()))

    def test_circle(self) -> None:
        """Pages without an end."""
        self.server.says = {
            self.objects: self.page("a", more=True, next="2"),
            self.objects + "?next=2": self.page("b", more=True, next="2"),
        }
        self.assertEqual(self.refused(self.taxii()), "its pages lead in a circle")
        self.server.says = {
            self.objects: self.page("a", more=True, next="2"),
            self.objects + "?next=2": self.page("b", more=True, next="3"),
            self.objects + "?next=3": self.page("c", more=True, next="2"),
        }
        self.assertEqual(self.refused(self.taxii()), "its pages lead in a circle")
        self.server.headers = {"x-taxii-date-added-last": "2026-01-01T00:00:00Z"}
        self.server.says = {
            self.objects: self.page("a", more=True),
            self.objects + "?added_after=2025-12-31T23:59:59.999000Z": self.page("a", more=True),
        }
        self.assertIn("page_objects has to be larger", self.refused(self.taxii()))

    def test_too_many(self) -> None:
        """More pages, or more bytes, than there may be."""
        self.patch(gathering, "MAX_PARTS", 2)
        self.server.says = {
            self.objects: self.page("a", more=True, next="2"),
            self.objects + "?next=2": self.page("b", more=True, next="3"),
        }
        self.assertEqual(self.refused(self.taxii()), "it has more than 2 pages")
        self.assertEqual(self.refused(self.taxii(40)), "it is larger than 40 bytes")

    def test_slow(self) -> None:
        """All pages together have one limit."""
        self.server.secs = 60.0
        self.server.says = {
            self.objects: self.page("a", more=True, next="2"),
            self.objects + "?next=2": self.page("b", more=True, next="3"),
        }
        self.assertEqual(self.refused(self.taxii()), "not all of it within 100 s")

    def test_statuses(self) -> None:
        """Of any page."""
        self.server.says = {self.objects: (401, b"")}
        self.assertEqual(self.found(self.taxii()).status, 401)
        self.server.says = {
            self.objects: self.page("a", more=True, next="2"),
            self.objects + "?next=2": (429, b""),
        }
        self.assertEqual(self.found(self.taxii()).status, 429)

    def discovered(self) -> None:
        """An API root with this collection."""
        there = {"id": "9", "title": "Ours", "can_read": True}
        self.server.says = {
            "https://taxii.example/api/": {"title": "T", "versions": []},
            "https://taxii.example/api/collections/": {"collections": [there]},
            self.objects: self.page("a"),
        }

    def in_root(self, collection: str = "", **more: Any) -> Any:
        """Fetch it by its API root."""
        return self.gathering.taxii(
            Remote(url="https://taxii.example/api"),
            self.into,
            max_bytes=1 << 20,
            now=NOW,
            collection=collection,
            **more,
        )

    def test_by_its_name(self) -> None:
        """A collection is found by an API root, each time."""
        self.discovered()
        self.found(self.in_root("ours"))
        self.assertEqual(self.ids(), ["a"])
        self.assertEqual(
            [one["Accept"] for one in self.server.conditions],
            ["application/taxii+json;version=2.1"] * 3,
        )

    def test_not_found(self) -> None:
        """The answer of a server that does not say where a collection is; what it means."""
        self.discovered()
        for status in (401, 429, 503):
            self.server.says["https://taxii.example/api/"] = (status, b"", {"retry-after": "9"})
            answer = self.found(self.in_root("ours"))
            self.assertEqual((answer.status, answer.headers["retry-after"]), (status, "9"))
        self.server.says["https://taxii.example/api/"] = (406, b"")
        self.assertEqual(self.refused(self.in_root("ours")), "it does not speak TAXII 2.1 (406)")
        self.discovered()
        self.server.says[self.objects] = Unreached("its name has no address")
        error = self.failureResultOf(Deferred.fromCoroutine(self.in_root("ours")), OutboundError)
        self.assertNotIsInstance(error.value, Unreached)

    def test_no_name(self) -> None:
        """Where C{url} is not a collection's, it is told which there are."""
        self.discovered()
        # OpenTAXII 0.9.3 answers 500.
        for status in (404, 500):
            self.server.says["https://taxii.example/api/objects/"] = (status, b"")
            self.assertEqual(
                self.refused(self.in_root()),
                "url is not a collection's, say which by collection: there are: Ours (9)",
            )

    def test_meant(self) -> None:
        """Statuses that say what is wrong."""
        for status, told in (
            (400, "it may want another page_objects"),
            (403, "this user may not read the collection"),
            (404, "there is no such collection, or this user may not read it"),
            (406, "it does not speak TAXII 2.1"),
        ):
            self.server.says = {self.objects: (status, b"")}
            self.assertIn(told, self.refused(self.taxii()))

    def test_another_collection(self) -> None:
        """What is there of one collection is not taken for a part of another."""
        self.discovered()
        self.server.headers = {"x-taxii-date-added-last": ADDED}
        tag = self.found(self.in_root("ours")).headers["etag"]
        before = self.into.rename(self.directory / "before")
        given = {"before": before, "tag": tag, "whole_every_secs": 86400.0}
        self.server.says[self.objects + SINCE] = self.page("b")
        self.found(self.in_root("ours", **given))
        self.assertEqual(self.ids(), ["a", "b"])
        self.into.unlink()
        other = self.url.replace("/9/", "/8/")
        self.server.says[other + "objects/"] = self.page("c")
        self.found(
            self.gathering.taxii(Remote(url=other), self.into, max_bytes=1 << 20, now=NOW, **given)
        )
        self.assertEqual(self.ids(), ["c"])

    def fetch(self, since: str, answer: Any, secs: float = 0.0, **headers: str) -> list[Any]:
        """
        Fetch it a first time, and once more after so many seconds; the objects that there are then.

        :param since: what the second request asks for; empty: all of it.
        :param answer: the server's to that.
        """
        self.server.says = {self.objects: self.first}
        self.server.headers = {"x-taxii-date-added-last": self.added}
        tag = self.found(self.taxii()).headers["etag"]
        before = self.into.rename(self.directory / "before")
        self.server.says[self.objects + since] = answer
        for params, said in self.more.items():
            self.server.says[self.objects + params] = said
        self.server.headers = headers
        self.server.asked.clear()
        given = {"before": before, "tag": tag, "whole_every_secs": 86400.0}
        work = self.gathering.taxii(
            Remote(url=self.url), self.into, max_bytes=1 << 20, **{**given, "now": NOW + secs}
        )
        self.tag = self.found(work).headers["etag"]
        self.assertEqual(self.server.asked[0], self.objects + since)
        data = self.into.read_bytes()
        self.is_same = data == before.read_bytes()
        self.into.unlink()
        self.assertEqual([one.name for one in self.directory.iterdir()], ["before"])
        objects: list[Any] = json.loads(data)["objects"]
        return objects

    def known(self) -> tuple[float, str]:
        """When all was fetched, and when the last was added."""
        known = Gathered.of_tag(self.tag)
        return known.whole, known.added

    added = ADDED
    more: dict[str, Any] = {}
    first: Any = {"objects": [{"id": "a", "v": 1}, {"id": "b", "v": 1}, {"v": "nameless"}]}

    def test_since(self) -> None:
        """What was added or changed replaces what was there, as if all had been fetched anew."""
        new = {"objects": [{"id": "c"}, {"id": "a", "v": 2, "revoked": True}]}
        objects = self.fetch(SINCE, new, **{"x-taxii-date-added-last": ADDED.replace("12:", "13:")})
        self.assertEqual(
            objects,
            [
                {"id": "b", "v": 1},
                {"v": "nameless"},
                {"id": "c"},
                {"id": "a", "v": 2, "revoked": True},
            ],
        )
        self.assertEqual(self.known(), (NOW, "2026-01-01T13:00:00.500000Z"))

    def test_since_pages(self) -> None:
        """Further pages are asked for with the same question."""
        self.more = {SINCE + "&next=2": {"objects": [{"id": "d"}]}}
        objects = self.fetch(SINCE, {"objects": [{"id": "a"}], "more": True, "next": "2"})
        self.assertEqual([one.get("id") for one in objects], ["b", None, "a", "d"])

    def test_nothing_new(self) -> None:
        """When nothing was added the file is the same, to the byte; what is known stays."""
        for headers in ({}, {"x-taxii-date-added-last": "undefined"}):
            self.assertEqual(self.fetch(SINCE, {}, 3600.0, **headers), self.first["objects"])
            self.assertTrue(self.is_same)
            self.assertEqual(self.known(), (NOW, "2026-01-01T12:00:00.500000Z"))
        self.first = {"objects": [{"id": "a", "v": 1}, {"id": "b", "v": 1}]}
        again = {"objects": [{"id": "b", "v": 1}]}
        self.assertEqual(self.fetch(SINCE, again), self.first["objects"])
        self.assertTrue(self.is_same)

    @given(
        st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 50)), min_size=1, max_size=12),
        st.data(),
    )
    def test_same_as_whole(self, given: list[tuple[str, int]], data: st.DataObject) -> None:
        """Whatever is added and changed: the file is what fetching all of it would give."""
        self.into.unlink(missing_ok=True)
        # Each id, when it was added after the one before (minutes), and which version it is.
        events, minutes = [], 0
        for version, (name, later) in enumerate(given):
            minutes += later
            events.append((minutes, {"id": name, "v": version}))
        cut = data.draw(st.integers(1, len(events)))

        def there(count: int, since: float = -1.0) -> dict[str, Any]:
            newest = {one["id"]: (at, one) for at, one in events[:count]}
            return {"objects": [one for at, one in sorted(newest.values(), key=_at) if at > since]}

        def added(at: float) -> str:
            return f"2026-01-{1 + int(at) // 1440:02}T{int(at) // 60 % 24:02}:{int(at) % 60:02}:00Z"

        self.server.says = {self.objects: there(cut)}
        self.server.headers = {"x-taxii-date-added-last": added(events[cut - 1][0])}
        tag = self.found(self.taxii()).headers["etag"]
        before = self.into.rename(self.directory / "before")
        known = Gathered.of_tag(tag)
        since = events[cut - 1][0] - 60
        self.server.says = {
            f"{self.objects}?added_after={known.since}": there(len(events), since),
        }
        self.found(self.taxii(before=before, tag=tag, whole_every_secs=1.0))
        found = self.into.read_bytes()
        self.into.unlink()
        self.server.says = {self.objects: there(len(events))}
        self.found(self.taxii())
        self.assertEqual(found, self.into.read_bytes())

    def test_whole_again(self) -> None:
        """All of it is fetched when it is time, and when nobody knows since when to ask."""
        self.assertEqual(self.fetch("", {"objects": [{"id": "c"}]}, 86400.0), [{"id": "c"}])
        self.assertEqual(self.known(), (NOW + 86400.0, ""))
        self.assertEqual(self.fetch("", {"objects": [{"id": "c"}]}, -1.0), [{"id": "c"}])
        for added in ("undefined", "Thu Feb 20 2020 22:10:20 GMT+0000", "2026-99-01T12:00:00Z"):
            self.added = added
            self.assertEqual(self.fetch("", {"objects": [{"id": "c"}]}), [{"id": "c"}])

    def test_since_is_not_known(self) -> None:
        """A server that does not take the question is asked for all; other failures are told."""
        for status in (400, 404):
            objects = self.fetch(SINCE, (status, b""))
            self.assertEqual(objects, self.first["objects"])
            self.assertEqual(len(self.server.asked), 2)

    @given(
        st.one_of(
            st.binary(),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            ).map(lambda value: json.dumps(value).encode()),
        )
    )
    def test_anything(self, body: bytes) -> None:
        """Whatever comes is an envelope or none."""
        self.into.unlink(missing_ok=True)
        self.server.says = {self.objects: body}
        work = Deferred.fromCoroutine(self.taxii())
        if not isinstance(getattr(work, "result", None), Download):
            self.failureResultOf(work, OutboundError)


class MispTests(GatheringCase):
    """MISP feeds."""

    url = "https://misp.example/feed"

    def setUp(self) -> None:
        """Two events."""
        super().setUp()
        self.server.headers = {"etag": '"m"'}
        self.manifest({ONE: 100, TWO: "200"})
        for uuid in (ONE, TWO):
            self.server.says[f"{self.url}/{uuid}.json"] = {"Event": {"uuid": uuid}}

    def manifest(self, events: dict[str, Any]) -> None:
        """Have it list these."""
        self.server.says[f"{self.url}/manifest.json"] = {
            uuid: {"timestamp": timestamp, "info": "x"} for uuid, timestamp in events.items()
        }

    def misp(self, before: Path | None = None, max_bytes: int = 1 << 20) -> Any:
        """Fetch it."""
        return self.gathering.misp(
            Remote(url=self.url + "/"),
            self.into,
            max_bytes=max_bytes,
            headers={"If-None-Match": '"l"'},
            before=before,
        )

    def events(self) -> dict[str, Any]:
        """What is in the archive."""
        with zipfile.ZipFile(self.into) as archive:
            self.assertIsNone(archive.testzip())
            return {name: json.loads(archive.read(name)) for name in archive.namelist()}

    def test_whole(self) -> None:
        """Every event is a file; the conditions are the manifest's."""
        answer = self.found(self.misp())
        self.assertEqual(answer.headers["etag"], '"m"')
        self.assertEqual(
            self.events(), {f"{uuid}.json": {"Event": {"uuid": uuid}} for uuid in (ONE, TWO)}
        )
        self.assertEqual(self.server.conditions, [{"If-None-Match": '"l"'}, {}, {}])

    def test_changes(self) -> None:
        """What has not changed is not fetched again; what is gone goes."""
        self.found(self.misp())
        before = self.directory / "before"
        self.into.rename(before)
        self.server.asked.clear()
        third = ONE[:-1] + "3"
        self.manifest({ONE: 101, third: 300})
        self.server.says[f"{self.url}/{ONE}.json"] = {"Event": "new"}
        self.server.says[f"{self.url}/{third}.json"] = {"Event": "third"}
        self.found(self.misp(before))
        self.assertEqual(
            self.events(), {f"{ONE}.json": {"Event": "new"}, f"{third}.json": {"Event": "third"}}
        )
        self.into.rename(before)
        self.server.asked.clear()
        self.found(self.misp(before))
        self.assertEqual(self.server.asked, [f"{self.url}/manifest.json"])
        self.assertEqual(len(self.events()), 2)

    def test_before_is_none(self) -> None:
        """What was there before and is no archive, or a broken one, is fetched anew."""
        self.found(self.misp())
        before = self.directory / "before"
        data = bytearray(self.into.read_bytes())
        self.into.unlink()
        for broken in (b"no zip", bytes(data[:-30]), bytes(data).replace(b"Event", b"tnevE")):
            before.write_bytes(broken)
            self.found(self.misp(before))
            self.assertEqual(len(self.events()), 2)
            self.into.unlink()

    def test_statuses(self) -> None:
        """Of the manifest they are the answer, but for none at all; an event may be gone."""
        self.server.says[f"{self.url}/manifest.json"] = (304, b"")
        self.assertEqual(self.found(self.misp()).status, 304)
        del self.server.says[f"{self.url}/manifest.json"]
        self.assertIn("no manifest.json (404)", self.refused(self.misp()))
        self.manifest({ONE: 100, TWO: 200})
        self.server.says[f"{self.url}/{TWO}.json"] = (500, b"")
        self.assertEqual(self.refused(self.misp()), f"it answered 500 for event {TWO}")

    def refusals(self) -> tuple[int, int]:
        """How many rows a parser makes of what was written, and how many of these it refuses."""
        toml = f'url = "{self.url}"\nformat = "misp"\n'
        (self.directory / "ctsd.toml").write_text(f"[feeds.misp]\n{toml}")
        settings = load(self.directory / "ctsd.toml", environ={})
        description = read_description("misp", settings.feeds["misp"], settings.document)
        tally = Tally()
        layout = description.layout
        records = parse(self.into, layout, title="", now=0.0, max_bytes=1 << 20, tally=tally)
        self.assertEqual(len(list(records)), tally.records)
        return tally.rows, tally.bad

    def test_left_out(self) -> None:
        """
        An event that is gone, or none, is left out; guards see that it is refused, and it is asked
        for again the next time.
        """
        good = {"uuid": ONE, "Attribute": [{"type": "ip-dst", "value": "8.8.8.8"}]}
        self.server.says[f"{self.url}/{ONE}.json"] = {"Event": good}
        two = f"{self.url}/{TWO}.json"
        for body in ((404, b""), b"<html>", b'{"Event": {', b"{}", b'{"Event": "\xff"}', b""):
            self.server.says[two] = body
            self.found(self.misp())
            self.assertEqual(
                self.events(), {f"{ONE}.json": {"Event": good}, "refused/0.json": {"Event": None}}
            )
            self.assertEqual(self.refusals(), (2, 1))
            before = self.into.rename(self.directory / "before")
            self.server.asked.clear()
            self.server.says[two] = {"Event": {"uuid": TWO}}
            self.found(self.misp(before))
            self.assertEqual(self.server.asked, [f"{self.url}/manifest.json", two])
            self.assertEqual(set(self.events()), {f"{ONE}.json", f"{TWO}.json"})
            self.into.unlink()
        self.server.says[two] = (404, b"")
        self.manifest({TWO: 1})
        self.assertIn("none of the events", self.refused(self.misp()))

    def test_bad_entries(self) -> None:
        """What is no event in a manifest is left out, and leads nobody to other files."""
        manifest = f"{self.url}/manifest.json"
        for name, said in (
            ("../../etc/passwd", {}),
            (ONE + "/", {}),
            ("", {}),
            (TWO, []),
            (TWO, {"timestamp": {}}),
            (TWO, {"timestamp": "\u00e9"}),
            (TWO, {"timestamp": "1" * 70000}),
        ):
            self.server.asked.clear()
            self.server.says[manifest] = {ONE: {"timestamp": 1}, name: said}
            self.found(self.misp())
            self.assertEqual(set(self.events()), {f"{ONE}.json", "refused/0.json"})
            self.assertEqual(self.server.asked, [manifest, f"{self.url}/{ONE}.json"])
            self.into.unlink()

    def test_marked(self) -> None:
        """Files that begin with a mark of their encoding are read."""
        mark = b"\xef\xbb\xbf"
        self.server.says[f"{self.url}/manifest.json"] = mark + json.dumps({ONE: {}}).encode()
        self.server.says[f"{self.url}/{ONE}.json"] = mark + b'{"Event": {}}'
        self.found(self.misp())
        with zipfile.ZipFile(self.into) as archive:
            self.assertEqual(archive.namelist(), [f"{ONE}.json"])

    def test_bad_manifests(self) -> None:
        """No manifest, one of something else, and one of nothing."""
        for body, told in (
            (b"", "no JSON object"),
            (b"[]", "no JSON object"),
            (b"<html>", "no JSON object"),
            (b'{"x": 1}', "nothing in it is an event"),
            (b'{"x": {"timestamp": 1}}', "nothing in it is an event"),
            (b"{}", "its manifest.json names no events"),
        ):
            self.server.says[f"{self.url}/manifest.json"] = body
            self.assertIn(told, self.refused(self.misp()))
        self.patch(misp_archive, "MAX_PARTS", 1)
        self.manifest({ONE: 1, TWO: 2})
        self.assertEqual(self.refused(self.misp()), "it has more than 1 events")

    def test_too_large(self) -> None:
        """More bytes than there may be."""
        self.assertEqual(self.refused(self.misp(max_bytes=50)), "it is larger than 50 bytes")

    def test_no_room(self) -> None:
        """A disk that takes nothing is told as a download's failure."""
        self.into = self.directory / "missing" / "new.part"
        self.assertIn("could not be written", self.refused(self.misp()))
        taxii = self.gathering.taxii(Remote(url=self.url), self.into, max_bytes=1, now=NOW)
        self.assertIn("could not be written", self.refused(taxii))
