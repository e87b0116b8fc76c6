"""
The directory in which the index of all feeds lies: how its files come and go.

A feed's newest records are in C{<name>.<when>.feed}, the keys of all feeds in C{combined}. To put
a feed's new records in, in a child process::

    write_feed(directory, FeedAbout(name="urlhaus", label=key_label(), source=...), records, fit)
    merge_feeds(directory, names_of_all_feeds_that_are_on)

and then, in the daemon, L{ctsd.feeds.indicators.Indicators.swap}. Both are durable when they
return, and a crash at any point leaves the last good C{combined} with the files that it names. No
two processes may do this at once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from ctsd.feeds.array_file import ArrayFile, BadIndex, scratch
from ctsd.feeds.combined import merge
from ctsd.feeds.feed_file import FeedAbout, FeedFile, FeedWriter
from ctsd.feeds.job import READING_FORMS
from ctsd.records import Line, Record
from ctsd.syncing import sync

#: The name of the file with the keys of all feeds.
COMBINED: Final = "combined"

#: The modules that decide what stands in a feed's file: when one of them has changed, what is
#: looked for may not be what is stored, and the file must be written anew.
KEY_FORMS: Final = (
    "artifacts.py",
    "errors.py",
    "indicator_forms.py",
    "matching.py",
    "model.py",
    "normal_forms.py",
    "records.py",
    "refanged.py",
    "shown.py",
    "stored.py",
    "syncing.py",
    "wire.py",
    "feeds/array_file.py",
    "feeds/feed_file.py",
    "feeds/keys.py",
    "feeds/parts.py",
    "feeds/section.py",
    "feeds/usual.py",
)


def key_label() -> str:
    """A digest of the code that decides how a feed's file is searched."""
    return _digest_of(KEY_FORMS)


def source_label() -> str:
    """
    A digest of all code that decides what stands in a feed's file, with what decides how a copy is
    read. Where that alone has changed, the file serves until it is written anew.
    """
    return _digest_of((*KEY_FORMS, *READING_FORMS))


def _digest_of(modules: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    home = Path(__file__).parent.parent
    for name in modules:
        digest.update((home / name).read_bytes())
        digest.update(b"\0")
    return digest.hexdigest()


def write_feed(
    directory: Path,
    about: FeedAbout,
    records: Iterable[Record | None] = (),
    fit: Callable[[FeedAbout], None] = lambda about: None,
    *,
    now: Callable[[], float] = time.time,
    substring: bool = False,
    parts: Iterable[Iterable[Line]] = (),
) -> FeedAbout:
    """
    Write the records of a feed. They are served after the next L{merge_feeds}.

    :param about: its C{records}, C{skipped} and C{built} are set here.
    :param records: None stands for one that is malformed.
    :param fit: is told what the file would say of itself, before it is written; whatever it
        raises (L{ctsd.feeds.job.Refused}) leaves all as it was.
    :param substring: whether records are found by what they contain, too.
    :param parts: further records, some at a time.
    :return: what the file says of itself.
    :raises OSError: it can't be written.
    """
    path = _fresh(directory, about.name)
    with FeedWriter(path, now=now, substring=substring) as writer:
        writer.add_all(records)
        writer.add_parts(parts)
        fit(writer.about(about))
        return writer.publish(about)


def take_feed(directory: Path, about: FeedAbout, made: Path) -> FeedAbout | None:
    """
    Take a feed's file that was written elsewhere, when it is what L{write_feed} would write now.
    One that is not is removed; one that is stays where it is, too: it is the same file, unless it
    lies on another disk. What was put in before, and not merged since, is taken, too.

    :param about: its C{name}, C{label} and C{source} are those that it has to have.
    :return: what the file says of itself; None when there is none to take.
    :raises OSError: it can't be read or written.
    """
    waiting = _unmerged(directory, about.name)
    if waiting:
        said = _about(waiting[-1])
        if said is not None and _what(said) == _what(about):
            return said
        # A disk that is too full to merge is not filled further, try by try.
        for older in waiting[:-1]:
            older.unlink(missing_ok=True)
    path = _fresh(directory, about.name)
    ours = scratch(path, os.getpid())
    try:
        if not _linked(made, ours):
            return None
        said = _about(ours)
        if said is None or _what(said) != _what(about):
            made.unlink(missing_ok=True)
            return None
        os.rename(ours, path)
    finally:
        ours.unlink(missing_ok=True)
    sync(directory)
    return said


def merge_feeds(directory: Path, names: Collection[str]) -> None:
    """
    Make the index of what was written, and remove what it does not need any more.

    :param names: the feeds that shall be in it; each with its newest file that is whole, if there
        is one.
    :raises OSError: a file can't be read or written.
    """
    target = directory / COMBINED
    known = _named(target)
    with ExitStack() as stack:
        opened: dict[str, FeedFile] = {}
        for name in sorted(set(names)):
            for path in sorted(_files_of(directory, name), key=_number, reverse=True):
                try:
                    file = FeedFile.open(path, whole=path.name not in known)
                    if known.get(path.name, file.file.identity) != file.file.identity:
                        file.close()
                        continue
                except BadIndex:
                    continue
                stack.callback(file.close)
                opened[path.name] = file
                break
        merge(target, opened)
    for path in directory.glob("*.feed"):
        if path.name not in opened:
            path.unlink(missing_ok=True)


def clear_directory(directory: Path) -> None:
    """
    At the start, when nobody builds: make the directory, and remove what killed builds have left.

    :raises OSError: that can't be done.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in directory.glob(".*.building"):
        path.unlink(missing_ok=True)


def _fresh(directory: Path, name: str) -> Path:
    """Where a feed's next file shall be; its directory is made."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    newest = max((_number(path) for path in _files_of(directory, name)), default=0)
    number = max(time.time_ns(), newest + 1)
    return directory / f"{name}.{number:020d}.feed"


def _linked(source: Path, target: Path) -> bool:
    """Have a file at another place, too; false when there is none."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        return False
    except OSError:
        # On another disk, or somebody else's.
        try:
            shutil.copyfile(source, target)
        except FileNotFoundError:
            return False
        sync(target)
    return True


def _about(path: Path) -> FeedAbout | None:
    """What a file says of itself; None when it is damaged."""
    try:
        file = FeedFile.open(path)
    except BadIndex:
        return None
    file.close()
    return file.about


def _what(about: FeedAbout) -> tuple[str, str, str]:
    return (about.name, about.label, about.source)


def _files_of(directory: Path, name: str) -> list[Path]:
    return [path for path in directory.glob("*.feed") if path.name.split(".")[0] == name]


def _unmerged(directory: Path, name: str) -> list[Path]:
    """A feed's files that the index does not have, the oldest first."""
    known = _named(directory / COMBINED)
    return sorted(
        (path for path in _files_of(directory, name) if path.name not in known), key=_number
    )


def _number(path: Path) -> int:
    number = path.name.split(".")[1]
    return int(number) if number.isdecimal() else 0


def _named(target: Path) -> dict[str, str]:
    """The files that an index was merged from, by name: which they are."""
    try:
        combined = ArrayFile.open(target, whole=False)
    except (OSError, BadIndex):
        return {}
    try:
        return {named["file"]: named["identity"] for named in combined.about["feeds"]}
    except (LookupError, TypeError):
        return {}
    finally:
        combined.close()
