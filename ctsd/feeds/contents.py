"""
What derives from an artifact beyond its value: the indicators within a text or a message, and what
is known of a file.

This takes milliseconds for a big one, so it belongs into a thread unless L{is_quick}. What can't be
parsed has nothing in it.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterable, Iterator
from email import policy
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesParser
from email.utils import getaddresses
from pathlib import Path
from typing import Final

from attrs import define, field, frozen

from ctsd.artifacts import derived
from ctsd.feeds.lookups import NAME_OF_FILE
from ctsd.indicator_forms import certificate_form, network
from ctsd.model import FILE, Artifact
from ctsd.records import Derived, Within
from ctsd.refanged import refanged

#: The types whose values are searched for indicators.
TEXT_TYPES: Final = frozenset({"email.body", "string"})

#: A text of so many characters is searched in a fraction of a millisecond.
QUICK_CHARS: Final = 1024

#: The text is searched in pieces: each holds the interpreter for a fraction of a millisecond.
_PIECE_CHARS: Final = 4096

_DOT: Final = r"(?:\.|\[\.\]|\(\.\)|\{\.\}|\[dot\]|\(dot\)|\\\.)"
_LABEL: Final = r"\w[\w\-]{0,62}+"
_NAME: Final = rf"(?:{_LABEL}{_DOT})+[^\W\d_][\w\-]{{1,62}}+"
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_FOUND: Final = re.compile(
    r"(?P<uri>(?:h(?:tt|xx|\*\*)ps?|f[tx]ps?)(?:\[:\]//|\[://\]|:\[//\]|://)"
    r"[^\s<>\"'`|^\x00-\x1f]{1,8192})"
    rf"|(?<![\w.%+'\-])(?P<box>[\w.%+'\-]{{1,64}}+(?:@|\[@\]|\[at\]|\(at\)){_NAME})"
    r"|(?<![\w.\-])(?P<hash>(?:[0-9A-Fa-f]{64}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{32})(?![\w\-]))"
    r"|(?<![\w\-])(?P<cve>CVE-[0-9]{4}-[0-9]{4,19}(?![\w]))"
    rf"|(?<![\w.\-])(?P<ipv4>{_OCTET}(?:{_DOT}{_OCTET}){{3}}(?:/[0-9]{{1,2}})?(?![\w\-]|\.\w))"
    r"|(?<![\w.:])(?P<ipv6>(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?:(?:\.[0-9]{1,3}){3})?"
    r"(?:/[0-9]{1,3})?(?![\w:]|\.\w))"
    rf"|(?<![\w.@\-])(?P<name>{_NAME})",
    re.IGNORECASE,
)

_HASHES: Final = {32: "hash.md5", 40: "hash.sha1", 64: "hash.sha256"}
_WORDS: Final = {
    "uri": "URL",
    "box": "e-mail address",
    "hash": "hash",
    "cve": "CVE",
    "ipv4": "address",
    "ipv6": "address",
    "name": "host",
}
_CLOSING: Final = {")": "(", "]": "[", "}": "{"}
_ADDRESSED: Final = ("From", "Sender", "Reply-To", "Return-Path", "To", "Cc")


@frozen(kw_only=True)
class Limits:
    """
    How much is looked at; the rest is left out, and L{Within.cut} says so.

    :ivar text_chars: of one text.
    :ivar message_bytes: of a message, all in all.
    :ivar parts: of a message.
    :ivar found: indicators.
    :ivar certificate_bytes: a larger file is no certificate.
    """

    text_chars: int = 1 << 20
    message_bytes: int = 32 << 20
    parts: int = 200
    found: int = 256
    certificate_bytes: int = 1 << 20


def has_contents(artifact: Artifact) -> bool:
    """Whether there may be indicators within this artifact."""
    return (
        artifact.type in TEXT_TYPES
        or artifact.type == "email"
        or _is_message(artifact)
        or _is_certificate(artifact)
    )


def is_quick(artifact: Artifact) -> bool:
    """Whether L{within} may be called in the reactor."""
    if not has_contents(artifact):
        return True
    value = artifact.value
    return (
        artifact.type in TEXT_TYPES
        and artifact.file is None
        and isinstance(value, str)
        and len(value) <= QUICK_CHARS
    )


def _is_certificate(artifact: Artifact) -> bool:
    return artifact.type == "cert.x509" and artifact.file is not None


def _is_message(artifact: Artifact) -> bool:
    file = artifact.file
    if file is None or artifact.type not in (FILE, "email"):
        return False
    return (
        artifact.type == "email"
        or file.name.lower().endswith(".eml")
        or file.content_type.partition(";")[0].strip().lower() == "message/rfc822"
    )


def within(artifact: Artifact, limits: Limits = Limits()) -> Within:
    """
    The indicators within an artifact: in C{email.body} and C{string} those in the text; in a
    message (C{email}, or an uploaded C{.eml}) those in its texts, its senders and recipients, and
    its attachments' names and hashes; of a certificate's file the fingerprint; of any file its
    hashes and its name. May read the artifact's file.

    :raises OSError: the artifact's file can't be read.
    """
    found = _Found(limits)
    for each in derived(artifact):
        found.add(each.artifact.type, str(each.artifact.value), each.how)
    if artifact.file is not None:
        found.add("file.name", artifact.file.name, NAME_OF_FILE)
    if _is_certificate(artifact) and artifact.file is not None:
        size = limits.certificate_bytes
        data = _read(artifact.file.path, size + 1)
        form = certificate_form(data.decode("latin-1")) if len(data) <= size else ""
        if form:
            found.add("cert.x509", form, "certificate in the file")
    elif _is_message(artifact) and artifact.file is not None:
        _read_message(found, _read(artifact.file.path, limits.message_bytes + 1))
    elif artifact.type == "email" and isinstance(artifact.value, str):
        _read_message(found, artifact.value.encode("utf-8", "surrogatepass"))
    elif artifact.type in TEXT_TYPES and isinstance(artifact.value, str):
        where = "the e-mail's body" if artifact.type == "email.body" else "the text"
        found.read_text(artifact.value, where)
    return Within(tuple(found.derived.values()), tuple(found.cut))


def _read(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


@define
class _Found:
    """Collects, up to the limits."""

    limits: Limits
    derived: dict[tuple[str, str], Derived] = field(factory=dict)
    # In order, each once.
    cut: dict[str, None] = field(factory=dict)

    @property
    def is_full(self) -> bool:
        return len(self.derived) >= self.limits.found

    def cut_at(self, what: str) -> None:
        self.cut[what] = None

    def cut_full(self) -> None:
        self.cut_at(f"what stands after {self.limits.found:,} indicators")

    def add(self, type: str, value: str, how: str) -> None:
        if not value or (type, value) in self.derived:
            return
        if self.is_full:
            self.cut_full()
            return
        self.derived[type, value] = Derived(Artifact(type, value), how)

    def read_text(self, text: str, where: str) -> None:
        if len(text) > self.limits.text_chars:
            self.cut_at(f"text beyond {self.limits.text_chars:,} characters")
            text = text[: self.limits.text_chars]
        for piece in _pieces(text):
            if self.is_full:
                self.cut_full()
                return
            for match in _FOUND.finditer(piece):
                kind = match.lastgroup or ""
                how = f"{_WORDS[kind]} in {where}"
                for type, value in _read_as(kind, match[0]):
                    self.add(type, value, how)


def _pieces(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        end = at + _PIECE_CHARS
        if end < len(text):
            blank = max(text.rfind(" ", at, end), text.rfind("\n", at, end))
            end = blank if blank > at else end
        yield text[at:end]
        at = end


def _read_as(kind: str, found: str) -> Iterable[tuple[str, str]]:
    if kind == "uri":
        return [("net.uri", _without_end(found))]
    if kind == "box":
        return [("email.header.sender_address", refanged(found))]
    if kind == "hash":
        return [(_HASHES[len(found)], found.lower())]
    if kind == "cve":
        return [("threat.report.cve", found.upper())]
    if kind == "name":
        return [("net.name", refanged(found))]
    address = network(found)
    if address is None:
        return []
    return [("net.ip" if address.is_single else "net.cidr", str(address))]


def _without_end(url: str) -> str:
    """A URL of a sentence, without what closes the sentence or a bracket around it."""
    while url:
        last = url[-1]
        opening = _CLOSING.get(last)
        if opening is not None and url.count(opening) >= url.count(last):
            break
        if opening is None and last not in ".,;:!?*_":
            break
        url = url[:-1]
    return url


def _read_message(found: _Found, data: bytes) -> None:
    if len(data) > found.limits.message_bytes:
        found.cut_at(f"a message beyond {found.limits.message_bytes:,} bytes")
        data = data[: found.limits.message_bytes]
    try:
        message = BytesParser(policy=policy.compat32).parsebytes(data)
        for count, part in enumerate(message.walk()):
            if count >= found.limits.parts:
                found.cut_at(f"parts beyond {found.limits.parts:,}")
                return
            _read_part(found, part)
    except (LookupError, RecursionError, TypeError, ValueError, AttributeError):
        # What the parser stumbles over is malformed; what was found until then counts.
        found.cut_at("a part that is malformed")


def _read_part(found: _Found, part: Message) -> None:
    for name in _ADDRESSED:
        lines = [_decoded(str(line)) for line in part.get_all(name, [])]
        for _, address in getaddresses(lines):
            if "@" in address:
                found.add("email.header.sender_address", address, f"address in {name}")
    if part.is_multipart():
        return
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return
    filename = part.get_filename()
    kind = part.get_content_type()
    if filename or part.get_content_disposition() == "attachment" or not kind.startswith("text/"):
        if filename:
            found.add("file.name", _decoded(filename), "name of an attachment")
        for type, digest in (("md5", "MD5"), ("sha1", "SHA-1"), ("sha256", "SHA-256")):
            value = hashlib.new(type, payload, usedforsecurity=False).hexdigest()
            found.add(f"hash.{type}", value, f"{digest} of an attachment")
        return
    charset = part.get_content_charset() or "utf-8"
    try:
        text = payload.decode(charset, "replace")
    except LookupError:
        text = payload.decode("utf-8", "replace")
    found.read_text(html.unescape(text) if kind == "text/html" else text, "the e-mail")


def _decoded(text: str) -> str:
    try:
        return str(make_header(decode_header(text)))
    except (LookupError, ValueError):
        return text
