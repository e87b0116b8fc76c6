"""
The entries of C{listen}: Twisted endpoint strings, with absolute paths, checked without listening.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from pathlib import Path

from attrs import field, frozen
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import Clock

from ctsd._config_checks import Surroundings, Wrong, text

# Prefixes that stand before another endpoint, with the names of their own arguments.
_WRAPPERS: dict[str, tuple[str, ...]] = {
    "auth": ("users",),
    "haproxy": (),
    "tls-wrap": ("privateKey", "certKey"),
}

# The names of positional arguments, as Twisted's parsers have them (twisted.internet.endpoints).
_POSITIONS: dict[str, tuple[str, ...]] = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "ssl": (
        "port",
        "privateKey",
        "certKey",
        "sslmethod",
        "interface",
        "backlog",
        "extraCertChain",
        "dhParameters",
    ),
    "tls": ("path", "port", "backlog", "interface"),
    "unix": ("address", "mode", "backlog", "lockfile"),
    "systemd": ("domain", "index", "name"),
}

_PATHS = {
    "auth": {"users"},
    "tls-wrap": {"privateKey", "certKey"},
    "ssl": {"privateKey", "certKey", "extraCertChain", "dhParameters"},
    "tls": {"path"},
    "unix": {"address"},
}

# Files and directories without which a listener can't start.
_REQUIRED = {"privateKey", "certKey", "extraCertChain", "dhParameters", "path"}


@frozen(kw_only=True)
class Listener:
    """
    One entry of C{listen}.

    :ivar description: the endpoint string with absolute paths, for C{serverFromString}.
    :ivar kind: C{tcp}, C{tcp6}, C{ssl}, C{tls}, C{unix}, C{systemd}, or a plugin's prefix.
    :ivar wrappers: the prefixes before it, outermost first: C{auth}, C{haproxy}, C{tls-wrap}.
    :ivar local: only this machine can reach it: a loopback interface, or a Unix socket.
    :ivar certificates: certificate files.
    """

    description: str
    kind: str
    wrappers: tuple[str, ...] = ()
    local: bool = False
    certificates: tuple[Path, ...] = field(default=())

    @property
    def tls(self) -> bool:
        """Whether it speaks TLS."""
        return self.kind in {"ssl", "tls"} or "tls-wrap" in self.wrappers

    @property
    def auth(self) -> bool:
        """Whether it asks for a user and a password."""
        return "auth" in self.wrappers

    @property
    def for_people(self) -> bool:
        """
        Whether whoever comes with a browser is on this machine, or known by name. A browser
        reaches a Unix socket through a proxy alone, and a proxy's clients may be anywhere.
        """
        behind_proxy = self.kind in {"unix", "systemd"} or "haproxy" in self.wrappers
        return self.auth or (self.local and not behind_proxy)


@frozen
class _Argument:
    """One colon-separated part; C{name} is empty for a positional one."""

    name: str
    value: str


def _split(description: str) -> list[_Argument]:
    """The parts of an endpoint string, unescaped; the grammar of C{serverFromString}."""
    parts: list[_Argument] = []
    name, current = "", ""
    named = False
    characters = iter(description)
    for character in characters:
        if character == "\\":
            current += next(characters, "")
        elif character == ":":
            parts.append(_Argument(name, current))
            name, current, named = "", "", False
        elif character == "=" and not named:
            name, current, named = current, "", True
        else:
            current += character
    return [*parts, _Argument(name, current)]


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace(":", "\\:").replace("=", "\\=")


def _joined(parts: list[_Argument]) -> str:
    return ":".join(
        (f"{_quoted(part.name)}=" if part.name else "") + _quoted(part.value) for part in parts
    )


def _is_local(kind: str, arguments: dict[str, str]) -> bool:
    if kind == "systemd":
        return arguments.get("domain") == "UNIX"
    interface = arguments.get("interface", "")
    try:
        return ipaddress.ip_address(interface).is_loopback
    except ValueError:
        return kind == "unix" or interface == "localhost"


def _check_files(arguments: dict[str, str], paths: set[str]) -> None:
    for name in sorted(_REQUIRED & paths & arguments.keys()):
        at = Path(arguments[name])
        try:
            if not at.is_dir():
                at.open("rb").close()
        except OSError as error:
            raise Wrong(f"expected {name} to be a file: {at}: {error.strerror}") from None


def _check_pair(arguments: dict[str, str]) -> tuple[Path, ...]:
    key = arguments.get("privateKey", "")
    certificate = arguments.get("certKey", key)
    try:
        # An empty password, so that a key which needs one is an error and no prompt.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", "") or "not a PEM file"
        raise Wrong(
            f"expected {certificate} and {key} to be a certificate and its key: {reason}"
        ) from None
    return (Path(certificate),)


def _check_parses(description: str, kind: str) -> None:
    try:
        serverFromString(Clock(), description)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        if "unknown endpoint type" in reason.lower():
            raise Wrong(f"unknown endpoint type {reason.partition(': ')[2]}") from None
        reason = reason.rpartition("() ")[2]
        raise Wrong(f"expected a Twisted endpoint string of type {kind}: {reason}") from None


def listener(value: object, around: Surroundings) -> Listener:
    """
    An entry of C{listen}, without opening anything.

    :raises Wrong: it is no endpoint string, or a key or certificate is missing.
    """
    parts = _split(text(value, around))
    wrappers: list[str] = []
    certificates: list[Path] = []
    at = 0
    while True:
        kind = parts[at].value if at < len(parts) and not parts[at].name else ""
        names = _WRAPPERS.get(kind, _POSITIONS.get(kind, ()))
        paths = _PATHS.get(kind, set())
        arguments: dict[str, str] = {}
        own = parts[at + 1 : at + 1 + len(names)] if kind in _WRAPPERS else parts[at + 1 :]
        position = 0
        for offset, part in enumerate(own, at + 1):
            name = part.name
            if not name:
                name = names[position] if position < len(names) else str(position)
                position += 1
            absolute = part.value
            if name in paths:
                absolute = os.fspath(around.base_dir / part.value)
                parts[offset] = _Argument(part.name, absolute)
            arguments[name] = absolute
        _check_files(arguments, paths)
        if kind == "ssl" and "privateKey" not in arguments:
            raise Wrong("expected privateKey= (and certKey=, when it is another file)")
        if kind in {"ssl", "tls-wrap"}:
            certificates += _check_pair(arguments)
        if kind not in _WRAPPERS:
            break
        wrappers.append(kind)
        at += 1 + len(names)
    checked = parts
    if kind == "systemd":
        # Its sockets are there only when systemd started us, so look at its form alone.
        if set(arguments) not in ({"domain", "index"}, {"domain", "name"}):
            raise Wrong("expected systemd:domain=INET: and then index=0 or name=...")
        checked = [*parts[:at], _Argument("", "tcp"), _Argument("", "0")]
    _check_parses(_joined(checked), kind or "tcp")
    return Listener(
        description=_joined(parts),
        kind=kind,
        wrappers=tuple(wrappers),
        local=_is_local(kind, arguments),
        certificates=tuple(certificates),
    )
