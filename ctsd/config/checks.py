"""
Checks of single configuration values: each takes what TOML gave and returns what ctsd uses, or
raises L{Wrong} with what was expected. A message never shows a text: it may be a secret.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from ctsd.model import Secret

#: What searchers and services are called.
NAME = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")

#: More processes than any machine has cores for.
MAX_PROCESSES = 256

_NAME_MAX_LENGTH = 64
_SECRET_MAX_BYTES = 65536


class Wrong(Exception):
    """
    A value is not what was expected.

    :ivar at: where inside of the value.
    """

    def __init__(self, expected: str, *at: str | int) -> None:
        super().__init__(expected)
        self.expected = expected
        self.at = at


@frozen(kw_only=True)
class Surroundings:
    """
    What a value may depend on.

    :ivar base_dir: what relative paths are relative to.
    :ivar secret_variables: collects the names of variables that held secrets.
    """

    base_dir: Path
    environ: Mapping[str, str] = field(repr=False)
    secret_variables: set[str] = field(factory=set)


#: A check of one value.
Check = Callable[[object, Surroundings], Any]


def kind(value: object) -> str:
    """What a value is, for people, without telling it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value}"
    if isinstance(value, str):
        return "a string"
    named: dict[type, str] = {list: "an array", dict: "a table"}
    return named.get(type(value), "a date or time")


def unknown(key: str, known: Iterable[str], what: str = "setting") -> str:
    """The message for a key that is not known, with the one that was probably meant."""
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"no such {what}" + (f"; did you mean {close[0]}?" if close else "")


def whole(minimum: int, maximum: int = 2**62) -> Check:
    """A whole number in a range."""
    span = f"of at least {minimum}" if maximum == 2**62 else f"from {minimum} to {maximum}"

    def check(value: object, around: Surroundings) -> int:
        if type(value) is not int or not minimum <= value <= maximum:
            raise Wrong(f"expected a whole number {span}, not {kind(value)}")
        return value

    return check


def processes(value: object, around: Surroundings) -> int:
    """How many processes; C{"auto"} is one for each core that we may use."""
    if value == "auto":
        return len(os.sched_getaffinity(0))
    if type(value) is not int or not 1 <= value <= MAX_PROCESSES:
        raise Wrong(f'expected "auto" or a whole number from 1 to {MAX_PROCESSES}')
    return value


def amount(minimum: float, maximum: float, unit: str) -> Check:
    """A finite number in a range; whole or not."""

    def check(value: object, around: Surroundings) -> float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or not math.isfinite(value) or not minimum <= value <= maximum:  # type: ignore[arg-type, operator]
            span = f"from {minimum:g} to {maximum:g} {unit}"
            raise Wrong(f"expected a number {span}, not {kind(value)}")
        return float(value)  # type: ignore[arg-type]

    return check


def flag(value: object, around: Surroundings) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Wrong(f"expected true or false, not {kind(value)}")
    return value


def text(value: object, around: Surroundings) -> str:
    """A string that is not empty, and can be a part of a path."""
    if not isinstance(value, str):
        raise Wrong(f"expected a string, not {kind(value)}")
    if not value.strip():
        raise Wrong("expected a string that is not empty")
    if "\0" in value:
        raise Wrong("expected a string without NUL")
    return value


def one_of(*choices: str) -> Check:
    """One of a few words."""

    def check(value: object, around: Surroundings) -> str:
        if value not in choices:
            raise Wrong("expected " + " or ".join(f'"{choice}"' for choice in choices))
        return str(value)

    return check


def path(value: object, around: Surroundings) -> Path:
    """A path, made absolute."""
    return around.base_dir / text(value, around)


def each(check: Check, *, at_least: int = 0, of: str = "strings") -> Check:
    """An array without doubles, every element checked; it becomes a tuple."""

    def check_all(value: object, around: Surroundings) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise Wrong(f"expected an array of {of}, not {kind(value)}")
        if len(value) < at_least:
            raise Wrong(f"expected an array of at least one of {of}")
        checked: list[Any] = []
        for position, element in enumerate(value):
            try:
                one = check(element, around)
            except Wrong as wrong:
                raise Wrong(wrong.expected, position, *wrong.at) from None
            if one in checked:
                raise Wrong("is in the array twice", position)
            checked.append(one)
        return tuple(checked)

    return check_all


def name(value: object, around: Surroundings) -> str:
    """A searcher's or a service's name."""
    if not isinstance(value, str):
        raise Wrong(f"expected a name, not {kind(value)}")
    if not NAME.fullmatch(value) or len(value) > _NAME_MAX_LENGTH:
        raise Wrong(
            "expected a name of lower-case letters and digits, with single _ or - between them"
        )
    return value


def host(value: object, around: Surroundings) -> str:
    """A host name or address as browsers send it in C{Host}, without port; in lower case."""
    given = text(value, around).lower()
    address = re.fullmatch(r"\[?([0-9a-f:]*:[0-9a-f.:]*:[0-9a-f.:]*)]?", given)
    if address:
        return address[1]
    if not re.fullmatch(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?", given):
        raise Wrong("expected a host's name or address, without scheme and port")
    return given


def user(value: object, around: Surroundings) -> str:
    """A user of HTTP Basic (RFC 2617, section 2: no colon)."""
    given = text(value, around)
    if ":" in given:
        raise Wrong("expected a user's name without a colon")
    return given


def with_secrets(value: object, around: Surroundings) -> Any:
    """
    A searcher's own setting: any TOML value, in which each C{{ env = "NAME" }} and
    C{{ file = "PATH" }} has become the L{Secret} it points to. A table with both is a mistake.
    """
    if isinstance(value, list):
        return [with_secrets(element, around) for element in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"env", "file"}:
        raise Wrong("expected either env or file for a secret, not both")
    (only,) = value if len(value) == 1 else ("",)
    if only == "env" and isinstance(value["env"], str):
        variable = value["env"]
        if not around.environ.get(variable):
            raise Wrong(f"expected the environment variable {variable} to hold a secret")
        around.secret_variables.add(variable)
        return Secret(around.environ[variable])
    if only == "file" and isinstance(value["file"], str):
        return _secret_file(path(value["file"], around))
    return {key: with_secrets(inner, around) for key, inner in value.items()}


def _secret_file(at: Path) -> Secret:
    try:
        with at.open("rb") as opened:
            raw = opened.read(_SECRET_MAX_BYTES + 1)
        secret = raw.decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise Wrong(f"expected the file {at} to hold a secret: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Wrong(f"expected the file {at} to hold UTF-8 text") from None
    if not secret or len(raw) > _SECRET_MAX_BYTES:
        raise Wrong(f"expected the file {at} to hold a secret of 1 to {_SECRET_MAX_BYTES} bytes")
    return Secret(secret)
