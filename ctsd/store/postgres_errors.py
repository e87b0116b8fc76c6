"""What PostgreSQL's errors mean: for those who wait, for the transaction, for the session."""

from __future__ import annotations

import psycopg2
from twisted.internet.error import ConnectionDone, ConnectionLost

from ctsd.errors import StoreError

#: What happens when two transactions are in each other's way; again, it is likely to work.
_AGAIN = ("40001", "40P01")


def as_store_error(error: BaseException) -> StoreError:
    """
    What the rest of ctsd learns of PostgreSQL's own errors, or of a connection that was closed.

    The cause is a copy of the error without the excerpt of the statement, which may hold values.
    """
    if not isinstance(error, psycopg2.Error):
        return StoreError("PostgreSQL does not answer", retry_secs=10)
    code = error.pgcode or ""
    primary = error.diag.message_primary if error.diag is not None else None
    if code == "53100":
        reason = "the store's disk is full"
    elif code in ("57014", "55P03"):
        reason = "the store is busy: PostgreSQL took too long"
    elif code == "25006":
        reason = "PostgreSQL is read-only (a standby?)"
    elif code == "42501":
        reason = f"PostgreSQL refuses: {primary}"
    elif is_lost(error):
        reason = "PostgreSQL does not answer"
    else:
        reason = f"the store failed: {type(error).__name__} ({code or 'no code'})"
    wrapped = StoreError(reason, retry_secs=10 if is_lost(error) else 60)
    wrapped.__cause__ = type(error)(primary or str(error).partition("\n")[0])
    return wrapped


def is_lost(error: BaseException) -> bool:
    """Whether the connection is of no use any more after this."""
    if not isinstance(error, psycopg2.Error):
        return isinstance(error, ConnectionDone | ConnectionLost)
    code = error.pgcode or ""
    if code:
        # 08: connection exceptions; 57P0x: the server goes down; 25006: it has become a standby;
        # 25P03: it has thrown us out of an idle transaction.
        return code.startswith(("08", "57P")) or code in ("25006", "25P03")
    return isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)


def again(error: BaseException) -> bool:
    """Whether others were in the way, so that trying again is all it takes."""
    return isinstance(error, psycopg2.Error) and error.pgcode in _AGAIN


def is_hopeless(error: BaseException) -> bool:
    """Whether this concerns the server, not the statement: the others would fail, too."""
    if not isinstance(error, psycopg2.Error):
        return False
    return is_lost(error) or again(error) or (error.pgcode or "").startswith(("53", "57", "58"))
