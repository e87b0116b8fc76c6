"""C{ctsd passwd}: writes the file of passwords that C{auth:} listeners ask for."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ctsd.commands.world import Commands, World
from ctsd.passwords import HASHER, MAX_LINES_PER_USER, BadPasswords, entries, parse

_MAX_CHARS = 256

# More than one line of standard input is never a password.
_MAX_INPUT_BYTES = 4096


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add C{passwd}, which needs no configuration: the daemon's may name a file to be made."""
    passwd = commands.add_parser(
        "passwd",
        help="set a user's password",
        description="Sets a user's password in the file of an auth: endpoint; on a terminal it "
        "asks twice, else it reads two equal lines from standard input. A running daemon takes "
        "the new file within two seconds.",
    )
    passwd.add_argument("file", metavar="FILE", type=Path)
    passwd.add_argument("user", metavar="USER")
    how = passwd.add_mutually_exclusive_group()
    how.add_argument(
        "--add", action="store_true", help="keep the passwords that the user has beside the new one"
    )
    how.add_argument(
        "--newest", action="store_true", help="drop all but the newest password; asks for none"
    )
    how.add_argument("--delete", action="store_true", help="drop the user; asks for no password")
    passwd.set_defaults(run=_passwd, configured=False)


def _passwd(arguments: argparse.Namespace, settings: object, world: World) -> int:
    user: str = arguments.user
    if arguments.newest or arguments.delete:
        _change(arguments.file, lambda data: _dropped(data, user, keep_newest=arguments.newest))
        return 0
    _check_text("a user's name", user)
    if ":" in user:
        raise BadPasswords("expected a user's name without a colon")
    if user.startswith("#"):
        raise BadPasswords("expected a user's name that does not begin with #")
    line = f"{user}:{HASHER.hash(_ask(world))}".encode()
    _change(arguments.file, lambda data: _added(data, user, line, keep=arguments.add))
    return 0


def _ask(world: World) -> str:
    """
    A password, twice the same.

    :raises BadPasswords: it is not, or is one that clients don't send as it is.
    """
    if world.stdin.isatty():
        try:
            first = world.ask_secret("New password: ")
            _check_text("a password", first)
            second = world.ask_secret("The same again: ")
        except EOFError:
            raise BadPasswords("expected a password") from None
    else:
        first, second = (_line(world) for _ in range(2))
        _check_text("a password", first)
    if first != second:
        raise BadPasswords("expected the same password twice")
    return first


def _line(world: World) -> str:
    raw = world.stdin.readline(_MAX_INPUT_BYTES)
    if not raw:
        raise BadPasswords("expected two lines with the password on standard input")
    try:
        return raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BadPasswords("expected a password of printable ASCII characters") from None


def _check_text(what: str, text: str) -> None:
    """
    Refuse what HTTP clients mangle: each of them has its own way with characters beyond ASCII
    (RFC 7617, appendix B), and blanks at an end are lost in forms.

    :raises BadPasswords: this text is such.
    """
    if not text:
        raise BadPasswords(f"expected {what} that is not empty")
    if not text.isascii() or not text.isprintable():
        raise BadPasswords(f"expected {what} of printable ASCII characters")
    if text != text.strip():
        raise BadPasswords(f"expected {what} without blanks at its ends")
    if len(text) > _MAX_CHARS:
        raise BadPasswords(f"expected {what} of at most {_MAX_CHARS} characters")


def _added(data: bytes, user: str, line: bytes, *, keep: bool) -> bytes:
    """A file with one more line, in the place of the user's others, or beside them."""
    lines = _lines(data)
    old = _numbers(data, user)
    if keep:
        if len(old) >= MAX_LINES_PER_USER:
            raise BadPasswords(f"{user} has {len(old)} passwords; drop the old ones with --newest")
    else:
        lines = [each for number, each in enumerate(lines, 1) if number not in old]
    return b"\n".join([*lines, line, b""])


def _dropped(data: bytes, user: str, *, keep_newest: bool) -> bytes:
    old = _numbers(data, user)
    if not old:
        raise BadPasswords(f"{user} is not in it")
    if keep_newest:
        old = old[:-1]
    lines = [each for number, each in enumerate(_lines(data), 1) if number not in old]
    new = b"".join(each + b"\n" for each in lines)
    if not any(entries(new)):
        raise BadPasswords(f"{user} is the last user, and the daemon takes no empty file")
    return new


def _lines(data: bytes) -> list[bytes]:
    """As L{entries} counts them."""
    return data.removesuffix(b"\n").split(b"\n") if data else []


def _numbers(data: bytes, user: str) -> list[int]:
    """The lines of a user."""
    name = user.encode(errors="surrogateescape")
    return [number for number, found, _ in entries(data) if found == name]


def _change(path: Path, edit: Callable[[bytes], bytes]) -> None:
    """
    Replace a file by what an edit makes of it, at once.

    :raises BadPasswords: it is malformed, or the edit is not possible.
    :raises OSError: it can't be read or written.
    """
    path = path.resolve()
    with _only_one(path.parent):
        try:
            data = path.read_bytes()
            before = path.stat()
        except FileNotFoundError:
            data = b""
            before = path.parent.stat()
        try:
            new = edit(data)
            parse(new)
        except BadPasswords as error:
            raise BadPasswords(f"{path}: {error}") from None
        _write(path, new, before)


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Nobody else's C{ctsd passwd} writes in this directory meanwhile."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
        os.fsync(opened)
    finally:
        os.close(opened)


def _write(path: Path, data: bytes, before: os.stat_result) -> None:
    """
    Put a file in a place, with mode 0600. What root writes belongs to whom it belonged before, and
    a group that was let in (the daemon's) still is.
    """
    mode = 0o600
    if os.geteuid() == 0 and stat.S_ISREG(before.st_mode) and before.st_gid:
        mode |= before.st_mode & stat.S_IRGRP
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(opened, "wb") as file:
            if os.geteuid() == 0:
                os.fchown(opened, before.st_uid, before.st_gid)
            os.fchmod(opened, mode)
            file.write(data)
            file.flush()
            os.fsync(opened)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
