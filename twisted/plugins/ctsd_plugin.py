"""C{twistd ctsd}, and what ctsd adds to endpoint strings: C{auth:} and C{tls-wrap:}.

C{ctsd-lent:} is for workers alone.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import IStreamServerEndpoint, IStreamServerEndpointStringParser
from twisted.plugin import IPlugin
from zope.interface import implementer

ctsd = ServiceMaker(
    "ctsd",
    "ctsd.tap",
    "A custom threat service for IBM Resilient (QRadar SOAR).",
    "ctsd",
)


# Whoever parses any endpoint string imports this module: what it needs is imported when it is used.


@implementer(IPlugin, IStreamServerEndpointStringParser)
class _AuthParser:
    """C{auth:USERSFILE:<any endpoint>}: HTTP Basic in front of what listens there."""

    prefix = "auth"

    def parseStreamServer(self, reactor: Any, *args: Any, **kwargs: Any) -> IStreamServerEndpoint:
        """The endpoint, which reads the file when it listens."""
        from ctsd.auth import auth_endpoint

        return auth_endpoint(reactor, args, kwargs)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class _TLSParser:
    """C{tls-wrap:KEY:CERT:<any endpoint>}: TLS that reads its files again when they change."""

    prefix = "tls-wrap"

    def parseStreamServer(self, reactor: Any, *args: Any, **kwargs: Any) -> IStreamServerEndpoint:
        """The endpoint, which reads the files when it listens."""
        from ctsd.tls import tls_endpoint

        return tls_endpoint(reactor, args, kwargs)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class _LentParser:
    """C{ctsd-lent:<descriptor>}: a socket that the supervisor of workers keeps."""

    prefix = "ctsd-lent"

    def parseStreamServer(self, reactor: Any, *args: Any, **kwargs: Any) -> IStreamServerEndpoint:
        """The endpoint."""
        from ctsd.lending import LentEndpoint

        return LentEndpoint(reactor, int(args[0]))


auth = _AuthParser()
tls_wrap = _TLSParser()
lent = _LentParser()
