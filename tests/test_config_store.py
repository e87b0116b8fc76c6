"""Where the store is: C{[store]} of the configuration."""

from __future__ import annotations

from ctsd.errors import ConfigError
from ctsd.store.postgres_target import Target
from tests.test_config import ConfigCase


class PostgresUrlTests(ConfigCase):
    """C{store.url} for PostgreSQL, and its password."""

    def url(self, url: str) -> str:
        """What becomes of a URL."""
        return self.load(f"store.url = '{url}'").store.url

    def test_wrong(self) -> None:
        """What can't be a database is refused, and so is a password in the file."""
        for url, expected in (
            ("postgresql:ctsd", '"postgresql://user@host:port/database"'),
            ("postgresql://", "expected a host"),
            ("postgresql:///ctsd", "expected a host"),
            ("postgresql://me@a b/ctsd", "expected a host"),
            ("postgresql://me@host:x/ctsd", "expected a host"),
            ("postgresql://me@host,/ctsd", "expected a host"),
            ("postgresql://me@host", "expected a database"),
            ("postgresql://me@host/", "expected a database"),
            ("postgresql://me:s3cret@host/ctsd", "expected no password"),
            ("postgresql://me@host/ctsd?password=s3cret", "expected no password"),
            ("postgresql://me@host/ctsd?sslpassword=s3cret", "expected no password"),
            ("postgresql://me@host/ctsd?sslmod=require", "did you mean sslmode?"),
            ("postgresql://me@host/ctsd?options=-csearch_path=x", "no such connection parameter"),
            ("postgresql://me@host/ctsd?port=x", "a port as a number"),
            ("postgresql://me@host/ctsd?sslmode=yes", "verify-full"),
            ("postgresql://me@host/ctsd?sslmode", '"postgresql://user@host:port/database"'),
            ("postgresql://me@[::1/ctsd", '"postgresql://user@host:port/database"'),
        ):
            error = self.error(f"store.url = '{url}'")
            self.assertIn(expected, error.expected, url)
            self.assertEqual(error.key, "store.url")
            self.assertNotIn("s3cret", str(error))

    def test_target(self) -> None:
        """All parts of a URL reach libpq."""
        for url, hosts, options in (
            ("postgresql://host/db", (("host", "5432"),), {"dbname": "db"}),
            (
                "postgresql://m%40e@host:6432/d%20b?sslmode=verify-full",
                (("host", "6432"),),
                {"user": "m@e", "dbname": "d b", "sslmode": "verify-full"},
            ),
            (
                "postgresql://me@a:1,b/db?target_session_attrs=read-write",
                (("a", "1"), ("b", "5432")),
                {"target_session_attrs": "read-write"},
            ),
            ("postgresql://me@[::1]:7/db", (("::1", "7"),), {}),
            ("postgresql://me@[::1]/db", (("::1", "5432"),), {}),
            ("postgresql://me@/db?host=/run/x", (("/run/x", "5432"),), {"user": "me"}),
            ("postgresql://me@/db?host=/run/x&port=7", (("/run/x", "7"),), {"dbname": "db"}),
            ("postgresql://me@%2Frun%2Fx:7/db", (("/run/x", "7"),), {}),
            ("postgresql://me@%2Frun%2Fx/db", (("/run/x", "5432"),), {"user": "me"}),
        ):
            target = Target.parse(self.url(url), "pass")
            self.assertEqual(target.hosts, hosts)
            self.assertEqual({**target.options, **options}, target.options)
            self.assertEqual(Target.from_secret(target.as_secret()), target)
            self.assertNotIn("pass", repr(target) + target.name)

    def test_files(self) -> None:
        """Files in a URL are relative to the configuration, as all others."""
        found = self.url("postgresql://me@host/db?sslmode=verify-ca&sslrootcert=ca.pem")
        self.assertEqual(Target.parse(found).options["sslrootcert"], str(self.dir / "ca.pem"))
        found = self.url("postgresql://me@host/db?sslrootcert=system")
        self.assertEqual(Target.parse(found).options["sslrootcert"], "system")

    def test_listen(self) -> None:
        """Where it is listened is another URL, or nowhere; by default it is the same."""
        self.assertIsNone(self.load("").store.listen_url)
        self.assertEqual(self.load("store.listen_url = ''").store.listen_url, "")
        found = self.load("store.listen_url = 'postgresql://me@host/db?sslrootcert=ca.pem'")
        target = Target.parse(found.store.listen_url or "")
        self.assertEqual(target.options["sslrootcert"], str(self.dir / "ca.pem"))
        for wrong in ("'sqlite:x'", "'host'", "'postgresql://me@host'", "1"):
            error = self.error(f"store.listen_url = {wrong}")
            self.assertEqual(error.key, "store.listen_url")

    def test_password(self) -> None:
        """The password comes from a variable or a file, and is shown nowhere."""
        (self.dir / "pw").write_text("s3cret/p@ss\n")
        for given, environ in (
            ('{ file = "pw" }', {}),
            ('{ env = "PG" }', {"PG": "s3cret/p@ss"}),
        ):
            found = self.load(f"store.password = {given}", **environ)
            self.assertEqual(found.store.password, "s3cret/p@ss")
            self.assertNotIn("s3cret", repr(found))
            self.assertEqual(found.secret_variables, frozenset(environ))

    def test_wrong_password(self) -> None:
        """A password that stands in the file is refused without being told."""
        for given in ("'s3cret'", "1", "{ a = 's3cret' }", "['s3cret']"):
            error = self.error(f"store.password = {given}")
            self.assertIn("{ env", error.expected)
            self.assertNotIn("s3cret", str(error))

    def test_no_file(self) -> None:
        """What needs SQLite's file says so."""
        found = self.load("store.url = 'postgresql://me@host/db'")
        error = self.assertRaises(ConfigError, lambda: found.store_path)
        self.assertEqual(error.key, "store.url")
