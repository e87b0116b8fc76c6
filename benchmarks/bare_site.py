"""The yardstick: twisted.web's Site with a constant answer, no access log, nothing else."""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site

ANSWER = (
    b'{"id":"019b0000000080000000000000000000","hits":[{"props":['
    b'{"type":"number","name":"id","value":1234567},'
    b'{"type":"string","name":"url","value":"http://www.some-host.example/a/path/login.php?x=1"},'
    b'{"type":"uri","name":"detail_url","value":"https://www.example.org/detail?id=1234567"},'
    b'{"type":"string","name":"submission_time","value":"2026-01-01T00:00:00+00:00"},'
    b'{"type":"string","name":"target","value":"Some Bank"}]}]}'
)


class Constant(Resource):
    """Says always the same, to all methods."""

    isLeaf = True

    def render(self, request: object) -> bytes:
        """Say it."""
        request.setHeader(b"content-type", b"application/json")  # type: ignore[attr-defined]
        return ANSWER


def main() -> None:
    """Listen on the port that is the first argument, until killed."""
    site = Site(Constant(), parsePOSTFormSubmission=False)
    site.log = lambda request: None  # type: ignore[method-assign]
    reactor.listenTCP(int(sys.argv[1]), site, interface="127.0.0.1", backlog=1024)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
