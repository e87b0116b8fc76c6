r"""
Values as people and reports write them: defanged (C{hxxp}, C{[.]}), with blanks and with
characters that nobody sees. Pure.
"""

from __future__ import annotations

import re
from typing import Final

#: Characters without width, soft hyphens and marks of direction: none of them is part of a name,
#: an address or a URL, and all of them come along when text is copied.
_UNSEEN: Final = dict.fromkeys(
    [
        0x00AD,
        0x180E,
        *range(0x200B, 0x2010),
        *range(0x202A, 0x202F),
        *range(0x2060, 0x2065),
        *range(0x2066, 0x206A),
        0xFEFF,
    ]
)

#: What a value may be defanged with; hardly any has one of these, which is found out first.
_FANGED_SCHEMES: Final = ("hxx", "h**", "fxp")

#: A URL's scheme and what follows it, its authority, and the rest.
_PARTS: Final = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.*\-]*)\s*(?P<sign>\[:\]//|\[://\]|:\[//\]|://))?"
    r"(?P<authority>[^/?#\\]*(?:\\\.[^/?#\\]*)*)(?P<rest>.*)",
    re.DOTALL,
)
_SCHEMES: Final = re.compile(r"(?:h(?:xx|\*\*)|(f)x)p(s?)", re.IGNORECASE)

#: A sign in brackets. C{[:]} stands in no IPv6 literal: these have two colons side by side.
_BRACKETED: Final = re.compile(
    r"\s*(?:\[\s*(?P<a>[.:@]|dot|at)\s*\]"
    r"|\(\s*(?P<b>[.@]|dot|at)\s*\)"
    r"|\{\s*(?P<c>[.@]|dot|at)\s*\}"
    r"|\\(?P<d>\.))\s*",
    re.IGNORECASE,
)
_WORDS: Final = {"dot": ".", "at": "@"}


def seen(text: str) -> str:
    """A text without the blanks around it and the characters that nobody sees."""
    return (text if text.isascii() else text.translate(_UNSEEN)).strip()


def squeezed(text: str) -> str:
    """The same, without any blank: for what can't have one, such as a hash or an address."""
    return "".join((text if text.isascii() else text.translate(_UNSEEN)).split())


def _sign(found: re.Match[str]) -> str:
    sign = found[found.lastgroup or 0]
    return _WORDS.get(sign.lower(), sign)


def refanged(text: str) -> str:
    """
    A defanged value as it was: C{hxxps[:]//evil[.]example/x} is C{https://evil.example/x}.

    Only a value whose scheme or host was defanged is changed, for C{[.]} in a path may be meant.
    IPv6 literals stay as they are.
    """
    if (
        "[" not in text
        and "(" not in text
        and "{" not in text
        and "\\" not in text
        and text[:3].lower() not in _FANGED_SCHEMES
    ):
        return text
    parts = _PARTS.fullmatch(text)
    if parts is None:
        return text
    scheme, sign, authority, rest = parts["scheme"] or "", parts["sign"] or "", *parts.group(3, 4)
    spelled = _SCHEMES.fullmatch(scheme)
    if spelled is not None:
        scheme = f"{'ftp' if spelled[1] else 'http'}{spelled[2].lower()}"
    plain = _BRACKETED.sub(_sign, authority)
    if scheme == (parts["scheme"] or "") and sign in ("", "://") and plain == authority:
        return text
    return f"{scheme}{'://' if sign else ''}{plain}{_BRACKETED.sub(_sign, rest)}"


__all__ = ["refanged", "seen", "squeezed"]
