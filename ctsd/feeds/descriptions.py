"""
What a feed is: where it comes from, how often, what its file looks like, and under which terms.

A description is a table of TOML. Those that ship are the files of C{ctsd/feeds/catalogue}; a table
C{[feeds.<name>]} of the configuration turns one of them on, replaces keys of it, or is a
description of one's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
from attrs import field, frozen

from ctsd.addresses import why_host_refused
from ctsd.config import checks
from ctsd.config.checks import Surroundings, Wrong
from ctsd.config.document import Document, read_document
from ctsd.config.tables import default_of, keys_of, table
from ctsd.errors import ConfigError
from ctsd.feeds.layout import STIX, WARNINGLIST, Layout, read_layout
from ctsd.feeds.layout_rules import (
    IGNORED,
    Condition,
    Indicators,
    Lower,
    PropertyRule,
)
from ctsd.feeds.parts import PART_TYPES
from ctsd.feeds.providers import DATE, SECRETS, Provider, Terms
from ctsd.remote import Remote

_DAY_SECS: Final = 86400.0

#: A feed is stale when it was not had for so many of its intervals, and for at least an hour.
_STALE_INTERVALS: Final = 2.5
_STALE_SECS: Final = 3600.0

#: A list of addresses is old after a week, whatever else a feed lists after a month: addresses
#: change their owners.
_ADDRESSES: Final = frozenset({"net.ip", "net.cidr"})
_ADDRESS_DAYS: Final = 7.0
_OTHER_DAYS: Final = 30.0


@frozen(kw_only=True)
class Description:
    """
    A whole feed.

    :ivar name: as in C{[feeds.<name>]}.
    :ivar catalogued: whether it is one of the catalogue.
    :ivar given: the keys of C{layout} as TOML gave them; a child process makes the layout of them.
    """

    name: str
    terms: Terms
    provider: Provider
    layout: Layout
    catalogued: bool = False
    given: Mapping[str, Any] = field(factory=dict, repr=False, eq=False)

    @property
    def enabled(self) -> bool:
        """Whether it is on."""
        said = self.terms.enabled
        return not self.catalogued if said is None else said

    @property
    def title(self) -> str:
        """What hits call it."""
        return self.terms.title or self.name

    @property
    def is_warninglist(self) -> bool:
        """Whether what it lists is no finding, instead of one."""
        return self.layout.format == WARNINGLIST

    @property
    def types(self) -> frozenset[str]:
        """The artifact types that its indicators can have."""
        found: set[str] = set()
        for each in self.layout.indicators:
            found.update(each.type)
            for composite in each.types.values():
                found.update(part for part in composite.split("|") if part != IGNORED)
        # A range among addresses is taken as what it is.
        return frozenset(found | ({"net.cidr"} if "net.ip" in found else set()))

    @property
    def max_age_secs(self) -> float:
        """
        After how long nothing in the newest good copy counts any more. A file of ours is believed
        for as long as it is there, unless its description says otherwise; a warninglist, whose
        age does no harm, always.
        """
        days = self.terms.max_age_days
        if days is None:
            if self.provider.file is not None or self.is_warninglist:
                return math.inf
            days = _ADDRESS_DAYS if self.types <= _ADDRESSES else _OTHER_DAYS
        return days * _DAY_SECS

    @property
    def stale_secs(self) -> float:
        """After how long the newest good copy is older than it should be."""
        if self.provider.file is not None:
            return self.max_age_secs
        return min(max(_STALE_INTERVALS * self.provider.every_secs, _STALE_SECS), self.max_age_secs)

    def remotes(self, *, now: float) -> tuple[Remote, ...]:
        """
        Where it can be had, the best first: several when its address has a date in it, for today's
        file may not be there yet. None when it is a file of ours.

        :param now: POSIX seconds.
        """
        provider = self.provider
        if not provider.url:
            return ()
        secrets = {"key": provider.key, "user": provider.user}
        # A user's name is no secret on its own, but a template takes all from the same place.
        named = {name: secret for name, secret in secrets.items() if secret}
        today = datetime.fromtimestamp(now, UTC)
        back = provider.date_back_days if _in_braces(DATE) in provider.url else 0
        return tuple(
            Remote(
                url=provider.url.replace(
                    _in_braces(DATE), f"{today - timedelta(days=days):%Y-%m-%d}"
                ),
                headers=provider.headers,
                secrets=named,
                user=provider.user if provider.password else "",
                password=provider.password,
                insecure_http=provider.insecure_http,
                internal=provider.internal,
            )
            for days in range(back + 1)
        )


def _in_braces(name: str) -> str:
    return f"{{{name}}}"


def names_of_catalogue() -> tuple[str, ...]:
    """The feeds that ship."""
    return tuple(
        sorted(
            each.name.removesuffix(".toml")
            for each in (resources.files("ctsd.feeds") / "catalogue").iterdir()
            if each.name.endswith(".toml")
        )
    )


def catalogue_file(name: str) -> Path:
    """The file of a description that ships."""
    # Wheels are unpacked where they are installed, so that it is a file (setup.py: zip_safe).
    return Path(str(resources.files("ctsd.feeds") / "catalogue" / f"{name}.toml"))


def catalogue_sample(name: str) -> Path | None:
    """The sample in the provider's format that ships with a description, if it does."""
    samples = Path(str(resources.files("ctsd.feeds") / "catalogue" / "samples"))
    return next(iter(sorted(samples.glob(f"{name}.*"))), None)


def read_descriptions(feeds: Mapping[str, Mapping[str, Any]], doc: Document) -> list[Description]:
    """
    Every feed there is: the catalogue's, and those of the configuration alone, by name.

    :param feeds: the tables C{[feeds.<name>]}, secrets resolved.
    :param doc: the configuration that they are from.
    :raises ConfigError: the first thing that is wrong, with file, line and key.
    """
    shipped = names_of_catalogue()
    return [read_description(name, feeds.get(name, {}), doc) for name in sorted({*shipped, *feeds})]


def read_description(name: str, own: Mapping[str, Any], doc: Document) -> Description:
    """
    One feed.

    :param own: its table C{[feeds.<name>]}.
    :raises ConfigError: it is wrong, or there is no such feed.
    """
    shipped = name in names_of_catalogue()
    brought = read_document(catalogue_file(name)) if shipped else None
    sources = _Sources(name=name, own=own, doc=doc, brought=brought)
    keys = {part: keys_of(part) for part in (Terms, Provider, Layout)}
    if not brought and not (own.keys() - keys_of(Terms).keys()):
        known = checks.unknown(name, names_of_catalogue(), f"feed as {name} in the catalogue")
        raise doc.error(("feeds", name), f"{known}; one of your own needs format and url or file")
    everything = [one for part in keys.values() for one in part]
    for one in sources.given:
        if one not in everything:
            raise sources.error((one,), checks.unknown(one, everything))
    parts = {
        part: {one: value for one, value in sources.given.items() if one in part_keys}
        for part, part_keys in keys.items()
    }
    description = Description(
        name=name,
        terms=sources.checked(table(Terms), parts[Terms]),
        provider=sources.checked(table(Provider), parts[Provider]),
        layout=sources.checked(read_layout, parts[Layout]),
        catalogued=shipped,
        given=parts[Layout],
    )
    sources.checked(_agree, description)
    return description


@frozen(kw_only=True)
class _Sources:
    """The two files that a description is from, and which of them a key is from."""

    name: str
    own: Mapping[str, Any] = field(repr=False)
    doc: Document
    brought: Document | None

    @property
    def given(self) -> dict[str, Any]:
        """What both say; one's own key replaces the catalogue's, and C{file} its C{url}."""
        brought = dict(self.brought.data) if self.brought else {}
        if "file" in self.own:
            brought.pop("url", None)
        return {**brought, **self.own}

    def error(self, at: tuple[str | int, ...], expected: str) -> ConfigError:
        """An error that names the file that has this key."""
        if self.brought is None or not at or at[0] in self.own or at[0] not in self.brought.data:
            return self.doc.error(("feeds", self.name, *at), expected)
        return self.brought.error(at, expected)

    def checked(self, check: checks.Check, value: object) -> Any:
        """
        A checked value.

        :raises ConfigError: it is wrong.
        """
        try:
            return check(value, Surroundings(base_dir=self.doc.base_dir, environ={}))
        except Wrong as wrong:
            raise self.error(wrong.at, wrong.expected) from None


def _agree(value: object, around: Surroundings) -> None:
    """
    Whether the parts of a description go together.

    :raises Wrong: they don't.
    """
    assert isinstance(value, Description)
    provider, terms, layout = value.provider, value.terms, value.layout
    if bool(provider.url) == bool(provider.file):
        raise Wrong("expected either url or file", "file" if provider.url else "url")
    if layout.substring and not value.types & PART_TYPES:
        named = ", ".join(sorted(PART_TYPES))
        raise Wrong(f"is for feeds with indicators of {named}", "substring")
    if provider.taxii and layout.format != STIX:
        raise Wrong('is for format = "stix" alone', "taxii")
    if provider.taxii and "?" in provider.url:
        raise Wrong("expected no query: addresses are made of it", "url")
    if provider.collection and not provider.taxii:
        raise Wrong("is for taxii = true alone", "collection")
    if provider.url.startswith("http:") and not provider.insecure_http:
        raise Wrong("expected https:, or insecure_http = true", "url")
    host = urlsplit(provider.url).hostname or ""
    if why := why_host_refused(host, internal=provider.internal):
        raise Wrong(f"expected another host: {host} may not be asked, it is {why}", "url")
    if provider.password and not provider.user:
        raise Wrong("is missing beside password", "user")
    if provider.every_secs < provider.min_interval_secs:
        least = f"{provider.min_interval_secs:g}"
        raise Wrong(f"expected at least min_interval_secs, {least}", "every_secs")
    if value.enabled and not terms.commercial_use and not terms.terms:
        see = f": see {terms.licence}" if terms.licence else ""
        raise Wrong(f'expected terms = "accepted", for they bar commercial use{see}', "terms")
    said = (provider.url, *provider.headers.values())
    for name in SECRETS if value.enabled else ():
        if not getattr(provider, name) and any(_in_braces(name) in one for one in said):
            raise Wrong("is missing: the address or a header has it in braces", name)


@frozen
class Documented:
    """
    A key of a description, for its documentation.

    :ivar part: which table of the documentation it belongs to.
    """

    part: str
    name: str
    default: str
    about: str


def documented() -> Iterator[Documented]:
    """Every key that a description may have."""
    parts: tuple[tuple[str, type], ...] = (
        ("terms", Terms),
        ("provider", Provider),
        ("layout", Layout),
        ("indicators", Indicators),
        ("properties", PropertyRule),
        ("filters", Condition),
        ("lower", Lower),
    )
    for part, cls in parts:
        for name, attribute in keys_of(cls).items():
            required = attribute.default is attrs.NOTHING and not attribute.metadata["shown"]
            default = "(required)" if required else default_of(attribute)
            yield Documented(part, name, default, attribute.metadata["about"])
