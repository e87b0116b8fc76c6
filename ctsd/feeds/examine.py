"""
The inside of a child process that parses a feed's new file and counts what is in it
(L{ctsd.feeds.examinations} is the outside).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ctsd._config_checks import Surroundings, Wrong
from ctsd.feeds.inside import answer
from ctsd.feeds.job import Refused
from ctsd.feeds.layout import read_layout
from ctsd.feeds.parsers.parse import parse
from ctsd.feeds.parsers.tally import Tally


def main() -> int:
    """
    Examine what standard input names.

    :return: the exit status.
    """
    return answer(examine)


def examine(given: dict[str, Any]) -> dict[str, int]:
    """
    Count what is in a file.

    :param given: C{path}, C{layout} (a description's keys), C{title} and C{max_bytes}.
    :return: C{rows}, and of these C{refused}; C{records}.
    :raises Refused: it can't be parsed.
    """
    try:
        layout = read_layout(given["layout"], Surroundings(base_dir=Path("/"), environ={}))
    except Wrong as wrong:  # it was right when the configuration was read
        raise Refused(f"its description is wrong: {wrong.expected}") from None
    tally = Tally()
    records = parse(
        Path(given["path"]),
        layout,
        title=given["title"],
        now=time.time(),
        max_bytes=given["max_bytes"],
        tally=tally,
        shows=False,
    )
    for _ in records:
        pass
    return {"rows": tally.rows, "refused": tally.bad, "records": tally.records}
