"""C{ctsd allow}: what is no finding whatever feeds say."""

from __future__ import annotations

from twisted.internet.defer import fail

from ctsd.errors import StoreError
from tests.commands import CommandCase


class AllowTests(CommandCase):
    """Adds, lists and removes."""

    def test_all_of_it(self) -> None:
        """What is added is listed until it is removed, however it is spelled then."""
        self.assertEqual(self.succeed("allow", "list"), "")
        self.assertEqual(
            self.succeed(
                *("allow", "add", "net.name=ours.example", "--until", "30d"),
                *("--why", "it is ours", "--by", "bob"),
            ),
            "allowed\n",
        )
        self.assertEqual(self.succeed("allow", "add", "net.cidr=192.0.2.0/24"), "allowed\n")
        self.assertEqual(
            self.succeed("allow", "list").splitlines(),
            [
                "net.name=ours.example  until 2027-02-14 08:00:00Z  bob  it is ours",
                "net.cidr=192.0.2.0/24  for ever",
            ],
        )
        self.assertEqual(self.succeed("allow", "add", "net.name=OURS.example"), "allowed anew\n")
        self.assertEqual(self.succeed("allow", "remove", "net.name=ours[.]example"), "removed\n")
        self.assertEqual(
            self.succeed("allow", "list").splitlines(), ["net.cidr=192.0.2.0/24  for ever"]
        )
        self.assertEqual(self.closed, 7)

    def test_over(self) -> None:
        """What is over is not listed."""
        self.succeed("allow", "add", "net.name=ours.example", "--until", "12h")
        self.clock.advance(13 * 3600)
        self.assertEqual(self.succeed("allow", "list"), "")

    def test_wrong(self) -> None:
        """What can't be allowed, or never was."""
        for given, told in (
            (["add", "ours.example"], "expected TYPE=VALUE"),
            (["add", "net.nme=ours.example"], "'net.nme': an artifact type"),
            (["add", "system.user.password=x"], "'system.user.password': an artifact type"),
            (["add", "net.name="], "no value of net.name"),
            (["add", "net.name=co.uk"], "expected a name below a public suffix"),
            (["add", "net.cidr=0.0.0.0/0"], "expected a range of /8 or narrower"),
            (["add", "net.cidr=2000::/3"], "expected a range of /8 or narrower"),
            (["add", "net.ip=ours.example"], "net.ip: expected an IP address"),
            (["add", "net.name=a.example", "--until", "soon"], "--until: expected a date"),
            (["remove", "net.name=ours.example"], "that is not allowed"),
        ):
            self.assertFails("allow", *given, told=told)
        for option in ("--why", "--by"):
            given = ("add", "net.name=a.example", option, "x" * 1001)
            self.assertFails("allow", *given, told=f"{option}: expected at most 1,000 characters")

    def test_remove_what_can_not_be_added(self) -> None:
        """What an older version took can be removed, although it is refused now."""
        data = (
            b'[{"type": "net.name", "value": "co.uk"}, {"type": "net.cidr", "value": "0.0.0.0/0"}]'
        )
        self.successResultOf(self.store.put(key="allow-list", value=data, secs=1000.0))
        self.assertEqual(self.succeed("allow", "remove", "net.cidr=0.0.0.0/0"), "removed\n")
        self.assertEqual(self.succeed("allow", "remove", "net.name=CO.uk."), "removed\n")
        self.assertEqual(self.succeed("allow", "list"), "")

    def test_full(self) -> None:
        """There are as many as the configuration says."""
        with self.config.open("a") as opened:
            opened.write("[matching]\nmax_allowed = 1\n")
        self.succeed("allow", "add", "net.name=a.example")
        self.assertFails(
            "allow", "add", "net.name=b.example", told="matching.max_allowed is 1: remove one"
        )

    def test_somebody_else(self) -> None:
        """While somebody else changes the list, nobody does."""
        self.successResultOf(self.store.lease(name="allow-list", holder="other", secs=30.0))
        self.assertFails("allow", "add", "net.name=a.example", told="right now")

    def test_store_away(self) -> None:
        """A store that can't be read is told."""
        self.patch(self.store, "get", lambda key: fail(StoreError("it is away")))
        self.assertFails("allow", "list", told="it is away")
