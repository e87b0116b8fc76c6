"""This process as one of the nodes that share a store."""

from __future__ import annotations

import math
from secrets import token_hex

from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ctsd.interfaces.store import INodeStore


class Membership:
    """
    Keeps one row in the store alive, in whose name searches are held.

    When the store has struck the node off, because it was frozen or cut off for too long, others
    may have all that it held: it begins a new epoch, and whoever looks after scans here has to
    forget those of an older one.

    :ivar holder: node and epoch, as the store knows them; empty before the first registration.
    """

    _log = Logger()

    def __init__(
        self, *, clock: IReactorTime, store: INodeStore, name: str, lease_secs: float
    ) -> None:
        """
        :param name: what this process is called, as no other one is.
        :param lease_secs: after how long without a word the others may take it for dead.
        """
        self._clock = clock
        self._store = store
        self._name = name
        self._lease_secs = lease_secs
        self._lock = DeferredLock()
        self._heard_at = -math.inf
        self._in_touch_since = -math.inf
        self.holder = ""

    @property
    def beat_secs(self) -> float:
        """How often to L{beat}: a beat may be lost, and the one after it."""
        return self._lease_secs / 4

    @property
    def sure(self) -> bool:
        """
        Whether what is in memory of the scans that are held here is the truth: nobody can have
        taken them over yet.
        """
        return self._clock.seconds() - self._heard_at < self._lease_secs

    @property
    def may_judge(self) -> bool:
        """
        Whether others that were not heard of may be taken for dead: not by who was away from the
        store itself, for then perhaps all were.
        """
        return self.sure and self._clock.seconds() - self._in_touch_since >= self._lease_secs

    async def beat(self) -> None:
        """
        Tell the store that we live; register, when it does not know us (any more).

        :raises StoreError: that is not possible.
        """
        await self._lock.acquire()
        try:
            sent = self._clock.seconds()
            if self.holder and not await self._store.beat(
                holder=self.holder, secs=self._lease_secs
            ):
                self._struck_off()
                self.holder, self._heard_at = "", -math.inf
            if not self.holder:
                self.holder = await self._store.register(name=self._name, secs=self._lease_secs)
            if sent - self._heard_at > self._lease_secs / 2:
                self._in_touch_since = sent
            self._heard_at = sent
        finally:
            self._lock.release()

    def _struck_off(self) -> None:
        if self.sure:
            # Nobody had a reason, but for one who goes by the same name.
            self._name = f"{self._name} {token_hex(4)}"
            self._log.error(
                "{holder} was replaced by another process of that name (is state_dir a copy?);"
                " this one is now {name}",
                holder=self.holder,
                name=self._name,
            )
            return
        self._log.error(
            "{holder} was taken for dead: others finish what it was working on",
            holder=self.holder,
        )

    async def leave(self) -> None:
        """
        At the end: be no node any more.

        :raises StoreError: that is not possible; the others notice.
        """
        await self._lock.acquire()
        try:
            holder, self.holder, self._heard_at = self.holder, "", -math.inf
            if holder:
                await self._store.leave(holder=holder)
        finally:
            self._lock.release()
