"""
The ids of scans: they tell when, and for which service, we issued them, and nothing about the
artifact. Pure.

An id is a UUID of version 8 (RFC 9562, section 5.8), written as 32 lower-case hex digits: 48 bits
of time in ms, 40 random bits, and a tag of 34 bits that only who has the store's secret can make.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from hmac import compare_digest
from typing import Final

from zope.interface import implementer

from ctsd.errors import NoSuchScan
from ctsd.interfaces.scanning import IScanIds

_VERSION: Final = 8 << 76
_VARIANT: Final = 2 << 62
_MAX_MS: Final = (1 << 48) - 1
_RANDOM_BYTES: Final = 5
_IDS_AHEAD: Final = 64

_TAG_MASK: Final = (1 << 34) - 1


@implementer(IScanIds)
class ScanIds:
    """
    Mints ids, and recognises its own.

    :param secret: the store's secret, 32 bytes; with another one all ids are foreign.
    :param random: gives that many random bytes.
    """

    def __init__(self, secret: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        self._keyed = hashlib.blake2b(key=secret, digest_size=5, person=b"ctsd scan id")
        self._random = random
        self._unused = b""

    def mint(self, *, service: str, now: float) -> str:
        """See L{IScanIds.mint}."""
        ms = min(max(int(now * 1000), 0), _MAX_MS)
        if not self._unused:
            # A call of the kernel for many ids.
            self._unused = self._random(_RANDOM_BYTES * _IDS_AHEAD)
        random, self._unused = self._unused[:_RANDOM_BYTES], self._unused[_RANDOM_BYTES:]
        return self._compose(service, ms, int.from_bytes(random, "big"))

    def issued(self, *, service: str, scan_id: str) -> float:
        """
        See L{IScanIds.issued}. Only the exact form that was minted is ours: the platform sends
        ids back as it got them.
        """
        try:
            number = int(scan_id, 16) if len(scan_id) == 32 else 0
        except ValueError:
            number = 0
        ms = number >> 80 & _MAX_MS
        random = (number >> 64 & 0xFFF) << 28 | (number >> 34 & 0xFFFFFFF)
        expected = self._compose(service, ms, random)
        if not compare_digest(expected.encode(), scan_id.encode("utf-8", "surrogatepass")):
            raise NoSuchScan("no scan has this id")
        return ms / 1000

    def _compose(self, service: str, ms: int, random: int) -> str:
        keyed = self._keyed.copy()
        keyed.update((ms << 40 | random).to_bytes(11, "big"))
        keyed.update(service.encode("utf-8", "surrogatepass"))
        tag = int.from_bytes(keyed.digest(), "big") & _TAG_MASK
        number = (
            ms << 80 | _VERSION | (random >> 28) << 64 | _VARIANT | (random & 0xFFFFFFF) << 34 | tag
        )
        return f"{number:032x}"


def minted_at(scan_id: str) -> float:
    """When one of our ids was minted, POSIX seconds in store time; nobody says that it is ours."""
    return int(scan_id[:12], 16) / 1000
