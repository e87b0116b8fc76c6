"""
The file of passwords: lines of C{user:hash}, as C{ctsd passwd} and Apache's C{htpasswd -B} write
them. Empty lines, and those that begin with C{#}, say nothing.

A user may have several lines, and each of them is valid: that is how a password is changed on two
sides, one after the other. Hashes are argon2 (RFC 9106) or bcrypt; nothing else is taken, for
whatever C{htpasswd} writes without C{-B} is guessed too fast.
"""

from __future__ import annotations

import base64
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from attrs import field, frozen

from ctsd.errors import CTSDError

#: Limits of a file; beyond them it counts as malformed.
MAX_FILE_BYTES = 1 << 20
MAX_LINES = 10_000
MAX_LINES_PER_USER = 4

# The largest costs that a line may have: whoever writes more has mistyped, and one login would
# take the memory or the minutes.
_MAX_ARGON2_KIB = 256 * 1024
_MAX_ARGON2_PASSES = 16
_MAX_ARGON2_LANES = 16
_BCRYPT_COSTS = range(4, 18)

# bcrypt knows no more of a password, and htpasswd cuts it there, too.
_BCRYPT_BYTES = 72

# The digests are of 32 bytes, as everybody makes them: so a line that was cut is no hash.
_ARGON2 = re.compile(
    rb"\$argon2(?:id|i|d)\$v=19\$m=(\d{1,7}),t=(\d{1,2}),p=(\d{1,2})"
    rb"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{43}"
)
_BCRYPT = re.compile(rb"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")

#: What we write: argon2id with the least cost that OWASP's Password Storage Cheat Sheet has for it
#: (19 MiB, two passes, one lane): about 30 ms, and little memory for a daemon.
HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class BadPasswords(CTSDError):
    """This is no file of passwords; the message says why, without a hash."""


def _cost_of(line: bytes) -> bytes | None:
    """The part of a hash that says how it is computed; None when we don't take it."""
    found = _ARGON2.fullmatch(line)
    if found:
        kib, passes, lanes = map(int, found.groups())
        fits = (
            8 * lanes <= kib <= _MAX_ARGON2_KIB
            and 1 <= passes <= _MAX_ARGON2_PASSES
            and 1 <= lanes <= _MAX_ARGON2_LANES
        )
        return line.rsplit(b"$", 2)[0] if fits else None
    found = _BCRYPT.fullmatch(line)
    if found and int(found[1]) in _BCRYPT_COSTS:
        return b"$2b$" + found[1]
    return None


def _dummy(cost: bytes) -> bytes:
    """A hash of no password, which takes as long as others of that cost."""
    if cost.startswith(b"$2b$"):
        return bcrypt.gensalt(int(cost[4:])) + base64.b16encode(os.urandom(16))[:31]
    salt, digest = (base64.b64encode(os.urandom(size)).rstrip(b"=") for size in (16, 32))
    return cost + b"$" + salt + b"$" + digest


def _matches(line: bytes, password: bytes) -> bool:
    if line.startswith(b"$2"):
        return bcrypt.checkpw(password[:_BCRYPT_BYTES], line)
    try:
        return HASHER.verify(line, password)
    except VerifyMismatchError:
        return False


@frozen
class Passwords:
    """
    What a file says.

    :ivar users: the users that it has.
    """

    _hashes: Mapping[bytes, tuple[bytes, ...]] = field(repr=False)
    # How many lines of each cost a user has at most, and dummies for them.
    _dummies: tuple[tuple[bytes, bytes], ...] = field(repr=False)

    @property
    def users(self) -> frozenset[str]:
        """The users that the file has."""
        return frozenset(user.decode() for user in self._hashes)

    def knows(self, user: bytes) -> bool:
        """Whether there is such a user."""
        return user in self._hashes

    def verify(self, user: bytes, password: bytes) -> bool:
        """
        Whether a password is one of a user's. Slow on purpose: call it in a thread.

        A wrong one takes the same time for every user of the file, and for users that it does not
        have: lines that a user has fewer than others are made up for by dummies.

        :raises Exception: no comparison was possible.
        """
        spent: Counter[bytes] = Counter()
        for line in self._hashes.get(user, ()):
            if _matches(line, password):
                return True
            cost = _cost_of(line)
            assert cost is not None
            spent[cost] += 1
        for cost, line in self._dummies:
            if spent[cost]:
                spent[cost] -= 1
            else:
                _matches(line, password)
        return False


def entries(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """
    The lines of a file that have a user: number from 1, user, hash.

    :raises BadPasswords: it is malformed, or too large.
    """
    if len(data) > MAX_FILE_BYTES:
        raise BadPasswords(f"more than {MAX_FILE_BYTES} bytes")
    lines = data.split(b"\n")
    if len(lines) > MAX_LINES:
        raise BadPasswords(f"more than {MAX_LINES} lines")
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if not line or line.startswith(b"#"):
            continue
        user, colon, hashed = line.partition(b":")
        if not colon or not user:
            raise BadPasswords(f"line {number} is no user:hash")
        try:
            user.decode()
        except UnicodeDecodeError:
            raise BadPasswords(f"line {number} is no UTF-8") from None
        if _cost_of(hashed) is None:
            raise BadPasswords(
                f"line {number} has no argon2 or bcrypt hash (as ctsd passwd or htpasswd -B make)"
            )
        yield number, user, hashed


def parse(data: bytes) -> Passwords:
    """
    The content of a file.

    :raises BadPasswords: it is malformed, too large, or has no user.
    """
    hashes: dict[bytes, tuple[bytes, ...]] = {}
    for number, user, hashed in entries(data):
        hashes[user] = (*hashes.get(user, ()), hashed)
        if len(hashes[user]) > MAX_LINES_PER_USER:
            raise BadPasswords(f"line {number} is one too many: {MAX_LINES_PER_USER} for one user")
    if not hashes:
        raise BadPasswords("it is empty")
    most: Counter[bytes] = Counter()
    for lines in hashes.values():
        most |= Counter(cost for line in lines if (cost := _cost_of(line)))
    return Passwords(hashes, tuple((cost, _dummy(cost)) for cost in most.elements()))


def read(path: Path) -> Passwords:
    """
    Read a file.

    :raises OSError: it can't be read.
    :raises BadPasswords: see L{parse}.
    """
    with path.open("rb") as opened:
        return parse(opened.read(MAX_FILE_BYTES + 1))
