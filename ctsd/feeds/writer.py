"""
Writes an index file; its format is told in L{ctsd.feeds.index}.

Payloads go straight to the file. What has to stay in memory until the end is, per type, the text
of the keys and three numbers a record; then one suffix array at a time, four times its text.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy
import numpy.typing
from attrs import asdict, define, evolve, field
from pydivsufsort import divsufsort

from ctsd import artifacts, matching, stored
from ctsd.feeds.array_file import ArrayWriter
from ctsd.feeds.index import LENGTH, ROW_BITS, About
from ctsd.feeds.section import MARK, key_hash
from ctsd.feeds.threat_keys import KeysWriter, found_by
from ctsd.model import JSON
from ctsd.records import Line, Record

_UINT32_MAX = (1 << 32) - 1

_Numbers = numpy.typing.NDArray[numpy.unsignedinteger[Any]]

#: The types for which L{ctsd.artifacts.patterns} may give the part of a key.
_PART_TYPES = matching.PART_TYPES | {"net.ip", "net.uri"}


@define
class _Section:
    """What is collected for one artifact type; the C{number}th."""

    number: int
    text: bytearray = field(factory=bytearray)
    places: array[int] = field(factory=lambda: array("Q"))
    hashes: array[int] = field(factory=lambda: array("Q"))
    starts: array[int] = field(factory=lambda: array("Q"))
    payloads: array[int] = field(factory=lambda: array("Q"))
    ids: array[int] = field(factory=lambda: array("Q"))
    expiries: array[float] = field(factory=lambda: array("d"))
    longest_key: int = 0
    longest_value: int = 0
    threat_id: int = 0
    row: list[bytes] = field(factory=list)


class IndexWriter:
    """
    Collects records and makes an index of them. A context manager: what was not L{publish}ed when
    it ends leaves no file behind, and whatever was at C{path} stays.

    :ivar records: how many were taken.
    """

    def __init__(self, path: Path, *, now: Callable[[], float]) -> None:
        """
        :param path: where the index shall be. Its directory must exist.
        :raises OSError: it can't be written.
        """
        self._now = now
        self._out = ArrayWriter(path)
        self._sections: dict[str, _Section] = {}
        self._keys = KeysWriter()
        self.records = 0

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._out.__exit__(kind, error, traceback)

    def add(self, record: Record) -> bool:
        """
        Take a record. Records of one threat have to come one after the other: those of one type
        then count once.

        :return: whether it could be taken: not when nothing would find it, or it can't be encoded.
        """
        try:
            payload = stored.encode_record(record)
        except ValueError:
            return False
        return self._take(record.type, record.value, payload, record.expires, record.threat_id)

    def add_line(self, line: Line) -> bool:
        """Take a record that is encoded already; see L{add}."""
        type, value, data, expires = line
        return self._take(type, value, data[data.index(b"\n") + 1 :], expires, 0)

    def _take(
        self, type: str, value: JSON, payload: bytes, expires: float | None, threat_id: int
    ) -> bool:
        keys = artifacts.keys(type, value)
        if not keys:
            return False
        section = self._sections.get(type)
        if section is None:
            section = self._sections[type] = _Section(len(self._sections))
        if not threat_id or threat_id != section.threat_id:
            self._end_row(section)
            section.threat_id = threat_id
            section.starts.append(len(section.text))
            section.ids.append(threat_id)
            section.expiries.append(math.inf if expires is None else expires)
        for key in keys:
            section.places.append(len(section.text))
            section.hashes.append(key_hash(key, 0))
            section.text += MARK
            section.text += key
            section.longest_key = max(section.longest_key, len(key))
        if isinstance(value, str):
            section.longest_value = max(section.longest_value, len(value))
        section.row.append(payload)
        if threat_id:
            row = section.number << ROW_BITS | len(section.starts) - 1
            self._keys.add(row, found_by(type, value))
        self.records += 1
        return True

    def publish(self, about: About) -> About:
        """
        Sort, write, and put the file in its place: durable, and at once whole for everybody.

        :param about: its C{records} and C{built} are set here.
        :return: what the index says of itself.
        """
        about = evolve(about, records=self.records, built=self._now())
        for section in self._sections.values():
            self._end_row(section)
        order = list(self._sections)
        for name, column in self._keys.arrays().items():
            self._out.put(name, memoryview(column), column.typecode)
        sections = {
            name: self._write_section(name, self._sections.pop(name))
            for name in sorted(self._sections)
        }
        self._out.publish({"about": asdict(about), "sections": sections, "order": order})
        return about

    def _end_row(self, section: _Section) -> None:
        if section.row:
            payload = b"\n".join(section.row)
            section.row.clear()
            end = self._out.append(LENGTH.pack(len(payload)) + payload)
            section.payloads.append(end - len(payload) - LENGTH.size)

    def _write_section(self, name: str, section: _Section) -> dict[str, int]:
        section.text += MARK

        def put(array_name: str, data: memoryview, code: str) -> None:
            self._out.put(f"{name}/{array_name}", data, code)

        put("text", memoryview(section.text), "B")
        starts = numpy.frombuffer(section.starts, dtype=numpy.uint64)
        if len(section.text) <= _UINT32_MAX:
            put("starts", starts.astype(numpy.uint32).data, "I")
        else:
            put("starts", memoryview(section.starts), "Q")
        put("payloads", memoryview(section.payloads), "Q")
        if any(section.ids):
            put("ids", memoryview(section.ids), "Q")
        if not all(map(math.isinf, section.expiries)):
            put("expiries", memoryview(section.expiries), "d")
        hashes, at, salt = _sorted_hashes(section)
        put("hashes", hashes.data, "Q")
        put("places", at.data, "I" if at.itemsize == 4 else "Q")
        if name in _PART_TYPES:
            suffixes = divsufsort(numpy.frombuffer(section.text, dtype=numpy.uint8))
            put("suffixes", suffixes.data, "i" if suffixes.itemsize == 4 else "q")
        return {
            "salt": salt,
            "longest_key": section.longest_key,
            "longest_value": section.longest_value,
        }


def _sorted_hashes(section: _Section) -> tuple[_Numbers, _Numbers, int]:
    """
    The hashes of a section's keys, ascending, where these keys are, and with which salt different
    keys have different hashes.
    """
    for salt in itertools.count():
        hashes = numpy.array(section.hashes, dtype=numpy.uint64)
        order = numpy.argsort(hashes, kind="stable")
        hashes = hashes[order]
        places = numpy.array(section.places, dtype=numpy.uint64)[order]
        twins = numpy.flatnonzero(hashes[1:] == hashes[:-1])
        if all(_key_at(section, places[at]) == _key_at(section, places[at + 1]) for at in twins):
            break
        keys = [_key_at(section, at) for at in section.places]
        section.hashes = array("Q", [key_hash(key, salt + 1) for key in keys])
    if len(section.text) <= _UINT32_MAX:
        places = places.astype(numpy.uint32)
    return hashes, places, salt


def _key_at(section: _Section, at: int) -> bytes:
    start = int(at) + 1
    return bytes(section.text[start : section.text.index(MARK, start)])
