"""What takes the body of a C{POST} as it comes: JSON, or multipart, or JSON that says it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from twisted.internet.defer import Deferred

from ctsd.errors import BodyTooLarge, CTSDError
from ctsd.spool import Spool
from ctsd.uploads import Parts, Upload, boundary_of
from ctsd.web.bodies import BodyMemory, HeldBody
from ctsd.web.heads import Head
from ctsd.web.limits import WebLimits

#: A body that is here: JSON, or the parts of multipart.
Body: TypeAlias = bytes | bytearray | Parts

#: What may stand before JSON: blanks, and what byte order marks and wide characters are made of.
_BEFORE_JSON = b" \t\r\n\xef\xbb\xbf\xfe\xff\x00"


class Sink(Protocol):
    """Takes one body. What it raises is the request's answer."""

    def write(self, data: bytes) -> None:
        """Take a piece."""

    def finish(self) -> Body | Deferred[Parts]:
        """The body is complete."""

    def release(self) -> None:
        """Forget everything, but for a file that was given away."""


class _MaybeMultipart:
    """
    A body that says it is multipart. JSON is JSON, whatever the Content-Type says, and no
    multipart body begins like it: while all that came was blanks, it may be either.
    """

    def __init__(self, held: HeldBody, upload: Callable[[], Upload]) -> None:
        """
        :param held: takes JSON.
        :param upload: makes what takes multipart, and its artifact into C{held}.
        """
        self._held = held
        self._upload = upload
        self._sink: Sink = held
        self._has_begun = False

    def write(self, data: bytes) -> None:
        """See L{Sink}."""
        if not self._has_begun:
            begins = data.lstrip(_BEFORE_JSON)[:1]
            self._has_begun = bool(begins)
            if begins and begins != b"{":
                data = bytes(self._held.data) + data
                self._held.release()
                self._sink = self._upload()
        self._sink.write(data)

    def finish(self) -> Body | Deferred[Parts]:
        """See L{Sink}."""
        return self._sink.finish()

    def release(self) -> None:
        """See L{Sink}."""
        self._sink.release()


def sink_for(
    head: Head,
    *,
    limits: WebLimits,
    memory: BodyMemory,
    spool: Spool,
    on_full: Callable[[bool], None],
    on_failure: Callable[[CTSDError], None],
) -> Sink:
    """
    What takes a body, by what its head says.

    :param on_full: see L{Upload}, as C{on_failure}.
    :raises BodyTooLarge: it says that it is longer than it may be.
    :raises Unavailable: there is no room for it now.
    """
    length = head.length
    held = HeldBody(
        memory=memory, max_bytes=limits.max_json_bytes, small_bytes=limits.small_body_bytes
    )
    boundary = boundary_of(head.headers.get(b"content-type", b""))
    if boundary is None:
        check_length(length, limits.max_json_bytes)
        if length > limits.small_body_bytes:
            memory.check(length)
        return held
    check_length(length, limits.max_multipart_bytes)
    if length > limits.small_body_bytes and limits.uploads_enabled:
        spool.check(size=length)

    def upload() -> Upload:
        return Upload(
            boundary=boundary,
            artifact=held,
            spool=spool if limits.uploads_enabled else None,
            max_file_bytes=limits.upload_max_bytes,
            buffer_bytes=limits.upload_buffer_bytes,
            peek_bytes=limits.inline_json_bytes,
            on_full=on_full,
            on_failure=on_failure,
        )

    return _MaybeMultipart(held, upload)


def check_length(length: int, limit: int) -> None:
    """
    Hold a body's length against what it may be.

    :raises BodyTooLarge: it is more.
    """
    if length > limit:
        raise BodyTooLarge(f"a body of {length} bytes")
