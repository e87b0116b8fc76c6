"""What L{ctsd.interfaces.store.IShared} does, as steps."""

from __future__ import annotations

from ctsd.store.rows import name_digest
from ctsd.store.steps import Change, Query, Steps, take


def lease(name: str, holder: str, secs: float, now: float) -> Steps[int | None]:
    """Take or renew a lease: its fencing token, or None while another holder has it."""
    key = name_digest(name)
    rows = yield Query("SELECT holder, token, expires FROM leases WHERE name = ?", (key,))
    if rows and rows[0][0] != holder and rows[0][2] > now:
        return None
    if rows and rows[0][0] == holder:
        token: int = rows[0][1]
    else:
        token = yield from take("token", 1)
    yield Change(
        "INSERT INTO leases (name, holder, token, expires) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, token = excluded.token,"
        " expires = excluded.expires",
        (key, holder, token, now + secs),
    )
    return token


def release(name: str, holder: str, now: float) -> Steps[None]:
    """Give a lease back."""
    yield Change(
        "UPDATE leases SET expires = ? WHERE name = ? AND holder = ? AND expires > ?",
        (now, name_digest(name), holder, now),
    )


def count(name: str, window_secs: float, amount: int, now: float) -> Steps[int]:
    """Add to a counter of the current window; the new sum."""
    key = name_digest(name)
    ends = (now // window_secs + 1) * window_secs
    # Another date than ours is another window, also after the clock was set back.
    yield Change(
        "INSERT INTO counters (name, value, expires) VALUES (?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET expires = excluded.expires, value = excluded.value"
        " + CASE WHEN counters.expires = excluded.expires THEN counters.value ELSE 0 END",
        (key, amount, ends),
    )
    rows = yield Query("SELECT value FROM counters WHERE name = ?", (key,))
    value: int = rows[0][0]
    return value


def get(key: str, now: float) -> Steps[bytes | None]:
    """The value under a key."""
    rows = yield Query(
        "SELECT value FROM pairs WHERE name = ? AND expires > ?", (name_digest(key), now)
    )
    return bytes(rows[0][0]) if rows else None


def put(key: str, value: bytes, secs: float, now: float) -> Steps[None]:
    """Keep a value."""
    yield Change(
        "INSERT INTO pairs (name, value, expires) VALUES (?, ?, ?) ON CONFLICT (name)"
        " DO UPDATE SET value = excluded.value, expires = excluded.expires",
        (name_digest(key), value, now + secs),
    )


def drop(key: str) -> Steps[None]:
    """Forget a key."""
    yield Change("DELETE FROM pairs WHERE name = ?", (name_digest(key),))
