"""
The index of all feeds: which of their records an artifact finds, in microseconds, whatever the
number of feeds and rows.

A lookup is settled among the hashes and networks of all feeds together
(L{ctsd.feeds.combined}), in mapped memory; only what is found there reads records, from the
feeds' own files. A hash may stand for several keys, so a record that was found by one is asked
whether it has that key.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

from attrs import evolve

from ctsd.feeds.array_file import ArrayFile, BadIndex
from ctsd.feeds.feed_file import FeedAbout, FeedFile
from ctsd.feeds.first_look import MAX_CHARS, FirstLook, Look
from ctsd.feeds.key_store import COMBINED
from ctsd.feeds.lookups import (
    NO_HASH,
    Lookup,
    hashed,
    hashed_value,
    inside_of,
    looks_inside,
    may_show,
)
from ctsd.feeds.networks import Table
from ctsd.feeds.parts import part_patterns
from ctsd.feeds.tallies import Asked, Run, Tally, by_feed, confirmed, take_parts
from ctsd.indicator_forms import Network
from ctsd.model import JSON, Artifact
from ctsd.records import Derived, FeedMatches, Indexed

_NO_FEEDS: Final[Container[str]] = frozenset()


class KeyIndex:
    """
    An open index. Searches are synchronous and in the reactor: after L{close} there are none.

    :ivar feeds: what the feeds in it say of themselves, by their names.
    """

    def __init__(
        self,
        combined: ArrayFile,
        files: Sequence[FeedFile],
        *,
        now: Callable[[], float],
        registered: Callable[[str], str | None],
        is_shared_host: Callable[[str], bool],
        label: str,
        scan_limit: int,
    ) -> None:
        arrays = combined.arrays
        self._combined = combined
        self._files = tuple(files)
        self._now = now
        self._registered = registered
        self._is_shared_host = is_shared_host
        self._scan_limit = scan_limit
        self._shift = int(combined.about["shift"])
        self._buckets = arrays["buckets"]
        self._hashes = arrays["hashes"]
        self._hash_feeds = arrays["hash_feeds"]
        self._hash_rows = arrays["hash_rows"]
        self._tables = {version: Table.of(version, arrays) for version in (4, 6)}
        first_look = FirstLook(
            arrays["keys"],
            int(combined.about["keys"]),
            arrays["domains"],
            int(combined.about["domains"]),
            arrays["blocks"],
            int(combined.about["blocks"]),
            self._has_hash,
            self._has_near,
        )
        # Of each type that something can be a part of: the longest value.
        self._longest: dict[str, int] = {}
        for file in files:
            for type, parts in file.parts.items():
                self._longest[type] = max(self._longest.get(type, 0), parts.longest)
        self._looks: Mapping[str, Look] = {
            type: look for type, look in first_look.looks() if type not in self._longest
        }
        self._outdated = frozenset(
            number for number, file in enumerate(files) if file.about.label != label
        )
        self.feeds: Mapping[str, FeedAbout] = MappingProxyType(
            {file.about.name: file.about for file in files if file.about.label == label}
        )

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        now: Callable[[], float],
        registered: Callable[[str], str | None],
        is_shared_host: Callable[[str], bool] = lambda host: False,
        label: str = "",
        old: KeyIndex | None = None,
        scan_limit: int = 200,
    ) -> KeyIndex:
        """
        Map the index that lies in a directory, after checking it. Call it in a thread: see
        L{ArrayFile.open}.

        :param now: POSIX seconds, which records' dates are compared with.
        :param registered: the domain above a host, or the host itself, that somebody has
            registered: the one below the public suffix; None when there is none.
        :param is_shared_host: whether a host is used by so many that one URL on it says nothing
            of the others.
        :param label: feeds that were written by code with another label are left out, for what is
            looked for may not be what is stored there.
        :param old: the index that is served now: files of feeds that have not changed go over to
            the new one. It serves on; then L{close} it with C{keep} the new one.
        :param scan_limit: so many of a feed's records are looked at to count those that no more
            are asked for, and so many that are not wanted until no more are looked at.
        :raises BadIndex: a file is damaged, not of this format, or not the one that was merged.
        :raises OSError: a file can't be read.
        """
        combined = ArrayFile.open(directory / COMBINED)
        kept = {} if old is None else {file.file.identity: file for file in old._files}
        fresh: list[FeedFile] = []
        try:
            files = []
            for named in combined.about["feeds"]:
                file = kept.get(named["identity"])
                if file is None:
                    file = FeedFile.open(directory / named["file"])
                    fresh.append(file)
                    if file.file.identity != named["identity"]:
                        raise BadIndex(f"{named['file']} is not the one that was merged")
                files.append(file)
            return cls(
                combined,
                files,
                now=now,
                registered=registered,
                is_shared_host=is_shared_host,
                label=label,
                scan_limit=scan_limit,
            )
        except BaseException as error:
            for file in fresh:
                file.close()
            combined.close()
            if isinstance(error, LookupError | TypeError | ValueError):
                raise BadIndex("its directory is wrong") from error
            raise

    def find(
        self,
        *,
        artifact: Artifact,
        derived: Iterable[Derived] = (),
        limit: int,
        wanted: Callable[[str, Indexed], bool] | None = None,
        hidden: Container[str] = _NO_FEEDS,
    ) -> tuple[FeedMatches, ...]:
        """See L{ctsd.interfaces.feeds.IIndicators.find}."""
        runs: list[Run] | None = None
        buckets, hashes, shift = self._buckets, self._hashes, self._shift
        for wanted_hash, lookup in hashed(artifact, derived):
            key = lookup[0]
            if isinstance(key, bytes):
                bucket = wanted_hash >> shift
                high = buckets[bucket + 1]
                at = bisect_left(hashes, wanted_hash, buckets[bucket], high)
                if at == high or hashes[at] != wanted_hash:
                    continue
                if not may_show(key, lookup[2], self._registered, self._is_shared_host):
                    continue
                end = bisect_right(hashes, wanted_hash, at, high)
                some = [Run(lookup, lookup[1], self._hash_feeds, self._hash_rows, at, end)]
            else:
                some = self._network_runs(key, lookup)
                if not some:
                    continue
            runs = some if runs is None else runs + some
        patterns: tuple[bytes, ...] = ()
        if artifact.type in self._longest:
            longest = self._longest[artifact.type]
            patterns = part_patterns(artifact.type, artifact.value, longest=longest)
        if runs is None and not patterns:
            return ()
        return self._matches(runs or [], artifact.type, patterns, limit, wanted, hidden)

    def has_nothing(self, *, type: str, value: JSON) -> bool:
        """See L{ctsd.interfaces.feeds.IIndicators.has_nothing}."""
        if not isinstance(value, str):
            return False
        look = self._looks.get(type)
        if look is not None and len(value) <= MAX_CHARS and look(value):
            return True
        return type not in self._longest and not any(
            self._has_hash(wanted)
            if wanted != NO_HASH
            else not isinstance(lookup[0], bytes) and self._has_near(lookup[0])
            for wanted, lookup in hashed_value(type, value)
        )

    def _has_hash(self, wanted: int) -> bool:
        bucket = wanted >> self._shift
        high = self._buckets[bucket + 1]
        at = bisect_left(self._hashes, wanted, self._buckets[bucket], high)
        return bool(at != high and self._hashes[at] == wanted)

    def _has_near(self, asked: Network) -> bool:
        """Whether a network finds another one: one that equals it, is around it, or in it."""
        table = self._tables[asked.version]
        if table.equal(asked) is not None or table.around(asked):
            return True
        return looks_inside(asked) and any(low < high for _, low, high in table.inside(asked))

    def _network_runs(self, asked: Network, lookup: Lookup) -> list[Run]:
        table = self._tables[asked.version]
        _, how, wider = lookup
        runs: list[Run] = []
        equal = table.equal(asked)
        if equal is not None:
            runs.append(self._run(lookup, how, asked.version, *equal))
        for low, high in table.around(asked):
            runs.append(self._run(lookup, wider, asked.version, True, low, high))
        if looks_inside(asked):
            inside = inside_of(how)
            for is_range, low, high in table.inside(asked):
                if low < high:
                    run = self._run(lookup, inside, asked.version, is_range, low, high)
                    runs.append(evolve(run, is_mixed=True))
        return runs

    def _run(
        self, lookup: Lookup, how: str, version: int, is_range: bool, low: int, high: int
    ) -> Run:
        kind = f"v{version}.{'range' if is_range else 'single'}"
        arrays = self._combined.arrays
        return Run(lookup, how, arrays[f"{kind}_feeds"], arrays[f"{kind}_rows"], low, high)

    def _matches(
        self,
        runs: list[Run],
        type: str,
        patterns: Sequence[bytes],
        limit: int,
        wanted: Callable[[str, Indexed], bool] | None,
        hidden: Container[str],
    ) -> tuple[FeedMatches, ...]:
        asked = Asked(limit, wanted, self._now(), self._scan_limit)
        tallies: dict[int, Tally] = {}

        def is_hidden(number: int) -> bool:
            return number in self._outdated or self._files[number].about.name in hidden

        # First what equals the artifact, then what contains it; the order is theirs otherwise.
        for is_derived in (False, True):
            for run in runs:
                for number, rows in by_feed(run) if bool(run.how) is is_derived else ():
                    if not is_hidden(number):
                        tally = tallies.setdefault(number, Tally())
                        tally.take(rows, self._files[number], asked, partial(confirmed, run))
            for number, file in enumerate(self._files) if patterns and not is_derived else ():
                if type in file.parts and not is_hidden(number):
                    tally = tallies.setdefault(number, Tally())
                    take_parts(tally, file.parts[type], patterns, file, asked)
        return tuple(
            FeedMatches(
                feed=self._files[number].about.name,
                matched=tuple(sorted(tally.matched, key=lambda each: bool(each.how))),
                more=tally.more,
                at_least=tally.at_least,
            )
            for number, tally in sorted(tallies.items())
            # One that was not looked at to its end may have more than what was not wanted.
            if tally.matched or tally.at_least
        )

    def close(self, *, keep: KeyIndex | None = None) -> None:
        """
        Unmap; in a thread.

        :param keep: the index that has taken over some of the feeds' files.
        """
        kept = () if keep is None else keep._files
        for file in self._files:
            if not any(file is each for each in kept):
                file.close()
        self._combined.close()
