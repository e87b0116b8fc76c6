"""The page: who gets it, what comes with it, and what is in it; on both ways through the site."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib import resources
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ctsd.artifacts import SHAPES, Shape
from ctsd.errors import StoreError
from ctsd.model import EncodedHit, Ended, Outcome, Suppressed
from ctsd.states import SearcherState, SearchState
from ctsd.web.answers import Answer, error_answer
from ctsd.web.page import Page
from ctsd.web.targets import Kind, find_target
from tests.web_fakes import FakeStatus
from tests.web_fixtures import Reply, WebCase, request

BROWSER = "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"
IP = b'{"type":"net.ip","value":"192.168.1.1"}'
ID = "1f" * 16

STATIC = resources.files("ctsd.web") / "static"
FILES = {file.name: file.read_bytes() for file in STATIC.iterdir()}
INDEX = FILES["index.html"].decode()


class PageCase(WebCase):
    """A site with the page, on a listener where any Host is good."""

    def setUp(self) -> None:
        """Make it."""
        self.status = FakeStatus()
        super().setUp()

    def serve(self, **more: Any) -> None:
        """A site has the page, unless the test says otherwise."""
        more.setdefault("page", Page(status=self.status, scans=self.scans))
        super().serve(**more)

    def get(self, path: str = "/", *headers: str, method: str = "GET", host: str = "") -> Reply:
        """The answer to a browser that was sent there; without any header of its own."""
        data = request(method, path, b"", "", *headers)
        if host:
            data = data.replace(b"ctsd.example", host.encode(), 1)
        return self.ask(data).reply

    def page(self, path: str = "/", **more: Any) -> Reply:
        """The answer to a browser that navigates there."""
        return self.get(path, BROWSER, **more)


class WhoTests(PageCase):
    """Who gets the page."""

    def test_browser(self) -> None:
        """A browser gets it, under whatever spelling of the root."""
        for path in ("/", "//", "/?a=b", "http://ctsd.example/"):
            reply = self.page(path)
            self.assertEqual((reply.status, reply.body), (200, FILES["index.html"]), path)

    def test_accept(self) -> None:
        """A browser is who names HTML among what it accepts."""
        for accept, status in (
            ("text/html", 200),
            ("Text/HTML;q=0.5", 200),
            ("application/json, text/html", 200),
            ("*/*", 405),
            ("application/json", 405),
            ("text/htmlx", 405),
            ("", 405),
        ):
            self.assertEqual(self.get("/", f"Accept: {accept}").status, status, accept)

    def test_others(self) -> None:
        """Whoever is no browser is told what the protocol has, as ever."""
        for reply in (self.get(), self.page("/phish/"), self.page("/phish")):
            self.assertEqual(reply.status, 405)
            self.assertEqual(reply.headers["Allow"], "OPTIONS, POST")
            self.assertEqual(reply.headers["Content-Type"], "application/json")

    def test_methods(self) -> None:
        """Only GET and HEAD are about the page."""
        for method, status in (("PUT", 405), ("DELETE", 405), ("OPTIONS", 200)):
            self.assertEqual(self.page(method=method).status, status, method)
        posted = self.post(IP, "/", BROWSER)
        self.assertEqual((posted.status, "hits" in posted.body.decode()), (200, True))
        self.assertEqual(self.post(IP, "/console/state", BROWSER).status, 503)

    def test_platform(self) -> None:
        """
        A client of the protocol is not taken for a browser because it names HTML, as Java does by
        default: it may use any Host.
        """
        self.serve(loopback=True)
        java = "Accept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"
        posted = self.post(IP, "/", java)
        self.assertEqual(posted.status, 200)
        for path in (f"/{json.loads(posted.body)['id']}", "/health/ready"):
            self.assertEqual(self.get(path, java).status, 200, path)
        self.assertEqual(self.get("/", java, method="OPTIONS").status, 200)
        self.assertEqual(self.get("/", java, method="PUT").status, 405)
        self.assertEqual(self.get("/phish/", java).status, 405)

    def test_targets(self) -> None:
        """What is told about a scan is asked of a service that there is, or of none."""
        for path, kind, service in (
            (f"/console/scan/{ID}", Kind.PAGE, ""),
            (f"/console/scan/phish/{ID}", Kind.PAGE, "phish"),
            (f"/console/scan/nowhere/{ID}", Kind.NOTHING, ""),
            (f"/console/scan/phish/more/{ID}", Kind.NOTHING, ""),
            (f"/console/scan/{ID}/{ID}", Kind.NOTHING, ""),
            ("/console/scan/phish", Kind.NOTHING, ""),
            ("/console/scan", Kind.NOTHING, ""),
        ):
            target = find_target(path.encode(), self.scans.has_service)
            self.assertEqual((target.kind, target.service), (kind, service), path)

    def test_protocol_beside_it(self) -> None:
        """Scans, their ids and load balancers are answered as without the page."""
        self.assertEqual(self.page("/health/ready").status, 200)
        self.assertEqual(self.page("/nothing").status, 204)
        scan_id = json.loads(self.post(IP).body)["id"]
        reply = self.page(f"/{scan_id}")
        self.assertEqual((reply.status, json.loads(reply.body)["id"]), (200, scan_id))

    def test_listener_without_it(self) -> None:
        """Where there is no page, nothing of it can be had."""
        self.serve(page=None)
        self.assertEqual(self.page().status, 405)
        for path in ("state", "page.js", "index.html", f"scan/{ID}"):
            self.assertEqual(self.page(f"/console/{path}").status, 204, path)

    def test_host(self) -> None:
        """A page under a name that somebody else controls gets nothing, header or not."""
        self.serve(loopback=True)
        for path in ("/", "/console/page.js", "/console/state", f"/console/scan/{ID}"):
            for headers in ((BROWSER,), (BROWSER, "Sec-Fetch-Site: same-origin")):
                self.assertEqual(self.get(path, *headers, host="evil.example").status, 421, path)
            self.assertNotEqual(self.get(path, BROWSER, host="localhost:8000").status, 421, path)
            self.assertNotEqual(self.get(path, BROWSER, host="[::1]").status, 421, path)

    def test_allowed_hosts(self) -> None:
        """Names in allowed_hosts are the only ones."""
        self.serve(allowed_hosts=("ctsd.example",))
        self.assertEqual(self.page().status, 200)
        self.assertEqual(self.page(host="10.0.0.1").status, 421)

    def test_foreign(self) -> None:
        """Pages of other sites get nothing."""
        self.status.known["", ID] = ()
        for path in ("/", "/console/page.js", "/console/state", f"/console/scan/{ID}"):
            for header in (
                "Origin: http://evil.example",
                "Origin: null",
                "Referer: http://evil.example/",
                "Sec-Fetch-Site: cross-site",
            ):
                self.assertEqual(self.get(path, BROWSER, header).status, 403, (path, header))
            for header in (
                "Origin: http://ctsd.example",
                "Referer: http://ctsd.example/",
                "Sec-Fetch-Site: same-origin",
                "Sec-Fetch-Site: none",
            ):
                self.assertEqual(self.get(path, BROWSER, header).status, 200, (path, header))

    def test_gate(self) -> None:
        """Who may not come in gets nothing of it; a scan's details are a matter of its service."""
        self.status.known["phish", ID] = ()
        seen = []

        def gate(request: Any) -> Answer | None:
            seen.append(request.target.service)
            return error_answer(401, "no") if request.target.service else None

        self.serve(gate=gate)
        for path, status in (
            ("/", 200),
            ("/console/state", 200),
            (f"/console/scan/phish/{ID}", 401),
        ):
            self.assertEqual(self.page(path).status, status, path)
        self.assertEqual(seen, ["", "", "phish"])


class KleinWhoTests(WhoTests):
    """The same, all by way of Klein."""

    short_path = False


class AnswerTests(PageCase):
    """What the page and its parts are answered with."""

    def test_headers(self) -> None:
        """The page may load and ask what comes from here, and nothing else; nobody may frame it."""
        headers = self.page().headers
        policy = dict(each.split(" ", 1) for each in headers["Content-Security-Policy"].split("; "))
        self.assertEqual(
            policy,
            {
                "default-src": "'none'",
                "script-src": "'self'",
                "style-src": "'self'",
                "img-src": "'self'",
                "connect-src": "'self'",
                "form-action": "'none'",
                "frame-ancestors": "'none'",
                "base-uri": "'none'",
                "require-trusted-types-for": "'script'",
                "trusted-types": "'none'",
            },
        )
        self.assertEqual(headers["Content-Type"], "text/html; charset=utf-8")
        self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
        self.assertEqual(headers["Referrer-Policy"], "same-origin")
        self.assertEqual(headers["Cross-Origin-Opener-Policy"], "same-origin")
        self.assertEqual(headers["Cache-Control"], "no-store")
        self.assertNotIn("Server", headers)

    def test_parts(self) -> None:
        """Every file of the page is there, as what it is."""
        kinds = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
        self.assertGreater(len(FILES), 4)
        for name, content in FILES.items():
            reply = self.get(f"/console/{name}", "Accept: */*")
            self.assertEqual((reply.status, reply.body), (200, content), name)
            kind = reply.headers["Content-Type"].partition(";")[0]
            self.assertEqual(kind, kinds.get(name.rpartition(".")[2], "image/svg+xml"))
            self.assertEqual(reply.headers["X-Content-Type-Options"], "nosniff")
            self.assertEqual(reply.headers["Cross-Origin-Resource-Policy"], "same-origin")

    def test_head(self) -> None:
        """HEAD has the headers alone."""
        for path in ("/", "/console/page.js", "/console/state"):
            sent = self.ask(request("HEAD", path, b"", "", BROWSER)).wire.value()
            head, _, body = sent.partition(b"\r\n\r\n")
            self.assertIn(b" 200 ", head.splitlines()[0])
            self.assertEqual(body, b"")
            reply = self.page(path)
            self.assertIn(b"Content-Length: %d" % len(reply.body), head)

    def test_connection_stays(self) -> None:
        """One connection gets the page and all of its parts."""
        client = self.connect()
        for path in ("/", "/console/page.js", "/console/state", f"/console/scan/{ID}"):
            client.send(request("GET", path, b"", "", BROWSER))
        client.send(request("POST", "/", IP))
        self.assertEqual(client.statuses, [200, 200, 200, 204, 200])

    def test_no_such_part(self) -> None:
        """There is nothing but its files; a path leads nowhere else."""
        for path in (
            "/console",
            "/console/",
            "/console/page.py",
            "/console/../page.py",
            "/console/%2e%2e/page.py",
            "/console/..%2fpage.py",
            "/console/page.js/",
            "/console/page.js/x",
            "/console/static/page.js",
            "/console/scan",
            f"/console/scan/nowhere/{ID}",
            f"/console/scan/phish/more/{ID}",
            "/console/scan/phish",
            "/console/scan/<script>",
        ):
            expected = 200 if path == "/console/page.js/" else 204
            self.assertEqual(self.page(path).status, expected, path)

    def test_nothing_reflected(self) -> None:
        """Nothing that a request says stands in an answer."""
        evil = "%3Cb%3Ereflected%3C/b%3E"
        for path in ("/?q=", "/console/", "/console/state?", "/console/scan/"):
            for end in (evil, "<b>reflected</b>"):
                reply = self.page(path + end)
                whole = f"{reply.headers}{reply.body.decode()}".lower()
                self.assertNotIn("reflected", whole)

    def test_state(self) -> None:
        """What there is, as JSON."""
        self.status.all_services = {"": ("a", "b"), "phish": ("b",)}
        self.status.all_searchers = (
            SearcherState(name="a", mode="sync", about="3 records"),
            SearcherState(name="b", mode="async", required=False, loading=True, trouble="no file"),
            SearcherState(name="c", why_off="does not import", broken=True),
        )
        self.scans.not_working = "the store is full"
        reply = self.get("/console/state", "Accept: application/json")
        self.assertEqual(reply.headers["Content-Type"], "application/json")
        self.assertEqual(reply.headers["X-Content-Type-Options"], "nosniff")
        state = json.loads(reply.body)
        self.assertEqual(state["trouble"], "the store is full")
        self.assertEqual(
            state["services"],
            [{"name": "", "searchers": ["a", "b"]}, {"name": "phish", "searchers": ["b"]}],
        )
        a, b, c = state["searchers"]
        self.assertEqual(
            (a["name"], a["mode"], a["on"], a["about"]), ("a", "sync", True, "3 records")
        )
        self.assertEqual((b["required"], b["loading"], b["trouble"]), (False, True, "no file"))
        self.assertEqual((c["on"], c["broken"], c["why_off"]), (False, True, "does not import"))

    def test_hostile_searcher(self) -> None:
        """Whatever a searcher says of itself can be sent, and is the same at the other end."""
        about = "</script>\u2028\ud800\x00\u202e'\""
        self.status.all_searchers = (SearcherState(name="a", about=about),)
        body = self.page("/console/state").body
        self.assertTrue(body.isascii())
        self.assertEqual(json.loads(body)["searchers"][0]["about"], about)

    def test_scan(self) -> None:
        """How the searchers of a scan stand, of the service that it belongs to."""
        hit = EncodedHit(b'{"props":[]}')
        self.status.known["phish", ID] = (
            SearchState(searcher="a", outcome=Outcome(Ended.FOUND, (hit, hit)), tries=1),
            SearchState(
                searcher="b",
                required=False,
                outcome=Outcome(Ended.FAILED, reason="away", final=True),
                tries=2,
                due_in_secs=14.6,
            ),
            SearchState(searcher="c", running=True),
            SearchState(
                searcher="d",
                outcome=Outcome(
                    Ended.LATER,
                    missing=("Mine",),
                    suppressed=(Suppressed("mine", "net.ip", "a list"),),
                    suppressed_more=2,
                ),
            ),
        )
        self.assertEqual(self.page(f"/console/scan/{ID}").status, 204)
        a, b, c, d = json.loads(self.page(f"/console/scan/phish/{ID}").body)["searches"]
        self.assertEqual((a["ended"], a["hits"], a["tries"]), ("found", 2, 1))
        self.assertEqual((b["ended"], b["reason"], b["final"]), ("failed", "away", True))
        self.assertEqual((b["required"], b["due_in_secs"]), (False, 15))
        self.assertEqual((c["ended"], c["running"], c["due_in_secs"]), (None, True, None))
        self.assertEqual((a["missing"], d["missing"]), ([], ["Mine"]))
        self.assertEqual((a["suppressed"], c["suppressed"]), ([], []))
        self.assertEqual(d["suppressed"], [{"feed": "mine", "type": "net.ip", "by": "a list"}])
        self.assertEqual((a["suppressed_more"], d["suppressed_more"]), (0, 2))

    def test_store_away(self) -> None:
        """A store that is away is 503, with when to come again."""
        self.status.broken = StoreError("the store is away")
        reply = self.page(f"/console/scan/{ID}")
        self.assertEqual((reply.status, "Retry-After" in reply.headers), (503, True))

    def test_incident(self) -> None:
        """What breaks is an incident without details."""
        self.status.broken = ValueError("secret")
        reply = self.page(f"/console/scan/{ID}")
        self.assertEqual(reply.status, 500)
        self.assertRegex(reply.body.decode(), r'"internal error, incident \w+"')
        self.assertEqual(self.incidents(), 1)

    def test_leaves(self) -> None:
        """A browser that leaves before its answer breaks nothing."""
        waiting: Deferred[tuple[SearchState, ...]] = Deferred()
        self.patch(FakeStatus, "searches", lambda *_, **__: waiting)
        client = self.ask(request("GET", f"/console/scan/{ID}", b"", "", BROWSER))
        client.leave()
        if not waiting.called:
            waiting.callback(())
        self.assertEqual(client.replies, [])
        self.assertEqual(self.incidents(), 0)


class KleinAnswerTests(AnswerTests):
    """The same, all by way of Klein."""

    short_path = False


class _Elements(HTMLParser):
    """All start tags of a document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements with this tag."""
        return [attributes for name, attributes in self.found if name == tag]


class SourceTests(SynchronousTestCase):
    """What the page is made of."""

    elements = _Elements(INDEX)

    def test_types(self) -> None:
        """Every artifact type can be chosen, with a form for its shape."""
        forms: dict[Shape, set[str]] = {
            Shape.STRING: {"text", "long", "password", "file"},
            Shape.STRINGS: {"lines"},
            Shape.NUMBER: {"number"},
            Shape.NAME_VALUE: {"pair"},
            Shape.REGISTRY: {"registry"},
        }
        options = {
            each["value"]: each.get("data-form") or "text" for each in self.elements.all("option")
        }
        self.assertEqual(set(options), set(SHAPES))
        for name, shape in SHAPES.items():
            self.assertIn(options[name], forms[shape], name)
        self.assertEqual(options["system.user.password"], "password")
        there = {attributes.get("data-for") for _, attributes in self.elements.found} - {None}
        self.assertEqual(there, set().union(*forms.values()))

    def test_labels(self) -> None:
        """Every field has a label."""
        labelled = {each.get("for") for each in self.elements.all("label")}
        for tag in ("input", "select", "textarea"):
            for field in self.elements.all(tag):
                self.assertIn(field["id"], labelled)

    def test_ids(self) -> None:
        """Every element that the script looks for, or that another one names, is there."""
        ids = [attributes["id"] for _, attributes in self.elements.found if "id" in attributes]
        self.assertEqual(len(ids), len(set(ids)))
        script = FILES["page.js"].decode() + FILES["answer.js"].decode()
        wanted = set(re.findall(r'\b(?:at|getElementById)\("([\w-]+)"\)', script))
        self.assertGreater(len(wanted), 10)
        for _, attributes in self.elements.found:
            for name in ("aria-labelledby", "aria-describedby", "for"):
                wanted |= set((attributes.get(name) or "").split())
        self.assertEqual(wanted - set(ids), set())

    def test_nothing_from_elsewhere(self) -> None:
        """Everything that the page loads is one of its own files."""
        loaded = {
            attributes[name]
            for tag, attributes in self.elements.found
            for name in ("src", "href")
            if name in attributes and tag != "a"
        }
        self.assertEqual(loaded, {"console/page.js", "console/page.css", "console/page.svg"})
        for name, content in FILES.items():
            text = content.decode()
            for source in re.findall(r'\bfrom "\./([^"]+)"', text):
                self.assertIn(source, FILES)
            outside = set(re.findall(r"(?<=[\"'(])(?:https?:)?//\w[\w.]*", text))
            self.assertLessEqual(outside, {"http://www.w3.org"}, name)
            self.assertNotRegex(text, r"@import|url\(")

    def test_nothing_inline(self) -> None:
        """Script and style are in their files, so that the policy can forbid all others."""
        for tag, attributes in self.elements.found:
            self.assertNotEqual(tag, "style")
            self.assertTrue(tag != "script" or attributes.get("src"))
            for name in attributes:
                self.assertFalse(name == "style" or name.startswith("on"), (tag, name))

    def test_text_alone(self) -> None:
        """The script makes markup of nothing."""
        for name, content in FILES.items():
            if name.endswith(".js"):
                self.assertNotRegex(
                    content.decode(),
                    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\("
                    r"|new Function|srcdoc|createContextualFragment",
                    name,
                )

    def test_values_stay_out_of_addresses(self) -> None:
        """A form without its script can't send anything anywhere but in a body."""
        (form,) = self.elements.all("form")
        self.assertEqual(form["method"], "post")
        self.assertNotIn("action", form)
        for field in self.elements.all("input") + self.elements.all("textarea"):
            self.assertNotIn("name", field)
