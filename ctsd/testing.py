"""
Fakes for tests of searchers: records and threats as plain lists, searched one after the other.
Each keeps its interface's contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, evolve, field
from zope.interface import implementer

from ctsd import artifacts
from ctsd.errors import SearchLater
from ctsd.feeds.indicators import public_suffixes
from ctsd.feeds.keys import URL, stored
from ctsd.feeds.lookups import Lookup, how_found, inside_of, looks_inside, lookups, may_show
from ctsd.feeds.threat_finds import MATCHED_PROPERTY
from ctsd.interfaces.feeds import IRecords, IThreats
from ctsd.model import JSON, Artifact, EncodedHit
from ctsd.records import NO_MATCHES, Derived, Indexed, LookupLimits, Matches, Record
from ctsd.shown import noted
from ctsd.stored import indexed
from ctsd.wire import encode_hit

__all__ = ["MemoryRecords", "MemoryThreats", "encode_hit"]


@implementer(IRecords)
@define(kw_only=True)
class MemoryRecords:
    """
    A plain list of records, searched one after the other.

    :ivar records: those of one threat of the local database in a row, threats by ascending id.
    :ivar now: what expiries are compared with.
    :ivar later: not empty: nothing was loaded yet, for this reason.
    :ivar wrong: what L{trouble} says.
    """

    records: list[Record] = field(factory=list)
    now: Callable[[], float] = lambda: 0.0
    later: str = ""
    wrong: str = ""

    def find(
        self,
        *,
        type: str,
        value: JSON,
        limit: int,
        wanted: Callable[[Indexed], bool] | None = None,
    ) -> Matches:
        """See L{IRecords}."""
        if self.later:
            raise SearchLater(5, self.later)
        now = self.now()
        found = []
        threats = set()
        for record in self.records:
            if (
                record.type == type
                and record.threat_id not in threats
                and (record.expires is None or record.expires > now)
                and artifacts.matches(type, value, record.value)
            ):
                one = indexed(record)
                if wanted is not None and not wanted(one):
                    continue
                found.append(one)
                if record.threat_id:
                    threats.add(record.threat_id)
        if not found:
            return NO_MATCHES
        return Matches(records=tuple(found[:limit]), more=max(len(found) - limit, 0))

    def trouble(self) -> str:
        """See L{IRecords}."""
        return self.wrong

    def loading(self) -> bool:
        """See L{IRecords}."""
        return bool(self.later) and not self.wrong

    def failed(self) -> bool:
        """See L{IRecords}."""
        return bool(self.later) and bool(self.wrong)

    def describe(self) -> str:
        """See L{IRecords}."""
        return f"{len(self.records):,} records"


@implementer(IThreats)
@define(kw_only=True)
class MemoryThreats(MemoryRecords):
    """
    The local database as a plain list of records: what an artifact looks for is compared with one
    after the other. Nothing bounds that.

    :ivar limits: see L{IThreats}.
    :ivar is_shared_host: whether many share a host, so that URLs on it say nothing of it.
    """

    limits: LookupLimits = field(factory=LookupLimits)
    is_shared_host: Callable[[str], bool] = lambda host: False

    def find(
        self,
        *,
        type: str,
        value: JSON,
        limit: int,
        wanted: Callable[[Indexed], bool] | None = None,
    ) -> Matches:
        """See L{IThreats}."""
        keyed = self._keyed(lookups(Artifact(type, value)), wanted)
        texts = super().find(type=type, value=value, limit=len(self.records), wanted=wanted)
        exact = {key: one for key, (one, how) in keyed.items() if not how}
        derived = {key: _told(*found) for key, found in keyed.items() if found[1]}
        within = {one.threat_id: one for one in texts.records}
        found: dict[int, Indexed] = {}
        for group in (exact, within, derived):
            for key in sorted(group):
                found.setdefault(key, group[key])
        return _counted(list(found.values()), limit)

    def find_within(
        self,
        *,
        derived: Iterable[Derived],
        limit: int,
        wanted: Callable[[Indexed], bool] | None = None,
    ) -> Matches:
        """See L{IThreats}."""
        keyed = self._keyed(lookups(Artifact("string", ""), derived), wanted)
        return _counted([_told(*keyed[key]) for key in sorted(keyed)], limit)

    def is_empty(self) -> bool:
        """See L{IThreats}."""
        return not self.later and not self.records

    def _keyed(
        self, asked: Iterable[Lookup], wanted: Callable[[Indexed], bool] | None
    ) -> dict[int, tuple[Indexed, str]]:
        """
        What these lookups find, and how, by the threats' ids: each by what finds it first, but
        by what equals it before all else.
        """
        if self.later:
            raise SearchLater(5, self.later)
        now = self.now()
        found: dict[int, tuple[Indexed, str]] = {}
        for lookup in asked:
            ranked = [(self._found(lookup, record), record) for record in self.records]
            close = [(how, record) for how, record in ranked if how is not None]
            for (_, how), record in sorted(close, key=lambda each: each[0][0]):
                one, before = indexed(record), found.get(record.threat_id)
                is_over = record.expires is not None and record.expires <= now
                if is_over or (wanted is not None and not wanted(one)):
                    continue
                if before is None or (before[1] and not how):
                    found[record.threat_id] = (one, how)
        return found

    def _found(self, lookup: Lookup, record: Record) -> tuple[int, str] | None:
        """How closely a record is found, small is close, and how; None when it isn't."""
        asked, how, note = lookup
        keys, network = stored(record.type, record.value)
        if isinstance(asked, bytes):
            registered = public_suffixes().privatesuffix
            if asked not in keys or not may_show(asked, note, registered, self.is_shared_host):
                return None
            return 0, how_found(how, note, record.value) if asked[:1] == URL else how
        if network is None:
            return None
        if network == asked:
            return 0, how
        if network.covers(asked):
            return 1 + network.bits - network.prefix, note
        if looks_inside(asked) and asked.covers(network):
            return 1 + 2 * network.bits, inside_of(how)
        return None


def _counted(found: list[Indexed], limit: int) -> Matches:
    if not found:
        return NO_MATCHES
    return Matches(records=tuple(found[:limit]), more=max(len(found) - limit, 0))


def _told(record: Indexed, how: str) -> Indexed:
    return evolve(record, hit=EncodedHit(noted(record.hit, MATCHED_PROPERTY, how)))
