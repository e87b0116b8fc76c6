"""
What a build of an index is asked for, and how it can go wrong: what both sides of the child
process know. L{ctsd.feeds.build} is the inside, L{ctsd.feeds.builds} the outside.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from attrs import field, frozen

from ctsd.feeds.index import About

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


#: The modules that decide what stands in an index, which are all that a build imports of ctsd:
#: when one of them has changed, it is built anew.
FORMS = (
    "artifacts.py",
    "errors.py",
    "indicator_forms.py",
    "records.py",
    "matching.py",
    "model.py",
    "normal_forms.py",
    "refanged.py",
    "shown.py",
    "stored.py",
    "syncing.py",
    "wire.py",
    "feeds/array_file.py",
    "feeds/build.py",
    "feeds/delta.py",
    "feeds/index.py",
    "feeds/inside.py",
    "feeds/job.py",
    "feeds/keys.py",
    "feeds/lookups.py",
    "feeds/networks.py",
    "feeds/section.py",
    "feeds/threat_keys.py",
    "feeds/writer.py",
)

#: Those that decide, beside these, what a description makes of a file.
READING_FORMS = (
    "config/checks.py",
    "config/document.py",
    "config/tables.py",
    "plausible.py",
    "properties.py",
    "feeds/kinds.py",
    "feeds/layout.py",
    "feeds/layout_rules.py",
    "feeds/parsers/columns.py",
    "feeds/parsers/documents.py",
    "feeds/parsers/fields.py",
    "feeds/parsers/fitting.py",
    "feeds/parsers/hits.py",
    "feeds/parsers/making.py",
    "feeds/parsers/moments.py",
    "feeds/parsers/observed.py",
    "feeds/parsers/parse.py",
    "feeds/parsers/pieces.py",
    "feeds/parsers/rows.py",
    "feeds/parsers/showing.py",
    "feeds/parsers/tables.py",
    "feeds/parsers/tally.py",
    "feeds/parsers/unpacking.py",
    "feeds/paths.py",
    "feeds/reading.py",
    "feeds/usual.py",
    "feeds/warninglists.py",
)


class Refused(Exception):
    """The source is not fit to be served; the message says why. Another try changes nothing."""


class BuildFailed(Exception):
    """The build did not come to an end; the message says why. Another try may."""


class BuiltElsewhere(BuildFailed):
    """Another process has put another index there meanwhile: it may be what was wanted."""


@frozen(kw_only=True)
class Job:
    """
    One index to build.

    :ivar target: where the index shall be; what is there stays until the new one is whole.
    :ivar source: the file of indicators, or the local database's file.
    :ivar parse: the parse function, as L{reference} makes it; empty for the local database.
    :ivar reading: of a file that a description fits, instead: a L{ctsd.feeds.reading.Reading}
        as JSON.
    :ivar reader: for the local database: the module with C{read_threats} and C{read_version}.
    :ivar access: what these take instead of C{source}, when the local database is no file.
    :ivar label: what the index's C{about.source} begins with; see L{source_of}.
    :ivar least: fewer records than these are refused.
    :ivar max_bytes: a larger source is refused.
    :ivar seen: what whoever asks knows of the target (L{look_of}): when something else is there by
        the time that the build could begin, there is none. None: it is built in any case.
    """

    target: Path
    source: Path
    parse: str = ""
    reading: str = ""
    reader: str = ""
    access: str = field(default="", repr=False)
    label: str = ""
    least: int = 0
    max_bytes: int = 1 << 40
    seen: str | None = None


class Build(Protocol):
    """Builds an index, somewhere else."""

    def __call__(self, job: Job) -> Deferred[About]:
        """
        Fires when the index is in its place. Cancelling it ends the build.

        :raises Refused: (in the Deferred, as all) see there.
        :raises BuildFailed: see there.
        :raises BuiltElsewhere: see there.
        """


def reference(parse: Callable[..., Any]) -> str:
    """
    How a child process finds a parse function: C{<module's file>:<function>}.

    :raises ValueError: it is not a function of a module that is a file.
    """
    code = getattr(parse, "__code__", None)
    name = getattr(parse, "__qualname__", "")
    if code is None or not name.isidentifier():
        raise ValueError("a parse function has to be defined at its module's top level")
    return f"{os.path.abspath(code.co_filename)}:{name}"


def label_of(*, parse: str = "", reading: str = "", reader: str = "") -> str:
    """
    A digest of the code that decides what an index holds: normal forms, the format, and how the
    source is read.

    :param parse: of an index of a file: its parse function, as L{reference} makes it.
    :param reading: of one that a description fits: L{Job.reading}.
    :param reader: of an index of the local database: the module that reads it; what lies beside
        that module counts, too.
    """
    digest = hashlib.blake2b(digest_size=16)
    home = Path(__file__).parent.parent
    files = [home / name for name in FORMS]
    if parse:
        files.append(Path(parse.rpartition(":")[0]))
    if reading:
        digest.update(reading.encode())
        files += [home / name for name in READING_FORMS]
    if reader:
        spec = importlib.util.find_spec(reader)
        if spec is not None and spec.origin is not None:
            files += sorted(Path(spec.origin).parent.glob("*.py"))
    for file in files:
        digest.update(file.read_bytes() if file.exists() else b"")
        digest.update(b"\0")
    return digest.hexdigest()


def source_of(label: str, stat: os.stat_result) -> str:
    """The C{about.source} of an index that was built from a file of this stat."""
    return f"{label} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"


def look_of(target: Path) -> str:
    """What is at a place, as far as its outside tells; empty when there is nothing."""
    try:
        found = os.stat(target)
    except OSError:
        return ""
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"


def lock_builds(directory: Path) -> int | None:
    """
    Be the only one, of all processes, who builds indexes in a directory.

    :return: a descriptor, to be closed at the end; None while somebody else does.
    :raises OSError: there is no such directory.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
