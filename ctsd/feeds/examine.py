"""
The inside of a child process that parses a feed's new file, counts what is in it, and writes its
index on the way (L{ctsd.feeds.examinations} is the outside).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ctsd.config.checks import Wrong
from ctsd.feeds.feed_file import FeedAbout, FeedWriter
from ctsd.feeds.inside import answer
from ctsd.feeds.job import Refused
from ctsd.feeds.parsers.tally import Tally
from ctsd.feeds.reading import RARELY, Reading


def main() -> int:
    """
    Examine what standard input names.

    :return: the exit status.
    """
    # What a row takes goes with the row, without the collector.
    gc.set_threshold(RARELY)
    return answer(examine)


def examine(given: dict[str, Any]) -> dict[str, int]:
    """
    Count what is in a file.

    :param given: C{reading} (L{Reading}); C{index}, where its index may be written, or None, with
        what that shall say of itself in C{about}. Whether it is there then is for who takes it to
        see: one that can't be written does not keep the file from being taken.
    :return: C{rows}, and of these C{refused}; C{records}.
    :raises Refused: it can't be parsed.
    """
    reading = Reading(**given["reading"])
    index = given["index"]
    try:
        if index is not None:
            try:
                return _indexed(reading, Path(index), FeedAbout(**given["about"]))
            except OSError:
                # Such as a full disk. Of a file that can't be read the next lines say so.
                pass
        return _counted(reading)
    except Wrong as wrong:  # it was right when the configuration was read
        raise Refused(f"its description is wrong: {wrong.expected}") from None


def _indexed(reading: Reading, index: Path, about: FeedAbout) -> dict[str, int]:
    tally = Tally()
    with FeedWriter(index, substring=reading.substring) as writer:
        writer.add_parts(reading.parts(tally, now=time.time()))
        writer.publish(about)
    return _said(tally)


def _counted(reading: Reading) -> dict[str, int]:
    tally = Tally()
    records: Iterable[object] = reading.records(tally, now=time.time(), shows=False)
    for _ in records:
        pass
    return _said(tally)


def _said(tally: Tally) -> dict[str, int]:
    return {"rows": tally.rows, "refused": tally.bad, "records": tally.records}
