"""What a supervisor is told."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ctsd.notify import Notifier


class NotifyCase(SynchronousTestCase):
    """A notifier and what it has sent."""

    def setUp(self) -> None:
        """Nothing was sent yet."""
        self.clock = Clock()
        self.sent: list[tuple[str, bytes]] = []

    def notifier(self, *, send: Any = None, **environ: str) -> Notifier:
        """A started one that knows this environment; our process is the one with id 7."""
        notifier = Notifier(
            clock=self.clock,
            environ=environ,
            pid=7,
            send=send or (lambda address, message: self.sent.append((address, message))),
            monotonic_ns=lambda: 1_234_567_890,
        )
        notifier.startService()
        self.addCleanup(notifier.stopService)
        return notifier

    @property
    def messages(self) -> list[bytes]:
        """What was sent."""
        return [message for _, message in self.sent]


class MessagesTests(NotifyCase):
    """Each message, as sd_notify(3) has it."""

    def test_nobody(self) -> None:
        """Without a socket, or with one that we can't reach, nothing is sent."""
        for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}):
            notifier = self.notifier(WATCHDOG_USEC="1000000", **environ)
            notifier.ready("fine")
            notifier.reloading()
            notifier.stopping()
            notifier.status("fine")
            self.clock.advance(10)
        self.assertEqual(self.sent, [])

    def test_ready(self) -> None:
        """READY, with how we are when that was said."""
        notifier = self.notifier(NOTIFY_SOCKET="/run/notify")
        notifier.ready()
        notifier.ready("2 searchers")
        self.assertEqual(
            self.sent,
            [("/run/notify", b"READY=1"), ("/run/notify", b"READY=1\nSTATUS=2 searchers")],
        )

    def test_reloading(self) -> None:
        """RELOADING comes with the time in microseconds, without which systemd ignores it."""
        self.notifier(NOTIFY_SOCKET="/run/notify").reloading()
        self.assertEqual(self.messages, [b"RELOADING=1\nMONOTONIC_USEC=1234567"])

    def test_stopping(self) -> None:
        """STOPPING."""
        self.notifier(NOTIFY_SOCKET="/run/notify").stopping()
        self.assertEqual(self.messages, [b"STOPPING=1\nSTATUS=stopping"])

    def test_abstract(self) -> None:
        """An address with an at sign is in the abstract namespace."""
        self.notifier(NOTIFY_SOCKET="@x/y").stopping()
        self.assertEqual(self.sent[0][0], "\0x/y")

    def test_status_is_one_line(self) -> None:
        """What is said of us can't add a message of its own, and is short."""
        notifier = self.notifier(NOTIFY_SOCKET="/run/notify")
        notifier.status("a\nWATCHDOG=trigger\r\x85b" + "c" * 500)
        notifier.status(" \n")
        (message,) = self.messages
        self.assertTrue(message.startswith(b"STATUS=a WATCHDOG=trigger bc"))
        self.assertEqual(len(message), len("STATUS=") + 200)

    def test_never_raises(self) -> None:
        """A supervisor that does not listen is complained about once, and does no harm."""

        def refuse(address: str, message: bytes) -> None:
            raise ConnectionRefusedError(111, "Connection refused")

        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        notifier = self.notifier(send=refuse, NOTIFY_SOCKET="/run/notify", WATCHDOG_USEC="2000000")
        notifier.ready()
        self.clock.pump([1.0] * 5)
        self.assertEqual(
            [formatEvent(event) for event in logged],
            ["The supervisor can't be told: [Errno 111] Connection refused"],
        )

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Any text makes at most one line."""
        self.sent.clear()
        self.notifier(NOTIFY_SOCKET="/run/notify").status(text)
        for message in self.messages:
            self.assertEqual(len(message.splitlines()), 1)


class WatchdogTests(NotifyCase):
    """That we are alive."""

    def beats(self, **environ: str) -> int:
        """How often that was said in 10 s."""
        self.sent.clear()
        notifier = self.notifier(NOTIFY_SOCKET="/run/notify", **environ)
        self.clock.pump([0.5] * 20)
        notifier.stopService()
        self.clock.advance(100)
        self.assertEqual(set(self.messages) - {b"WATCHDOG=1"}, set())
        return len(self.sent)

    def test_half(self) -> None:
        """It is said at the start, then every half of the time that systemd waits."""
        self.assertEqual(self.beats(WATCHDOG_USEC="4000000"), 6)
        self.assertEqual(self.beats(WATCHDOG_USEC="4000000", WATCHDOG_PID="7"), 6)

    def test_not_alive(self) -> None:
        """Nothing is said while we are not."""
        alive = [True]
        notifier = Notifier(
            clock=self.clock,
            environ={"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "4000000"},
            alive=lambda: alive[0],
            send=lambda address, message: self.sent.append((address, message)),
        )
        notifier.startService()
        self.addCleanup(notifier.stopService)
        alive[0] = False
        self.clock.pump([2.0] * 3)
        self.assertEqual(len(self.sent), 1)
        alive[0] = True
        self.clock.advance(2)
        self.assertEqual(self.messages, [b"WATCHDOG=1"] * 2)

    def test_blocked(self) -> None:
        """A reactor that is blocked says nothing, and does not make up for it after."""
        self.notifier(NOTIFY_SOCKET="/run/notify", WATCHDOG_USEC="4000000")
        self.clock.advance(100)
        self.assertEqual(len(self.sent), 2)

    def test_not_ours(self) -> None:
        """Nothing where nobody waits for it, or for another process, or for nonsense."""
        for environ in (
            {},
            {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "8"},
            {"WATCHDOG_USEC": "0"},
            {"WATCHDOG_USEC": "-5"},
            {"WATCHDOG_USEC": "soon"},
            {"WATCHDOG_USEC": "9" * 400},
        ):
            self.assertEqual(self.beats(**environ), 0)


class SocketTests(SynchronousTestCase):
    """Real sockets."""

    def listen(self, address: str) -> socket.socket:
        """A socket that takes datagrams."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listening.close)
        listening.bind(address)
        listening.setblocking(False)
        return listening

    def test_path(self) -> None:
        """A socket in a directory."""
        path = Path(self.mktemp()).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Such a path may be longer than a socket's address; this one never is.
        descriptor = os.open(path.parent, os.O_DIRECTORY)
        self.addCleanup(os.close, descriptor)
        address = f"/proc/self/fd/{descriptor}/s"
        listening = self.listen(address)
        Notifier(clock=Clock(), environ={"NOTIFY_SOCKET": address}).ready()
        self.assertEqual(listening.recv(1000), b"READY=1")

    def test_abstract(self) -> None:
        """A socket without a file."""
        name = f"ctsd-test-{os.getpid()}"
        listening = self.listen("\0" + name)
        Notifier(clock=Clock(), environ={"NOTIFY_SOCKET": "@" + name}).stopping()
        self.assertEqual(listening.recv(1000), b"STOPPING=1\nSTATUS=stopping")

    def test_nobody_reads(self) -> None:
        """A supervisor that reads nothing does not hold us."""
        name = f"ctsd-test-{os.getpid()}-full"
        self.listen("\0" + name)
        notifier = Notifier(clock=Clock(), environ={"NOTIFY_SOCKET": "@" + name})
        for _ in range(1000):
            notifier.status("x" * 200)

    def test_gone(self) -> None:
        """A socket that is not there, or could be none."""
        for address in ("/nonexistent/notify", "@" + "x" * 500, "/" + "x" * 500, "/a\0b"):
            Notifier(clock=Clock(), environ={"NOTIFY_SOCKET": address}).ready()
