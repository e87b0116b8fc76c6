"""Texts and messages find threats that were entered by hand, in a real daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from ctsd.feeds.contents import QUICK_CHARS
from tests.live.daemon import Answer, Daemon, wait_until
from tests.web_fixtures import MULTIPART, multipart, part

TEXT = "Please look at hxxp://www.evil[.]example/login, or call 192.0.2.7."
MESSAGE = (
    b"From: Bob <bob@bad.example>\r\nTo: al@good.example\r\nSubject: invoice\r\n\r\n"
    b"https://www.evil.example/x\r\n"
)


def found(answer: Answer) -> list[tuple[str, str]]:
    """The threats of an answer, and how they were found."""
    every = []
    for hit in answer.json["hits"]:
        props = {one["name"]: one["value"] for one in hit["props"]}
        every.append((props["Threat"], props.get("Matched", "")))
    return every


class LocalTextsTests(TestCase):
    """The searcher C{internal_text}."""

    timeout = 180
    config = '[services.own]\nsearchers = ["internal"]\n'

    def setUp(self) -> None:
        """A daemon with threats."""
        self.daemon = Daemon(Path(self.mktemp()), self.config)
        self.daemon.start()
        self.addCleanup(self.daemon.stop)
        for name, artifact in (
            ("domain", "net.name=evil.example"),
            ("range", "net.cidr=192.0.2.0/24"),
            ("sender", "email.header.sender_address=bob@bad.example"),
        ):
            self.daemon.ctsd("threats", "add", "--name", name, "--artifact", artifact)

    def final(self, answer: Answer, path: str = "/") -> Answer:
        """The answer of the scan when it has ended."""
        if answer.status == 303:
            answer = self.daemon.finished(answer.json["id"], path)
        self.assertEqual(answer.status, 200)
        return answer

    def finds(self, ask: Callable[[], Answer], wanted: list[tuple[str, str]]) -> None:
        """A scan finds these, as soon as the process that answers knows of them."""
        wait_until(lambda: found(ask()) == wanted, f"{wanted} found")

    def upload(self, artifact: bytes, name: str) -> Answer:
        """Send the message as a file."""
        body = multipart(part("artifact", artifact), part("file", MESSAGE, file_name=f'"{name}"'))
        return self.final(self.daemon.ask("POST", "/", body, {"Content-Type": MULTIPART}))

    def test_texts(self) -> None:
        """Short or long, in any service that asks the local database, the same at each rescan."""
        self.assertRegex(self.daemon.ctsd("searchers").stdout, r"internal_text +async +on")
        wanted = [
            ("domain", "parent domain of the URL's host (URL in the e-mail's body)"),
            ("range", "range that contains it (address in the e-mail's body)"),
        ]
        for text in (TEXT, TEXT + " and so on" * QUICK_CHARS):
            for path in ("/", "/own/", "/"):
                self.finds(partial(self.post, "email.body", text, path), wanted)
        self.finds(partial(self.post, "string", "good.example"), [])

    def post(self, type: str, value: str, path: str = "/") -> Answer:
        """Submit an artifact."""
        return self.final(self.daemon.post(type, value, path), path)

    def test_messages(self) -> None:
        """An uploaded message, by its name or its type; the files go."""
        wanted = [
            ("domain", "parent domain of the URL's host (URL in the e-mail)"),
            ("sender", "address in From"),
        ]
        self.finds(partial(self.upload, b'{"type":"file.content"}', "a.eml"), wanted)
        self.finds(partial(self.upload, b'{"type":"email"}', "a.bin"), wanted)
        self.finds(partial(self.upload, b'{"type":"file.content"}', "a.bin"), [])
        self.finds(partial(self.post, "email", MESSAGE.decode()), wanted)
        wait_until(lambda: not self.daemon.uploads(), "the files are removed")

    def test_scan_by_hand(self) -> None:
        """C{ctsd scan} finds the same, without the daemon, too."""
        file = self.daemon.directory / "a.eml"
        file.write_bytes(MESSAGE)
        self.assertEqual(self.daemon.stop(), 0)
        for arguments, names in (
            (("email.body", TEXT), ["domain", "range"]),
            (("string", TEXT + " and so on" * QUICK_CHARS), ["domain", "range"]),
            (("file.content", "--file", str(file)), ["domain", "sender"]),
        ):
            told = json.loads(self.daemon.ctsd("scan", *arguments, "--json").stdout)
            by_name: dict[str, Any] = {one["searcher"]: one for one in told["searchers"]}
            ours = by_name["internal_text"]
            self.assertEqual(ours["ended"], "found")
            self.assertEqual([hit["props"][0]["value"] for hit in ours["hits"]], names)
            self.assertEqual(by_name["internal"]["ended"], "nothing")


class WorkersTests(LocalTextsTests):
    """The same with several processes, where other scans are promised before they start."""

    config = f"workers = 2\n{LocalTextsTests.config}"
