"""
Values of requests to servers of others: whom to ask, and what came of it.

Secrets stand in them apart from what people see: an address names a secret as C{{key}}, and only
the request itself has it filled in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import inf
from urllib.parse import quote, urlsplit, urlunsplit

from attrs import field, frozen

#: What stands for a secret where people see it.
MASK = "***"

# A part of a path that is long and has both letters and digits, as keys and signatures do.
_LIKE_A_KEY = re.compile(r"(?=[^/]*[0-9])(?=[^/]*[A-Za-z])[A-Za-z0-9_~.=-]{20,}")

# What is shorter is part of many words, and no secret.
_SECRET_CHARS = 4

_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")


@frozen(kw_only=True)
class Remote:
    """
    A resource on a server of others, and how it may be asked for.

    :ivar url: its address, C{https} unless C{insecure_http}; C{{name}} in it stands for a secret.
    :ivar headers: sent to this server alone; C{{name}} in a value stands for a secret.
    :ivar secrets: by name.
    :ivar user: with C{password}: of HTTP Basic, RFC 7617.
    :ivar insecure_http: whether C{http} will do, for the address and for what it redirects to.
    :ivar internal: whether the server may have a private or loopback address; what it redirects
        to may not.
    """

    url: str
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    secrets: Mapping[str, str] = field(factory=dict, repr=False)
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    insecure_http: bool = False
    internal: bool = False

    @property
    def hidden(self) -> tuple[str, ...]:
        """Everything that nobody may see, the longest first."""
        found = {*self.secrets.values(), self.password} - {""}
        return tuple(sorted(found, key=lambda secret: (-len(secret), secret)))

    @property
    def shown(self) -> str:
        """The address, for people."""
        return masked(self.url, self.hidden)

    def filled_url(self) -> str:
        """
        The address with its secrets, percent-encoded. For the request alone.

        :raises KeyError: it names a secret that is not there.
        """
        return _PLACEHOLDER.sub(lambda name: quote(self.secrets[name[1]], safe=""), self.url)

    def filled_headers(self) -> dict[str, str]:
        """
        The headers with their secrets. For the request alone.

        :raises KeyError: one names a secret that is not there.
        """
        return {
            name: _PLACEHOLDER.sub(lambda found: self.secrets[found[1]], value)
            for name, value in self.headers.items()
        }


@frozen(kw_only=True)
class Reply:
    """
    What a server answered.

    :ivar status: of the last answer, after redirects; any but a redirect.
    :ivar headers: by lower-case name; those that came several times, joined with C{, }.
    :ivar url: where it came from, for people.
    :ivar body: decompressed; empty for a download.
    """

    status: int
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    url: str = ""
    body: bytes = field(default=b"", repr=False)


@frozen(kw_only=True)
class Download(Reply):
    """
    What a server answered when a file was asked for.

    :ivar size: bytes of the file; 0 when there is none, as for any status but 200.
    :ivar sha256: of the file, in hexadecimal; empty when there is none.
    """

    size: int = 0
    sha256: str = ""


def masked(url: str, hidden: tuple[str, ...] = ()) -> str:
    """
    An address for people: without the secrets, without userinfo and fragment, without the values
    of its query, and without parts of the path that look like keys.
    """
    for secret in hidden:
        if len(secret) < _SECRET_CHARS:
            continue
        for form in {secret, quote(secret, safe=""), quote(secret)}:
            url = url.replace(form, MASK)
    try:
        parts = urlsplit(url)
        netloc = parts.netloc.rpartition("@")[2]
    except ValueError:
        return MASK
    path = _LIKE_A_KEY.sub(MASK, parts.path)
    query = "&".join(map(_masked_pair, parts.query.split("&"))) if parts.query else ""
    return urlunsplit((parts.scheme, netloc, path, query, ""))


def _masked_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    if not equals:
        return MASK
    return f"{name}={value if _PLACEHOLDER.fullmatch(value) else MASK}"


def retry_after_secs(value: str, *, now: float) -> float | None:
    """
    What a C{Retry-After} says (RFC 9110, section 10.2.3: seconds or a date), as seconds from now.

    :param now: POSIX seconds.
    :return: None when it makes no sense; never negative.
    """
    given = value.strip()
    if given.isascii() and given.isdigit():
        return float(given) if len(given) < 16 else inf
    try:
        date = parsedate_to_datetime(given)
    except (ValueError, TypeError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    try:
        return max(0.0, date.timestamp() - now)
    except (OverflowError, ValueError):
        return None
