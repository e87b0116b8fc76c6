"""C{/health}: how the daemon and its searchers are, on both ways through the site."""

from __future__ import annotations

import json
from typing import Any

import ctsd
from ctsd.states import Failing, SearcherState
from ctsd.web.health import Health
from tests.web_fakes import FakeStatus
from tests.web_fixtures import Reply, WebCase, request

INTERNAL = SearcherState(name="internal", mode="sync", about="3 records in /var/x")
UNLISTED = SearcherState(name="vt", why_off="not listed")
AWAY = SearcherState(
    name="told",
    mode="async",
    required=False,
    trouble="no /srv/x",
    failing=Failing(1_800_000_000.5, 1_800_000_060.5),
)


class HealthTests(WebCase):
    """What is told, and with which status."""

    def setUp(self) -> None:
        """A site that tells."""
        self.status = FakeStatus()
        super().setUp()

    def serve(self, **more: Any) -> None:
        """It has a process' name."""
        health = Health(status=self.status, scans=self.scans, process="worker 1 of 2")
        super().serve(health=health, **more)

    def get(self, *searchers: SearcherState) -> Reply:
        """The answer with these searchers."""
        self.status.all_searchers = searchers
        return self.ask(request("GET", "/health")).reply

    def told(self, *searchers: SearcherState) -> tuple[int, str]:
        """The answer's status, and the one in it."""
        reply = self.get(*searchers)
        return reply.status, json.loads(reply.body)["status"]

    def test_well(self) -> None:
        """Names and states, as JSON."""
        reply = self.get(INTERNAL, UNLISTED)
        self.assertEqual(reply.headers["Content-Type"], "application/json")
        self.assertEqual(
            json.loads(reply.body),
            {
                "status": "ok",
                "trouble": "",
                "version": ctsd.__version__,
                "process": "worker 1 of 2",
                "searchers": [
                    {"name": "internal", "mode": "sync", "required": True, "state": "on"},
                    {
                        "name": "vt",
                        "mode": "",
                        "required": True,
                        "state": "off",
                        "why_off": "not listed",
                    },
                ],
            },
        )

    def test_degraded(self) -> None:
        """Who can't be asked is told with its state; that is no reason for 503."""
        loading = SearcherState(name="one", mode="sync", loading=True)
        trouble = SearcherState(name="one", mode="sync", trouble="no file")
        off = SearcherState(name="one", mode="async", why_off="no api_key")
        broken = SearcherState(name="one", why_off="does not import", broken=True)
        for state, shown, status in (
            (loading, "loading", "ok"),
            (trouble, "trouble", "degraded"),
            (off, "off", "degraded"),
            (broken, "off", "degraded"),
            (AWAY, "failing", "degraded"),
        ):
            self.assertEqual(self.told(INTERNAL, state), (200, status), state)
            one = json.loads(self.get(state).body)["searchers"][0]
            self.assertEqual(one["state"], shown)

    def test_failing_since(self) -> None:
        """Since when one fails is told, but nothing that a source or a path says."""
        body = self.get(INTERNAL, AWAY).body
        one = json.loads(body)["searchers"][1]
        self.assertEqual(one["failing_since"], "2027-01-15T08:00:00Z")
        self.assertEqual(one["failing_last"], "2027-01-15T08:01:00Z")
        self.assertFalse(one["required"])
        self.assertNotIn(b"/srv/", body)
        self.assertNotIn(b"/var/", body)

    def test_unavailable(self) -> None:
        """It is 503 when /health/ready is, and says why."""
        self.scans.not_working = "the store is away"
        reply = self.get(INTERNAL)
        told = json.loads(reply.body)
        self.assertEqual((reply.status, told["status"]), (503, "unavailable"))
        self.assertEqual(told["trouble"], "the store is away")
        self.scans.not_working = ""
        self.site.announce()
        self.assertEqual(self.told(INTERNAL), (503, "unavailable"))

    def test_methods(self) -> None:
        """It is read, and nothing else; nobody may lead a browser here by another name."""
        head = self.ask(request("HEAD", "/health"))
        self.assertIn(b"200 OK", head.wire.value())
        self.assertNotIn(b'"status"', head.wire.value())
        # Whoever takes it for a service must not lose an artifact.
        self.assertEqual(self.ask(request("POST", "/health", b"{}")).reply.status, 503)
        self.assertEqual(self.ask(request("PUT", "/health")).reply.status, 405)
        self.serve(loopback=True)
        self.assertEqual(self.get(INTERNAL).status, 421)

    def test_nothing_to_tell(self) -> None:
        """Where nothing is told there is nothing."""
        WebCase.serve(self)
        self.assertEqual(self.get(INTERNAL).status, 204)


class KleinHealthTests(HealthTests):
    """The same by way of Klein alone."""

    short_path = False
