"""Checks of C{[store]}: where the database is, and its password."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from ctsd.config.checks import Surroundings, Wrong, text, unknown, with_secrets

_EXPECTED = (
    'expected "sqlite:" and a file, e.g. "sqlite:ctsd.sqlite", or'
    ' "postgresql://user@host:port/database"'
)

#: Parameters of libpq that a URL may have; the password and what a pooler would not know are not
#: among them (PostgreSQL's manual, "Parameter Key Words").
_PARAMETERS = (
    "host",
    "port",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcrl",
    "ssl_min_protocol_version",
    "channel_binding",
    "gssencmode",
    "target_session_attrs",
    "application_name",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)

_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?|/[^,\0]*")


def store_url(value: object, around: Surroundings) -> str:
    """Where the store is. The paths in it have become absolute, but for SQLite's own."""
    given = text(value, around)
    scheme, colon, rest = given.partition(":")
    if "\0" in given or not colon:
        raise Wrong(_EXPECTED)
    if scheme == "postgresql" and rest.startswith("//"):
        return _postgres(given, around.base_dir)
    if scheme != "sqlite" or rest.strip("/") in {"", ":memory:"}:
        raise Wrong(_EXPECTED)
    return given


def listen_url(value: object, around: Surroundings) -> str:
    """Where to listen to what PostgreSQL tells; empty for nowhere."""
    if value == "":
        return ""
    given = text(value, around)
    if not given.startswith("postgresql://"):
        raise Wrong('expected "postgresql://user@host:port/database", or "" to ask instead')
    return store_url(given, around)


def _postgres(given: str, base_dir: Path) -> str:
    try:
        parts = urlsplit(given)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise Wrong(_EXPECTED) from None
    user, _, where = parts.netloc.rpartition("@")
    if ":" in user:
        raise Wrong('expected no password in it: that goes into password = { env = "NAME" }')
    for name, value in options:
        if name == "password" or "password" in name:
            raise Wrong('expected no password in it: that goes into password = { env = "NAME" }')
        if name not in _PARAMETERS:
            raise Wrong(unknown(name, _PARAMETERS, "connection parameter"))
        if name == "port" and not value.isdecimal():
            raise Wrong("expected a port as a number")
        if name == "sslmode" and value not in _SSL_MODES:
            raise Wrong(f"expected sslmode to be one of {', '.join(_SSL_MODES)}")
    where = dict(options).get("host") or unquote(where)
    if not where or not all(_HOST.fullmatch(one) for one in where.split(",")):
        raise Wrong('expected a host, "postgresql://user@host/database", or a socket\'s directory')
    if not parts.path.strip("/") or parts.fragment:
        raise Wrong('expected a database, "postgresql://user@host/database"')
    rewritten = [
        (name, str(base_dir / value) if name in _FILES and value != "system" else value)
        for name, value in options
    ]
    query = "&".join(f"{name}={quote(value, safe='/:,[]')}" for name, value in rewritten)
    return given.partition("?")[0] + (f"?{query}" if query else "")


def secret(value: object, around: Surroundings) -> str:
    """A secret, which stands somewhere else than in the file."""
    if isinstance(value, dict):
        found = with_secrets(value, around)
        if isinstance(found, str):
            return found
    raise Wrong('expected { env = "NAME" } or { file = "PATH" }')
