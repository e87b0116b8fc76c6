"""Every limit of the web side, by name, with its default."""

from __future__ import annotations

from attrs import frozen

_KIB = 1024
_MIB = 1024 * _KIB
_GIB = 1024 * _MIB


@frozen(kw_only=True)
class WebLimits:
    """
    How much a client may ask of us, and how long it may take.

    :ivar uploads_enabled: whether C{file} parts are kept; when not, they are read and forgotten.
    :ivar upload_max_bytes: the largest file; more is a 413.
    :ivar multipart_overhead_bytes: how much longer than C{upload_max_bytes} a multipart body may
        be: its other parts, headers and boundaries.
    :ivar upload_buffer_bytes: how much of one upload may wait for the disk before the client is
        told to wait.
    :ivar max_json_bytes: the largest JSON body, and the largest C{artifact} part; more is a 413.
    :ivar inline_json_bytes: JSON up to this size is decoded at once, more of it in a thread.
    :ivar max_body_memory_bytes: how much all JSON bodies together may hold; beyond it 503.
    :ivar small_body_bytes: of a body that we have refused, this much is still read, to keep the
        connection; a larger one is drained, and the connection closed. Smaller bodies don't count
        for C{max_body_memory_bytes}.
    :ivar max_head_bytes: request line and headers together; more is a 400.
    :ivar max_headers: how many headers a request may have; more is a 400.
    :ivar pipeline_bytes: how much of the following requests is taken in while one is answered.
    :ivar max_connections: to one listener; more are closed at once.
    :ivar idle_secs: how long a connection without a request stays open, and how long a client
        may leave an answer unread.
    :ivar min_rate_bytes_per_sec: a client that sends a head or a body slower than this is closed
        without an answer.
    :ivar rate_window_secs: over which the rate is measured.
    :ivar drain_max_bytes: how much of a refused body is read on after the answer.
    :ivar drain_secs: and for how long.
    :ivar close_secs: how long a closed connection may take to flush before it is cut.
    :ivar sweep_secs: how often all of these times are looked at.
    """

    uploads_enabled: bool = True
    upload_max_bytes: int = 2 * _GIB
    multipart_overhead_bytes: int = 64 * _KIB
    upload_buffer_bytes: int = _MIB
    max_json_bytes: int = 32 * _MIB
    inline_json_bytes: int = _MIB
    max_body_memory_bytes: int = 256 * _MIB
    small_body_bytes: int = 64 * _KIB
    max_head_bytes: int = 16 * _KIB
    max_headers: int = 500
    pipeline_bytes: int = 16 * _KIB
    max_connections: int = 4096
    idle_secs: float = 60.0
    min_rate_bytes_per_sec: int = 500
    rate_window_secs: float = 10.0
    drain_max_bytes: int = 2 * _GIB
    drain_secs: float = 60.0
    close_secs: float = 15.0
    sweep_secs: float = 1.0

    @property
    def max_multipart_bytes(self) -> int:
        """The longest multipart body that is invited in."""
        # An artifact may be larger than the largest file.
        return max(self.upload_max_bytes, self.max_json_bytes) + self.multipart_overhead_bytes
