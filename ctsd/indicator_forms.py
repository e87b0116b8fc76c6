"""
What makes an artifact and an indicator of a feed the same. Pure.

These forms are wider than those of L{ctsd.normal_forms}, on which they stand: a defanged value is
understood, a port beside a host is dropped, and a URL has a form without its scheme.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from functools import lru_cache
from ipaddress import IPv6Address
from socket import AF_INET6, inet_aton, inet_ntoa, inet_pton
from typing import Final, NamedTuple

import can_ada

from ctsd.normal_forms import MAX_COMPARED_BYTES, NO_URL, name
from ctsd.refanged import refanged, seen, squeezed

_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#: An IPv4 address as it should be written.
DOTTED: Final = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_IPV4: Final = re.compile(rf"({DOTTED})\.?(?:/([0-9]{{1,2}})|:[0-9]{{1,5}})?")
_IPV6: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)(?:%[^\]]*)?\](?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)(?:%[^/]*)?)"
    r"(?:/([0-9]{1,3}))?"
)
#: ::ffff:0:0/96 (RFC 4291, 2.5.5.2).
_MAPPED: Final = 0xFFFF << 32

_PLAIN_NAME: Final = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z]+")
_PORT: Final = re.compile(r"([^:\[\]]+):[0-9]{1,5}")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(//)?")
#: What nearly all URLs begin with, which is seen faster.
_USUAL: Final = ("http://", "https://")
#: Nearly all URLs, of which can_ada would change nothing: no port that goes without saying, no dot
#: segment (written C{%2e}, too), nothing to be encoded, no host that may be more than a name or
#: dotted octets. Its groups: what is behind the scheme, and the host.
USUAL_URL: Final = re.compile(
    rf"https?://(((?:(?!xn--)[a-z0-9_-]+\.)+[a-z]+|{DOTTED})"
    r"(?::(?:[1-5][0-9]{4}|[1-9][0-9]{3}))?(?:/(?![.%])[A-Za-z0-9!$%&'*+,.:;=@_~-]*+)++"
    r"(?:\?[A-Za-z0-9!$%&*+,./:;=?@_~-]+)?)"
)
#: Without one of these, and with such a scheme, nothing is defanged (L{refanged}).
_DEFANGED: Final = re.compile(r"[\[({\\]")
#: Of a URL that was parsed: user name and password, host, port.
_AUTHORITY: Final = re.compile(r"//(?:[^/?]*@)?(\[[^\]/?]*\]|[^:/?]+)(:[0-9]+)?")
#: Whose hosts WHATWG brings into one form: "special schemes", but for C{file}.
_WHATWG_SCHEMES: Final = frozenset({"ftp", "http", "https", "ws", "wss"})
_MAILBOX: Final = re.compile(r"<([^<>]+)>\s*$")
_CVE: Final = re.compile(r"CVE[^0-9A-Z]?([0-9]{4})[^0-9A-Z]?([0-9]{4,19})")
#: How Malpedia's names begin (C{win.agent_tesla}), and ThreatFox's, which has them from there.
_PLATFORM: Final = re.compile(
    r"(?:aix|apk|asp|elf|fas|ios|jar|js|osx|php|ps1|py|sh|symbian|vbs|win)\.(?=.)"
)
_NO_NAME: Final = re.compile(r"[\W_]+")
_PEM: Final = re.compile(
    r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END"
)
_NOT_HEX: Final = re.compile(r"[^0-9a-f]")

#: Of the certificate's fields, the least that DER can hold; below it is no certificate.
_MIN_DER_BYTES: Final = 64


class Network(NamedTuple):
    """
    Some IP addresses: one, or those of a CIDR range.

    :ivar version: 4 or 6; an IPv4-mapped IPv6 range is one of IPv4.
    :ivar first: its lowest address.
    :ivar prefix: how many leading bits all its addresses share.
    """

    version: int
    first: int
    prefix: int

    @property
    def bits(self) -> int:
        """How many bits an address has."""
        return 32 if self.version == 4 else 128

    @property
    def last(self) -> int:
        """Its highest address."""
        return self.first | ((1 << (self.bits - self.prefix)) - 1)

    @property
    def is_single(self) -> bool:
        """Whether it is one address."""
        return self.prefix == self.bits

    def covers(self, other: Network) -> bool:
        """Whether all addresses of another one are in this one."""
        return (
            other.version == self.version
            and other.prefix >= self.prefix
            and (self.first ^ other.first) >> (self.bits - self.prefix) == 0
        )

    def __str__(self) -> str:
        if self.version == 4:
            text = inet_ntoa(self.first.to_bytes(4, "big"))
        else:
            text = str(IPv6Address(self.first))
        return text if self.is_single else f"{text}/{self.prefix}"


class Url(NamedTuple):
    """
    A URL after the WHATWG standard (U{https://url.spec.whatwg.org/}).

    :ivar scheme: empty when none was said.
    :ivar rest: the others: host, the port if it isn't the scheme's own, path and query. No user
        name, password or fragment.
    :ivar host: its host in L{host_form}; empty when it has none.
    """

    scheme: str
    rest: str
    host: str


def network(text: str) -> Network | None:
    """
    An IP address or a CIDR range, whose host bits are cleared; a port or a zone is dropped. None
    for anything else, and for what is ambiguous: C{010.1.1.1} is octal to some, decimal to others.
    """
    found = _IPV4.fullmatch(text)
    if found is None:
        text = refanged(squeezed(text))
        found = _IPV4.fullmatch(text)
    if found is not None:
        first = int.from_bytes(inet_aton(found[1]), "big")
        return Network(4, first, 32) if found[2] is None else _cleared(4, first, int(found[2]))
    found = _IPV6.fullmatch(text) if ":" in text else None
    if found is None:
        return None
    try:
        first = int.from_bytes(inet_pton(AF_INET6, found[1] or found[2]), "big")
    except OSError:
        return None
    prefix = 128 if found[3] is None else int(found[3])
    if first >> 32 == _MAPPED >> 32 and 96 <= prefix <= 128:
        return _cleared(4, first & 0xFFFFFFFF, prefix - 96)
    return _cleared(6, first, prefix)


#: The same, for builds: these ask for one network twice.
network_form: Final = lru_cache(maxsize=16)(network)


def _cleared(version: int, first: int, prefix: int) -> Network | None:
    bits = 32 if version == 4 else 128
    if prefix > bits:
        return None
    return Network(version, first >> (bits - prefix) << (bits - prefix), prefix)


def host_form(text: str) -> str:
    """
    A host: a name of the DNS in lower case and Punycode, without the root's dot, a port, and the
    C{*.} that lists put before domains; or an address in canonical form.
    """
    if _PLAIN_NAME.fullmatch(text) is not None:
        return text
    text = refanged(squeezed(text))
    if text.startswith(("*.", ".")):
        text = text.lstrip("*.")
    if ":" in text or text[-1:].isdigit():
        found = network(text)
        if found is not None and found.is_single:
            return str(found)
        port = _PORT.fullmatch(text)
        if port is not None:
            text = port[1]
    form = name(text)
    return form if form.isascii() else form.lower()


def parsed_url(text: str) -> Url | None:
    """
    The form of a URL; one that says no scheme is read as one of HTTP. None for what is no URL,
    and for what is above L{MAX_COMPARED_BYTES}.
    """
    usual = USUAL_URL.fullmatch(text) if len(text) <= MAX_COMPARED_BYTES else None
    if usual is not None:
        return Url(text.partition(":")[0], usual[1], usual[2])
    if not text.startswith(_USUAL) or not text.isascii() or _DEFANGED.search(text) is not None:
        text = refanged(seen(text))
    else:
        text = text.rstrip()
    if not text or len(text) > MAX_COMPARED_BYTES:
        return None
    bare = False
    if not text.startswith(_USUAL):
        said = _SCHEME.match(text)
        if said is not None and said[2] is None and not text[said.end() : said.end() + 1].isdigit():
            # Without an authority: mailto:, data:, javascript:.
            return Url(said[1].lower(), text[said.end() :], "")
        bare = said is None or said[2] is None
    try:
        parsed = can_ada.parse(f"http://{text}" if bare else text)
    except NO_URL:
        return None
    scheme = parsed.protocol[:-1]
    if scheme not in _WHATWG_SCHEMES:
        return _other_url(scheme, parsed.href)
    host, port = parsed.hostname, parsed.port
    if host[-1] in ".]":
        host = host_form(host)
    shown = f"[{host}]" if ":" in host else host
    if bare:
        # Where nothing says that it isn't HTTPS, that has its own port, too.
        scheme, port = "", "" if port == "443" else port
    if port:
        return Url(scheme, f"{shown}:{port}{parsed.pathname}{parsed.search}", host)
    return Url(scheme, f"{shown}{parsed.pathname}{parsed.search}", host)


#: The same, for scans and for builds: both ask for the form of one URL several times.
url_form: Final = lru_cache(maxsize=64)(parsed_url)


def _other_url(scheme: str, href: str) -> Url:
    """A URL of a scheme whose hosts the standard leaves as they are."""
    rest = href.partition("#")[0].partition(":")[2]
    found = _AUTHORITY.match(rest)
    if found is None:
        return Url(scheme, rest, "")
    host, port, path = host_form(found[1]), found[2] or "", rest[found.end() :]
    shown = f"[{host}]" if ":" in host else host
    return Url(scheme, f"{shown}{port}{path}", host)


def email_form(text: str) -> tuple[str, str] | None:
    """
    An e-mail address in lower case, and its domain in L{host_form}; of C{Name <address>} the
    address. None for what is none.
    """
    text = refanged(seen(text))
    boxed = _MAILBOX.search(text)
    if boxed is not None:
        text = boxed[1]
    text = squeezed(text)
    if text[:7].lower() == "mailto:":
        text = text[7:].partition("?")[0]
    local, at, domain = text.rpartition("@")
    if not at or not local or not domain:
        return None
    domain = host_form(domain)
    return f"{local.lower()}@{domain}", domain


def hash_form(text: str) -> str:
    """A hash in lower case, without blanks."""
    return squeezed(text).lower()


def cve_form(text: str) -> str:
    """A CVE's number as C{CVE-2021-44228}, however its parts are joined; else in upper case."""
    text = squeezed(text).upper()
    found = _CVE.fullmatch(text)
    return f"CVE-{found[1]}-{found[2]}" if found is not None else text


def family_form(text: str) -> str:
    """
    A family of malware, so that C{Agent Tesla}, C{agent_tesla} and C{win.agent_tesla} are the
    same. Empty when nothing is left.
    """
    return _NO_NAME.sub("", _PLATFORM.sub("", seen(text).casefold(), count=1))


def certificate_form(text: str) -> str:
    """
    The SHA-1 of a certificate's DER, in lower-case hex, from the text of a certificate (PEM, or
    DER in base64, or DER whose bytes became characters) or of that fingerprint, however its
    digits are parted. Empty for what is none.
    """
    armoured = _PEM.search(text)
    if armoured is not None:
        return _sha1_of(_decoded(armoured[1]))
    if text.startswith("0\x82"):
        try:
            return _sha1_of(text.encode("latin-1"))
        except UnicodeEncodeError:
            return ""
    plain = squeezed(text)
    digits = plain.lower().rpartition("=")[2] if len(plain) < 80 else ""
    digits = _NOT_HEX.sub("", digits.removeprefix("sha1:"))
    if len(digits) == 40:
        return digits
    return _sha1_of(_decoded(plain))


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _sha1_of(der: bytes) -> str:
    if len(der) < _MIN_DER_BYTES or der[:1] != b"0":
        return ""
    return hashlib.sha1(der, usedforsecurity=False).hexdigest()
