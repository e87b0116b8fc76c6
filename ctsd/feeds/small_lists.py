"""
The warninglists that are always there: short, and beyond doubt.
"""

from __future__ import annotations

import hashlib

from ctsd.feeds.warninglists import CIDR, STRING, Warninglist

#: Addresses that mean another thing in every network (IANA's registries of special-purpose
#: addresses, RFC 6890), and multicast (RFC 5771, RFC 4291).
_SPECIAL = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
)

#: As their operators give them: Google, Cloudflare, Quad9, OpenDNS.
_RESOLVERS = (
    "8.8.8.8",
    "8.8.4.4",
    "2001:4860:4860::8888",
    "2001:4860:4860::8844",
    "dns.google",
    "1.1.1.1",
    "1.0.0.1",
    "2606:4700:4700::1111",
    "2606:4700:4700::1001",
    "one.one.one.one",
    "cloudflare-dns.com",
    "9.9.9.9",
    "149.112.112.112",
    "2620:fe::fe",
    "2620:fe::9",
    "dns.quad9.net",
    "208.67.222.222",
    "208.67.220.220",
    "2620:119:35::35",
    "2620:119:53::53",
)

#: Sites that everybody uses: feeds list pages on them, and sometimes, by mistake, all of them.
_POPULAR = (
    "amazon.com",
    "apple.com",
    "bing.com",
    "facebook.com",
    "google.com",
    "instagram.com",
    "linkedin.com",
    "live.com",
    "microsoft.com",
    "office.com",
    "outlook.com",
    "twitter.com",
    "wikipedia.org",
    "x.com",
    "yahoo.com",
    "youtube.com",
)

#: Hosts on which anybody puts things: what is listed there says nothing of the rest.
_SHARED = (
    "1drv.ms",
    "api.telegram.org",
    "bit.ly",
    "bitbucket.org",
    "cdn.discordapp.com",
    "cdn.jsdelivr.net",
    "cloudflare-ipfs.com",
    "cutt.ly",
    "docs.google.com",
    "drive.google.com",
    "dropbox.com",
    "forms.gle",
    "forms.office.com",
    "gist.github.com",
    "gitlab.com",
    "github.com",
    "goo.gl",
    "ipfs.io",
    "is.gd",
    "lnkd.in",
    "mediafire.com",
    "mega.nz",
    "onedrive.live.com",
    "ow.ly",
    "pastebin.com",
    "raw.githubusercontent.com",
    "rb.gy",
    "rebrand.ly",
    "s3.amazonaws.com",
    "sites.google.com",
    "storage.googleapis.com",
    "t.co",
    "t.me",
    "t.ly",
    "telegra.ph",
    "tinyurl.com",
    "transfer.sh",
    "unpkg.com",
    "web.archive.org",
)


def built_in() -> tuple[Warninglist, ...]:
    """The lists."""
    empty = [
        hashlib.new(name, b"", usedforsecurity=False).hexdigest()
        for name in ("md5", "sha1", "sha256")
    ]
    popular = [*_POPULAR, *(f"www.{host}" for host in _POPULAR)]
    return (
        Warninglist("Special-purpose addresses", CIDR, _SPECIAL),
        Warninglist("Public resolvers", STRING, _RESOLVERS),
        Warninglist("Hashes of the empty file", STRING, empty),
        Warninglist("Popular sites", STRING, popular),
        Warninglist("Shared hosts and shorteners", STRING, _SHARED),
    )
