"""
Which collections a server of TAXII 2.1 has: found by what people are given, the address of its
discovery or that of an API root.

U{https://docs.oasis-open.org/cti/taxii/v2.1/os/taxii-v2.1-os.html}, sections 4.1, 4.2 and 5.1.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import msgspec
from attrs import evolve, field, frozen

from ctsd.errors import OutboundError
from ctsd.remote import MASK, Remote, Reply
from ctsd.shown import safe_text

#: Asks for a resource.
Ask = Callable[[Remote], Awaitable[Reply]]

#: No more API roots of a server are looked at.
MAX_ROOTS: Final = 50

#: So many collections are named in an error, and so much of a title and of an address.
_NAMED: Final = 20
_TITLE_CHARS: Final = 80
_LINK_CHARS: Final = 300

_SECRET_CHARS: Final = 4

#: Statuses that say nothing but when to ask again.
_LATER: Final = frozenset({429, 503})

_PORTS: Final = {"http": 80, "https": 443}


@frozen(kw_only=True)
class _Collection:
    """What is looked at of a collection, section 5.2.1."""

    id: str = ""
    title: str = ""
    alias: str | None = None
    can_read: bool = True

    def is_called(self, name: str) -> bool:
        """Whether that is its id, its alias or its title."""
        own = filter(None, (self.id, self.alias, self.title))
        return name.casefold() in {each.casefold() for each in own}

    @property
    def shown(self) -> str:
        """It, for people."""
        barred = "" if self.can_read else ", may not be read"
        title = safe_text(self.title or self.alias or "", _TITLE_CHARS)
        return f"{title} ({safe_text(self.id, _TITLE_CHARS)}{barred})"


@frozen(kw_only=True)
class _Resource:
    """A discovery, an API root, a list of collections, or a collection."""

    api_roots: list[str] | None = None
    default: str | None = None
    collections: list[_Collection] | None = None
    id: str | None = None
    can_read: Any = None


@frozen(kw_only=True)
class _Listing:
    """
    What there is.

    :ivar found: each collection, and its address.
    :ivar left_out: the API roots that could not be looked at, and why.
    :ivar is_one: whether it is what a collection says of itself.
    """

    found: list[tuple[str, _Collection]] = field(factory=list)
    left_out: list[str] = field(factory=list)
    is_one: bool = False

    def told(self, remote: Remote) -> str:
        """All of it, for people: without secrets of ours, whatever a server says."""
        named = [collection.shown for _, collection in self.found]
        more = len(named) - _NAMED
        listed = ", ".join(named[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        told = [f"there are: {listed}"] if named else []
        text = "; ".join([*told, *self.left_out]) or "it lists none"
        for secret in remote.hidden:
            # A user's name is none, and what is very short stands in many words.
            if secret != remote.user and len(secret) >= _SECRET_CHARS:
                text = text.replace(secret, MASK)
        return text


async def find_collection(remote: Remote, name: str, ask: Ask) -> Remote | Reply:
    """
    Where a collection is.

    :param remote: a server's discovery, an API root, or the collection.
    :param name: its id, alias or title, in any case.
    :return: the collection; or the answer of a server that does not say, or not now.
    :raises OutboundError: there is no such collection, or it may not be read; the message says
        which there are. Or no server could be asked.
    """
    listing = await _list(remote, ask)
    if isinstance(listing, Reply):
        return listing
    called = [each for each in listing.found if each[1].is_called(name)]
    if len({collection.id for _, collection in called}) > 1:
        raise OutboundError(
            f"several collections are called so, say its id: {listing.told(remote)}"
        )
    if not called:
        raise OutboundError(f"no collection is called so: {listing.told(remote)}")
    # One that stands in several API roots is the same in each.
    (address, collection), *_ = called
    if not collection.can_read:
        raise OutboundError(f"this user may not read that collection: {listing.told(remote)}")
    return evolve(remote, url=address)


async def told_collections(remote: Remote, ask: Ask) -> str:
    """
    Which collections there are, for people, where an address turned out to be none's; empty when
    it is one's, or no resource of TAXII either.
    """
    try:
        listing = await _list(remote, ask)
    except OutboundError:
        return ""
    if isinstance(listing, Reply) or listing.is_one:
        return ""
    return listing.told(remote)


async def _list(remote: Remote, ask: Ask) -> _Listing | Reply:
    start = remote.url.rstrip("/") + "/"
    reply = await ask(evolve(remote, url=start))
    if reply.status == 404:
        raise OutboundError("nothing is there (404): url has to be a discovery or an API root")
    if reply.status != 200:
        return reply
    resource = _resource(reply)
    if resource.id is not None and resource.can_read is not None:
        one = msgspec.json.decode(reply.body, type=_Collection)
        return _Listing(found=[(start, one)], is_one=True)
    if resource.api_roots is None:
        return await _of_root(start, remote, ask)
    listing = _Listing()
    # The default first; it is listed, too.
    links = dict.fromkeys(filter(None, [resource.default, *resource.api_roots]))
    for link in [*links][:MAX_ROOTS]:
        address = _on_same_server(start, link)
        if address is None:
            listing.left_out.append(
                f"the API root {safe_text(link, _LINK_CHARS)} is on another server, which gets no "
                "credentials of ours: if it is right, let url be that"
            )
            continue
        of_root = await _of_root(address, remote, ask)
        if isinstance(of_root, Reply):
            return of_root
        listing.found.extend(of_root.found)
        listing.left_out.extend(of_root.left_out)
    return listing


async def _of_root(root: str, remote: Remote, ask: Ask) -> _Listing | Reply:
    asked = evolve(remote, url=root + "collections/")
    reply = await ask(asked)
    if reply.status in _LATER:
        return reply
    if reply.status != 200:
        # Each may have users of its own: section 4.2.
        told = f"the API root {safe_text(root, _LINK_CHARS)} can't be read ({reply.status})"
        return _Listing(left_out=[told])
    return _Listing(
        found=[
            (f"{asked.url}{quote(each.id, safe='')}/", each)
            for each in _resource(reply).collections or []
            if each.id
        ]
    )


def _resource(reply: Reply) -> _Resource:
    try:
        return msgspec.json.decode(reply.body, type=_Resource)
    except msgspec.DecodeError:
        raise OutboundError("its answer is no resource of TAXII 2.1") from None


def _on_same_server(start: str, link: str) -> str | None:
    """An API root's address; None when it is on another server than the one that names it."""
    try:
        one, other = urlsplit(start), urlsplit(urljoin(start, link))
        ports = one.port or _PORTS.get(one.scheme), other.port or _PORTS.get(other.scheme)
    except ValueError:
        return None
    # Servers behind a proxy that speaks TLS for them may not know it.
    is_behind_proxy = ports == (443, 80) and (one.scheme, other.scheme) == ("https", "http")
    is_same = ports[0] == ports[1] and one.scheme == other.scheme
    if one.hostname != other.hostname or not (is_same or is_behind_proxy):
        return None
    # What stands in braces in an address of ours is a secret's name; here it is but a text.
    path = other.path.rstrip("/").replace("{", "%7B").replace("}", "%7D") + "/"
    return urlunsplit((one.scheme, one.netloc, path, "", ""))
