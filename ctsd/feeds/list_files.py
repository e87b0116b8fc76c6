"""
Files of warninglists that somebody else keeps current, such as a clone of
U{https://github.com/MISP/misp-warninglists}.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.feeds.array_file import BadIndex
from ctsd.feeds.children import Children
from ctsd.feeds.indicators import Indicators
from ctsd.feeds.job import BuildFailed, Refused, lock_builds, look_of
from ctsd.feeds.key_store import clear_directory, key_label
from ctsd.feeds.list_work import ASIDE, Aside, read_aside, read_list
from ctsd.feeds.small_lists import built_in
from ctsd.feeds.warninglists import Patterns, SmallLists, Warninglists, every_domain
from ctsd.interfaces.threads import InThread

#: In a directory of lists, and in its directories, each list has this name.
LIST_NAME: Final = "list.json"

#: The largest list, and how many lists there may be, where nobody says otherwise.
MAX_BYTES: Final = 64 << 20
MAX_FILES: Final = 1000

#: So many files that are no lists are told one by one.
MAX_TOLD: Final = 20

#: How long after an index could not be built it is tried again.
RETRY_SECS: Final = 600.0


class ListFiles(Service):
    """
    Looks at files of warninglists, has them indexed in a child process when one has changed, and
    serves them. Of all processes that share the directory, one builds at a time.

    :ivar lists: the built-in lists, and all that could be read of the files.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        paths: Sequence[Path],
        directory: Path,
        children: Children,
        clock: IReactorTime,
        in_thread: InThread,
        now: Callable[[], float],
        look_secs: float = 30.0,
        max_bytes: int = MAX_BYTES,
        max_files: int = MAX_FILES,
    ) -> None:
        """
        :param paths: lists, or directories with lists: C{list.json}, C{<name>/list.json}.
        :param directory: of the index.
        :param look_secs: how often the files are looked at.
        :param max_bytes: a larger file is no list.
        :param max_files: further ones are left out, loudly.
        """
        self._paths = tuple(paths)
        self._directory = directory
        self._children = children
        self._in_thread = in_thread
        self._look_secs = look_secs
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._small = SmallLists(built_in())
        self._indicators = Indicators(
            directory=directory,
            in_thread=in_thread,
            now=now,
            label=key_label(),
            registered=every_domain,
        )
        self.lists = Warninglists(small=self._small, patterns=Patterns(()))
        self._served = ""
        self._clock = clock
        self._not_before = -math.inf
        self._left_out: list[str] = []
        self._troubles: tuple[str, ...] = ()
        self._loop = LoopingCall(self._turn)
        self._loop.clock = clock
        self._looking: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        if self._paths:
            self._loop.start(self._look_secs).addErrback(self._fault)

    def stopService(self) -> Deferred[None]:
        """End a build that is running, and unmap the index."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._loop.running:
            self._loop.stop()
        if self._looking is not None:
            looking = self._looking
            looking.cancel()
            await looking
        await self._indicators.close()

    def trouble(self) -> str:
        """What is wrong with the files, for operators; empty when nothing is."""
        return "; ".join(self._troubles)

    def _turn(self) -> Deferred[None]:
        self._looking = Deferred.fromCoroutine(self._look()).addErrback(self._fault)
        return self._looking

    def _fault(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("A fault while looking after the warninglists", failure)

    async def _look(self) -> None:
        try:
            await self._in_thread(self._directory.mkdir, mode=0o700, parents=True, exist_ok=True)
            files, made_of = await self._in_thread(self._files)
            aside = await self._serve()
            if aside.made_of != made_of:
                if not await self._made(files, made_of):
                    return
                aside = await self._serve()
        except OSError as error:
            self._tell(f"the warninglists can't be read: {error}")
            return
        self._tell(*self._left_out, *told_of(aside.failed))

    async def _made(self, files: list[str], made_of: str) -> bool:
        """Whether the index was made anew, which another process may be at, or not be possible."""
        if self._clock.seconds() < self._not_before:
            return False
        turn = await self._in_thread(lock_builds, self._directory)
        if turn is None:
            return False
        try:
            await self._in_thread(clear_directory, self._directory)
            return await self._build(files, made_of)
        finally:
            os.close(turn)

    def _files(self) -> tuple[list[str], str]:
        """The paths of all lists, and all that they are, in one text."""
        found = list(map(str, _all_files(self._paths)))
        beyond = len(found) - self._max_files
        self._left_out = [_too_many(beyond, self._max_files)] if beyond > 0 else []
        found = found[: self._max_files]
        digest = hashlib.blake2b(key_label().encode(), digest_size=16)
        for path in found:
            look = look_of(Path(path))
            digest.update(f"{path}\0{look}\0".encode("utf-8", "surrogateescape"))
        return found, digest.hexdigest()

    async def _serve(self) -> Aside:
        """Serve what has been built since, here or by another process; nothing if it can't be."""
        look = await self._in_thread(look_of, self._directory / ASIDE)
        aside = await self._in_thread(read_aside, self._directory)
        if look and look != self._served and aside.made_of:
            try:
                await self._indicators.swap()
            except (BadIndex, OSError) as error:
                self._log.error("The index of warninglists is made anew: {error}", error=error)
                return Aside()
            self._served = look
            patterns = Patterns(aside.lists)
            self.lists = Warninglists(small=self._small, patterns=patterns, index=self._indicators)
        return aside

    async def _build(self, files: list[str], made_of: str) -> bool:
        given = {
            "directory": str(self._directory),
            "files": files,
            "max_bytes": self._max_bytes,
            "made_of": made_of,
        }
        try:
            built = await self._children.run("ctsd.feeds.list_work", given)
        except (Refused, BuildFailed) as error:
            self._not_before = self._clock.seconds() + RETRY_SECS
            self._tell(f"the warninglists could not be indexed: {error}")
            return False
        self._log.info(
            "Warninglists: {lists} lists, {records} entries, {failed} files that are none", **built
        )
        return True

    def _tell(self, *troubles: str) -> None:
        """Note all that is wrong, and say so once."""
        for trouble in troubles:
            if trouble not in self._troubles:
                self._log.error("{trouble}", trouble=trouble)
        self._troubles = troubles


def _too_many(beyond: int, max_files: int) -> str:
    return f"{beyond:,} warninglists beyond max_lists = {max_files:,} are left out"


def told_of(failed: Mapping[str, str]) -> list[str]:
    """
    What to say of files that are no lists, each by itself; of very many, how many more there are.

    :param failed: by a file's path, why it is none.
    """
    told = [f"{path} is no warninglist: {why}" for path, why in failed.items()]
    more = len(told) - MAX_TOLD
    return [*told[:MAX_TOLD], f"and {more:,} more are no warninglists"] if more > 0 else told


def broken_lists(path: Path, *, max_bytes: int, max_files: int) -> list[str]:
    """
    What is wrong with a list, or a directory of lists, as L{told_of} says it; nothing when all
    can be read. Blocks, and reads all of it.
    """
    found = _all_files([path])
    if not found:
        return [f"{path} has no warninglist in it: expected {LIST_NAME}, or <name>/{LIST_NAME}"]
    failed: dict[str, str] = {}
    for each in found[:max_files]:
        try:
            read_list(each, max_bytes)
        except ValueError as error:
            failed[str(each)] = str(error)
    beyond = len(found) - max_files
    return [*([_too_many(beyond, max_files)] if beyond > 0 else []), *told_of(failed)]


def _all_files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted([*path.glob(LIST_NAME), *path.glob(f"*/{LIST_NAME}")])
        else:
            found.append(path)
    return found
