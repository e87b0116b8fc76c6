"""
The fields of a row, and what is asked of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from ctsd.feeds.layout import NESTED, Layout
from ctsd.feeds.layout_rules import Condition, compiled, literals, placeholders
from ctsd.feeds.parsers.tables import Row, text_of
from ctsd.feeds.paths import path_of

_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?(?:[eE]-?[0-9]{1,2})?")

#: Gives a field of a row: its values as texts, those that stand for nothing left out.
Field = Callable[[Row], list[str]]

#: Whether something holds for the texts of a field.
Test = Callable[[list[str]], bool]


def number_of(text: str) -> float | None:
    """A text as a number; None when it is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


class Fields:
    """
    What gives the fields of rows of one layout.

    :ivar empty: the texts that stand for nothing.
    """

    def __init__(self, layout: Layout) -> None:
        self._nested = layout.format in NESTED
        self.empty = frozenset(layout.empty)
        self._made = layout.fields

    def is_plain(self, name: str) -> bool:
        """Whether a field stands in the row by its name, as a text."""
        return not self._nested and name not in self._made

    def field(self, name: str) -> Field:
        """One field."""
        empty = self.empty
        if name in self._made:
            fill = self.template(self._made[name])

            def made(row: Row) -> list[str]:
                text = fill(row)
                return [text] if text else []

            return made
        if not self._nested:

            def plain(row: Row) -> list[str]:
                value = row.get(name)
                text = value.strip() if value else ""
                return [text] if text and text not in empty else []

            return plain
        path = path_of(name)

        def walked(row: Row) -> list[str]:
            texts = (text_of(value) for value in path(row))
            return [text for text in texts if text and text not in empty]

        return walked

    def text(self, name: str) -> Callable[[Row], str]:
        """One field as one text, several values joined with commas; empty when there is none."""
        if not self.is_plain(name):
            read = self.field(name)
            return lambda row: ", ".join(read(row))
        empty = self.empty

        def plain(row: Row) -> str:
            value = row.get(name)
            text = value.strip() if value else ""
            return "" if text in empty else text

        return plain

    def template(
        self, template: str, encoded: Callable[[str], str] = lambda text: text
    ) -> Callable[[Row], str]:
        """
        What fills a template: empty when one of its fields is.

        :param encoded: what is done to a field before it stands there.
        """
        # Taken apart once: texts and, between them, the fields.
        begin, *rest = literals(template)
        parts = list(zip(map(self.text, placeholders(template)), rest, strict=True))

        def fill(row: Row) -> str:
            text = begin
            for read, behind in parts:
                value = read(row)
                if not value:
                    return ""
                text += encoded(value) + behind
            return text

        return fill

    def condition(self, condition: Condition) -> Callable[[Row], bool]:
        """Whether a condition holds for a row. A field without a value is an empty text."""
        read = self.field(condition.field)
        tests = tests_of(condition)

        if len(tests) == 1:
            (only,) = tests
            return lambda row: only(read(row) or [""])

        def holds(row: Row) -> bool:
            texts = read(row) or [""]
            return all(test(texts) for test in tests)

        return holds

    def need(self, condition: Condition) -> Callable[[Row], object]:
        """True of a row that has what it needs: a field that is not empty, for which all holds."""
        tests = tests_of(condition)
        if not tests:
            return self.text(condition.field)
        read = self.field(condition.field)
        first, *others = tests
        if not others:

            def is_met_once(row: Row) -> bool:
                texts = read(row)
                return bool(texts) and first(texts)

            return is_met_once

        def is_met(row: Row) -> bool:
            texts = read(row)
            return bool(texts) and first(texts) and all(test(texts) for test in others)

        return is_met


def tests_of(condition: Condition) -> list[Test]:
    """What has to hold for the texts of a condition's field."""
    tests: list[Test] = []
    if condition.equals is not None:
        wanted = frozenset(condition.equals)
        tests.append(lambda texts: not wanted.isdisjoint(texts))
    if condition.not_equals is not None:
        unwanted = frozenset(condition.not_equals)
        tests.append(unwanted.isdisjoint)
    if condition.matches is not None:
        search = _searching(condition.matches)
        tests.append(lambda texts: any(map(search, texts)))
    if condition.not_matches is not None:
        forbidden = _searching(condition.not_matches)
        tests.append(lambda texts: not any(map(forbidden, texts)))
    if condition.at_least is not None:
        least = condition.at_least
        tests.append(lambda texts: any(one >= least for one in _numbers(texts)))
    if condition.at_most is not None:
        most = condition.at_most
        tests.append(lambda texts: any(one <= most for one in _numbers(texts)))
    return tests


def _numbers(texts: list[str]) -> list[float]:
    return [one for one in map(number_of, texts) if one is not None]


def _searching(pattern: str) -> Callable[[str], bool]:
    search = compiled(pattern).search

    # As bytes, for nobody asks where. RE2 can't have a lone surrogate, which only JSON has.
    return lambda text: search(text.encode("utf-8", "replace")) is not None
