"""
What an artifact finds in the local database: what equals it, what contains it, and what derives
from it, in this order; or what stands within it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from attrs import evolve, frozen

from ctsd.feeds.delta import Delta
from ctsd.feeds.index import Index
from ctsd.feeds.lookups import Hashed, IsShared, Registered, hashed
from ctsd.feeds.threat_keys import Span
from ctsd.model import JSON, Artifact, EncodedHit
from ctsd.records import NO_MATCHES, Derived, Indexed, IndexLimits, Matched, Matches
from ctsd.shown import noted

#: What a hit calls how its threat was found.
MATCHED_PROPERTY = "Matched"

_Wanted = Callable[[Indexed], bool]

#: Looks for nothing by itself.
_NO_VALUE = Artifact("string", "")


@frozen(kw_only=True, eq=False)
class ThreatFinds:
    """
    One search of the local database.

    :ivar base: the index file; None when there is none.
    :ivar delta: what has changed since.
    :ivar now: POSIX seconds.
    :ivar registered: see L{ctsd.feeds.key_index.KeyIndex.open}; C{is_shared} likewise.
    """

    base: Index | None
    delta: Delta
    now: float
    registered: Registered
    is_shared: IsShared
    limits: IndexLimits

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that could be found."""
        return not self.delta and (self.base is None or not self.base.about.records)

    def find(self, type: str, value: JSON, limit: int, wanted: _Wanted | None) -> Matches:
        """See L{ctsd.interfaces.feeds.IRecords.find}."""
        if self.is_empty:
            return NO_MATCHES
        keyed, is_cut = self._keyed(hashed(Artifact(type, value)), wanted)
        exact = {key: one.record for key, one in keyed.items() if not one.how}
        texts = self._texts(type, value, limit, _but_for(exact, wanted))
        if not keyed and not is_cut:
            return texts
        known = {record.threat_id for record in texts.records}
        derived = [
            _told(keyed[key]) for key in sorted(keyed) if key not in exact and key not in known
        ]
        records = [*(exact[key] for key in sorted(exact)), *texts.records]
        if texts.more:
            # Some of these may be among those that were only counted.
            is_cut = is_cut or bool(derived)
        else:
            records += derived
        return _matches(records, limit, more=texts.more, at_least=texts.at_least or is_cut)

    def find_within(
        self, derived: Iterable[Derived], limit: int, wanted: _Wanted | None
    ) -> Matches:
        """See L{ctsd.interfaces.feeds.IThreats.find_within}."""
        if self.is_empty:
            return NO_MATCHES
        keyed, is_cut = self._keyed(hashed(_NO_VALUE, derived), wanted)
        told = [_told(keyed[key]) for key in sorted(keyed)]
        return _matches(told, limit, more=0, at_least=is_cut)

    def _keyed(
        self, asked: Iterable[Hashed], wanted: _Wanted | None
    ) -> tuple[dict[int, Matched], bool]:
        """What normal forms and derived keys find, by the threats' ids; whether there is more."""
        found: dict[int, Matched] = {}
        is_cut = False
        base, delta = self.base, self.delta
        if base is not None and base.keys is not None:
            spans = base.keys.find(asked, self.registered, self.is_shared)
            if spans:
                in_base = partial(base.rows_of, hidden=delta.changed)
                is_cut = self._collect(found, spans, in_base, wanted)
        if delta:
            spans = delta.keys.find(asked, self.registered, self.is_shared)
            if spans:
                in_delta = partial(delta.row, now=self.now)
                is_cut = self._collect(found, spans, in_delta, wanted) or is_cut
        return found, is_cut

    def _texts(self, type: str, value: JSON, limit: int, wanted: _Wanted | None) -> Matches:
        """What the rules of L{ctsd.matching} find, by the threats' ids."""
        base, delta = self.base, self.delta
        old = (
            base.find(type=type, value=value, limit=limit, wanted=wanted, hidden=delta.changed)
            if base is not None
            else NO_MATCHES
        )
        if not delta:
            return old
        new = delta.find(
            type=type, value=value, limit=limit, wanted=wanted, now=self.now, limits=self.limits
        )
        if new is NO_MATCHES:
            return old
        if old is NO_MATCHES:
            return new
        records = sorted((*old.records, *new.records), key=lambda record: record.threat_id)
        return Matches(
            records=tuple(records[:limit]),
            more=old.more + new.more + max(len(records) - limit, 0),
            at_least=old.at_least or new.at_least,
        )

    def _collect(
        self,
        found: dict[int, Matched],
        spans: Iterable[Span],
        records_of: Callable[[int], Iterable[Indexed]],
        wanted: _Wanted | None,
    ) -> bool:
        """
        Add each threat once, by how it is found first; an exact one stands before all others.

        :return: whether not all were looked at.
        """
        ours: dict[int, Matched] = {}
        rows = ((one, row) for one in spans for row in one.rows)
        is_cut = False
        for count, (one, row) in enumerate(rows):
            if count >= (self.limits.derived if ours else self.limits.passed_over):
                is_cut = True
                break
            for record in records_of(row):
                before = ours.get(record.threat_id)
                if before is not None and (one.how or not before.how):
                    break
                # Asked first, for it costs less.
                if wanted is not None and not wanted(record):
                    continue
                how = one.confirmed(record.type, record.value)
                if how is None:
                    continue
                if before is None or not how:
                    ours[record.threat_id] = Matched(record, how)
        found.update(ours)
        return is_cut


def _matches(records: Sequence[Indexed], limit: int, *, more: int, at_least: bool) -> Matches:
    if not records and not more and not at_least:
        return NO_MATCHES
    return Matches(
        records=tuple(records[:limit]), more=more + max(len(records) - limit, 0), at_least=at_least
    )


def _but_for(exact: dict[int, Indexed], wanted: _Wanted | None) -> _Wanted | None:
    if not exact:
        return wanted
    return lambda record: record.threat_id not in exact and (wanted is None or wanted(record))


def _told(found: Matched) -> Indexed:
    hit = EncodedHit(noted(found.record.hit, MATCHED_PROPERTY, found.how))
    return evolve(found.record, hit=hit)
