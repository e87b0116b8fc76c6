"""C{[outbound]}: requests to servers of others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from attrs import frozen

from ctsd.config import checks
from ctsd.config.checks import Surroundings, Wrong
from ctsd.config.store_url import secret
from ctsd.config.tables import key as _key

_MIB = 1024**2
_DAY_SECS = 86400.0
_PROXY_PORT = 3128

_CERTIFICATE = "-----BEGIN CERTIFICATE-----"


@frozen(kw_only=True)
class ProxyAddress:
    """
    Where a proxy is.

    :ivar user: whom it knows us as; empty for nobody.
    """

    host: str
    port: int
    user: str = ""


def _secs(about: str, default: float) -> Any:
    return _key(checks.amount(0.001, _DAY_SECS, "seconds"), about, default=default)


def proxy_address(value: object, around: Surroundings) -> ProxyAddress:
    """C{http://host:port}, perhaps with a user."""
    expected = Wrong('expected a proxy, "http://host:port" or "http://user@host:port"')
    given = checks.text(value, around)
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        raise expected from None
    if parts.password is not None:
        raise Wrong('expected no password in it: that goes into proxy_password = { env = "NAME" }')
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise expected
    checks.host(f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname, around)
    return ProxyAddress(
        host=parts.hostname, port=port or _PROXY_PORT, user=unquote(parts.username or "")
    )


def ca_file(value: object, around: Surroundings) -> Path:
    """A file of certificates in PEM, made absolute."""
    path = checks.path(value, around)
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise Wrong(f"expected the file {path} to be readable: {error.strerror}") from None
    if _CERTIFICATE not in text:
        raise Wrong(f"expected the file {path} to hold certificates in PEM")
    return path


def user_agent(value: object, around: Surroundings) -> str:
    """A value of C{User-Agent}."""
    given = checks.text(value, around)
    if not re.fullmatch(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*", given):
        raise Wrong("expected words of printable ASCII")
    return given


@frozen(kw_only=True)
class OutboundSettings:
    """C{[outbound]}: how servers of others are asked."""

    connect_secs: float = _secs("How long a connection may take to be there", 10.0)
    total_secs: float = _secs("How long a question may take, all in all", 30.0)
    stall_secs: float = _secs("How long a connection may be silent", 60.0)
    download_secs: float = _secs("How long a download may take", 1800.0)
    max_bytes: int = _key(checks.whole(1), "The largest answer to a question", default=8 * _MIB)
    max_head_bytes: int = _key(
        checks.whole(1024), "The largest head of an answer", default=256 * 1024
    )
    keep_free_bytes: int = _key(
        checks.whole(0),
        "No download is taken that leaves less free disk than this",
        default=256 * _MIB,
    )
    max_redirects: int = _key(
        checks.whole(0, 50), "How many redirects of one request are followed", default=5
    )
    max_downloads: int = _key(
        checks.whole(1, 100), "Downloads at once; of one host, one at a time", default=4
    )
    feeds_dir: Path | None = _key(  # noqa: RUF009 - no default
        checks.path,
        "Where copies of feeds lie; on a file system that nodes share, one of them downloads for "
        "all",
        default=None,
        shown="state_dir's `feeds`",
    )
    user_agent: str = _key(
        user_agent,
        "What requests say that they come from",
        default="",
        shown="ctsd and its version",
    )
    ca_file: Path | None = _key(  # noqa: RUF009 - no default
        ca_file,
        "Certificates of authorities (PEM) to trust beside the system's",
        default=None,
        shown="none",
    )
    proxy: ProxyAddress | None = _key(  # noqa: RUF009 - no default
        proxy_address,
        'The proxy to go through, `"http://user@host:port"`',
        default=None,
        shown="none",
    )
    proxy_password: str | None = _key(
        secret,
        'Its password: `{ env = "NAME" }` or `{ file = "PATH" }`',
        default=None,
        shown="none",
        hidden=True,
    )
    no_proxy: tuple[str, ...] = _key(
        checks.each(checks.host, of="host names"),
        "Hosts to be asked without it, with all names below them",
        default=(),
    )
