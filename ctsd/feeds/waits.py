"""Waits that can be given up, where what is waited for goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from ctsd.interfaces.threads import InThread

T = TypeVar("T")


def wait_for(work: Deferred[T]) -> Deferred[T]:
    """Fires as C{work} does, whose outcome it takes. To cancel it is to give up waiting."""
    wait: Deferred[T] = Deferred(lambda _: None)
    work.addBoth(_hand_on, wait)
    return wait


def _hand_on(outcome: Any, to: Deferred[Any]) -> None:
    if not to.called:
        to.callback(outcome)


class Steps:
    """
    Runs functions in a thread, one after the other. Who gives up waiting for one does not end it;
    L{settled} tells when it has ended.
    """

    def __init__(self, in_thread: InThread) -> None:
        self._in_thread = in_thread
        self._running: Deferred[Any] | None = None

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Fires with what the function returns, or fails with what it raises."""
        self._running = self._in_thread(function, *args, **kwargs)
        return wait_for(self._running)

    async def settled(self) -> None:
        """Wait for the end of what was begun."""
        if self._running is not None:
            await wait_for(self._running)
