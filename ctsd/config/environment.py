"""The environments of processes: ours, those of workers and of other children."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from ctsd.config.settings import Settings

#: What a supervisor has left for our own process alone (sd_notify(3), sd_listen_fds(3)).
_FROM_SUPERVISOR = frozenset(
    {
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
    }
)


def child_environment(environ: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """
    The environment for child processes: ours, without the variables that held secrets, and
    without those by which a child could take itself for us before the supervisor.
    """
    own = worker_environment(environ)
    return {name: value for name, value in own.items() if name not in settings.secret_variables}


def forget_secrets(environ: MutableMapping[str, str], settings: Settings) -> None:
    """Remove the variables that held secrets, which programs that searchers start would inherit."""
    for name in settings.secret_variables:
        environ.pop(name, None)


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that is a part of us: ours, with the secrets in it."""
    return {name: value for name, value in environ.items() if name not in _FROM_SUPERVISOR}
