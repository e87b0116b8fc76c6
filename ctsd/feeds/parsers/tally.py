"""
What became of the rows of a file: how many were taken, left out, refused, and why.
"""

from __future__ import annotations

import json
from typing import Any, Final

from attrs import define, field

#: Rows that are shown for one reason, and how much of each.
EXAMPLES: Final = 3
EXAMPLE_CHARS: Final = 300


@define
class Tally:
    """
    What became of a file's rows. A row of which something was refused may have given records all
    the same.

    :ivar rows: all of them.
    :ivar records: that were made.
    :ivar left_out: rows by reason: the description does not want them.
    :ivar refused: rows by reason: something is wrong with them.
    :ivar examples: the first few of these, by reason: the number of the row, and what it was.
    """

    rows: int = 0
    records: int = 0
    left_out: dict[str, int] = field(factory=dict)
    refused: dict[str, int] = field(factory=dict)
    examples: dict[str, list[tuple[int, str]]] = field(factory=dict, repr=False)

    @property
    def bad(self) -> int:
        """How many rows were refused."""
        return sum(self.refused.values())

    @property
    def unwanted(self) -> int:
        """How many rows were left out."""
        return sum(self.left_out.values())

    def leave_out(self, reason: str, row: Any) -> None:
        """Count a row that is not wanted."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
        self._show(reason, row)

    def refuse(self, reason: str, row: Any) -> None:
        """Count a row that is wrong."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
        self._show(reason, row)

    def _show(self, reason: str, row: Any) -> None:
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            text = row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)
            examples.append((self.rows, text[:EXAMPLE_CHARS]))
