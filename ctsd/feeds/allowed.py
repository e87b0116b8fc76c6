"""
One's own allow list: values that are no finding whatever feeds say, because somebody has looked.

It lies in the store under one key, so that every node has it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

from attrs import asdict, field, frozen

from ctsd.artifacts import SHAPES, Shape
from ctsd.feeds.indicators import public_suffixes
from ctsd.feeds.keys import HOST, stored
from ctsd.indicator_forms import Network, host_form, network
from ctsd.interfaces.store import IShared
from ctsd.model import FILE, JSON, PASSWORD
from ctsd.plausible import expected

#: Where it lies in the store, and how long: until it is changed.
KEY: Final = "allow-list"
_KEPT_SECS: Final = 20 * 365 * 86400.0

#: The longest list, where nobody says otherwise.
MAX_ALLOWED: Final = 10_000

#: No wider range is allowed whole.
MIN_PREFIX: Final = 8
MIN_PREFIX_V6: Final = 16

#: What L{stored} says of a value that is none.
_NOTHING: Final = ((), None)

#: While one is changed, nobody else changes it.
_LEASE: Final = "allow-list"
_LEASE_SECS: Final = 30.0


@frozen(kw_only=True)
class Allowed:
    """
    One value.

    :ivar type: an artifact type whose values are texts.
    :ivar until: POSIX seconds; None for ever.
    :ivar why: for those who wonder later.
    :ivar by: who says so.
    """

    type: str
    value: str = field(repr=False)
    until: float | None = None
    why: str = ""
    by: str = ""

    def told(self) -> str:
        """For people: who allowed it, and why."""
        return f"allowed by {self.by or 'nobody named'}: {self.why or 'no reason given'}"


def of_value(type: str, value: str) -> Allowed:
    """
    A value to allow.

    :raises ValueError: such a value can't be: the message says why.
    """
    if SHAPES.get(type) is not Shape.STRING or type in (PASSWORD, FILE):
        raise ValueError(f"{type[:100]!a}: an artifact type whose values are texts was expected")
    if stored(type, value) == _NOTHING:
        raise ValueError(f"no value of {type}")
    if what := expected(type, value):
        raise ValueError(f"{type}: expected {what}")
    _refuse_all(type, value)
    return Allowed(type=type, value=value)


def _refuse_all(type: str, value: str) -> None:
    """
    A name stands for all below it, a range for all in it: too much of the world is a slip.

    :raises ValueError: this is.
    """
    found = network(value) if type in ("net.ip", "net.cidr") else None
    if found is not None and found.prefix < (MIN_PREFIX if found.version == 4 else MIN_PREFIX_V6):
        raise ValueError(
            f"{found}: expected a range of /{MIN_PREFIX} or narrower (IPv6: /{MIN_PREFIX_V6})"
        )
    if type == "net.name":
        host = host_form(value)
        if host and public_suffixes().publicsuffix(host, accept_unknown=False) == host:
            raise ValueError(
                f"{host[:100]!a}: expected a name below a public suffix, e.g. "
                "example.com; all names below this one would be allowed"
            )


def current(entries: Sequence[Allowed], now: float) -> tuple[Allowed, ...]:
    """Those whose time is not over."""
    return tuple(each for each in entries if each.until is None or each.until > now)


def is_same(one: Allowed, other: Allowed) -> bool:
    """
    Whether two entries allow the same value. Of what can't be allowed (any more), and stands in a
    list all the same, one alone is the same: what is spelled as it is.
    """
    if (one.type, one.value) == (other.type, other.value):
        return True
    found = stored(one.type, one.value)
    return found != _NOTHING and found == stored(other.type, other.value)


class AllowedValues:
    """
    Entries, found by what an indicator is: in microseconds, however many there are.
    """

    def __init__(self, entries: Sequence[Allowed] = ()) -> None:
        """To index as many entries as there can be takes some ten milliseconds."""
        # Each with its place: of several that cover a value, the first one is told.
        self._by_key: dict[bytes, list[tuple[int, Allowed]]] = {}
        self._networks: dict[tuple[int, int], dict[int, list[tuple[int, Allowed]]]] = {}
        for place, entry in enumerate(entries):
            keys, network = stored(entry.type, entry.value)
            if network is not None:
                sizes = self._networks.setdefault((network.version, network.prefix), {})
                first = network.first >> (network.bits - network.prefix)
                sizes.setdefault(first, []).append((place, entry))
            elif keys:
                self._by_key.setdefault(keys[0], []).append((place, entry))

    def find(self, type: str, value: JSON, now: float) -> Allowed | None:
        """The first entry that covers an indicator, and whose time is not over."""
        if not self._by_key and not self._networks:
            return None
        there = [
            each
            for each in self._covering(*stored(type, value))
            if each[1].until is None or each[1].until > now
        ]
        return min(there, key=lambda each: each[0])[1] if there else None

    def _covering(
        self, keys: Sequence[bytes], network: Network | None
    ) -> Iterator[tuple[int, Allowed]]:
        if network is not None:
            for (version, prefix), sizes in self._networks.items():
                if version == network.version and prefix <= network.prefix:
                    yield from sizes.get(network.first >> (network.bits - prefix), ())
        if not keys:
            return
        yield from self._by_key.get(keys[0], ())
        if keys[0][:1] == HOST:
            _, *above = keys[0][1:].split(b".")
            for at in range(len(above)):
                yield from self._by_key.get(HOST + b".".join(above[at:]), ())


def entries_of(data: bytes | None) -> tuple[Allowed, ...]:
    """
    The entries in what lies in the store, in the order in which they were added.

    :raises ValueError: that is no list of this version.
    """
    if data is None:
        return ()
    try:
        given: list[dict[str, Any]] = json.loads(data)
        return tuple(Allowed(**each) for each in given)
    except (TypeError, ValueError) as error:
        raise ValueError("the allow list in the store can't be read") from error


def allowed_values(data: bytes | None) -> AllowedValues:
    """
    What L{entries_of} says, to be searched. For a thread.

    :raises ValueError: see there.
    """
    return AllowedValues(entries_of(data))


class AllowList:
    """The list in the store."""

    def __init__(self, *, store: IShared, holder: str, max_allowed: int = MAX_ALLOWED) -> None:
        """
        :param holder: who changes it, as in L{IShared.lease}.
        :param max_allowed: the longest list.
        """
        self._store = store
        self._holder = holder
        self._max_allowed = max_allowed

    async def entries(self) -> tuple[Allowed, ...]:
        """
        All of it, in the order in which it was added.

        :raises ctsd.errors.StoreError: it can't be read.
        :raises ValueError: what lies there is no list of this version.
        """
        return entries_of(await self.data())

    async def data(self) -> bytes | None:
        """
        All of it, as it lies in the store; None while there is nothing.

        :raises ctsd.errors.StoreError: it can't be read.
        """
        return await self._store.get(key=KEY)

    async def add(self, entry: Allowed) -> bool:
        """
        Allow a value; an entry of the same value is replaced.

        :return: whether it is new.
        :raises ctsd.errors.StoreError: it can't be written.
        :raises ValueError: somebody else changes the list right now, or it is full.
        """

        async def change() -> bool:
            there = current(await self.entries(), self._store.now())
            kept = [each for each in there if not is_same(each, entry)]
            if len(kept) >= self._max_allowed:
                raise ValueError(
                    f"{len(kept):,} values are allowed, and matching.max_allowed is"
                    f" {self._max_allowed:,}: remove one, or raise it"
                )
            await self._write([*kept, entry])
            return len(kept) == len(there)

        return await self._alone(change)

    async def remove(self, entry: Allowed) -> bool:
        """
        Allow a value no more.

        :param entry: whatever its type and its value are: what could be allowed once can be
            removed.
        :return: whether it was allowed.
        :raises ctsd.errors.StoreError: it can't be written.
        :raises ValueError: somebody else changes the list right now.
        """

        async def change() -> bool:
            there = await self.entries()
            kept = [each for each in there if not is_same(each, entry)]
            if len(kept) < len(there):
                await self._write(kept)
            return len(kept) < len(there)

        return await self._alone(change)

    async def _write(self, entries: Sequence[Allowed]) -> None:
        data = json.dumps([asdict(each) for each in entries]).encode()
        await self._store.put(key=KEY, value=data, secs=_KEPT_SECS)

    async def _alone(self, change: Callable[[], Awaitable[bool]]) -> bool:
        if await self._store.lease(name=_LEASE, holder=self._holder, secs=_LEASE_SECS) is None:
            raise ValueError("somebody else changes the allow list right now")
        try:
            return await change()
        finally:
            await self._store.release(name=_LEASE, holder=self._holder)
