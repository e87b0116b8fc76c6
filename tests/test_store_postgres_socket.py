"""Tests of how the sockets of connections to PostgreSQL are watched."""

from __future__ import annotations

import socket

from twisted.internet.epollreactor import EPollReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ctsd.store.postgres_socket import SocketWatch


class Pollable:
    """
    As txpostgres' pollables: it has a socket that may be closed behind everybody's back.

    :ivar reads: how often it was told that there is something to read.
    """

    def __init__(self, ours: socket.socket) -> None:
        self.ours = ours
        self.reads = 0
        self.writes = 0

    def fileno(self) -> int:
        """-1 when the socket is closed."""
        return self.ours.fileno()

    def doRead(self) -> None:
        """There is something."""
        self.reads += 1

    def doWrite(self) -> None:
        """There is room."""
        self.writes += 1

    def connectionLost(self, reason: Failure) -> None:
        """It was given up."""

    def logPrefix(self) -> str:
        """For the log."""
        return "test"


class SocketWatchTests(SynchronousTestCase):
    """A reactor of its own watches sockets."""

    def setUp(self) -> None:
        """The kind of reactor that goes by numbers."""
        self.reactor = EPollReactor()
        self.addCleanup(self.reactor.removeAll)
        self.watch = SocketWatch(self.reactor)

    def pair(self) -> tuple[Pollable, socket.socket]:
        """Two ends."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        return Pollable(ours), theirs

    def turn(self) -> None:
        """Look once."""
        self.reactor.doIteration(0)

    def test_reads_and_writes(self) -> None:
        """A pollable is told, until it is removed."""
        pollable, theirs = self.pair()
        self.watch.addReader(pollable)
        self.watch.addWriter(pollable)
        theirs.send(b"x")
        self.turn()
        self.assertEqual((pollable.reads, pollable.writes), (1, 1))
        self.watch.removeReader(pollable)
        self.watch.removeWriter(pollable)
        self.turn()
        self.assertEqual((pollable.reads, pollable.writes), (1, 1))

    def test_closed_behind_our_back(self) -> None:
        """Whoever gets the number of a socket that libpq has closed is heard of."""
        pollable, _ = self.pair()
        self.watch.addReader(pollable)
        number = pollable.fileno()
        pollable.ours.close()
        other, theirs = self.pair()
        self.assertEqual(other.fileno(), number)
        self.watch.removeReader(pollable)
        watch = SocketWatch(self.reactor)
        watch.addReader(other)
        theirs.send(b"x")
        self.turn()
        self.assertEqual((pollable.reads, other.reads), (0, 1))
        watch.removeReader(other)

    def test_another_pollable(self) -> None:
        """A connection and its cursors have one socket: who comes last is told."""
        pollable, theirs = self.pair()
        cursor = Pollable(pollable.ours)
        self.watch.addReader(pollable)
        self.watch.addReader(cursor)
        theirs.send(b"x")
        self.turn()
        self.assertEqual((pollable.reads, cursor.reads), (0, 1))
        self.watch.removeReader(pollable)
        self.turn()
        self.assertEqual((pollable.reads, cursor.reads), (0, 1))

    def test_no_socket(self) -> None:
        """A connection that has none is refused."""
        pollable, _ = self.pair()
        pollable.ours.close()
        self.assertRaises(ValueError, self.watch.addReader, pollable)
        self.assertRaises(ValueError, self.watch.addWriter, pollable)
