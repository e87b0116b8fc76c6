"""C{ctsd scan}: what is asked, and how the answer is shown."""

from __future__ import annotations

import hashlib
import json

from ctsd.model import NOTHING, Artifact, EncodedHit, Ended, Outcome, Suppressed
from tests.commands import CommandCase

HIT = EncodedHit(
    b'{"props":[{"type":"string","name":"campaign","value":"X\\u001b[2J"},'
    b'{"type":"number","name":"n","value":7}]}'
)


class AskTests(CommandCase):
    """What becomes of the command line."""

    def asked_for(self, *arguments: str) -> Artifact:
        """The artifact that the command asks for."""
        self.assertEqual(self.run_command("scan", *arguments), 0, self.err)
        artifact = self.asked[-1]["artifact"]
        assert isinstance(artifact, Artifact)
        return artifact

    def test_value(self) -> None:
        """A type and a value are asked of all searchers, or of one."""
        self.assertEqual(
            self.asked_for("net.uri", "www.megastore.lu"), Artifact("net.uri", "www.megastore.lu")
        )
        self.assertIsNone(self.asked[-1]["searcher"])
        self.asked_for("net.ip", "192.0.2.1", "--searcher", "internal")
        self.assertEqual(self.asked[-1]["searcher"], "internal")
        self.assertEqual(self.asked[-1]["settings"].base_dir, self.dir)

    def test_shapes(self) -> None:
        """The value gets its type's shape."""
        self.assertEqual(self.asked_for("net.port", "80").value, 80)
        header = '{"name": "Subject", "value": "win"}'
        self.assertEqual(self.asked_for("email.header", header).value, json.loads(header))

    def test_standard_input(self) -> None:
        """A secret or a long value can come from standard input."""
        self.stdin = b"hunter2\n"
        self.assertEqual(self.asked_for("system.user.password", "-").value, "hunter2")
        self.stdin = b"Subject: x\n\nbody\n"
        self.assertEqual(self.asked_for("email", "-").value, "Subject: x\n\nbody\n")

    def test_file(self) -> None:
        """A file comes along with its hashes; its name is the value."""
        path = self.dir / "bad.exe"
        path.write_bytes(b"MZ" * 1_000_000)
        artifact = self.asked_for("file.content", "--file", str(path))
        file = artifact.file
        assert file is not None
        self.assertEqual((artifact.value, file.name, file.size), ("bad.exe", "bad.exe", 2_000_000))
        self.assertEqual(file.path, path)
        self.assertEqual(file.sha256, hashlib.sha256(b"MZ" * 1_000_000).hexdigest())
        self.assertEqual(file.md5, hashlib.md5(b"MZ" * 1_000_000).hexdigest())

    def test_wrong(self) -> None:
        """What is no artifact is told, without its value."""
        for arguments, told in (
            (("nope", "1"), "nope: no such artifact type"),
            (("net.ip",), "expected a VALUE or --file"),
            (("net.ip", " "), "is empty"),
            (("net.port", "s3cret"), "VALUE: expected"),
            (("file.content", "--file", f"{self.dir}/no"), f"{self.dir}/no: No such file"),
        ):
            self.assertFails("scan", *arguments, told=told)
            self.assertNotIn("s3cret", self.err)
        self.assertEqual(self.asked, [])


class TellTests(CommandCase):
    """How the answer is shown."""

    def setUp(self) -> None:
        """One searcher found something, one did not, one could not be asked."""
        super().setUp()
        self.outcomes = [
            ("internal", Outcome(Ended.FOUND, hits=(HIT,))),
            ("phishtank", NOTHING),
            ("remote", Outcome(Ended.FAILED, reason="no\nroute")),
        ]

    def test_readable(self) -> None:
        """One line for each searcher, then its hits; could not ask is status 3."""
        self.assertEqual(self.run_command("scan", "net.ip", "192.0.2.1"), 3)
        self.assertEqual(
            self.out,
            "internal: 1 found\n"
            "  1  campaign: X\\x1b[2J\n"
            "  1  n: 7\n"
            "phishtank: nothing\n"
            "remote: could not ask: no\\nroute\n",
        )

    def test_json(self) -> None:
        """The same as JSON."""
        self.assertEqual(self.run_command("scan", "net.ip", "192.0.2.1", "--json"), 3)
        self.assertEqual(
            json.loads(self.out),
            {
                "type": "net.ip",
                "searchers": [
                    {"searcher": "internal", "ended": "found", "hits": [json.loads(HIT)]},
                    {"searcher": "phishtank", "ended": "nothing"},
                    {"searcher": "remote", "ended": "failed", "reason": "no\nroute"},
                ],
            },
        )

    def test_suppressed(self) -> None:
        """What was found and is no hit is told, by whose word, without its value."""
        suppressed = (Suppressed("mine", "net.ip", "allowed by X\x1b[2J: ours"),)
        self.outcomes = [
            ("feeds", Outcome(Ended.NOTHING, suppressed=suppressed, suppressed_more=4))
        ]
        self.assertEqual(self.run_command("scan", "net.ip", "192.0.2.1"), 0)
        self.assertEqual(
            self.out,
            "feeds: nothing\n"
            "  no hit: net.ip of feed mine: allowed by X\\x1b[2J: ours\n"
            "  no hit: 4 more\n",
        )
        self.assertEqual(self.run_command("scan", "net.ip", "192.0.2.1", "--json"), 0)
        (one,) = json.loads(self.out.partition("more\n")[2] or self.out)["searchers"]
        self.assertEqual(
            one["suppressed"],
            [{"feed": "mine", "type": "net.ip", "by": "allowed by X\x1b[2J: ours"}],
        )
        self.assertEqual(one["suppressed_more"], 4)

    def test_all_asked(self) -> None:
        """When all could be asked the status is 0, found or not."""
        del self.outcomes[2]
        self.assertEqual(self.run_command("scan", "net.ip", "192.0.2.1"), 0)

    def test_later(self) -> None:
        """Who has no answer yet could not be asked."""
        self.outcomes = [("slow", Outcome(Ended.LATER, after_secs=5))]
        self.assertEqual(self.run_command("scan", "net.ip", "192.0.2.1"), 3)
        self.assertEqual(self.out, "slow: could not ask: later\n")

    def test_nobody(self) -> None:
        """When no searcher wants the type, that is said."""
        self.outcomes = []
        self.assertEqual(self.run_command("scan", "net.ip", "192.0.2.1"), 0)
        self.assertEqual(self.out, "no searcher supports this type\n")
