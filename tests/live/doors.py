"""A real daemon with doors: further listeners, and clients for them."""

from __future__ import annotations

import base64
import http.client
import json
import signal
import socket
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.certificates import Pair
from tests.live.daemon import BIN, PATIENCE_SECS, Answer, Daemon, free_port

IP = {"type": "net.ip", "value": "192.0.2.1"}


def basic(user: str, password: str) -> dict[str, str]:
    """The header of a credential."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def trusting(*pairs: Pair) -> ssl.SSLContext:
    """A client's side of TLS, which trusts these certificates."""
    return ssl.create_default_context(cadata="".join(pair.pem.decode() for pair in pairs))


class DoorDaemon(Daemon):
    """
    A daemon that also listens elsewhere.

    :ivar ports: the port of each door.
    """

    def __init__(self, directory: Path, doors: Mapping[str, str], config: str = "") -> None:
        """
        :param doors: endpoint strings by name, with C{{port}} in the place of a port.
        """
        super().__init__(directory, config)
        self.ports = {name: free_port() for name in doors}
        listen = [f"tcp:{self.port}:interface=127.0.0.1"]
        listen += [doors[name].format(port=port) for name, port in self.ports.items()]
        self.config.write_text(f"listen = {json.dumps(listen)}\n" + config)

    def passwd(self, *arguments: str, password: str = "") -> None:
        """Run C{ctsd passwd} on the file C{users}."""
        subprocess.run(
            [str(BIN / "ctsd"), "passwd", "users", *arguments],
            input=f"{password}\n{password}\n",
            cwd=self.directory,
            check=True,
            text=True,
            timeout=PATIENCE_SECS,
        )

    def hang_up(self) -> None:
        """SIGHUP."""
        self.signal(signal.SIGHUP)

    def connect(self, door: str, context: ssl.SSLContext | None = None) -> Any:
        """A connection to a door, for several requests."""
        port = self.ports[door]
        if context is None:
            return http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECS)
        return http.client.HTTPSConnection(
            "localhost", port, timeout=PATIENCE_SECS, context=context
        )

    def knock(
        self,
        door: str,
        headers: Mapping[str, str] | None = None,
        *,
        path: str = "/",
        context: ssl.SSLContext | None = None,
    ) -> Answer:
        """Post an artifact through a door."""
        connection = self.connect(door, context)
        try:
            connection.request("POST", path, json.dumps(IP).encode(), dict(headers or {}))
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def write_all_first(
        self, door: str, head: bytes, body: bytes, context: ssl.SSLContext | None = None
    ) -> bytes:
        """What a client gets that sends everything before it reads anything."""
        raw = socket.create_connection(("localhost", self.ports[door]), PATIENCE_SECS)
        with context.wrap_socket(raw, server_hostname="localhost") if context else raw as sock:
            sock.sendall(head)
            for at in range(0, len(body), 1 << 20):
                sock.sendall(body[at : at + (1 << 20)])
            got = b""
            while piece := sock.recv(65536):
                got += piece
                if b"\r\n\r\n" in got:
                    break
            return got
