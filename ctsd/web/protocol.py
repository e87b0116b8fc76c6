"""
The Custom Threat Service protocol: what is asked, and what is answered.

Plain values come in and an L{Answer} goes out; whoever routed the request does not matter here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from secrets import token_hex
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.errors import BadArtifact, BodyTooLarge, NoSuchService, Unavailable, status_of
from ctsd.interfaces.scanning import IScans, ISpool
from ctsd.interfaces.threads import InThread
from ctsd.model import FILE, JSON, PASSWORD, Artifact, ScanView
from ctsd.uploads import Parts
from ctsd.web.answers import NO_CONTENT, Answer, error_answer, not_allowed
from ctsd.web.health import Health
from ctsd.web.targets import Kind, Target
from ctsd.wire import decode_artifact, encode_options, encode_view, file_artifact

#: An answer, perhaps later. The Deferred never fails.
Answered: TypeAlias = Answer | Deferred[Answer]

_TAKES_FILES = Answer(200, encode_options(True))
_TAKES_NO_FILES = Answer(200, encode_options(False))
_READY = Answer(200)
_NOT_READY = Answer(503)

_SERVICE_METHODS = not_allowed(b"OPTIONS, POST")
_SCAN_METHODS = not_allowed(b"GET, HEAD")

# When a service that is not there may have come back.
_RETRY_SECS = 60
_MAX_LOGGED_CHARS = 100


class Protocol:
    """
    The answers of all services.

    :ivar too_large: how many bodies were refused for their size.
    :ivar uploads_enabled: whether files may be uploaded.
    :ivar leaving: whether load balancers are to turn away.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        scans: IScans,
        spool: ISpool,
        mint: Callable[[str], str],
        uploads_enabled: bool,
        inline_json_bytes: int,
        in_thread: InThread,
        health: Health | None = None,
    ) -> None:
        """
        :param spool: from which a file is removed that no scan has taken.
        :param mint: a new id for a service; for the platform's connection test, whose answer is
            no scan.
        :param inline_json_bytes: larger JSON is decoded C{in_thread}.
        :param health: what C{/health} tells; None: there is nothing.
        """
        self.too_large = 0
        self._scans = scans
        self._spool = spool
        self._mint = mint
        self.uploads_enabled = uploads_enabled
        self.leaving = False
        self._inline_json_bytes = inline_json_bytes
        self._in_thread = in_thread
        self._health = health

    def answer(self, *, method: bytes, target: Target, body: bytes | bytearray | Parts) -> Answered:
        """Answer whatever is asked about a target."""
        kind = target.kind
        if kind is Kind.SERVICE:
            if method == b"POST":
                if isinstance(body, Parts):
                    return self.post_parts(service=target.service, parts=body)
                return self.post(service=target.service, body=body)
            if method == b"OPTIONS":
                return self.options(service=target.service)
            return _SERVICE_METHODS
        if method == b"GET" or method == b"HEAD":
            if kind is Kind.SCAN:
                return self.get(service=target.service, scan_id=target.scan_id)
            if kind is Kind.HEALTH and self._health is not None:
                return self._health.answer(leaving=self.leaving)
            return self.ready() if kind is Kind.READY else NO_CONTENT
        if kind is not Kind.READY and method == b"POST":
            return self.unknown(target)
        return _SCAN_METHODS

    def unknown(self, target: Target) -> Answer:
        """
        A C{POST} where no service is: its artifact must come again, for somebody may have renamed
        the service.
        """
        if target.kind is Kind.READY:
            return _SCAN_METHODS
        return self.refuse(NoSuchService(target.path))

    def options(self, *, service: str) -> Answer:
        """Whether files may be uploaded."""
        takes = self.uploads_enabled and self._scans.takes_files(service=service)
        return _TAKES_FILES if takes else _TAKES_NO_FILES

    def get(self, *, service: str, scan_id: str) -> Answered:
        """What is known about a scan."""
        return self._scans.view(service=service, scan_id=scan_id).addCallbacks(_viewed, self.failed)

    def ready(self) -> Answer:
        """For load balancers: whether scans can be answered, also in a moment."""
        return _NOT_READY if self.leaving or self._scans.working() else _READY

    def post(self, *, service: str, body: bytes | bytearray) -> Answered:
        """Scan the artifact in a JSON body."""
        if len(body) > self._inline_json_bytes:
            decoded: Deferred[Any] = self._in_thread(decode_artifact, body)
            decoded.addCallback(partial(self._submit, service)).addErrback(self.failed)
            return decoded
        try:
            artifact = decode_artifact(body)
        except BadArtifact as error:
            return self.refuse(error)
        return self._submit(service, artifact)

    def post_parts(self, *, service: str, parts: Parts) -> Answered:
        """Scan the artifact, with its file, in a multipart body."""
        decode = partial(decode_artifact, parts.artifact, with_file=parts.with_file)
        if len(parts.artifact) > self._inline_json_bytes:
            decoded: Deferred[Any] = self._in_thread(decode)
            decoded.addCallback(partial(self._submit_parts, service, parts))
            decoded.addErrback(self._failed_with, parts)
            return decoded
        try:
            return self._submit_parts(service, parts, decode())
        except Exception as error:
            self._drop(parts)
            return self.refuse(error)

    def refuse(self, error: Exception) -> Answer:
        """The answer to a request that fails with one of our errors, logged where it matters."""
        status = status_of(error)
        if status == 500:
            return self.failed(Failure(error, type(error), error.__traceback__))
        if status == 204:
            return NO_CONTENT
        if isinstance(error, NoSuchService):
            name = str(error)[:_MAX_LOGGED_CHARS]
            self._log.warn("there is no such service: {name!r}", name=name)
            return error_answer(status, "there is no such service", retry_secs=_RETRY_SECS)
        if isinstance(error, Unavailable):
            return error_answer(status, error.reason, retry_secs=error.retry_secs)
        if isinstance(error, BodyTooLarge):
            self.too_large += 1
            self._log.warn("refused for its size: {reason}", reason=str(error))
        elif isinstance(error, BadArtifact):
            self._log.warn("no valid artifact: {reason}", reason=str(error))
        return error_answer(status, str(error))

    def failed(self, failure: Failure) -> Answer:
        """The answer to a request that failed; what is no error of ours is an incident."""
        error = failure.value
        if isinstance(error, Exception) and status_of(error) != 500:
            return self.refuse(error)
        incident = token_hex(6)
        self._log.failure("incident {incident}", failure=failure, incident=incident)
        return error_answer(500, f"internal error, incident {incident}")

    def _failed_with(self, failure: Failure, parts: Parts) -> Answer:
        self._drop(parts)
        return self.failed(failure)

    def _submit(self, service: str, artifact: Artifact) -> Answered:
        if artifact.type == "net.name" and _is_test(artifact.value):
            return self._connection_test(service)
        submitted = self._scans.submit(service=service, artifact=artifact)
        if submitted.called and isinstance(view := submitted.result, ScanView):
            # Most scans end here, and callbacks cost as much as the rest of the way.
            return _viewed(view)
        return submitted.addCallbacks(_viewed, self.failed)

    def _submit_parts(self, service: str, parts: Parts, artifact: Artifact) -> Answered:
        file = parts.file
        if artifact.type == PASSWORD:
            self._drop(parts)
            if artifact.value is None:
                artifact = Artifact(PASSWORD, "")
        elif file is not None:
            if artifact.type == "net.name" and _is_test(artifact.value):
                self._drop(parts)
            else:
                artifact = file_artifact(artifact, file)
        elif parts.with_file:
            if artifact.value is None:
                artifact = Artifact(artifact.type, parts.file_name)
        elif artifact.type == FILE and self._wants_files(service):
            raise BadArtifact("file.content without a part named file")
        return self._submit(service, artifact)

    def _wants_files(self, service: str) -> bool:
        return self.uploads_enabled and self._scans.takes_files(service=service)

    def _connection_test(self, service: str) -> Answer:
        """C{resutil threatservicetest}: answered at once, and nothing is scanned or stored."""
        trouble = self._scans.working()
        if trouble:
            return self.refuse(Unavailable(trouble))
        return _viewed(ScanView(id=self._mint(service), finished=True))

    def _drop(self, parts: Parts) -> None:
        """No scan takes this file."""
        if parts.file is not None:
            self._spool.remove(paths=[parts.file.path])


def _viewed(view: ScanView) -> Answer:
    return Answer(200 if view.finished else 303, encode_view(view))


def _is_test(value: JSON) -> bool:
    """Whether this is the name that the platform's connection test asks for."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return isinstance(value, str) and value.strip().rstrip(".").lower() == "localhost"
