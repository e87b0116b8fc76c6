"""
`twistd -n ctsd --config FILE` and C{ctsd.tac}: both begin here, as do the workers that they start.

What everything else imports takes longer than all of Twisted. It is imported when SIGTERM ends us
with status 0 already.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService
from twisted.python import usage

from ctsd.ending import end_early

if TYPE_CHECKING:
    from ctsd.notify import Notifier


class Options(usage.Options):
    """The options of `twistd ctsd`."""

    optParameters = [
        ["config", "c", None, "ctsd.toml; default: $CTSD_CONFIG, ./ctsd.toml, built-in defaults"]
    ]
    synopsis = "[--config FILE]"


def makeService(options: Mapping[str, Any]) -> IService:
    """
    The daemon, or the supervisor of several workers; not started.

    :raises SystemExit: the configuration is wrong; one line says where and how.
    """
    end_early()
    from twisted.internet import reactor

    from ctsd.config.environment import forget_secrets
    from ctsd.configuration import Configuration
    from ctsd.daemon import Daemon
    from ctsd.errors import ConfigError
    from ctsd.notify import Notifier
    from ctsd.workers.supervisor import Supervisor

    path = options.get("config")
    try:
        configuration = Configuration.read(Path(path) if path else None, dict(os.environ))
    except ConfigError as error:
        raise SystemExit(f"ctsd: {error}") from None
    forget_secrets(os.environ, configuration.settings)

    def make_notifier(alive: Callable[[], bool] = lambda: True) -> Notifier:
        return Notifier(clock=reactor, environ=configuration.environ, alive=alive)

    if configuration.settings.workers == 1:
        return Daemon(configuration, reactor=reactor, notifier=make_notifier())
    return Supervisor(configuration, reactor=reactor, make_notifier=make_notifier)


def run_worker() -> None:
    """
    The whole life of a worker's process; see L{ctsd.workers.supervisor}.

    :raises SystemExit: always; its status is the process'.
    """
    end_early()
    from twisted.internet import reactor

    from ctsd.workers.worker import Worker

    raise SystemExit(Worker(reactor=reactor).run())
