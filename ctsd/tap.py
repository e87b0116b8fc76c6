"""
`twistd -n ctsd --config FILE` and C{ctsd.tac}: both begin here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.python import usage

from ctsd.daemon import Configuration, Daemon
from ctsd.errors import ConfigError


class Options(usage.Options):
    """The options of `twistd ctsd`."""

    optParameters = [
        ["config", "c", None, "ctsd.toml; default: $CTSD_CONFIG, ./ctsd.toml, built-in defaults"]
    ]
    synopsis = "[--config FILE]"


def makeService(options: Mapping[str, Any]) -> Daemon:
    """
    The daemon, not started.

    :raises SystemExit: the configuration is wrong; one line says where and how.
    """
    from twisted.internet import reactor

    path = options.get("config")
    try:
        configuration = Configuration.read(Path(path) if path else None, os.environ)
    except ConfigError as error:
        raise SystemExit(f"ctsd: {error}") from None
    return Daemon(configuration, reactor=reactor)
