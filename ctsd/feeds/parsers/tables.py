"""
The rows of a file, and tables of them: rows that stand one after the other and are alike, of which
one may ask for a row as well as for a column.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

#: The fields of a row.
Row = Mapping[str, Any]


@frozen
class BadRow:
    """
    A row that can't be used.

    :ivar reason: why, without anything of the row.
    :ivar text: the row, for a person who looks for what is wrong.
    :ivar is_sound: whether nothing is wrong with it, but it tells of no indicator.
    """

    reason: str
    text: str
    is_sound: bool = False


def text_of(value: Any) -> str | None:
    """A value of a row as a text; None for what is no single value."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return None


class Table(ABC):
    """Some rows."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self) -> Iterator[Row]:
        """All of them."""
        return map(self.row, range(len(self._rows)))

    @abstractmethod
    def row(self, number: int) -> Row:
        """One of them."""

    @abstractmethod
    def column(self, name: str) -> list[str]:
        """A field of all rows, as texts (L{text_of}); empty where a row has none."""


class LinesTable(Table):
    """Rows that are lines, which are their field C{line}."""

    def __init__(self, read: Callable[[str], Row], lines: Sequence[str]) -> None:
        """
        :param read: what gives the fields of a line.
        """
        super().__init__(lines)
        self._read = read

    def row(self, number: int) -> Row:
        """One of them."""
        return self._read(self._rows[number])

    def column(self, name: str) -> list[str]:
        """The lines."""
        return [*map(str.strip, self._rows)]


class FieldsTable(Table):
    """Rows that are lists of texts."""

    def __init__(self, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """
        :param names: of the columns; each row has as many texts.
        """
        super().__init__(rows)
        self._names = names
        self._columns: dict[str, tuple[str, ...]] = {}

    def row(self, number: int) -> Row:
        """One of them."""
        return dict(zip(self._names, self._rows[number], strict=True))

    def column(self, name: str) -> list[str]:
        """A field of all rows."""
        if not self._columns:
            self._columns = dict(zip(self._names, zip(*self._rows, strict=True), strict=True))
        return [*map(str.strip, self._columns[name])]


class ObjectsTable(Table):
    """Rows that are objects of JSON."""

    def row(self, number: int) -> Row:
        """One of them."""
        row: Row = self._rows[number]
        return row

    def column(self, name: str) -> list[str]:
        """What stands under a key."""
        return [text_of(row.get(name)) or "" for row in self._rows]
