"""
A process that updates a feed again and again, as the daemon would, for tests that kill it:
C{python -m tests.live.feed_updater CTSD.TOML}. It says C{started} and then ends only when it is
killed, or after a minute.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from ctsd.config.loading import load
from ctsd.feeding import make_downloads, make_outbound
from ctsd.feeds.children import Children
from ctsd.feeds.descriptions import read_description
from ctsd.feeds.examinations import Examinations

LONGEST_SECS = 60.0


async def _update_for_ever(file: Path) -> None:
    settings = load(file, environ=os.environ)
    description = read_description("mine", settings.feeds["mine"], settings.document)
    outbound = make_outbound(settings, reactor=reactor, in_thread=deferToThread)
    downloads = make_downloads(
        settings,
        clock=reactor,
        outbound=outbound,
        examine=Examinations(
            children=Children(reactor=reactor, clock=reactor), lock=DeferredLock()
        ),
        in_thread=deferToThread,
    )
    sys.stdout.write("started\n")
    sys.stdout.flush()
    while True:
        state = await downloads.update(description)
        if state.error:
            sys.stdout.write(state.error + "\n")
            sys.stdout.flush()
        await deferLater(reactor, 0.01)


def _failed(failure: Failure) -> None:
    sys.stderr.write(failure.getTraceback())
    sys.stderr.flush()
    os._exit(1)


def main() -> None:
    """Do it."""
    running = Deferred.fromCoroutine(_update_for_ever(Path(sys.argv[1])))
    running.addErrback(_failed)
    reactor.callLater(LONGEST_SECS, os._exit, 0)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
