"""An HTTP proxy on loopback: C{CONNECT} alone, to wherever the test says."""

from __future__ import annotations

import select
import socket
import socketserver
import threading

from tests.live.provider import LONGEST_SECS, Asked, read_request


class Proxy(socketserver.ThreadingTCPServer):
    """
    Opens tunnels for whoever shows the right credentials.

    :ivar places: where a name and port really are.
    :ivar asked: what came, with C{host:port} as the path.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, authorization: str) -> None:
        self.authorization = authorization
        self.places: dict[str, tuple[str, int]] = {}
        self.asked: list[Asked] = []
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.server_address[1]
        return port

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients go away."""

    def end(self) -> None:
        """Stop."""
        self.shutdown()
        self.server_close()
        self._thread.join(10)


class _Tunnel(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        """One tunnel."""
        client: socket.socket = self.request
        client.settimeout(LONGEST_SECS)
        asked = read_request(client)
        self.server.asked.append(asked)
        if asked.headers.get("proxy-authorization") != self.server.authorization:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        if asked.path not in self.server.places:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        with socket.create_connection(self.server.places[asked.path], LONGEST_SECS) as there:
            client.sendall(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
            ways = {client: there, there: client}
            while ready := select.select(list(ways), [], [], LONGEST_SECS)[0]:
                for one in ready:
                    data = one.recv(65536)
                    if not data:
                        return
                    ways[one].sendall(data)
