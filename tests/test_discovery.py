"""Which searchers are found, and which of them are on."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctsd import discovery
from ctsd.catalogue import Catalogue, Found
from ctsd.config.loading import load
from ctsd.config.settings import Settings
from ctsd.discovery import discover, start_all
from ctsd.errors import ConfigError
from ctsd.importing import load_file, module_name
from ctsd.interfaces.feeds import IRecords
from ctsd.searcher import BaseArtifactSearch
from ctsd.searcher_setup import SearcherSetup

ONE = """
from ctsd.searcher import BaseArtifactSearch
class {cls}(BaseArtifactSearch):
    keys = {{"url": str, "n": (int, float), "flag": bool, "many": list}}
    slots = 7
    @classmethod
    def supports(cls, artifact_type):
        return artifact_type == "net.ip"
    async def search(self, artifact_type, search_term, **kwargs):
        return ()
"""


class InternalArtifactSearch(BaseArtifactSearch):
    """Stands for the local database's."""


class DiscoveryCase(SynchronousTestCase):
    """A directory of searchers, and ways to discover them."""

    def setUp(self) -> None:
        """Make the directory and an empty package."""
        self.dir = Path(self.mktemp()).absolute()
        self.more = self.dir / "more"
        self.more.mkdir(parents=True, mode=0o755)
        self.dir.chmod(0o755)
        self.package = ModuleType("ctsd_test_searchers")
        self.package.__path__ = [str(self.dir / "package")]
        (self.dir / "package").mkdir()
        before = set(sys.modules)
        sys.modules[self.package.__name__] = self.package
        self.addCleanup(lambda: [sys.modules.pop(name) for name in set(sys.modules) - before])

    def write(self, name: str, text: str = ONE, cls: str = "Good", folder: str = "more") -> Path:
        """Write a searcher's file."""
        path = self.dir / folder / f"{name}.py"
        path.write_text(text.format(cls=cls) if text is ONE else text)
        path.chmod(0o644)
        return path

    def load(self, text: str = "") -> Settings:
        """Settings with that directory in C{searchers.path}."""
        file = self.dir / "ctsd.toml"
        text = text if "[searchers]" in text else "[searchers]\nsync = []\nasync = []\n" + text
        file.write_text(text.replace("[searchers]\n", "[searchers]\npath = ['more']\n", 1))
        return load(file, environ={"KEY": "s3cret"})

    def discover(self, text: str = "") -> Catalogue:
        """Discover with a configuration."""
        settings = self.load(text)
        return discover(settings, package=self.package, built_in=(InternalArtifactSearch,))

    def error(self, text: str = "") -> ConfigError:
        """The error that a configuration is."""
        return self.assertRaises(ConfigError, self.discover, text)

    def found(self, catalogue: Catalogue) -> dict[str, Found]:
        """By name."""
        return {one.name: one for one in catalogue.found}


class FilesTests(DiscoveryCase):
    """What in which files is a searcher."""

    def test_one_file_is_all_it_takes(self) -> None:
        """A file that defines a searcher is found and, once listed, on."""
        path = self.write("good")
        found = self.found(self.discover("[searchers]\nsync = []\nasync = ['good']"))["good"]
        self.assertEqual((found.on, found.mode, found.origin), (True, "async", str(path)))
        self.assertEqual((found.slots, found.timeout_secs, found.required), (7, 30.0, True))
        self.assertTrue(found.cls and found.cls.supports("net.ip"))

    def test_package(self) -> None:
        """Modules of the package are found as files of a directory are."""
        self.write("packed", cls="PackedArtifactSearch", folder="package")
        self.write("_private", "raise Exception()", folder="package")
        self.assertIn("packed", self.found(self.discover()))

    def test_what_is_no_searcher(self) -> None:
        """What is imported into a file, or begins with an underscore, is none of it."""
        self.write("base", ONE, cls="_Hidden")
        self.write(
            "two", ONE.format(cls="A") + "B = A\nfrom ctsd.searcher import BaseArtifactSearch"
        )
        self.write("_helper", "raise Exception('not for import')")
        self.write("plain", "x = 1")
        self.assertEqual(sorted(self.found(self.discover())), ["a", "internal"])

    def test_does_not_import(self) -> None:
        """A file that does not import is off with its error, and spoils nothing else."""
        self.write("bad", "import nothing_of_that_name")
        self.write("exits", "raise SystemExit(3)")
        self.write("syntax", "def (")
        self.write("good")
        found = self.found(self.discover("[searchers]\nsync = ['bad']\nasync = ['good']"))
        self.assertTrue(found["good"].on)
        for name, told in (
            ("bad", "nothing_of_that_name"),
            ("exits", "SystemExit"),
            ("syntax", "SyntaxError"),
        ):
            self.assertFalse(found[name].on)
            self.assertTrue(found[name].broken)
            self.assertIn("does not import: ", found[name].why_off)
            self.assertIn(told, found[name].why_off)
        self.assertEqual(found["bad"].mode, "sync")

    def test_raises_anything(self) -> None:
        """Whatever a file raises when it is imported, it is that file alone that is off."""
        self.write("interrupt", "raise KeyboardInterrupt")
        self.write("ended", "raise GeneratorExit('x')")
        self.write("odd", "class Odd(BaseException):\n    pass\nraise Odd('no\\nday')")
        self.write(
            "mute",
            "class Mute(Exception):\n    def __str__(self):\n        raise self\nraise Mute",
        )
        self.write("packed", "raise KeyboardInterrupt", folder="package")
        self.write("good")
        found = self.found(self.discover("[searchers]\nsync = ['odd']\nasync = ['good']"))
        self.assertTrue(found["good"].on)
        for name, told in (
            ("interrupt", "KeyboardInterrupt"),
            ("ended", "GeneratorExit: x"),
            ("odd", "Odd: no day"),
            ("mute", "Mute"),
            ("packed", "KeyboardInterrupt"),
        ):
            self.assertEqual(found[name].why_off, f"does not import: {told}")
            self.assertTrue(found[name].broken)

    def test_says_nonsense_of_itself(self) -> None:
        """A searcher whose slots or keys are nonsense is off and says why."""
        for written, told in (
            ("slots = 0", "its slots are no whole number of at least 1"),
            ("slots = True", "its slots are no whole number of at least 1"),
            ("slots = '4'", "its slots are no whole number of at least 1"),
            ("slots = property()", "its slots are no whole number of at least 1"),
            ("keys = {'url': 'string'}", "its keys are no dict of strings and types"),
            ("keys = {'url': ()}", "its keys are no dict of strings and types"),
            ("keys = None", "it can't be looked at: AttributeError: "),
        ):
            path = self.write("bad", ONE.format(cls="Bad") + f"    {written}\n")
            bad = self.found(
                self.discover("[searchers]\nsync = ['bad']\nasync = []\n[searchers.bad]\nurl = 'x'")
            )["bad"]
            self.assertTrue(bad.broken)
            self.assertEqual((bad.why_off[: len(told)], bad.mode), (told, "sync"))
            sys.modules.pop(module_name(path))

    def test_untrusted(self) -> None:
        """A directory, or a file in it, that others may write to is refused."""
        path = self.write("good")
        for at, mode in ((self.more, 0o777), (path, 0o666), (path, 0o664)):
            before = at.stat().st_mode
            at.chmod(mode)
            error = self.error()
            self.assertEqual(error.key, "searchers.path[0]")
            self.assertIn(f"is refused: others may write to {at}", str(error))
            at.chmod(before)
        self.discover()

    def test_not_imported_when_untrusted(self) -> None:
        """Nothing of a refused directory runs."""
        self.write("a", "import sys; sys.ctsd_test_ran = True")
        self.write("z").chmod(0o666)
        self.error()
        self.assertFalse(hasattr(sys, "ctsd_test_ran"))

    def test_other_owner(self) -> None:
        """A directory of another user is refused."""
        self.write("good")
        if os.geteuid() == 0:
            os.chown(self.more, 4242, 4242)
        self.patch(os, "geteuid", lambda: 4243)
        self.assertIn(f"{self.more} belongs to another user", str(self.error()))

    def test_missing_directory(self) -> None:
        """A directory that is not there stops the start."""
        self.more.rmdir()
        self.assertIn(f"expected a directory: {self.more}", str(self.error()))

    def test_same_file_name_twice(self) -> None:
        """Files of one name in two directories are two modules."""
        (self.dir / "other").mkdir(mode=0o755)
        self.write("x", cls="First")
        self.write("x", cls="Second", folder="other")
        catalogue = self.discover()
        self.assertIn("first", self.found(catalogue))
        names = {module_name(self.dir / at / "x.py") for at in ("more", "other")}
        self.assertEqual(len(names), 2)

    def test_values_can_be_pickled(self) -> None:
        """What a searcher's file defines can be pickled."""
        path = self.write("pick", "class Value:\n    pass")
        module = load_file(path)
        self.assertIsInstance(pickle.loads(pickle.dumps(module.Value())), module.Value)
        self.assertIs(load_file(path), module)

    def test_leaves_nothing(self) -> None:
        """Importing a file leaves no cache beside it, and reads none."""
        self.write("good")
        self.discover()
        self.assertEqual(os.listdir(self.more), ["good.py"])


class NamesTests(DiscoveryCase):
    """Names that can't be."""

    def test_twice(self) -> None:
        """Two searchers of one name stop the start; the message names both files."""
        one, two = self.write("one"), self.write("two")
        error = str(self.error())
        self.assertIn(str(one), error)
        self.assertIn(str(two), error)
        self.assertIn("good", error)

    def test_built_in(self) -> None:
        """Nobody takes the local database's name."""
        self.write("one", cls="Internal")
        self.assertIn("in ctsd itself, too", str(self.error()))

    def test_reserved(self) -> None:
        """A searcher can't be called as a key of [searchers], nor with odd characters."""
        for cls in ("Sync", "Async", "Path", "Ünicode"):
            self.write("one", cls=cls)
            self.assertIn("can't be called", str(self.error()))
            sys.modules.pop(module_name(self.more / "one.py"))


class ConfiguredTests(DiscoveryCase):
    """What the configuration makes of them."""

    def test_not_listed(self) -> None:
        """A searcher that is not listed is off and says so."""
        self.write("good")
        found = self.found(self.discover())["good"]
        self.assertEqual(found.why_off, "not listed under searchers.sync or .async")
        self.assertFalse(found.broken)

    def test_unknown(self) -> None:
        """A name that no searcher has stops the start, with those that are known."""
        self.write("good")
        for text, key in (
            ("[searchers]\nsync = ['goood']\nasync = []", "searchers.sync[0]"),
            ("[searchers]\nsync = []\nasync = ['internal', 'goood']", "searchers.async[1]"),
            ("[searchers.goood]\nurl = 'x'", "searchers.goood"),
            ("[services.s]\nsearchers = ['goood']", "services.s.searchers[0]"),
        ):
            error = self.error(text)
            self.assertEqual(error.key, key)
            self.assertIn(f"{self.dir}/ctsd.toml:", error.where)
            self.assertIn("did you mean good?; known: good, internal", str(error))

    def test_service_of_what_is_not_listed(self) -> None:
        """A service's searcher has to be sync or async."""
        self.write("good")
        error = self.error("[services.s]\nsearchers = ['good']")
        self.assertIn("not listed under searchers.sync or .async", str(error))

    def test_order(self) -> None:
        """Sync searchers come before async ones; a service has its own order."""
        for name in ("a", "b", "c"):
            self.write(name, cls=name.upper())
        catalogue = self.discover(
            "[searchers]\nsync = ['c', 'internal']\nasync = ['a']\n"
            "[services.s]\nsearchers = ['a', 'c']"
        )
        self.assertEqual([one.name for one in catalogue.on], ["c", "internal", "a"])
        self.assertEqual([one.name for one in catalogue.off], ["b"])
        self.assertEqual(catalogue.services, {"": ("c", "internal", "a"), "s": ("a", "c")})

    def test_settings(self) -> None:
        """A searcher's table overrides what is ctsd's and gives the searcher its own."""
        self.write("good")
        found = self.found(
            self.discover(
                "search_timeout_secs = 9\n[searchers]\nsync = ['good']\nasync = ['internal']\n"
                "[searchers.good]\nrequired = false\ntimeout_secs = 2\nslots = 1\n"
                "url = { env = 'KEY' }\nn = 3\nmany = []"
            )
        )
        good = found["good"]
        self.assertEqual((good.required, good.timeout_secs, good.slots), (False, 2.0, 1))
        self.assertEqual(good.settings, {"url": "s3cret", "n": 3, "many": []})
        self.assertNotIn("s3cret", repr(good))
        self.assertEqual(found["internal"].timeout_secs, 9.0)

    def test_keys(self) -> None:
        """A key that the searcher does not know, or of another type, stops the start."""
        self.write("good")
        for text, expected in (
            ("urll = 'x'", "no such setting; did you mean url?"),
            ("slot = 1", "did you mean slots?"),
            ("url = 1", "expected a string, not a number"),
            ("n = true", "expected a whole number or a number, not true"),
            ("flag = 0", "expected true or false, not a number"),
            ("many = 'x'", "expected an array, not a string"),
            ("n = { env = 'KEY' }", "not a string"),
        ):
            error = self.error(f"[searchers.good]\n{text}")
            self.assertIn(expected, str(error))
            self.assertEqual(error.where, f"{self.dir}/ctsd.toml:6")
            self.assertNotIn("s3cret", str(error))


class StartTests(SynchronousTestCase):
    """Starting those that are on."""

    def start(self, *classes: type[BaseArtifactSearch]) -> discovery.Started:
        """Start searchers of these classes."""

        def records(*args: Any) -> IRecords:
            raise AssertionError("nobody asked for records")

        def setup_for(found: Found) -> SearcherSetup:
            return SearcherSetup(
                settings=found.settings,
                data_dir=Path("/nowhere"),
                clock=Clock(),
                base_dir=Path("/nowhere"),
                records=records,
                threats=records,
            )

        found = tuple(Found(name=cls.__name__.lower(), cls=cls, mode="sync") for cls in classes)
        names = tuple(one.name for one in found)
        off = Found(name="other", why_off="not listed")
        catalogue = Catalogue(found=(*found, off), services={"": names, "s": names[::-1]})
        return start_all(catalogue, setup_for)

    def names(self, found: Iterable[Found]) -> list[tuple[str, str]]:
        """Names and reasons."""
        return [(one.name, one.why_off) for one in found]

    def test_started(self) -> None:
        """A searcher that is on is made and started, with its setup."""
        given: list[object] = []

        class Good(BaseArtifactSearch):
            def start(self, setup: SearcherSetup) -> None:
                given.append(setup)

        started = self.start(Good)
        ((found, searcher, setup),) = started.running
        self.assertEqual((found.name, type(searcher), given), ("good", Good, [setup]))
        self.assertEqual(started.services, {"": ("good",), "s": ("good",)})

    def test_not_configured(self) -> None:
        """One that lacks its key is off with its reason; services go on without it."""

        class Good(BaseArtifactSearch):
            pass

        class Keyless(BaseArtifactSearch):
            def start(self, setup: SearcherSetup) -> None:
                raise discovery.NotConfigured("no api_key")

        started = self.start(Keyless, Good)
        self.assertEqual(
            self.names(started.off), [("keyless", "no api_key"), ("other", "not listed")]
        )
        self.assertFalse(started.off[0].broken)
        self.assertEqual(started.services, {"": ("good",), "s": ("good",)})

    def test_broken(self) -> None:
        """One whose start, or making, breaks is off, and its traceback is logged."""

        class Breaks(BaseArtifactSearch):
            def start(self, setup: SearcherSetup) -> None:
                raise RuntimeError("bad\nday")

        class Unmade(BaseArtifactSearch):
            def __init__(self) -> None:
                raise ValueError

        started = self.start(Breaks, Unmade)
        self.assertEqual(
            self.names(started.off)[:2],
            [
                ("breaks", "does not start: RuntimeError: bad day"),
                ("unmade", "does not start: ValueError"),
            ],
        )
        self.assertTrue(started.off[0].broken)
        self.assertEqual(started.running, ())
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError, ValueError)), 2)

    def test_no_place(self) -> None:
        """One that can't be given what it needs, such as a directory, is off like any other."""
        good = Found(name="good", cls=BaseArtifactSearch, mode="sync")

        def setup_for(found: Found) -> SearcherSetup:
            raise NotADirectoryError(20, "Not a directory", "x")

        started = start_all(Catalogue(found=(good,), services={"": ("good",)}), setup_for)
        ((_, why),) = self.names(started.off)
        self.assertIn("does not start: NotADirectoryError", why)
        self.assertEqual(len(self.flushLoggedErrors(NotADirectoryError)), 1)

    def test_ends(self) -> None:
        """One that would end the process with its start, or making, is off like any other."""

        class Exits(BaseArtifactSearch):
            def start(self, setup: SearcherSetup) -> None:
                raise SystemExit("enough")

        class Interrupts(BaseArtifactSearch):
            def __init__(self) -> None:
                raise KeyboardInterrupt

        class Good(BaseArtifactSearch):
            pass

        started = self.start(Exits, Interrupts, Good)
        self.assertEqual(
            self.names(started.off)[:2],
            [
                ("exits", "does not start: SystemExit: enough"),
                ("interrupts", "does not start: KeyboardInterrupt"),
            ],
        )
        self.assertTrue(started.off[0].broken)
        self.assertEqual([found.name for found, _, _ in started.running], ["good"])
        self.assertEqual(len(self.flushLoggedErrors(SystemExit, KeyboardInterrupt)), 2)


class FeedsTests(SynchronousTestCase):
    """The searchers that are on as soon as a feed is."""

    def on(self, text: str) -> tuple[str, ...]:
        """Who is on with a configuration."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "ctsd.toml").write_text(text)
        catalogue = discover(load(directory / "ctsd.toml", environ={}))
        self.found = {one.name for one in catalogue.found}
        self.services = catalogue.services
        return catalogue.services[""]

    def test_with_feeds(self) -> None:
        """They need not be listed; what is asked at once comes first."""
        feed = "[feeds.urlhaus]\nenabled = true\n"
        self.assertEqual(
            self.on(feed), ("internal", "feeds", "phishtank", "internal_text", "feeds_text")
        )

    def test_without(self) -> None:
        """Without a feed nobody hears of them."""
        self.assertEqual(self.on(""), ("internal", "phishtank", "internal_text"))
        self.assertEqual(self.found, {"internal", "phishtank", "internal_text"})

    def test_listed(self) -> None:
        """Who lists them has them where he wants them."""
        listed = "[searchers]\nsync = ['feeds', 'internal']\nasync = []\n[feeds.cins]\n"
        self.assertEqual(self.on(listed), ("feeds", "internal", "internal_text", "feeds_text"))

    def test_internal_in_a_service(self) -> None:
        """Where the local database is asked, what is within texts is looked for in it, too."""
        text = (
            "[searchers]\nsync = ['internal']\nasync = ['phishtank', 'internal_text']\n"
            "[services.a]\nsearchers = ['internal', 'phishtank']\n"
            "[services.b]\nsearchers = ['internal_text', 'internal']\n"
            "[services.c]\nsearchers = ['phishtank']\n"
        )
        for each in (text, text.replace(", 'internal_text']\n[services.a]", "]\n[services.a]")):
            self.on(each)
            self.assertEqual(
                self.services,
                {
                    "": ("internal", "phishtank", "internal_text"),
                    "a": ("internal", "internal_text", "phishtank"),
                    "b": ("internal_text", "internal"),
                    "c": ("phishtank",),
                },
            )
        self.assertEqual(self.on("[searchers]\nsync = []\n"), ("phishtank",))
        self.assertEqual(self.found, {"internal", "phishtank"})

    def test_service(self) -> None:
        """A service can have them alone; where feeds are asked, texts are looked into, too."""
        listed = {"'feeds'": ("feeds", "feeds_text"), "'feeds_text'": ("feeds_text",)}
        listed["'feeds_text', 'internal', 'feeds'"] = (
            "feeds_text",
            "internal",
            "internal_text",
            "feeds",
        )
        for names, asked in listed.items():
            self.on(f"[feeds.cins]\n[services.lists]\nsearchers = [{names}]\n")
            self.assertEqual(self.services["lists"], asked)
