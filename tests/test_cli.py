"""The C{ctsd} command: its frame, C{check} and C{searchers}."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctsd import __version__
from ctsd.commands.world import become_owner, shown, table
from ctsd.feeds.index import About
from ctsd.feeds.job import label_of, source_of
from ctsd.feeds.reading import Reading
from ctsd.feeds.told import Told, write_told
from ctsd.feeds.writer import IndexWriter
from ctsd.records import Record
from ctsd.scanning.failing import FailingFile
from ctsd.states import Failing
from tests.commands import NOW, CommandCase
from tests.test_config import write_key_pair
from tests.test_passwords import argon2

SEARCHER = """
from ctsd.searching import BaseArtifactSearch, NotConfigured, SearcherSetup

class Keyed(BaseArtifactSearch):
    keys = {{"api_key": str}}
    def start(self, setup):
        if "api_key" not in setup.settings:
            raise NotConfigured("no api_key")
    def describe(self):
        return "ten records"
    def trouble(self):
        return {trouble!r}
"""


class FrameTests(CommandCase):
    """What all commands have in common."""

    def test_version(self) -> None:
        """It says its version."""
        self.assertEqual(self.succeed("--version"), f"ctsd {__version__}\n")

    def test_usage(self) -> None:
        """Wrong usage is exit status 2, and says what can be written."""
        for arguments in ([], ["nope"], ["threats"], ["threats", "show", "x"], ["scan"]):
            self.assertEqual(self.run_command(*arguments), 2)
            self.assertIn("usage: ctsd", self.err)

    def test_help(self) -> None:
        """Each command has a help."""
        for command in (["check"], ["searchers"], ["scan"], ["threats"], ["threats", "import"]):
            self.assertIn("usage: ctsd", self.succeed(*command, "--help"))

    def test_bad_configuration(self) -> None:
        """Every command stops at a bad configuration with its one line."""
        self.config.write_text("retention_days = 'x'\n")
        for command in (["check"], ["searchers"], ["scan", "net.ip", "::1"], ["threats", "list"]):
            self.assertFails(*command, told=f"{self.config}:1: retention_days: expected a number")

    def test_passed_over(self) -> None:
        """Every command warns of a file that is passed over, and goes by the defaults."""
        self.config.chmod(0o666)
        self.environ = {}
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.dir)
        warning = f"ctsd: warning: built-in defaults serve: {self.config}: is passed over: "
        for command in ("check", "searchers"):
            self.assertEqual(self.run_command(command), 0)
            self.assertIn(warning, self.err)
            self.assertIn("phishtank", self.out)

    def test_other_configuration(self) -> None:
        """A configuration can be named."""
        other = self.dir / "other.toml"
        other.write_text("retention_day = 1\n")
        self.assertFails("check", "--config", str(other), told=f"{other}:1: retention_day")

    def test_unforeseen_file_trouble(self) -> None:
        """A file that can't be read is one line, too."""
        self.assertFails(
            "threats", "import", f"{self.dir}/no.csv", told=f"{self.dir}/no.csv: No such file"
        )


class ShownTests(SynchronousTestCase):
    """What reaches a terminal."""

    def test_control_characters(self) -> None:
        """Nothing that came from a feed moves the cursor, hides, or begins a line."""
        self.assertEqual(shown("a\x1b[2Jb\nc\u202ed\ud800"), "a\\x1b[2Jb\\nc\\u202ed\\ud800")
        self.assertEqual(shown("Zürich 東京"), "Zürich 東京")

    def test_table(self) -> None:
        """Columns stand below each other."""
        self.assertEqual(table([("a", "b", ""), ("ccc", "d\n", "e")]), ["a    b", "ccc  d\\n  e"])


class CheckTests(CommandCase):
    """C{ctsd check}."""

    def write_searcher(self, rest: str, trouble: str = "") -> None:
        """A configuration with the searcher C{keyed}."""
        more = self.dir / "more"
        more.mkdir(mode=0o755, exist_ok=True)
        (more / "keyed.py").write_text(SEARCHER.format(trouble=trouble))
        self.config.write_text(f"[searchers]\npath = ['more']\nsync = []\n{rest}")

    def test_good(self) -> None:
        """A good configuration: no error, and what would be on."""
        self.run_command("check")
        self.assertIn(
            f"{self.config}: 0 errors, 1 warning; on: internal, internal_text\n", self.out
        )
        self.assertIn("warning: searcher phishtank is off: not listed", self.err)

    def test_unknown_searcher(self) -> None:
        """An unknown searcher is an error."""
        self.config.write_text("[searchers]\nasync = ['nope']\n")
        self.assertFails("check", told=f"{self.config}:2: searchers.async[0]: no such searcher")

    def test_off(self) -> None:
        """A searcher that lacks its key is off, and why is told; that is a warning."""
        self.write_searcher("async = ['keyed']")
        self.assertEqual(self.run_command("check"), 0)
        self.assertIn("warning: searcher keyed is off: no api_key", self.err)
        self.assertIn("on: no searcher", self.out)

    def test_broken(self) -> None:
        """A searcher that shall be on and does not import is an error."""
        self.write_searcher("async = ['keyed']")
        (self.dir / "more" / "keyed.py").write_text("import nothing_such")
        self.assertEqual(self.run_command("check"), 1)
        self.assertIn("error: searcher keyed is off: does not import", self.err)
        self.assertIn("1 error,", self.out)

    def test_secrets_are_not_told(self) -> None:
        """No value of a secret is printed."""
        (self.dir / "s").write_text("s3cret")
        self.write_searcher("async = ['keyed']\n[searchers.keyed]\napi_key = { file = 's' }")
        for command in ("check", "searchers"):
            self.assertEqual(self.run_command(command), 0)
            self.assertNotIn("s3cret", self.out + self.err)

    def test_open_listeners(self) -> None:
        """A listener that other machines reach without TLS and auth is a warning."""
        write_key_pair(self.dir)
        self.config.write_text(
            "listen = ['tcp:8000', 'ssl:8443:privateKey=k.pem:certKey=c.pem', 'unix:s',"
            " 'tcp:1:interface=127.0.0.1']\n"
        )
        self.run_command("check")
        self.assertIn("tcp:8000 is open to other machines without TLS and auth\n", self.err)
        self.assertIn("is open to other machines without auth\n", self.err)
        self.assertEqual(self.err.count("is open"), 2)

    def test_state_dir(self) -> None:
        """A state_dir that can't be made or used is an error with its line and key."""
        (self.dir / "file").write_text("")
        (self.dir / "link").symlink_to("nowhere")
        for given, told in (
            ("file", f"{self.dir}/file is no directory"),
            ("file/below/x", f"{self.dir}/file/below/x can't be made: {self.dir}/file is no dir"),
            ("link", f"{self.dir}/link is no directory"),
            ("x" * 300, "File name too long"),
        ):
            self.config.write_text(f"\nstate_dir = '{given}'\n")
            self.assertEqual(self.run_command("check"), 1)
            self.assertIn(f"ctsd: error: {self.config}:2: state_dir: ", self.err)
            self.assertIn(told, self.err)
            self.assertIn("1 error, ", self.out)

    def test_state_dir_of_others(self) -> None:
        """Neither can one, or its parent, that we may not write to."""
        self.config.write_text("\nstate_dir = 'a/b'\n")
        self.patch(os, "access", lambda path, mode, **kwargs: Path(path) != self.dir)
        self.assertEqual(self.run_command("check"), 1)
        self.assertIn(f":2: state_dir: {self.dir} is not ours to make b in", self.err)
        (self.dir / "a" / "b").mkdir(parents=True)
        self.assertEqual(self.run_command("check"), 0)
        self.patch(os, "access", lambda path, mode, **kwargs: Path(path) == self.dir)
        self.assertEqual(self.run_command("check"), 1)
        self.assertIn(f":2: state_dir: {self.dir}/a/b is not ours to read and write", self.err)

    def test_state_dir_open_to_others(self) -> None:
        """One to which others may write is a warning."""
        var = self.dir / "var"
        var.mkdir()
        for mode, warned in ((0o755, False), (0o775, True), (0o707, True), (0o700, False)):
            var.chmod(mode)
            self.assertEqual(self.run_command("check"), 0)
            warning = f"warning: others may write to {var} (chmod go-w)\n"
            self.assertEqual(warning in self.err, warned, oct(mode))

    def test_password_files(self) -> None:
        """A password file that is missing or malformed is a warning with its key: we do start."""
        self.config.write_text("\nlisten = ['unix:s', 'auth:users:tcp:1']\n")
        users = self.dir / "users"
        for content, told in (
            (None, "No such file"),
            ("", "it is empty"),
            ("ann:plain", "line 1 has no argon2"),
        ):
            if content is not None:
                users.write_text(content)
            self.assertEqual(self.run_command("check"), 0)
            self.assertIn(f"warning: {self.config}:2: listen[1]: the password file", self.err)
            self.assertIn(told, self.err)
            self.assertNotIn("plain", self.err)
        users.write_text(f"ann:{argon2('x')}\n")
        self.assertEqual(self.run_command("check"), 0)
        self.assertNotIn("password file", self.err)

    def test_users(self) -> None:
        """Users of services whom no file has, and listeners that don't ask for them, are told."""
        self.config.write_text(
            "listen = ['tcp:1:interface=127.0.0.1', 'auth:users:tcp:2']\n"
            "[services.a]\nsearchers = ['internal']\nusers = ['ann', 'zoe']\n"
        )
        (self.dir / "users").write_text(f"ann:{argon2('x')}\n")
        self.assertEqual(self.run_command("check"), 0)
        everybody = "everybody who reaches tcp:1:interface=127.0.0.1 may ask service a"
        self.assertIn(f"warning: {everybody}\n", self.err)
        self.assertIn("warning: no password file has zoe, a user of service a\n", self.err)
        self.assertNotIn("has ann", self.err)

    def test_certificates(self) -> None:
        """A certificate that ends within 30 days, or has ended, is a warning."""
        key, certificate = write_key_pair(self.dir, days=40)
        self.config.write_text(
            f"listen = ['ssl:1:privateKey={key}:certKey={certificate}:interface=127.0.0.1']\n"
        )

        now = time.time()
        for ahead_days, told in (
            (0, ""),
            (15, "ends on"),
            (41, "has ended on"),
            (-9, "is not valid yet"),
        ):
            self.clock.advance(now + ahead_days * 86400 - self.clock.seconds())
            self.run_command("check")
            self.assertIn(f"the certificate {certificate} {told}" if told else "", self.err)
            self.assertEqual("the certificate" in self.err, bool(told))

    def test_searchers(self) -> None:
        """The table shows who is on, who is off and why, and what is known about each."""
        self.write_searcher("async = ['keyed']\n[searchers.keyed]\napi_key = 'x'")
        lines = self.succeed("searchers").splitlines()
        self.assertEqual(lines[0].split(), ["NAME", "MODE", "STATE", "ABOUT"])
        self.assertEqual(lines[1].split(None, 3), ["keyed", "async", "on", "ten records"])
        self.assertEqual(
            lines[2].split(None, 3),
            ["internal", "-", "off", "not listed under searchers.sync or .async"],
        )

    def test_searchers_in_trouble(self) -> None:
        """A searcher that is on and can't answer well says so."""
        self.write_searcher(
            "async = ['keyed']\n[searchers.keyed]\napi_key = 'x'", trouble="its file is gone"
        )
        self.assertIn("trouble  its file is gone; ten records", self.succeed("searchers"))
        self.run_command("check")
        self.assertIn("warning: searcher keyed: its file is gone", self.err)

    def test_failing(self) -> None:
        """Who keeps failing, as the daemon says that runs now, is told; of a dead one nothing."""
        self.write_searcher("async = ['keyed']\n[searchers.keyed]\napi_key = 'x'")
        file = FailingFile(self.dir / "var" / "failing" / "daemon")
        (self.dir / "var").mkdir(mode=0o700)
        file.write({"keyed": Failing(NOW, NOW), "gone": Failing(1, 2)})
        told = "could not be asked since 2027-01-15 08:00:00 UTC; the log says why"
        self.assertIn(f"failing  {told}; ten records\n", self.succeed("searchers"))
        self.assertEqual(self.run_command("check"), 0)
        self.assertIn(f"warning: searcher keyed: {told}\n", self.err)
        self.assertNotIn("gone", self.err)
        left = file.path.read_text()
        file.write({})
        file.path.write_text(left)
        self.assertIn("on     ten records\n", self.succeed("searchers"))

    def test_searchers_that_break(self) -> None:
        """A searcher that breaks when it is to tell of itself is shown as broken; no command is."""
        self.write_searcher("async = ['keyed']\n[searchers.keyed]\napi_key = 'x'")
        with (self.dir / "more" / "keyed.py").open("a") as file:
            file.write("    def trouble(self):\n        raise ValueError('x')\n")
            file.write("    def describe(self):\n        return 7\n")
        self.assertRegex(
            self.succeed("searchers"), r"keyed +async +trouble +broken: ValueError; 7\n"
        )
        self.assertEqual(self.run_command("check"), 0)
        self.assertIn("warning: searcher keyed: broken: ValueError\n", self.err)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_index(self) -> None:
        """What the daemon has indexed of a file is told; its absence is no error."""
        self.config.write_text("[searchers.phishtank]\nfile = 'p.csv'\n")
        (self.dir / "p.csv").write_text("")
        self.assertIn("on     not indexed yet", self.succeed("searchers"))
        index = self.dir / "var" / "index"
        index.mkdir(parents=True)
        for name, records in (("phishtank-records", 3), ("threats", 2)):
            with IndexWriter(index / name, now=self.clock.seconds) as writer:
                for number in range(records):
                    writer.add(Record(type="net.uri", value=f"http://{number}.example/"))
                writer.publish(About(source="s"))
        told = self.succeed("searchers")
        self.assertRegex(told, r"internal +sync +on +2 records, indexed 2027-01-15 08:00 UTC\n")
        self.assertRegex(told, r"phishtank +async +on +3 records, indexed 2027-01-15 08:00 UTC\n")

    def test_damaged_index(self) -> None:
        """An index that is damaged counts as none."""
        index = self.dir / "var" / "index"
        index.mkdir(parents=True)
        (index / "threats").write_bytes(b"no index")
        self.assertRegex(self.succeed("searchers"), r"internal +sync +on\n")

    def test_refused_data_file(self) -> None:
        """What the daemon has found wrong with a data file is told while that file lies there."""
        self.config.write_text("[searchers.phishtank]\nfile = 'p.csv'\n")
        file = self.dir / "p.csv"
        file.write_text("<html>")
        index = self.dir / "var" / "index" / "phishtank-records"
        index.parent.mkdir(parents=True)
        label = label_of(reading=Reading.of_catalogue("phishtank", file).as_text())
        for source in ("", source_of(label, file.stat())):
            write_told(index, Told("p.csv is refused: its header", source))
            self.assertIn(
                "trouble  p.csv is refused: its header; not indexed yet", self.succeed("searchers")
            )
            self.assertEqual(self.run_command("check"), 0)
            self.assertIn("warning: searcher phishtank: p.csv is refused", self.err)
        file.write_text("another one")
        self.assertRegex(self.succeed("searchers"), r"phishtank +async +on +not indexed yet\n")
        file.unlink()
        os.mkfifo(file)
        self.assertEqual(self.run_command("check"), 0)
        self.assertIn("p.csv can't be read: it is no regular file", self.err)
        file.unlink()
        self.assertIn(f"{file} can't be read", self.succeed("searchers"))

    def test_missing_data_file(self) -> None:
        """A data file that is missing is a warning; the source is in trouble, not off."""
        self.config.write_text("[searchers.phishtank]\nfile = 'p.csv'\n")
        self.assertEqual(self.run_command("check"), 0)
        self.assertIn(f"warning: searcher phishtank: {self.dir}/p.csv can't be read", self.err)
        self.assertRegex(self.succeed("searchers"), r"phishtank +async +trouble +.*/p.csv can't")


class OwnerTests(SynchronousTestCase):
    """Root does not leave files that the daemon can't write."""

    def become(self, *, uid: int, owner: int) -> list[tuple[object, ...]]:
        """What happens when we are C{uid} and the state is C{owner}'s."""
        state = Path(self.mktemp()).absolute()
        state.mkdir()
        calls: list[tuple[object, ...]] = []
        real = os.stat_result
        self.patch(os, "umask", lambda mask: calls.append(("umask", mask)))
        self.patch(os, "geteuid", lambda: uid)
        self.patch(os, "setuid", lambda *given: calls.append(("setuid", *given)))
        self.patch(os, "setgid", lambda *given: calls.append(("setgid", *given)))
        self.patch(os, "setgroups", lambda *given: calls.append(("setgroups", *given)))
        self.patch(os, "initgroups", lambda *given: calls.append(("initgroups", *given)))
        stat = list(state.stat())
        stat[4], stat[5] = owner, owner + 1
        self.patch(Path, "stat", lambda path, **kwargs: real(stat))
        become_owner(state)
        return calls

    def test_root(self) -> None:
        """Root becomes the state's owner: groups first, the user last."""
        name = pwd.getpwall()[1]
        self.assertEqual(
            self.become(uid=0, owner=name.pw_uid),
            [
                ("umask", 0o077),
                ("initgroups", name.pw_name, name.pw_uid + 1),
                ("setgid", name.pw_uid + 1),
                ("setuid", name.pw_uid),
            ],
        )

    def test_nameless(self) -> None:
        """An owner without a name is fine."""
        calls = self.become(uid=0, owner=54321)
        self.assertEqual(calls[1:], [("setgroups", [54322]), ("setgid", 54322), ("setuid", 54321)])

    def test_nobody_else(self) -> None:
        """Who is not root stays who they are, and so does root with its own state."""
        self.assertEqual(self.become(uid=1000, owner=54321), [("umask", 0o077)])
        self.assertEqual(self.become(uid=0, owner=0), [("umask", 0o077)])
