"""
The C{ctsd} command: checks the configuration, shows searchers, scans here and now, enters
threats by hand, keeps the database safe, and writes files of passwords.

Every error is one line on standard error and exit status 1; wrong usage is 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ctsd import __version__
from ctsd.commands.allow import add_commands as add_allow
from ctsd.commands.check import add_commands as add_check
from ctsd.commands.feeds import add_commands as add_feeds
from ctsd.commands.passwd import add_commands as add_passwd
from ctsd.commands.scan import add_commands as add_scan
from ctsd.commands.store import add_commands as add_store
from ctsd.commands.threats import add_commands as add_threats
from ctsd.commands.world import World, real_world
from ctsd.config.loading import load
from ctsd.errors import CTSDError


def make_parser() -> argparse.ArgumentParser:
    """What can be written after C{ctsd}."""
    parser = argparse.ArgumentParser(
        prog="ctsd", description="ctsd, a custom threat service for IBM Resilient (QRadar SOAR)."
    )
    parser.add_argument("--version", action="version", version=f"ctsd {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="the configuration (default: $CTSD_CONFIG, else ./ctsd.toml, else the defaults)",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (add_check, add_feeds, add_allow, add_threats, add_scan, add_store, add_passwd):
        add(commands, common)
    return parser


def run(arguments: Sequence[str], world: World) -> int:
    """
    Run one command.

    :param arguments: without the program's name.
    :return: the exit status.
    """
    parser = make_parser()
    try:
        parsed = parser.parse_args(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    try:
        configured = getattr(parsed, "configured", True)
        settings = load(parsed.config, environ=world.environ) if configured else None
        if settings is not None and settings.document.passed_over:
            world.complain(f"warning: built-in defaults serve: {settings.document.passed_over}")
        status: int = parsed.run(parsed, settings, world)
    except CTSDError as error:
        world.complain(str(error))
        return 1
    except BrokenPipeError:
        # Who read our output has read enough; nothing more may be flushed into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        world.complain(f"{named}{error.strerror or error}")
        return 1
    return status


def main() -> None:
    """The console script."""
    try:
        sys.exit(run(sys.argv[1:], real_world()))
    except KeyboardInterrupt:
        sys.exit(130)
