"""
Puts feeds into their index, in a process of its own (L{ctsd.feeds.inside}).
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Any

from ctsd.feeds.feed_file import FeedAbout
from ctsd.feeds.inside import answer
from ctsd.feeds.job import Refused
from ctsd.feeds.key_store import key_label, merge_feeds, take_feed, write_feed
from ctsd.feeds.parsers.tally import Tally
from ctsd.feeds.reading import RARELY, Reading


def work(given: dict[str, Any]) -> dict[str, Any]:
    """
    Index the files of some feeds, and make the index of all feeds.

    :param given: C{directory} of the index, C{names} of all feeds that shall be in it, and
        C{works}: by a feed's name, its C{reading} (L{Reading}), what the index shall call its
        C{source}, and where one that was C{made} already may lie.
    :return: by a feed's name C{records}, or why it C{failed}: its last index stays.
    :raises OSError: the index can't be written.
    """
    directory = Path(given["directory"])
    label = key_label()
    done: dict[str, Any] = {}
    for name, wanted in given["works"].items():
        about = FeedAbout(name=name, label=label, source=wanted["source"])
        try:
            written = take_feed(directory, about, Path(wanted["made"]))
            if written is None:
                reading = Reading(**wanted["reading"])
                lines = reading.lines(Tally(), now=time.time())
                written = write_feed(directory, about, lines=lines, substring=reading.substring)
            done[name] = {"records": written.records}
        except Refused as error:
            done[name] = {"failed": str(error)}
    merge_feeds(directory, given["names"])
    return done


def main() -> int:
    """Do what the first line of standard input says."""
    # What a row takes goes with the row, without the collector.
    gc.set_threshold(RARELY)
    return answer(work)


if __name__ == "__main__":
    sys.exit(main())
