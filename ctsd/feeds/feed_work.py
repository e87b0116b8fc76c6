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
from ctsd.feeds.guards import Counts, check_rows
from ctsd.feeds.inside import answer, told
from ctsd.feeds.job import Refused
from ctsd.feeds.key_store import COMBINED, key_label, merge_feeds, take_feed, write_feed
from ctsd.feeds.parsers.tally import Tally
from ctsd.feeds.reading import RARELY, Reading


def work(given: dict[str, Any]) -> dict[str, Any]:
    """
    Index the files of some feeds, and make the index of all feeds.

    :param given: C{directory} of the index, C{names} of all feeds that shall be in it, and
        C{works}: by a feed's name, its C{reading} (L{Reading}), what the index shall call its
        C{source}, where one that was C{made} already may lie, and what L{check_rows} wants to
        know.
    :return: by a feed's name C{records}; or why it was C{refused}, which another try does not
        change, or why it C{failed}. Its last index stays then.
    :raises OSError: the index of all feeds can't be written.
    """
    directory = Path(given["directory"])
    label = key_label()
    done: dict[str, Any] = {}
    for name, wanted in given["works"].items():
        about = FeedAbout(name=name, label=label, source=wanted["source"])
        try:
            written = take_feed(directory, about, Path(wanted["made"]))
            if written is None:
                written = _written(directory, about, wanted)
            done[name] = {"records": written.records}
        except Refused as error:
            done[name] = {"refused": str(error)}
        except OSError as error:
            # Its copy may be gone: no reason to leave out the other feeds.
            done[name] = {"failed": told(error)}
    if any("records" in said for said in done.values()) or not (directory / COMBINED).exists():
        merge_feeds(directory, given["names"])
    return done


def _written(directory: Path, about: FeedAbout, wanted: dict[str, Any]) -> FeedAbout:
    reading, tally = Reading(**wanted["reading"]), Tally()

    def fit(_: FeedAbout) -> None:
        counts = Counts(rows=tally.rows, refused=tally.bad, records=tally.records)
        check_rows(counts, least=wanted["least"], most_refused=wanted["most_refused"])

    parts = reading.parts(tally, now=time.time())
    return write_feed(directory, about, fit=fit, parts=parts, substring=reading.substring)


def main() -> int:
    """Do what the first line of standard input says."""
    # What a row takes goes with the row, without the collector.
    gc.set_threshold(RARELY)
    return answer(work)


if __name__ == "__main__":
    sys.exit(main())
