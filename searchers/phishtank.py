"""
PhishTank (U{https://www.phishtank.com}): URLs that people have verified as phishing.

The file is PhishTank's C{online-valid.csv}, which somebody has to keep current; a small made-up
one is shipped.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from ctsd.searching import (
    BaseArtifactSearch,
    Found,
    IRecords,
    Record,
    SearcherSetup,
    number,
    string,
    uri,
)

#: What stands in the first line of a file of PhishTank's
#: (U{https://www.phishtank.com/developer_info.php}).
HEADER: Final = [
    "phish_id",
    "url",
    "phish_detail_url",
    "submission_time",
    "verified",
    "verification_time",
    "online",
    "target",
]

#: Where PhishTank tells people about a record. Ours, for what stands in the file can't be trusted.
DETAIL_URL: Final = "https://www.phishtank.com/phish_detail.php?phish_id={}"

#: The file that is shipped.
SAMPLE: Final = Path(__file__).parent / "data" / "verified_online.csv"

#: A longer field is none of a record's.
MAX_FIELD_CHARS: Final = 64 * 1024

#: A longer phish_id is none.
MAX_DIGITS: Final = 15

#: More hits than these are counted, not shown.
MAX_HITS: Final = 10


def records(lines: Iterable[str]) -> Iterator[Record | None]:
    """
    Read a file of PhishTank's, a line a record. None stands for a record that is malformed: one
    that is no CSV, or lacks a field.

    :raises ValueError: the header is not PhishTank's.
    """
    rest = iter(lines)
    if _fields(next(rest, "")) != HEADER:
        raise ValueError(f"its first line is not {','.join(HEADER)}")
    for line in rest:
        if line.strip():
            yield _record(line)


def _fields(line: str) -> list[str]:
    """A line's fields; none when it is no CSV. Line by line, a stray quote spoils just one."""
    try:
        return next(csv.reader((line,), strict=True), [])
    except csv.Error:
        return []


def _record(line: str) -> Record | None:
    fields = [each.strip() for each in _fields(line)]
    if len(fields) != len(HEADER) or not all(fields):
        return None
    if max(map(len, fields)) > MAX_FIELD_CHARS:
        return None
    phish_id, url, _, submission_time, *_, target = fields
    if not (phish_id.isascii() and phish_id.isdecimal() and len(phish_id) <= MAX_DIGITS):
        return None
    return Record(
        type="net.uri",
        value=url,
        name=f"PhishTank Record {phish_id}",
        properties=(
            number("id", int(phish_id)),
            string("url", url),
            uri("detail_url", DETAIL_URL.format(phish_id)),
            string("submission_time", submission_time),
            string("target", target),
        ),
    )


class PhishTankArtifactSearch(BaseArtifactSearch):
    """Finds URLs in a file of PhishTank's."""

    name = "phishtank"
    local = True
    keys = {"file": str}

    _records: IRecords

    def start(self, setup: SearcherSetup) -> None:
        """Have the file indexed."""
        file = setup.settings.get("file")
        self._records = setup.records(setup.path(file) if file else SAMPLE, records)

    def trouble(self) -> str:
        """What is wrong with the file."""
        return self._records.trouble()

    def loading(self) -> bool:
        """Whether the file is being indexed for the first time."""
        return self._records.loading()

    def failed(self) -> bool:
        """Whether there is no index, and the file can't be indexed."""
        return self._records.failed()

    def describe(self) -> str:
        """How many records there are."""
        return self._records.describe()

    @classmethod
    def supports(cls, artifact_type: str) -> bool:
        """URLs."""
        return artifact_type == "net.uri"

    async def search(self, artifact_type: str, search_term: str, **kwargs: Any) -> Found | None:
        """
        The records whose URL equals a whole URL, or contains a part of one.

        :raises SearchLater: the file was never loaded.
        """
        matches = self._records.find(type=artifact_type, value=search_term, limit=MAX_HITS)
        if not matches.records and not matches.more:
            return None
        hits = tuple([record.hit for record in matches.records])
        return Found(hits, matches.more, matches.at_least)
