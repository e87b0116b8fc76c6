"""Files of passwords, and the command that writes them."""

from __future__ import annotations

import os
import stat
from collections import Counter

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctsd import passwords
from ctsd.commands import passwd
from ctsd.passwords import BadPasswords, Passwords, parse
from tests.commands import CommandCase

#: Of little cost, so that the tests are fast.
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def argon2(password: str) -> str:
    """A hash of argon2."""
    return QUICK.hash(password)


def htpasswd(password: str, prefix: str = "$2y$", cost: int = 4) -> str:
    """What C{htpasswd -B} writes."""
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()
    return hashed.replace("$2b$", prefix)


def parsed(*lines: str) -> Passwords:
    """A file of these lines."""
    return parse("\n".join(lines).encode())


class VerifyTests(SynchronousTestCase):
    """Which passwords are right."""

    def test_kinds(self) -> None:
        """Argon2, and bcrypt with all of its prefixes."""
        for hashed in (
            argon2("x1"),
            htpasswd("x1"),
            htpasswd("x1", "$2a$"),
            htpasswd("x1", "$2b$"),
        ):
            file = parsed("ann:" + hashed)
            self.assertTrue(file.verify(b"ann", b"x1"))
            self.assertFalse(file.verify(b"ann", b"x2"))
            self.assertFalse(file.verify(b"ann", b""))
            self.assertFalse(file.verify(b"ann", b"x1\0"))
            self.assertFalse(file.verify(b"bob", b"x1"))
            self.assertFalse(file.verify(b"", b"x1"))

    def test_rotation(self) -> None:
        """Each line of a user is valid, of whatever kind."""
        file = parsed("ann:" + argon2("old"), "bob:" + argon2("his"), "ann:" + htpasswd("new"))
        self.assertEqual(
            [file.verify(b"ann", each) for each in (b"old", b"new", b"his")], [True, True, False]
        )
        self.assertEqual(file.users, {"ann", "bob"})
        self.assertEqual((file.knows(b"ann"), file.knows(b"zoe")), (True, False))

    def test_long_with_bcrypt(self) -> None:
        """As with htpasswd, what is beyond 72 bytes does not count; argon2 has no such end."""
        start = "x" * 72
        file = parsed("ann:" + htpasswd(start), "bob:" + argon2(start))
        self.assertTrue(file.verify(b"ann", start.encode() + b"more"))
        self.assertFalse(file.verify(b"bob", start.encode() + b"more"))

    def test_comments(self) -> None:
        """Comments, empty lines, blanks at the ends and Windows' line ends say nothing."""
        file = parsed("# ann:x", "", "  ", f"ann:{argon2('x')}  \r", "\t#")
        self.assertTrue(file.verify(b"ann", b"x"))

    def test_utf8(self) -> None:
        """A user may have a name in UTF-8."""
        self.assertTrue(parsed("jürg:" + argon2("ü")).verify("jürg".encode(), "ü".encode()))

    def test_repr(self) -> None:
        """No hash is shown."""
        self.assertNotIn("$", repr(parsed("ann:" + argon2("x"))))

    def test_same_work(self) -> None:
        """
        A wrong password costs the same hashes for all users, and for nobody: who has fewer lines
        of a kind than others gets dummies of that kind.
        """
        file = parsed(
            "ann:" + argon2("1"),
            "ann:" + argon2("2"),
            "bob:" + htpasswd("3"),
            "eve:" + argon2("4"),
            "eve:" + htpasswd("5", cost=5),
        )
        work: list[str] = []

        def matches(line: bytes, password: bytes) -> bool:
            work.append(line.decode().replace("$2y$", "$2b$").rpartition("$")[0][:24])
            return real(line, password)

        real = passwords._matches
        self.patch(passwords, "_matches", matches)
        done = []
        for user in (b"ann", b"bob", b"eve", b"zoe"):
            work.clear()
            self.assertFalse(file.verify(user, b"wrong"))
            done.append(Counter(work))
        self.assertEqual(sum(done[0].values()), 4)
        self.assertEqual(done, done[:1] * 4)

    def test_impossible(self) -> None:
        """A hash that can't be computed is an error, and no wrong password."""
        file = parsed("ann:$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$" + "A" * 42 + "B")
        self.assertRaises(VerificationError, file.verify, b"ann", b"x")


class MalformedTests(SynchronousTestCase):
    """What is no file of passwords is not taken in parts."""

    def assertBad(self, data: bytes, told: str) -> None:
        """It is refused, with this in the message, and no hash."""
        error = self.assertRaises(BadPasswords, parse, data)
        self.assertIn(told, str(error))
        self.assertNotIn("secret", str(error))

    def test_empty(self) -> None:
        """Nothing, or comments alone."""
        for data in (b"", b"\n", b"# ann:secret\n"):
            self.assertBad(data, "empty")

    def test_lines(self) -> None:
        """A good line does not help a bad one."""
        good = f"ann:{argon2('x')}\n".encode()
        for bad, told in (
            (b"secret", "line 2 is no user:hash"),
            (b":" + argon2("x").encode(), "line 2 is no user:hash"),
            (b"bob:", "line 2 has no argon2 or bcrypt hash"),
            (b"bob:secret", "line 2 has no"),
            (b"bob:$apr1$secret$abcdefghijklmnopqrstuv", "line 2 has no"),
            (b"bob:{SHA}secret", "line 2 has no"),
            (b"bob:" + htpasswd("x", "$2x$").encode(), "line 2 has no"),
            (b"bob:" + htpasswd("x").encode()[:-1], "line 2 has no"),
            (b"bob:" + argon2("x").encode() + b":secret", "line 2 has no"),
            (b"b\xffb:" + argon2("x").encode(), "line 2 is no UTF-8"),
        ):
            self.assertBad(good + bad, told)

    def test_costs(self) -> None:
        """Hashes that would take minutes or all memory are mistakes."""
        tail = "$c29tZXNhbHRzb21lc2FsdA$" + "A" * 43
        for cost in ("m=9999999,t=1,p=1", "m=65536,t=99,p=1", "m=65536,t=1,p=99", "m=8,t=1,p=2"):
            self.assertBad(f"ann:$argon2id$v=19${cost}{tail}".encode(), "line 1 has no")
        for bcrypt_cost in ("03", "18", "31"):
            self.assertBad(f"ann:$2y${bcrypt_cost}${'.' * 53}".encode(), "line 1 has no")

    def test_limits(self) -> None:
        """Of bytes, lines, and lines for one user."""
        line = f"ann:{argon2('x')}\n".encode()
        self.assertEqual(parse(line * 4).users, {"ann"})
        self.assertBad(line * 5, "line 5 is one too many")
        self.assertBad(b"#\n" * 10_000, "more than 10000 lines")
        self.assertBad(b"#" * (2**20 + 1), "more than 1048576 bytes")

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=200))
    def test_anything(self, data: bytes) -> None:
        """Whatever stands in it, it is taken or refused."""
        try:
            parse(data)
        except BadPasswords:
            return

    @settings(deadline=None, max_examples=100)
    @given(st.data())
    def test_cut(self, data: st.DataObject) -> None:
        """A file that was cut within a line is refused: it is still being written."""
        whole = f"ann:{argon2('x')}\nbob:{htpasswd('y')}".encode()
        cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
        if cut == whole.partition(b"\n")[0] or cut.endswith(b"\n"):
            self.assertEqual(parse(cut).users, {"ann"})
        else:
            self.assertRaises(BadPasswords, parse, cut)


class PasswdTests(CommandCase):
    """C{ctsd passwd}."""

    def setUp(self) -> None:
        """A place for the file; hashes of little cost."""
        super().setUp()
        self.patch(passwd, "HASHER", QUICK)
        self.file = self.dir / "users"

    def passwd(self, *arguments: str, typed: bytes = b"pass word\npass word\n") -> None:
        """Run it well."""
        self.stdin = typed
        self.assertEqual(self.succeed("passwd", str(self.file), *arguments), "")

    def good(self, password: str, user: str = "ann") -> bool:
        """Whether that is a password now."""
        return parse(self.file.read_bytes()).verify(user.encode(), password.encode())

    def test_make(self) -> None:
        """It makes the file, for its owner alone, and leaves nothing else behind."""
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        self.passwd("ann")
        self.assertTrue(self.good("pass word"))
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)
        self.assertEqual({path.name for path in self.dir.iterdir()}, {"ctsd.toml", "users"})
        self.assertNotIn("pass word", self.file.read_text())

    def test_without_configuration(self) -> None:
        """A configuration that is broken, perhaps for want of this file, is not in its way."""
        self.config.write_text("nonsense")
        self.passwd("ann")

    def test_replace(self) -> None:
        """It replaces all of a user's passwords; everything else stays as it is."""
        rest = f"# ours\nbob:{argon2('his')}\n"
        self.file.write_text(f"ann:{argon2('1')}\n{rest}ann:{argon2('2')}")
        self.file.chmod(0o644)
        self.passwd("ann", typed=b"3\r\n3\r\n")
        self.assertEqual([self.good(each) for each in "123"], [False, False, True])
        self.assertTrue(self.file.read_text().startswith(rest))
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)

    def test_owner(self) -> None:
        """What root writes, the daemon can still read."""
        self.passwd("ann")
        chowned: list[tuple[int, int]] = []
        self.patch(passwd.os, "geteuid", lambda: 0)
        self.patch(passwd.os, "fchown", lambda file, user, group: chowned.append((user, group)))
        for group, before, after in ((7, 0o644, 0o640), (7, 0o600, 0o600), (0, 0o640, 0o600)):
            real = self.file.stat()
            seen = os.stat_result((before | stat.S_IFREG, 0, 0, 1, 3, group, *real[6:10]))
            passwd._write(self.file, self.file.read_bytes(), seen)
            self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), after)
        self.assertEqual(chowned, [(3, 7), (3, 7), (3, 0)])

    def test_rotation(self) -> None:
        """--add keeps the old password beside the new one, --newest drops it then."""
        self.file.write_text(f"bob:{argon2('his')}\nann:{argon2('old')}\n")
        self.passwd("--add", "ann", typed=b"new\nnew\n")
        self.assertEqual([self.good(each) for each in ("old", "new")], [True, True])
        self.passwd("--newest", "ann", typed=b"")
        self.assertEqual([self.good(each) for each in ("old", "new")], [False, True])
        self.assertTrue(self.good("his", "bob"))

    def test_delete(self) -> None:
        """--delete drops a user; not the last one, for an empty file would change nothing."""
        self.file.write_text(f"bob:{argon2('his')}\nann:{argon2('1')}\nann:{argon2('2')}\n")
        self.passwd("--delete", "ann")
        self.assertEqual(parse(self.file.read_bytes()).users, {"bob"})
        self.assertFails("passwd", str(self.file), "bob", "--delete", told="the last user")
        self.assertTrue(self.good("his", "bob"))

    def test_nobody(self) -> None:
        """There is nothing to drop of who is not there."""
        self.file.write_text(f"bob:{argon2('his')}\n")
        for how in ("--delete", "--newest"):
            self.assertFails("passwd", str(self.file), "ann", how, told="ann is not in it")

    def test_too_many(self) -> None:
        """--add does not make a file that the daemon would refuse."""
        self.file.write_text(f"ann:{argon2('1')}\n" * 4)
        self.stdin = b"x\nx\n"
        self.assertFails("passwd", str(self.file), "ann", "--add", told="--newest")

    def test_malformed(self) -> None:
        """A malformed file is not touched."""
        self.file.write_text("ann:secret")
        self.stdin = b"x\nx\n"
        self.assertFails("passwd", str(self.file), "bob", told=f"{self.file}: line 1")
        self.assertEqual(self.file.read_text(), "ann:secret")
        self.file.write_text(f"ann:{argon2('1')}\n" * 5)
        self.assertFails("passwd", str(self.file), "bob", told="line 5 is one too many")

    def test_no_directory(self) -> None:
        """Where it can't be written, it says so."""
        self.stdin = b"x\nx\n"
        self.assertFails("passwd", str(self.dir / "no" / "users"), "ann", told="No such file")

    def test_link(self) -> None:
        """A link stays one; what it leads to is replaced."""
        (self.dir / "link").symlink_to("users")
        self.stdin = b"x\nx\n"
        self.succeed("passwd", str(self.dir / "link"), "ann")
        self.assertTrue((self.dir / "link").is_symlink())
        self.assertTrue(self.good("x"))

    def test_mangled(self) -> None:
        """What HTTP clients mangle is refused, in names and passwords."""
        for user in ("", "a:b", " ann", "ann ", "a\tb", "jürg", "#ann", "x" * 257):
            self.stdin = b"x\nx\n"
            self.assertFails("passwd", str(self.file), user, told="expected a user's name")
        for typed in (b"", b"x y ", b" x", b"\xff", "ü".encode(), b"a\tb", b"\x7f", b"x" * 257):
            self.stdin = typed + b"\n" + typed + b"\n"
            self.assertFails("passwd", str(self.file), "ann", told="expected a password")
        self.assertFalse(self.file.exists())

    def test_two_lines(self) -> None:
        """Standard input has the password twice."""
        for typed, told in (
            (b"", "two lines"),
            (b"x\n", "two lines"),
            (b"x\ny\n", "the same password twice"),
        ):
            self.stdin = typed
            self.assertFails("passwd", str(self.file), "ann", told=told)
        self.passwd("ann", typed=b"x\nx")
        self.assertTrue(self.good("x"))

    def test_terminal(self) -> None:
        """On a terminal it asks twice."""
        answers = ["a:b", "a:b"]
        asked: list[str] = []

        def ask(prompt: str) -> str:
            asked.append(prompt)
            return answers[len(asked) - 1]

        self.ask_secret = ask
        self.on_terminal = True
        self.passwd("ann")
        self.assertTrue(self.good("a:b"))
        self.assertEqual(len(asked), 2)
        asked.clear()
        answers[1] = "other"
        self.assertFails("passwd", str(self.file), "ann", told="the same password twice")

    def test_no_answer(self) -> None:
        """Whoever ends the input sets nothing."""

        def ask(prompt: str) -> str:
            raise EOFError

        self.ask_secret = ask
        self.on_terminal = True
        self.assertFails("passwd", str(self.file), "ann", told="expected a password")
