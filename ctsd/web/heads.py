"""
The head of a request (RFC 9112, sections 2 to 6), as strict as it can be read.

Pure: bytes in, a L{Head} out, or L{BadHead}. Whatever twisted.web refuses is refused here, and
more: folded headers, doubled lengths of any kind, C{Transfer-Encoding} in HTTP/1.0, two C{Host}s.
Two readers that disagree about where a request ends are how requests are smuggled.
"""

from __future__ import annotations

import re

from attrs import frozen

#: The length of a body that comes in chunks.
CHUNKED = -1

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# The target's range is twisted.web's.
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\xb0]+) HTTP/1\.([01])")
_NAME = re.compile(_TOKEN)
_LENGTH = re.compile(rb"[0-9]{1,18}")

# Spellings that are seen every day, so that they need no regular expression.
_COMMON = {
    spelled: name.lower().encode()
    for name in (
        "Accept",
        "Accept-Encoding",
        "Authorization",
        "Connection",
        "Content-Length",
        "Content-Type",
        "Expect",
        "Host",
        "Origin",
        "Referer",
        "Sec-Fetch-Site",
        "Transfer-Encoding",
        "User-Agent",
    )
    for spelled in (name.encode(), name.lower().encode())
}

# Headers that may come once: two of them are two opinions.
_ONCE = frozenset(
    (b"authorization", b"content-length", b"content-type", b"host", b"transfer-encoding")
)


class BadHead(ValueError):
    """This is no request; nothing after it on this connection can be trusted."""


@frozen
class Head:
    """
    What stands before a body.

    :ivar headers: by lower-case name; values of a repeated one are joined by commas.
    :ivar length: of the body in bytes, or L{CHUNKED}.
    :ivar persistent: whether the client wants to keep the connection.
    :ivar expects: whether it waits for C{100 Continue} before it sends the body.
    """

    method: bytes
    target: bytes
    version: bytes
    headers: dict[bytes, bytes]
    length: int
    persistent: bool
    expects: bool


def parse_head(head: bytes, *, max_headers: int) -> Head:
    """
    Read everything up to, without, the empty line.

    :raises BadHead: it is malformed, or ambiguous.
    """
    first, *lines = head.split(b"\r\n")
    if len(head.translate(None, b"\0\r\n")) + 2 * len(lines) != len(head):
        raise BadHead("a bare CR or LF, or NUL")
    found = _REQUEST_LINE.fullmatch(first)
    if found is None:
        raise BadHead("request line")
    if len(lines) > max_headers:
        raise BadHead("too many headers")
    headers: dict[bytes, bytes] = {}
    for line in lines:
        raw, colon, value = line.partition(b":")
        name = _COMMON.get(raw)
        if name is None:
            # Folded headers begin with a blank, so they end here.
            if _NAME.fullmatch(raw) is None:
                raise BadHead("header name")
            name = raw.lower()
        if not colon:
            raise BadHead("header without a colon")
        value = value.strip(b" \t")
        if name in headers:
            if name in _ONCE:
                raise BadHead("a header that may come once came twice")
            value = headers[name] + b", " + value
        headers[name] = value
    method, target, minor = found.groups()
    modern = minor == b"1"
    length = _length(headers, modern)
    persistent = modern
    if persistent and b"connection" in headers:
        tokens = headers[b"connection"].lower().replace(b",", b" ").split()
        persistent = b"close" not in tokens
    expects = modern and length != 0 and headers.get(b"expect", b"").lower() == b"100-continue"
    return Head(
        method,
        target,
        b"HTTP/1.1" if modern else b"HTTP/1.0",
        headers,
        length,
        persistent,
        expects,
    )


def _length(headers: dict[bytes, bytes], modern: bool) -> int:
    coding = headers.get(b"transfer-encoding")
    stated = headers.get(b"content-length")
    if coding is not None:
        if stated is not None or not modern or coding.lower() != b"chunked":
            raise BadHead("transfer encoding")
        return CHUNKED
    if stated is None:
        return 0
    if _LENGTH.fullmatch(stated) is None:
        raise BadHead("content length")
    return int(stated)
