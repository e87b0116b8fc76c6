"""Requests to servers of others, without a network."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ctsd.addresses import way_out, why_host_refused, why_refused
from ctsd.errors import OutboundError, Unreached
from ctsd.interfaces.outbound import IOutbound
from ctsd.outbound.bodies import gunzip
from ctsd.outbound.connecting import Proxy
from ctsd.outbound.hops import first_hop, next_hop
from ctsd.outbound.limits import Limits
from ctsd.outbound.outbound import Outbound
from ctsd.outbound.reasons import reason_of
from ctsd.outbound.trust import make_policy
from ctsd.remote import MASK, Remote, masked, retry_after_secs

SECRET = "s3cr3t/key+with=marks"
KEYED = Remote(
    url="https://feeds.example/{key}/recent.csv?auth-key={key}",
    headers={"Auth-Key": "{key}"},
    secrets={"key": SECRET},
)


class AddressesTests(SynchronousTestCase):
    """Which addresses may be asked."""

    def test_public(self) -> None:
        """Addresses of the net may."""
        for host in ("8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808", "2002:808:808::"):
            self.assertEqual(why_refused(host), "", host)

    def test_ours(self) -> None:
        """Private and loopback ones only when that is wanted."""
        for host in (
            "127.0.0.1",
            "127.8.8.8",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "240.0.0.1",
            "::1",
            "fd12::1",
            "fec0::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2002:7f00:1::",
        ):
            self.assertNotEqual(why_refused(host), "", host)
            self.assertEqual(why_refused(host, internal=True), "", host)
            self.assertIn("internal = true", way_out(host))
            self.assertEqual(way_out(host, own=False), "")

    def test_never(self) -> None:
        """Some never, however they are written."""
        for host in (
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "169.254.169.254",
            "169.254.1.1",
            "fe80::1",
            "fe80::1%eth0",
            "224.0.0.1",
            "ff02::1",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::",
            "2001:0:a9fe:a9fe::1",
            "",
            "localhost",
        ):
            self.assertNotEqual(why_refused(host, internal=True), "", host)
            self.assertEqual(way_out(host), "")

    def test_by_its_text(self) -> None:
        """What a host is by its text alone, however that is written; a name is nothing yet."""
        for host in ("feeds.example", "8.8.8.8", "8.8.8.8.", "134744072", "cafe", "[", ""):
            self.assertEqual(why_host_refused(host), "", host)
        for host in ("localhost", "a.LocalHost.", "127.1", "0x7f.0.0.1", "2130706433", "10.0.0.1."):
            self.assertIn("internal = true", why_host_refused(host), host)
            self.assertNotIn("internal", why_host_refused(host, own=False), host)
            self.assertEqual(why_host_refused(host, internal=True), "", host)
        for host in ("169.254.169.254", "2852039166", "0xa9fea9fe", "::ffff:a9fe:a9fe", "fe80::1"):
            why = why_host_refused(host, internal=True)
            self.assertIn("link-local", why, host)
            self.assertNotIn("internal = true", why_host_refused(host), host)

    @given(st.ip_addresses(v=4))
    def test_inside(self, address: Any) -> None:
        """An IPv4 address inside of an IPv6 address is treated as it is outside."""
        number = int(address)
        for prefix, shift in ((0xFFFF << 32, 0), (0x64FF9B << 96, 0), (0x2002 << 112, 80)):
            inside = str(IPv6Address("TCP", _text(prefix | number << shift), 1).host)
            for internal in (False, True):
                self.assertEqual(
                    bool(why_refused(inside, internal=internal)),
                    bool(why_refused(str(address), internal=internal)),
                    inside,
                )


def _text(number: int) -> str:
    return ":".join(f"{number >> shift & 0xFFFF:x}" for shift in range(112, -16, -16))


class MaskTests(SynchronousTestCase):
    """Addresses for people."""

    def test_template(self) -> None:
        """A description's address has no secret in it in the first place."""
        self.assertEqual(KEYED.shown, KEYED.url)
        self.assertNotIn(SECRET, repr(KEYED))

    def test_secrets(self) -> None:
        """Secrets go, raw and quoted, as do values of the query, userinfo and fragment."""
        shown = masked(KEYED.filled_url() + "&x=1#y", KEYED.hidden)
        self.assertEqual(shown, "https://feeds.example/***/recent.csv?auth-key=***&x=***")
        self.assertEqual(masked("https://me:pw@h.example/a?b"), "https://h.example/a?***")

    def test_like_keys(self) -> None:
        """What looks like a key goes, names of files stay."""
        self.assertEqual(
            masked("https://h.example/data/0123456789abcdef0123456789abcdef/online-valid.csv"),
            "https://h.example/data/***/online-valid.csv",
        )
        url = "https://h.example/exports/known_exploited_vulnerabilities.json"
        self.assertEqual(masked(url), url)

    @given(st.text(st.characters(codec="ascii"), min_size=8), st.text())
    def test_never(self, secret: str, rest: str) -> None:
        """A secret is never shown, and nothing breaks."""
        remote = Remote(url="https://h.example/{key}?a=" + rest, secrets={"key": secret})
        try:
            shown = masked(remote.filled_url(), remote.hidden)
        except KeyError:
            return
        if secret not in "https://h.example/?a=" + MASK * 2:
            self.assertNotIn(secret, shown)

    def test_no_such_secret(self) -> None:
        """One that is not there is told by its name."""
        remote = Remote(url="https://h.example/{key}")
        with self.assertRaises(OutboundError) as caught:
            first_hop(remote, {})
        self.assertIn("no secret is called key", caught.exception.reason)


class RetryAfterTests(SynchronousTestCase):
    """C{Retry-After}."""

    def test_forms(self) -> None:
        """Seconds, dates, and nonsense."""
        now = 1_000_000_000.0  # Sun, 09 Sep 2001 01:46:40 GMT
        for value, expected in {
            "120": 120.0,
            " 0 ": 0.0,
            "Sun, 09 Sep 2001 01:47:40 GMT": 60.0,
            "Sunday, 09-Sep-01 01:47:40 GMT": 60.0,
            "Sun, 09 Sep 2001 01:45:40 GMT": 0.0,
            "-1": None,
            "soon": None,
            "": None,
            "1.5": None,
            "9" * 400: float("inf"),
            "Sun, 09 Sep 99999999 01:47:40 GMT": None,
        }.items():
            self.assertEqual(retry_after_secs(value, now=now), expected, value)

    @given(st.text())
    def test_anything(self, value: str) -> None:
        """Nothing breaks it."""
        found = retry_after_secs(value, now=0.0)
        self.assertTrue(found is None or found >= 0)


class HopsTests(SynchronousTestCase):
    """Redirects."""

    headers = {"User-Agent": "us"}

    def go(self, location: str, remote: Remote = KEYED) -> Any:
        """Follow one."""
        return next_hop(first_hop(remote, self.headers), remote, location, self.headers)

    def test_first(self) -> None:
        """The address and the headers have their secrets, and no repr has."""
        hop = first_hop(KEYED, {"auth-key": "mine", **self.headers})
        self.assertIn("s3cr3t%2Fkey%2Bwith%3Dmarks", hop.url)
        self.assertEqual(dict(hop.headers), {"User-Agent": "us", "Auth-Key": SECRET})
        self.assertNotIn("s3cr3t", repr(hop))

    def test_bad_addresses(self) -> None:
        """What is read in different ways is not asked at all."""
        for url in (
            "ftp://h.example/",
            "http://h.example/",
            "https://",
            "https:///path",
            "https://h.example\\@evil.example/",
            "https://h.example:port/",
            "https://h.example:99999/",
            "https://h example/",
            "https://[::1/",
            "file:///etc/passwd",
            "h.example",
        ):
            with self.assertRaises(OutboundError, msg=url):
                first_hop(Remote(url=url), {})

    def test_names(self) -> None:
        """Names of all scripts, ports, and a bracketed address."""
        for url, expected in {
            "https://Bücher.example:443/ä?ö": "https://xn--bcher-kva.example/%C3%A4?%C3%B6",
            "https://[2001:DB8::1]:8443": "https://[2001:db8::1]:8443/",
            "https://me:pw@h.example/#x": "https://h.example/",
        }.items():
            self.assertEqual(first_hop(Remote(url=url), {}).url, expected)

    def test_same_server(self) -> None:
        """There the credentials stay."""
        for location in ("/b", "b", "https://FEEDS.example/b", "//feeds.example:443/b"):
            hop = self.go(location)
            self.assertTrue(hop.own, location)
            self.assertEqual(hop.headers["Auth-Key"], SECRET)

    def test_another_server(self) -> None:
        """There they are gone, as is the right to ask private addresses; also from then on."""
        remote = Remote(
            url="https://feeds.example/a",
            headers={"Auth-Key": "{key}"},
            secrets={"key": SECRET},
            user="me",
            password="password",
            internal=True,
        )
        for location in (
            "https://evil.example/",
            "https://feeds.example:8443/",
            "https://feeds.example.evil.example/",
            "https://feeds.example@evil.example/",
        ):
            hop = self.go(location, remote)
            self.assertFalse(hop.own)
            self.assertFalse(hop.internal)
            self.assertEqual((dict(hop.headers), hop.user, hop.password), (self.headers, "", ""))
            back = next_hop(hop, remote, "https://feeds.example/a", self.headers)
            self.assertEqual((back.own, dict(back.headers)), (False, self.headers))

    def test_secrets_in_addresses(self) -> None:
        """A secret in the query is taken out; one in the path is no way to go."""
        quoted = "s3cr3t%2Fkey%2Bwith%3Dmarks"
        hop = self.go(f"https://cdn.example/f?a=1&k={quoted}&b=2")
        self.assertEqual(hop.url, "https://cdn.example/f?a=1&b=2")
        for path in (quoted, quoted.replace("%", "%25"), SECRET):
            with self.assertRaises(OutboundError) as caught:
                self.go(f"https://cdn.example/{path}/f")
            self.assertNotIn(quoted, caught.exception.reason)
            self.assertNotIn(SECRET, caught.exception.reason)

    def test_short_secrets(self) -> None:
        """A user's name stands in many addresses by chance; as a word of its own it is meant."""
        remote = Remote(url="https://feeds.example/", secrets={"user": "csv"})
        hop = self.go("https://cdn.example/list.csv?format=csv&x=csvs", remote)
        self.assertEqual(hop.url, "https://cdn.example/list.csv?x=csvs")
        self.assertRaises(OutboundError, self.go, "https://cdn.example/csv/list", remote)
        self.assertEqual(
            masked("https://h.example/list.csv", ("csv",)), "https://h.example/list.csv"
        )

    def test_to_http(self) -> None:
        """Only where it is allowed, and without the credentials."""
        with self.assertRaises(OutboundError):
            self.go("http://feeds.example/")
        remote = Remote(url="https://feeds.example/", headers={"Key": "k"}, insecure_http=True)
        self.assertEqual(dict(self.go("http://feeds.example/", remote).headers), self.headers)
        up = Remote(url="http://feeds.example/", headers={"Key": "k"}, insecure_http=True)
        self.assertTrue(self.go("https://feeds.example/", up).own)

    @given(st.text())
    def test_anything(self, location: str) -> None:
        """Whatever is sent, the secret goes to nobody else, and nothing but our error is raised."""
        try:
            hop = self.go(location)
        except OutboundError as error:
            self.assertNotIn("s3cr3t", error.reason)
            return
        self.assertTrue(hop.own or "s3cr3t" not in hop.url)


class ReasonsTests(SynchronousTestCase):
    """What is told of errors."""

    def test_unknown(self) -> None:
        """Of an unknown one only its type: its text may quote anything."""
        self.assertEqual(reason_of(ValueError(SECRET)), "it failed (ValueError)")


@implementer(IHostnameResolver)
class Names:
    """
    A resolver with answers of its own: the next one for each question.
    """

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    def resolveHostName(
        self, resolutionReceiver: Any, hostName: str, portNumber: int = 0, *_: Any
    ) -> Any:
        """Answer at once."""
        resolutionReceiver.resolutionBegan(None)
        for host in self.answers.pop(0):
            kind = IPv6Address if ":" in host else IPv4Address
            resolutionReceiver.addressResolved(kind("TCP", host, portNumber))
        resolutionReceiver.resolutionComplete()


class TcpTransport(StringTransport):
    """What a connection's transport also has."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """It goes nowhere, at once."""


class OutboundTests(SynchronousTestCase):
    """Requests over connections that are none."""

    def setUp(self) -> None:
        """A reactor in memory."""
        self.reactor = MemoryReactorClock()
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def outbound(self, *names: list[str], **limits: Any) -> Outbound:
        """One, with what the resolver will say."""
        self.reactor.installNameResolver(Names(*names))
        return Outbound(reactor=self.reactor, limits=Limits(**limits), in_thread=_at_once)

    def get(self, outbound: Outbound, **more: Any) -> Deferred[Any]:
        """Ask for something without TLS."""
        given = {"url": "http://feeds.example/a", "insecure_http": True, **more}
        return outbound.request(remote=Remote(**given))

    def connected(self, number: int = -1) -> tuple[Any, StringTransport]:
        """The client of a connection that was begun, and its transport."""
        factory = self.reactor.tcpClients[number][2]
        protocol = factory.buildProtocol(None)
        transport = TcpTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def reason(self, waiting: Deferred[Any]) -> str:
        """Why it failed."""
        error = self.failureResultOf(waiting, OutboundError).value
        assert isinstance(error, OutboundError)
        return error.reason

    def unreached(self, waiting: Deferred[Any]) -> str:
        """Why nothing was sent."""
        error = self.failureResultOf(waiting, Unreached).value
        assert isinstance(error, Unreached)
        return error.reason

    def test_interface(self) -> None:
        """It is what it says it is."""
        verifyObject(IOutbound, self.outbound())

    def test_the_checked_address(self) -> None:
        """
        The name is resolved once, and the connection goes to the address that was checked; those
        that are refused are left out.
        """
        waiting = self.get(self.outbound(["127.0.0.1", "203.0.114.7"], ["127.0.0.1"]))
        self.assertEqual([client[:2] for client in self.reactor.tcpClients], [("203.0.114.7", 80)])
        protocol, transport = self.connected()
        self.assertIn(b"GET /a HTTP/1.1\r\n", transport.value())
        self.assertIn(b"Host: feeds.example\r\n", transport.value())
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        self.assertEqual(self.successResultOf(waiting).body, b"hi")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_resolved_again(self) -> None:
        """A redirect to the same name is checked anew."""
        waiting = self.get(self.outbound(["203.0.114.7"], ["127.0.0.1"]))
        protocol, _ = self.connected()
        protocol.dataReceived(b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n")
        error = self.failureResultOf(waiting, OutboundError).value
        self.assertEqual(
            str(error),
            "feeds.example may not be asked: 127.0.0.1 is a loopback address; internal = true"
            " allows a server of one's own",
        )
        self.assertNotIsInstance(error, Unreached)  # for it has been asked
        self.assertEqual(len(self.reactor.tcpClients), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_no_address(self) -> None:
        """A name without an address."""
        self.assertEqual(self.unreached(self.get(self.outbound([]))), "its name has no address")

    def test_times(self) -> None:
        """Connecting and the whole have limits; the test's clock rules them."""
        waiting = self.get(self.outbound(["203.0.114.7"], connect_secs=5.0))
        self.reactor.advance(4.9)
        self.assertNoResult(waiting)
        self.reactor.advance(0.2)
        self.assertEqual(self.unreached(waiting), "no connection in time")
        waiting = self.get(self.outbound(["203.0.114.7"], total_secs=30.0))
        self.connected()
        self.reactor.advance(29)
        self.assertNoResult(waiting)
        self.reactor.advance(1.1)
        error = self.failureResultOf(waiting, OutboundError).value
        self.assertEqual((type(error), str(error)), (OutboundError, "no whole answer within 30 s"))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_given_up(self) -> None:
        """At whatever stage, who gives up is told that, and nothing goes on."""
        waiting = self.get(self.outbound(["203.0.114.7"]))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        for said in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"):
            waiting = self.get(self.outbound(["203.0.114.7"]))
            protocol, transport = self.connected()
            protocol.dataReceived(said)
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            self.assertTrue(transport.disconnecting or transport.disconnected)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_refused_connection(self) -> None:
        """Nobody listens there."""
        waiting = self.get(self.outbound(["203.0.114.7"]))
        factory = self.reactor.tcpClients[0][2]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.reactor.advance(1)
        self.assertEqual(self.unreached(waiting), "it refused the connection")

    def test_http_through_a_proxy(self) -> None:
        """The proxy is told the whole address and our credentials; bare addresses are checked."""
        proxy = Proxy(host="proxy.example", port=3128, authorization=b"Basic eA==")
        outbound = self.outbound(["10.0.0.1"], proxy=proxy)
        self.assertNotIn("eA==", repr(proxy))
        waiting = self.get(outbound)
        self.assertEqual(self.reactor.tcpClients[0][:2], ("10.0.0.1", 3128))
        protocol, transport = self.connected()
        self.assertIn(b"GET http://feeds.example/a HTTP/1.1\r\n", transport.value())
        self.assertIn(b"Proxy-Authorization: Basic eA==\r\n", transport.value())
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(self.successResultOf(waiting).status, 200)
        for url in (
            "http://127.0.0.1/",
            "http://localhost./",
            "http://[::ffff:10.0.0.1]/",
            "http://2852039166/",
            "http://0xa9.254.43518/",
        ):
            self.assertIn("may not be asked", self.reason(self.get(outbound, url=url)))

    def tunnel(self, answer: bytes) -> tuple[Deferred[Any], StringTransport]:
        """Ask through a proxy, which answers this."""
        proxy = Proxy(host="proxy.example", port=3128, authorization=b"Basic eA==")
        waiting = self.get(
            self.outbound(["10.0.0.1"], proxy=proxy),
            url="https://feeds.example/{key}",
            secrets={"key": SECRET},
        )
        protocol, transport = self.connected()
        self.assertEqual(
            transport.value(),
            b"CONNECT feeds.example:443 HTTP/1.1\r\nHost: feeds.example:443\r\n"
            b"Proxy-Authorization: Basic eA==\r\n\r\n",
        )
        transport.clear()
        for piece in (answer[:10], answer[10:]):
            protocol.dataReceived(piece)
        return waiting, transport

    def test_https_through_a_proxy(self) -> None:
        """It opens a tunnel, and TLS begins in it."""
        waiting, transport = self.tunnel(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n")
        self.assertNoResult(waiting)
        self.assertEqual(transport.value()[:1], b"\x16")  # a handshake
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)

    def test_no_tunnel(self) -> None:
        """A proxy that opens none says why."""
        for answer, expected in {
            b"HTTP/1.1 407 Who are you\r\n\r\n": "the proxy wants other credentials (407)",
            b"HTTP/1.0 503 No\r\n\r\n": "the proxy answered 503",
            b"SSH-2.0-OpenSSH\r\n\r\n": "the proxy's answer is no HTTP",
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 4000: (
                "the proxy's answer is no HTTP, or its head is too large"
            ),
        }.items():
            waiting, _ = self.tunnel(answer)
            self.assertEqual(self.unreached(waiting), expected)

    def test_proxy_goes_away(self) -> None:
        """Before it answered, and after nothing at all."""
        proxy = Proxy(host="proxy.example", port=3128)
        outbound = self.outbound(["10.0.0.1"], ["10.0.0.1"], proxy=proxy, connect_secs=5.0)
        waiting = self.get(outbound, url="https://feeds.example/")
        protocol, _ = self.connected()
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.reason(waiting), "the proxy closed the connection")
        waiting = self.get(outbound, url="https://feeds.example/")
        self.connected()
        self.reactor.advance(5.1)
        self.assertEqual(self.reason(waiting), "no connection in time")

    def test_no_proxy(self) -> None:
        """Hosts that are asked directly, with those below them."""
        limits = Limits(proxy=Proxy(host="p", port=1), no_proxy=("corp.example",))
        self.assertIsNone(limits.proxy_for("corp.example"))
        self.assertIsNone(limits.proxy_for("misp.corp.example"))
        self.assertIsNotNone(limits.proxy_for("notcorp.example"))

    def test_ca_file(self) -> None:
        """One without certificates is told by its name."""
        file = self.directory / "ca.pem"
        file.write_text("nothing")
        with self.assertRaises(OutboundError) as caught:
            make_policy(file)
        self.assertIn(str(file), caught.exception.reason)

    def test_gunzip(self) -> None:
        """Only gzip, only whole."""
        packer = zlib.compressobj(wbits=31)
        packed = packer.compress(b"x" * 1000) + packer.flush()
        self.assertEqual(gunzip(packed, 1000), b"x" * 1000)
        self.assertRaises(OutboundError, gunzip, packed, 999)
        self.assertRaises(OutboundError, gunzip, packed[:-9], 1000)
        self.assertRaises(OutboundError, gunzip, b"plain", 1000)


def _at_once(function: Any, *args: Any) -> Deferred[Any]:
    return succeed(function(*args))
