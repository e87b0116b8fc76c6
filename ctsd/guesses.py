"""What is remembered of logins: good credentials, and addresses that guess."""

from __future__ import annotations

import os
from collections import OrderedDict
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address
from typing import Any

from attrs import frozen


@frozen
class Known:
    """
    A credential that was found good.

    :ivar until: when it has to be looked at again, in the clock's seconds.
    """

    user: str
    until: float


class Remembered:
    """
    Credentials that were found good, as digests with a key that never leaves this process.

    :param max_age_secs: how long each of them is remembered.
    :param max_count: how many are; the oldest go first.
    """

    def __init__(self, *, clock: Any, max_age_secs: float, max_count: int) -> None:
        self._clock = clock
        self._max_age_secs = max_age_secs
        self._max_count = max_count
        self._key = os.urandom(32)
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def digest(self, header: bytes) -> bytes:
        """What stands for an C{Authorization} header."""
        return blake2b(header, digest_size=16, key=self._key).digest()

    def find(self, digest: bytes) -> Known | None:
        """What is known of it; None when it has to be compared."""
        known = self._known.get(digest)
        if known is not None and known.until <= self._clock.seconds():
            del self._known[digest]
            return None
        return known

    def add(self, digest: bytes, user: str) -> None:
        """It was found good."""
        self._known[digest] = Known(user, self._clock.seconds() + self._max_age_secs)
        self._known.move_to_end(digest)
        if len(self._known) > self._max_count:
            self._known.popitem(last=False)

    def forget(self) -> None:
        """All of them have to be compared again."""
        self._known.clear()


class Delays:
    """
    How long the answer to a wrong guess is held back: doubling with each further one from the
    same address, until that has been quiet for a while.

    An address is an IPv4 address or the first 64 bits of an IPv6 address; all clients without
    one (Unix sockets) count as one.

    :param max_addresses: how many are remembered; those that guessed longest ago go first.
    """

    def __init__(
        self,
        *,
        clock: Any,
        first_secs: float = 0.1,
        max_secs: float = 2.0,
        forget_secs: float = 600.0,
        max_addresses: int = 10_000,
    ) -> None:
        self._clock = clock
        self._first_secs = first_secs
        self._max_secs = max_secs
        self._forget_secs = forget_secs
        self._max_addresses = max_addresses
        self._guesses: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._guesses)

    def wrong(self, address: str) -> float:
        """Count a wrong guess; how many seconds its answer is held back."""
        now = self._clock.seconds()
        key = _network(address)
        count, last = self._guesses.pop(key, (0, now))
        if now - last >= self._forget_secs:
            count = 0
        self._guesses[key] = (count + 1, now)
        if len(self._guesses) > self._max_addresses:
            self._guesses.popitem(last=False)
        doubled: float = self._first_secs * 2 ** min(count, 30)
        return min(self._max_secs, doubled)


def _network(address: str) -> bytes:
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return b""
    if isinstance(found, IPv6Address):
        mapped = found.ipv4_mapped
        return found.packed[:8] if mapped is None else mapped.packed
    return found.packed
