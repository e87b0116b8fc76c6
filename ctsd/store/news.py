"""What other processes tell of a store, for those who wait for it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred


@define(kw_only=True, eq=False)
class News:
    """
    Hands on what is told to whoever waits for it right then.

    :ivar monotonic: a clock that nobody can set.
    :ivar quiet_secs: who was told nothing for so long, though nodes tell all the time that they
        live, hears nothing.
    """

    monotonic: Callable[[], float]
    quiet_secs: float = 10.0
    _heard_at: float | None = field(default=None, init=False)
    _waiting: dict[str, list[Deferred[None]]] = field(factory=dict, init=False)

    def hears(self) -> bool:
        """Whether what is told arrives here."""
        heard = self._heard_at
        return heard is not None and self.monotonic() - heard < self.quiet_secs

    def wait(self, what: str) -> Deferred[None]:
        """Fires when this is told next; cancel it to stop waiting."""
        waiter: Deferred[None] = Deferred(lambda _: self._leave(what, waiter))
        self._waiting.setdefault(what, []).append(waiter)
        return waiter

    def _leave(self, what: str, waiter: Deferred[None]) -> None:
        waiting = self._waiting[what]
        waiting.remove(waiter)
        if not waiting:
            del self._waiting[what]

    def tell(self, what: str) -> None:
        """This was told; what nobody waits for is a sign of life."""
        self._heard_at = self.monotonic()
        self._fire(what)

    def missed(self) -> None:
        """Anything may have been told that did not arrive: everybody looks again."""
        self._heard_at = None
        for what in list(self._waiting):
            self._fire(what)

    def _fire(self, what: str) -> None:
        for waiter in self._waiting.pop(what, ()):
            waiter.callback(None)
