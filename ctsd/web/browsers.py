"""
Rules for browsers: no page of another site asks us anything, and no name that somebody else
controls (DNS rebinding) reaches us through one.

They hold for requests with C{Origin}, C{Referer} or C{Sec-Fetch-Site} alone: the platform and
command line tools send none of these, and are never refused for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from attrs import frozen

from ctsd.errors import ForeignBrowser, WrongHost

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def is_browser(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser sent these."""
    return b"sec-fetch-site" in headers or b"origin" in headers or b"referer" in headers


def host_name(host: str) -> str:
    """The name in a C{Host} header: without its port, in lower case, C{[::1]} without brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].rstrip(".") if ":" in host else host.rstrip(".")


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


@frozen(kw_only=True)
class BrowserRules:
    """
    Which browsers may ask.

    :ivar allowed_hosts: names that they may have in C{Host}; empty: any, but a loopback listener
        takes loopback names alone.
    :ivar loopback: whether this is a loopback listener.
    """

    allowed_hosts: frozenset[str]
    loopback: bool

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """
        Let a browser's request pass, or not.

        :param headers: by lower-case name.
        :raises WrongHost: the name that it used is not ours.
        :raises ForeignBrowser: a page of another site made it.
        """
        host = headers.get(b"host", b"").decode("latin-1")
        name = host_name(host)
        if self.allowed_hosts:
            if name not in self.allowed_hosts:
                raise WrongHost("this Host is not in allowed_hosts")
        elif self.loopback and not _is_loopback(name):
            raise WrongHost("only loopback names are served here")
        if headers.get(b"sec-fetch-site", b"").lower() == b"cross-site":
            raise ForeignBrowser("a page of another site made this request")
        for header in (b"origin", b"referer"):
            made_by = headers.get(header)
            if made_by is not None and not _same(made_by.decode("latin-1"), host):
                raise ForeignBrowser("a page of another site made this request")


def _same(url: str, host: str) -> bool:
    """Whether a page at C{url} was served by C{host}."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    port = _DEFAULT_PORTS.get(parts.scheme)
    if port is None:
        return False
    ours = host.strip().lower()
    return parts.netloc.lower().removesuffix(port) == ours.removesuffix(port) != ""
