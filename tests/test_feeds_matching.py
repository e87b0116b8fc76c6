"""Tests that the index of feeds finds what a slow, obvious search finds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList
from twisted.trial.unittest import SynchronousTestCase

from ctsd.feeds.array_file import BadIndex
from ctsd.feeds.feed_file import FeedAbout
from ctsd.feeds.key_index import KeyIndex
from ctsd.feeds.key_store import COMBINED, merge_feeds, write_feed
from ctsd.model import Artifact
from ctsd.records import Derived, FeedMatches, Record
from tests import indicator_strategies
from tests.reference_matching import ReferenceIndicators

NOW = 100.0
SHARED = frozenset({"mine.github.io", "192.0.3.1"})
SUFFIXES = PublicSuffixList()


def put(directory: Path, feeds: Mapping[str, Sequence[Record]], names: Sequence[str]) -> None:
    """Write some feeds, and merge what is there of those with these names."""
    for name, records in feeds.items():
        write_feed(directory, FeedAbout(name=name), records, now=lambda: NOW)
    merge_feeds(directory, names)


def opened(directory: Path, old: KeyIndex | None = None) -> KeyIndex:
    """The index that lies in a directory."""
    return KeyIndex.open(
        directory,
        now=lambda: NOW,
        registered=SUFFIXES.privatesuffix,
        is_shared_host=SHARED.__contains__,
        old=old,
    )


def comparable(found: Sequence[FeedMatches]) -> dict[str, list[tuple[bytes, str, str]]]:
    """Everything that is found, without order."""
    return {
        each.feed: sorted(
            (matched.record.hit, repr(matched.record.value), matched.how)
            for matched in each.matched
        )
        for each in found
    }


class AgreementTests(SynchronousTestCase):
    """L{KeyIndex} beside L{ReferenceIndicators}."""

    def setUp(self) -> None:
        """What is durable is not tested here."""
        self.patch(os, "fsync", lambda descriptor: None)

    def check(
        self,
        index: KeyIndex,
        feeds: Mapping[str, Sequence[Record]],
        artifact: Artifact,
        derived: Sequence[Derived],
    ) -> None:
        """Both find the same."""
        slow = ReferenceIndicators(feeds, now=lambda: NOW, shared=SHARED)
        found = index.find(artifact=artifact, derived=derived, limit=1000)
        wanted = slow.find(artifact=artifact, derived=derived, limit=1000)
        self.assertEqual(comparable(found), comparable(wanted), (artifact.type, artifact.value))
        if index.has_nothing(type=artifact.type, value=artifact.value):
            alone = slow.find(artifact=evolve(artifact, file=None), limit=1)
            self.assertEqual(alone, (), (artifact.type, artifact.value))
        for each in found:
            hows = [bool(matched.how) for matched in each.matched]
            self.assertEqual(hows, sorted(hows), "exact ones come first")

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(
        indicator_strategies.feeds,
        st.lists(
            st.tuples(indicator_strategies.artifacts, indicator_strategies.derived),
            min_size=1,
            max_size=10,
        ),
    )
    def test_agree(
        self,
        feeds: dict[str, list[Record]],
        asked: list[tuple[Artifact, list[Derived]]],
    ) -> None:
        """Whatever is in the feeds, and whatever is asked."""
        with TemporaryDirectory() as where:
            put(Path(where), feeds, list(feeds))
            index = opened(Path(where))
            try:
                for artifact, derived in asked:
                    self.check(index, feeds, artifact, derived)
            finally:
                index.close()

    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(
        st.lists(
            st.tuples(
                indicator_strategies.feeds,
                st.sets(st.sampled_from(["alpha", "beta", "gamma"])),
                st.sampled_from(["good", "cut", "not merged"]),
                indicator_strategies.artifacts,
            ),
            min_size=1,
            max_size=4,
        )
    )
    def test_agree_after_swaps(
        self,
        steps: list[tuple[dict[str, list[Record]], set[str], str, Artifact]],
    ) -> None:
        """After any number of new feeds, merges that failed, and files that were damaged."""
        with TemporaryDirectory() as where:
            directory = Path(where)
            merge_feeds(directory, [])
            index = opened(directory)
            written: dict[str, list[Record]] = {}
            serves: dict[str, list[Record]] = {}
            for fresh, names, how, artifact in steps:
                for name, records in fresh.items():
                    write_feed(directory, FeedAbout(name=name), records, now=lambda: NOW)
                written.update(fresh)
                if how != "not merged":
                    merge_feeds(directory, names)
                    written = {name: written[name] for name in names if name in written}
                    serves = dict(written)
                combined = directory / COMBINED
                if how == "cut":
                    whole = combined.read_bytes()
                    (directory / "cut").write_bytes(whole[:-1])
                    (directory / "cut").rename(combined)
                    self.assertRaises(BadIndex, opened, directory, index)
                    (directory / "whole").write_bytes(whole)
                    (directory / "whole").rename(combined)
                old, index = index, opened(directory, index)
                old.close(keep=index)
                self.check(index, serves, artifact, [])
            index.close()
