"""Endpoint strings, taken apart and put in terms of our own TLS."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import endpoints
from twisted.trial.unittest import SynchronousTestCase

from ctsd.config.endpoint_strings import (
    BadEndpoint,
    Part,
    arguments_of,
    innermost,
    joined,
    layers,
    on_lent,
    reloading,
    split,
    taken_apart,
)

PATHS = st.text(st.sampled_from("ab:=\\/. é"), min_size=1).map(lambda text: "/" + text)
ENDPOINTS = st.sampled_from(
    [
        "tcp:8000",
        "tcp:8000:interface=127.0.0.1:backlog=9",
        "unix:/s:mode=600",
        "systemd:domain=INET:index=0",
    ]
)


class SplitTests(SynchronousTestCase):
    """Twisted's grammar."""

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.text("a=\\:"), st.text("b=\\:")), min_size=1))
    def test_round_trip(self, pairs: list[tuple[str, str]]) -> None:
        """What was put together is taken apart again, by us and by Twisted."""
        parts = [Part(name, value) for name, value in pairs]
        text = joined(parts)
        self.assertEqual(split(text), parts)
        args, kwargs = endpoints._parse(text)
        self.assertEqual(args, [part.value for part in parts if not part.name])
        self.assertEqual(kwargs, {part.name: part.value for part in parts if part.name})


class ReloadingTests(SynchronousTestCase):
    """C{ssl:} becomes C{tls-wrap:}."""

    def test_ssl(self) -> None:
        """With all of its arguments, named or not, behind any prefixes."""
        for text, becomes in (
            ("ssl:1:k", "tls-wrap:privateKey=k:certKey=k:tcp:port=1"),
            ("ssl:1:privateKey=k:certKey=c", "tls-wrap:privateKey=k:certKey=c:tcp:port=1"),
            (
                "ssl:port=1:certKey=c:privateKey=k:backlog=9:interface=\\:\\:1"
                ":dhParameters=d:extraCertChain=e",
                "tls-wrap:privateKey=k:certKey=c:extraCertChain=e:dhParameters=d"
                ":tcp:port=1:backlog=9:interface=\\:\\:1",
            ),
            (
                "auth:u:haproxy:ssl:1:k:c",
                "auth:users=u:haproxy:tls-wrap:privateKey=k:certKey=c:tcp:port=1",
            ),
        ):
            self.assertEqual(reloading(text), becomes)
            self.assertEqual(reloading(becomes), becomes)

    def test_others(self) -> None:
        """Everything else stays what it is."""
        for text in (
            "tcp:1",
            "tcp6:1:interface=\\:\\:",
            "unix:/a\\=b",
            "systemd:domain=INET:index=0",
        ):
            self.assertEqual(reloading(text), text)
            self.assertEqual(reloading("haproxy:" + text), "haproxy:" + text)

    def test_refused(self) -> None:
        """What would not do what it says."""
        for text, told in (
            ("ssl:1:k:c:TLSv1_METHOD", "sslmethod"),
            ("ssl:1:k:c:sslmethod=SSLv23_METHOD", "sslmethod"),
            ("tls-wrap:k:c:ssl:1:k:c", "no ssl: behind tls-wrap:"),
            ("tls-wrap:k:c:tls:certs:443", "no tls: behind tls-wrap:"),
            ("tls-wrap:k:c:tls-wrap:k:c:tcp:1", "tls-wrap: once"),
            ("auth:u:auth:v:tcp:1", "auth: once"),
            ("tls-wrap:k:c:tcp:1:extraCertChain=e", "extraCertChain= right behind"),
            ("auth:/a=b:tcp:1", "expected users"),
            ("auth", "expected users"),
            ("tls-wrap:k", "expected certKey"),
        ):
            self.assertIn(told, str(self.assertRaises(BadEndpoint, reloading, text)))

    def test_layers(self) -> None:
        """Each prefix has its own arguments."""
        found = layers(split("auth:u:tls-wrap:k:c:dhParameters=d:tcp:1:backlog=2"))
        self.assertEqual(
            [(layer.kind, layer.at, dict(layer.arguments)) for layer in found],
            [
                ("auth", 0, {"users": 1}),
                ("tls-wrap", 2, {"privateKey": 3, "certKey": 4, "dhParameters": 5}),
                ("tcp", 6, {"port": 7, "backlog": 8}),
            ],
        )


class TakenApartTests(SynchronousTestCase):
    """What a parser got from Twisted is what was written."""

    @settings(deadline=None)
    @given(PATHS, PATHS, PATHS, ENDPOINTS, st.booleans())
    def test_nested(self, users: str, key: str, chain: str, inner: str, named: bool) -> None:
        """Whatever stands in the paths, through each of the parsers."""
        names = ("users", "privateKey", "certKey") if named else ("", "", "")
        prefix = [
            *(Part("", "auth"), Part(names[0], users), Part("", "tls-wrap")),
            *(Part(names[1], key), Part(names[2], key), Part("extraCertChain", chain)),
        ]
        text = joined([*prefix, *split(inner)])
        args, kwargs = endpoints._parse(text)
        own, rest = taken_apart("auth", tuple(args[1:]), kwargs)
        self.assertEqual(own, {"users": users})
        args, kwargs = endpoints._parse(rest)
        own, rest = taken_apart("tls-wrap", tuple(args[1:]), kwargs)
        self.assertEqual(own, {"privateKey": key, "certKey": key, "extraCertChain": chain})
        self.assertEqual(endpoints._parse(rest), endpoints._parse(inner))

    def test_missing(self) -> None:
        """A parser that has got too little says what it misses."""
        for kind, args, told in (
            ("auth", (), "users"),
            ("tls-wrap", ("k",), "certKey"),
        ):
            error = self.assertRaises(BadEndpoint, taken_apart, kind, args, {})
            self.assertIn(told, str(error))


class LentTests(SynchronousTestCase):
    """A socket in the place of the endpoint."""

    def test_on_lent(self) -> None:
        """What stands before the endpoint stays."""
        for text, expected in (
            ("tcp:8000", "ctsd-lent:7"),
            ("unix:/a\\:b:mode=660", "ctsd-lent:7"),
            ("auth:u:haproxy:tcp6:8000", "auth:users=u:haproxy:ctsd-lent:7"),
            (
                "auth:u\\:x:ssl:8443:privateKey=k:certKey=c:interface=\\:\\:1",
                "auth:users=u\\:x:tls-wrap:privateKey=k:certKey=c:ctsd-lent:7",
            ),
            (
                "tls-wrap:k:c:extraCertChain=x:systemd:domain=INET:index=0",
                "tls-wrap:privateKey=k:certKey=c:extraCertChain=x:ctsd-lent:7",
            ),
        ):
            self.assertEqual(on_lent(reloading(text), 7), expected)
            # Twisted understands it.
            endpoints._parse(expected)

    def test_innermost(self) -> None:
        """The endpoint, and its arguments by name."""
        text = reloading("auth:u:ssl:8443:privateKey=k:certKey=c:interface=\\:\\:1:backlog=9")
        self.assertEqual(innermost(text), "tcp:port=8443:interface=\\:\\:1:backlog=9")
        expected = {"port": "8443", "interface": "::1", "backlog": "9"}
        self.assertEqual(arguments_of(innermost(text)), expected)
        self.assertEqual(arguments_of("tcp6:8000:9"), {"port": "8000", "backlog": "9"})
