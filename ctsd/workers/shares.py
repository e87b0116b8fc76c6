"""What of a limit of the whole machine is one worker's."""

from __future__ import annotations

from attrs import evolve

from ctsd.config.settings import Settings


def shared(settings: Settings) -> Settings:
    """
    The settings of one of C{settings.workers} workers: its part of what all of them may take
    together, but enough for one request of the largest size that is allowed.
    """
    http, upload = settings.http, settings.upload

    def part(whole: int, least: int = 1) -> int:
        return max(-(-whole // settings.workers), min(whole, least))

    return evolve(
        settings,
        max_scans=part(settings.max_scans),
        http=evolve(
            http,
            max_connections=part(http.max_connections),
            max_body_memory_bytes=part(http.max_body_memory_bytes, http.max_json_bytes),
        ),
        upload=evolve(
            upload,
            max_concurrent=part(upload.max_concurrent),
            spool_max_bytes=part(upload.spool_max_bytes, upload.max_bytes),
        ),
    )
