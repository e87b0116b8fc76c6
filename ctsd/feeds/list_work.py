"""
Makes an index of files of warninglists, in a process of its own (L{ctsd.feeds.inside}).
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import asdict, define, field, frozen

from ctsd.feeds.feed_file import FeedAbout
from ctsd.feeds.inside import answer
from ctsd.feeds.key_store import key_label, merge_feeds, write_feed
from ctsd.feeds.warninglists import Warninglist, is_indexed, read_warninglist, records_of
from ctsd.records import Record

#: What the index calls all of them together.
FEED: Final = "warninglists"

#: What stands beside the index: the lists that can't be in it, and what it was made of.
ASIDE: Final = "patterns.json"


@frozen(kw_only=True)
class Aside:
    """
    What stands beside the index.

    :ivar made_of: all files and the code that has read them, in one text.
    :ivar lists: those of substrings and regular expressions.
    :ivar failed: by a file's path, why it is no list.
    """

    made_of: str = ""
    lists: tuple[Warninglist, ...] = ()
    failed: Mapping[str, str] = {}


def work(given: dict[str, Any]) -> dict[str, Any]:
    """
    Make the index of some files. One that is no list is left out.

    :param given: C{directory} of the index; C{files}, their paths; C{max_bytes} of one;
        C{made_of}, see L{Aside}.
    :return: how many C{lists} and C{records} there are, and how many files have C{failed}.
    :raises OSError: the index can't be written.
    """
    directory = Path(given["directory"])
    reading = _Reading(given["files"], given["max_bytes"])
    # Entries know their list, so all lists are one feed.
    about = FeedAbout(name=FEED, label=key_label())
    about = write_feed(directory, about, reading.records())
    merge_feeds(directory, [FEED])
    write_aside(
        directory,
        Aside(made_of=given["made_of"], lists=tuple(reading.patterns), failed=reading.failed),
    )
    return {"lists": reading.lists, "records": about.records, "failed": len(reading.failed)}


@define
class _Reading:
    """Reads files, one after the other."""

    files: Sequence[str]
    max_bytes: int
    lists: int = 0
    patterns: list[Warninglist] = field(factory=list)
    failed: dict[str, str] = field(factory=dict)

    def records(self) -> Iterator[Record | None]:
        """The entries that can be indexed; the other lists are C{patterns}."""
        for path in self.files:
            try:
                listed = read_list(Path(path), self.max_bytes)
            except ValueError as error:
                self.failed[path] = str(error)
                continue
            self.lists += 1
            if is_indexed(listed):
                yield from records_of(listed)
            else:
                self.patterns.append(listed)


def read_list(path: Path, max_bytes: int) -> Warninglist:
    """
    The list in a file.

    :param max_bytes: of the file.
    :raises ValueError: it is none, or can't be read; the message says why.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is no regular file")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ValueError(error.strerror or "it can't be read") from error
    if len(data) > max_bytes:
        raise ValueError(f"more than {max_bytes:,} bytes")
    return read_warninglist(data)


def write_aside(directory: Path, aside: Aside) -> None:
    """
    Put it in its place, at once whole.

    :raises OSError: it can't be written.
    """
    lists = [{**asdict(each), "types": sorted(each.types)} for each in aside.lists]
    data = json.dumps({"made_of": aside.made_of, "lists": lists, "failed": dict(aside.failed)})
    fresh = directory / f".{ASIDE}.{os.getpid()}.building"
    with fresh.open("w", encoding="ascii") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(directory / ASIDE)


def read_aside(directory: Path) -> Aside:
    """What stands beside an index; nothing when it can't be read: it is then made anew."""
    try:
        given = json.loads((directory / ASIDE).read_bytes())
        lists = [
            Warninglist(each["name"], each["kind"], each["entries"], frozenset(each["types"]))
            for each in given["lists"]
        ]
        return Aside(made_of=given["made_of"], lists=tuple(lists), failed=given["failed"])
    except (OSError, ValueError, LookupError, TypeError):
        return Aside()


def main() -> int:
    """Do what the first line of standard input says."""
    return answer(work)


if __name__ == "__main__":
    sys.exit(main())
