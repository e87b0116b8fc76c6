"""Threads: what blocks runs in one, and the reactor goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

P = ParamSpec("P")
T = TypeVar("T")


class InThread(Protocol):
    """Runs a function in a thread, as C{twisted.internet.threads.deferToThread} does."""

    def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Fires with what the function returns, or fails with what it raises."""
