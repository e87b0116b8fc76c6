"""Keys and certificates, made when they are needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@frozen
class Pair:
    """
    A key and its certificate.

    :ivar serial: the certificate's number.
    """

    key: Any
    certificate: x509.Certificate

    @property
    def serial(self) -> int:
        """The certificate's number."""
        return self.certificate.serial_number

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, password: bytes | None = None) -> bytes:
        """The key, encrypted if there is a password."""
        secret = BestAvailableEncryption(password) if password else NoEncryption()
        pem: bytes = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret)
        return pem

    def write(self, directory: Path, *further: Pair) -> None:
        """C{key.pem} and C{cert.pem}, replaced one after the other; the latter with its chain."""
        chain = b"".join(each.pem for each in (self, *further))
        for name, content in (("key.pem", self.key_pem()), ("cert.pem", chain)):
            fresh = directory / (name + ".new")
            fresh.write_bytes(content)
            fresh.replace(directory / name)


def make_pair(
    name: str = "localhost",
    *,
    issuer: Pair | None = None,
    authority: bool = False,
    key: Any = None,
    days: float = 90,
) -> Pair:
    """
    A new pair, for C{localhost} and C{127.0.0.1}.

    :param issuer: who signs it; without one it signs itself.
    :param authority: whether it may sign others.
    :param days: until it ends.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        # Python 3.13 verifies strictly: RFC 5280, 4.2.1.1 and 4.2.1.2.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                (issuer.key if issuer else key).public_key()
            ),
            critical=False,
        )
    )
    if authority:
        signs = dict.fromkeys(_USES, False) | {"key_cert_sign": True, "crl_sign": True}
        builder = builder.add_extension(x509.KeyUsage(**signs), critical=True)
    if not authority:
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        builder = builder.add_extension(names, critical=False)
    signed = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    return Pair(key, signed)
