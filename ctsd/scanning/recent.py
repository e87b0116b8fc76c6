"""The newest finished answers, in memory, so that asking for them again costs no store read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ctsd.model import ScanView
from ctsd.scan_ids import minted_at


class RecentViews:
    """
    Finished answers by id; who was not asked for the longest leaves first.

    Answers about passwords are nowhere else, so others don't push them out.

    :param max_bytes: of hits, all together; an answer counts as 200 bytes beside them. Those about
        passwords may take a quarter of it beside the others.
    :param oldest: scans that began before are not retained, POSIX seconds in store time.
    """

    def __init__(self, *, max_bytes: int, oldest: Callable[[], float]) -> None:
        self._oldest = oldest
        self._views = _Newest(max_bytes)
        self._private = _Newest(max_bytes // 4)

    def add(self, service: str, view: ScanView, *, private: bool = False) -> None:
        """Keep an answer."""
        (self._private if private else self._views).add(service, view)

    def get(self, service: str, scan_id: str) -> ScanView | None:
        """The answer, if it is still here, of this service, and not older than is retained."""
        view = self._views.get(service, scan_id) or self._private.get(service, scan_id)
        return None if view is None or minted_at(scan_id) < self._oldest() else view


class _Newest:
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._by_id: OrderedDict[str, tuple[str, ScanView]] = OrderedDict()

    def add(self, service: str, view: ScanView) -> None:
        if view.id in self._by_id:
            return
        self._bytes += _bytes_of(view)
        self._by_id[view.id] = (service, view)
        while self._bytes > self._max_bytes and len(self._by_id) > 1:
            _, (_, oldest) = self._by_id.popitem(last=False)
            self._bytes -= _bytes_of(oldest)

    def get(self, service: str, scan_id: str) -> ScanView | None:
        known = self._by_id.get(scan_id)
        if known is None or known[0] != service:
            return None
        self._by_id.move_to_end(scan_id)
        return known[1]


def _bytes_of(view: ScanView) -> int:
    return 200 + sum(map(len, view.hits))
