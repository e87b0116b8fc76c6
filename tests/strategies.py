"""
Hypothesis strategies for every value of L{ctsd.model}, for all tests.

Texts are nasty on purpose: NUL, lone surrogates (two that are side by side, too), bidi and
zero-width characters, and things that look like what they are not.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from ctsd.artifacts import SHAPES, Shape
from ctsd.model import (
    FILE,
    JSON,
    NOTHING,
    PASSWORD,
    Artifact,
    EncodedHit,
    Ended,
    File,
    Hit,
    Outcome,
    Property,
    Scan,
    ScanState,
    ScanView,
    Search,
    Suppressed,
    Threat,
)
from ctsd.records import Finds, Matches, Record
from ctsd.wire import encode_hits

_NASTY = [
    "",
    " ",
    "\x00",
    "a\x00b",
    "\ud800",
    "\ud83d\ude00",
    "\u202egnp.exe",
    "a\u200bb",
    "\ufeff",
    "\r\n",
    "%",
    "_",
    '"\\',
    "\U0001f600",
    "x" * 200,
]

#: Any Python text at all, lone surrogates included.
texts = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
    st.text(st.characters(), max_size=30),
    st.text(st.characters(categories=None), max_size=30),
    st.sampled_from(_NASTY),
)

#: What has to be a name, or something else that is never empty.
names = texts.filter(lambda text: bool(text.strip()))

#: Numbers that JSON can say.
numbers = st.one_of(
    st.integers(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(allow_nan=False, allow_infinity=False),
)

#: Any JSON value.
json_values: st.SearchStrategy[JSON] = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)

#: POSIX seconds.
dates = st.one_of(
    st.integers(min_value=0, max_value=4_000_000_000).map(float),
    st.floats(min_value=0, max_value=4e9),
)

service_names = st.from_regex(r"[a-z][a-z0-9_-]{0,15}", fullmatch=True)
searcher_names = st.from_regex(r"[a-z][a-z0-9_]{0,15}", fullmatch=True)
scan_ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
digests = st.binary(min_size=16, max_size=16)

#: IPv4 and IPv6 addresses in any spelling that is theirs.
addresses = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded.upper()),
    st.ip_addresses(v=4).map("::ffff:{}".format),
)
_labels = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?", fullmatch=True)
domains = st.lists(
    st.one_of(_labels, st.sampled_from(["münchen", "BÜCHER", "xn--mnchen-3ya"])),
    min_size=2,
    max_size=4,
).map(".".join)
_paths = st.sampled_from(
    ["", "/", "/login", "/Login", "/a/../b", "/%7Ea?q=1", "/ä b", "/x#frag", ":80/", ":8443/x"]
)
urls = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["http://", "HTTPS://", "ftp://", "http://user:pw@", "hxxp://"]),
    st.one_of(domains, st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map("[{}]".format)),
    _paths,
    st.sampled_from(["", "", " ", "\n"]),
)


def _hex(digits: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdefABCDEF", min_size=digits, max_size=digits)


_LIKELY: dict[str, st.SearchStrategy[str]] = {
    "email.header.sender_address": st.emails(),
    "hash.md5": _hex(32),
    "hash.sha1": _hex(40),
    "hash.sha256": _hex(64),
    "net.cidr": st.builds("{}/{}".format, st.ip_addresses(v=4), st.integers(0, 32)),
    "net.ip": addresses,
    "net.mac": st.builds(
        lambda pairs, sign: sign.join(pairs),
        st.lists(_hex(2), min_size=6, max_size=6),
        st.sampled_from([":", "-", ""]),
    ),
    "net.name": domains,
    "net.uri": urls,
    "threat.report.cve": st.builds("CVE-{}-{}".format, st.integers(1999, 2030), st.integers(1)),
}


def values_of(type: str) -> st.SearchStrategy[JSON]:
    """Values in the shape of this artifact type, never empty."""
    shape = SHAPES[type]
    if shape is Shape.NUMBER:
        return st.integers(0, 65535)
    if shape is Shape.STRINGS:
        return st.lists(st.one_of(st.emails(), names), min_size=1, max_size=4).map(list)
    if shape is Shape.NAME_VALUE:
        return st.fixed_dictionaries({"name": names, "value": texts})
    if shape is Shape.REGISTRY:
        return st.fixed_dictionaries(
            {"key": names}, optional={"entry_name": texts, "entry_value": texts}
        )
    return st.one_of(_LIKELY.get(type, names), names)


#: The artifact types that we know.
artifact_types = st.sampled_from(sorted(SHAPES))
#: Those whose artifacts may be written down.
storable_types = st.sampled_from(sorted(set(SHAPES) - {PASSWORD, FILE}))

files: st.SearchStrategy[File] = st.builds(
    File,
    path=st.from_regex(r"/var/spool/[a-z0-9]{1,16}", fullmatch=True).map(Path),
    name=texts,
    size=st.integers(min_value=0, max_value=2**40),
    md5=_hex(32).map(str.lower),
    sha1=_hex(40).map(str.lower),
    sha256=_hex(64).map(str.lower),
    content_type=st.sampled_from(["application/octet-stream", "text/plain; charset=utf-8"]),
)


def artifacts(
    types: st.SearchStrategy[str] = storable_types, *, with_files: bool = False
) -> st.SearchStrategy[Artifact]:
    """Artifacts in their types' shapes, not empty; by default such that may be stored."""
    some_file = st.one_of(st.none(), files) if with_files else st.none()
    return types.flatmap(
        lambda type: st.builds(Artifact, st.just(type), values_of(type), some_file)
    )


properties: st.SearchStrategy[Property] = st.one_of(
    st.builds(Property, st.sampled_from(["string", "number", "uri", "ip"]), names, names),
    st.builds(Property, st.just("number"), names, numbers),
    st.builds(Property, st.just("ip"), names, addresses),
    st.builds(
        Property,
        st.just("lat_lng"),
        names,
        st.fixed_dictionaries({"lat": st.floats(-90, 90), "lng": st.floats(-180, 180)}),
    ),
)

#: Properties as a careless searcher makes them.
any_properties: st.SearchStrategy[Property] = st.builds(
    Property,
    st.one_of(st.sampled_from(["string", "number", "uri", "ip", "lat_lng", "latlng"]), texts),
    texts,
    st.one_of(
        json_values,
        st.floats(),
        st.fixed_dictionaries({"lat": st.floats() | texts, "lng": st.floats() | texts}),
    ),
)
property_tuples = st.lists(properties, max_size=5).map(tuple)

hits: st.SearchStrategy[Hit] = st.builds(
    Hit, st.lists(properties, min_size=1, max_size=8).map(tuple)
)
any_hits: st.SearchStrategy[Hit] = st.builds(Hit, st.lists(any_properties, max_size=40).map(tuple))
encoded_hits: st.SearchStrategy[tuple[EncodedHit, ...]] = st.lists(hits, max_size=4).map(
    encode_hits
)

threats: st.SearchStrategy[Threat] = st.builds(
    Threat,
    name=names,
    artifacts=st.lists(artifacts(), min_size=1, max_size=3).map(tuple),
    properties=property_tuples,
    searcher=st.one_of(st.just(""), searcher_names),
    source=st.one_of(st.just(b""), digests),
    note=texts,
    expires=st.one_of(st.none(), dates),
    created=dates,
)
#: As a person enters them.
entered_threats: st.SearchStrategy[Threat] = st.builds(
    Threat,
    name=names,
    artifacts=st.lists(artifacts(), min_size=1, max_size=3).map(tuple),
    properties=property_tuples,
    note=texts,
    expires=st.one_of(st.none(), st.integers(0, 4_000_000_000).map(float)),
)
finds: st.SearchStrategy[Finds] = st.builds(
    Finds, searcher=searcher_names, source=digests, threats=st.lists(threats, max_size=2).map(tuple)
)

suppressed: st.SearchStrategy[tuple[Suppressed, ...]] = st.lists(
    st.builds(Suppressed, texts, texts, texts), max_size=2
).map(tuple)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.just(NOTHING),
    st.builds(
        Outcome,
        st.just(Ended.NOTHING),
        suppressed=suppressed,
        suppressed_more=st.integers(0, 1000),
    ),
    st.builds(Outcome, st.just(Ended.FOUND), encoded_hits.filter(bool), suppressed=suppressed),
    st.builds(
        Outcome,
        st.sampled_from([Ended.FAILED, Ended.LATER]),
        reason=texts,
        after_secs=st.one_of(st.none(), st.floats(0, 1e6)),
        final=st.booleans(),
        missing=st.lists(texts, max_size=2).map(tuple),
        suppressed=suppressed,
    ),
)
searches: st.SearchStrategy[Search] = st.builds(
    Search,
    searcher=searcher_names,
    outcome=st.one_of(st.none(), outcomes),
    tries=st.integers(0, 100),
    due=st.one_of(st.none(), dates),
    holder=st.one_of(st.just(""), searcher_names),
    takeovers=st.integers(0, 3),
    deaths=st.integers(0, 3),
)
scans: st.SearchStrategy[Scan] = st.builds(
    Scan,
    id=scan_ids,
    service=st.one_of(st.just(""), service_names),
    state=st.sampled_from(ScanState),
    created=dates,
    deadline=dates,
    digest=st.one_of(st.just(b""), digests),
    artifact=st.one_of(st.none(), artifacts(with_files=True)),
    searches=st.lists(searches, max_size=3, unique_by=lambda search: search.searcher).map(tuple),
)
views: st.SearchStrategy[ScanView] = st.builds(
    ScanView,
    id=scan_ids,
    finished=st.booleans(),
    hits=encoded_hits,
    retry_secs=st.integers(-1, 10_000),
)

records: st.SearchStrategy[Record] = artifacts().flatmap(
    lambda artifact: st.builds(
        Record,
        type=st.just(artifact.type),
        value=st.just(artifact.value),
        name=texts,
        properties=property_tuples,
        threat_id=st.integers(0, 2**40),
        searcher=st.one_of(st.just(""), searcher_names),
        source=st.one_of(st.just(b""), digests),
        expires=st.one_of(st.none(), dates),
    )
)
matches: st.SearchStrategy[Matches] = st.builds(
    Matches,
    records=st.lists(records, max_size=3).map(tuple),
    more=st.integers(0, 1000),
    at_least=st.booleans(),
)
