"""
Multipart bodies (RFC 7578) as they arrive: the part C{artifact} into memory, the part C{file} into
the spool, everything else into nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import unquote_to_bytes

from attrs import field, frozen
from multipart import (
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    content_disposition_unquote,
)
from twisted.internet.defer import Deferred

from ctsd.errors import BadArtifact, BodyTooLarge, CTSDError
from ctsd.model import PASSWORD, File
from ctsd.spool import Spool
from ctsd.spool_file import SpoolFile
from ctsd.web.bodies import HeldBody
from ctsd.wire import decode_artifact

#: What a longer file name is cut to.
MAX_NAME_CHARS = 255

# A part's header may be this long, for a name that nobody should be told off for.
_MAX_HEADER_BYTES = 64 * 1024
_MAX_HEADERS = 64
_MAX_PARTS = 64
_MAX_BOUNDARY_BYTES = 256

# "; name=value": value quoted, or up to the next semicolon, as some clients send it.
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"(?=\s*(?:;|$))|[^;]*)')

# What nearly all clients send.
_PLAIN_BOUNDARY = re.compile(rb"multipart/form-data; ?boundary=([-_0-9A-Za-z]{1,99})")


def _parameters(header: str) -> dict[str, str]:
    return {name.lower(): raw.strip() for name, raw in _PARAMETER.findall(header)}


def boundary_of(content_type: bytes) -> bytes | None:
    """The boundary of a multipart body; None when the header announces something else."""
    if content_type[:10].lower() != b"multipart/":
        return None
    plain = _PLAIN_BOUNDARY.fullmatch(content_type)
    if plain is not None:
        return plain[1]
    raw = _parameters(content_type.decode("latin-1")).get("boundary", "")
    boundary = raw.strip('"').encode("latin-1")
    return boundary if 0 < len(boundary) <= _MAX_BOUNDARY_BYTES else None


def file_name(disposition: str) -> str:
    """
    What a part's C{Content-Disposition} calls its file, cut to 255 characters; maybe empty.

    C{filename*} (RFC 8187) before C{filename}; UTF-8 where it decodes, else Latin-1.

    :param disposition: the header's value, its bytes as Latin-1.
    """
    parameters = _parameters(disposition)
    name = None
    extended = parameters.get("filename*", "").strip('"').split("'", 2)
    if len(extended) == 3:
        raw = unquote_to_bytes(extended[2].encode("latin-1"))
        charset = "latin-1" if extended[0].lower() == "iso-8859-1" else "utf-8"
        name = raw.decode(charset, "replace")
    if not name:
        name = content_disposition_unquote(parameters.get("filename", ""), True)
        with suppress(UnicodeDecodeError):
            name = name.encode("latin-1").decode("utf-8")
    return name[:MAX_NAME_CHARS]


@frozen(kw_only=True)
class Parts:
    """
    A multipart body that has arrived whole.

    :ivar artifact: the part of that name.
    :ivar with_file: whether there was a part C{file}, kept or not.
    :ivar file_name: what the client called it.
    :ivar file: what became of it; None when it was not kept.
    """

    artifact: bytes | bytearray = field(repr=False)
    with_file: bool = False
    file_name: str = field(default="", repr=False)
    file: File | None = None


class _Parser(PushMultipartParser):  # type: ignore[misc]
    """
    Gives a part that is no field of a form a segment without a name, like any other that nobody
    asked for, where the library's own ends the body.
    """

    def _create_segment(self, headerlist: list[tuple[str, str]]) -> MultipartSegment:
        segment = MultipartSegment(headerlist)
        if segment.disposition != "form-data" or segment.name is None:
            segment.name = ""
        return segment


class Upload:
    """
    One multipart body, as it arrives.

    The parts come in any order; of several with one name the first counts.
    """

    def __init__(
        self,
        *,
        boundary: bytes,
        artifact: HeldBody,
        spool: Spool | None,
        max_file_bytes: int,
        buffer_bytes: int,
        peek_bytes: int,
        on_full: Callable[[bool], None],
        on_failure: Callable[[CTSDError], None],
    ) -> None:
        """
        :param artifact: takes that part.
        :param spool: takes the file; None: it is read and forgotten.
        :param max_file_bytes: more in one C{file} part is too large.
        :param buffer_bytes: C{on_full(True)} when more than this waits for the disk, and
            C{on_full(False)} when half of it is written.
        :param peek_bytes: an artifact of at most this size is looked at as soon as it and the
            file have begun: a password's file is not kept.
        :param on_failure: told when the disk fails before L{finish} was called.
        """
        self._parser = _Parser(
            boundary,
            max_header_size=_MAX_HEADER_BYTES,
            max_header_count=_MAX_HEADERS,
            max_segment_count=_MAX_PARTS,
            header_charset="latin-1",
        )
        self._first_delimiter = b"\r\n--" + boundary
        # As if a line ended just before the body. Bytes before the first delimiter are skipped
        # here, since what the parser makes of them depends on where the stream was cut.
        self._held: bytes | None = b"\r\n"
        self._artifact = artifact
        self._has_artifact = False
        self._spool = spool
        self._max_file_bytes = max_file_bytes
        self._buffer_bytes = buffer_bytes
        self._peek_bytes = peek_bytes
        self._on_full = on_full
        self._on_failure = on_failure
        self._full = False
        self._part: Callable[[bytes], None] | None = None
        self._in_artifact = False
        self._with_file = False
        self._file_bytes = 0
        self._file_name = ""
        self._file_type = ""
        self._spooled: SpoolFile | None = None
        self._file: Deferred[File] | None = None
        self._whole: Deferred[Parts] | None = None
        self._given = False

    def write(self, data: bytes) -> None:
        """
        Take a piece of the body.

        :raises BadArtifact: it is malformed.
        :raises BodyTooLarge: one of its parts is.
        :raises Unavailable: its file can't be kept now.
        """
        if self._held is not None:
            held = self._held + data
            start = held.find(self._first_delimiter)
            if start < 0:
                self._held = held[1 - len(self._first_delimiter) :]
                return
            self._held = None
            data = held[start + 2 :]
        try:
            for event in self._parser.parse(data):
                if event is None:
                    self._part_ended()
                elif isinstance(event, MultipartSegment):
                    self._part_began(event)
                elif self._part is not None:
                    self._part(event)
        except MultipartError as error:
            raise BadArtifact(f"malformed multipart body: {error}") from error

    def finish(self) -> Parts | Deferred[Parts]:
        """
        The body is complete.

        :return: its parts; the file in them belongs to the caller. In a Deferred while it is
            still being written, which fails with C{Unavailable} when that does.
        :raises BadArtifact: it ends too early, or has no C{artifact}.
        """
        try:
            self._parser.close()
        except MultipartError as error:
            raise BadArtifact("the multipart body ends too early") from error
        if not self._has_artifact:
            raise BadArtifact("there is no part named artifact")
        if self._file is None:
            return self._parts(None)
        self._whole = Deferred()
        self._file.addCallback(self._filed)
        return self._whole

    def release(self) -> None:
        """Forget everything; the file is unlinked, unless L{finish} gave it away already."""
        self._part = None
        if self._spooled is not None and not self._given:
            self._spooled.discard()
        self._artifact.release()

    def _part_began(self, segment: MultipartSegment) -> None:
        self._part = None
        if segment.name == "artifact" and not self._has_artifact:
            self._in_artifact = True
            self._part = self._artifact.write
        elif segment.name == "file" and not self._with_file:
            self._with_file = True
            self._file_name = file_name(segment.header("Content-Disposition", ""))
            self._file_type = segment.header("Content-Type", "")[:MAX_NAME_CHARS]
            self._part = self._file_piece
            if self._spool is not None and not self._is_password():
                self._spooled = self._spool.create(on_level=self._level, on_failure=self._broke)

    def _part_ended(self) -> None:
        self._part = None
        if self._in_artifact:
            self._in_artifact = False
            self._has_artifact = True
            if self._spooled is not None and self._is_password():
                self._spooled.discard()
                self._spooled = self._file = None
        elif self._with_file and self._spooled is not None and self._file is None:
            self._file = self._spooled.finish(
                name=self._file_name,
                content_type=self._file_type or "application/octet-stream",
            )

    def _is_password(self) -> bool:
        """Whether it is known by now that the artifact is a password."""
        if not self._has_artifact or len(self._artifact.data) > self._peek_bytes:
            return False
        return decode_artifact(self._artifact.data, with_file=True).type == PASSWORD

    def _file_piece(self, data: bytes) -> None:
        self._file_bytes += len(data)
        if self._file_bytes > self._max_file_bytes:
            raise BodyTooLarge(f"a file of more than {self._max_file_bytes} bytes")
        if self._spooled is not None:
            self._level(self._spooled.write(data))

    def _level(self, waiting_bytes: int) -> None:
        limit = self._buffer_bytes // 2 if self._full else self._buffer_bytes
        full = waiting_bytes > limit
        if full is not self._full:
            self._full = full
            self._on_full(full)

    def _parts(self, file: File | None) -> Parts:
        self._given = True
        return Parts(
            artifact=self._artifact.data,
            with_file=self._with_file,
            file_name=self._file_name,
            file=file,
        )

    def _filed(self, file: File) -> None:
        assert self._whole is not None
        self._whole.callback(self._parts(file))

    def _broke(self, error: CTSDError) -> None:
        if self._whole is not None:
            self._whole.errback(error)
        else:
            self._on_failure(error)
