"""Nasty values on every store."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial import unittest

from tests.nasty_values import NastySuite
from tests.postgres import MISSING
from tests.test_store import MemoryFixture, SQLiteFixture
from tests.test_store_postgres import PostgresFixture


class _OnEngine:
    make: Any

    def setUp(self) -> None:
        """A fresh store."""
        self.fixture = self.make()

    def tearDown(self) -> Deferred[None]:
        """Give it back."""
        return Deferred.fromCoroutine(self.fixture.close())


class MemoryNastyTests(_OnEngine, NastySuite, unittest.TestCase):
    """In memory."""

    make = MemoryFixture


class SQLiteNastyTests(_OnEngine, NastySuite, unittest.TestCase):
    """In a file."""

    make = SQLiteFixture


class PostgresNastyTests(_OnEngine, NastySuite, unittest.TestCase):
    """On PostgreSQL."""

    skip = MISSING or None
    make = PostgresFixture
