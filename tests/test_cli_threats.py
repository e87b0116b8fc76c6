"""C{ctsd threats}: the local database by hand."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import fail
from twisted.trial.unittest import SynchronousTestCase

from ctsd.commands.threat_files import expiry, read_csv, read_lines
from ctsd.errors import StoreError
from ctsd.model import Artifact, Property, Threat
from tests.commands import NOW, CommandCase


class ThreatsCase(CommandCase):
    """Adds and looks at threats."""

    def stored(self) -> list[Threat]:
        """All threats."""
        return self.successResultOf(self.store.threats())

    def write(self, name: str, *lines: str) -> str:
        """A file to import."""
        path = self.dir / name
        path.write_text("\n".join(lines) + "\n")
        return str(path)


class AddTests(ThreatsCase):
    """C{ctsd threats add}."""

    def test_all_of_it(self) -> None:
        """A threat with everything is entered; its id is told."""
        told = self.succeed(
            *("threats", "add", "--name", "Botnet 7"),
            *("--artifact", "net.ip=192.168.1.1", "--artifact", "net.uri=http://x/?a=b"),
            *("--property", "string:campaign=X=Y", "--property", "number:score=80"),
            *("--property", "lat_lng:seen=49.61,6.13", "--property", "number:share=0.5"),
            *("--expires", "30d", "--note", "from the CERT"),
        )
        (threat,) = self.stored()
        self.assertEqual(told, f"{threat.id}\n")
        self.assertEqual((threat.name, threat.note), ("Botnet 7", "from the CERT"))
        self.assertEqual(
            threat.artifacts,
            (Artifact("net.ip", "192.168.1.1"), Artifact("net.uri", "http://x/?a=b")),
        )
        self.assertEqual(
            threat.properties,
            (
                Property("string", "campaign", "X=Y"),
                Property("number", "score", 80),
                Property("lat_lng", "seen", {"lat": 49.61, "lng": 6.13}),
                Property("number", "share", 0.5),
            ),
        )
        self.assertEqual(threat.expires, NOW + 30 * 86400)
        self.assertEqual(threat.searcher, "")
        self.assertEqual(self.closed, 1)

    def test_object_values(self) -> None:
        """Types whose value is an object take JSON; a port is a number."""
        self.succeed(
            *("threats", "add", "--name", "N", "--artifact", "net.port=4444"),
            *("--artifact", 'email.header={"name": "Subject", "value": "win"}'),
        )
        (threat,) = self.stored()
        self.assertEqual(
            [artifact.value for artifact in threat.artifacts],
            [4444, {"name": "Subject", "value": "win"}],
        )

    def test_wrong(self) -> None:
        """What is wrong is told by the option's name; nothing is entered."""
        good = ["threats", "add", "--name", "N", "--artifact", "net.ip=192.0.2.1"]
        for more, told in (
            (["--artifact", "net.ip"], "--artifact: expected TYPE=VALUE"),
            (["--artifact", "nope=1"], "'nope' is no artifact type"),
            (["--artifact", "net.ip="], "artifacts[1].value: is empty"),
            (["--artifact", "net.ip=not an ip"], "artifacts[1].value: expected an IP address"),
            (["--artifact", "hash.md5=x"], "artifacts[1].value: expected 32 hex digits"),
            (["--artifact", "system.user.password=x"], "passwords are never stored"),
            (["--artifact", "email.header=x"], "artifacts[1].value: expected"),
            (["--property", "campaign=X"], "--property: expected TYPE:NAME=VALUE"),
            (["--property", "text:campaign=X"], "string, number, uri, ip, lat_lng"),
            (["--property", "number:n=x"], "needs a number"),
            (["--property", "lat_lng:n=x"], "needs two numbers"),
            (["--property", "string:n="], "properties[0].value: is missing"),
            (["--expires", "soon"], "--expires: expected a date like"),
            (["--expires", "1999-01-01"], "--expires: expected a date in the future"),
            (["--name", " "], "name: expected"),
        ):
            self.assertFails(*good, *more, told=told)
        self.assertFails(
            *good[:4], "--artifact", "file.content=x.exe", told="a file is found by its hashes"
        )
        self.assertEqual(self.stored(), [])
        self.assertEqual(self.closed, 0)

    def test_store_away(self) -> None:
        """When the store fails, one line says so, and the store is closed."""
        self.store.add = lambda **what: fail(StoreError("the disk is full"))
        self.assertFails(
            *("threats", "add", "--name", "N", "--artifact", "net.ip=192.0.2.1"),
            told="the disk is full",
        )
        self.assertEqual(self.closed, 1)


class LookTests(ThreatsCase):
    """C{list}, C{show}, C{delete} and C{export}."""

    def setUp(self) -> None:
        """Three threats; the last one is a searcher's."""
        super().setUp()
        self.threats = [
            Threat(
                name="One",
                artifacts=(Artifact("net.ip", "192.0.2.1"), Artifact("net.port", 4444)),
                properties=(Property("string", "campaign", "X"), Property("number", "n", 1)),
                note="noted",
                expires=NOW + 86400,
            ),
            Threat(name="Two \x1b[2J", artifacts=(Artifact("string", "a\nb" * 100),)),
            Threat(
                name="Three",
                artifacts=(Artifact("net.ip", "192.0.2.3"),),
                searcher="phishtank",
                source=b"x" * 16,
            ),
        ]
        self.ids = self.successResultOf(self.store.add(threats=self.threats))

    def test_list(self) -> None:
        """One line for each threat, whatever is in it."""
        lines = self.succeed("threats", "list").splitlines()
        self.assertEqual(len(lines), 3)
        self.assertIn("by hand", lines[0])
        self.assertIn("One", lines[0])
        self.assertIn("until 2027-01-16", lines[0])
        self.assertIn("net.ip=192.0.2.1 (+1)", lines[0])
        self.assertIn("Two \\x1b[2J", lines[1])
        self.assertIn("phishtank", lines[2])

    def test_list_in_parts(self) -> None:
        """A long list says how to see more of it."""
        self.assertEqual(self.run_command("threats", "list", "--limit", "2"), 0)
        self.assertEqual(len(self.out.splitlines()), 2)
        self.assertIn(f"--after {self.ids[1]}", self.err)
        rest = self.succeed("threats", "list", "--after", str(self.ids[1]), "--limit", "2")
        self.assertEqual(len(rest.splitlines()), 1)

    def test_show(self) -> None:
        """All about one threat."""
        shown = self.succeed("threats", "show", str(self.ids[0]))
        for line in (
            "name      One",
            "from      by hand",
            "expires   2027-01-16 08:00:00Z",
            "artifact  net.ip=192.0.2.1",
            "artifact  net.port=4444",
            "property  string:campaign=X",
            "property  number:n=1",
            "note      noted",
        ):
            self.assertIn(line + "\n", shown)
        self.assertIn("from      phishtank\n", self.succeed("threats", "show", str(self.ids[2])))

    def test_show_none(self) -> None:
        """A threat that is not there is an error."""
        self.assertFails("threats", "show", "999", told="there is no threat 999")

    def test_delete(self) -> None:
        """Threats are removed by their ids."""
        told = self.succeed("threats", "delete", str(self.ids[0]), str(self.ids[2]))
        self.assertEqual(told, "2 removed\n")
        self.assertEqual([threat.id for threat in self.stored()], [self.ids[1]])

    def test_delete_none(self) -> None:
        """With a wrong id among them nothing is removed."""
        self.assertFails("threats", "delete", str(self.ids[0]), "999", told="no threat 999")
        self.assertEqual(len(self.stored()), 3)

    def test_impossible_ids(self) -> None:
        """An id that no store can count to is no threat, in one line."""
        for huge in (2**63, 10**40):
            self.assertFails("threats", "show", str(huge), told=f"there is no threat {huge}")
            self.assertFails(
                *("threats", "delete", str(self.ids[0]), str(huge)),
                told=f"there is no threat {huge}; nothing was removed",
            )
            self.assertFails(
                *("threats", "list", "--after", str(huge)),
                told=f"--after: expected an id from 0 to {2**63 - 1}",
            )
        self.assertFails("threats", "show", "--", "-1", told="there is no threat -1")
        self.assertEqual(self.succeed("threats", "list", "--after", str(2**63 - 1)), "")

    def test_export(self) -> None:
        """What people entered comes out, and goes in again as it was."""
        text = self.succeed("threats", "export")
        self.assertEqual(
            [json.loads(line)["name"] for line in text.splitlines()], ["One", "Two \x1b[2J"]
        )
        self.successResultOf(self.store.delete(threat_ids=self.ids))
        self.succeed("threats", "import", self.write("back.jsonl", text))
        self.assertEqual(
            [
                (one.name, one.artifacts, one.properties, one.note, one.expires)
                for one in self.stored()
            ],
            [
                (one.name, one.artifacts, one.properties, one.note, one.expires)
                for one in self.threats[:2]
            ],
        )

    def test_export_all(self) -> None:
        """With C{--all} what searchers found comes out, too."""
        self.assertEqual(len(self.succeed("threats", "export", "--all").splitlines()), 3)


class ImportTests(ThreatsCase):
    """C{ctsd threats import}."""

    def test_lines(self) -> None:
        """JSON lines are entered; empty lines and a byte order mark do no harm."""
        name = self.write(
            "t.jsonl",
            '\ufeff{"name": "A", "artifacts": [{"type": "net.ip", "value": "192.0.2.1"}]}',
            "",
            '{"name": "B", "artifacts": [{"type": "net.port", "value": "80"}]}',
        )
        self.assertEqual(self.succeed("threats", "import", name), "2 threats entered\n")
        self.assertEqual([threat.name for threat in self.stored()], ["A", "B"])

    def test_csv(self) -> None:
        """A CSV with a header is entered, one threat a row."""
        name = self.write(
            "t.csv",
            "\ufeffname,type,value,note,expires,string:campaign,number:score",
            "A,net.ip,192.0.2.1,,,X,",
            '"B, ""b""",string,"two\nlines",noted,2031-01-31,,80',
        )
        self.succeed("threats", "import", name)
        one, two = self.stored()
        self.assertEqual(one.properties, (Property("string", "campaign", "X"),))
        self.assertEqual((two.name, two.note), ('B, "b"', "noted"))
        self.assertEqual(two.artifacts, (Artifact("string", "two\nlines"),))
        self.assertEqual(two.properties, (Property("number", "score", 80),))
        self.assertEqual(two.expires, datetime(2031, 1, 31, tzinfo=UTC).timestamp())

    def test_standard_input(self) -> None:
        """C{-} is standard input; its format has to be said."""
        self.stdin = b'{"name": "A", "artifacts": [{"type": "net.ip", "value": "192.0.2.1"}]}'
        self.assertFails("threats", "import", "-", told="say --format")
        self.succeed("threats", "import", "-", "--format", "jsonl")
        self.assertEqual(len(self.stored()), 1)

    def test_all_or_nothing(self) -> None:
        """A wrong line is told with its number, and nothing is entered, not even lines before."""
        good = '{"name": "A", "artifacts": [{"type": "net.ip", "value": "192.0.2.%d"}]}'
        lines = [good % (number % 250) for number in range(2500)]
        name = self.write("t.jsonl", *lines, "nonsense", *lines)
        self.assertEqual(self.run_command("threats", "import", name), 1)
        self.assertIn(f"ctsd: {name}:2501: the line is not JSON\n", self.err)
        self.assertIn("nothing was entered", self.err)
        self.assertEqual(self.stored(), [])
        self.assertEqual(self.successResultOf(self.store.abandon_import(import_id=1)), 0)

    def test_value_of_another_type(self) -> None:
        """A value that can't be of its type is told with its line, and nothing is entered."""
        line = '{"name": "A", "artifacts": [{"type": "net.ip", "value": "%s"}]}'
        name = self.write("t.jsonl", line % "192.0.2.1", line % "s3cret")
        self.assertEqual(self.run_command("threats", "import", name), 1)
        self.assertIn(f"{name}:2: artifacts[0].value: expected an IP address", self.err)
        self.assertNotIn("s3cret", self.err)
        self.assertEqual(self.stored(), [])

    def test_several_errors(self) -> None:
        """Several wrong lines are told at once, but not without end."""
        name = self.write("t.jsonl", *["x"] * 30)
        self.run_command("threats", "import", name)
        self.assertEqual(self.err.count("not JSON"), 10)
        self.assertIn("further lines were not looked at", self.err)

    def test_wrong_csv(self) -> None:
        """What is wrong with a CSV is told with its line."""
        head = "name,type,value"
        for lines, told in (
            (["type,value"], "1: the header has no column name"),
            ([head + ",color"], "1: 'color': no such column"),
            ([head + ",string:a,string:a"], "1: the column 'string:a' is there twice"),
            ([head, "A,net.ip"], "2: expected 3 columns, not 2"),
            ([head, 'A,string,"a\nb"', "B,nope,1"], "4: artifacts[0].type: 'nope' is no artifact"),
            ([head, "A,net.ip,::1", "B,net.ip,x"], "3: artifacts[0].value: expected an IP address"),
            ([head + ",expires", "A,net.ip,192.0.2.1,soon"], "2: expected a date"),
            ([head + ",number:n", "A,net.ip,192.0.2.1,x"], "2: a number property"),
            ([head, 'A,net.ip,"192"x'], "2: no CSV"),
        ):
            name = self.write("t.csv", *lines)
            self.assertEqual(self.run_command("threats", "import", name), 1)
            self.assertIn(f"ctsd: {name}:{told}", self.err)
        self.assertEqual(self.stored(), [])

    def test_no_text(self) -> None:
        """A file that is no text is told, in both formats."""
        for name in ("t.csv", "t.jsonl"):
            (self.dir / name).write_bytes(b"name,type,value\nA,string,\xff\xfe\n")
            self.assertEqual(self.run_command("threats", "import", str(self.dir / name)), 1)
            self.assertIn("nothing was entered", self.err)

    def test_store_fails(self) -> None:
        """A store that fails on the way is one line; the import is taken back."""
        self.store.add_to_import = lambda **what: fail(StoreError("the disk is full"))
        name = self.write(
            "t.jsonl", '{"name": "A", "artifacts": [{"type": "net.ip", "value": "192.0.2.1"}]}'
        )
        self.assertFails("threats", "import", name, told="the disk is full")
        self.assertEqual(self.successResultOf(self.store.abandon_import(import_id=1)), 0)

    def test_unknown_format(self) -> None:
        """A name that does not tell the format needs C{--format}."""
        name = self.write("t.txt", "name,type,value", "A,net.ip,192.0.2.1")
        self.assertFails("threats", "import", name, told="--format")
        self.succeed("threats", "import", name, "--format", "csv")

    def test_progress(self) -> None:
        """On a terminal the progress is told, and wiped at the end."""
        self.terminal = True
        good = '{"name": "A%d", "artifacts": [{"type": "net.port", "value": %d}]}'
        name = self.write("t.jsonl", *(good % (number, number) for number in range(10_000)))
        self.assertEqual(self.run_command("threats", "import", name), 0)
        self.assertIn("5000 threats read (", self.err)
        self.assertTrue(self.err.endswith("\r\x1b[K"))
        self.terminal = False
        self.succeed("threats", "import", name)


class ExpiryTests(SynchronousTestCase):
    """What can be written for C{--expires}."""

    def test_forms(self) -> None:
        """Durations count from now; dates are UTC unless they say otherwise."""
        for text, expected in (
            ("12h", NOW + 12 * 3600),
            ("2w", NOW + 14 * 86400),
            ("2031-01-31", datetime(2031, 1, 31, tzinfo=UTC).timestamp()),
            ("2031-01-31T02:00:00+02:00", datetime(2031, 1, 31, tzinfo=UTC).timestamp()),
        ):
            self.assertEqual(expiry(text, now=NOW), expected)
        for text in ("", "0d", "-1d", "30", "1y", "2031-13-01", "9999999d"):
            self.assertRaises(ValueError, expiry, text, now=NOW)


class AnyFileTests(SynchronousTestCase):
    """Files that anybody may hand us."""

    @given(
        st.binary(max_size=200)
        | st.text(alphabet='name,typvalu:"\n\r\0x', max_size=80).map(str.encode)
    )
    @settings(deadline=None)
    def test_any_bytes(self, data: bytes) -> None:
        """Whatever is in a file, its lines are threats or errors."""

        for read in (read_lines, lambda stream: read_csv(stream, now=NOW)):
            found: list[tuple[int, Any]] = list(read(io.BytesIO(data)))
            for number, one in found:
                self.assertGreaterEqual(number, 1)
                self.assertIsInstance(one, Threat | ValueError)
