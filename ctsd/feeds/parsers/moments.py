"""Times as providers write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

_SECONDS: Final = re.compile(r"[0-9]{9,11}(?:\.[0-9]+)?")

#: What stands behind UTC times that are no ISO 8601.
_UTC: Final = (" UTC", " GMT")


def moment(value: Any) -> float | None:
    """
    POSIX seconds of a time: ISO 8601, the same with a blank instead of the T, a date, or seconds;
    UTC where it does not say. None for anything else.
    """
    if isinstance(value, bool):
        return None
    text = str(value).strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    for end in _UTC:
        text = text.removesuffix(end)
    try:
        read = datetime.fromisoformat(text)
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
