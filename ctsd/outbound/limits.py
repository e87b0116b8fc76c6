"""What requests to servers of others may take."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen

from ctsd.outbound.connecting import Proxy

_MIB = 1024**2


@frozen(kw_only=True)
class Limits:
    """
    C{[outbound]}; see the README's table.

    :ivar head_max_bytes: of the head of an answer.
    :ivar no_proxy: hosts that are asked directly, with all below them.
    """

    connect_secs: float = 10.0
    total_secs: float = 30.0
    stall_secs: float = 60.0
    download_secs: float = 1800.0
    max_bytes: int = 8 * _MIB
    head_max_bytes: int = 256 * 1024
    keep_free_bytes: int = 256 * _MIB
    max_redirects: int = 5
    max_downloads: int = 4
    user_agent: str = "ctsd"
    proxy: Proxy | None = field(default=None)
    no_proxy: tuple[str, ...] = ()
    ca_file: Path | None = None

    def proxy_for(self, host: str) -> Proxy | None:
        """The proxy that a host is asked through, if any."""
        for name in self.no_proxy:
            if host == name or host.endswith("." + name):
                return None
        return self.proxy
