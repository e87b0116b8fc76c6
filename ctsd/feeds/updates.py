"""Keeps feeds current: each is asked for when it is due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.errors import StoreError
from ctsd.feeds.copies import BadState, BrokenState, Busy, Copies
from ctsd.feeds.descriptions import Description
from ctsd.feeds.download import Downloads
from ctsd.feeds.feed_state import Copy, FeedState
from ctsd.feeds.times import due_secs, is_due
from ctsd.feeds.turns import Turns
from ctsd.feeds.visit import TooEarly
from ctsd.interfaces.threads import InThread

#: How often it is looked whether a feed is due, or whether a command has changed something.
LOOK_SECS = 5.0

#: Feeds that became due while nobody was there are asked for within so many seconds.
SPREAD_SECS = 60.0

#: After a fault of ours nothing is tried for so long.
FAULT_SECS = 300.0


@frozen(kw_only=True)
class FeedProgress:
    """
    How a feed stands, for people.

    :ivar running: whether it is being updated right now, by this process.
    :ivar trouble: what is wrong; empty when nothing is.
    """

    name: str
    state: FeedState
    running: bool = False
    trouble: str = ""


@define(eq=False)
class _Feed:
    """
    A feed that is kept current.

    :ivar mark: what its state was read at; None while it can't be read.
    :ivar not_before: by the clock: not while this process has a reason of its own to wait.
    :ivar is_broken: whether its state is: whoever updates it begins anew.
    :ivar is_told: whether it was said that there is nothing of it.
    """

    description: Description
    copies: Copies
    state: FeedState = field(factory=FeedState)
    mark: tuple[int, ...] | None = None
    told: Copy | None = None
    not_before: float = 0.0
    running: Deferred[Any] | None = None
    trouble: str = ""
    is_broken: bool = False
    is_told: bool = False


class Updates(Service):
    """
    Asks providers when it is time, with all that L{Downloads} rules. Commands that work beside it
    on the same directories (C{ctsd feeds accept}) are noticed within L{LOOK_SECS}.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        downloads: Downloads,
        in_thread: InThread,
        now: Callable[[], float],
        chance: Callable[[], float],
        taken: Callable[[Description, Copies, Copy], object],
        turns: Turns | None = None,
    ) -> None:
        """
        :param now: POSIX seconds.
        :param chance: from 0 to 1, another one each time.
        :param taken: called with each good copy: the one that is there at the start, and each
            newer one, which may also be the same with another date. The file stays until the next
            one is taken.
        :param turns: of nodes that share the directory.
        """
        self._clock = clock
        self._downloads = downloads
        self._in_thread = in_thread
        self._now = now
        self._chance = chance
        self._taken = taken
        self._turns = turns
        self._feeds: dict[str, _Feed] = {}
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock
        self._looking: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._loop.start(LOOK_SECS).addErrback(self._fault, "looking after feeds")

    def stopService(self) -> Deferred[Any]:
        """Give up what runs; fires when that has ended."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        running = [feed.running for feed in self._feeds.values() if feed.running is not None]
        if self._looking is not None:
            running.append(self._looking)
        waiting = DeferredList([_ended(each) for each in running])
        for each in running:
            each.cancel()
        return waiting

    def replace(self, descriptions: Sequence[Description]) -> None:
        """
        From now on these are kept current: those among them that are on, and that somebody is to
        be asked for. What runs for another one is given up.
        """
        wanted = {one.name: one for one in descriptions if one.enabled and one.provider.url}
        for name, feed in list(self._feeds.items()):
            if name not in wanted:
                del self._feeds[name]
                if feed.running is not None:
                    feed.running.cancel()
        for name, description in wanted.items():
            known = self._feeds.get(name)
            if known is None:
                self._feeds[name] = _Feed(description, self._downloads.copies(name))
            else:
                known.description = description
        if self.running and self._looking is None:
            self._look()

    def update(self, name: str) -> Deferred[FeedState]:
        """
        Ask for a feed now.

        :return: fires with how it stands then; see L{Downloads.update} for what it fails with.
        :raises LookupError: there is no such feed.
        :raises Busy: (in the Deferred) it is being updated.
        """
        feed = self._feeds[name]
        if feed.running is not None:
            waiting: Deferred[FeedState] = Deferred()
            waiting.errback(Failure(Busy("it is being updated")))
            return waiting
        return self._update(feed)

    def progress(self) -> list[FeedProgress]:
        """How each feed stands, by name."""
        return [
            FeedProgress(
                name=name,
                state=feed.state,
                running=feed.running is not None,
                trouble=feed.trouble or feed.state.error,
            )
            for name, feed in sorted(self._feeds.items())
        ]

    # -- looking

    def _look(self) -> Deferred[None] | None:
        # One look at a time, however long the disk takes.
        if self._looking is not None:
            return None
        self._looking = looking = Deferred.fromCoroutine(self._look_at_all())
        looking.addErrback(self._fault, "looking after feeds")
        looking.addBoth(self._looked)
        return None

    def _looked(self, result: object) -> None:
        self._looking = None

    async def _look_at_all(self) -> None:
        for feed in list(self._feeds.values()):
            if feed.running is None:
                await self._read(feed)
        for feed in list(self._feeds.values()):
            if self.running and feed.running is None and self._is_due(feed):
                self._update(feed, if_due=True).addErrback(lambda _: None)

    async def _read(self, feed: _Feed) -> None:
        mark, state = await self._in_thread(_read_state, feed.copies, feed.mark)
        if state is None:
            return
        if isinstance(state, BadState):
            feed.mark = None
            feed.is_broken = isinstance(state, BrokenState)
            if feed.trouble != str(state):
                feed.trouble = str(state)
                self._log.error(
                    "Feed {name}: {trouble}", name=feed.description.name, trouble=feed.trouble
                )
            return
        first, feed.mark = feed.mark is None, mark
        feed.is_broken, feed.trouble = False, ""
        self._now_is(feed, state)
        if first and state.copy is not None:
            spread = min(SPREAD_SECS, feed.description.provider.every_secs / 10)
            feed.not_before = self._clock.seconds() + spread * self._chance()

    def _is_due(self, feed: _Feed) -> bool:
        if self._clock.seconds() < feed.not_before:
            return False
        if feed.mark is None:
            return feed.is_broken
        return is_due(feed.state, feed.description.provider, now=self._now())

    # -- updating

    def _update(self, feed: _Feed, *, if_due: bool = False) -> Deferred[FeedState]:

        def update(token: int) -> Deferred[FeedState]:
            return self._downloads.update(feed.description, if_due=if_due, token=token)

        turns, name = self._turns, feed.description.name
        running = update(0) if turns is None else turns.run(name, update)
        feed.running = running
        running.addBoth(self._updated, feed)
        return running

    def _updated(self, result: FeedState | Failure, feed: _Feed) -> FeedState | Failure:
        feed.running = None
        if isinstance(result, FeedState):
            feed.trouble = ""
            self._now_is(feed, result)
        elif result.check(BadState):
            feed.not_before = self._clock.seconds() + FAULT_SECS
            feed.trouble = str(result.value)
        elif result.check(StoreError):
            feed.not_before = self._clock.seconds() + FAULT_SECS
            feed.trouble = "nobody can tell which node's turn it is: the store is away"
        elif not result.check(CancelledError, TooEarly, Busy):
            feed.not_before = self._clock.seconds() + FAULT_SECS
            error = result.value
            if isinstance(error, OSError):
                feed.trouble = f"its directory can't be used: {error.strerror}"
                self._log.error(
                    "Feed {name}: {trouble}", name=feed.description.name, trouble=feed.trouble
                )
            else:
                feed.trouble = "a fault of ctsd; see the log"
                self._log.failure(
                    "Feed {name} could not be updated", result, name=feed.description.name
                )
        return result

    def _now_is(self, feed: _Feed, state: FeedState) -> None:
        feed.state = state
        copy = state.copy
        if self._feeds.get(feed.description.name) is not feed:
            return
        if copy is None:
            self._tell_never_loaded(feed)
        elif copy != feed.told:
            feed.told = copy
            self._taken(feed.description, feed.copies, copy)

    def _tell_never_loaded(self, feed: _Feed) -> None:
        """Say once that there is nothing of a feed, unless it is asked for at once."""
        secs = due_secs(feed.state, feed.description.provider, now=self._now())
        if feed.is_told or not feed.state.error or not secs:
            return
        feed.is_told = True
        self._log.error(
            "Feed {name} was never loaded: {reason}; it is asked for again in {secs:.0f} s",
            name=feed.description.name,
            reason=feed.state.error,
            secs=secs,
        )

    def _fault(self, failure: Failure, what: str) -> None:
        if not failure.check(CancelledError):
            self._log.failure("A fault while {what}", failure, what=what)


def _read_state(
    copies: Copies, known: tuple[int, ...] | None
) -> tuple[tuple[int, ...], FeedState | BadState | None]:
    """Read a state that has changed. Blocks."""
    mark = copies.mark()
    if mark == known:
        return mark, None
    try:
        return mark, copies.state()
    except BadState as error:
        return mark, error


def _ended(running: Deferred[Any]) -> Deferred[None]:
    ended: Deferred[None] = Deferred()

    def tell(result: Any) -> Any:
        ended.callback(None)
        return result

    running.addBoth(tell)
    return ended
