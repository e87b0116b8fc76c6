"""Descriptions of feeds: those that ship, one's own, and those that are wrong."""

from __future__ import annotations

import math
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctsd.config.loading import load
from ctsd.errors import ConfigError
from ctsd.feeds.descriptions import (
    Description,
    documented,
    names_of_catalogue,
    read_descriptions,
)

#: A feed of one's own, as short as can be.
MINE = """
[feeds.mine]
url = "https://intel.example/list.txt"
format = "lines"
indicators = [{ field = "line", type = "net.ip" }]
"""

#: The feeds that an operator can count on.
SHIPPED = {
    "attack_software",
    "blocklist_de",
    "botvrij",
    "cins",
    "circl_osint",
    "cisa_kev",
    "dshield",
    "epss",
    "et_compromised",
    "feodotracker",
    "ipsum",
    "malwarebazaar",
    "openphish",
    "phishing_army",
    "phishtank",
    "spamhaus_drop_v4",
    "spamhaus_drop_v6",
    "sslbl",
    "taxii",
    "threatfox",
    "tor_exits",
    "urlhaus",
    "warninglist_cloudflare",
    "warninglist_common_ioc_false_positive",
    "warninglist_google",
    "warninglist_microsoft_office365",
    "warninglist_public_dns_v4",
    "warninglist_url_shortener",
}


class DescriptionCase(SynchronousTestCase):
    """Reads configurations."""

    def setUp(self) -> None:
        """Make a directory for them."""
        self.dir = Path(self.mktemp()).absolute()
        self.dir.mkdir()
        self.environ: dict[str, str] = {}

    def read(self, text: str) -> dict[str, Description]:
        """The feeds of a configuration, by name."""
        file = self.dir / "ctsd.toml"
        file.write_text(text)
        settings = load(file, environ=self.environ)
        found = read_descriptions(settings.feeds, settings.document)
        return {each.name: each for each in found}

    def assertWrong(self, text: str, *told: str) -> None:
        """The configuration is refused with one line that says all of this."""
        error = self.assertRaises(ConfigError, self.read, text)
        for each in told:
            self.assertIn(each, str(error))
        self.assertNotIn("\n", str(error))


class CatalogueTests(DescriptionCase):
    """The descriptions that ship."""

    def test_all(self) -> None:
        """They are all there, good ones, and off."""
        feeds = self.read("")
        self.assertEqual(set(feeds), SHIPPED)
        self.assertEqual({name for name, feed in feeds.items() if feed.enabled}, set())

    def test_told(self) -> None:
        """Each says what it is called, under which terms, and does not ask too often."""
        for feed in self.read("").values():
            self.assertTrue(feed.title, feed.name)
            self.assertGreaterEqual(feed.provider.every_secs, 3600, feed.name)
            self.assertGreaterEqual(feed.provider.min_interval_secs, 300, feed.name)
            if feed.name != "taxii":
                self.assertTrue(feed.terms.licence.startswith("https://"), feed.name)

    def test_intervals_of_providers(self) -> None:
        """What providers lock people out for is kept."""
        feeds = self.read("")
        for name in ("spamhaus_drop_v4", "spamhaus_drop_v6", "phishtank"):
            self.assertGreaterEqual(feeds[name].provider.min_interval_secs, 3600)
        self.assertEqual(feeds["phishtank"].provider.over_quota, (509,))
        self.assertIn("User-Agent", feeds["phishtank"].provider.headers)

    def test_turned_on(self) -> None:
        """Two lines turn one on; the others stay off."""
        feeds = self.read("[feeds.urlhaus]\nenabled = true\n")
        self.assertEqual({name for name, feed in feeds.items() if feed.enabled}, {"urlhaus"})

    def test_overridden(self) -> None:
        """A key of one's own replaces the catalogue's; the others stay."""
        feed = self.read("[feeds.urlhaus]\nevery_secs = 7200\nmin_rows = 3\n")["urlhaus"]
        self.assertEqual((feed.provider.every_secs, feed.provider.min_rows), (7200.0, 3))
        self.assertEqual(feed.layout.format, "csv")
        self.assertIn("urlhaus.abuse.ch", feed.provider.url)

    def test_file_in_its_place(self) -> None:
        """What the catalogue has a URL for can be read from a file of one's own."""
        feed = self.read("[feeds.urlhaus]\nfile = 'recent.csv'\n")["urlhaus"]
        assert feed.provider.file is not None
        self.assertEqual((feed.provider.file.name, feed.provider.url), ("recent.csv", ""))
        both = "[feeds.urlhaus]\nfile = 'recent.csv'\nurl = 'https://feeds.example/'\n"
        self.assertWrong(both, "feeds.urlhaus.file", "either url or file")

    def test_terms(self) -> None:
        """One whose terms bar commercial use is on with terms = "accepted" alone."""
        barred = {name for name, feed in self.read("").items() if not feed.terms.commercial_use}
        self.assertEqual(barred, {"dshield", "openphish", "phishing_army"})
        for name in barred:
            on = f"[feeds.{name}]\nenabled = true\n"
            self.assertWrong(on, f"feeds.{name}.terms", '"accepted"', "https://")
            self.assertTrue(self.read(f'{on}terms = "accepted"\n')[name].enabled)

    def test_ages(self) -> None:
        """Addresses are old after a week, all else after a month, unless the feed says so."""
        feeds = self.read("[feeds.cins]\nmax_age_days = 1.5\n")
        days = {name: feed.max_age_secs / 86400 for name, feed in feeds.items()}
        self.assertEqual(days["et_compromised"], 7)
        self.assertEqual(days["urlhaus"], 30)
        self.assertEqual(days["tor_exits"], 2)
        self.assertEqual(days["cins"], 1.5)
        self.assertEqual(days["warninglist_google"], math.inf)

    def test_types(self) -> None:
        """A description tells which types of artifacts it has something for."""
        feeds = self.read("")
        self.assertEqual(feeds["cins"].types, {"net.ip", "net.cidr"})
        self.assertEqual(feeds["cisa_kev"].types, {"threat.report.cve"})
        self.assertLessEqual({"net.uri", "net.ip", "hash.sha256"}, feeds["circl_osint"].types)


class OwnTests(DescriptionCase):
    """Feeds of one's own."""

    def test_own(self) -> None:
        """It is on, and has the name of its table until it says otherwise."""
        feed = self.read(MINE)["mine"]
        self.assertTrue(feed.enabled)
        self.assertEqual(feed.title, "mine")
        self.assertFalse(self.read(f"{MINE}enabled = false\n")["mine"].enabled)

    def test_file(self) -> None:
        """A file's path is relative to the configuration's."""
        text = MINE.replace('url = "https://intel.example/list.txt"', 'file = "list.txt"')
        feed = self.read(text)["mine"]
        self.assertEqual(feed.provider.file, self.dir / "list.txt")
        self.assertEqual(feed.remotes(now=0.0), ())

    def test_secrets(self) -> None:
        """A key goes into the address and headers, and is seen by nobody."""
        self.environ["MINE_KEY"] = "hush-17"
        (self.dir / "pass").write_text("hush-18\n")
        text = (
            MINE.replace("list.txt", "{key}/list.txt")
            + 'headers = { "X-Key" = "{key}", "User-Agent" = "ctsd/{user}" }\n'
            + 'key = { env = "MINE_KEY" }\nuser = "soc"\npassword = { file = "pass" }\n'
        )
        feed = self.read(text)["mine"]
        (remote,) = feed.remotes(now=0.0)
        self.assertEqual(remote.filled_url(), "https://intel.example/hush-17/list.txt")
        self.assertEqual(remote.filled_headers(), {"X-Key": "hush-17", "User-Agent": "ctsd/soc"})
        self.assertEqual((remote.user, remote.password), ("soc", "hush-18"))
        settings = load(self.dir / "ctsd.toml", environ=self.environ)
        for shown in (repr(feed), repr(remote), repr(settings), remote.shown):
            self.assertNotIn("hush", shown)
        self.assertEqual(settings.secret_variables, {"MINE_KEY"})

    def test_dates(self) -> None:
        """An address with a date in it stands for those of several days, the newest first."""
        urls = [remote.url for remote in self.read("")["epss"].remotes(now=1_800_000_000.0)]
        self.assertEqual(
            urls,
            [f"https://epss.cyentia.com/epss_scores-2027-01-{day}.csv.gz" for day in (15, 14, 13)],
        )


class WrongTests(DescriptionCase):
    """What is refused, and how that is told."""

    def test_place(self) -> None:
        """The error names file, line and key."""
        self.assertWrong(
            MINE + "every_sec = 5\n", "ctsd.toml:6: feeds.mine.every_sec", "every_secs"
        )

    def test_unknown_name(self) -> None:
        """A name that is in no catalogue is no feed of one's own without a description."""
        self.assertWrong(
            "[feeds.urlhouse]\nenabled = true\n", "feeds.urlhouse", "did you mean urlhaus"
        )

    def test_collection(self) -> None:
        """Addresses are made of a collection's."""
        text = '[feeds.taxii]\nurl = "https://taxii.example/taxii2/?x=1"\n'
        self.assertWrong(text, "feeds.taxii.url", "no query")

    def test_keys(self) -> None:
        """Values that can't be."""
        for line, *told in (
            ("every_secs = 'often'", "feeds.mine.every_secs", "number"),
            ("every_secs = 10\nmin_interval_secs = 60", "every_secs", "at least", "60"),
            ("max_refused_share = 2", "feeds.mine.max_refused_share"),
            ("file = 'x'", "feeds.mine.file", "either url or file"),
            ("headers = { 'X Y' = 'z' }", "feeds.mine.headers.X Y", "name of a header"),
            ("headers = { X = '{secret}' }", "feeds.mine.headers.X", "{key}"),
            ("headers = { X = '{key}' }", "feeds.mine.key", "is missing"),
            ("key = 'in the clear'", "feeds.mine.key", "env"),
            ("password = { file = 'nowhere' }", "feeds.mine.password", "nowhere"),
            ("over_quota = [200]", "feeds.mine.over_quota[0]"),
            ("format = 'xml'",),
            ("pattern = '('", "feeds.mine.pattern", "regular expression"),
            ("pattern = '(a)\\1'", "feeds.mine.pattern", "regular expression"),
            ("columns = ['a']", "feeds.mine.columns", "csv alone"),
            ("taxii = true", "feeds.mine.taxii", "stix"),
            ('collection = "x"', "feeds.mine.collection", "taxii = true"),
            ("name = 'Row {id}'", "feeds.mine.name", "no such field as id"),
            ("verdict = 'awful'", "feeds.mine.verdict", "suspicious"),
            ("keep_days = 3", "feeds.mine.keep_days", "last_seen"),
            ("filters = [{ field = 'line' }]", "feeds.mine.filters[0]", "condition"),
            ("filters = [{ field = 'row', equals = 'x' }]", "feeds.mine.filters[0].field"),
            ("filters = [{ field = 'line', matches = '[' }]", "feeds.mine.filters[0].matches"),
            ("properties = { a = {} }", "feeds.mine.properties.a"),
            (
                "properties = { a = { field = 'line', type = 'uri' } }",
                "feeds.mine.properties.a.type",
            ),
            ("properties = { a = { link = '{line}' } }", "feeds.mine.properties.a.link"),
            ("properties = { a = { link = 'https://{line}/' } }", "feeds.mine.properties.a.link"),
            ("properties = { a = { lat = 'line' } }", "feeds.mine.properties.a", "lng"),
            ("needs = 'line'", "feeds.mine.needs", "array"),
            ("needs = ['row']", "feeds.mine.needs[0].field", "no such field"),
            ("needs = [{ field = 'line' }]", "feeds.mine.needs[0]", "condition"),
            ("plain = 'yes'", "feeds.mine.plain", "true or false"),
            ("fields = { a = 'b' }", "feeds.mine.fields.a"),
            ("fields = { a = '{b}' }", "feeds.mine.fields.a", "no such field as b"),
        ):
            if told:
                self.assertWrong(f"{MINE}{line}\n", *told)

    def test_indicators(self) -> None:
        """Indicators that can't be."""
        for rule, *told in (
            ("{ field = 'line' }", "indicators[0]", "type or kind"),
            (
                "{ field = 'line', type = 'net.host' }",
                "indicators[0].type",
                "no such type",
                "net.name",
            ),
            ("{ field = 'line', type = 'system.user.password' }", "indicators[0].type"),
            ("{ field = 'line', kind = 'line' }", "indicators[0]", "types together"),
            ("{ field = 'line', kind = 'line', types = {} }", "indicators[0].types"),
            ("{ field = 'line', kind = 'line', types = { a = '-' } }", "indicators[0].types.a"),
            ("{ field = 'column', type = 'net.ip' }", "indicators[0].field", "no such field"),
            (
                "{ field = 'line', type = ['net.ip', 'net.uri'], as_is = true }",
                "indicators[0].as_is",
                "one type",
            ),
        ):
            text = MINE.replace('{ field = "line", type = "net.ip" }', rule)
            self.assertWrong(text, *told)

    def test_substring(self) -> None:
        """Only what has rules for parts of a value can be found by them."""
        hashes = MINE.replace('"net.ip"', '["hash.md5", "hash.sha256"]')
        wrong = f"{hashes}substring = true\n"
        self.assertWrong(wrong, "feeds.mine.substring", "net.uri, net.uri.path, process.name")
        lists = MINE.replace('"lines"', "'warninglist'").partition("indicators")[0]
        for key in ("substring = true", "plain = true", "needs = ['line']"):
            self.assertWrong(f"{lists}{key}\n", f"feeds.mine.{key.split()[0]}", "not for warning")
        mixed = wrong.replace('"hash.md5"', '"net.uri"')
        self.assertTrue(self.read(mixed)["mine"].layout.substring)
        feeds = self.read("")
        self.assertEqual([name for name in feeds if feeds[name].layout.substring], ["phishtank"])

    def test_formats(self) -> None:
        """What a format needs, and paths that can't be."""
        for form, *told in (
            ("'csv'", "feeds.mine.columns", "header"),
            ("'json'", "feeds.mine.rows", "missing"),
            ("'json'\nrows = 'a..b'", "feeds.mine.rows", "way"),
            ("'jsonl'\nname = '{a[b}'", "feeds.mine.name", "path"),
            ("'html'", "feeds.mine.format", '"csv"'),
            ("'warninglist'", "feeds.mine.indicators", "not for warninglists"),
        ):
            self.assertWrong(MINE.replace('"lines"', form), *told)
        missing = MINE.replace('indicators = [{ field = "line", type = "net.ip" }]', "")
        self.assertWrong(missing, "feeds.mine.indicators", "missing")

    def test_urls(self) -> None:
        """Addresses that can't be."""
        for url, told in (
            ("ftp://intel.example/", "expected a URL"),
            ("https://user:pass@intel.example/", "without a user"),
            ("https://intel.example:99999/", "expected a URL"),
            ("https://intel.example:0/", "expected a URL"),
            ("https://:443/", "expected a URL"),
            ("https://[2001:db8::1/", "expected a URL"),
            ("https://{key}.intel.example/", "no secret"),
            ("https://intel.example/{secret}", "in braces"),
            ("http://intel.example/", "insecure_http"),
        ):
            text = MINE.replace("https://intel.example/list.txt", url)
            self.assertWrong(text, "feeds.mine.url", told)

    def test_addresses(self) -> None:
        """
        An address that is never asked is refused at once; one of one's own says what allows it.
        """
        for host in ("10.1.2.3", "localhost", "127.1", "[fd12::1]", "[::ffff:192.168.0.1]"):
            text = MINE.replace("intel.example", host)
            self.assertWrong(text, "ctsd.toml:3: feeds.mine.url", "may not", "internal = true")
            feed = self.read(f"{text}internal = true\n")["mine"]
            self.assertTrue(feed.remotes(now=0.0)[0].internal)
        for host in ("169.254.169.254", "2852039166", "[fd00:ec2::254]", "100.100.100.200", "[::]"):
            text = MINE.replace("intel.example", host)
            for more in ("", "internal = true\n"):
                error = self.assertRaises(ConfigError, self.read, f"{text}{more}")
                self.assertIn("feeds.mine.url", str(error))
                self.assertIn(host.strip("[]"), str(error))
                self.assertNotIn("allows", str(error))

    def test_no_secret_is_told(self) -> None:
        """What somebody wrote where a secret belongs is not repeated."""
        error = self.assertRaises(ConfigError, self.read, MINE + "key = 'hush-17'\n")
        self.assertNotIn("hush", str(error))

    def test_not_a_table(self) -> None:
        """C{feeds.mine} is a table."""
        self.assertWrong("[feeds]\nmine = 3\n", "feeds.mine", "a table")


class DocumentedTests(SynchronousTestCase):
    """The documentation of keys."""

    def test_whole(self) -> None:
        """Every key is told with its default, in no part twice."""
        keys = list(documented())
        self.assertGreater(len(keys), 60)
        self.assertEqual(len({(key.part, key.name) for key in keys}), len(keys))
        for key in keys:
            self.assertTrue(key.about and key.default, key)

    def test_names(self) -> None:
        """Every file of the catalogue is a feed."""
        self.assertEqual(set(names_of_catalogue()), SHIPPED)
