"""
A slow, obvious statement of which indicators of feeds an artifact finds: every indicator is
compared with every thing that is looked for. It shares no code with what it is compared with,
but for the values.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import ada_url
from publicsuffixlist import PublicSuffixList
from zope.interface import implementer

from ctsd.interfaces.feeds import IIndicators
from ctsd.model import FILE, JSON, PASSWORD, Artifact
from ctsd.records import Derived, FeedMatches, Indexed, Matched, Record
from ctsd.stored import indexed

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SUFFIXES = PublicSuffixList()
INVISIBLE = "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff"
HASHES = ("hash.md5", "hash.sha1", "hash.sha256")
#: How a host is said to follow from what was asked, and the domains above it.
OF_HOST = {
    "net.name": ("", "parent domain"),
    "net.uri": ("host of the URL", "parent domain of the URL's host"),
    "email.header.sender_address": (
        "domain of the e-mail address",
        "parent domain of the e-mail address' domain",
    ),
}
OF_ADDRESS = {
    "net.name": ("", "range that contains it"),
    "net.ip": ("", "range that contains it"),
    "net.cidr": ("", "range that contains it"),
    "net.uri": ("address in the URL", "range of the address in the URL"),
    "email.header.sender_address": (
        "address in the e-mail address",
        "range of the address in the e-mail address",
    ),
}
HEADERS = {
    ("email.header", "from"): ("email.header.sender_address", "address in From"),
    ("email.header", "sender"): ("email.header.sender_address", "address in Sender"),
    ("email.header", "reply-to"): ("email.header.sender_address", "address in Reply-To"),
    ("email.header", "return-path"): ("email.header.sender_address", "address in Return-Path"),
    ("net.http.request.header", "referer"): ("net.uri", "URL in Referer"),
    ("net.http.request.header", "host"): ("net.name", "host in Host"),
}


def visible(text: str) -> str:
    """Without invisible characters, and without blanks around it."""
    return "".join(char for char in text if char not in INVISIBLE).strip()


def undone(text: str) -> str:
    """A defanged value as it was; only when its beginning was defanged."""
    signs = {"[.]": ".", "(.)": ".", "{.}": ".", "[dot]": ".", "(dot)": ".", "[at]": "@"}
    signs |= {"[@]": "@", "[:]": ":", "[://]": "://"}
    plain = text
    for sign, meant in signs.items():
        plain = plain.replace(sign, meant)
    plain = re.sub(r"^hxxp", "http", plain, flags=re.IGNORECASE)
    rest = re.sub(r"^[a-z]+(://|\[://\]|\[:\]//)", "", text, flags=re.IGNORECASE)
    head = re.split(r"[/?#]", rest)[0]
    fanged = text[:4].lower() == "hxxp" or "[://]" in text or "[:]//" in text
    return plain if fanged or any(sign in head for sign in signs) else text


def address(text: str) -> Network | None:
    """An address or a range."""
    text = undone("".join(visible(text).split()))
    bracketed = re.fullmatch(r"\[(.*)\](:\d{1,5})?", text)
    if bracketed:
        text = bracketed[1]
    elif text.count(":") == 1 and "." in text:
        text = re.sub(r":\d{1,5}$", "", text)
    text = re.sub(r"%[^/]*", "", text) if ":" in text else text
    if ":" not in text:
        text = re.sub(r"\.(/\d+)?$", r"\1", text)
    if re.search(r"/(?!\d{1,3}$)", text):
        return None
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= 96:
        mapped = found.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network((mapped, found.prefixlen - 96))
    return found


def is_single(network: Network) -> bool:
    """Whether it is one address."""
    return network.num_addresses == 1


def hostname(text: str) -> str:
    """A host's name; an address in its canonical form."""
    text = undone("".join(visible(text).split())).lstrip("*.")
    network = address(text)
    if network is not None and is_single(network):
        return str(network.network_address)
    text = re.sub(r"^([^:]+):\d{1,5}$", r"\1", text)
    with contextlib.suppress(ValueError):
        text = (text if text.isascii() else ada_url.idna_to_ascii(text).decode()) or text
    text = text.lower()
    return text[:-1] if text.endswith(".") and len(text) > 1 else text


def url(text: str) -> tuple[str, str, str] | None:
    """The scheme (if it was said), the host, and all else but user, password and fragment."""
    text = undone(visible(text))
    opaque = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(?!//|\d)(.*)", text, re.DOTALL)
    if opaque:
        return opaque[1].lower(), "", opaque[2]
    said = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None
    try:
        parsed = ada_url.URL(text if said else f"http://{text}")
    except ValueError:
        return None
    scheme = parsed.protocol.rstrip(":") if said else ""
    host = hostname(parsed.hostname) if parsed.hostname else ""
    port = f":{parsed.port}" if parsed.port and (said or parsed.port != "443") else ""
    href = parsed.href.partition("#")[0].partition("://")[2]
    path = re.sub(r"^[^/?]*", "", href)
    if parsed.protocol in ("http:", "https:", "ftp:") and path.endswith("?"):
        path = path[:-1] if path.count("?") == 1 else path
    return scheme, host, f"{host}{port}{path}"


def mailbox(text: str) -> tuple[str, str] | None:
    """An e-mail address, and its domain."""
    text = visible(undone(visible(text)))
    inner = re.search(r"<([^<>]+)>$", text)
    text = "".join((inner[1] if inner else text).split())
    if text.lower().startswith("mailto:"):
        text = text[7:].partition("?")[0]
    local, _, domain = text.rpartition("@")
    return (f"{local.lower()}@{hostname(domain)}", hostname(domain)) if local and domain else None


def family(text: str) -> str:
    """A malware's name without what people write differently."""
    text = re.sub(r"^(win|elf|osx|apk|js|ps1|py)\.(?=.)", "", visible(text).casefold())
    return "".join(char for char in text if char.isalnum())


def fingerprint(text: str) -> str:
    """A certificate's SHA-1, if this is one."""
    digits = [char for char in visible(text).lower() if char not in ": "]
    is_one = len(digits) == 40 and all(char in "0123456789abcdef" for char in digits)
    return "".join(digits) if is_one else ""


def plain(type: str, value: JSON) -> str:
    """A value without rules of its own."""
    if isinstance(value, str):
        text = visible(value)
        if type in ("file.name", "file.path", "process.name"):
            text = text.casefold()
        is_lower = type in HASHES or type == "email.header.sender_address"
        return text.lower() if is_lower else text
    if isinstance(value, dict):
        return repr(sorted((key, str(each).strip()) for key, each in value.items()))
    return repr(value)


def parents(host: str) -> list[str]:
    """The domains above a host, as far as somebody has registered them."""
    registered = None if host.rpartition(".")[2].isdigit() else SUFFIXES.privatesuffix(host)
    found = []
    while registered and len(host) > len(registered):
        host = host.partition(".")[2]
        found.append(host)
    return found


def same(type: str, value: JSON, record: Record) -> bool:
    """Whether an indicator without rules of its own equals a value."""
    if record.type == "threat.report.cve" == type:
        return visible(str(value)).upper() == visible(str(record.value)).upper()
    families = [family(str(each)) for each in (value, record.value)]
    if record.type == "threat.malware.family" == type and any(families):
        return families[0] == families[1]
    prints = [fingerprint(str(each)) for each in (value, record.value)]
    if record.type == "cert.x509" == type and any(prints):
        return prints[0] == prints[1]
    if type in HASHES and record.type in HASHES:
        return visible(str(value)).lower() == visible(str(record.value)).lower()
    return type == record.type and plain(type, value) == plain(record.type, record.value) != ""


def hows(
    type: str, value: JSON, record: Record, derives: bool, shared: Container[str]
) -> list[str]:
    """How a value finds an indicator; nothing when it doesn't."""
    found: list[str] = []
    if type in (PASSWORD, FILE, "email", "email.body"):
        return found
    if type == "email.header.to" and isinstance(value, list):
        boxes = [box for box in map(mailbox, value) if box]
        as_sender = [
            hows("email.header.sender_address", box[0], record, True, shared) for box in boxes
        ]
        every = [how for each in as_sender for how in each]
        return sorted(every, key=bool)
    if type not in OF_HOST and type not in OF_ADDRESS:
        return [""] if same(type, value, record) else []
    text = str(value)
    network = address(text) if type in ("net.ip", "net.cidr", "net.name") else None
    link = url(text) if type == "net.uri" else None
    box = mailbox(text) if type == "email.header.sender_address" else None
    host = ""
    if type == "net.name" and not (network and is_single(network)):
        host, network = hostname(text), None
    elif link:
        host = link[1]
    elif box:
        host = box[1]
    if link or box:
        network = address(host.strip("[]")) if host else None
    if not (network or host or link or box):
        return [""] if same(type, value, record) else []
    theirs = address(str(record.value)) if record.type in ("net.ip", "net.cidr") else None
    if record.type == "net.name":
        theirs = address(hostname(str(record.value)))
        theirs = theirs if theirs and is_single(theirs) else None
    their_link = url(str(record.value)) if record.type == "net.uri" else None
    if link and their_link and link[2] == their_link[2]:
        found.append("" if link[0] == their_link[0] else "URL but for its scheme")
    if box and box[0] in _boxes(record):
        found.append("")
    if network and theirs and network.version == theirs.version:
        equal, around = OF_ADDRESS[type]
        is_wide = network.prefixlen < (16 if network.version == 4 else 32)
        if network == theirs:
            found.append(equal)
        elif network.subnet_of(theirs):  # type: ignore[arg-type]
            found.append(around)
        elif theirs.subnet_of(network) and not is_wide:  # type: ignore[arg-type]
            found.append(f"part of the range ({equal})" if equal else "part of the range")
    if host and not network:
        exact, above = OF_HOST[type]
        if record.type == "net.name" and not theirs and hostname(str(record.value)):
            if hostname(str(record.value)) == host:
                found.append(exact)
            elif hostname(str(record.value)) in parents(host):
                found.append(above)
        is_bare = type == "net.name" and not derives and host not in shared
        if is_bare and their_link and their_link[1] == host:
            found.append("URL on the host")
    if network and is_single(network) and type in ("net.ip", "net.cidr", "net.name"):
        on = str(network.network_address)
        if not derives and their_link and their_link[1] == on and on not in shared:
            found.append("URL on the address")
    return found


def _boxes(record: Record) -> list[str]:
    value = record.value
    if record.type == "email.header.sender_address":
        value = [value]
    elif record.type != "email.header.to" or not isinstance(value, list):
        return []
    return [box[0] for box in (mailbox(str(each)) for each in value) if box]


def asked(artifact: Artifact, derived: Iterable[Derived]) -> list[tuple[str, JSON, str]]:
    """What is looked for: type, value, and how it follows from the artifact."""
    found: list[tuple[str, JSON, str]] = []
    value: Any = artifact.value
    if artifact.type != FILE:
        header = HEADERS.get((artifact.type, "" if not isinstance(value, dict) else _name(value)))
        if header:
            found.append((header[0], value["value"], header[1]))
        found.append((artifact.type, value, ""))
    if artifact.file is not None and artifact.file.name:
        found.append(("file.name", artifact.file.name, "name of the file"))
    elif artifact.type == FILE:
        found.append(("file.name", value, "name of the file"))
    found += [(each.artifact.type, each.artifact.value, each.how) for each in derived]
    return found


def _name(value: dict[str, Any]) -> str:
    return visible(str(value.get("name"))).lower()


def found_in(
    record: Record, asks: list[tuple[str, JSON, str]], shared: Container[str] = ()
) -> str | None:
    """How an indicator is found; None when it isn't."""
    every: list[str] = []
    for type, value, outer in asks:
        for how in hows(type, value, record, bool(outer), shared):
            every.append(f"{how} ({outer})" if how and outer else how or outer)
    return sorted(every, key=bool)[0] if every else None


@implementer(IIndicators)
class ReferenceIndicators:
    """
    L{IIndicators} of some records: for tests that need one, and to compare the real one with.

    :ivar feeds: records, by feed.
    """

    def __init__(
        self,
        feeds: Mapping[str, Sequence[Record]],
        *,
        now: Callable[[], float] = lambda: 0.0,
        shared: Container[str] = (),
    ) -> None:
        self.feeds = feeds
        self._now = now
        self._shared = shared

    def has_nothing(self, *, type: str, value: JSON) -> bool:
        """See L{IIndicators}."""
        return not self.find(artifact=Artifact(type, value), limit=1)

    def find(
        self,
        *,
        artifact: Artifact,
        derived: Iterable[Derived] = (),
        limit: int,
        wanted: Callable[[str, Indexed], bool] | None = None,
        hidden: Container[str] = (),
    ) -> tuple[FeedMatches, ...]:
        """See L{IIndicators}."""
        asks = asked(artifact, derived)
        found = []
        for feed in sorted(set(self.feeds)):
            matched = []
            for record in self.feeds[feed]:
                how = found_in(record, asks, self._shared)
                is_over = record.expires is not None and record.expires <= self._now()
                if how is None or is_over or feed in hidden:
                    continue
                if wanted is None or wanted(feed, indexed(record)):
                    matched.append(Matched(indexed(record), how))
            if matched:
                found.append(
                    FeedMatches(
                        feed=feed, matched=tuple(matched[:limit]), more=len(matched[limit:])
                    )
                )
        return tuple(found)
