"""
Whether a value can be an indicator of a type: what a provider's page of apologies, or a shifted
column, does not pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from ctsd.indicator_forms import (
    certificate_form,
    cve_form,
    email_form,
    family_form,
    hash_form,
    host_form,
    network,
    network_form,
    url_form,
)
from ctsd.normal_forms import normal
from ctsd.plausible import expected
from ctsd.refanged import refanged

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_DIGITS: Final = re.compile(r"[0-9.]+")
_CVE: Final = re.compile(r"CVE-[0-9]{4}-[0-9]{4,19}")
_MAC: Final = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_FUZZY: Final = re.compile(r"[0-9]+:[A-Za-z0-9+/]+:[A-Za-z0-9+/]+")

#: What goes from a URL wherever it stands, and parts two columns or two lines.
_PARTED: Final = re.compile(r"[\t\r\n]")

#: Where a URL's path, query or fragment begins.
_BEFORE_PATH: Final = re.compile(r"[/?#\\]")

#: A part of an IPv4 address, perhaps with zeros before it.
_PART: Final = re.compile(r"0?[0-9]{1,2}|1[0-9]{2}|2[0-4][0-9]|25[0-5]")

#: The longest name of the DNS in text (RFC 1035, 2.3.4).
_NAME_CHARS: Final = 253


def _hash(digits: int) -> Callable[[str], bool]:
    matches = re.compile(rf"[0-9a-f]{{{digits}}}").fullmatch
    return lambda text: matches(hash_form(text)) is not None


def _is_address(text: str) -> bool:
    found = network_form(text)
    if found is None:
        # One whose parts are octal to some and decimal to others is the same as itself.
        parts = text.split(".")
        return len(parts) == 4 and all(_PART.fullmatch(part) for part in parts)
    return found.is_single


def _is_network(text: str) -> bool:
    return "/" in text and network_form(text) is not None


def _is_host(form: str) -> bool:
    return (
        len(form) <= _NAME_CHARS
        and _NAME.fullmatch(form) is not None
        and not _DIGITS.fullmatch(form)
    )


def _is_name(text: str) -> bool:
    # Blanks go from a name; but in "0.0.0.0 evil.example" there are two.
    return _is_host(host_form(text)) and not expected("net.name", text)


def _is_url(text: str) -> bool:
    found = url_form(text)
    if found is None or not found.host:
        return False
    if found.scheme:
        return True
    # What says no scheme has to look like a host, at least; "Forbidden" does not, nor do two.
    is_place = _is_host(found.host) or network(found.host) is not None
    if _PARTED.search(text.strip()) is not None:
        return False
    # An e-mail address is none: it would make a page of its provider.
    return is_place and "@" not in _BEFORE_PATH.split(refanged(text), maxsplit=1)[0]


def _is_sender(text: str) -> bool:
    found = email_form(text)
    return found is not None and _is_host(found[1])


_FITS: Final[Mapping[str, tuple[Callable[[str], object], str]]] = {
    "cert.x509": (certificate_form, "SHA-1 fingerprint"),
    "email.header.sender_address": (_is_sender, "e-mail address"),
    "hash.fuzzy": (_FUZZY.match, "fuzzy hash"),
    "hash.md5": (_hash(32), "MD5"),
    "hash.sha1": (_hash(40), "SHA-1"),
    "hash.sha256": (_hash(64), "SHA-256"),
    "net.cidr": (_is_network, "network"),
    "net.ip": (_is_address, "IP address"),
    "net.mac": (lambda text: _MAC.fullmatch(normal("net.mac", text)), "MAC address"),
    "net.name": (_is_name, "host name"),
    "net.uri": (_is_url, "URL"),
    "threat.malware.family": (family_form, "name"),
    "threat.report.cve": (lambda text: _CVE.fullmatch(cve_form(text)), "CVE id"),
}


def check_of(type: str) -> Callable[[str], object] | None:
    """What is true of the values that L{fits} this type; None where any value may."""
    fit = _FITS.get(type)
    return None if fit is None else fit[0]


def fits(type: str, value: str) -> str:
    """Empty when a value can be an indicator of this type; else why not."""
    fit = _FITS.get(type)
    if fit is None:
        return "" if normal(type, value) else "is empty"
    check, what = fit
    return "" if check(value) else f"is no {what}"
