"""Where a PostgreSQL is: hosts, names that have to be looked up, and what libpq is given."""

from __future__ import annotations

import socket
import threading
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from ctsd.errors import StoreError
from ctsd.store.postgres_schema import look_up
from ctsd.store.postgres_target import Target
from tests.postgres import MISSING


class LookUpTests(SynchronousTestCase):
    """Names become addresses, within limits."""

    skip = MISSING or None

    def setUp(self) -> None:
        """A resolver that knows some names, and keeps silent on others until the end."""
        self.known = {"a": ["192.0.2.1", "2001:db8::1"], "b": ["192.0.2.2"]}
        self.asked: list[str] = []
        over = threading.Event()
        self.addCleanup(over.set)

        def getaddrinfo(host: str, port: object, **more: Any) -> list[Any]:
            self.asked.append(host)
            if host == "silent":
                over.wait(60)
            if host not in self.known:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return [(0, 0, 0, "", (address, 0)) for address in self.known[host] * 2]

        patching = patch.object(socket, "getaddrinfo", getaddrinfo)
        patching.start()
        self.addCleanup(patching.stop)

    def looked_up(self, hosts: str, secs: float = 60) -> dict[str, Any]:
        """What libpq is given for these hosts."""
        target = Target.parse(f"postgresql://me@{hosts}/db", "pw")
        return target.looked_up(look_up(target, secs))

    def refused(self, hosts: str, secs: float = 60) -> str:
        """Why there is nobody to connect to."""
        return self.assertRaises(StoreError, self.looked_up, hosts, secs).reason

    def test_all_addresses(self) -> None:
        """Every address of every host, once, with its port."""
        given = self.looked_up("a:1,192.0.2.9,b:2")
        self.assertEqual(given["hostaddr"], "192.0.2.1,2001:db8::1,192.0.2.9,192.0.2.2")
        self.assertEqual(given["host"], "a,a,192.0.2.9,b")
        self.assertEqual(given["port"], "1,1,5432,2")
        self.assertEqual(sorted(self.asked), ["a", "b"])
        self.assertEqual(given["password"], "pw")

    def test_nothing_to_look_up(self) -> None:
        """Sockets and addresses need nobody to be asked; a socket has no address."""
        self.assertNotIn("hostaddr", self.looked_up("%2Frun%2Fpg"))
        given = self.looked_up("%2Frun%2Fpg,[::1]:7")
        self.assertEqual((given["host"], given["hostaddr"]), ("/run/pg,::1", ",::1"))
        self.assertEqual(self.asked, [])

    def test_some_unknown(self) -> None:
        """As long as there is one host left, the others may be unknown, or silent."""
        self.assertEqual(self.looked_up("none,b")["host"], "b")
        self.assertEqual(self.looked_up("silent,192.0.2.9", 0.01)["host"], "192.0.2.9")

    def test_unknown(self) -> None:
        """Without any, the name is told, and why."""
        why = self.refused("none:7")
        self.assertIn("PostgreSQL at none:7, database db: the name none could not be", why)
        self.assertIn(": Name or service not known", why)

    def test_silent(self) -> None:
        """A resolver that says nothing is waited for as long as was said."""
        self.assertIn("within 0.01 s", self.refused("silent", 0.01))

    def test_remote(self) -> None:
        """Whether a network may be between us."""
        for hosts, remote in (
            ("localhost", False),
            ("127.0.0.2:7,[::1]", False),
            ("%2Frun%2Fpg", False),
            ("localhost,db.example", True),
            ("10.0.0.1", True),
        ):
            self.assertIs(Target.parse(f"postgresql://{hosts}/db").is_remote, remote, hosts)
