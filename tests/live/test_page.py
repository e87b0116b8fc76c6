"""The page, in a real browser (Debian's Chromium) before a real daemon."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Locator, Page, expect, sync_playwright
from twisted.trial.unittest import SynchronousTestCase

from tests.live.daemon import BIN, PATIENCE_SECS, Daemon

CHROMIUM = shutil.which("chromium")

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

#: Searchers that do what a page has to cope with.
SEARCHERS = r'''
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from ctsd.searching import (
    BaseArtifactSearch, Found, Hit, SearchFailed, Suppressed, number, string, uri
)


class UnreachableArtifactSearch(BaseArtifactSearch):
    """Its source refuses connections."""

    keys = {"port": int}

    def supports(self, artifact_type):
        return artifact_type == "net.ip"

    async def search(self, artifact_type, search_term, *, context, **kwargs):
        from twisted.internet import reactor

        source = clientFromString(reactor, f"tcp:127.0.0.1:{context.settings['port']}")
        try:
            await source.connect(Factory.forProtocol(Protocol))
        except Exception:
            raise SearchFailed("the source refuses connections") from None


class WaitingArtifactSearch(BaseArtifactSearch):
    """Finds what the file C{go} in its directory says, as soon as it is there."""

    def supports(self, artifact_type):
        return artifact_type == "net.name"

    async def search(self, artifact_type, search_term, *, context, **kwargs):
        go = context.data_dir / "go"
        while not go.exists():
            await deferLater(context.clock, 0.05)
        return [Hit((string("said", go.read_text()),))]


class ListedArtifactSearch(BaseArtifactSearch):
    """Finds what is no finding, and can't ask all of its sources."""

    def supports(self, artifact_type):
        return artifact_type in ("system.mutex", "system.name")

    async def search(self, artifact_type, search_term, **kwargs):
        away = ("Mine", "Yours") if artifact_type == "system.name" else ()
        by = "allowed by <b>me</b>: it is ours"
        one = Suppressed("f", "net.ip", by)
        return Found((), missing=away, suppressed=(one,), suppressed_more=2)


class HostileArtifactSearch(BaseArtifactSearch):
    """Finds what would be markup, were it taken for that."""

    def supports(self, artifact_type):
        return artifact_type == "process.name"

    def describe(self):
        return "<img src=x onerror=alert(1)>"

    async def search(self, artifact_type, search_term, **kwargs):
        return [
            Hit((
                string("<b>name</b>", "<img src=x onerror=alert(2)>"),
                uri("script", "javascript:alert(3)"),
                uri("report", "https://report.example/7"),
                number("score", 80),
            ))
        ]
'''

CONFIG = """
first_answer_secs = 0.2
scan_deadline_secs = {deadline_secs}

[searchers]
sync = ["internal"]
async = ["phishtank", "unreachable", "waiting", "hostile", "listed"]
path = ["own"]

[searchers.unreachable]
port = 1

[services.phish]
searchers = ["phishtank"]
"""


class PageTestCase(SynchronousTestCase):
    """A daemon, and a browser that shows its page."""

    skip = None if CHROMIUM else "chromium is not installed"

    def serve(self, *, deadline_secs: int = 600, **more: Any) -> Daemon:
        """A daemon, not started."""
        config = CONFIG.format(deadline_secs=deadline_secs)
        searchers = {"searchers.py": SEARCHERS}
        daemon = Daemon(Path(self.mktemp()), config, searchers=searchers, **more)
        self.addCleanup(daemon.stop)
        return daemon

    def open(
        self,
        daemon: Daemon | None = None,
        *,
        viewport: Any = DESKTOP,
        dark: bool = False,
        **more: Any,
    ) -> Page:
        """Start the daemon and a browser, and wait until the page knows the daemon."""
        self.daemon = daemon or self.serve()
        self.daemon.start()
        playwright = sync_playwright().start()
        self.addCleanup(playwright.stop)
        context = playwright.chromium.launch_persistent_context(
            self.daemon.directory / "profile",
            executable_path=CHROMIUM,
            args=ARGUMENTS,
            viewport=viewport,
            color_scheme="dark" if dark else "light",
            **more,
        )
        self.addCleanup(context.close)
        context.set_default_timeout(PATIENCE_SECS * 1000)
        expect.set_options(timeout=PATIENCE_SECS * 1000)
        self.wrong: list[str] = []
        self.asked: list[str] = []
        page = context.new_page()
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", lambda dialog: self.wrong.append(dialog.message))
        page.on("request", lambda request: self.asked.append(request.url))
        self.url = f"http://localhost:{self.daemon.port}/"
        page.goto(self.url)
        expect(page.locator("#health")).to_have_text("Ready")
        self.page = page
        return page

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def check(self) -> None:
        """Nothing went wrong in the browser, and it asked nobody but the daemon."""
        self.assertEqual(self.wrong, [])
        hosts = {urlsplit(url).netloc for url in self.asked}
        self.assertEqual(hosts, {f"localhost:{self.daemon.port}"})

    def ask(self, type: str, value: str) -> Locator:
        """Ask about an artifact; its answer."""
        self.page.select_option("#type", type)
        self.page.fill("#text", value)
        self.page.click("#send")
        return self.answer

    @property
    def answer(self) -> Locator:
        """The newest answer."""
        return self.page.locator(".answer").first

    def expect_state(self, state: str, badge: str, answer: Locator | None = None) -> None:
        """An answer comes to this state, and says so."""
        answer = answer or self.answer
        expect(answer).to_have_attribute("data-state", state)
        expect(answer.locator(".badge")).to_have_text(badge)


class AskTests(PageTestCase):
    """What a person asks, and what comes in."""

    def test_answers(self) -> None:
        """
        What is found, that nothing is found and that a searcher could not be asked are seen, and
        seen to be different.
        """
        page = self.open()
        expect(page).to_have_title("ctsd")
        # A hit, with the keyboard alone.
        page.focus("#text")
        page.keyboard.type("www.megastore.lu")
        page.keyboard.press("Enter")
        self.expect_state("found", "Found")
        found = self.answer
        expect(found.locator("h3")).to_have_text("www.megastore.lu")
        expect(found.locator(".hits .by")).to_have_text("phishtank")
        expect(found.locator("dd", has_text="http://www.megastore.lu/login")).to_be_visible()
        links = found.locator("a")
        expect(links).to_have_count(1)
        expect(links).to_have_attribute("rel", "noopener noreferrer")
        expect(links).to_have_attribute("href", re.compile(r"^https://www\.phishtank\.com/"))
        scan_id = found.locator("footer code").first.inner_text()
        self.assertEqual(len(self.daemon.ask("GET", f"/{scan_id}").json["hits"]), 1)
        expect(found.locator(".curl")).to_have_text(f"curl '{self.url}{scan_id}'")

        nothing = self.ask("net.uri", "http://nothing.example/")
        self.expect_state("nothing", "Nothing found")
        expect(nothing.locator(".searches li")).to_have_text(
            [re.compile("internal.*nothing"), re.compile("phishtank.*nothing")]
        )

        away = self.ask("net.ip", "192.0.2.7")
        self.expect_state("unasked", "Could not ask yet")
        expect(away.locator(".searches li.unasked")).to_contain_text(
            "could not ask: the source refuses connections; asked again at"
        )
        expect(away.locator(".verdict")).to_have_text(
            "This does not mean that nothing was found. Could not be asked: unreachable."
        )
        expect(away.locator(".wait")).to_have_text(re.compile(r"again in .*\(retry_secs \d+\)"))

        # What was asked is in no address, and three answers look like three things.
        self.assertEqual([url for url in self.asked if re.search("megastore|192", url)], [])
        looks = page.locator(".answer").evaluate_all(
            "all => all.map(one => getComputedStyle(one).borderLeft)"
        )
        self.assertEqual(len(set(looks)), 3)
        self.check()

    def test_suppressed(self) -> None:
        """What was found and is no hit is seen, and which sources could not be asked."""
        self.open()
        told = r"nothing\s*no hit: net\.ip of feed f: allowed by <b>me</b>: it is ours\s+no hit: 2"
        nothing = self.ask("system.mutex", "m")
        self.expect_state("nothing", "Nothing found")
        row = nothing.locator(".searches li", has_text="listed")
        expect(row).to_have_text(re.compile(told))
        away = self.ask("system.name", "n")
        expect(away.locator(".verdict")).to_contain_text(
            "Could not be asked: listed (Mine, Yours)."
        )
        expect(away.locator(".searches .suppressed")).to_contain_text("no hit: 2 more")
        self.check()

    def test_comes_in(self) -> None:
        """Findings of a slow searcher come in by themselves, as the daemon says when to ask."""
        self.open()
        self.ask("net.name", "host.example")
        self.expect_state("asking", "Asking")
        answer = self.answer
        expect(answer.locator(".wait")).to_have_text(re.compile(r"\(retry_secs \d+\)"))
        expect(answer.locator(".searches li.asking")).to_have_text(re.compile("waiting.*asking"))
        self.daemon.let_answer("it comes")
        self.expect_state("found", "Found")
        expect(answer.locator(".wait")).to_be_hidden()
        expect(answer.locator("dd")).to_have_text("it comes")
        expect(self.page.locator("#said")).to_have_text("host.example: Found. 1 finding.")
        self.check()

    def test_given_up(self) -> None:
        """A scan that ends without its searcher is not told as "nothing found"."""
        self.open(self.serve(deadline_secs=2))
        self.ask("net.ip", "192.0.2.7")
        answer = self.answer
        expect(answer).to_have_attribute("aria-busy", "true")
        answer.get_by_role("button", name="Ask now").click()
        expect(answer).to_have_attribute("aria-busy", "false")
        self.expect_state("unasked", "Could not ask")
        expect(answer.locator(".verdict")).to_contain_text("could not be asked: unreachable")
        expect(answer.locator(".verdict")).to_contain_text("does not mean that nothing was found")
        # Chromium calls every 503 an error.
        self.wrong = [text for text in self.wrong if "503" not in text]
        self.check()

    def test_file(self) -> None:
        """A file is uploaded, and what is known of its hash is found."""
        content = b"MZ" + bytes(range(256)) * 4096
        page = self.open()
        digest = hashlib.sha256(content).hexdigest()
        self.daemon.ctsd(
            "threats", "add", "--name", "Bad file", "--artifact", f"hash.sha256={digest}"
        )
        file = self.daemon.directory / "a <b>.exe"
        file.write_bytes(content)
        page.select_option("#type", "file.content")
        page.click("#send")
        expect(page.locator("#problem")).to_have_text("Choose a file.")
        expect(page.locator("#file")).to_be_focused()
        page.set_input_files("#file", file)
        page.click("#send")
        self.expect_state("found", "Found")
        expect(self.answer.locator("h3")).to_have_text("a <b>.exe")
        expect(self.answer.locator(".hits")).to_contain_text("Bad file")
        self.assertEqual(page.input_value("#file"), "")
        # An e-mail may be a file, too.
        page.select_option("#type", "email")
        page.set_input_files("#file", file)
        page.click("#send")
        expect(page.locator(".answer")).to_have_count(2)
        self.expect_state("found", "Found")
        self.check()

    def test_shapes(self) -> None:
        """Every shape is sent as the protocol has it, to the service that was chosen."""
        page = self.open()
        for type, fields, value in (
            ("net.port", {"number": "443"}, 443),
            (
                "email.header.to",
                {"lines": "a@b.example\n\nc@b.example"},
                ["a@b.example", "c@b.example"],
            ),
            (
                "net.http.request.header",
                {"pair-name": "User-Agent", "pair-value": "x"},
                {"name": "User-Agent", "value": "x"},
            ),
            ("system.registry", {"registry-key": "HKLM\\x"}, {"key": "HKLM\\x"}),
            (
                "system.registry",
                {"registry-key": "HKLM\\x", "registry-name": "Run", "registry-value": "y"},
                {"key": "HKLM\\x", "entry_name": "Run", "entry_value": "y"},
            ),
            ("email.body", {"long": "two\nlines"}, "two\nlines"),
            (
                "hash.md5",
                {"text": " d41d8cd98f00b204e9800998ecf8427e "},
                "d41d8cd98f00b204e9800998ecf8427e",
            ),
        ):
            page.select_option("#type", type)
            for field, text in fields.items():
                page.fill(f"#{field}", text)
            with page.expect_request(lambda request: request.method == "POST") as sent:
                page.click("#send")
            body = json.loads(sent.value.post_data or "")
            self.assertEqual(body, {"type": type, "value": value})
            self.expect_state("nothing", "Nothing found")
        page.select_option("#service", "phish")
        with page.expect_request(lambda request: request.method == "POST") as sent:
            self.ask("net.uri", "www.megastore.lu")
        self.assertEqual(sent.value.url, f"{self.url}phish/")
        self.expect_state("found", "Found")
        expect(self.answer.locator(".meta")).to_contain_text("/phish/")
        expect(self.answer.locator(".searches li")).to_have_count(1)
        self.ask("system.mutex", "x")
        self.expect_state("nobody", "Nobody asked")
        self.ask("net.name", "localhost")
        self.expect_state("nobody", "Nobody asked")
        expect(self.answer.locator(".verdict")).to_contain_text("connection test")
        page.select_option("#type", "net.port")
        page.fill("#number", "many")
        page.click("#send")
        expect(page.locator("#problem")).to_have_text("Enter a number.")
        self.check()

    def test_password(self) -> None:
        """A password is not shown, and is gone from the page when it was sent."""
        page = self.open()
        page.select_option("#type", "system.user.password")
        expect(page.locator("#password")).to_have_attribute("type", "password")
        page.fill("#password", "correct horse")
        page.keyboard.press("Enter")
        self.expect_state("nothing", "Nothing found")
        expect(self.answer.locator("h3")).to_have_text("\u2022" * 8)
        self.assertEqual(page.input_value("#password"), "")
        self.assertNotIn("correct horse", page.content())
        self.assertNotIn("correct horse", self.daemon.log.read_text())
        self.check()

    def test_hostile(self) -> None:
        """What a searcher says is text, and becomes neither markup nor a script's link."""
        page = self.open()
        hostile = page.locator("#searchers li", has_text="hostile")
        expect(hostile).to_contain_text("<img src=x onerror=alert(1)>")
        self.ask("process.name", "<img src=x onerror=alert(4)>")
        self.expect_state("found", "Found")
        expect(self.answer.locator("dt").first).to_have_text("<b>name</b>")
        expect(self.answer.locator("dd").first).to_have_text("<img src=x onerror=alert(2)>")
        expect(self.answer.locator("a")).to_have_text("https://report.example/7")
        self.assertEqual(page.locator("img").count(), 1)
        # The browser itself refuses to make markup of text here.
        refused = page.evaluate(
            "() => { try { document.body.innerHTML = '<p>'; } catch (e) { return e.name; } }"
        )
        self.assertEqual(refused, "TypeError")
        self.wrong = [text for text in self.wrong if "TrustedHTML" not in text]
        self.check()


class StateTests(PageTestCase):
    """What the page shows of the daemon, and on what."""

    def test_searchers(self) -> None:
        """All searchers and services are there; a daemon that goes away and comes back is seen."""
        page = self.open()
        searchers = page.locator("#searchers > li")
        expect(searchers).to_have_count(7)
        expect(searchers.nth(0)).to_contain_text(re.compile("internal.*on.*sync"))
        expect(searchers.nth(1)).to_contain_text(re.compile(r"phishtank.*on.*async\s*.*records"))
        services = page.locator("#services > li code")
        expect(services).to_have_text([self.url, f"{self.url}phish/"])
        self.daemon.stop()
        self.ask("net.uri", "www.megastore.lu")
        self.expect_state("refused", "Not answered")
        expect(page.locator("#health")).to_have_text("ctsd can't be reached")
        self.daemon.start()
        expect(page.locator("#health")).to_have_text("Ready")
        self.ask("net.uri", "www.megastore.lu")
        self.expect_state("found", "Found")
        self.wrong = [text for text in self.wrong if "ERR_CONNECTION_REFUSED" not in text]
        self.check()

    def test_trouble(self) -> None:
        """Who could not be asked stands at the top."""
        page = self.open()
        self.ask("net.ip", "192.0.2.7")
        expect(page.locator("#health")).to_have_text("Ready, but for unreachable")
        row = page.locator("#searchers > li", has_text="unreachable")
        expect(row).to_contain_text("could not be asked since")
        self.check()

    def test_password(self) -> None:
        """Behind a password the page works with the one that the browser was given."""
        daemon = self.serve(listen='["auth:users:tcp:{port}:interface=127.0.0.1"]')
        command = [str(BIN / "ctsd"), "passwd", str(daemon.directory / "users"), "ann"]
        subprocess.run(command, input=b"correct horse\n" * 2, check=True, timeout=PATIENCE_SECS)
        page = self.open(daemon, http_credentials={"username": "ann", "password": "correct horse"})
        self.assertEqual(daemon.ask("GET", "/", headers={"Accept": "text/html"}).status, 401)
        self.assertEqual(daemon.ask("GET", "/console/state").status, 401)
        self.ask("net.uri", "www.megastore.lu")
        self.expect_state("found", "Found")
        page.select_option("#type", "file.content")
        page.set_input_files("#file", daemon.config)
        page.click("#send")
        self.expect_state("nothing", "Nothing found")
        self.check()

    def test_foreign_page(self) -> None:
        """A page of another site can neither read anything here nor have anything scanned."""
        page = self.open()
        foreign = "http://evil.example/"
        page.route(f"{foreign}**", lambda route: route.fulfill(body="hello"))
        page.goto(foreign)
        read = "url => fetch(url + 'console/state').then(r => r.text(), e => e.name)"
        self.assertEqual(page.evaluate(read, self.url), "TypeError")
        body = '{"type": "system.mutex", "value": "x"}'
        post = """([url, body]) => fetch(url, {method: "POST", mode: "no-cors", body})
            .then(r => r.type, e => e.name)"""
        self.assertIn(page.evaluate(post, [self.url, body]), ("opaque", "TypeError"))
        page.goto(self.url)
        self.ask("process.name", "x")
        self.expect_state("found", "Found")
        self.daemon.stop()
        log = self.daemon.log.read_text()
        self.assertIn("type=process.name", log)
        self.assertNotIn("type=system.mutex", log)

    def test_desktop(self) -> None:
        """On a desktop the searchers stand beside the form."""
        self._looks(DESKTOP, beside=True)

    def test_phone(self) -> None:
        """On a phone everything stands in one column, and nothing is cut off."""
        self._looks(PHONE, beside=False, dark=True)

    def _looks(self, viewport: dict[str, int], *, beside: bool, dark: bool = False) -> None:
        page = self.open(viewport=viewport, dark=dark)
        self.ask("net.uri", "www.megastore.lu")
        self.expect_state("found", "Found")
        self.ask("net.uri", "http://nothing.example/" + "long" * 200)
        self.expect_state("nothing", "Nothing found")
        width = page.evaluate("document.documentElement.scrollWidth")
        self.assertEqual(width, viewport["width"])
        form = page.locator("#ask").bounding_box()
        aside = page.locator("aside").bounding_box()
        assert form is not None
        assert aside is not None
        self.assertEqual(aside["x"] > form["x"] + form["width"], beside)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        self.assertEqual(sum(map(int, re.findall(r"\d+", ground))) < 384, dark)
        shot = page.screenshot(path=str(self.daemon.directory / "page.png"), full_page=True)
        self.assertEqual(int.from_bytes(shot[16:20], "big"), viewport["width"])
        self.assertGreater(int.from_bytes(shot[20:24], "big"), viewport["height"])
        # Every field and button can be reached with the keyboard, and shows that it was.
        page.focus(".skip")
        seen = []
        for _ in range(4):
            page.keyboard.press("Tab")
            seen.append(page.evaluate("document.activeElement.id"))
        self.assertEqual(seen, ["service", "type", "text", "send"])
        self.check()
