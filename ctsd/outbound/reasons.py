"""Why a request failed, in words that have no secrets in them."""

from __future__ import annotations

from collections.abc import Iterator

from OpenSSL.SSL import Error as TLSError
from service_identity import CertificateError, VerificationError
from twisted.internet import error as net
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web._newclient import ParseError
from twisted.web.client import ResponseFailed

# The most telling first: a failed handshake also closes the connection.
_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (VerificationError, "its certificate is for another host"),
    (CertificateError, "its certificate has no name that can be checked"),
    (net.DNSLookupError, "its name has no address"),
    (net.ConnectionRefusedError, "it refused the connection"),
    (net.NoRouteError, "there is no way to it"),
    (net.TimeoutError, "no connection in time"),
    (net.TCPTimedOutError, "no connection in time"),
    (ParseError, "its answer is no HTTP"),
    (ResponseFailed, "its answer was cut short"),
    (net.ConnectionLost, "the connection broke"),
    (net.ConnectError, "no connection"),
    (net.ConnectionDone, "it closed the connection without a whole answer"),
)


def reason_of(error: BaseException) -> str:
    """What is wrong; unknown errors are told by their type alone, for they may quote anything."""
    errors = list(_all(error))
    for each in errors:
        if isinstance(each, TLSError):
            return f"TLS failed: {_tls(each)}"
    for cls, words in _REASONS:
        if any(isinstance(each, cls) for each in errors):
            return words
    return f"it failed ({type(errors[-1]).__name__})"


def was_cancelled(error: BaseException) -> bool:
    """Whether somebody gave the request up, in whatever words each layer has for that."""
    ours = (CancelledError, net.ConnectingCancelledError)
    return any(isinstance(each, ours) for each in _all(error))


def _tls(error: TLSError) -> str:
    """OpenSSL's own words: (library, function, reason) each."""
    first = error.args[0] if error.args else None
    if isinstance(first, list):
        words = [str(one[-1]) for one in first if isinstance(one, tuple) and one and one[-1]]
        if words:
            return ", ".join(dict.fromkeys(words))
    return "the handshake did not succeed"


def _all(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it is made of."""
    yield error
    for reason in getattr(error, "reasons", None) or ():
        inner = reason.value if isinstance(reason, Failure) else reason
        if isinstance(inner, BaseException):
            yield from _all(inner)
