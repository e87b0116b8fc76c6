"""Collections of TAXII, found by a discovery or an API root, without a network."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ctsd.errors import OutboundError
from ctsd.feeds import taxii
from ctsd.feeds.taxii import find_collection, told_collections
from ctsd.remote import Remote, Reply

HOST = "https://taxii.example"
HIGH = "91a7b528-80eb-42ed-a74d-c6fbd5a26116"
SECRET = "52892447-4d7e-4f70-b94d-d7f22742ff63"
REMOTE = Remote(
    url=HOST + "/taxii2/",
    headers={"Accept": "application/taxii+json;version=2.1"},
    secrets={"user": "guest"},
    user="guest",
    password="pass-of-guest",
)


def listed(id: str, title: str, **more: Any) -> dict[str, Any]:
    """A collection."""
    return {"id": id, "title": title, "can_read": True, "can_write": False, **more}


class TaxiiCase(SynchronousTestCase):
    """A server."""

    def setUp(self) -> None:
        """Two API roots, as medallion 3.0.0 lists them: absolute, and the default twice."""
        self.asked: list[Remote] = []
        self.says: dict[str, Any] = {
            "/taxii2/": {
                "title": "T",
                "default": HOST + "/root1/",
                "api_roots": [HOST + "/root1/", HOST + "/root2/"],
            },
            "/root1/": {"title": "R1", "versions": [], "max_content_length": 1},
            "/root1/collections/": {
                "collections": [
                    listed(HIGH, "High Value", alias="high-value"),
                    listed(SECRET, "Secret", can_read=False),
                ]
            },
            f"/root1/collections/{HIGH}/": listed(HIGH, "High Value"),
            "/root2/": {"title": "R2", "versions": [], "max_content_length": 1},
            "/root2/collections/": {},
        }

    async def ask(self, remote: Remote) -> Reply:
        """Answer."""
        self.asked.append(remote)
        said = self.says.get(remote.url.removeprefix(HOST), (404, {"title": "ProcessingError"}))
        status, body = said if isinstance(said, tuple) else (200, said)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Reply(status=status, headers={"retry-after": "9"}, url=remote.url, body=data)

    def find(self, name: str, at: str = "/taxii2/") -> Any:
        """What comes of it."""
        work = find_collection(evolve(REMOTE, url=HOST + at), name, self.ask)
        return self.successResultOf(Deferred.fromCoroutine(work))

    def found(self, name: str, at: str = "/taxii2/") -> str:
        """Where it is; it may be asked for as what was given."""
        remote = self.find(name, at)
        self.assertEqual(evolve(remote, url=REMOTE.url), REMOTE)
        self.assertEqual(
            [evolve(one, url=REMOTE.url) for one in self.asked], [REMOTE] * len(self.asked)
        )
        url: str = remote.url
        return url.removeprefix(HOST)

    def refused(self, name: str, at: str = "/taxii2/") -> str:
        """Why there is none."""
        work = find_collection(evolve(REMOTE, url=HOST + at), name, self.ask)
        failure = self.failureResultOf(Deferred.fromCoroutine(work), OutboundError)
        self.assertNotIn("pass-of-guest", str(failure.value))
        return str(failure.value)


class FindTests(TaxiiCase):
    """Finding a collection."""

    def test_by_name(self) -> None:
        """By id, alias and title, from a discovery, an API root and the collection itself."""
        for name in (HIGH, HIGH.upper(), "high-value", "High Value", "high value"):
            for at in ("/taxii2/", "/taxii2", "/root1/", f"/root1/collections/{HIGH}/"):
                if name != "high-value" or "collections" not in at:
                    self.assertEqual(self.found(name, at), f"/root1/collections/{HIGH}/")

    def test_relative_roots(self) -> None:
        """As OpenTAXII 0.9.3 lists them; one that is listed twice is asked once."""
        self.says["/taxii2/"] = {"default": "/root1/", "api_roots": ["/root1/", "/root2/"]}
        self.assertEqual(self.found("High Value"), f"/root1/collections/{HIGH}/")
        self.assertEqual(
            [one.url.removeprefix(HOST) for one in self.asked],
            ["/taxii2/", "/root1/collections/", "/root2/collections/"],
        )

    def test_none(self) -> None:
        """The error says which there are."""
        there = f"High Value ({HIGH}), Secret ({SECRET}, may not be read)"
        self.assertEqual(self.refused("nope"), f"no collection is called so: there are: {there}")
        self.assertEqual(
            self.refused("secret"), f"this user may not read that collection: there are: {there}"
        )
        self.assertEqual(
            self.refused("nope", "/root2/"), "no collection is called so: it lists none"
        )
        self.assertIn("nothing is there (404)", self.refused("nope", "/elsewhere/"))

    def test_several(self) -> None:
        """A name that several have is refused; the same collection in two API roots is one."""
        self.says["/root2/collections/"] = {"collections": [listed("2", "High Value")]}
        self.assertIn("several collections are called so, say its id", self.refused("High Value"))
        self.says["/root2/collections/"] = {"collections": [listed(HIGH, "High Value")]}
        self.assertEqual(self.found("High Value"), f"/root1/collections/{HIGH}/")

    def test_another_server(self) -> None:
        """What is on another server, or on another port, is not asked at all."""
        for link in (
            "https://other.example/root1/",
            "http://localhost:5000/root1/",
            "//taxii.example.evil/root1/",
            "https://taxii.example:8443/root1/",
            "http://taxii.example:8080/root1/",
            "https://taxii.example@evil.example/root1/",
            "https://[::1/root1/",
            "ftp://taxii.example/root1/",
            "https://other.example/pass-of-guest/",
        ):
            self.says["/taxii2/"] = {"api_roots": [link]}
            self.asked.clear()
            told = self.refused("High Value")
            self.assertIn("is on another server, which gets no credentials of ours", told)
            self.assertEqual([one.url for one in self.asked], [REMOTE.url])

    def test_behind_a_proxy(self) -> None:
        """A server that does not know that it is asked through TLS; it is, all the same."""
        self.says["/taxii2/"] = {"api_roots": ["http://taxii.example/root1?x=1#y"]}
        self.assertEqual(self.found("High Value"), f"/root1/collections/{HIGH}/")

    def test_names_of_secrets(self) -> None:
        """A server's addresses and ids have no secrets of ours in them, nor ways to elsewhere."""
        self.says["/taxii2/"] = {"api_roots": ["/{user}/"]}
        self.says["/%7Buser%7D/collections/"] = {"collections": [listed("../{user}?x", "T")]}
        self.assertEqual(self.found("T"), "/%7Buser%7D/collections/..%2F%7Buser%7D%3Fx/")

    def test_some_roots(self) -> None:
        """API roots of others are passed over, and named when nothing else is found."""
        for status in (401, 403, 404, 406, 500):
            self.says["/root1/collections/"] = (status, {})
            self.says["/root2/collections/"] = {"collections": [listed("2", "Two")]}
            self.assertEqual(self.found("Two"), "/root2/collections/2/")
            self.assertEqual(
                self.refused("High Value"),
                "no collection is called so: there are: Two (2); the API root "
                f"{HOST}/root1/ can't be read ({status})",
            )

    def test_not_now(self) -> None:
        """Other answers are handed on: they may say when to ask again."""
        for at, statuses in (
            ("/taxii2/", (401, 403, 429, 500, 503)),
            ("/root2/collections/", (429, 503)),
        ):
            before = self.says[at]
            for status in statuses:
                self.says[at] = (status, b"")
                reply = self.find("High Value")
                self.assertEqual((reply.status, reply.headers["retry-after"]), (status, "9"))
            self.says[at] = before

    def test_something_else(self) -> None:
        """What is no resource of TAXII."""
        for body in (b"<html>", b"[]", {"api_roots": "x"}):
            self.says["/taxii2/"] = body
            self.assertEqual(self.refused("x"), "its answer is no resource of TAXII 2.1")

    def test_shown(self) -> None:
        """Many are cut, and nothing of a server's gets through that is no text, or our secret."""
        self.says["/root1/collections/"] = {
            "collections": [listed(str(number), "a\x1b[31m") for number in range(30)]
        }
        self.says["/root2/collections/"] = {"collections": [listed("pass-of-guest", "x")]}
        told = self.refused("nope")
        self.assertNotIn("\x1b", told)
        self.assertIn("and 11 more", told)
        self.says["/root1/collections/"] = {}
        self.assertEqual(self.refused("nope"), "no collection is called so: there are: x (***)")

    def test_many_roots(self) -> None:
        """No more are looked at than there may be."""
        self.patch(taxii, "MAX_ROOTS", 3)
        self.says["/taxii2/"] = {"api_roots": [f"/r{number}/" for number in range(30)]}
        self.refused("nope")
        self.assertEqual(len(self.asked), 1 + 3)

    def test_told(self) -> None:
        """Which there are, where an address turned out to be no collection's."""

        def told(at: str) -> str:
            work = told_collections(evolve(REMOTE, url=HOST + at), self.ask)
            return self.successResultOf(Deferred.fromCoroutine(work))

        for at in ("/taxii2/", "/root1/"):
            self.assertIn(f"High Value ({HIGH})", told(at))
        self.assertEqual(told(f"/root1/collections/{HIGH}/"), "", "it is one's")
        self.says["/taxii2/"] = (500, b"")
        self.assertEqual((told("/elsewhere/"), told("/taxii2/")), ("", ""))

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(
                    st.sampled_from(["api_roots", "default", "collections", "id", "can_read"]),
                    inner,
                )
            ),
        )
    )
    def test_anything(self, body: Any) -> None:
        """Whatever a server says, a collection is found or not."""
        self.says = {"/taxii2/": body, "/taxii2/collections/": body}
        work = Deferred.fromCoroutine(find_collection(REMOTE, "x", self.ask))
        if not isinstance(getattr(work, "result", None), Remote):
            self.failureResultOf(work, OutboundError)
