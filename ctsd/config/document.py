"""
A TOML file that still knows on which line each of its keys stands.

C{tomllib} reads the values and rules what is valid; the scan in here only finds lines, in text
that C{tomllib} has accepted already.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import field, frozen

from ctsd.errors import ConfigError

#: A key's way from the root; a whole number is a position in an array.
KeyPath = tuple[str | int, ...]

# Everything that can stand in a TOML text, as far as the place of keys depends on it
# (https://toml.io/en/v1.0.0): strings and comments hide brackets and newlines.
_TOKEN = re.compile(
    r'(?P<string>"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*')"
    r"|(?P<comment>\#[^\n]*)"
    r"|(?P<word>[A-Za-z0-9_-]+)"
    r"|(?P<newline>\n)"
    r"|(?P<mark>[][{}=.,])"
    r"|(?P<other>.)",
    re.DOTALL,
)


@frozen
class _Token:
    kind: str
    text: str
    line: int


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "other"
        if kind == "comment" or (kind == "other" and match[0].isspace()):
            continue
        yield _Token(kind, match[0], line)
        line += match[0].count("\n")


def _key_part(token: _Token) -> str:
    if token.kind == "string":
        return str(tomllib.loads(f"k = {token.text}")["k"])
    return token.text


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """
    The line, from 1, of every table header and of every key outside of inline tables.

    :param text: valid TOML, newlines as C{\\n}.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    # One statement is what stands up to a newline outside of brackets.
    statement: list[_Token] = []
    depth = 0
    for token in (*_tokens(text), _Token("newline", "\n", 0)):
        if token.kind == "mark" and token.text in "[{":
            depth += 1
        elif token.kind == "mark" and token.text in "]}":
            depth -= 1
        if token.kind != "newline":
            statement.append(token)
        elif depth == 0 and statement:
            header = statement[0].kind == "mark"
            key: list[str] = []
            for part in statement:
                if part.kind == "mark" and part.text == "=" and not header:
                    break
                if part.kind != "mark":
                    key.append(_key_part(part))
            path = tuple(key) if header else (*table, *key)
            for end in range(1, len(path) + 1):
                lines.setdefault(path[:end], statement[0].line)
            if header:
                table = path
                lines[path] = statement[0].line
            statement = []
    return lines


@frozen(kw_only=True)
class Document:
    """
    What a configuration file says, and where.

    :ivar name: the file as errors name it.
    :ivar base_dir: what its relative paths are relative to, absolute.
    :ivar text: what L{parsed} makes the rest from.
    :ivar data: the tables.
    :ivar is_file: whether there is one; else these are the built-in defaults.
    :ivar passed_over: why they are, though there is a file; else None.
    """

    name: str
    base_dir: Path
    text: str = field(default="", repr=False)
    data: dict[str, Any] = field(factory=dict, repr=False)
    is_file: bool = True
    passed_over: ConfigError | None = None
    _lines: dict[tuple[str, ...], int] = field(factory=dict, repr=False)

    def error(self, key: KeyPath, expected: str) -> ConfigError:
        """An error that names this file, the key and its line."""
        named = ""
        for part in key:
            named += f"[{part}]" if isinstance(part, int) else f".{part}" if named else part
        for end in range(len(key), 0, -1):
            line = self._lines.get(tuple(map(str, key[:end])))
            if line is not None:
                return ConfigError(f"{self.name}:{line}", named, expected)
        return ConfigError(self.name, named, expected)


def read_document(path: Path) -> Document:
    """
    Read a TOML file.

    :raises ConfigError: it can't be read, or is no valid TOML.
    """
    path = path.absolute()
    try:
        # Some editors begin with a byte order mark.
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(str(path), "", f"can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), "", "expected UTF-8 text") from None
    return parsed(text.replace("\r\n", "\n"), name=str(path), base_dir=path.parent)


def parsed(text: str, *, name: str, base_dir: Path) -> Document:
    """
    A TOML text as a document.

    :param text: newlines as C{\\n}.
    :raises ConfigError: it is no valid TOML.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, place = str(error).partition(" (at line ")
        line = re.match(r"\d+", place)
        where = f"{name}:{line[0]}" if line else name
        raise ConfigError(where, "", f"no valid TOML: {what}") from None
    except RecursionError:
        raise ConfigError(name, "", "no valid TOML: nested too deep") from None
    except ValueError:
        # Python reads no longer integer (sys.set_int_max_str_digits).
        raise ConfigError(name, "", "no valid TOML: a number of too many digits") from None
    return Document(name=name, base_dir=base_dir, text=text, data=data, lines=lines_of(text))
