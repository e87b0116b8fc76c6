"""Whom to believe that a server is the one that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL.SSL import TLS_METHOD, Context
from OpenSSL.SSL import Error as TLSError

# Private, and there is no other way to trust more than the system does: the public makers of
# trust roots trust either the system or a list.
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.web.client import BrowserLikePolicyForHTTPS, HostnameCachingHTTPSPolicy
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from ctsd.errors import OutboundError


@implementer(IOpenSSLTrustRoot)
class _SystemAnd:
    """The system's authorities, and those of a file."""

    def __init__(self, ca_file: Path) -> None:
        self._ca_file = ca_file

    def _addCACertsToContext(self, context: Context) -> None:
        context.set_default_verify_paths()
        context.load_verify_locations(str(self._ca_file))


def make_policy(ca_file: Path | None) -> IPolicyForHTTPS:
    """
    Certificates and names are always checked.

    :param ca_file: authorities to trust beside the system's, in PEM.
    :raises OutboundError: it holds none.
    """
    if ca_file is not None:
        try:
            Context(TLS_METHOD).load_verify_locations(str(ca_file))
        except TLSError:
            raise OutboundError(f"{ca_file} holds no certificates in PEM") from None
    # Without an argument it trusts the system.
    given: dict[str, Any] = {"trustRoot": _SystemAnd(ca_file)} if ca_file is not None else {}
    return HostnameCachingHTTPSPolicy(BrowserLikePolicyForHTTPS(**given))
