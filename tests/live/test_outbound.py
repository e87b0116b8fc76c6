"""Requests to a real server on loopback that has every vice."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ctsd.errors import OutboundError
from ctsd.outbound import connecting
from ctsd.outbound.limits import Limits
from ctsd.outbound.outbound import Outbound
from ctsd.remote import Remote
from tests.certificates import make_pair
from tests.live import provider
from tests.live.provider import Provider, redirects, says, serves
from tests.live.proxy import Proxy

FILE = b"".join(b"192.0.2.%d\n" % number for number in range(256)) * 1000
LIMIT = 1 << 30
SECRET = "s3cr3t/key+with=marks"


class OutboundCase(TestCase):
    """A provider with TLS that is trusted, and one without TLS."""

    timeout = 90

    def setUp(self) -> None:
        """Start them."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.pair = make_pair()
        self.provider = Provider(self.pair, self.directory / "tls")
        self.addCleanup(self.provider.end)
        self.into = self.directory / "file"

    def outbound(self, **more: Any) -> Outbound:
        """Real ones, with short limits."""
        given: dict[str, Any] = {"ca_file": self.directory / "tls" / "cert.pem", **more}
        return Outbound(reactor=reactor, limits=Limits(**given), in_thread=deferToThread)

    def remote(self, path: str, **more: Any) -> Remote:
        """A file of the provider's."""
        return Remote(**{"url": self.provider.url(path), "internal": True, **more})

    async def refused(self, waiting: Any) -> str:
        """The reason of a failure, which has no secret; nothing is left of a file."""
        try:
            result = await waiting
        except OutboundError as error:
            self.assertNotIn(SECRET, repr(error) + str(error) + str(error.__cause__))
            self.assertFalse(self.into.exists())
            return error.reason
        raise AssertionError(f"no failure, but {result}")


class DownloadTests(OutboundCase):
    """Files."""

    async def test_whole(self) -> None:
        """A file arrives as it was sent, with its size, digest and headers."""
        self.provider.vices["/feed"] = serves(FILE, 'ETag: "one"')
        found = await self.outbound().download(
            remote=self.remote("/feed", headers={"Auth-Key": "{key}"}, secrets={"key": SECRET}),
            into=self.into,
            max_bytes=LIMIT,
            headers={"If-None-Match": '"zero"'},
        )
        self.assertEqual((found.status, found.size), (200, len(FILE)))
        self.assertEqual(found.sha256, hashlib.sha256(FILE).hexdigest())
        self.assertEqual(found.headers["etag"], '"one"')
        self.assertEqual(self.into.read_bytes(), FILE)
        self.assertEqual(self.into.stat().st_mode & 0o777, 0o600)
        (asked,) = self.provider.asked
        self.assertEqual(asked.headers["auth-key"], SECRET)
        self.assertEqual(asked.headers["if-none-match"], '"zero"')
        self.assertEqual(asked.headers["accept-encoding"], "gzip")
        self.assertEqual(asked.headers["accept"], "*/*")
        self.assertTrue(asked.headers["user-agent"].startswith("ctsd"))

    async def test_key_in_the_address(self) -> None:
        """It arrives as it is, quoted where that has to be."""
        self.provider.vices["/" + quote(SECRET, safe="") + "/feed"] = serves(FILE)
        remote = self.remote("/{key}/feed?auth-key={key}&x=a%2Fb", secrets={"key": SECRET})
        found = await self.outbound().download(remote=remote, into=self.into, max_bytes=LIMIT)
        self.assertEqual(found.status, 200)
        query = self.provider.asked[0].path.partition("?")[2]
        self.assertEqual(parse_qs(query), {"auth-key": [SECRET], "x": ["a/b"]})
        self.assertEqual(found.url, self.provider.url("/***/feed?auth-key=***&x=***"))

    async def test_too_large_by_its_length(self) -> None:
        """Nothing is read of what says that it is too large."""

        def says_much(connection: provider.Connection) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n")
            connection.wait()

        self.provider.vices["/feed"] = says_much
        waiting = self.outbound().download(
            remote=self.remote("/feed"), into=self.into, max_bytes=1_000_000
        )
        self.assertEqual(await self.refused(waiting), "it is larger than 1000000 bytes")

    async def test_compressed(self) -> None:
        """What the server compressed is written as it came."""
        packed = gzip.compress(FILE)
        self.provider.vices["/feed"] = serves(packed, "Content-Encoding: gzip")
        found = await self.outbound().download(
            remote=self.remote("/feed"), into=self.into, max_bytes=LIMIT
        )
        self.assertEqual(found.headers["content-encoding"], "gzip")
        self.assertEqual(self.into.read_bytes(), packed)

    async def test_other_statuses(self) -> None:
        """Other statuses are answers, without a file."""
        for status in ("304 Not Modified", "404 Not Found", "429 Too Many", "509 Over", "500 No"):
            self.provider.vices["/feed"] = says(status, "Retry-After: 7")
            found = await self.outbound().download(
                remote=self.remote("/feed"), into=self.into, max_bytes=LIMIT
            )
            self.assertEqual(found.status, int(status[:3]))
            self.assertEqual((found.size, found.sha256), (0, ""))
            self.assertEqual(found.headers["retry-after"], "7")
            self.assertFalse(self.into.exists())

    async def test_vices(self) -> None:
        """Each is told by its name, in time, and leaves nothing behind."""
        vices = {
            "drips": (provider.drips, "no whole answer within 2 s"),
            "silent": (provider.silent, "nothing came for 1 s"),
            "stops": (provider.silent_after_head, "nothing came for 1 s"),
            "endless": (provider.endless_body, "it is larger than 1000000 bytes"),
            "headers": (provider.endless_head, "the head of its answer is too large"),
            "short": (provider.cut_by_length, "its answer was cut short"),
            "chunks": (provider.cut_in_chunks, "its answer was cut short"),
            "no-http": (provider.no_http, "its answer is no HTTP"),
            "encoded": (
                serves(b"x", "Content-Encoding: br"),
                "its file is compressed in a way that nobody asked for",
            ),
        }
        outbound = self.outbound(stall_secs=1.0, download_secs=2.0)
        for name, (vice, expected) in vices.items():
            self.provider.vices["/" + name] = vice
            waiting = outbound.download(
                remote=self.remote("/" + name), into=self.into, max_bytes=1_000_000
            )
            self.assertEqual(await self.refused(waiting), expected, name)

    async def test_reset(self) -> None:
        """A connection that is reset."""
        plain = Provider()
        self.addCleanup(plain.end)
        plain.vices["/feed"] = provider.resets
        remote = Remote(url=plain.url("/feed"), internal=True, insecure_http=True)
        waiting = self.outbound().download(remote=remote, into=self.into, max_bytes=LIMIT)
        self.assertEqual(await self.refused(waiting), "its answer was cut short")

    async def test_nobody_there(self) -> None:
        """A port that nobody listens on."""
        self.provider.end()
        waiting = self.outbound().download(
            remote=self.remote("/feed"), into=self.into, max_bytes=LIMIT
        )
        self.assertEqual(await self.refused(waiting), "it refused the connection")

    async def test_no_room(self) -> None:
        """A disk that takes no more."""
        self.provider.vices["/feed"] = serves(FILE)
        waiting = self.outbound().download(
            remote=self.remote("/feed"), into=Path("/dev/full"), max_bytes=LIMIT
        )
        self.assertIn("it could not be written", await self.refused(waiting))

    async def test_free_disk(self) -> None:
        """A disk that has to keep some room."""
        self.provider.vices["/feed"] = serves(FILE)
        waiting = self.outbound(keep_free_bytes=1 << 60).download(
            remote=self.remote("/feed"), into=self.into, max_bytes=LIMIT
        )
        self.assertIn("No space left on device", await self.refused(waiting))

    async def test_a_file_is_there(self) -> None:
        """A file that is there is nobody's to overwrite."""
        self.provider.vices["/feed"] = serves(FILE)
        self.into.write_bytes(b"mine")
        with self.assertRaises(OutboundError):
            await self.outbound().download(
                remote=self.remote("/feed"), into=self.into, max_bytes=LIMIT
            )
        self.assertEqual(self.into.read_bytes(), b"mine")

    async def test_cancelled(self) -> None:
        """A download that is given up leaves nothing, and the next one has its turn."""
        self.provider.vices["/feed"] = serves(FILE)
        self.provider.vices["/stops"] = provider.silent_after_head
        outbound = self.outbound()
        first = outbound.download(remote=self.remote("/stops"), into=self.into, max_bytes=LIMIT)
        second = outbound.download(
            remote=self.remote("/feed"), into=self.directory / "second", max_bytes=LIMIT
        )
        while not self.provider.asked:
            await deferToThread(self.provider.over.wait, 0.02)
        self.assertEqual(len(self.provider.asked), 1)
        first.cancel()
        with self.assertRaises(CancelledError):
            await first
        self.assertEqual((await second).status, 200)
        self.assertFalse(self.into.exists())

    async def test_one_at_a_time(self) -> None:
        """A host is asked for one file at a time."""
        running: list[int] = []
        most: list[int] = []

        def counts(connection: provider.Connection) -> None:
            running.append(1)
            most.append(len(running))
            connection.wait(0.05)
            running.pop()
            connection.answer("200 OK", body=b"x")

        self.provider.vices["/feed"] = counts
        outbound = self.outbound()
        await gatherResults(
            [
                outbound.download(
                    remote=self.remote("/feed"), into=self.directory / str(number), max_bytes=LIMIT
                )
                for number in range(4)
            ]
        )
        self.assertEqual(most, [1, 1, 1, 1])


class TrustTests(OutboundCase):
    """Certificates."""

    async def test_unknown_authority(self) -> None:
        """A certificate that nobody vouches for."""
        waiting = self.outbound(ca_file=None).download(
            remote=self.remote("/feed"), into=self.into, max_bytes=LIMIT
        )
        self.assertIn("certificate verify failed", await self.refused(waiting))
        self.assertEqual(self.provider.asked, [])

    async def test_another_name(self) -> None:
        """A certificate for another host."""
        remote = Remote(url=self.provider.url("/feed", host="127.0.0.1"), internal=True)
        waiting = self.outbound().download(remote=remote, into=self.into, max_bytes=LIMIT)
        self.assertEqual(await self.refused(waiting), "its certificate is for another host")
        self.assertEqual(self.provider.asked, [])

    async def test_expired(self) -> None:
        """A certificate that has ended."""
        pair = make_pair(days=-0.5)
        expired = Provider(pair, self.directory / "old")
        self.addCleanup(expired.end)
        remote = Remote(url=expired.url("/feed"), internal=True)
        waiting = self.outbound(ca_file=self.directory / "old" / "cert.pem").download(
            remote=remote, into=self.into, max_bytes=LIMIT
        )
        self.assertIn("certificate verify failed", await self.refused(waiting))

    async def test_no_tls(self) -> None:
        """A server that speaks no TLS."""
        plain = Provider()
        self.addCleanup(plain.end)
        remote = Remote(url=f"https://localhost:{plain.port}/feed", internal=True)
        waiting = self.outbound(stall_secs=2).download(
            remote=remote, into=self.into, max_bytes=LIMIT
        )
        await self.refused(waiting)


class RedirectTests(OutboundCase):
    """Where they lead."""

    async def test_on_the_host(self) -> None:
        """On the same host the credentials go along."""
        self.provider.vices["/feed"] = redirects("/moved?x=1")
        self.provider.vices["/moved"] = serves(FILE)
        remote = self.remote(
            "/feed",
            headers={"Auth-Key": "{key}"},
            secrets={"key": SECRET},
            user="me",
            password="pass",
        )
        found = await self.outbound().download(remote=remote, into=self.into, max_bytes=LIMIT)
        self.assertEqual(found.size, len(FILE))
        for asked in self.provider.asked:
            self.assertEqual(asked.headers["auth-key"], SECRET)
            self.assertEqual(asked.headers["authorization"], "Basic bWU6cGFzcw==")
        self.assertEqual(found.url, self.provider.url("/moved?x=***"))

    async def test_to_private_addresses(self) -> None:
        """Nobody is led to addresses of ours, in whatever form they stand there."""
        places = (
            "https://169.254.169.254/latest/meta-data/",
            "https://127.0.0.1:{port}/feed",
            "https://[::1]:{port}/feed",
            "https://[::ffff:127.0.0.1]:{port}/feed",
            "https://[64:ff9b::7f00:1]/feed",
            "https://2130706433:{port}/feed",
            "https://0x7f.1:{port}/feed",
            "https://0/",
            "https://10.0.0.1/",
            "//ip6-localhost:{port}/feed",
        )
        outbound = self.outbound(connect_secs=5.0)
        for place in places:
            self.provider.vices["/feed"] = redirects(place.format(port=self.provider.port))
            reason = await self.refused(
                outbound.download(remote=self.remote("/feed"), into=self.into, max_bytes=LIMIT)
            )
            self.assertRegex(reason, "may not be asked|has no address", place)
        self.assertEqual(len(self.provider.asked), len(places))

    async def test_not_internal(self) -> None:
        """Without C{internal} the host itself may not be one of ours."""
        waiting = self.outbound().download(
            remote=self.remote("/feed", internal=False), into=self.into, max_bytes=LIMIT
        )
        self.assertIn("localhost may not be asked", await self.refused(waiting))
        self.assertEqual(self.provider.asked, [])

    async def test_loop(self) -> None:
        """A loop comes to an end."""
        self.provider.vices["/feed"] = redirects("/feed")
        waiting = self.outbound(max_redirects=3).download(
            remote=self.remote("/feed"), into=self.into, max_bytes=LIMIT
        )
        self.assertEqual(await self.refused(waiting), "it redirects more than 3 times")
        self.assertEqual(len(self.provider.asked), 4)

    async def test_to_http(self) -> None:
        """Not from https to http."""
        self.provider.vices["/feed"] = redirects("http://example.com/")
        waiting = self.outbound().download(
            remote=self.remote("/feed"), into=self.into, max_bytes=LIMIT
        )
        self.assertIn("expected https", await self.refused(waiting))

    async def test_nowhere(self) -> None:
        """A redirect that leads nowhere."""
        self.provider.vices["/feed"] = says("302 Found")
        waiting = self.outbound().download(
            remote=self.remote("/feed"), into=self.into, max_bytes=LIMIT
        )
        self.assertIn("without saying where to", await self.refused(waiting))

    async def test_to_another_port(self) -> None:
        """
        Another port of the same machine is another server: it gets no credentials, and being a
        private address it is not asked at all.
        """
        other = Provider(self.pair, self.directory / "other")
        self.addCleanup(other.end)
        self.provider.vices["/feed"] = redirects(other.url("/feed"))
        waiting = self.outbound().download(
            remote=self.remote("/feed", headers={"Auth-Key": "{key}"}, secrets={"key": SECRET}),
            into=self.into,
            max_bytes=LIMIT,
        )
        self.assertIn("may not be asked", await self.refused(waiting))
        self.assertEqual(other.asked, [])


class RequestTests(OutboundCase):
    """Answers in memory."""

    async def test_answers(self) -> None:
        """Any status is an answer; parameters, forms and JSON go out."""
        self.provider.vices["/api"] = says("404 Not Found", body=b'{"error": "none"}')
        outbound = self.outbound()
        reply = await outbound.request(
            remote=self.remote("/api", headers={"Key": "{key}"}, secrets={"key": SECRET}),
            params={"ip": "192.0.2.1"},
        )
        self.assertEqual((reply.status, reply.body), (404, b'{"error": "none"}'))
        self.assertEqual(self.provider.asked[0].path, "/api?ip=192.0.2.1")
        self.assertNotIn(SECRET, repr(reply))
        await outbound.request(remote=self.remote("/api"), method="POST", json={"a": 1})
        await outbound.request(remote=self.remote("/api"), method="POST", data={"a": "1"})
        kinds = [asked.headers["content-type"] for asked in self.provider.asked[1:]]
        self.assertEqual(
            kinds, ["application/json; charset=UTF-8", "application/x-www-form-urlencoded"]
        )

    async def test_a_bomb(self) -> None:
        """An answer that decompresses to more than it may."""
        self.provider.vices["/api"] = serves(provider.bomb(64 << 20), "Content-Encoding: gzip")
        waiting = self.outbound().request(remote=self.remote("/api"), max_bytes=1 << 20)
        self.assertEqual(
            await self.refused(waiting), f"it is larger than {1 << 20} bytes, decompressed"
        )
        self.provider.vices["/api"] = serves(gzip.compress(b"[]"), "Content-Encoding: gzip")
        reply = await self.outbound().request(remote=self.remote("/api"))
        self.assertEqual(reply.body, b"[]")

    async def test_too_large(self) -> None:
        """An answer without an end."""
        self.provider.vices["/api"] = provider.endless_body
        waiting = self.outbound().request(remote=self.remote("/api"), max_bytes=100_000)
        self.assertEqual(await self.refused(waiting), "it is larger than 100000 bytes")

    async def test_too_slow(self) -> None:
        """An answer that does not come."""
        self.provider.vices["/api"] = provider.silent
        waiting = self.outbound(total_secs=0.5).request(remote=self.remote("/api"))
        self.assertEqual(await self.refused(waiting), "no whole answer within 0.5 s")

    async def test_a_post_is_not_repeated(self) -> None:
        """A redirect of a POST is an answer."""
        self.provider.vices["/api"] = redirects("/other")
        reply = await self.outbound().request(remote=self.remote("/api"), method="POST", data=b"x")
        self.assertEqual(reply.status, 302)
        self.assertEqual(len(self.provider.asked), 1)


class ProxyTests(OutboundCase):
    """Through a proxy."""

    def setUp(self) -> None:
        """It takes localhost for a name that only it knows."""
        super().setUp()
        self.proxy = Proxy("Basic bWU6b3Blbg==")
        self.addCleanup(self.proxy.end)
        self.proxy.places["localhost:443"] = ("127.0.0.1", self.provider.port)

    def proxied(self, authorization: bytes = b"Basic bWU6b3Blbg==", **more: Any) -> Outbound:
        """Through it."""
        there = connecting.Proxy(
            host="127.0.0.1", port=self.proxy.port, authorization=authorization
        )
        return self.outbound(proxy=there, **more)

    async def test_https(self) -> None:
        """TLS is between us and the provider; the proxy sees its name alone."""
        self.provider.vices["/feed"] = serves(FILE)
        remote = Remote(url="https://localhost/feed", internal=True, headers={"Key": SECRET})
        found = await self.proxied().download(remote=remote, into=self.into, max_bytes=LIMIT)
        self.assertEqual((found.status, found.size), (200, len(FILE)))
        self.assertEqual([asked.path for asked in self.proxy.asked], ["localhost:443"])
        self.assertNotIn("key", self.proxy.asked[0].headers)
        self.assertNotIn("proxy-authorization", self.provider.asked[0].headers)

    async def test_certificate(self) -> None:
        """It is checked through a tunnel, too."""
        self.proxy.places["other.example:443"] = ("127.0.0.1", self.provider.port)
        waiting = self.proxied().request(remote=Remote(url="https://other.example/"))
        self.assertEqual(await self.refused(waiting), "its certificate is for another host")

    async def test_refused(self) -> None:
        """It says why."""
        remote = Remote(url="https://localhost/feed", internal=True)
        waiting = self.proxied(b"Basic eDp4").request(remote=remote)
        self.assertEqual(await self.refused(waiting), "the proxy wants other credentials (407)")
        waiting = self.proxied().request(remote=Remote(url="https://nowhere.example/"))
        self.assertEqual(await self.refused(waiting), "the proxy answered 502")

    async def test_without_it(self) -> None:
        """A host that needs none is asked directly."""
        self.provider.vices["/feed"] = serves(FILE)
        outbound = self.proxied(no_proxy=("localhost",))
        reply = await outbound.request(remote=self.remote("/feed"))
        self.assertEqual(reply.status, 200)
        self.assertEqual(self.proxy.asked, [])
