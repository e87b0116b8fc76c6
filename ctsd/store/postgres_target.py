"""Where a PostgreSQL is, and how to connect to it: from C{store.url} and C{store.password}."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from attrs import field, frozen
from twisted.internet.abstract import isIPAddress, isIPv6Address

#: What every connection is opened with, unless the URL says otherwise: a peer that is gone is
#: noticed within a minute, also while nothing is asked; Kerberos, which would block, is not tried.
DEFAULTS: Mapping[str, str] = {
    "application_name": "ctsd",
    "client_encoding": "UTF8",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "gssencmode": "disable",
}


_WITH_PORT = re.compile(r"(\[.*\]|.*?)(?::(\d+))?", re.DOTALL)


@frozen(kw_only=True)
class Target:
    """
    A database on a PostgreSQL server.

    :ivar hosts: names, addresses or directories of sockets, each with its port: one is as good as
        another (with C{target_session_attrs=read-write}: the one that may be written to).
    :ivar options: further connection parameters of libpq, without the password.
    :ivar password: empty when there is none.
    """

    hosts: tuple[tuple[str, str], ...]
    options: Mapping[str, str]
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str, password: str = "") -> Target:
        """
        From a URL that C{store.url} was checked to be.

        The host may be a list with commas; C{?host=/directory&port=5432} stands for a socket.
        """
        parts = urlsplit(url)
        options = {**DEFAULTS, **dict(parse_qsl(parts.query))}
        user, _, where = parts.netloc.rpartition("@")
        if user:
            options["user"] = unquote(user)
        options["dbname"] = unquote(parts.path.lstrip("/"))
        where = options.pop("host", "") or unquote(where)
        port = options.pop("port", "5432")
        hosts = tuple(_host_and_port(one, port) for one in where.split(","))
        return cls(hosts=hosts, options=options, password=password)

    @property
    def name(self) -> str:
        """For people: where it is."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"PostgreSQL at {hosts}, database {self.options['dbname']}"

    @property
    def is_remote(self) -> bool:
        """Whether a network may be between us and one of its hosts."""
        return not all(
            host.startswith(("/", "@", "127.")) or host in ("localhost", "::1")
            for host, _ in self.hosts
        )

    def parameters(self, host: str, port: str, address: str = "") -> dict[str, Any]:
        """
        What C{psycopg2.connect} is given.

        :param address: the host's, when it was looked up already.
        """
        given = {**self.options, "host": host, "port": port}
        if address.strip(","):
            given["hostaddr"] = address
        if self.password:
            given["password"] = self.password
        return given

    def looked_up(self, addresses: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """
        The same for all hosts at once, with all their addresses, which libpq tries in order.

        :param addresses: of each host that has to be looked up; those without one are left out.
        """
        each = [
            (host, port, address)
            for host, port in self.hosts
            for address in (_own_address(host) if is_local(host) else addresses.get(host, ()))
        ]
        return self.parameters(*(",".join(parts) for parts in zip(*each, strict=True)))

    def as_secret(self) -> str:
        """All of it as text, for a child process; see L{from_secret}."""
        return json.dumps([self.hosts, dict(self.options), self.password])

    @classmethod
    def from_secret(cls, text: str) -> Target:
        """The way back from L{as_secret}."""
        hosts, options, password = json.loads(text)
        return cls(hosts=tuple(map(tuple, hosts)), options=options, password=password)


def _host_and_port(text: str, otherwise: str) -> tuple[str, str]:
    host, port = _WITH_PORT.fullmatch(text).groups()  # type: ignore[union-attr]
    return host.strip("[]"), port or otherwise


def is_local(host: str) -> bool:
    """Whether there is nothing to look up: it is an address, or a socket's directory."""
    return host.startswith(("/", "@")) or isIPAddress(host) or isIPv6Address(host)


def _own_address(host: str) -> tuple[str]:
    return ("",) if host.startswith(("/", "@")) else (host,)
