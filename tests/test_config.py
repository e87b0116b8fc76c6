"""The configuration file: what it sets, and what its errors tell."""

from __future__ import annotations

import datetime
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctsd.config.document import lines_of
from ctsd.config.environment import child_environment
from ctsd.config.listeners import Listener
from ctsd.config.loading import load, untrusted
from ctsd.config.settings import Settings, documented
from ctsd.errors import ConfigError

FIXED = """
state_dir = "var"                          # database, spooled uploads, indexes
listen = ["tcp:8000:interface=127.0.0.1"]  # Twisted endpoint strings
allowed_hosts = []
first_answer_secs = 1.0
post_deadline_secs = 3
search_timeout_secs = 30
scan_deadline_secs = 86400
when_incomplete = "resend"
retention_days = 30
[store]
url = "sqlite:ctsd.sqlite"
[upload]
enabled = true
max_bytes = 2147483648
[searchers]
sync = ["internal"]
async = ["phishtank"]
path = []
[searchers.phishtank]
file = "/srv/feeds/online-valid.csv"
required = true
[services.phish]
searchers = ["phishtank"]
"""


def write_key_pair(
    directory: Path, *, days: int = 365, name: str = "ctsd.example"
) -> tuple[Path, Path]:
    """A fresh key and its self-signed certificate that ends in so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    key_file, certificate_file = directory / "k.pem", directory / "c.pem"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return key_file, certificate_file


class ConfigCase(SynchronousTestCase):
    """A directory of its own, and ways to load what a test writes there."""

    def setUp(self) -> None:
        """Make the directory."""
        self.dir = Path(self.mktemp()).absolute()
        self.dir.mkdir(mode=0o755)
        self.file = self.dir / "ctsd.toml"

    def load(self, text: str, **environ: str) -> Settings:
        """Load a configuration of this text."""
        self.file.write_text(text)
        return load(self.file, environ=environ)

    def error(self, text: str, **environ: str) -> ConfigError:
        """The error that a configuration of this text is."""
        return self.assertRaises(ConfigError, self.load, text, **environ)

    def assertWrong(self, text: str, line: int, key: str, expected: str) -> None:
        """It stops the start, and the one-line message names file, line, key and expectation."""
        error = self.error(text)
        self.assertEqual((error.where, error.key), (f"{self.file}:{line}", key))
        self.assertIn(expected, error.expected)
        self.assertNotIn("\n", str(error))


class FindingTests(ConfigCase):
    """Which file is read."""

    def test_nothing(self) -> None:
        """Without any file the built-in defaults serve the loopback interface."""
        found = load(environ={}, cwd=self.dir)
        self.assertEqual(
            [listener.description for listener in found.listen], ["tcp:8000:interface=127.0.0.1"]
        )
        self.assertEqual(found.state_dir, self.dir / "var")
        self.assertEqual(found.store_path, self.dir / "var" / "ctsd.sqlite")
        self.assertEqual(
            (found.searchers.sync, found.searchers.async_), (("internal",), ("phishtank",))
        )

    def test_working_directory(self) -> None:
        """A file in the working directory is read."""
        self.file.write_text("retention_days = 2")
        self.assertEqual(load(environ={}, cwd=self.dir).retention_days, 2)

    def test_variable(self) -> None:
        """The variable CTSD_CONFIG goes before the working directory's file."""
        self.file.write_text("retention_days = 2")
        (self.dir / "other.toml").write_text("retention_days = 3")
        found = load(environ={"CTSD_CONFIG": "other.toml"}, cwd=self.dir)
        self.assertEqual(found.retention_days, 3)

    def test_named(self) -> None:
        """A named file goes before all."""
        self.file.write_text("retention_days = 2")
        found = load(self.file, environ={"CTSD_CONFIG": "/nowhere"})
        self.assertEqual(found.retention_days, 2)

    def test_missing(self) -> None:
        """A file that was named must be there."""
        error = self.assertRaises(ConfigError, load, self.dir / "no.toml", environ={})
        self.assertEqual(
            str(error), f"{self.dir}/no.toml: can't be read: No such file or directory"
        )

    def test_others_may_write(self) -> None:
        """A working directory's file that others may change is passed over, which is told."""
        self.file.write_text("retention_days = 2")
        for path, mode in ((self.file, 0o664), (self.file, 0o646), (self.dir, 0o777)):
            before = path.stat().st_mode
            path.chmod(mode)
            self.assertPassedOver(f"others may write to {path}")
            path.chmod(before)
        found = load(environ={}, cwd=self.dir)
        self.assertEqual((found.retention_days, found.document.passed_over), (2, None))

    def assertPassedOver(self, why: str) -> None:
        """The built-in defaults serve, and one line names the file and what is wrong."""
        found = load(environ={}, cwd=self.dir)
        self.assertEqual((found.retention_days, found.base_dir), (30, self.dir))
        told = str(found.document.passed_over)
        self.assertIn(f"{self.file}: is passed over: ", told)
        self.assertIn(why, told)
        self.assertNotIn("\n", told)

    def test_others_directory_without_file(self) -> None:
        """In a directory of others without a file the defaults do."""
        self.dir.chmod(0o777)
        found = load(environ={}, cwd=self.dir)
        self.assertEqual((found.retention_days, found.document.passed_over), (30, None))

    def test_link_into_others(self) -> None:
        """A link to where others may write is passed over, and so is one that leads nowhere."""
        shared = self.dir / "shared"
        shared.mkdir()
        shared.chmod(0o777)
        (shared / "x.toml").write_text("")
        self.file.symlink_to(shared / "x.toml")
        self.assertPassedOver(f"others may write to {shared}")
        self.file.unlink()
        self.file.symlink_to(self.dir / "nothing")
        self.assertPassedOver(f"{self.file}: No such file")

    def test_named_file_of_others(self) -> None:
        """Who names a file knows what is in it: it is read wherever it is."""
        self.file.write_text("")
        self.dir.chmod(0o777)
        load(self.file, environ={})

    def test_no_toml(self) -> None:
        """What is no TOML is told with its line."""
        error = self.error("a = 1\n= 2\n")
        self.assertEqual(error.where, f"{self.file}:2")
        self.assertIn("no valid TOML", str(error))
        for text, why in (
            ("a = " + "[" * 20_000 + "]" * 20_000, "nested too deep"),
            ("a = " + "9" * 5_000, "a number of too many digits"),
        ):
            self.assertEqual(str(self.error(text)), f"{self.file}: no valid TOML: {why}")

    def test_byte_order_mark(self) -> None:
        """What some editors put before everything does no harm."""
        self.assertEqual(self.load("\ufeffretention_days = 2").retention_days, 2)

    def test_no_text(self) -> None:
        """What is no UTF-8 is told."""
        self.file.write_bytes(b'state_dir = "\xff"')
        error = self.assertRaises(ConfigError, load, self.file, environ={})
        self.assertIn("UTF-8", str(error))


class ValueTests(ConfigCase):
    """What the keys become."""

    def test_fixed_file(self) -> None:
        """The keys that are fixed are all understood, and are the defaults."""
        found = self.load(FIXED)
        self.assertEqual(
            found.searchers.tables["phishtank"].own, {"file": "/srv/feeds/online-valid.csv"}
        )
        self.assertEqual(found.services["phish"].searchers, ("phishtank",))
        default = self.load("")
        for key in documented():
            top = key.name.split(".")[0]
            if top not in ("searchers", "services"):
                self.assertEqual(getattr(found, top), getattr(default, top))
        self.assertEqual(found.searchers.sync, default.searchers.sync)

    def test_state_directory(self) -> None:
        """Under systemd the state is where systemd says, unless the file says otherwise."""
        self.assertEqual(
            self.load("", STATE_DIRECTORY="/var/lib/ctsd:/var/lib/x").state_dir,
            Path("/var/lib/ctsd"),
        )
        self.assertEqual(
            self.load('state_dir = "v"', STATE_DIRECTORY="/var/lib/ctsd").state_dir, self.dir / "v"
        )

    def test_relative_to_the_file(self) -> None:
        """Relative paths are relative to the file's directory."""
        found = self.load('state_dir = "v"\n[searchers]\npath = ["more", "/abs"]')
        self.assertEqual(found.state_dir, self.dir / "v")
        self.assertEqual(found.searchers.path, (self.dir / "more", Path("/abs")))
        self.assertEqual(found.base_dir, self.dir)

    def test_services(self) -> None:
        """A service has its searchers, perhaps its users, and shares what it finds or not."""
        found = self.load(
            '[services.a]\nsearchers = ["x", "y"]\nusers = ["ann"]\nthreats = "own"\n'
            '[services.b-c]\nsearchers = ["x"]'
        )
        own, shared = found.services["a"], found.services["b-c"]
        self.assertEqual((own.searchers, own.users, own.threats), (("x", "y"), ("ann",), "own"))
        self.assertEqual((shared.users, shared.threats), (None, "shared"))

    def test_users(self) -> None:
        """A service for some users can't be had where others come in without a password."""
        service = "\n[services.a]\nsearchers = ['x']\nusers = ['ann']"
        for listen in (["auth:u:tcp:1", "tcp:2:interface=127.0.0.1"], ["unix:s"]):
            found = self.load(f"listen = {listen}" + service)
            self.assertEqual(found.users, {"a": frozenset({"ann"})})
        for entry in ("tcp:2", "systemd:domain=INET:index=0", "haproxy:tcp:2"):
            self.assertWrong(
                f"listen = ['auth:u:tcp:1', '{entry}']" + service,
                4,
                "services.a.users",
                f"auth: before {entry}",
            )

    def test_searcher_table(self) -> None:
        """ctsd's own keys of a searcher's table stand apart from the searcher's."""
        found = self.load(
            "[searchers.x]\nrequired = false\ntimeout_secs = 5\nslots = 2\nurl = 'u'\nn = [1, 2]"
        )
        table = found.searchers.tables["x"]
        self.assertEqual((table.required, table.timeout_secs, table.slots), (False, 5.0, 2))
        self.assertEqual(table.own, {"url": "u", "n": [1, 2]})

    def test_hosts(self) -> None:
        """Host names are compared in lower case; an address may stand in brackets."""
        found = self.load('allowed_hosts = ["SOAR.example", "[::1]", "10.0.0.1"]')
        self.assertEqual(found.allowed_hosts, ("soar.example", "::1", "10.0.0.1"))


class SecretTests(ConfigCase):
    """Secrets that stand elsewhere."""

    def test_variable_and_file(self) -> None:
        """A secret comes from a variable or a file, also deeper inside of a table."""
        (self.dir / "s").write_text("from a file\n")
        found = self.load(
            '[searchers.x]\na = { env = "A_KEY" }\nb = { file = "s" }\n'
            'c = { d = [{ env = "A_KEY" }] }',
            A_KEY="from the environment",
        )
        self.assertEqual(
            found.searchers.tables["x"].own,
            {"a": "from the environment", "b": "from a file", "c": {"d": ["from the environment"]}},
        )
        self.assertNotIn("from the environment", repr(found))
        self.assertNotIn("from a file", repr(found))
        self.assertNotIn("from", repr(found.searchers.tables["x"].own))

    def test_children(self) -> None:
        """A child process' environment is ours without the secrets."""
        found = self.load('[searchers.x]\na = { env = "A_KEY" }', A_KEY="s3cret")
        self.assertEqual(
            child_environment({"A_KEY": "s3cret", "PATH": "/bin"}, found), {"PATH": "/bin"}
        )

    def test_children_and_supervisor(self) -> None:
        """A child process can't speak for us to systemd, nor take our sockets for its own."""
        ours = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
        sockets = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
        environ = {**dict.fromkeys(ours + sockets, "1"), "PATH": "/bin"}
        self.assertEqual(child_environment(environ, self.load("")), {"PATH": "/bin"})

    def test_missing(self) -> None:
        """A secret that is not there stops the start."""
        self.assertWrong(
            '[searchers.x]\na = { env = "A_KEY" }',
            2,
            "searchers.x.a",
            "the environment variable A_KEY",
        )
        self.assertWrong('[searchers.x]\na = { file = "s" }', 2, "searchers.x.a", f"{self.dir}/s")

    def test_empty(self) -> None:
        """An empty secret is none."""
        (self.dir / "s").write_text("\n")
        self.assertWrong('[searchers.x]\na = { file = "s" }', 2, "searchers.x.a", "1 to")
        error = self.error('[searchers.x]\na = { env = "A_KEY" }', A_KEY="")
        self.assertIn("A_KEY", str(error))

    def test_both(self) -> None:
        """A secret that stands in two places is told as such, before either is read."""
        both = "expected either env or file for a secret, not both"
        for table, key in (
            ("searchers.x", "api_key"),
            ("feeds.x", "key"),
            ("store", "password"),
            ("outbound", "proxy_password"),
        ):
            text = f'[{table}]\n{key} = {{ file = "s", env = "A_KEY" }}'
            self.assertWrong(text, 2, f"{table}.{key}", both)

    def test_endless_file(self) -> None:
        """A secret file that is no such thing is not read to its end."""
        self.assertWrong('[searchers.x]\na = { file = "/dev/zero" }', 2, "searchers.x.a", "65536")


class ErrorTests(ConfigCase):
    """Each error names file, line and key, and what was expected."""

    def test_unknown_key(self) -> None:
        """An unknown key is an error that knows what was probably meant."""
        self.assertWrong(
            "\nretention_day = 3",
            2,
            "retention_day",
            "no such setting; did you mean retention_days?",
        )
        self.assertWrong("[upload]\nmax_byte = 3", 2, "upload.max_byte", "did you mean max_bytes?")
        self.assertWrong("[uploads]\nmax_bytes = 3", 1, "uploads", "did you mean upload?")
        self.assertWrong('[searchers]\nasnyc = ["x"]', 2, "searchers.asnyc", "did you mean async?")
        self.assertWrong(
            '[services.x]\nsearcher = ["x"]', 2, "services.x.searcher", "did you mean searchers?"
        )

    def test_types_and_ranges(self) -> None:
        """A value of another type or out of range is an error."""
        for text, key, expected in (
            (
                "retention_days = '3'",
                "retention_days",
                "a number from 0 to 36525 days, not a string",
            ),
            ("retention_days = true", "retention_days", "not true"),
            ("retention_days = -1", "retention_days", "not -1"),
            ("first_answer_secs = inf", "first_answer_secs", "not inf"),
            ("first_answer_secs = nan", "first_answer_secs", "not nan"),
            ("max_scans = 1.0", "max_scans", "a whole number of at least 1, not 1.0"),
            ("max_scans = true", "max_scans", "not true"),
            ("blocking_threads = 1001", "blocking_threads", "from 1 to 1000"),
            ("short_path = 'yes'", "short_path", "true or false"),
            ("when_incomplete = 'drop'", "when_incomplete", '"resend" or "tell" or "ignore"'),
            ("state_dir = 1979-05-27", "state_dir", "a string, not a date or time"),
            ("state_dir = ''", "state_dir", "not empty"),
            ("listen = 'tcp:1'", "listen", "an array of endpoint strings"),
            ("listen = []", "listen", "at least one"),
            ("listen = ['tcp:1', 'tcp:1']", "listen[1]", "twice"),
            ("listen = [1]", "listen[0]", "a string, not 1"),
            ("listen = ['tcp:65536']", "listen[0]", "expected a port from 0 to 65535"),
            ("listen = ['tcp:port=-1']", "listen[0]", "expected a port from 0 to 65535"),
            ("listen = ['tcp6:99999']", "listen[0]", "expected a port from 0 to 65535"),
            ("listen = ['haproxy:tcp:99999']", "listen[0]", "a port from 0 to 65535"),
            ("allowed_hosts = ['http://x']", "allowed_hosts[0]", "without scheme"),
            ("allowed_hosts = ['x:80']", "allowed_hosts[0]", "without scheme and port"),
            ("store = 1", "store", "a table"),
            ("searchers = 1", "searchers", "a table"),
            ("services = 1", "services", "tables [services.<name>]"),
            ("services.x = 1", "services.x", "a table"),
            ("searchers.sync = ['X']", "searchers.sync[0]", "lower-case"),
            ("services.x.searchers = []", "services.x.searchers", "at least one"),
            ("services.x = {}", "services.x.searchers", "is missing"),
            ("services.x = {searchers = ['a'], users = ['a:b']}", "services.x.users[0]", "colon"),
            ("services.x = {searchers = ['a'], users = []}", "services.x.users", "at least one"),
            ("store.url = 'mysql://x'", "store.url", '"sqlite:"'),
            ("store.url = 'sqlite::memory:'", "store.url", '"sqlite:"'),
        ):
            self.assertWrong(text, 1, key, expected)

    def test_nul(self) -> None:
        """No name of a file, a host or a user has a NUL."""
        for text, key in (
            ('state_dir = "a\\u0000b"', "state_dir"),
            ('listen = ["unix:a\\u0000b"]', "listen[0]"),
            ('allowed_hosts = ["a\\u0000b"]', "allowed_hosts[0]"),
        ):
            self.assertWrong(text, 1, key, "expected a string without NUL")

    def test_texts_are_not_told(self) -> None:
        """An error shows no text from the file, which may be a secret."""
        self.assertNotIn("s3cret", str(self.error("first_answer_secs = 's3cret'")))
        self.assertNotIn("s3cret", str(self.error("when_incomplete = 's3cret'")))

    def test_reserved_services(self) -> None:
        """A service can't take a name that routes use, nor one that looks like a scan's id."""
        for name in ("health", "metrics", "api", "console", "static", "ab" * 16):
            self.assertWrong(
                f"\n[services.{name}]\nsearchers=['x']", 2, f"services.{name}", "taken"
            )

    def test_names(self) -> None:
        """Services and searchers have plain names."""
        for name in ("Phish", "x_", "a__b", "'a b'", "9x", "x" * 65):
            self.assertIn("lower-case", str(self.error(f"[services.{name}]\nsearchers=['x']")))
            self.assertIn("lower-case", str(self.error(f"[searchers.{name}]")))

    def test_sync_and_async(self) -> None:
        """A searcher is either sync or async."""
        self.assertWrong(
            '[searchers]\nsync = ["a"]\nasync = ["a"]',
            3,
            "searchers.async",
            "a is in searchers.sync",
        )


class ListenTests(ConfigCase):
    """The endpoint strings."""

    def listener(self, entry: str) -> Listener:
        """The one listener of a file with this entry."""
        (found,) = self.load(f"listen = ['{entry}']").listen
        return found

    def test_absolute_paths(self) -> None:
        """Relative files inside of an endpoint string become absolute, and Twisted takes it."""
        key, certificate = write_key_pair(self.dir)
        for entry in (
            "ssl:8443:privateKey=k.pem:certKey=c.pem",
            "ssl:8443:k.pem:c.pem:interface=127.0.0.1",
            "haproxy:ssl:8443:privateKey=k.pem:certKey=c.pem",
        ):
            found = self.listener(entry)
            self.assertIn(str(key), found.description)
            self.assertEqual(found.certificates, (certificate,))
            self.assertTrue(found.tls)
            serverFromString(Clock(), found.description)

    def test_doors(self) -> None:
        """So do those of C{auth:}, which need not be there, and of C{tls-wrap:}, which must."""
        _, certificate = write_key_pair(self.dir)
        for entry in (
            "auth:users:tls-wrap:k.pem:c.pem:extraCertChain=c.pem:tcp:8443",
            "tls-wrap:certKey=c.pem:privateKey=k.pem:auth:users=users:systemd:domain=INET:index=0",
            "haproxy:auth:users:ssl:8443:k.pem:c.pem:extraCertChain=c.pem",
        ):
            found = self.listener(entry)
            self.assertEqual((found.tls, found.auth), (True, True))
            self.assertEqual(found.passwords, (self.dir / "users",))
            self.assertEqual(found.certificates, (certificate,))
            for name in ("users", "k.pem", "c.pem"):
                self.assertEqual(
                    re.findall(rf"[:=]{re.escape(name)}(?!=)\b", found.description), []
                )
            if found.kind != "systemd":
                serverFromString(Clock(), found.description)

    def test_awkward_paths(self) -> None:
        """Colons, equals signs and backslashes in a path survive."""
        for name in ("a:b", "a=b", "a\\b"):
            quoted = re.sub(r"([\\:=])", r"\\\1", name)
            found = self.listener(f"unix:{quoted}")
            endpoint: Any = serverFromString(Clock(), found.description)
            self.assertEqual(endpoint._address, str(self.dir / name))

    def test_local(self) -> None:
        """It is known whether only this machine can reach a listener."""
        for entry, local in (
            ("tcp:1", False),
            ("tcp:1:interface=127.0.0.1", True),
            ("tcp:1:127.1.2.3", True),
            ("tcp:1:interface=10.0.0.1", False),
            ("tcp:1:interface=localhost", True),
            (r"tcp6:1:interface=\:\:1", True),
            ("tcp6:1", False),
            ("unix:s", True),
            ("haproxy:tcp:1:interface=127.0.0.1", True),
            ("systemd:domain=INET:index=0", False),
            ("systemd:domain=UNIX:name=ctsd", True),
        ):
            self.assertEqual(self.listener(entry).local, local, entry)

    def test_for_people(self) -> None:
        """The page is for this machine without a proxy, or behind a password."""
        for entry, for_people in (
            ("tcp:8000:interface=127.0.0.1", True),
            (r"tcp6:8000:interface=\:\:1", True),
            ("tcp:8000", False),
            ("tcp:8000:interface=10.0.0.5", False),
            ("haproxy:tcp:8000:interface=127.0.0.1", False),
            ("unix:ctsd.sock", False),
            ("systemd:domain=UNIX:index=0", False),
            ("systemd:domain=INET:index=0", False),
        ):
            self.assertEqual(self.listener(entry).for_people, for_people, entry)

    def test_wrong(self) -> None:
        """What Twisted would not take stops the start with one line."""
        for entry, expected in (
            ("foo:1", "expected a Twisted endpoint string such as tcp:"),
            ("foo:1", "unknown endpoint type 'foo'"),
            ("haproxy:foo:1", "unknown endpoint type 'foo'"),
            ("tcp", "a Twisted endpoint string of type tcp"),
            ("tcp:http", "type tcp: no whole number: 'http'"),
            ("tcp:1:2:3:4", "type tcp"),
            ("tcp:1:nope=2", "type tcp: got an unexpected keyword argument 'nope'"),
            ("8000", "unknown endpoint type '8000'"),
            ("haproxy", "unknown endpoint type"),
            ("systemd:domain=INET", "index=0"),
            ("ssl:1", "privateKey="),
            ("ssl:1:privateKey=none.pem", f"privateKey to be a file: {self.dir}/none.pem"),
            ("tls-wrap:none.pem:c.pem:tcp:1", "certKey to be a file"),
            ("auth", "expected users"),
            ("auth:users", "unknown endpoint type"),
            ("auth:users:foo:1", "unknown endpoint type 'foo'"),
            ("auth:users:tcp:http", "type tcp"),
            ("auth:users:auth:users:tcp:1", "auth: once"),
        ):
            self.assertWrong(f"\nlisten = ['{entry}']", 2, "listen[0]", expected)

    def test_bad_pair(self) -> None:
        """A key that is not the certificate's is found before the start."""
        other = self.dir / "other"
        other.mkdir()
        write_key_pair(self.dir)
        write_key_pair(other)
        entry = "ssl:1:privateKey=other/k.pem:certKey=c.pem"
        self.assertWrong(f"listen = ['{entry}']", 1, "listen[0]", "a certificate and its key")
        (self.dir / "c.pem").write_text("no certificate")
        entry = "ssl:1:privateKey=k.pem:certKey=c.pem"
        self.assertWrong(f"listen = ['{entry}']", 1, "listen[0]", "a certificate and its key")

    def test_multi_line(self) -> None:
        """In an array of several lines the key's line is told."""
        self.assertWrong('\nlisten = [\n "tcp:1",\n "foo:1" ]', 2, "listen[1]", "unknown")


BARE = st.text(alphabet="abz_-09", min_size=1, max_size=4)
STRINGS = st.sampled_from(
    [
        '"a # [x] = 1"',
        "'[t] \"'",
        '"""\n[not.a.table]\nk = 1 \\""" """',
        "'''\n[no]\n'''",
        '"\\""',
        '""""q""""',
        "1979-05-27T07:32:00Z",
        "[1, [2], # ]\n 3]",
        "{ a = 1, b = [ '}' ] }",
        "-1.5e3",
        '""',
        '""""""',
    ]
)


class LinesTests(SynchronousTestCase):
    """On which line a key stands."""

    @given(st.lists(st.tuples(BARE, STRINGS, st.booleans(), st.booleans()), max_size=8))
    @settings(deadline=None)
    def test_every_key(self, entries: list[tuple[str, str, bool, bool]]) -> None:
        """Whatever values stand around it, a key's line is the line where it is written."""
        text, expected = "", {}
        table: tuple[str, ...] = ()
        for position, (name, value, header, dotted) in enumerate(entries):
            if header:
                text += f"# [c]\n[ {name}{position} . 'x.y' ] # = ]\n"
                table = (f"{name}{position}", "x.y")
                expected[table] = text.count("\n")
            key = (f"{name}-{position}", "b") if dotted else (f"{name}-{position}",)
            expected[(*table, *key)] = text.count("\n") + 1
            text += " . ".join(key) + f' = {value} # c " [\n'
        tomllib.loads(text)
        found = lines_of(text)
        self.assertEqual({key: found.get(key) for key in expected}, expected)

    @given(st.text(alphabet="ab=[]{}\"'#\n .,\\1", max_size=30))
    @settings(deadline=None, max_examples=500)
    def test_any_text(self, text: str) -> None:
        """Whatever tomllib takes has lines for all of its top keys."""
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            return
        self.assertLessEqual({(key,) for key in data}, lines_of(text).keys())


class DocumentedTests(SynchronousTestCase):
    """What documentation is made from."""

    def test_defaults_are_true(self) -> None:
        """A documented default, written into a file, is what the file without it gives."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        bare = load(environ={}, cwd=directory)
        tried = 0
        for key in documented():
            value = key.default.strip("`")
            if "<name>" in key.name or key.default[0] != "`" or "$" in value:
                continue
            file = directory / "one.toml"
            file.write_text(f"{key.name} = {value}\n")
            self.assertEqual(load(file, environ={}), bare, key.name)
            tried += 1
        self.assertGreater(tried, 20)


class TrustTests(ConfigCase):
    """Who may write to a file."""

    def test_other_owner(self) -> None:
        """What belongs to somebody else is not trusted."""
        self.file.write_text("")
        self.assertEqual(untrusted(self.file), "")
        if os.geteuid() == 0:
            os.chown(self.file, 4242, 4242)
        self.patch(os, "geteuid", lambda: 4243)
        self.assertIn("belongs to another user", untrusted(self.file))
        self.assertIn("No such file", untrusted(self.dir / "none"))
