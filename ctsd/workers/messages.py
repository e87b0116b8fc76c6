"""What the supervisor and a worker say to each other: lines of JSON through two pipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import frozen

from ctsd.config.document import Document, parsed

#: Where a worker hears its supervisor, and where it is heard.
HEARS = 0
SPEAKS = 3
#: The first of the descriptors that it is lent.
LENT_FROM = 4

#: A line without an end is given up when it is longer.
MAX_LINE_BYTES = 1 << 24


@frozen(kw_only=True)
class Brief:
    """
    The first line that a worker hears.

    :ivar number: which worker it is, from 1.
    :ivar node: what it is called in the store: as the process before it when that one has ended,
        but not as one that is still there.
    :ivar path: the configuration file that was named, if any.
    :ivar first: the configuration with which the supervisor started.
    :ivar current: the one that holds now.
    :ivar lent: the descriptors of its sockets, one for each listener of C{first}.
    """

    number: int
    node: str
    path: Path | None
    first: Document
    current: Document
    lent: tuple[int, ...]

    def encode(self) -> bytes:
        """As a line."""
        return line(
            number=self.number,
            node=self.node,
            path=None if self.path is None else str(self.path),
            first=_of_document(self.first),
            current=_of_document(self.current),
            lent=self.lent,
        )

    @classmethod
    def decode(cls, said: dict[str, Any]) -> Brief:
        """From what a line says."""
        return cls(
            number=said["number"],
            node=said["node"],
            path=None if said["path"] is None else Path(said["path"]),
            first=document(said["first"]),
            current=document(said["current"]),
            lent=tuple(said["lent"]),
        )


def reload(document: Document) -> bytes:
    """The line that has a worker go by another configuration."""
    return line(reload=_of_document(document))


def leave() -> bytes:
    """The line that has a worker end, because another one has its sockets."""
    return line(leave=True)


def hurry() -> bytes:
    """
    The line that has a worker end at once. No signal: a second SIGTERM, sent before the first one
    was seen, is lost.
    """
    return line(hurry=True)


def line(**said: Any) -> bytes:
    """What is said, as a line."""
    return json.dumps(said).encode("ascii") + b"\n"


def document(said: dict[str, str]) -> Document:
    """
    A configuration that was sent.

    :raises ConfigError: it is no TOML.
    """
    return parsed(said["text"], name=said["name"], base_dir=Path(said["base_dir"]))


def _of_document(sent: Document) -> dict[str, str]:
    return {"name": sent.name, "base_dir": str(sent.base_dir), "text": sent.text}


class Lines:
    """Puts together what comes in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """
        The lines that this piece has ended.

        :raises ValueError: it is none of ours.
        """
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES} bytes")
        return [json.loads(one) for one in whole]
