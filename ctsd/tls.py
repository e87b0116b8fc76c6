"""
TLS whose files are read again when they change: C{tls-wrap:KEY:CERT:<any endpoint>}, and what
C{ssl:} in C{listen} becomes.

A new certificate holds for new connections; those that are open keep theirs. A key and a
certificate that don't belong together change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL.crypto import X509, PKey
from OpenSSL.SSL import TLS_SERVER_METHOD, Connection, Context
from OpenSSL.SSL import Error as SSLError
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import serverFromString, wrapServerTLS
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IStreamServerEndpoint
from twisted.internet.ssl import CertificateOptions, DiffieHellmanParameters, TLSVersion
from twisted.python.filepath import FilePath
from zope.interface import implementer

from ctsd.blocking import DaemonThreads
from ctsd.config.endpoint_strings import taken_apart
from ctsd.errors import CTSDError
from ctsd.interfaces.threads import InThread
from ctsd.watching import Watched
from ctsd.web.site import site_behind

#: No file of keys or certificates is longer.
MAX_FILE_BYTES = 1 << 20


class BadCertificate(CTSDError):
    """These files make no certificate with its key; the message says why."""


@frozen(kw_only=True)
class CertificateFiles:
    """
    Where a key and its certificate are.

    :ivar certificate: the certificate, perhaps followed by its chain.
    :ivar chain: further certificates that lead to the one that clients trust.
    :ivar dh_parameters: for clients that know no elliptic curves.
    """

    key: Path
    certificate: Path
    chain: Path | None = None
    dh_parameters: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        every = (self.key, self.certificate, self.chain, self.dh_parameters)
        return tuple(path for path in every if path is not None)

    def load(self) -> CertificateOptions:
        """
        Read them; TLS 1.2 and newer are spoken with them.

        :raises BadCertificate: they don't belong together, or are none.
        :raises OSError: one can't be read.
        """
        at = self.key
        try:
            key = load_pem_private_key(_content(at), password=None)
            at = self.certificate
            first, *chain = x509.load_pem_x509_certificates(_content(at))
            if self.chain is not None:
                at = self.chain
                chain += x509.load_pem_x509_certificates(_content(at))
            dh_parameters = None
            if self.dh_parameters is not None:
                at = self.dh_parameters
                Context(TLS_SERVER_METHOD).load_tmp_dh(str(at))
                dh_parameters = DiffieHellmanParameters.fromFile(FilePath(str(at)))
        except (SSLError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            # TypeError: the key is encrypted.
            raise BadCertificate(f"{at}: {_reason(error)}") from None
        if key.public_key() != first.public_key():
            raise BadCertificate(f"{self.key} is not the key of {self.certificate}")
        options = CertificateOptions(
            privateKey=PKey.from_cryptography_key(key),  # type: ignore[arg-type]
            certificate=X509.from_cryptography(first),
            extraCertChain=[X509.from_cryptography(one) for one in chain],
            dhParameters=dh_parameters,
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )
        try:
            # OpenSSL refuses more than we: keys that are too short, say.
            options.getContext()
        except (SSLError, ValueError) as error:
            raise BadCertificate(f"{self.certificate}: {_reason(error)}") from None
        return options


def _content(path: Path) -> bytes:
    with path.open("rb") as opened:
        content = opened.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"more than {MAX_FILE_BYTES} bytes")
    return content


def _reason(error: Exception) -> str:
    queue = error.args[0] if error.args else ""
    if isinstance(queue, list) and queue:
        return str(queue[0][-1])
    return str(error)


@implementer(IOpenSSLServerConnectionCreator)
class Certificate:
    """
    The certificate for new connections, kept current.

    :ivar files: what it comes from; to be loaded before the first connection.
    """

    def __init__(
        self, reactor: Any, files: CertificateFiles, *, in_thread: InThread | None = None
    ) -> None:
        self._threads = DaemonThreads(reactor=reactor, max_threads=1, name="certificate")
        self.files: Watched[CertificateOptions] = Watched(
            clock=reactor,
            what=f"The certificate {files.certificate}",
            paths=files.paths,
            load=files.load,
            in_thread=in_thread or self._threads.run,
        )

    def serverConnectionForTLS(self, tlsProtocol: Any) -> Connection:
        """A new connection, with what is current now."""
        options = self.files.current
        assert options is not None
        connection: Connection = options.serverConnectionForTLS(tlsProtocol)
        return connection

    def start(self) -> None:
        """Follow the files."""
        self.files.start()

    def stop(self) -> None:
        """Follow them no more."""
        self.files.stop()
        self._threads.stop()

    def reload(self) -> Deferred[None]:
        """Read the files."""
        return self.files.reload()


@implementer(IStreamServerEndpoint)
class TLSEndpoint:
    """Speaks TLS to whoever comes in by another endpoint."""

    def __init__(self, *, reactor: Any, files: CertificateFiles, inner: Any) -> None:
        self._reactor = reactor
        self._files = files
        self._inner = inner

    def listen(self, protocolFactory: Any) -> Any:
        """
        Listen, with the files as they are now; fails when there is no certificate in them.

        :param protocolFactory: a L{ctsd.web.site.CTSSite}, perhaps wrapped.
        """
        return execute(self._wrapped, protocolFactory).addCallback(
            lambda endpoint: endpoint.listen(protocolFactory)
        )

    def _wrapped(self, factory: Any) -> Any:
        site = site_behind(factory)
        certificate = Certificate(self._reactor, self._files)
        certificate.files.load()
        site.doors.append(certificate)
        return wrapServerTLS(certificate, self._inner, self._reactor)


def tls_endpoint(
    reactor: Any, args: tuple[str, ...], kwargs: Mapping[str, str]
) -> IStreamServerEndpoint:
    """
    The endpoint of C{tls-wrap:KEY:CERT:<any endpoint>}; C{extraCertChain=} and C{dhParameters=}
    may stand behind the two.

    :param args: what stands behind C{tls-wrap:}, as C{serverFromString} has parsed it.
    :raises BadEndpoint: something is missing.
    """
    own, rest = taken_apart("tls-wrap", args, kwargs)
    chain, dh_parameters = own.get("extraCertChain"), own.get("dhParameters")
    files = CertificateFiles(
        key=Path(own["privateKey"]),
        certificate=Path(own["certKey"]),
        chain=Path(chain) if chain else None,
        dh_parameters=Path(dh_parameters) if dh_parameters else None,
    )
    return TLSEndpoint(reactor=reactor, files=files, inner=serverFromString(reactor, rest))
