"""
The entries of C{listen}: Twisted endpoint strings, with absolute paths, checked without listening.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from pathlib import Path

from attrs import frozen
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import Clock

from ctsd.config.checks import Surroundings, Wrong, text
from ctsd.config.endpoint_strings import BadEndpoint, Part, joined, layers, reloading, split

_PATHS = {
    "auth": {"users"},
    "tls-wrap": {"privateKey", "certKey", "extraCertChain", "dhParameters"},
    "ssl": {"privateKey", "certKey", "extraCertChain", "dhParameters"},
    "tls": {"path"},
    "unix": {"address"},
}

#: What several processes can listen on together.
SHARED_KINDS = ("tcp", "tcp6", "ssl", "unix", "systemd")

# What Twisted's own parsers take for a number, however large.
_WITH_PORT = {"tcp", "tcp6", "ssl"}
_MAX_PORT = 65535

_CALL = re.compile(r"\w+\(\) ")
_NO_NUMBER = re.compile(r"invalid literal for int\(\) with base \d+: ")

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
    :ivar passwords: password files.
    """

    description: str
    kind: str
    wrappers: tuple[str, ...] = ()
    local: bool = False
    certificates: tuple[Path, ...] = ()
    passwords: tuple[Path, ...] = ()

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
        # Twisted's own parser tells more of what is wrong with ssl: than what we make of it.
        serverFromString(Clock(), description)
        reloading(description)
    except BadEndpoint as error:
        raise Wrong(str(error)) from None
    except Exception as error:
        reason = str(error).partition("\n")[0]
        if "unknown endpoint type" in reason.lower():
            raise Wrong(
                "expected a Twisted endpoint string such as tcp:8000:interface=127.0.0.1:"
                f" unknown endpoint type {reason.partition(': ')[2]}"
            ) from None
        # In words for people: what int() can't read, and a call that does not fit.
        reason = _CALL.sub("", _NO_NUMBER.sub("no whole number: ", reason))
        raise Wrong(f"expected a Twisted endpoint string of type {kind}: {reason}") from None


def listener(value: object, around: Surroundings) -> Listener:
    """
    An entry of C{listen}, without opening anything.

    :raises Wrong: it is no endpoint string, or a key or certificate is missing.
    """
    parts = split(text(value, around))
    try:
        found = layers(parts)
    except BadEndpoint as error:
        raise Wrong(str(error)) from None
    certificates: list[Path] = []
    passwords: list[Path] = []
    for layer in found:
        arguments: dict[str, str] = {}
        paths = _PATHS.get(layer.kind, set())
        for name, at in layer.arguments.items():
            given = parts[at]
            if name in paths:
                parts[at] = Part(given.name, os.fspath(around.base_dir / given.value))
            arguments[name] = parts[at].value
        _check_files(arguments, paths)
        if layer.kind == "ssl" and "privateKey" not in arguments:
            raise Wrong("expected privateKey= (and certKey=, when it is another file)")
        if layer.kind in {"ssl", "tls-wrap"}:
            certificates += _check_pair(arguments)
        if layer.kind == "auth":
            passwords.append(Path(arguments["users"]))
    kind = found[-1].kind
    checked = parts
    if kind == "systemd":
        # Its sockets are there only when systemd started us, so look at its form alone.
        if set(arguments) not in ({"domain", "index"}, {"domain", "name"}):
            raise Wrong("expected systemd:domain=INET: and then index=0 or name=...")
        checked = [*parts[: found[-1].at], Part("", "tcp"), Part("", "0")]
    _check_parses(joined(checked), kind or "tcp")
    if kind in _WITH_PORT and not 0 <= int(arguments["port"]) <= _MAX_PORT:
        raise Wrong(f"expected a port from 0 to {_MAX_PORT}")
    return Listener(
        description=joined(parts),
        kind=kind,
        wrappers=tuple(layer.kind for layer in found[:-1]),
        local=_is_local(kind, arguments),
        certificates=tuple(certificates),
        passwords=tuple(passwords),
    )
