"""What scans go by: the searchers of each service, and limits."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field, frozen

from ctsd.errors import NoSuchService
from ctsd.model import NOTHING, Search
from ctsd.scanning.source import Source


@frozen(kw_only=True)
class ScanLimits:
    """
    What bounds a scan.

    :ivar first_answer_secs: the longest an async searcher holds the first answer.
    :ivar post_deadline_secs: the longest anything holds it.
    :ivar scan_deadline_secs: when a scan that misses a source ends incomplete.
    :ivar when_incomplete: C{resend}, C{tell} or C{ignore}.
    :ivar retention_secs: how long an answer can be asked for.
    :ivar max_scans: how many scans may be in flight.
    :ivar keep_file_secs: how long a scan's file is kept.
    """

    first_answer_secs: float = 1.0
    post_deadline_secs: float = 3.0
    scan_deadline_secs: float = 86400.0
    when_incomplete: str = "resend"
    retention_secs: float = 30 * 86400.0
    max_scans: int = 10_000
    keep_file_secs: float = 3600.0

    @property
    def last_call_secs(self) -> float:
        """
        How long a sync searcher may hold the first answer: until there is just time left to
        write the promise.
        """
        return self.post_deadline_secs * 0.85


@frozen
class Asked:
    """
    Who is asked about a type of artifacts.

    :ivar at_once: whether all of them answer from memory, or may know without being asked that
        they find nothing.
    :ivar nothing: what is written when each of them has found nothing at its first try.
    """

    sources: tuple[Source, ...] = field(repr=False)
    names: frozenset[str]
    at_once: bool
    nothing: tuple[Search, ...] = field(repr=False)


@define(kw_only=True, eq=False)
class Rules:
    """
    One object that everybody who works on scans looks at; its parts are replaced (L{replace})
    when the configuration is read again, and hold for the next scan.

    :ivar services: the searchers of each service, in order; C{ROOT_SERVICE} is one of them.
    """

    services: Mapping[str, tuple[Source, ...]] = field(repr=False)
    limits: ScanLimits
    _asked: dict[tuple[str, str], Asked] = field(factory=dict, init=False, repr=False)

    def replace(self, services: Mapping[str, tuple[Source, ...]], limits: ScanLimits) -> None:
        """Go by these from now on."""
        self.services, self.limits = services, limits
        self._asked.clear()

    def asked(self, service: str, type: str) -> Asked:
        """
        Who is asked about a type of artifacts (a known one) in a service.

        :raises NoSuchService: there is no such service.
        """
        asked = self._asked.get((service, type))
        if asked is None:
            sources = tuple(one for one in self.sources(service) if one.supports(type))
            asked = self._asked[service, type] = Asked(
                sources,
                frozenset(one.name for one in sources),
                all(one.local or one.looks_first for one in sources),
                tuple(Search(searcher=one.name, outcome=NOTHING, tries=1) for one in sources),
            )
        return asked

    def sources(self, service: str) -> tuple[Source, ...]:
        """
        The searchers of a service.

        :raises NoSuchService: there is no such service.
        """
        try:
            return self.services[service]
        except KeyError:
            raise NoSuchService(f"no service /{service}/") from None
