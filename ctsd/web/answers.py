"""What goes back to a client: an L{Answer}, and its bytes."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen
from twisted.web.http import RESPONSES

from ctsd.wire import encode_error

_JSON = b"Content-Type: application/json\r\n"
_CONSTANT = b"Cache-Control: no-store\r\n"

# twisted.web does not know 421 (RFC 9110, section 15.5.20).
_REASONS = {**RESPONSES, 421: b"Misdirected Request"}


@frozen
class Answer:
    """
    One answer, before it knows its connection.

    :ivar body: JSON, mostly; empty for 204.
    :ivar headers: what it has beyond those that all answers have, as one string of complete
        lines, constants of ours (nothing in it comes from a client).
    :ivar content_type: of a body that is no JSON.
    """

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: bytes = b""
    content_type: bytes = b""


NO_CONTENT = Answer(204)


def error_answer(status: int, message: str, *, retry_secs: int | None = None) -> Answer:
    """
    An error as protocol.md has it: C{{"error": message}}.

    :param retry_secs: makes a C{Retry-After} of it.
    """
    headers = b"" if retry_secs is None else b"Retry-After: %d\r\n" % (retry_secs,)
    return Answer(status, encode_error(message), headers)


def not_allowed(allow: bytes) -> Answer:
    """405, with the methods that are."""
    return Answer(405, encode_error("method not allowed"), b"Allow: " + allow + b"\r\n")


def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %s\r\n" % (status, _REASONS.get(status, b"Unknown"))


def _starts() -> Mapping[int, bytes]:
    """The part of an answer that depends on its status alone, for all that we send."""
    starts = {}
    for status in (200, 303, 400, 401, 403, 405, 413, 421, 500, 503):
        starts[status] = _status_line(status) + _CONSTANT + _JSON
    starts[204] = _status_line(204) + _CONSTANT
    return starts


_STARTS = _starts()


def render(answer: Answer, *, date: bytes, close: bool, body: bool = True) -> bytes:
    """
    The bytes of an answer: status line, headers and body, for one single write.

    :param date: a complete C{Date} line.
    :param close: say that the connection ends here.
    :param body: False for HEAD: the headers of the same answer.
    """
    start = _STARTS.get(answer.status)
    if answer.content_type:
        content_type = b"Content-Type: %b\r\n" % (answer.content_type,)
        start = _status_line(answer.status) + _CONSTANT + content_type
    elif start is None:
        start = _status_line(answer.status) + _CONSTANT + _JSON
    end = b"Connection: close\r\n" if close else b""
    if answer.status == 204:
        # RFC 9110, section 8.6: no Content-Length in a 204.
        return b"%b%b%b%b\r\n" % (start, date, answer.headers, end)
    return b"%b%b%b%bContent-Length: %d\r\n\r\n%b" % (
        start,
        date,
        answer.headers,
        end,
        len(answer.body),
        answer.body if body else b"",
    )
