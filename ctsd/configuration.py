"""What one reading of the configuration comes to, and what of it can't change while we run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import evolve, field, frozen
from twisted.logger import Logger

from ctsd.catalogue import Catalogue
from ctsd.config.document import Document
from ctsd.config.environment import child_environment
from ctsd.config.loading import load, settings_of
from ctsd.config.settings import Settings
from ctsd.discovery import discover
from ctsd.errors import ConfigError
from ctsd.sources import child_variables, feeds_on

#: What holds until the supervisor's next start, where there are workers.
SUPERVISED = ("state_dir", "listen", "workers", "store")

#: Settings that hold until a process' next start; of C{upload} and C{http}, what is not about a
#: request.
FIXED = (*SUPERVISED, "blocking_threads", "short_path", "log_values", "browser_page")
FIXED_UPLOAD = ("dir", "max_concurrent", "spool_max_bytes", "keep_free_bytes")
FIXED_HTTP = ("max_body_memory_bytes",)


@frozen(kw_only=True)
class Configuration:
    """
    What a file says, and which searchers it means.

    :ivar path: the file that was named, if any: it is read again on SIGHUP.
    """

    _log = Logger()

    path: Path | None
    environ: Mapping[str, str] = field(repr=False)
    settings: Settings
    catalogue: Catalogue

    @classmethod
    def read(cls, path: Path | None, environ: Mapping[str, str]) -> Configuration:
        """
        Read it. A file that is passed over is logged.

        :raises ConfigError: something in it is wrong.
        """
        settings = load(path, environ=environ)
        if settings.document.passed_over:
            cls._log.warn(
                "The built-in defaults serve: {error}", error=settings.document.passed_over
            )
        return cls.of(settings, path, environ)

    @classmethod
    def of(cls, settings: Settings, path: Path | None, environ: Mapping[str, str]) -> Configuration:
        """
        That of settings which are read already.

        :raises ConfigError: no such searchers or feeds are there.
        """
        # A feed that is wrong is told before anything is started.
        feeds_on(settings)
        return cls(path=path, environ=environ, settings=settings, catalogue=discover(settings))

    def again(self) -> Configuration:
        """
        Read it again.

        :raises ConfigError: something in it is wrong; or we go by a file, and there is none any
            more, or one that others may write to: nobody meant the built-in defaults by that.
        """
        new = Configuration.read(self.path, self.environ)
        before, after = self.settings.document, new.settings.document
        if before.is_file and not after.is_file:
            raise after.passed_over or ConfigError(before.name, "", "is not there any more")
        return new

    def changed_to(self, document: Document) -> Configuration:
        """
        What another text of the file means, with what is C{SUPERVISED} as it is here.

        :raises ConfigError: something in it is wrong.
        """
        settings = settings_of(document, environ=self.environ)
        settings = kept(self.settings, settings, SUPERVISED)
        return Configuration.of(settings, self.path, self.environ)

    @property
    def child_environment(self) -> dict[str, str]:
        """The environment of child processes: no secrets, and nothing of ours from systemd."""
        return child_variables(child_environment(self.environ, self.settings), sys.path)


def changed(old: Settings, new: Settings, keys: Iterable[str] = FIXED) -> list[str]:
    """Which of these settings differ."""
    return [key for key in keys if getattr(old, key) != getattr(new, key)]


def changed_fixed(old: Settings, new: Settings) -> list[str]:
    """The settings that have changed, but can't before a process' next start."""
    found = changed(old, new)
    for table, keys in (("upload", FIXED_UPLOAD), ("http", FIXED_HTTP)):
        before, after = getattr(old, table), getattr(new, table)
        found += [f"{table}.{key}" for key in keys if getattr(before, key) != getattr(after, key)]
    return found


def kept(old: Settings, new: Settings, keys: Iterable[str] = FIXED) -> Settings:
    """The new settings, with these as they were."""
    return evolve(new, **{key: getattr(old, key) for key in keys})
