"""
What MISP and STIX call their indicators, which artifact types these are, and what of them is
looked at unless a description says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_HASHES: Final = {"md5": "hash.md5", "sha1": "hash.sha1", "sha256": "hash.sha256"}

#: MISP's attribute types (U{https://www.misp-project.org/datamodels/}). The others are no
#: indicators of ours: rules, payloads, texts, and what is no single value.
MISP: Final[Mapping[str, str]] = {
    **_HASHES,
    **{f"filename|{name}": f"file.name|{type}" for name, type in _HASHES.items()},
    "domain": "net.name",
    "domain|ip": "net.name|net.ip",
    "email": "email.header.sender_address",
    "email-dst": "email.header.sender_address",
    "email-src": "email.header.sender_address",
    "filename": "file.name",
    "filename|ssdeep": "file.name|hash.fuzzy",
    "hostname": "net.name",
    "hostname|port": "net.name|-",
    "ip-dst": "net.ip",
    "ip-dst|port": "net.ip|-",
    "ip-src": "net.ip",
    "ip-src|port": "net.ip|-",
    "mac-address": "net.mac",
    "mutex": "system.mutex",
    "ssdeep": "hash.fuzzy",
    "uri": "net.uri.path",
    "url": "net.uri",
    "vulnerability": "threat.report.cve",
    "windows-service-name": "system.service.name",
    "x509-fingerprint-sha1": "cert.x509",
}

#: The paths of STIX' patterns (U{https://docs.oasis-open.org/cti/stix/v2.1/}, sections 6 and 9),
#: without quotes.
STIX: Final[Mapping[str, str]] = {
    "domain-name:value": "net.name",
    "email-addr:value": "email.header.sender_address",
    "file:hashes.MD5": "hash.md5",
    "file:hashes.SHA-1": "hash.sha1",
    "file:hashes.SHA-256": "hash.sha256",
    "file:hashes.SSDEEP": "hash.fuzzy",
    "file:name": "file.name",
    "ipv4-addr:value": "net.ip",
    "ipv6-addr:value": "net.ip",
    "mac-addr:value": "net.mac",
    "mutex:name": "system.mutex",
    "url:value": "net.uri",
    "x509-certificate:hashes.SHA-1": "cert.x509",
}

#: What the formats bring along; a description's own key replaces it.
BROUGHT: Final[Mapping[str, Mapping[str, Any]]] = {
    "misp": {
        "rows": "Event",
        "indicators": [{"field": "value", "kind": "type", "types": dict(MISP)}],
        "filters": [
            {"field": "to_ids", "equals": True},
            {"field": "deleted", "not_equals": True},
        ],
        "properties": {
            "indicator": "value",
            "event": "event.info",
            "date": "event.date",
            "category": "category",
            "comment": "comment",
            "tags": "event.Tag.*.name",
        },
        "name": "{event.info}",
    },
    "stix": {
        "rows": "objects.*",
        "indicators": [{"field": "observed.value", "kind": "observed.kind", "types": dict(STIX)}],
        "filters": [
            {"field": "type", "equals": "indicator"},
            {"field": "pattern_type", "equals": ["stix", ""]},
            {"field": "revoked", "not_equals": True},
        ],
        "properties": {
            "name": "name",
            "description": "description",
            "labels": "labels.*",
            "confidence": {"field": "confidence", "type": "number"},
            "valid_from": "valid_from",
        },
        "name": "{name}",
        "valid_until": "valid_until",
    },
}
