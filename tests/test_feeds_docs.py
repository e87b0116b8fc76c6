"""What docs/feeds.md says is true."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctsd.cli import make_parser
from ctsd.config.document import Document
from ctsd.config.loading import load
from ctsd.feeds.descriptions import Description, documented, read_descriptions
from tests.test_feeds_parsers import ParserCase

DOCS = (Path(__file__).parent.parent / "docs" / "feeds.md").read_text(encoding="utf-8")

#: The parts of the reference, in their order, by the heading that they stand under.
PARTS = {
    "terms": "### What you decide, and what hits say",
    "provider": "### The provider",
    "layout": "### The file",
    "indicators": "### `[[feeds.<name>.indicators]]`",
    "properties": "### `[feeds.<name>.properties]`",
    "filters": "### `[[feeds.<name>.filters]]`",
    "lower": "### `[[feeds.<name>.lower]]`",
}


def tables() -> dict[str, list[str]]:
    """The rows that the reference has to have, by part."""
    rows: dict[str, list[str]] = {part: [] for part in PARTS}
    for key in documented():
        # In a table of Markdown, a bar ends a cell even in code.
        about = key.about.replace("|", "\\|")
        rows[key.part].append(f"| `{key.name}` | {key.default} | {about} |")
    return rows


def catalogue() -> list[str]:
    """The rows of the catalogue."""
    rows = []
    for feed in read_descriptions({}, Document(name="", base_dir=Path("/"))):
        types = ", ".join(sorted(feed.types))
        if feed.layout.format == "misp" or feed.name == "taxii":
            types = "many"
        if feed.is_warninglist:
            types = "(a warninglist)"
        barred = "" if feed.terms.commercial_use else "yes"
        rows.append(f"| `{feed.name}` | {feed.title} | {types} | {barred} |")
    return rows


def blocks(language: str) -> list[str]:
    """The code blocks in a language; those in a list without their indentation."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", DOCS, re.DOTALL | re.MULTILINE)
    return [
        re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)
        for indent, named, text in found
        if named == language
    ]


class ReferenceTests(SynchronousTestCase):
    """The tables."""

    def test_keys(self) -> None:
        """Every key is there with its default, under its heading, and no other."""
        for part, rows in tables().items():
            section = DOCS.split(PARTS[part] + "\n")[1].split("\n##")[0]
            found = [line for line in section.splitlines() if line.startswith("| `")]
            self.assertEqual(found, rows, part)

    def test_catalogue(self) -> None:
        """Every feed that ships is there."""
        section = DOCS.split("<!-- catalogue")[1].split("\n\n")[0]
        found = [line for line in section.splitlines() if line.startswith("| `")]
        self.assertEqual(found, catalogue())


class ExamplesTests(ParserCase):
    """The examples."""

    def feeds(self, text: str) -> dict[str, Description]:
        """The feeds of a configuration."""
        file = self.dir / "ctsd.toml"
        file.write_text(text)
        settings = load(file, environ={"PHISHTANK_KEY": "k", "TAXII_PASSWORD": "p"})
        described = read_descriptions(settings.feeds, settings.document)
        return {one.name: one for one in described if one.enabled}

    def test_configurations(self) -> None:
        """All configurations are good ones."""
        first, second, own, collection, lists = blocks("toml")
        self.assertEqual(set(self.feeds(first)), {"urlhaus"})
        self.assertEqual(set(self.feeds(second)), {"phishtank", "tor_exits", "epss"})
        self.assertEqual(set(self.feeds(own)), {"soc"})
        self.assertEqual(set(self.feeds(collection)), {"taxii"})
        self.assertEqual(set(self.feeds(lists)), {"warninglist_google", "our_lists"})

    def test_own(self) -> None:
        """The description makes of the file what is shown."""
        (text,) = blocks("")
        feed = self.feeds(blocks("toml")[2])["soc"]
        records = self.parse(text, feed.layout)
        self.assertEqual(
            [(one.type, one.value) for one in records],
            [("net.ip", "198.51.100.7"), ("net.name", "bad.example")],
        )
        self.assertEqual(self.tally.bad, 0)
        (shown,) = blocks("console")
        for one in records[1].properties[1:]:
            self.assertIn(f"  1  {one.name}: {one.value}\n", shown)

    def test_commands(self) -> None:
        """All commands are some."""
        lines = [
            line
            for block in (*blocks("sh"), *blocks("console"))
            for line in block.splitlines()
            if line.removeprefix("$ ").startswith("ctsd ")
        ]
        lines += re.findall(r"`(ctsd [a-z]+(?: [^`]*)?)`", DOCS)
        self.assertGreater(len(lines), 8)
        for line in lines:
            make_parser().parse_args(shlex.split(line.removeprefix("$ "))[1:])
