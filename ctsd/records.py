"""
Values of the local database and of the indexes: what goes in, what is found, what has changed.
"""

from __future__ import annotations

from attrs import field, frozen

from ctsd.model import JSON, Artifact, EncodedHit, Hit, Property, Threat

#: What a hit of the local database calls the threat's name.
NAME_PROPERTY = "Threat"


@frozen(kw_only=True)
class Record:
    """
    An indicator with what is known about it: what an index is built from.

    :ivar type: the artifact type that finds it.
    :ivar value: the indicator as its source has it.
    :ivar name: the threat's name.
    :ivar properties: of its hit.
    :ivar threat_id: of a record of the local database; else 0.
    :ivar searcher: who stored it there (L{Threat.searcher}), and C{source} for which artifact.
    :ivar expires: POSIX seconds, or None.
    """

    type: str
    value: JSON = field(repr=False)
    name: str = ""
    properties: tuple[Property, ...] = field(default=(), repr=False)
    threat_id: int = 0
    searcher: str = ""
    source: bytes = field(default=b"", repr=False)
    expires: float | None = None


#: A record of a feed as an index keeps it: its type, its value, what L{ctsd.stored.encode_record}
#: makes of it on a line behind that of its type, and when it expires.
Line = tuple[str, JSON, bytes, float | None]


def hit_of(record: Record) -> Hit:
    """
    What a record shows when it is found: its properties; of the local database, the threat's name
    before them.
    """
    if not record.threat_id:
        return Hit(record.properties)
    return Hit((Property("string", NAME_PROPERTY, record.name), *record.properties))


@frozen
class Indexed:
    """
    A record as an index finds it: what it shows was made into bytes when the index was built.

    :ivar hit: L{hit_of} it, as it goes out.

    The others are those of L{Record}.
    """

    type: str
    value: JSON = field(repr=False)
    name: str
    hit: EncodedHit = field(repr=False)
    threat_id: int = 0
    searcher: str = ""
    source: bytes = field(default=b"", repr=False)


@frozen(kw_only=True)
class Matches:
    """
    What an index has on a value.

    :ivar records: at most as many as were asked for, in an order that only depends on the data.
    :ivar more: how many further records match; exact up to the index's own limits
        (L{IndexLimits}).
    :ivar at_least: whether C{more} is a lower bound; with nothing found: not all was looked at,
        and what was is not wanted.
    """

    records: tuple[Indexed, ...] = ()
    more: int = 0
    at_least: bool = False


@frozen(kw_only=True)
class IndexLimits:
    """
    What bounds a search of an index, which is made in the reactor.

    :ivar occurrences: of a value within what is stored, so many are looked at, as long as
        something is found.
    :ivar counted: so many records are read to count those that are not shown.
    :ivar derived: of what derived keys have found, so many records are looked at, as long as one
        of them is wanted.
    :ivar passed_over: so many occurrences, or records, are looked at when none of them is wanted.
    """

    occurrences: int = 2000
    counted: int = 200
    derived: int = 500
    passed_over: int = 10_000


#: What an index says of a value that nothing matches: one value, used everywhere.
NO_MATCHES = Matches()


@frozen
class Derived:
    """
    Something else to ask about, because it follows from an artifact.

    :ivar how: what it is of the artifact, for people: C{MD5 of the file}.
    """

    artifact: Artifact = field(repr=False)
    how: str


@frozen
class Within:
    """
    What is in an artifact.

    :ivar derived: each once, in their order there.
    :ivar cut: what was not looked at, for people, because a limit was reached
        (C{text beyond 1,048,576 characters}): there may be more.
    """

    derived: tuple[Derived, ...] = ()
    cut: tuple[str, ...] = ()


@frozen(kw_only=True)
class LookupLimits:
    """
    What bounds a search in the feeds.

    :ivar max_recipients: so many of C{email.header.to} are looked for.
    :ivar max_suppressed: so many findings that are no hits are kept with a scan.
    :ivar tells_cut: whether a hit says that not all of an artifact was looked at, when nothing was
        found in the rest. To ask again would not help.
    """

    max_recipients: int = 1000
    max_suppressed: int = 20
    tells_cut: bool = True


#: How a record was found that contains the artifact.
CONTAINS = "contains it"


@frozen
class Matched:
    """
    A feed's record that an artifact has found.

    :ivar how: what of the artifact it was found by, for people (C{host of the URL}); empty when
        the whole artifact equals it.
    """

    record: Indexed
    how: str = ""


@frozen(kw_only=True)
class FeedMatches:
    """
    What one feed has on an artifact.

    :ivar feed: its name.
    :ivar matched: at most as many as were asked for, exact ones first, in an order that only
        depends on the data; each once.
    :ivar more: how many further records match.
    :ivar at_least: whether C{more} is a lower bound; with nothing matched: not all of its records
        were looked at, and those that were are not wanted.
    """

    feed: str
    matched: tuple[Matched, ...] = ()
    more: int = 0
    at_least: bool = False


@frozen(kw_only=True)
class Finds:
    """
    What a search made known to the local database: it replaces what the same searcher stored for
    the same artifact before (nothing at all: removes it).

    :ivar source: the digest of the artifact that was asked.
    :ivar threats: with C{searcher}, C{source} and C{expires} set.
    """

    searcher: str
    source: bytes = field(repr=False)
    threats: tuple[Threat, ...] = field(default=(), repr=False)


@frozen(kw_only=True)
class Changes:
    """
    What changed in the local database.

    :ivar version: the newest change that is in here; ask with it the next time.
    :ivar threats: new or changed ones, as they are now.
    :ivar deleted: ids that are gone.
    :ivar more: whether C{limit} cut this short: ask again at once.
    :ivar gap: whether deletions since then are forgotten already: what was built at the version
        that was asked about has to be built anew.
    """

    version: int
    threats: tuple[Threat, ...] = field(repr=False)
    deleted: tuple[int, ...]
    more: bool = False
    gap: bool = False
