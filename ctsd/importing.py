"""Imports searchers' files: of the package C{searchers}, and of directories from where they are."""

from __future__ import annotations

import hashlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import TypeVar

from ctsd.config.loading import untrusted
from ctsd.config.settings import Settings
from ctsd.searcher import BaseArtifactSearch

_P = TypeVar("_P", str, Path)


class _SourceOnly(SourceFileLoader):
    """Compiles what is in the file now; neither reads nor leaves anything beside it."""

    def get_code(self, fullname: str) -> CodeType:
        """The module's code."""
        return self.source_to_code(self.get_data(self.path), self.path)


def module_name(path: Path) -> str:
    """The name of the module that a searcher's file becomes: its own, and unlike any other's."""
    digest = hashlib.sha256(bytes(path.absolute())).hexdigest()[:12]
    return f"ctsd_searcher_{path.stem}_{digest}"


def load_file(path: Path) -> ModuleType:
    """
    Import one searcher's file, once per process.

    :raises BaseException: whatever importing it raises.
    """
    name = module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    loader = _SourceOnly(name, str(path.absolute()))
    spec = ModuleSpec(name, loader, origin=loader.path)
    spec.has_location = True
    module = module_from_spec(spec)
    # As an import does, so that what the file defines can be pickled and its classes resolved.
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def modules(settings: Settings, package: ModuleType) -> Iterator[tuple[str, ModuleType | str]]:
    """
    Each searchers' file with its module, or with why it does not import.

    :raises ConfigError: a directory in C{searchers.path} is missing or not to be trusted.
    """
    for info in pkgutil.iter_modules(package.__path__):
        if not info.name.startswith("_"):
            origin = str(Path(package.__path__[0]) / f"{info.name}.py")
            yield origin, _imported(import_module, f"{package.__name__}.{info.name}")
    for position, directory in enumerate(settings.searchers.path):
        at = ("searchers", "path", position)
        if not directory.is_dir():
            raise settings.document.error(at, f"expected a directory: {directory}")
        files = sorted(file for file in directory.glob("*.py") if not file.name.startswith("_"))
        for trusted in (directory, *files):
            why = untrusted(trusted)
            if why:
                raise settings.document.error(at, f"is refused: {why}")
        for file in files:
            yield str(file), _imported(load_file, file)


def _imported(load: Callable[[_P], ModuleType], what: _P) -> ModuleType | str:
    try:
        return load(what)
    except BaseException as error:
        # An author's code: whatever it raises is no reason for us to end.
        return f"does not import: {named(error)}"


def message_of(error: BaseException) -> str:
    """What an error says, in one line; maybe empty."""
    try:
        return " ".join(str(error).split())
    except BaseException:
        return ""


def named(error: BaseException) -> str:
    """What was raised, in one line."""
    told = message_of(error)
    return f"{type(error).__name__}: {told}" if told else type(error).__name__


def flaw_in(cls: type[BaseArtifactSearch]) -> str:
    """What is wrong with what a searcher says of itself; empty when nothing is."""
    try:
        slots, keys = cls.slots, cls.keys
        if type(slots) is not int or slots < 1:
            return "its slots are no whole number of at least 1"
        if not all(isinstance(key, str) and _is_kind(kind) for key, kind in keys.items()):
            return "its keys are no dict of strings and types"
    except BaseException as error:
        return f"it can't be looked at: {named(error)}"
    return ""


def _is_kind(kind: object) -> bool:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return bool(kinds) and all(isinstance(one, type) for one in kinds)


def searchers_in(module: ModuleType) -> Iterator[type[BaseArtifactSearch]]:
    """The searchers that a module defines, in its order."""
    taken: set[type] = set()
    for name, value in list(vars(module).items()):
        if (
            isinstance(value, type)
            and issubclass(value, BaseArtifactSearch)
            and value.__module__ == module.__name__
            and not name.startswith("_")
            and value not in taken
        ):
            taken.add(value)
            yield value
