"""
Whether a value can be what its artifact type says: one that can't would never be found. Pure.

Only types whose values have a form are looked at. Defanged values, and others in which
L{ctsd.indicator_forms} sees an indicator, are as good as the plain ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Final

from ctsd.indicator_forms import cve_form, hash_form, host_form, network
from ctsd.model import JSON
from ctsd.normal_forms import address, mac, octets
from ctsd.refanged import refanged, seen

_HEX: Final = re.compile(r"[0-9a-f]+")
_MAC: Final = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_CVE: Final = re.compile(r"CVE-[0-9]{4}-[0-9]{4,19}")
#: In no name of a host, however wide one sees that: blanks, and what parts a URL or an address.
_NOT_IN_NAMES: Final = re.compile(r"[\s/\\?#@<>\"]")

_MAX_PORT: Final = 65535


def _address(text: str) -> bool:
    # A part of an address (192.168.1) is found by the same part.
    if octets(address(text)) is not None:
        return True
    found = network(text)
    return found is not None and found.is_single


def _range(text: str) -> bool:
    if network(text) is not None:
        return True
    try:
        # A netmask stands for a prefix, too.
        ip_network(text.strip(), strict=False)
    except ValueError:
        return False
    return True


def _digits(count: int) -> Callable[[str], bool]:
    def fits(text: str) -> bool:
        form = hash_form(text)
        return len(form) == count and _HEX.fullmatch(form) is not None

    return fits


def _name(text: str) -> bool:
    form = host_form(text)
    if not form or _NOT_IN_NAMES.search(refanged(seen(text))) is not None:
        return False
    return ":" not in form or network(form) is not None


_TEXTS: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    "hash.md5": (_digits(32), "32 hex digits"),
    "hash.sha1": (_digits(40), "40 hex digits"),
    "hash.sha256": (_digits(64), "64 hex digits"),
    "net.cidr": (_range, "a range of IP addresses, e.g. 192.0.2.0/24"),
    "net.ip": (_address, "an IP address, e.g. 192.0.2.7; a range is net.cidr"),
    "net.mac": (lambda text: _MAC.fullmatch(mac(text)) is not None, "a MAC address"),
    "net.name": (_name, "a host's name, e.g. www.example.com; a URL is net.uri"),
    "threat.report.cve": (
        lambda text: _CVE.fullmatch(cve_form(text)) is not None,
        "a CVE's number, e.g. CVE-2021-44228",
    ),
}


def expected(type: str, value: JSON) -> str:
    """
    What a value of this type should be; empty when it may be that.

    :param value: in its type's shape, see L{ctsd.artifacts.shaped}, and not empty.
    """
    if type == "net.port":
        fits = isinstance(value, int) and 0 <= value <= _MAX_PORT
        return "" if fits else f"a port from 0 to {_MAX_PORT}"
    if type not in _TEXTS or not isinstance(value, str):
        return ""
    check, what = _TEXTS[type]
    return "" if check(value) else what
