"""Which addresses of the net may be asked. Pure."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias

_Address: TypeAlias = IPv4Address | IPv6Address

_THIS_NETWORK = ip_network("0.0.0.0/8")  # RFC 1122, 3.2.1.3

# What C{ipaddress} does not call private in all versions of Python that we run on.
_SPECIAL = tuple(
    map(
        ip_network,
        (
            "100.64.0.0/10",  # between providers and customers: RFC 6598; clouds' metadata, too
            "192.0.0.0/24",  # protocol assignments: RFC 6890; Oracle's metadata, too
            "192.88.99.0/24",  # relays of 6to4: RFC 7526
            "198.18.0.0/15",  # benchmarks: RFC 2544
            "240.0.0.0/4",  # reserved: RFC 1112, 4
            "100::/64",  # discarded: RFC 6666
            "fec0::/10",  # site-local: RFC 3879
        ),
    )
)

# Metadata of a cloud outside of the link-local addresses: Alibaba's, Oracle's, Azure's wire
# server (public, but answered by the host), Amazon's over IPv6.
_METADATA = frozenset(
    map(ip_address, ("100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254"))
)

# Networks of addresses that hold an IPv4 address, and by how many bits it is shifted.
_HOLDING_IPV4 = (
    (ip_network("::ffff:0:0/96"), 0),  # mapped: RFC 4291, 2.5.5.2
    (ip_network("::/96"), 0),  # compatible: RFC 4291, 2.5.5.1
    (ip_network("64:ff9b::/96"), 0),  # NAT64: RFC 6052
    (ip_network("2002::/16"), 80),  # 6to4: RFC 3056
)

# Addresses that lead to IPv4 addresses that can't be told from them for certain: local NAT64
# (RFC 8215) and Teredo (RFC 4380).
_TUNNELS = (ip_network("64:ff9b:1::/48"), ip_network("2001::/32"))


_NO_ADDRESS = "no address"
_WAY_OUT = "; internal = true allows a server of one's own"


def why_refused(host: str, *, internal: bool = False) -> str:
    """
    Empty when an address may be asked; else what kind of address it is.

    :param host: an IPv4 or IPv6 address, perhaps with a zone.
    :param internal: whether private and loopback addresses may be asked. Link-local ones, the
        metadata services of clouds, multicast and the unspecified address never may.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return _NO_ADDRESS
    inner = _inner(address)
    if inner is None:
        return _why(address, internal)
    why = _why(inner, internal)
    return why and f"{why}, inside of an IPv6 address"


def why_host_refused(host: str, *, internal: bool = False, own: bool = True) -> str:
    """
    What can be said of the host of a URL without resolving it; empty when that is nothing.

    :param host: a name, or an address, also as resolvers read one (C{0x7f.1}, C{2130706433}).
    :param internal: see L{why_refused}.
    :param own: see L{way_out}.
    :return: what kind of address it is, and how to have it asked all the same, if there is a way.
    """
    host = host.lower().rstrip(".")
    if f".{host}".endswith(".localhost"):
        host = "127.0.0.1"
    elif ":" not in host:
        try:
            # By POSIX: getaddrinfo takes what inet_addr takes.
            host = socket.inet_ntoa(socket.inet_aton(host))
        except (OSError, UnicodeEncodeError):
            return ""  # a name
    why = why_refused(host, internal=internal)
    return "" if why == _NO_ADDRESS else why and why + way_out(host, own=own)


def way_out(address: str, *, own: bool = True) -> str:
    """
    What to say of an address that was refused: that it may be asked with C{internal = true}; empty
    when it may not even then.

    :param own: whether it is that of the source's own host: others never may.
    """
    return "" if not own or why_refused(address, internal=True) else _WAY_OUT


def _why(address: _Address, internal: bool) -> str:
    if address in _METADATA:
        return "a cloud's metadata service"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified or address in _THIS_NETWORK:
        return "the unspecified address"
    if any(address in network for network in _TUNNELS):
        return "a tunnel's address"
    if internal:
        return ""
    if address.is_loopback:
        return "a loopback address"
    if not address.is_global or any(address in network for network in _SPECIAL):
        return "a private or reserved address"
    return ""


def _inner(address: _Address) -> IPv4Address | None:
    """The IPv4 address that packets to an IPv6 address end up at, if that can be told."""
    number = int(address)
    # `::` and `::1` are addresses of their own.
    if isinstance(address, IPv4Address) or number <= 1:
        return None
    for network, shift in _HOLDING_IPV4:
        if address in network:
            return IPv4Address(number >> shift & 0xFFFFFFFF)
    return None
