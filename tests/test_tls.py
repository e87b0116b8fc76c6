"""TLS that reads its files again."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ctsd.tls import BadCertificate, Certificate, CertificateFiles, tls_endpoint
from tests.certificates import Pair, make_pair
from tests.web_fixtures import Threads, WebCase


class _Greeter(Protocol):
    """Says hello."""

    def connectionMade(self) -> None:
        """Say it."""
        self.transport.write(b"hello")  # type: ignore[union-attr]


@implementer(IProtocolNegotiationFactory)
class _Greeters(Factory):
    protocol = _Greeter

    def acceptableProtocols(self) -> list[bytes]:
        """As a site of ours."""
        return [b"http/1.1"]


class Connection:
    """A client of Python's ssl, connected to a certificate of ours without a network."""

    def __init__(self, certificate: Certificate, context: ssl.SSLContext) -> None:
        self._clock = Clock()
        factory = TLSMemoryBIOFactory(certificate, False, _Greeters(), self._clock)
        self._server = factory.buildProtocol(None)
        self._wire = StringTransport()
        self._server.makeConnection(self._wire)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._do(self.client.do_handshake)

    def _do(self, work: Any) -> Any:
        for _ in range(10):
            try:
                return work()
            except ssl.SSLWantReadError:
                self._exchange()
            finally:
                self._exchange()
        raise AssertionError("it does not come to an end")

    def _exchange(self) -> None:
        sent = self._outgoing.read()
        if sent:
            self._server.dataReceived(sent)
        self._clock.advance(1)
        self._incoming.write(self._wire.value())
        self._wire.clear()

    def read(self) -> bytes:
        """What the server said."""
        said: bytes = self._do(lambda: self.client.read(100))
        return said

    @property
    def serial(self) -> int:
        """The number of the certificate that it has."""
        found = self.client.getpeercert()
        assert found is not None
        return int(str(found["serialNumber"]), 16)


def trusting(*pairs: Pair) -> ssl.SSLContext:
    """A client that trusts these."""
    return ssl.create_default_context(cadata="".join(pair.pem.decode() for pair in pairs))


class TLSCase(SynchronousTestCase):
    """A directory with a pair in it."""

    def setUp(self) -> None:
        """Write it."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.pair = make_pair()
        self.pair.write(self.directory)
        self.files = CertificateFiles(
            key=self.directory / "key.pem", certificate=self.directory / "cert.pem"
        )
        self.clock = Clock()
        self.threads = Threads()

    def certificate(self, files: CertificateFiles | None = None) -> Certificate:
        """The certificate, loaded and followed."""
        certificate = Certificate(self.clock, files or self.files, in_thread=self.threads)
        certificate.files.load()
        certificate.start()
        self.addCleanup(certificate.stop)
        return certificate


class ConnectionTests(TLSCase):
    """What clients see."""

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken, and HTTP/1.1 over it; nothing older."""
        certificate = self.certificate()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(self.pair)
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["h2", "http/1.1"])
            connection = Connection(certificate, context)
            self.assertEqual(connection.client.version(), version.name.replace("_", "."))
            self.assertEqual(connection.client.selected_alpn_protocol(), "http/1.1")
            self.assertEqual(connection.read(), b"hello")
        context = trusting(self.pair)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        self.assertRaises(ssl.SSLError, Connection, certificate, context)

    def test_chain(self) -> None:
        """The chain is sent, whether it stands behind the certificate or in its own file."""
        root = make_pair("root", authority=True)
        middle = make_pair("middle", issuer=root, authority=True)
        leaf = make_pair(issuer=middle)
        leaf.write(self.directory, middle)
        self.assertEqual(Connection(self.certificate(), trusting(root)).serial, leaf.serial)
        leaf.write(self.directory)
        self.assertRaises(ssl.SSLError, Connection, self.certificate(), trusting(root))
        chain = self.directory / "chain.pem"
        chain.write_bytes(middle.pem)
        files = CertificateFiles(
            key=self.files.key, certificate=self.files.certificate, chain=chain
        )
        self.assertEqual(Connection(self.certificate(files), trusting(root)).serial, leaf.serial)

    def test_one_file(self) -> None:
        """Key and certificate may stand in one file."""
        one = self.directory / "one.pem"
        one.write_bytes(self.pair.key_pem() + self.pair.pem)
        certificate = self.certificate(CertificateFiles(key=one, certificate=one))
        self.assertEqual(Connection(certificate, trusting(self.pair)).serial, self.pair.serial)


class RenewalTests(TLSCase):
    """The files change."""

    def test_renewed(self) -> None:
        """New connections get the new certificate within a second, old ones go on."""
        certificate = self.certificate()
        old = Connection(certificate, trusting(self.pair))
        new = make_pair()
        new.write(self.directory)
        self.clock.advance(1)
        self.assertEqual(Connection(certificate, trusting(new)).serial, new.serial)
        self.assertEqual((old.read(), old.serial), (b"hello", self.pair.serial))

    def test_chain_renewed(self) -> None:
        """A chain's own file is followed, too."""
        root = make_pair("root", authority=True)
        middle = make_pair("middle", issuer=root, authority=True)
        leaf = make_pair(issuer=middle)
        leaf.write(self.directory)
        chain = self.directory / "chain.pem"
        chain.write_bytes(root.pem)
        certificate = self.certificate(
            CertificateFiles(key=self.files.key, certificate=self.files.certificate, chain=chain)
        )
        self.assertRaises(ssl.SSLError, Connection, certificate, trusting(root))
        chain.write_bytes(middle.pem + root.pem)
        self.clock.advance(1)
        self.assertEqual(Connection(certificate, trusting(root)).serial, leaf.serial)

    def test_bad(self) -> None:
        """A pair that is none keeps the old one."""
        certificate = self.certificate()
        for name, content in (
            ("key.pem", make_pair().key_pem()),
            ("key.pem", b""),
            ("key.pem", self.pair.key_pem(b"secret")),
            ("cert.pem", b"nonsense"),
            ("cert.pem", None),
        ):
            self.pair.write(self.directory)
            self.clock.advance(1)
            if content is None:
                (self.directory / name).unlink()
            else:
                (self.directory / name).write_bytes(content)
            self.clock.pump([1.0] * 3)
            connection = Connection(certificate, trusting(self.pair))
            self.assertEqual(connection.serial, self.pair.serial)
        new = make_pair()
        new.write(self.directory)
        self.clock.advance(1)
        self.assertEqual(Connection(certificate, trusting(new)).serial, new.serial)

    def test_request(self) -> None:
        """They are read again on request."""
        certificate = self.certificate()
        new = make_pair()
        new.write(self.directory)
        done = certificate.reload()
        self.clock.advance(1)
        self.successResultOf(done)
        self.assertEqual(Connection(certificate, trusting(new)).serial, new.serial)


class LoadTests(TLSCase):
    """What is no certificate with its key."""

    def assertBad(self, told: str, **files: Any) -> None:
        """They are refused, with this in the message."""
        paths = {"key": self.files.key, "certificate": self.files.certificate, **files}
        error = self.assertRaises(BadCertificate, CertificateFiles(**paths).load)
        self.assertIn(told, str(error))
        self.assertNotIn("-----", str(error))

    def put(self, name: str, content: bytes) -> Path:
        """A file with this in it."""
        path = self.directory / name
        path.write_bytes(content)
        return path

    def test_bad(self) -> None:
        """Each says which file it is."""
        self.assertBad("is not the key of", key=self.put("other", make_pair().key_pem()))
        self.assertBad("/nonsense", key=self.put("nonsense", b"nonsense"))
        self.assertBad("/secret", key=self.put("secret", self.pair.key_pem(b"x")))
        self.assertBad("/empty", certificate=self.put("empty", b""))
        self.assertBad("/key.pem", certificate=self.files.key)
        self.assertBad("/long", key=self.put("long", b"x" * (2**20 + 1)))
        self.assertBad("/chain", chain=self.put("chain", b"nonsense"))
        self.assertBad("/dh", dh_parameters=self.put("dh", b"nonsense"))
        missing = CertificateFiles(key=self.directory / "no", certificate=self.files.certificate)
        self.assertRaises(FileNotFoundError, missing.load)

    def test_weak(self) -> None:
        """What OpenSSL has its own doubts about."""
        weak = make_pair(key=rsa.generate_private_key(65537, 1024))
        weak.write(self.directory)
        self.assertBad("key too small")

    def test_dh_parameters(self) -> None:
        """They are read; RFC 7919's are good ones."""
        e, term, number = 0, 1 << 1982, 0
        while term:
            e, number = e + term, number + 1
            term //= number
        prime = 2**2048 - 2**1984 + (((e >> 64) + 560316) << 64) - 1
        # SEQUENCE of two INTEGERs (PKCS #3, section 9).
        number = b"\x02\x82\x01\x01\0" + prime.to_bytes(256, "big") + b"\x02\x01\x02"
        der = b"\x30\x82" + len(number).to_bytes(2, "big") + number
        lines = base64.encodebytes(der)
        pem = b"-----BEGIN DH PARAMETERS-----\n" + lines + b"-----END DH PARAMETERS-----\n"
        path = self.put("dh", pem)
        files = CertificateFiles(
            key=self.files.key, certificate=self.files.certificate, dh_parameters=path
        )
        self.assertIn(path, files.paths)
        context = trusting(self.pair)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.assertEqual(Connection(self.certificate(files), context).read(), b"hello")


class EndpointTests(WebCase):
    """C{tls-wrap:KEY:CERT:<any endpoint>}."""

    def test_parse(self) -> None:
        """It needs two files and an endpoint."""
        for args in ((), ("key",), ("key", "cert"), ("key", "cert", "nonsense")):
            self.assertRaises(ValueError, tls_endpoint, Clock(), args, {})

    def test_no_pair(self) -> None:
        """It does not listen without a certificate."""
        endpoint = tls_endpoint(Clock(), ("no-key", "no-cert", "tcp", "0"), {})
        self.failureResultOf(endpoint.listen(self.site), FileNotFoundError)
        self.assertEqual(self.site.doors, [])

    def test_foreign(self) -> None:
        """It is for our own sites alone."""
        endpoint = tls_endpoint(Clock(), ("key", "cert", "tcp", "0"), {})
        self.failureResultOf(endpoint.listen(_Greeters()), TypeError)
