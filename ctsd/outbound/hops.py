"""Where a request goes, and where a redirect may lead it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from attrs import field, frozen

from ctsd.errors import OutboundError, Unreached
from ctsd.remote import Remote, masked

#: Statuses that redirect, RFC 9110, section 15.4; 300 and 304 don't.
REDIRECTS = frozenset({301, 302, 303, 307, 308})

_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,252}[a-z0-9_.])?|[0-9a-f:.]+:[0-9a-f:.]+")
# What different parsers of addresses read in different ways.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\<>^`{|}\"]")
# What stands between the words of an address, and from where on no word is like a secret by chance.
_WORDS = re.compile(r"[/?&=;:@]")
_LONG_CHARS = 8

_PORTS = {"http": 80, "https": 443}


@frozen(kw_only=True)
class Hop:
    """
    One request of possibly several.

    :ivar url: with secrets in it.
    :ivar headers: with secrets in them.
    :ivar user: with C{password}, of HTTP Basic; empty for none.
    :ivar own: whether it goes to the host of the configuration.
    :ivar internal: whether private addresses may be asked.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    own: bool = True
    internal: bool = False

    @property
    def scheme(self) -> str:
        """C{http} or C{https}."""
        return urlsplit(self.url).scheme

    @property
    def host(self) -> str:
        """A name in ASCII or an address, in lower case."""
        return urlsplit(self.url).hostname or ""


def first_hop(remote: Remote, headers: Mapping[str, str]) -> Hop:
    """
    The request that was asked for.

    :param headers: beside the remote's own, which go first.
    :raises Unreached: it can't be made; the message has no secrets.
    """
    try:
        url = _checked(remote.filled_url(), insecure_http=remote.insecure_http)
        own = remote.filled_headers()
    except KeyError as error:
        raise Unreached(f"{remote.shown}: no secret is called {error.args[0]}") from None
    except ValueError as error:
        raise Unreached(f"{remote.shown}: {error}") from None
    theirs = {name.lower() for name in own}
    more = {name: value for name, value in headers.items() if name.lower() not in theirs}
    for name, value in own.items():
        if not re.fullmatch(r"[\x20-\x7e\t]*", value):
            raise Unreached(f"the header {name} has characters that no header may have")
    return Hop(
        url=url,
        headers={**more, **own},
        user=remote.user,
        password=remote.password,
        internal=remote.internal,
    )


def next_hop(hop: Hop, remote: Remote, location: str, headers: Mapping[str, str]) -> Hop:
    """
    Where a redirect leads. On another host, and from then on, the remote's credentials are gone:
    its headers, its user, and what holds a secret in the query; private addresses are refused.

    :param headers: those that may go anywhere.
    :raises OutboundError: it may not be followed; the message has no secrets.
    """
    shown = masked(location, remote.hidden)
    try:
        url = _checked(urljoin(hop.url, location), insecure_http=remote.insecure_http)
    except ValueError as error:
        raise OutboundError(f"it redirects to {shown}: {error}") from None
    if hop.own and _same_server(hop.url, url):
        return Hop(
            url=url,
            headers=hop.headers,
            user=hop.user,
            password=hop.password,
            internal=hop.internal,
        )
    return Hop(url=_without_secrets(url, remote.hidden, shown), headers=dict(headers), own=False)


def _checked(url: str, *, insecure_http: bool) -> str:
    """
    An address that everybody reads in the same way; without fragment and userinfo.

    :raises ValueError: it is none, or its scheme may not be used.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
        if not host.isascii():
            host = host.encode("idna").decode("ascii")
    except ValueError:
        raise ValueError("expected an address of http or https") from None
    if parts.scheme not in _PORTS or not _HOST.fullmatch(host) or _AMBIGUOUS.search(url):
        raise ValueError("expected an address of http or https")
    if parts.scheme == "http" and not insecure_http:
        raise ValueError("expected https, or insecure_http = true")
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != _PORTS[parts.scheme]:
        netloc += f":{port}"
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._[]")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]")
    return urlunsplit((parts.scheme, netloc, path, query, ""))


def _same_server(before: str, after: str) -> bool:
    """Whether two addresses have one host and port; from C{http} to C{https} is no change."""
    one, other = urlsplit(before), urlsplit(after)
    if one.hostname != other.hostname:
        return False
    if one.scheme == other.scheme:
        return one.port == other.port
    # Ports of their own: only both defaults belong together.
    return one.scheme == "http" and one.port is None and other.port is None


def _without_secrets(url: str, hidden: tuple[str, ...], shown: str) -> str:
    parts = urlsplit(url)
    query = "&".join(pair for pair in parts.query.split("&") if not _holds(pair, hidden))
    if _holds(parts.netloc + parts.path, hidden):
        raise OutboundError(f"it redirects to another host with our secret in the path: {shown}")
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def _holds(text: str, hidden: tuple[str, ...]) -> bool:
    """Whether a secret is in a text; a short one, which may stand there by chance, as a word."""
    for form in (text, unquote(text), unquote(text.replace("+", " ")), unquote(unquote(text))):
        words = _WORDS.split(form)
        for secret in hidden:
            if secret in words or (len(secret) >= _LONG_CHARS and secret in form):
                return True
    return False
