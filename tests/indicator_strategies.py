"""
Hypothesis strategies for feeds and for artifacts that find something in them: from small pools, in
the spellings that people and reports use.
"""

from __future__ import annotations

from hypothesis import strategies as st

from ctsd.model import JSON, Artifact, Property
from ctsd.records import Derived, Record

HOSTS = [
    "evil.example",
    "www.evil.example",
    "a.b.www.evil.example",
    "evil.co.uk",
    "shop.evil.co.uk",
    "co.uk",
    "mine.github.io",
    "github.io",
    "bucket.s3.amazonaws.com",
    "s3.amazonaws.com",
    "amazonaws.com",
    "münchen.example",
    "xn--mnchen-3ya.example",
    "Evil.Example.",
    "localhost",
    "010.1.1.1",
]
ADDRESSES = [
    "192.0.2.1",
    "192.0.2.2",
    "192.0.3.1",
    "::ffff:192.0.2.1",
    "2001:db8::1",
    "2001:DB8:0::1",
    "2001:db8:1::1",
]

hosts = st.sampled_from(HOSTS)
addresses = st.sampled_from(ADDRESSES)
ranges = st.one_of(
    st.builds("{}/{}".format, addresses.filter(lambda text: ":" not in text), st.integers(12, 32)),
    st.builds("{}/{}".format, st.sampled_from(ADDRESSES[4:]), st.integers(28, 128)),
    st.sampled_from(["::ffff:192.0.2.0/120", "192.0.2.0/24", "0.0.0.0/0", "::/0"]),
)
_paths = st.sampled_from(
    ["", "/", "/login", "/Login", "/a/../login", "/login?q=1", "/login#part", "/?", "/ü", "/a[.]b"]
)
_places = st.one_of(
    hosts,
    st.sampled_from(["192.0.2.1", "192.0.3.1", "[2001:db8::1]", "[::ffff:192.0.2.1]"]),
)
urls = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["http://", "https://", "HTTP://", "ftp://", "", "tcp://"]),
    st.sampled_from(["", "", "", "user:pw@"]),
    _places,
    st.sampled_from(["", "", ":80", ":443", ":8080"]),
    _paths,
)
boxes = st.builds("{}@{}".format, st.sampled_from(["bob", "Bob", "al.ice"]), hosts)
hashes = {
    "hash.md5": st.sampled_from(["d" * 32, "D" * 32, "e" * 32]),
    "hash.sha1": st.sampled_from(["d" * 40, "D" * 40]),
    "hash.sha256": st.sampled_from(["d" * 64, "e" * 64]),
}


@st.composite
def spelled(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    """A value as it may be written: defanged, with blanks, with what nobody sees."""
    text = draw(values)
    if draw(st.booleans()):
        dot = draw(st.sampled_from(["[.]", "(.)", "[dot]", "{.}"]))
        head, sign, rest = text.partition("/") if "://" not in text else (text, "", "")
        text = head.replace(".", dot) + sign + rest
    if draw(st.booleans()) and text[:4].lower() == "http":
        text = "hxxp" + text[4:]
    if draw(st.booleans()) and "://" in text:
        text = text.replace("://", draw(st.sampled_from(["[://]", "[:]//"])), 1)
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(["\u200b", "\ufeff", "\u00ad"])) + text[at:]
    if draw(st.booleans()):
        text = draw(st.sampled_from([" ", "\n", "\t"])) + text + " "
    return text


VALUES: dict[str, st.SearchStrategy[JSON]] = {
    "net.uri": spelled(urls),
    "net.name": spelled(
        st.one_of(hosts, st.builds("{}:443".format, hosts), st.builds("*.{}".format, hosts))
    ),
    "net.ip": spelled(
        st.one_of(
            addresses,
            ranges,
            st.builds("{}:443".format, addresses.filter(lambda text: ":" not in text)),
            st.sampled_from(["[2001:db8::1]:443", "2001:db8::1%eth0", "192.0.2.1.", "192.0.2.256"]),
        )
    ),
    "net.cidr": spelled(st.one_of(ranges, addresses)),
    "email.header.sender_address": spelled(
        st.one_of(boxes, st.builds("Bob <{}>".format, boxes), st.builds("mailto:{}".format, boxes))
    ),
    "email.header.to": st.lists(boxes, max_size=2).map(list),
    "threat.report.cve": st.sampled_from(["CVE-2021-44228", "cve-2021-44228 ", "CVE-2020-1"]),
    "threat.malware.family": st.sampled_from(
        ["Agent Tesla", "win.agent_tesla", "AgentTesla", "Mirai", "elf.mirai", "--"]
    ),
    "file.name": st.sampled_from(["Bad.exe", "bad.exe", "good.exe"]),
    "process.name": st.sampled_from(["Bad.exe", "bad.exe", "good.exe"]),
    "email.header.sender_name": st.sampled_from(["Bob", "bob", " Bob "]),
    "cert.x509": st.sampled_from(
        ["d" * 40, ":".join(["DD"] * 20), "e" * 40, "no certificate", "No certificate"]
    ),
    "string": st.sampled_from(["some words", "other words"]),
    "email.header": st.fixed_dictionaries(
        {"name": st.sampled_from(["From", "Reply-To", "Subject"]), "value": boxes}
    ),
    "net.http.request.header": st.one_of(
        st.fixed_dictionaries({"name": st.just("Referer"), "value": urls}),
        st.fixed_dictionaries({"name": st.just("host"), "value": hosts}),
    ),
    **hashes,
}
_types = st.sampled_from(sorted(VALUES))


@st.composite
def records(draw: st.DrawFn) -> Record:
    """A record of a feed."""
    type = draw(_types)
    return Record(
        type=type,
        value=draw(VALUES[type]),
        properties=(Property("number", "id", draw(st.integers(0, 999))),),
        expires=draw(st.sampled_from([None, None, 50.0, 150.0])),
    )


feeds = st.dictionaries(
    st.sampled_from(["alpha", "beta", "gamma"]), st.lists(records(), max_size=12), max_size=3
)
artifacts = _types.flatmap(lambda type: st.builds(Artifact, st.just(type), VALUES[type]))
_within = st.sampled_from(
    [
        "net.uri",
        "net.name",
        "net.ip",
        "net.cidr",
        "email.header.sender_address",
        "hash.md5",
        "threat.report.cve",
        "file.name",
    ]
)
derived = st.lists(
    st.builds(
        Derived,
        _within.flatmap(lambda type: st.builds(Artifact, st.just(type), VALUES[type])),
        st.sampled_from(["URL in the text", "host in the text"]),
    ),
    max_size=2,
)
