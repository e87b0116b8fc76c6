"""C{[outbound]} of the configuration, and what becomes of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from twisted.internet.defer import succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from ctsd.config import settings
from ctsd.config.loading import load
from ctsd.config.settings import Settings
from ctsd.errors import ConfigError
from ctsd.feeding import make_outbound, outbound_limits
from ctsd.feeds.descriptions import documented
from ctsd.outbound.limits import Limits
from tests.certificates import make_pair


class OutboundSettingsTests(SynchronousTestCase):
    """What the file may say."""

    def setUp(self) -> None:
        """A directory."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(mode=0o755)
        (self.directory / "ca.pem").write_bytes(make_pair().pem)

    def load(self, text: str, **environ: str) -> Settings:
        """A configuration with this in C{[outbound]}."""
        file = self.directory / "ctsd.toml"
        file.write_text("[outbound]\n" + text)
        return load(file, environ=environ)

    def limits(self, text: str, **environ: str) -> Limits:
        """What becomes of it."""
        return outbound_limits(self.load(text, **environ).outbound)

    def test_defaults(self) -> None:
        """They are those of the limits."""
        limits = self.limits("")
        self.assertEqual(limits, Limits(user_agent=limits.user_agent))
        self.assertRegex(limits.user_agent, r"^ctsd/[0-9.]+ ")

    def test_all(self) -> None:
        """Every key arrives."""
        limits = self.limits(
            "connect_secs = 1\ntotal_secs = 2\nstall_secs = 3\ndownload_secs = 4\n"
            "max_bytes = 5\nmax_head_bytes = 6000\nkeep_free_bytes = 9\n"
            "max_redirects = 7\nmax_downloads = 8\n"
            'user_agent = "phishtank/me"\nca_file = "ca.pem"\n'
            'proxy = "http://me@[2001:db8::1]:8080"\nproxy_password = { env = "PW" }\n'
            'no_proxy = ["corp.example"]\n',
            PW="open sesame",
        )
        self.assertEqual(
            (limits.connect_secs, limits.total_secs, limits.stall_secs, limits.download_secs),
            (1, 2, 3, 4),
        )
        self.assertEqual(
            (limits.max_bytes, limits.head_max_bytes, limits.max_redirects, limits.max_downloads),
            (5, 6000, 7, 8),
        )
        self.assertEqual(limits.keep_free_bytes, 9)
        self.assertEqual(limits.user_agent, "phishtank/me")
        self.assertEqual(limits.ca_file, self.directory / "ca.pem")
        self.assertEqual(limits.no_proxy, ("corp.example",))
        proxy = limits.proxy
        assert proxy is not None
        self.assertEqual((proxy.host, proxy.port), ("2001:db8::1", 8080))
        self.assertEqual(proxy.authorization, b"Basic bWU6b3BlbiBzZXNhbWU=")
        self.assertNotIn("bWU6", repr(limits))

    def test_proxy_port(self) -> None:
        """Without one it is the port that proxies have; nobody is no credentials."""
        proxy = self.limits('proxy = "http://proxy.example"').proxy
        assert proxy is not None
        self.assertEqual((proxy.port, proxy.authorization), (3128, b""))

    def test_mistakes(self) -> None:
        """Each names the key and what was expected."""
        (self.directory / "no.pem").write_text("nothing")
        for text, expected in {
            "connect_secs = 0": "outbound.connect_secs: expected a number",
            'proxy = "proxy.example:3128"': 'outbound.proxy: expected a proxy, "http://host:port"',
            'proxy = "https://proxy.example"': "outbound.proxy: expected a proxy",
            'proxy = "http://proxy.example:x"': "outbound.proxy: expected a proxy",
            'proxy = "http://me:secret@proxy.example"': "outbound.proxy: expected no password",
            'proxy_password = "secret"': "outbound.proxy_password: expected { env",
            'ca_file = "missing.pem"': "outbound.ca_file: expected the file",
            'ca_file = "no.pem"': "to hold certificates in PEM",
            'user_agent = "a\\nb"': "outbound.user_agent: expected words",
            "no_proxi = []": "no such setting; did you mean no_proxy?",
        }.items():
            with self.assertRaises(ConfigError) as caught:
                self.load(text)
            self.assertIn(expected, str(caught.exception))
            self.assertNotIn("secret@", str(caught.exception))
            self.assertIn("ctsd.toml:2", str(caught.exception))

    def test_broken_certificates(self) -> None:
        """A file that only looks like one is told by its key."""
        (self.directory / "bad.pem").write_text("-----BEGIN CERTIFICATE-----\nbad\n")
        settings = self.load('ca_file = "bad.pem"')

        def in_thread(function: Any, *args: Any) -> Any:
            return succeed(function(*args))

        with self.assertRaises(ConfigError) as caught:
            make_outbound(settings, reactor=MemoryReactorClock(), in_thread=in_thread)
        self.assertEqual(caught.exception.key, "outbound.ca_file")


class DocumentTests(SynchronousTestCase):
    """What docs/outbound.md says."""

    text = (Path(__file__).parent.parent / "docs" / "outbound.md").read_text(encoding="utf-8")

    def test_example(self) -> None:
        """Its configuration is a good one."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(mode=0o755)
        (directory / "ca.pem").write_bytes(make_pair().pem)
        (example,) = re.findall(r"^```toml\n(.*?)^```$", self.text, re.DOTALL | re.MULTILINE)
        file = directory / "ctsd.toml"
        file.write_text(example.replace("/etc/ctsd/corporate-ca.pem", "ca.pem"))
        limits = outbound_limits(load(file, environ={"PROXY_PASSWORD": "x"}).outbound)
        self.assertIsNotNone(limits.proxy_for("feeds.example"))
        self.assertIsNone(limits.proxy_for("misp.corp.example"))

    def test_keys(self) -> None:
        """Every setting is spoken of, and every key that it names is one."""
        ours = {
            key.name.partition(".")[2] for key in settings.documented() if "outbound." in key.name
        }
        feeds = {key.name for key in documented()}
        named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?: = [^`]*)?`", self.text))
        self.assertEqual(named - ours - feeds - {"state_dir", "https_proxy"}, set())
        spoken = set(re.findall(r"[a-z_]+", self.text))
        self.assertEqual(ours - spoken, set())
