"""
Threats as people write them: on a command line, as lines of JSON, as CSV. Pure.

The CSV has a header. C{name}, C{type} and C{value} are needed, C{note} and C{expires} may be there,
and every column called C{<property's type>:<property's name>} is a property where it is not empty::

    name,type,value,note,expires,string:campaign,number:score
    Botnet 7,net.ip,192.0.2.7,from the CERT,2031-01-31,X,80
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, BinaryIO

from ctsd.artifacts import SHAPES, Shape
from ctsd.model import FILE, JSON, Threat
from ctsd.plausible import expected
from ctsd.threat_lines import threat_from_line

#: The formats of files, by the ends of their names.
FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv"}

#: The line that a threat stands on, and the threat, or what is wrong with it.
Numbered = tuple[int, Threat | ValueError]

_UNIT_SECS = {"h": 3600, "d": 86400, "w": 7 * 86400}
_LINE_MAX_BYTES = 32 * 2**20
_COLUMNS = frozenset({"name", "type", "value", "note", "expires"})
_PROPERTY_TYPES = ("string", "number", "uri", "ip", "lat_lng")


def value_of(type: str, text: str) -> JSON:
    """
    An artifact's value as it is written: as it is, or as JSON where the type's value is an object.
    """
    if SHAPES.get(type) in (Shape.NAME_VALUE, Shape.REGISTRY) or text.startswith("["):
        try:
            decoded: JSON = json.loads(text)
        except ValueError:
            return text
        return decoded
    return text


def artifact_argument(text: str) -> dict[str, JSON]:
    """
    C{TYPE=VALUE}.

    :raises ValueError: it is none.
    """
    type, equals, value = text.partition("=")
    if not equals:
        raise ValueError("expected TYPE=VALUE, e.g. net.ip=192.0.2.7")
    return {"type": type, "value": value_of(type, value)}


def property_argument(text: str) -> dict[str, JSON]:
    """
    C{TYPE:NAME=VALUE}.

    :raises ValueError: it is none.
    """
    kind, colon, rest = text.partition(":")
    name, equals, value = rest.partition("=")
    if not colon or not equals or kind not in _PROPERTY_TYPES:
        raise ValueError(
            "expected TYPE:NAME=VALUE, e.g. string:campaign=X; TYPE is one of "
            + ", ".join(_PROPERTY_TYPES)
        )
    return {"type": kind, "name": name, "value": _property_value(kind, value)}


def _property_value(kind: str, text: str) -> JSON:
    if kind == "number":
        try:
            return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
        except ValueError:
            raise ValueError("a number property needs a number") from None
    if kind == "lat_lng":
        place = re.fullmatch(r"\s*(-?\d+(?:\.\d+)?)\s*[,; ]\s*(-?\d+(?:\.\d+)?)\s*", text)
        if not place:
            raise ValueError("a lat_lng property needs two numbers, e.g. 49.61,6.13")
        return {"lat": float(place[1]), "lng": float(place[2])}
    return text


def expiry(text: str, *, now: float) -> float:
    """
    A date in ISO 8601 (UTC unless it says otherwise), or how long from now: C{12h}, C{30d},
    C{2w}; as POSIX seconds.

    :raises ValueError: it is neither, or it is over already.
    """
    span = re.fullmatch(r"(\d{1,6})([hdw])", text)
    try:
        if span:
            until = now + int(span[1]) * _UNIT_SECS[span[2]]
        else:
            date = datetime.fromisoformat(text)
            until = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(
            "expected a date like 2031-01-31, or a duration like 12h, 30d or 2w"
        ) from None
    if until <= now:
        raise ValueError("expected a date in the future")
    return until


def threat_of(
    *,
    name: str,
    artifacts: list[dict[str, JSON]],
    properties: list[dict[str, JSON]],
    note: str = "",
    expires: float | None = None,
) -> Threat:
    """
    A threat from its parts, checked as a line of a file is.

    :raises ValueError: something about it is wrong; never shows a value.
    """
    given: dict[str, Any] = {"name": name, "artifacts": artifacts, "properties": properties}
    if note:
        given["note"] = note
    if expires is not None:
        given["expires"] = expires
    return checked_threat(json.dumps(given))


def checked_threat(line: bytes | str) -> Threat:
    """
    The threat of one line, see L{threat_from_line}, all of whose artifacts can be found.

    :raises ValueError: it is none, or an artifact's value can't be of its type; the message never
        shows a value.
    """
    threat = threat_from_line(line)
    if all(artifact.type == FILE for artifact in threat.artifacts):
        raise ValueError("artifacts: a file is found by its hashes, never by file.content")
    for at, artifact in enumerate(threat.artifacts):
        what = expected(artifact.type, artifact.value)
        if what:
            raise ValueError(f"artifacts[{at}].value: expected {what}")
    return threat


def format_of(name: str) -> str:
    """
    The format of a file by its name; empty when that does not tell.
    """
    return FORMATS.get(PurePath(name).suffix.lower(), "")


def read_lines(stream: BinaryIO) -> Iterator[Numbered]:
    """The threats of a file of JSON lines; empty lines are skipped."""
    number = 0
    while line := stream.readline(_LINE_MAX_BYTES + 1):
        number += 1
        if len(line) > _LINE_MAX_BYTES:
            yield number, ValueError(f"the line is longer than {_LINE_MAX_BYTES} bytes")
            return
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            yield number, checked_threat(line)
        except ValueError as error:
            yield number, error


def read_csv(stream: BinaryIO, *, now: float) -> Iterator[Numbered]:
    """The threats of a CSV file, one a row."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    rows = csv.reader(text, strict=True)
    try:
        yield from _read_rows(rows, now)
    except csv.Error as error:
        yield rows.line_num, ValueError(f"no CSV: {error}")
    except UnicodeDecodeError:
        yield rows.line_num + 1, ValueError("expected UTF-8 text")
    finally:
        text.detach()


def _read_rows(rows: Any, now: float) -> Iterator[Numbered]:
    header = [column.strip() for column in next(rows, [])]
    wrong = _wrong_header(header)
    if wrong:
        yield 1, ValueError(wrong)
        return
    for row in rows:
        number = rows.line_num
        if not any(row):
            continue
        if len(row) != len(header):
            yield number, ValueError(f"expected {len(header)} columns, not {len(row)}")
            continue
        try:
            yield number, _row_threat(dict(zip(header, row, strict=True)), now)
        except ValueError as error:
            yield number, error


def _wrong_header(header: list[str]) -> str:
    missing = [column for column in ("name", "type", "value") if column not in header]
    if missing:
        return f"the header has no column {missing[0]}"
    for column in header:
        kind, colon, name = column.partition(":")
        if column not in _COLUMNS and not (colon and name and kind in _PROPERTY_TYPES):
            return (
                f"{column[:80]!r}: no such column; properties are TYPE:NAME, e.g. string:campaign"
            )
        if header.count(column) > 1:
            return f"the column {column[:80]!r} is there twice"
    return ""


def _row_threat(row: dict[str, str], now: float) -> Threat:
    expires = row.get("expires", "").strip()
    return threat_of(
        name=row["name"],
        artifacts=[{"type": row["type"].strip(), "value": value_of(row["type"], row["value"])}],
        properties=[
            property_argument(f"{column}={cell}")
            for column, cell in row.items()
            if column not in _COLUMNS and cell
        ],
        note=row.get("note", ""),
        expires=expiry(expires, now=now) if expires else None,
    )
