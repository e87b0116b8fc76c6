"""
What a parser is asked to read: a file, and how; what both sides of a child process know.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import asdict, field, frozen

from ctsd.config.checks import Surroundings
from ctsd.config.document import Document
from ctsd.feeds.descriptions import Description, read_description
from ctsd.feeds.layout import Layout, read_layout
from ctsd.feeds.parsers.parse import parse, parse_lines
from ctsd.feeds.parsers.tally import Tally
from ctsd.records import Line, Record

#: After so many objects that were not freed the collector runs, in a process that does nothing but
#: read files. It runs at 700 else, which costs a build up to 8 % of its time.
RARELY: Final = 100_000


def made_of(description: Description, *, sha256: str, label: str) -> str:
    """
    What the index calls its source: all that decides what is in it.

    :param sha256: the copy's.
    :param label: L{ctsd.feeds.key_store.source_label}.
    """
    terms = description.terms
    said = json.dumps([label, sha256, dict(description.given), description.title, terms.credit])
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


@frozen(kw_only=True)
class Reading:
    """
    A file of a feed, and what its description says of it. All of it goes through JSON.

    :ivar path: the file, as its provider packed it.
    :ivar layout: the keys of its layout, as TOML gave them.
    :ivar max_bytes: of what is in it, unpacked.
    """

    path: str
    layout: Mapping[str, Any] = field(repr=False)
    title: str
    credit: str = ""
    max_bytes: int

    @classmethod
    def of(cls, description: Description, path: Path) -> Reading:
        """A file of a feed."""
        return cls(
            path=str(path),
            layout=description.given,
            title=description.title,
            credit=description.terms.credit,
            max_bytes=description.provider.max_unpacked_bytes,
        )

    @classmethod
    def of_catalogue(cls, name: str, path: Path) -> Reading:
        """
        A file that looks as the catalogue describes a feed.

        :raises ConfigError: there is no such feed in the catalogue.
        """
        doc = Document(name="the catalogue", base_dir=Path("/"))
        return cls.of(read_description(name, {}, doc), path)

    def as_text(self) -> str:
        """All of it, as JSON. The order of tables stays, for it is that of properties."""
        return json.dumps(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """What goes through JSON."""
        return {**asdict(self), "layout": dict(self.layout)}

    @property
    def substring(self) -> bool:
        """See L{ctsd.feeds.layout.Layout}."""
        return bool(self.layout.get("substring"))

    def counted(self, *, now: float) -> Iterator[Line | None]:
        """The records, and None for each row that was refused; see L{parse_lines}."""
        tally = Tally()
        yield from self.lines(tally, now=now)
        yield from itertools.repeat(None, tally.bad)

    def lines(self, tally: Tally, *, now: float) -> Iterator[Line]:
        """See L{parse_lines}."""
        return itertools.chain.from_iterable(self.parts(tally, now=now))

    def parts(self, tally: Tally, *, now: float) -> Iterator[Iterable[Line]]:
        """See L{parse_lines}."""
        return parse_lines(
            Path(self.path),
            self._layout(),
            title=self.title,
            credit=self.credit,
            now=now,
            max_bytes=self.max_bytes,
            tally=tally,
        )

    def records(self, tally: Tally, *, now: float, shows: bool = True) -> Iterator[Record]:
        """See L{parse}."""
        return parse(
            Path(self.path),
            self._layout(),
            title=self.title,
            credit=self.credit,
            now=now,
            max_bytes=self.max_bytes,
            tally=tally,
            shows=shows,
        )

    def _layout(self) -> Layout:
        return read_layout(self.layout, Surroundings(base_dir=Path("/"), environ={}))
