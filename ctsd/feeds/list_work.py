"""
Makes an index of files of warninglists, in a process of its own (L{ctsd.feeds.inside}).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from attrs import asdict, frozen

from ctsd.feeds.feed_file import FeedAbout
from ctsd.feeds.inside import answer
from ctsd.feeds.key_store import key_label, merge_feeds, write_feed
from ctsd.feeds.warninglists import Warninglist, is_indexed, read_warninglist, records_of

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

    :param given: C{directory} of the index; C{files}, their paths by the names that their lists
        shall have in it; C{max_bytes} of one; C{made_of}, see L{Aside}.
    :return: how many C{lists} and C{records} there are, and how many files have C{failed}.
    :raises OSError: the index can't be written.
    """
    directory = Path(given["directory"])
    names: list[str] = []
    patterns: list[Warninglist] = []
    failed: dict[str, str] = {}
    records = 0
    for name, path in given["files"].items():
        try:
            listed = read_warninglist(_read(Path(path), given["max_bytes"]))
        except (OSError, ValueError) as error:
            failed[path] = error.strerror or "" if isinstance(error, OSError) else str(error)
            continue
        if not is_indexed(listed):
            patterns.append(listed)
            continue
        about = FeedAbout(name=name, label=key_label())
        records += write_feed(directory, about, records_of(listed)).records
        names.append(name)
    merge_feeds(directory, names)
    write_aside(directory, Aside(made_of=given["made_of"], lists=tuple(patterns), failed=failed))
    return {"lists": len(names) + len(patterns), "records": records, "failed": len(failed)}


def _read(path: Path, max_bytes: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"more than {max_bytes:,} bytes")
    return data


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
