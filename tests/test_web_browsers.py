"""Rules for browsers, and what paths and heads mean."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ctsd.web.browsers import host_name
from ctsd.web.heads import CHUNKED, BadHead, parse_head
from ctsd.web.targets import Kind, find_target
from tests.web_fixtures import WebCase, request

IP = b'{"type":"net.ip","value":"192.168.1.1"}'


class BrowserTests(WebCase):
    """Which pages may ask, and under which names."""

    def status(self, host: str, *headers: str, method: str = "POST") -> int:
        """The status of a request with this Host and these headers."""
        data = request(method, "/", IP, "text/plain", *headers)
        return self.ask(data.replace(b"ctsd.example", host.encode(), 1)).reply.status

    def test_not_a_browser(self) -> None:
        """Without a browser's headers, no Host and no listener matters."""
        self.serve(allowed_hosts=("other.example",), loopback=True)
        for host in ("ctsd.example", "", "x:y:z"):
            self.assertEqual(self.status(host), 200)

    def test_own_page(self) -> None:
        """Our own pages may ask."""
        for host, headers in (
            ("ctsd.example:8000", ("Origin: http://ctsd.example:8000",)),
            ("ctsd.example", ("Origin: https://ctsd.example:443", "Sec-Fetch-Site: same-origin")),
            ("CTSD.example", ("Referer: https://ctsd.example/a?b#c",)),
            ("ctsd.example", ("Sec-Fetch-Site: none",)),
            ("[::1]:80", ("Origin: http://[::1]",)),
        ):
            self.assertEqual(self.status(host, *headers), 200, headers)

    def test_foreign(self) -> None:
        """Pages of other sites may not, and nothing is scanned."""
        for headers in (
            ("Origin: http://evil.example",),
            ("Origin: http://ctsd.example:81",),
            ("Origin: null",),
            ("Origin: ",),
            ("Origin: ctsd.example",),
            ("Origin: ftp://ctsd.example",),
            ("Origin: http://ctsd.example@evil.example",),
            ("Origin: http://[ctsd.example",),
            ("Origin: http://ctsd.example", "Origin: http://evil.example"),
            ("Referer: http://evil.example/http://ctsd.example",),
            ("Origin: http://ctsd.example", "Referer: http://evil.example/"),
            ("Sec-Fetch-Site: cross-site",),
            ("Origin: http://ctsd.example", "Sec-Fetch-Site: cross-site"),
        ):
            for method in ("POST", "OPTIONS", "GET"):
                self.assertEqual(self.status("ctsd.example", *headers, method=method), 403, headers)
        self.assertEqual(self.status("", "Origin: http://"), 403)
        self.assertEqual(self.scans.submitted, [])

    def test_loopback(self) -> None:
        """On a loopback listener a browser must have used a loopback name."""
        self.serve(loopback=True)
        for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000"):
            self.assertEqual(self.status(host, f"Origin: http://{host}"), 200, host)
        for host in ("evil.example", "localhost.evil.example", "10.0.0.1", "", "[::2]", "127.1"):
            self.assertEqual(self.status(host, "Sec-Fetch-Site: same-origin"), 421, host)

    def test_allowed_hosts(self) -> None:
        """Listed names are the only ones that browsers may use."""
        self.serve(allowed_hosts=("CTSD.example", "10.0.0.1"), loopback=True)
        for host, status in (
            ("ctsd.example", 200),
            ("ctsd.example.:8000", 200),
            ("10.0.0.1:80", 200),
            ("evil.example", 421),
            ("localhost", 421),
        ):
            self.assertEqual(self.status(host, "Sec-Fetch-Site: same-origin"), status, host)

    def test_reason(self) -> None:
        """A name that does not lead here is told by its name in RFC 9110."""
        self.serve(loopback=True)
        client = self.ask(request("OPTIONS", "/", b"", "", "Sec-Fetch-Site: same-origin"))
        first = client.wire.value().partition(b"\r\n")[0]
        self.assertEqual(first, b"HTTP/1.1 421 Misdirected Request")

    def test_large_body(self) -> None:
        """A foreign page's upload is refused before it comes."""
        data = request("POST", "/", b"x" * 100_000, "text/plain", "Origin: null")
        client = self.ask(data[:500])
        self.assertEqual(client.statuses, [403])
        self.assertTrue(client.wire.half_closed)


class KleinBrowserTests(BrowserTests):
    """The same, by way of Klein."""

    short_path = False


class HostNameTests(SynchronousTestCase):
    """Names out of Host headers."""

    def test_names(self) -> None:
        """Ports, brackets, case and the root's dot are taken off."""
        for host, name in (
            ("a", "a"),
            ("A.b:80", "a.b"),
            ("a.:1", "a"),
            ("[::1]", "::1"),
            ("[::1]:8", "::1"),
            ("", ""),
            (":", ""),
        ):
            self.assertEqual(host_name(host), name)


class TargetTests(SynchronousTestCase):
    """What a path means."""

    def kind(self, target: bytes) -> tuple[Kind, str, str]:
        """What a target means where there are the services "" and "phish"."""
        found = find_target(target, lambda service: service in ("", "phish", "a" * 32))
        return found.kind, found.service, found.scan_id

    def test_service_before_id(self) -> None:
        """A service whose name looks like an id is a service."""
        self.assertEqual(self.kind(b"/" + b"a" * 32), (Kind.SERVICE, "a" * 32, ""))
        self.assertEqual(self.kind(b"/" + b"b" * 32), (Kind.SCAN, "", "b" * 32))

    def test_decoded_once(self) -> None:
        """Percent encoding is taken off once."""
        self.assertEqual(self.kind(b"/%70hish")[0], Kind.SERVICE)
        self.assertEqual(self.kind(b"/%2570hish")[0], Kind.NOTHING)
        self.assertEqual(self.kind(b"%2f%2Fphish%2f"), (Kind.SERVICE, "phish", ""))

    def test_query(self) -> None:
        """A query does not matter."""
        self.assertEqual(self.kind(b"/phish?/x"), (Kind.SERVICE, "phish", ""))

    def test_health(self) -> None:
        """Only /health and /health/ready are something."""
        self.assertEqual(self.kind(b"/health/ready")[0], Kind.READY)
        self.assertEqual(self.kind(b"//health/")[0], Kind.HEALTH)
        for target in (b"/healthy", b"/health/ready/x", b"/ready", b"/phish/health/ready"):
            self.assertEqual(self.kind(target)[0], Kind.NOTHING)


class HeadTests(SynchronousTestCase):
    """What stands before a body."""

    def test_head(self) -> None:
        """Method, target, headers and length are found."""
        head = parse_head(
            b"POST /x HTTP/1.1\r\nhOST:\t a \r\nX: 1\r\nx:2\r\ncontent-length: 007\r\n"
            b"Expect: 100-Continue",
            max_headers=9,
        )
        self.assertEqual((head.method, head.target, head.length), (b"POST", b"/x", 7))
        self.assertEqual((head.headers[b"host"], head.headers[b"x"]), (b"a", b"1, 2"))
        self.assertTrue(head.persistent)
        self.assertTrue(head.expects)

    def test_chunked(self) -> None:
        """A chunked body has no length."""
        head = parse_head(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", max_headers=9)
        self.assertEqual(head.length, CHUNKED)

    def test_expect(self) -> None:
        """Nothing is expected without a body, in HTTP/1.0, or in other words."""
        for data in (
            b"POST / HTTP/1.1\r\nExpect: 100-continue",
            b"POST / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue",
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\nExpect: tea",
        ):
            self.assertFalse(parse_head(data, max_headers=9).expects)

    def test_too_many(self) -> None:
        """Headers have a limit."""
        parse_head(b"GET / HTTP/1.1" + b"\r\nX: y" * 9, max_headers=9)
        self.assertRaises(BadHead, parse_head, b"GET / HTTP/1.1" + b"\r\nX: y" * 10, max_headers=9)
