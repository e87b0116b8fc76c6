"""
The store's logic is written once, as generators that yield statements and receive rows.

A step function knows neither the engine nor whether it runs in a thread or in the reactor: a
runner drives it, inside one transaction, and renders its C{?} placeholders. Because a runner may
have to start over, a step function has no effects but its statements; because a runner goes to the
first of these before it takes the lock, what costs time comes before that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

from attrs import frozen

from ctsd.interfaces.store import THREATS

T = TypeVar("T")

#: What a statement's placeholders stand for: None, int, float, str without NUL and lone
#: surrogates, bytes.
Params = Sequence[Any]


@frozen
class Query:
    """A statement that yields its rows: a list of tuples."""

    sql: str
    params: Params = ()


@frozen
class Change:
    """A statement that yields how many rows it touched."""

    sql: str
    params: Params = ()


@frozen
class Many:
    """
    One statement for every element of C{params}; yields nothing of use, so that a runner may send
    it with the statement after it.

    An INSERT among them has exactly one C{VALUES (?, ...)} tuple, so that a runner may send it as
    one statement of many tuples.
    """

    sql: str
    params: Sequence[Params]


@frozen
class Tell:
    """
    When this is committed, other processes are told, where the engine can; yields nothing of use.

    :ivar what: see L{ctsd.interfaces.store.INews}.
    """

    what: str


Step = Query | Change | Many | Tell

#: What a step function returns: a generator of statements whose value is C{T}.
Steps = Generator[Step, Any, T]

#: What a runner is given: something that makes the generator, as often as it needs one.
MakeSteps = Callable[[], Steps[T]]

#: How many values one C{IN (...)} may hold.
IN_LIMIT = 500


def bound(function: Callable[..., Steps[T]], *args: Any, **kwargs: Any) -> MakeSteps[T]:
    """A step function with its arguments, ready for a runner."""
    return functools.partial(function, *args, **kwargs)


def marks(values: Sequence[Any]) -> str:
    """The placeholders for the inside of C{IN (...)}."""
    return ", ".join("?" * len(values))


def in_chunks(values: Sequence[T], size: int = IN_LIMIT) -> Iterator[Sequence[T]]:
    """C{values} in pieces of at most C{size}."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def take(name: str, amount: int) -> Steps[int]:
    """
    Take C{amount} fresh numbers from one of the store's own counters.

    Writers queue for the counter's row until they commit, so numbers come in commit order.

    :return: the last of them.
    """
    yield Many("UPDATE numbers SET value = value + ? WHERE name = ?", [(amount, name)])
    if name == "version":
        yield Tell(THREATS)
    return (yield from number(name))


def number(name: str) -> Steps[int]:
    """What one of the store's own counters stands at."""
    rows = yield Query("SELECT value FROM numbers WHERE name = ?", (name,))
    value: int = rows[0][0]
    return value
