"""Who may come in by a listener that has passwords."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ctsd.auth import auth_endpoint
from ctsd.basic import AuthLimits, BasicGate
from ctsd.config.endpoint_strings import BadEndpoint
from ctsd.guesses import Delays, Remembered
from ctsd.passwords import Passwords, read
from ctsd.watching import Watched
from tests.test_passwords import argon2, htpasswd
from tests.web_fixtures import Reply, Threads, WebCase, request, upload

IP = b'{"type":"net.ip","value":"192.168.1.1"}'


def basic(user: str = "ann", password: str = "secret", scheme: str = "Basic") -> str:
    """The header of a credential."""
    return f"Authorization: {scheme} {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def post(*headers: str, path: str = "/") -> bytes:
    """A request with an artifact."""
    return request("POST", path, IP, "application/json", *headers)


class AuthCase(WebCase):
    """
    A site with a gate.

    :ivar hashing: the threads in which hashes are computed, and C{reading} those for the file.
    :ivar events: what was logged.
    """

    limits = AuthLimits()

    def setUp(self) -> None:
        """Ann's password is C{secret}, Bob's is C{hidden}."""
        super().setUp()
        self.file = Path(self.mktemp())
        self.write(f"ann:{argon2('secret')}", f"bob:{argon2('hidden')}")
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.hashing, self.reading = Threads(), Threads()
        self.clock.advance(1000)
        self.close()

    def close(self, **more: Any) -> None:
        """Put a gate on a site."""
        self.passwords: Watched[Passwords] = Watched(
            clock=self.clock,
            what="The password file",
            paths=[self.file],
            load=lambda: read(self.file),
            in_thread=self.reading,
        )
        if self.file.exists():
            self.passwords.load()
        self.passwords.start()
        self.addCleanup(self.passwords.stop)
        self.gate = BasicGate(
            clock=self.clock, passwords=self.passwords, in_thread=self.hash, limits=self.limits
        )
        self.hashes = 0
        self.serve(gate=self.gate, **more)

    def hash(self, *job: Any) -> Deferred[Any]:
        """Count, and compute."""
        self.hashes += 1
        return self.hashing(*job)

    def write(self, *lines: str) -> None:
        """Replace the file."""
        fresh = self.file.with_name(self.file.name + ".new")
        fresh.write_text("\n".join(lines))
        fresh.replace(self.file)

    def wait(self, secs: float) -> None:
        """Let time pass."""
        for _ in range(round(secs * 16)):
            self.clock.advance(0.0625)

    def final(self, data: bytes) -> Reply:
        """The answer, however late."""
        client = self.ask(data)
        self.wait(2.5)
        return client.reply

    def warnings(self, about: str = "") -> list[dict[str, Any]]:
        """Warnings of the gate that were logged."""
        return [
            one
            for one in self.events
            if one["log_namespace"] == "ctsd.basic.BasicGate" and about in one["log_format"]
        ]


class ChallengeTests(AuthCase):
    """Who does not say who they are."""

    def test_challenge(self) -> None:
        """401 at once, with what is asked for; nothing was scanned."""
        reply = self.ask(post()).reply
        self.assertEqual(reply.status, 401)
        self.assertEqual(reply.headers["WWW-Authenticate"], 'Basic realm="ctsd", charset="UTF-8"')
        self.assertEqual(self.scans.submitted, [])

    def test_everything(self) -> None:
        """It stands before every method and path but one."""
        for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT"):
            for path in ("/", "/phish/", "/no/such", "/" + "0" * 32, "/health"):
                data = request(method, path)
                self.assertIn(b"HTTP/1.1 401 ", self.ask(data).wire.value(), (method, path))
        self.assertEqual(self.ask(request("GET", "/health/ready")).reply.status, 200)
        self.assertEqual(self.ask(request("GET", "//health//ready/")).reply.status, 200)

    def test_never_slowed(self) -> None:
        """Neither guesses nor a full queue hold a challenge, and it counts as no guess."""
        self.hashing.held = True
        for number in range(100):
            self.ask(post(basic("ann", str(number))))
        for _ in range(100):
            self.assertEqual(self.ask(post()).reply.status, 401)
        self.assertEqual(len(self.gate._delays), 0)

    def test_no_credential(self) -> None:
        """What is no credential at all is answered like none, and costs nothing."""
        for header in (
            "Authorization:",
            "Authorization: Basic",
            "Authorization: Basic !!!!",
            "Authorization: Basic YW5u",
            "Authorization: Bearer YW5uOnNlY3JldA==",
            "Authorization: Negotiate YII=",
            basic().replace("Basic ", "Basic !"),
            basic("ann", "x" * 4000),
        ):
            self.assertEqual(self.ask(post(header)).reply.status, 401, header)
        self.assertEqual(self.hashes, 0)

    def test_browsers(self) -> None:
        """A page of another site is told so before."""
        self.assertEqual(self.ask(post("Origin: http://evil.example")).reply.status, 403)

    def test_body(self) -> None:
        """Nothing of a body is kept: not on the disk, not in memory; the rest is drained."""
        client = self.ask(upload(file=b"x" * 100_000))
        self.assertEqual(client.reply.status, 401)
        self.assertTrue(client.wire.half_closed)
        self.assertEqual((self.files(), self.site.memory.used_bytes), ([], 0))

    def test_expect(self) -> None:
        """A client that asks before it sends is not invited."""
        data = request("POST", "/", b"x" * 200_000, "application/json", "Expect: 100-continue")
        client = self.ask(data[: data.index(b"\r\n\r\n") + 4])
        self.assertEqual(client.statuses, [401])


class GoodTests(AuthCase):
    """Who may come in."""

    def test_good(self) -> None:
        """A right password, once it has been compared."""
        self.hashing.held = True
        client = self.ask(post(basic()))
        self.assertEqual(client.replies, [])
        self.hashing.run()
        self.assertEqual(client.reply.status, 200)
        self.assertEqual(len(self.scans.submitted), 1)

    def test_remembered(self) -> None:
        """It is compared once, and then never waits."""
        for _ in range(5):
            self.assertEqual(self.ask(post(basic())).reply.status, 200)
        self.hashing.held = True
        self.assertEqual(self.ask(post(basic())).reply.status, 200)
        self.assertEqual(self.hashes, 1)

    def test_at_once(self) -> None:
        """Connections that come with one credential at the same time share its hash."""
        self.hashing.held = True
        clients = [self.ask(post(basic())) for _ in range(200)]
        self.hashing.run()
        self.assertEqual({client.reply.status for client in clients}, {200})
        self.assertEqual(self.hashes, 1)

    def test_body_waits(self) -> None:
        """A body that came along waits for the comparison, and is complete then."""
        self.hashing.held = True
        client = self.ask(upload(b'{"type":"file.content"}', b"abc" * 1000, basic()), by=1000)
        self.assertEqual(self.files(), [])
        self.hashing.run()
        self.assertEqual(client.reply.status, 200)
        self.assertEqual(self.scans.submitted[0][1].file.size, 3000)

    def test_scheme(self) -> None:
        """The scheme's case does not matter (RFC 9110, section 11.1), nor do colons after one."""
        self.write(f"ann:{argon2('a:b:')}")
        self.wait(1)
        self.assertEqual(self.ask(post(basic("ann", "a:b:", "basic"))).reply.status, 200)

    def test_encodings(self) -> None:
        """Clients that send ISO-8859-1 mean the same as those that send UTF-8."""
        self.write(f"jürg:{argon2('ä')}")
        self.wait(1)
        old = base64.b64encode("jürg:ä".encode("latin-1")).decode()
        self.assertEqual(self.ask(post(basic("jürg", "ä"))).reply.status, 200)
        self.assertEqual(self.ask(post(f"Authorization: Basic {old}")).reply.status, 200)

    def test_age(self) -> None:
        """A credential is compared again when an hour has gone."""
        self.ask(post(basic()))
        self.clock.advance(3599)
        self.ask(post(basic()))
        self.assertEqual(self.hashes, 1)
        self.clock.advance(1)
        self.assertEqual(self.ask(post(basic())).reply.status, 200)
        self.assertEqual(self.hashes, 2)

    def test_client_leaves(self) -> None:
        """Who has gone before the comparison ended is in nobody's way."""
        self.hashing.held = True
        client = self.ask(post(basic()))
        client.leave()
        self.hashing.run()
        self.assertEqual(self.scans.submitted, [])
        self.assertEqual(self.ask(post(basic())).reply.status, 200)

    def test_pipelined(self) -> None:
        """Requests behind one that is compared keep their order."""
        self.hashing.held = True
        client = self.ask(post(basic()) + request("OPTIONS", "/") + post(basic()))
        self.hashing.run()
        self.assertEqual(client.statuses, [200, 401, 200])


class WrongTests(AuthCase):
    """Who guesses."""

    def test_wrong(self) -> None:
        """401 for a wrong password, an unknown user, an empty one, and the wrong case."""
        for user, password in (
            ("ann", "wrong"),
            ("zoe", "secret"),
            ("bob", "secret"),
            ("", "secret"),
            ("ann", ""),
            ("Ann", "secret"),
            ("ann", "secret "),
            ("ann", "secret\0"),
        ):
            reply = self.final(post(basic(user, password)))
            self.assertEqual(reply.status, 401, (user, password))
            self.assertIn("WWW-Authenticate", reply.headers)
        self.assertEqual(self.scans.submitted, [])

    def test_delays(self) -> None:
        """Each further guess of an address waits longer, up to 2 s."""
        held = []
        for _ in range(8):
            client = self.ask(post(basic("ann", "wrong")))
            waited = 0
            while not client.replies:
                self.clock.advance(0.125)
                waited += 1
            held.append(waited / 8)
        self.assertEqual(held, sorted(held))
        self.assertEqual(held[-2:], [2, 2])
        self.assertLessEqual(held[0], 1)

    def test_nobody_else_waits(self) -> None:
        """Meanwhile a remembered credential, a new good one and a challenge are answered."""
        self.ask(post(basic()))
        for _ in range(10):
            self.final(post(basic("ann", "wrong")))
        guess = self.ask(post(basic("ann", "wrong")))
        self.assertEqual(self.ask(post(basic())).reply.status, 200)
        self.assertEqual(self.ask(post(basic("bob", "hidden"))).reply.status, 200)
        self.assertEqual(self.ask(post()).reply.status, 401)
        self.assertEqual(guess.replies, [])

    def test_not_remembered(self) -> None:
        """A wrong credential is compared each time."""
        for _ in range(3):
            self.final(post(basic("ann", "wrong")))
        self.assertEqual(self.hashes, 3)

    def test_large_body(self) -> None:
        """A wrong password with a large body is answered, and the body drained."""
        client = self.ask(upload(b"{}", b"x" * 200_000, basic("ann", "no")), by=50_000)
        self.wait(2)
        self.assertEqual(client.reply.status, 401)
        self.assertEqual(self.files(), [])

    def test_told(self) -> None:
        """The log says where the platform's service is enabled again, once a minute."""
        for _ in range(3):
            self.final(post(basic("ann", "wr0ng")))
        (event,) = self.warnings("Threat Sources")
        self.assertEqual(event["user"], "ann")
        self.assertIn("Administrator Settings", event["log_format"])
        self.clock.advance(60)
        self.final(post(basic("ann", "wr0ng")))
        self.assertEqual(len(self.warnings("Threat Sources")), 2)
        self.final(post(basic("bob", "wr0ng")))
        self.assertEqual(len(self.warnings("Threat Sources")), 3)
        self.assertNotIn("wr0ng", str(self.events))

    def test_unknown_told(self) -> None:
        """Of users that there are not, no name is logged: it may be a password."""
        for number in range(3):
            self.final(post(basic(f"nam3-{number}", "wr0ng")))
        self.assertEqual(len(self.warnings("no such user")), 1)
        self.assertEqual(self.warnings("Threat Sources"), [])
        self.assertNotIn("nam3", str(self.events))


class UnavailableTests(AuthCase):
    """503 where no comparison can be made."""

    limits = AuthLimits(max_hashes=4, max_hashes_per_address=8)

    def test_queue(self) -> None:
        """A full queue of hashes; remembered credentials and challenges are not concerned."""
        self.ask(post(basic()))
        self.hashing.held = True
        waiting = [self.ask(post(basic("ann", str(number)))) for number in range(4)]
        reply = self.ask(post(basic("bob", "hidden"))).reply
        self.assertEqual((reply.status, reply.headers["Retry-After"]), (503, "5"))
        self.assertEqual(self.ask(post(basic())).reply.status, 200)
        self.assertEqual(self.ask(post()).reply.status, 401)
        self.hashing.run()
        self.hashing.held = False
        self.assertEqual(self.ask(post(basic("bob", "hidden"))).reply.status, 200)
        self.wait(2.5)
        self.assertEqual([client.reply.status for client in waiting], [401] * 4)

    def test_address(self) -> None:
        """One address can't fill the queue; what has been compared makes room."""
        self.limits = AuthLimits(max_hashes=4, max_hashes_per_address=2)
        self.close()
        self.hashing.held = True
        for _ in range(2):
            for number in range(2):
                self.ask(post(basic("ann", str(number))))
            self.assertEqual(self.ask(post(basic())).reply.status, 503)
            self.hashing.run()
            self.wait(2)

    def test_slow(self) -> None:
        """Who has waited too long is told to come again; the comparison counts all the same."""
        self.hashing.held = True
        client = self.ask(post(basic()))
        self.wait(2.6)
        self.assertEqual(client.reply.status, 503)
        self.hashing.run()
        self.hashing.held = False
        self.assertEqual(self.ask(post(basic())).reply.status, 200)

    def test_broken(self) -> None:
        """A hash that could not be computed, for want of memory say, proves nobody wrong."""
        self.hashing = lambda *job: fail(MemoryError())  # type: ignore[assignment]
        self.assertEqual(self.ask(post(basic())).reply.status, 503)
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
        self.assertEqual(len(self.gate._delays), 0)

    def test_no_file(self) -> None:
        """Without a file that could be read, all is 503, even a challenge; until it comes."""
        for bad in (None, "", "# nobody\n", "ann:plain"):
            self.file.unlink(missing_ok=True)
            if bad is not None:
                self.file.write_text(bad)
            with self.subTest(bad):
                self.passwords.current = None
                self.wait(2)
                for headers in ([], [basic()], [basic("zoe")]):
                    self.assertEqual(self.ask(post(*headers)).reply.status, 503)
                self.assertEqual(self.ask(request("GET", "/health/ready")).reply.status, 200)
        self.write(f"ann:{argon2('secret')}")
        self.wait(1)
        self.assertEqual(self.ask(post(basic())).reply.status, 200)
        self.assertEqual(self.ask(post()).reply.status, 401)


class FileTests(AuthCase):
    """The file changes."""

    def test_revoked(self) -> None:
        """A password that is no longer there is wrong within a second, remembered or not."""
        self.ask(post(basic()))
        self.write(f"ann:{argon2('other')}")
        self.wait(1)
        self.assertEqual(self.final(post(basic())).status, 401)
        self.assertEqual(self.ask(post(basic("ann", "other"))).reply.status, 200)

    def test_rotation(self) -> None:
        """Two lines for a user are both valid, and end one by one."""
        old, new = argon2("old"), htpasswd("new")
        for lines, statuses in (
            ([old], [200, 401]),
            ([old, new], [200, 200]),
            ([new], [401, 200]),
        ):
            self.write(*(f"ann:{line}" for line in lines))
            self.wait(1)
            self.assertEqual(
                [self.final(post(basic("ann", each))).status for each in ("old", "new")], statuses
            )

    def test_broken(self) -> None:
        """A file that is missing, empty or malformed keeps the last good one."""
        for bad in (None, "", "ann:plain\n"):
            if bad is None:
                self.file.unlink()
            else:
                self.write(bad)
            self.wait(3)
            self.assertEqual(self.ask(post(basic())).reply.status, 200)
            self.assertEqual(self.final(post(basic("ann", "wrong"))).status, 401)

    def test_just_written(self) -> None:
        """
        A new password that comes before its file was looked at is no guess: the platform would
        disable the service for it.
        """
        self.wait(0.5)
        self.write(f"ann:{argon2('new')}")
        client = self.ask(post(basic("ann", "new")))
        self.assertEqual(client.replies, [])
        self.wait(0.5)
        self.assertEqual(client.reply.status, 200)
        self.assertEqual(len(self.gate._delays), 0)

    def test_changed_meanwhile(self) -> None:
        """What was compared with a file that has changed since is compared again."""
        self.hashing.held = True
        client = self.ask(post(basic()))
        self.write(f"ann:{argon2('other')}")
        self.wait(1)
        self.hashing.jobs.pop(0)()
        self.assertEqual((client.replies, len(self.gate._remembered)), ([], 0))
        self.hashing.held = False
        self.hashing.run()
        self.wait(2)
        self.assertEqual(client.reply.status, 401)

    def test_keeps_changing(self) -> None:
        """A file that changes all the time is no reason for 401."""
        real = self.passwords.look

        def look() -> Deferred[None]:
            self.passwords.current = read(self.file)
            return real()

        self.passwords.look = look  # type: ignore[method-assign]
        self.limits = AuthLimits(max_wait_secs=60)
        self.gate._limits = self.limits
        client = self.ask(post(basic("ann", "wrong")))
        self.wait(5)
        self.assertEqual(client.reply.status, 503)

    def test_disk_hangs(self) -> None:
        """Without a look at the file there is no 401."""
        self.reading.held = True
        client = self.ask(post(basic("ann", "wrong")))
        self.wait(3)
        self.assertEqual(client.reply.status, 503)
        self.reading.run()


class ServiceTests(AuthCase):
    """Services for some users alone."""

    def setUp(self) -> None:
        """Only Ann may ask phish."""
        super().setUp()
        self.site.users = {"phish": frozenset({"ann"})}

    def test_users(self) -> None:
        """Others get 401 for that service and its scans, and for nothing else."""
        bob = basic("bob", "hidden")
        scan_id = "/" + "0" * 32
        for path, status in (
            ("/phish", 401),
            ("//phish//", 401),
            ("/%70hish/", 401),
            ("/phish" + scan_id, 401),
            ("/", 200),
        ):
            for method in ("POST", "OPTIONS"):
                self.assertEqual(
                    self.ask(request(method, path, b"", "", bob)).reply.status in (401,),
                    status == 401,
                    (method, path),
                )
        self.assertEqual(self.ask(post(basic(), path="/phish/")).reply.status, 200)
        (event,) = self.warnings("Threat Sources")
        self.assertIn("phish", event["why"])

    def test_first_request(self) -> None:
        """Remembered or not makes no difference, and neither is a guess."""
        for _ in range(2):
            reply = self.ask(post(basic("bob", "hidden"), path="/phish/")).reply
            self.assertEqual(reply.status, 401)
        self.assertEqual(len(self.gate._delays), 0)

    def test_reconfigured(self) -> None:
        """Who may ask can change while it runs."""
        self.site.reconfigure(
            limits=self.site.limits, allowed_hosts=(), users={"phish": frozenset({"bob"})}
        )
        self.assertEqual(self.ask(post(basic(), path="/phish/")).reply.status, 401)
        reply = self.ask(post(basic("bob", "hidden"), path="/phish/")).reply
        self.assertEqual(reply.status, 200)


class KleinTests(AuthCase):
    """The same by way of Klein."""

    short_path = False

    def test_statuses(self) -> None:
        """No credential, a good one, a wrong one."""
        self.assertEqual(self.ask(post()).reply.status, 401)
        self.assertEqual(self.ask(post(basic())).reply.status, 200)
        self.assertEqual(self.final(post(basic("ann", "wrong"))).status, 401)


class RememberedTests(SynchronousTestCase):
    """Good credentials."""

    def test_count(self) -> None:
        """The oldest go, when there are too many."""
        kept = Remembered(clock=Clock(), max_age_secs=10, max_count=2)
        for header in (b"a", b"b", b"c"):
            kept.add(kept.digest(header), header.decode())
        self.assertEqual(len(kept), 2)
        self.assertIsNone(kept.find(kept.digest(b"a")))
        found = kept.find(kept.digest(b"c"))
        assert found is not None
        self.assertEqual(found.user, "c")

    def test_age(self) -> None:
        """They end, and leave nothing."""
        clock = Clock()
        kept = Remembered(clock=clock, max_age_secs=10, max_count=2)
        kept.add(kept.digest(b"a"), "a")
        clock.advance(9.9)
        self.assertIsNotNone(kept.find(kept.digest(b"a")))
        clock.advance(0.1)
        self.assertIsNone(kept.find(kept.digest(b"a")))
        self.assertEqual(len(kept), 0)

    def test_keyed(self) -> None:
        """Digests mean nothing in another process."""
        one, other = (Remembered(clock=Clock(), max_age_secs=1, max_count=1) for _ in range(2))
        self.assertNotEqual(one.digest(b"a"), other.digest(b"a"))


class DelaysTests(SynchronousTestCase):
    """Addresses that guess."""

    def setUp(self) -> None:
        """Three addresses are remembered."""
        self.clock = Clock()
        self.delays = Delays(clock=self.clock, max_addresses=3)

    def test_growing(self) -> None:
        """Doubling, up to 2 s, for ever."""
        grown = [self.delays.wrong("192.0.2.1") for _ in range(100)]
        self.assertEqual(grown[:6], [0.1, 0.2, 0.4, 0.8, 1.6, 2.0])
        self.assertEqual(set(grown[5:]), {2.0})

    def test_apart(self) -> None:
        """Each address for itself; a network of IPv6 is one address, all Unix sockets are one."""
        self.assertEqual(self.delays.wrong("192.0.2.1"), 0.1)
        self.assertEqual(self.delays.wrong("::ffff:192.0.2.1"), 0.2)
        self.assertEqual(self.delays.wrong("2001:db8::1"), 0.1)
        self.assertEqual(self.delays.wrong("2001:db8::2:1%eth0"), 0.2)
        self.assertEqual(self.delays.wrong("a Unix socket"), 0.1)
        self.assertEqual(self.delays.wrong(""), 0.2)

    def test_quiet(self) -> None:
        """An address that has been quiet begins anew."""
        self.delays.wrong("192.0.2.1")
        self.clock.advance(599)
        self.assertEqual(self.delays.wrong("192.0.2.1"), 0.2)
        self.clock.advance(600)
        self.assertEqual(self.delays.wrong("192.0.2.1"), 0.1)

    def test_bounded(self) -> None:
        """Those that guessed longest ago are forgotten."""
        for number in range(10):
            self.delays.wrong(f"192.0.2.{number}")
            self.delays.wrong("192.0.2.200")
        self.assertEqual(len(self.delays), 3)
        self.assertEqual(self.delays.wrong("192.0.2.9"), 0.2)
        self.assertEqual(self.delays.wrong("192.0.2.200"), 2.0)


class EndpointTests(WebCase):
    """C{auth:USERS:<any endpoint>}."""

    def test_parse(self) -> None:
        """It needs a file and an endpoint."""
        for args, kwargs in (((), {}), (("users",), {}), (("users", "nonsense"), {})):
            self.assertRaises(ValueError, auth_endpoint, Clock(), args, kwargs)
        self.assertRaises(BadEndpoint, auth_endpoint, Clock(), (), {})

    def test_foreign(self) -> None:
        """It is for our own sites alone."""
        endpoint = auth_endpoint(Clock(), ("users", "tcp", "0"), {})
        self.failureResultOf(endpoint.listen(object()), TypeError)
