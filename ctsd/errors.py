"""
Everything that goes wrong on purpose, as one tree::

    CTSDError
    ├── BadArtifact       the body is no valid artifact                     400
    ├── BodyTooLarge      the body is above a limit                         413
    ├── ForeignBrowser    a page of another site made this request          403
    ├── WrongHost         a browser used a Host that is not listed          421
    ├── NoSuchService     nothing is registered under that name             503
    ├── NoSuchScan        an id that this service can't have issued         204
    ├── Unavailable       what we can't take or tell right now              503
    │   ├── LostScan      an id that was issued, but has no answer (any more)
    │   └── StoreError    the store does not answer, or is full
    ├── UnknownArtifact   no type, or no shape, of ours: 200 without hits, and a warning
    ├── SearchLater       (searchers) ask me again in a while
    ├── SearchFailed      (searchers) I could not ask
    ├── NotConfigured     (searchers) this searcher is off, and why
    ├── OutboundError     a server of others could not be asked, or its answer can't be taken
    │   └── Unreached     nothing was sent to it
    └── ConfigError       the configuration stops the start

L{ANSWERS} is the one table from an error to its HTTP status; an error that is not in it is a
fault of ours: 500 with an incident id. The statuses are the platform's: 400-499 drop the
artifact for ever, so only a body that is really bad gets one (Custom Threat Service Guide V36,
chapter "Responses").
"""

from __future__ import annotations

import math


class CTSDError(Exception):
    """The root of all errors that ctsd raises on purpose."""


class BadArtifact(CTSDError):
    """The body is no valid artifact; the message says what is wrong with it, without its value."""


class UnknownArtifact(CTSDError):
    """
    The artifact's type is not known, or its value has another shape than its type.

    The platform gets 200 without hits: a newer one must not be told that its request is bad. The
    message says what is wrong with it, without its value.
    """


class BodyTooLarge(CTSDError):
    """The body, or one part of it, is larger than the configuration allows."""


class ForeignBrowser(CTSDError):
    """A browser sent this for a page of another site."""


class WrongHost(CTSDError):
    """A browser used a C{Host} that C{allowed_hosts} does not list."""


class NoSuchService(CTSDError):
    """
    No service has this name.

    The platform gets 503: somebody renamed a service, and its artifacts must come again.
    """


class NoSuchScan(CTSDError):
    """This service can't have issued that id (its tag is wrong)."""


class Unavailable(CTSDError):
    """
    We can't take or tell this right now.

    :ivar reason: what is in the way, for the client and the log; never an artifact's value.
    :ivar retry_secs: after how long the client may try again, in whole seconds.
    """

    def __init__(self, reason: str, *, retry_secs: int = 60) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_secs = retry_secs


class LostScan(Unavailable):
    """An id that was issued, but whose answer is lost or could not be completed."""


class StoreError(Unavailable):
    """The store failed; the driver's own error is the C{__cause__}."""


class SearchLater(CTSDError):
    """
    Raised by a searcher: the source has no answer yet; search again in a while.

    :ivar after_secs: when to ask again, seconds from now.
    :raises ValueError: C{after_secs} is no time from now.
    """

    def __init__(self, after_secs: float, reason: str = "") -> None:
        if not 0 <= after_secs < math.inf:
            raise ValueError(f"after_secs is {after_secs}")
        super().__init__(reason or f"again in {after_secs:g} s")
        self.after_secs = float(after_secs)
        self.reason = str(reason)


class SearchFailed(CTSDError):
    """
    Raised by a searcher: the source could not be asked.

    :ivar reason: why, for the log and the analyst; no secrets, no artifact's value.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = str(reason)


class NotConfigured(CTSDError):
    """Raised by a searcher at its start: it is off, and the message says why."""


class OutboundError(CTSDError):
    """
    A server of others could not be asked, or its answer can't be taken.

    :ivar reason: why, for people; no secrets.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unreached(OutboundError):
    """No request left for a server of others: it has not been troubled."""


class ConfigError(CTSDError):
    """
    The configuration stops the start.

    :ivar where: the file, with its line when it is known (C{/etc/ctsd/ctsd.toml:12}).
    :ivar key: the key in dotted form (C{upload.max_bytes}).
    """

    def __init__(self, where: str, key: str, expected: str) -> None:
        super().__init__(f"{where}: {key}: {expected}" if key else f"{where}: {expected}")
        self.where = where
        self.key = key
        self.expected = expected


#: The status that an error becomes on the wire; a subclass without an entry uses its parent's.
ANSWERS: dict[type[CTSDError], int] = {
    BadArtifact: 400,
    ForeignBrowser: 403,
    BodyTooLarge: 413,
    WrongHost: 421,
    NoSuchScan: 204,
    NoSuchService: 503,
    Unavailable: 503,
}


def status_of(error: BaseException) -> int:
    """
    The HTTP status for an error; 500 for what is not in L{ANSWERS}, which is a fault of ours.
    """
    for cls in type(error).__mro__:
        status = ANSWERS.get(cls)
        if status is not None:
            return status
    return 500
