"""The scans that this process works on, and what it knows of those that only wait."""

from __future__ import annotations

from attrs import define, field

from ctsd.scanning.live import LiveScan

#: So many unfinished scans are known; of more, the newest.
MAX_UNFINISHED = 200_000


class Keys:
    """
    A set of at most so many members; the ones that were added first leave first.

    :param limit: how many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._members: dict[tuple[str, bytes], None] = {}

    def __contains__(self, key: tuple[str, bytes]) -> bool:
        return key in self._members

    def __len__(self) -> int:
        return len(self._members)

    def add(self, key: tuple[str, bytes]) -> None:
        """One more, or the same again."""
        self._members.setdefault(key)
        if len(self._members) > self._limit:
            del self._members[next(iter(self._members))]

    def discard(self, key: tuple[str, bytes]) -> None:
        """One less, if it is there."""
        self._members.pop(key, None)


@define(eq=False)
class Flight:
    """
    Scans in flight.

    :ivar by_key: by what makes another scan an equal one; passwords are not in here.
    :ivar unfinished: (service, digest) of scans in the store that are OPEN or INCOMPLETE: only
        for these an artifact costs a store read. What other nodes write is in it a second later,
        what they finish stays until it was looked for once. Before that an equal artifact is at
        worst searched again, as a scan with an id of its own, of which nothing was said yet; and
        where a remote searcher is asked not even that, for the promise meets the other one. So it
        may also be bounded.
    :ivar doubtful: whether the store may have written, without our knowing, that we run a search.
    :ivar stopping: whether this process takes no more scans.
    """

    by_key: dict[tuple[str, bytes], LiveScan] = field(factory=dict, repr=False)
    unfinished: Keys = field(factory=lambda: Keys(MAX_UNFINISHED), repr=False)
    doubtful: bool = False
    stopping: bool = False
    _by_id: dict[str, LiveScan] = field(factory=dict, repr=False)

    def __len__(self) -> int:
        """How many scans are in memory."""
        return len(self._by_id)

    def get(self, scan_id: str) -> LiveScan | None:
        """A scan that is in memory."""
        return self._by_id.get(scan_id)

    def runs(self, scan_id: str, searcher: str) -> bool:
        """Whether a search runs here for a scan."""
        live = self._by_id.get(scan_id)
        part = live.parts.get(searcher) if live is not None else None
        return part is not None and part.since is not None

    def scans(self) -> list[LiveScan]:
        """All of them."""
        return list(self._by_id.values())

    def adopt(self, live: LiveScan) -> None:
        """A scan begins, or is taken up again."""
        self._by_id[live.id] = live
        if not live.private:
            self.by_key.setdefault(live.key, live)

    def release(self, live: LiveScan) -> None:
        """Nothing of this scan runs here any more, or matters."""
        self._by_id.pop(live.id, None)
        if self.by_key.get(live.key) is live:
            del self.by_key[live.key]
