"""Who imports whom: the rooms of the house, and the arrows between them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent

#: The modules of each room; a package stands for all that is in it.
ROOMS = {
    "errors": "errors",
    "syncing": "syncing",
    "model": "addresses model records states remote",
    "interfaces": "interfaces",
    "artifacts": "artifacts indicator_forms matching normal_forms plausible refanged",
    "wire": "wire shown",
    "stored": "stored threat_lines",
    "scan_ids": "scan_ids",
    "scans": "scans",
    "searcher": (
        "answering feed_searchers internal properties search_context searcher searcher_setup"
        " searching text_search"
    ),
    "store": "store",
    "feeds": "feeds",
    "outbound": "outbound",
    "web": "web uploads spool spool_file",
    "scanning": "scanning",
    "threads": "blocking pooled",
    "config": "config",
    "passwords": "passwords",
    "doors": "auth basic guesses tls watching",
    "discovery": "catalogue discovery importing",
    "sources": "feeding indexes sources status",
    "listening": "listening lending",
    "configuration": "configuration opening",
    "notify": "notify",
    "one_scan": "one_scan",
    "tap": "tap assembly daemon ending serving workers",
    "cli": "cli commands",
    "testing": "testing",
}

_VALUES = "errors model interfaces"

#: What each room may import from.
ARROWS = {
    "errors": "",
    "syncing": "",
    "model": "",
    "interfaces": "errors model",
    "artifacts": "errors model",
    "wire": "errors model artifacts",
    "stored": f"{_VALUES} artifacts wire",
    "scan_ids": _VALUES,
    "scans": f"{_VALUES} wire",
    "searcher": f"{_VALUES} artifacts wire",
    "store": f"{_VALUES} syncing artifacts stored",
    "outbound": _VALUES,
    "feeds": f"{_VALUES} syncing artifacts wire stored searcher config",
    "web": f"{_VALUES} syncing threads wire",
    "threads": "interfaces",
    "scanning": f"{_VALUES} artifacts wire stored scan_ids scans searcher threads",
    "config": "errors model",
    "passwords": "errors",
    "doors": f"{_VALUES} config passwords threads web",
    "discovery": f"{_VALUES} config searcher",
    "sources": f"{_VALUES} config discovery feeds outbound scanning searcher store threads",
    "listening": f"{_VALUES} config web",
    "configuration": "errors config discovery sources store",
    "notify": "",
    "one_scan": f"{_VALUES} artifacts config discovery scanning sources store threads",
    "tap": " ".join(room for room in ROOMS if room not in ("tap", "cli", "testing")),
    "cli": " ".join(room for room in ROOMS if room not in ("tap", "cli", "web", "testing")),
    "testing": f"{_VALUES} artifacts feeds searcher stored wire",
}

#: Rooms that only compute: no reactor, no sockets, no files.
PURE = ("errors", "model", "artifacts", "wire", "stored", "scans")


def tree(path: Path) -> ast.Module:
    """A file, parsed."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports anywhere, as C{ctsd.store.sqlite}."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def files(*packages: str) -> list[Path]:
    """All Python files of these directories."""
    found = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    assert found
    return found


def module_of(path: Path) -> str:
    """A file below C{ctsd} as the name that L{ROOMS} knows: C{scanning}, C{store}."""
    return path.relative_to(ROOT / "ctsd").parts[0].removesuffix(".py")


def room_of(module: str) -> str:
    """The room that a module, or a package, is in; empty when it is in none."""
    return next((room for room, modules in ROOMS.items() if module in modules.split()), "")


class ArrowsTests(SynchronousTestCase):
    """The arrows of ctsd's rooms."""

    def test_every_module_has_a_room(self) -> None:
        """No module stands outside, and no room is empty."""
        there = {module_of(path) for path in files("ctsd")} - {"__init__"}
        self.assertEqual(there, {name for modules in ROOMS.values() for name in modules.split()})

    def test_arrows(self) -> None:
        """A module imports from its own room, and from those that its room may see."""
        for path in files("ctsd"):
            ours = room_of(module_of(path))
            for name in imported(path):
                top, _, rest = name.partition(".")
                theirs = room_of(rest.partition(".")[0]) if top == "ctsd" else ""
                if ours and theirs and theirs != ours:
                    self.assertIn(
                        theirs, ARROWS[ours].split(), f"{path.name} of {ours} imports {name}"
                    )

    def test_no_circles(self) -> None:
        """The arrows lead down."""
        order = TopologicalSorter({room: seen.split() for room, seen in ARROWS.items()})
        self.assertEqual(set(order.static_order()), set(ROOMS))

    def test_strangers(self) -> None:
        """Store, scanning, feeds, outbound and web don't see each other."""
        strangers = {"store", "scanning", "feeds", "outbound", "web"}
        for room in strangers:
            self.assertEqual(strangers & set(ARROWS[room].split()), set())

    def test_pure(self) -> None:
        """What only computes has no Twisted in it."""
        for path in files("ctsd"):
            if room_of(module_of(path)) in PURE:
                self.assertEqual(
                    [name for name in imported(path) if name.split(".")[0] == "twisted"], []
                )


class SearchersTests(SynchronousTestCase):
    """Searchers and ctsd know little of each other."""

    def test_one_face(self) -> None:
        """A searcher imports from ctsd.searching alone."""
        for path in files("searchers"):
            for name in imported(path):
                if name.split(".")[0] == "ctsd":
                    self.assertEqual(name.split(".")[:2], ["ctsd", "searching"], str(path))

    def test_one_door(self) -> None:
        """Discovery alone names the package of searchers."""
        naming = {
            path.name
            for path in files("ctsd")
            if any(name.split(".")[0] == "searchers" for name in imported(path))
        }
        self.assertEqual(naming, {"discovery.py"})


class ReactorTests(SynchronousTestCase):
    """The reactor comes in as an argument."""

    def test_not_at_import(self) -> None:
        """No module installs the global reactor by being imported."""
        for path in files("ctsd", "searchers", "twisted"):
            for node in _outside_functions(tree(path)):
                if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet":
                    self.assertNotIn("reactor", [alias.name for alias in node.names], str(path))
                if isinstance(node, ast.Import):
                    self.assertNotIn(
                        "twisted.internet.reactor", [alias.name for alias in node.names], str(path)
                    )

    def test_one_door(self) -> None:
        """In ctsd only the service's maker takes the global one."""
        taking = {
            path.name for path in files("ctsd") if "twisted.internet.reactor" in imported(path)
        }
        self.assertEqual(taking, {"tap.py"})


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _outside_functions(child)
