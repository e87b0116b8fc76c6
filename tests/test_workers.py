"""Workers: what their supervisor and they say, when they are started again, what is whose."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ctsd.config.document import parsed
from ctsd.config.listeners import Listener
from ctsd.config.loading import load
from ctsd.config.settings import Settings
from ctsd.configuration import SUPERVISED, Configuration, kept
from ctsd.errors import ConfigError
from ctsd.workers import restarts, seat
from ctsd.workers.messages import SPEAKS, Brief, Lines, document, hurry, leave, line, reload
from ctsd.workers.restarts import Restarts
from ctsd.workers.seat import Seat, WorkerProcess, how_it_ended
from ctsd.workers.shares import shared
from ctsd.workers.sockets import Sockets
from ctsd.workers.worker import Reports, configuration_of, follow
from ctsd.workers.worker_log import Lines as LogLines

TEXT = '# comments, too\nworkers = 2\n\n[services.x]\nsearchers = ["internal"]\n'


def of_text(text: str) -> Any:
    """A configuration file's text as a document."""
    return parsed(text, name="/etc/ctsd/ctsd.toml", base_dir=Path("/etc/ctsd"))


class MessagesTests(SynchronousTestCase):
    """Lines of JSON."""

    def brief(self, **more: Any) -> Brief:
        """A worker's first line."""
        given: dict[str, Any] = {
            "number": 2,
            "node": "2.1",
            "path": Path("/etc/ctsd/ctsd.toml"),
            "first": of_text(TEXT),
            "current": of_text(TEXT + "users = ['é']\n"),
            "lent": (4, 5),
        }
        return Brief(**{**given, **more})

    def test_brief(self) -> None:
        """What is sent comes out at the other end, lines of errors and all."""
        for brief in (self.brief(), self.brief(path=None, lent=())):
            (said,) = Lines().feed(brief.encode())
            self.assertEqual(Brief.decode(said), brief)
        error = Brief.decode(said).current.error(("services", "x", "users"), "none")
        self.assertIn("ctsd.toml:6", str(error))

    def test_commands(self) -> None:
        """A configuration, and that it is time to go."""
        sent = of_text(TEXT)
        first, *others = Lines().feed(reload(sent) + leave() + hurry())
        self.assertEqual(document(first["reload"]), sent)
        self.assertEqual(others, [{"leave": True}, {"hurry": True}])

    def test_no_secret(self) -> None:
        """What an error or a log could show of a brief has nothing of the file."""
        self.assertNotIn("comments", repr(self.brief()))

    @given(st.lists(st.text(), max_size=5), st.integers(1, 9))
    def test_pieces(self, texts: list[str], size: int) -> None:
        """In whatever pieces they come."""
        sent = b"".join(line(ready=text) for text in texts)
        lines, got = Lines(), []
        for at in range(0, len(sent), size):
            got += lines.feed(sent[at : at + size])
        self.assertEqual(got, [{"ready": text} for text in texts])

    def test_nonsense(self) -> None:
        """What is no line of ours is an error, and one without an end does not grow for ever."""
        self.assertRaises(ValueError, Lines().feed, b"nonsense\n")
        lines = Lines()
        piece = b"x" * (1 << 23)
        lines.feed(piece)
        lines.feed(piece)
        self.assertRaises(ValueError, lines.feed, piece)


class RestartsTests(SynchronousTestCase):
    """When a worker is started again."""

    def test_waits_longer(self) -> None:
        """From 1 s, doubled, to 30 s; then it is enough."""
        ends, now, waits = Restarts(), 0.0, []
        while (wait_secs := ends.ended(now=now, up_secs=0.0)) is not None:
            waits.append(wait_secs)
            now += wait_secs
        self.assertEqual(waits, [1, 2, 4, 8, 16, 30, 30, 30, 30])

    def test_steady(self) -> None:
        """One that was up for a minute begins anew, and is never given up."""
        ends, now = Restarts(), 0.0
        for _ in range(5):
            ends.ended(now=now, up_secs=0.0)
        for _ in range(100):
            now += restarts.STEADY_SECS
            self.assertEqual(ends.ended(now=now, up_secs=restarts.STEADY_SECS), 1)

    def test_old_ends(self) -> None:
        """Ends of long ago don't count."""
        ends = Restarts()
        for number in range(restarts.MAX_ENDS - 1):
            self.assertIsNotNone(ends.ended(now=number, up_secs=0.0))
        self.assertIsNotNone(ends.ended(now=restarts.WINDOW_SECS + 20, up_secs=0.0))


class FakeTransport:
    """A process, as far as its protocol sees it."""

    def __init__(self, pid: int) -> None:
        self.pid: int | None = pid
        self.signals: list[str] = []
        self.written: list[dict[str, Any]] = []

    def signalProcess(self, name: str) -> None:
        """Send a signal."""
        if self.pid is None:
            raise ProcessExitedAlready
        self.signals.append(name)

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        """Say something to it."""
        self.written.append(json.loads(data))


class SeatCase(SynchronousTestCase):
    """A seat whose processes are made up."""

    def setUp(self) -> None:
        """Nobody sits there."""
        self.clock = Clock()
        self.spawned: list[WorkerProcess] = []
        self.given_up: list[str] = []
        self.changes = 0
        self.full = False
        self.pauses: list[bool] = []
        self.seat = Seat(
            number=1,
            clock=self.clock,
            spawn=self.spawn,
            changed=self.changed,
            pause=lambda seat, pause: self.pauses.append(pause),
            give_up=self.given_up.append,
        )

    def changed(self) -> None:
        """Count."""
        self.changes += 1

    def spawn(self, seat: Seat) -> WorkerProcess:
        """Start a process."""
        if self.full:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        process = WorkerProcess(clock=self.clock, seat=seat, brief=line(node=seat.generation))
        self.spawned.append(process)
        process.makeConnection(FakeTransport(pid=100 + len(self.spawned)))  # type: ignore[arg-type]
        return process

    def transport(self, process: WorkerProcess) -> FakeTransport:
        """What was done with it."""
        fake: Any = process.transport
        assert isinstance(fake, FakeTransport)
        return fake

    def says(self, process: WorkerProcess, **said: Any) -> None:
        """Something comes from it."""
        process.childDataReceived(SPEAKS, line(**said))

    def ends(self, process: WorkerProcess, code: int = 1) -> None:
        """It ends."""
        self.transport(process).pid = None
        reason = ProcessDone(0) if code == 0 else ProcessTerminated(code)
        process.processExited(Failure(reason))

    def ready(self) -> WorkerProcess:
        """Fill the seat."""
        filled = self.seat.fill()
        self.says(self.spawned[-1], ready="fine")
        self.assertTrue(self.successResultOf(filled))
        return self.spawned[-1]

    def look(self, times: int, *beating: WorkerProcess) -> None:
        """So many seconds, in which these say that they are alive."""
        for _ in range(times):
            self.clock.advance(1)
            for process in beating:
                self.says(process, beat=True)
            self.seat.look()


class SeatTests(SeatCase):
    """Processes come and go."""

    def test_ready(self) -> None:
        """Who is ready serves, and got its brief first."""
        process = self.ready()
        self.assertIs(self.seat.serving, process)
        self.assertEqual((self.changes, process.status), (1, "fine"))
        self.assertEqual(self.transport(process).written, [{"node": 1}])

    def test_started_again(self) -> None:
        """Who ends is followed by another one, of the same name in the store."""
        first = self.ready()
        self.ends(first)
        self.assertIsNone(self.seat.serving)
        self.clock.advance(0.9)
        self.assertEqual(len(self.spawned), 1)
        self.clock.advance(0.1)
        self.assertEqual(self.transport(self.spawned[1]).written, [{"node": 1}])
        self.says(self.spawned[1], ready="fine")
        self.assertIs(self.seat.serving, self.spawned[1])
        self.assertEqual(self.seat.processes, [self.spawned[1]])

    def test_paused(self) -> None:
        """Clients wait for one that comes soon, and not for one that stays away longer."""
        self.ends(self.ready())
        self.clock.advance(1)
        self.assertEqual(self.pauses, [])
        self.ends(self.spawned[-1])
        self.assertEqual(self.pauses, [True])
        self.clock.advance(2)
        self.assertEqual((self.pauses, len(self.spawned)), ([True, False], 3))

    def test_no_process(self) -> None:
        """A machine without room for another process is tried again, like any other end."""
        first = self.ready()
        self.full = True
        self.ends(first)
        self.clock.pump([1.0] * 3)
        self.assertEqual(len(self.spawned), 1)
        self.full = False
        self.clock.pump([1.0] * 4)
        self.assertEqual(len(self.spawned), 2)
        self.says(self.spawned[-1], ready="fine")
        self.assertIs(self.seat.serving, self.spawned[-1])
        self.full = True
        self.assertFalse(self.successResultOf(self.seat.fill()))
        self.clock.advance(100)
        self.assertIs(self.seat.serving, self.spawned[-1])

    def test_last_words(self) -> None:
        """What is heard of a process that has ended already makes it no other than it is."""
        self.seat.fill()
        process = self.spawned[0]
        self.ends(process)
        self.says(process, ready="fine")
        self.assertIsNone(self.seat.serving)

    def test_given_up(self) -> None:
        """Who ends again and again is given up, with the reason."""
        self.ready()
        while not self.given_up:
            self.ends(self.spawned[-1], 7)
            self.clock.advance(restarts.MAX_WAIT_SECS)
        self.assertEqual(len(self.spawned), restarts.MAX_ENDS)
        self.assertEqual(
            self.given_up, ["worker 1 ends again and again, the last time with status 7"]
        )

    def test_replaced(self) -> None:
        """The old one is told to leave when the new one is ready, and not before."""
        old = self.ready()
        filled = self.seat.fill()
        new = self.spawned[-1]
        self.assertEqual(self.transport(new).written, [{"node": 2}])
        self.assertNoResult(filled)
        self.assertIs(self.seat.serving, old)
        self.assertEqual(self.transport(old).written, [{"node": 1}])
        self.says(new, ready="fine")
        self.assertTrue(self.successResultOf(filled))
        self.assertEqual(self.transport(old).written, [{"node": 1}, {"leave": True}])
        self.ends(old, 0)
        self.clock.advance(100)
        self.assertEqual((len(self.spawned), self.seat.processes), (2, [new]))

    def test_replacement_fails(self) -> None:
        """When the new one ends before it is ready, the old one stays."""
        old = self.ready()
        filled = self.seat.fill()
        self.ends(self.spawned[-1])
        self.assertFalse(self.successResultOf(filled))
        self.clock.advance(100)
        self.assertIs(self.seat.serving, old)
        self.assertEqual((len(self.spawned), self.transport(old).signals), (2, []))

    def test_ends_while_it_is_replaced(self) -> None:
        """When the old one ends first, the new one is the one after it."""
        old = self.ready()
        filled = self.seat.fill()
        self.ends(old)
        self.says(self.spawned[-1], ready="fine")
        self.assertTrue(self.successResultOf(filled))
        self.clock.advance(100)
        self.assertEqual(len(self.spawned), 2)

    def test_filled_twice(self) -> None:
        """One new process is enough for both who want one; and none is started again beside it."""
        self.ends(self.ready())
        first, second = self.seat.fill(), self.seat.fill()
        self.clock.advance(100)
        self.assertEqual(len(self.spawned), 2)
        self.says(self.spawned[-1], ready="fine")
        self.assertTrue(self.successResultOf(first) and self.successResultOf(second))

    def test_stuck(self) -> None:
        """Who is not heard of any more is killed, and others meanwhile are not."""
        process = self.ready()
        self.look(100, process)
        self.assertEqual(self.transport(process).signals, [])
        self.look(seat.STUCK_LOOKS - 1)
        self.assertEqual(self.transport(process).signals, [])
        self.look(1)
        self.assertEqual(self.transport(process).signals, ["KILL"])
        self.assertFalse(process.lost)
        self.look(seat.STUCK_LOOKS)
        self.assertTrue(process.lost)

    def test_supervisor_was_stopped(self) -> None:
        """A time in which nobody ran is nobody's fault."""
        process = self.ready()
        self.clock.advance(3600)
        self.look(1)
        self.assertEqual(self.transport(process).signals, [])

    def test_never_ready(self) -> None:
        """Who does not become ready is killed, however alive it is."""
        self.seat.fill()
        process = self.spawned[0]
        self.look(seat.START_LOOKS)
        self.assertEqual(self.transport(process).signals, [])
        self.look(1)
        self.assertEqual(self.transport(process).signals, ["KILL"])

    def test_alive_but_never_ready(self) -> None:
        """Also when it says all the time that it is alive."""
        self.seat.fill()
        process = self.spawned[0]
        self.look(seat.START_LOOKS + 1, process)
        self.assertEqual(self.transport(process).signals, ["KILL"])

    def test_nonsense(self) -> None:
        """Who says what nobody understands is killed."""
        process = self.ready()
        process.childDataReceived(SPEAKS, b"what?\n")
        self.assertEqual(self.transport(process).signals, ["KILL"])

    def test_reload(self) -> None:
        """It is told, and says when it is done; or it ends."""
        process = self.ready()
        told = process.reload(line(reload={}))
        self.says(process, beat=True)
        self.assertNoResult(told)
        self.says(process, ready="finer")
        self.successResultOf(told)
        self.assertEqual((process.status, self.changes), ("finer", 1))
        told = process.reload(line(reload={}))
        self.ends(process)
        self.successResultOf(told)

    def test_close(self) -> None:
        """At the end all are told, and nobody is started any more."""
        leaving, serving = self.ready(), self.ready()
        self.seat.close()
        for process in (leaving, serving):
            self.assertEqual(self.transport(process).signals, ["TERM"])
            self.ends(process, 0)
        self.clock.advance(100)
        self.assertEqual((len(self.spawned), self.seat.processes), (2, []))
        serving.send_signal("KILL")
        self.assertFalse(self.successResultOf(self.seat.fill()))
        self.assertEqual(len(self.spawned), 2)

    def test_close_while_it_waits(self) -> None:
        """Nobody is started whose time comes after the end."""
        self.ends(self.ready())
        self.seat.close()
        self.clock.advance(100)
        self.assertEqual(len(self.spawned), 1)

    def test_how_it_ended(self) -> None:
        """In words."""
        self.assertEqual(how_it_ended(Failure(ProcessDone(0))), "status 0")
        self.assertEqual(how_it_ended(Failure(ProcessTerminated(1))), "status 1")
        self.assertEqual(
            how_it_ended(Failure(ProcessTerminated(None, 9))),
            "killed by SIGKILL",
        )


class ConfigurationTests(SynchronousTestCase):
    """What a worker goes by."""

    def settings(self, text: str) -> Settings:
        """Settings of a file of this text."""
        directory = Path(self.mktemp())
        directory.mkdir()
        path = directory / "ctsd.toml"
        path.write_text(text)
        return load(path, environ={})

    def test_shares(self) -> None:
        """Each has its part of what all may take together, and what one request needs."""
        settings = self.settings("workers = 4\nmax_scans = 10\n[http]\nmax_connections = 4\n")
        one = shared(settings)
        self.assertEqual((one.max_scans, one.http.max_connections), (3, 1))
        self.assertEqual(one.upload.max_concurrent, 2)
        self.assertEqual(one.upload.spool_max_bytes, settings.upload.spool_max_bytes // 4)
        self.assertEqual(one.http.max_body_memory_bytes, 64 * 2**20)

    def test_shares_of_many(self) -> None:
        """However many there are, the largest file and the largest body fit."""
        settings = self.settings("workers = 200\n[upload]\nmax_bytes = 7\nspool_max_bytes = 20\n")
        one = shared(settings)
        self.assertEqual((one.upload.max_concurrent, one.upload.spool_max_bytes), (1, 7))
        self.assertEqual(one.http.max_body_memory_bytes, settings.http.max_json_bytes)
        small = self.settings("workers = 2\n[upload]\nmax_bytes = 9\nspool_max_bytes = 6\n")
        self.assertEqual(shared(small).upload.spool_max_bytes, 6)

    def test_alone(self) -> None:
        """One worker has everything."""
        settings = self.settings("")
        self.assertEqual(shared(settings), settings)

    def test_kept(self) -> None:
        """What its supervisor began with holds; the rest is as it is now."""
        brief = Brief(
            number=1,
            node="1.1",
            path=None,
            first=of_text("workers = 2\nstate_dir = 'a'\nmax_scans = 10\n"),
            current=of_text("workers = 3\nstate_dir = 'b'\nmax_scans = 20\nlog_values = true\n"),
            lent=(4,),
        )
        configuration = configuration_of(brief)
        settings = configuration.settings
        self.assertEqual((settings.workers, settings.state_dir), (2, Path("/etc/ctsd/a")))
        self.assertEqual((settings.max_scans, settings.log_values), (10, True))
        new = follow(configuration, of_text("workers = 5\nstate_dir = 'c'\nmax_scans = 30\n"))
        settings = new.settings
        self.assertEqual((settings.workers, settings.state_dir), (2, Path("/etc/ctsd/a")))
        self.assertEqual(settings.max_scans, 15)
        self.assertRaises(ConfigError, follow, configuration, of_text("workers = 'x'"))

    def test_names(self) -> None:
        """What is supervised are settings."""
        settings = self.settings("")
        self.assertEqual(kept(settings, settings, SUPERVISED), settings)

    def test_not_every_listener(self) -> None:
        """What can't be shared is refused, with its place; alone it is fine."""
        text = 'listen = ["tcp:1", "fd:4"]\n'
        with self.assertRaises(ConfigError) as caught:
            self.settings("workers = 2\n" + text)
        self.assertIn("listen[1]", str(caught.exception))

    def test_workers(self) -> None:
        """A number of them, or one a core."""
        cores = len(os.sched_getaffinity(0))
        self.assertEqual(self.settings('workers = "auto"\n').workers, cores)
        for wrong in ("0", "257", "1.0", "true", '"many"'):
            self.assertRaises(ConfigError, self.settings, f"workers = {wrong}\n")

    def test_configuration_is_told_of_no_secret(self) -> None:
        """A configuration's text form has no environment in it."""
        settings = self.settings("")
        self.assertNotIn("hunter2", repr(Configuration.of(settings, None, {"X": "hunter2"})))


class ReportsTests(SynchronousTestCase):
    """What a worker says of itself."""

    def setUp(self) -> None:
        """A pipe to the supervisor."""
        self.clock = Clock()
        self.hears, speaks = os.pipe()
        self.addCleanup(os.close, speaks)
        os.set_blocking(self.hears, False)
        self.reports = Reports(clock=self.clock, descriptor=speaks)

    def heard(self) -> list[dict[str, Any]]:
        """All that was said."""
        return Lines().feed(os.read(self.hears, 65536))

    def test_all(self) -> None:
        """That it is alive, every second, and how it is."""
        self.addCleanup(os.close, self.hears)
        self.reports.startService()
        self.clock.pump([1.0] * 3)
        self.reports.ready("fine")
        self.reports.reloading()
        self.reports.stopping(7.0)
        self.assertEqual(self.heard(), [{"beat": True}] * 4 + [{"ready": "fine"}])
        self.reports.stopService()
        self.clock.pump([1.0] * 3)
        self.assertRaises(BlockingIOError, self.heard)

    def test_nobody_reads(self) -> None:
        """A supervisor that does not read is not waited for, nor one that has ended."""
        for _ in range(5000):
            self.reports.ready("x" * 100)
        os.close(self.hears)
        self.reports.ready("fine")


class LogTests(SynchronousTestCase):
    """Lines of several processes on one output."""

    def test_whole_lines(self) -> None:
        """What is written at once are whole lines, as many as a pipe takes without mixing."""
        written: list[bytes] = []

        def write(descriptor: int, piece: bytes) -> int:
            written.append(bytes(piece))
            return len(piece)

        self.patch(os, "write", write)
        text = "".join(f"{number} {'é' * 90}\n" for number in range(100)) + "long" * 2000 + "\n"
        LogLines(1).write(text)
        self.assertEqual(b"".join(written).decode(), text)
        for piece in written:
            self.assertEqual(piece[-1:], b"\n")
            self.assertTrue(len(piece) <= 4096 or piece.count(b"\n") == 1)

    def test_short_writes(self) -> None:
        """Nothing is lost when less is taken."""
        written: list[bytes] = []

        def write(descriptor: int, piece: bytes) -> int:
            written.append(bytes(piece[:3]))
            return len(written[-1])

        self.patch(os, "write", write)
        LogLines(1).write("one line\nanother\n")
        self.assertEqual(b"".join(written), b"one line\nanother\n")


class SocketsTests(TestCase):
    """Real sockets."""

    def sockets(self, *listeners: Listener, workers: int = 3) -> Sockets:
        """Open ones, closed at the end."""
        sockets = Sockets(reactor=reactor, listeners=listeners, workers=workers)
        self.addCleanup(sockets.close)
        sockets.open()
        return sockets

    def names(self, sockets: Sockets, workers: int = 3) -> list[list[Any]]:
        """Where the sockets of each worker are bound."""
        found = []
        for number in range(1, workers + 1):
            found.append([])
            for descriptor in sockets.of(number):
                with socket.socket(fileno=os.dup(descriptor)) as one:
                    found[-1].append(one.getsockname())
        return found

    def test_tcp(self) -> None:
        """One for each worker, all on one address, also when the kernel chooses the port."""
        listener = Listener(description="auth:users:tcp:0:interface=127.0.0.1", kind="tcp")
        sockets = self.sockets(listener)
        places = {name for names in self.names(sockets) for name in names}
        self.assertEqual(len(places), 1)
        descriptors = {one for number in (1, 2, 3) for one in sockets.of(number)}
        self.assertEqual(len(descriptors), 3)

    def test_unix(self) -> None:
        """All workers have the same one."""
        path = f"/tmp/ctsd-test-{os.getpid()}-sockets"
        sockets = self.sockets(
            Listener(description=f"unix:{path}", kind="unix"),
            Listener(description="tcp:0:interface=127.0.0.1", kind="tcp"),
        )
        self.assertEqual([names[0] for names in self.names(sockets)], [path] * 3)
        self.assertEqual(len({sockets.of(number)[0] for number in (1, 2, 3)}), 1)

    def test_pause(self) -> None:
        """Nobody comes in at the sockets of one that is away, until they are opened again."""
        listener = Listener(description="tcp:0:interface=127.0.0.1", kind="tcp")
        sockets = self.sockets(listener, workers=2)
        ((address,), _) = self.names(sockets, workers=2)
        for paused in (False, True, False):
            if paused:
                sockets.pause(2)
            counts = self.come(sockets, address)
            self.assertEqual(sum(counts), 32)
            self.assertEqual(counts[1] == 0, paused)
            if paused:
                sockets.resume(2)

    def come(self, sockets: Sockets, address: Any) -> list[int]:
        """How many of 32 clients come in at each of two workers."""
        clients = [socket.create_connection(address) for _ in range(32)]
        counts = []
        for number in (1, 2):
            with socket.socket(fileno=os.dup(sockets.of(number)[0])) as listening:
                counts.append(0)
                # Nothing waits there (any more), or it does not listen.
                with contextlib.suppress(OSError):
                    while True:
                        listening.accept()[0].close()
                        counts[-1] += 1
        for client in clients:
            client.close()
        return counts

    def test_taken(self) -> None:
        """A port that somebody has can't be had, though both would share it."""
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            listener = Listener(description=f"tcp:{port}:interface=127.0.0.1", kind="tcp")
            error = self.assertRaises(SystemExit, self.sockets, listener)
        self.assertEqual(
            error.code,
            f"ctsd: can't listen on tcp:{port}:interface=127.0.0.1: Address already in use",
        )

    def test_no_such_socket(self) -> None:
        """One that systemd did not give can't be had."""
        listener = Listener(description="systemd:domain=INET:index=0", kind="systemd")
        error = self.assertRaises(SystemExit, self.sockets, listener)
        self.assertIn("no such socket came from systemd", str(error.code))

    async def lend(self, listening: socket.socket) -> Any:
        """A port on a copy of a socket, as a worker has it."""
        descriptor = os.dup(listening.fileno())
        accepted: Deferred[None] = Deferred()

        class Accepting(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> None:
                # Not at once: the port still has its socket in hand.
                reactor.callLater(0, accepted.callback, None)  # type: ignore[attr-defined]

        port = await serverFromString(reactor, f"ctsd-lent:{descriptor}").listen(Accepting())
        return port, accepted

    async def test_lent(self) -> None:
        """Who is lent a socket takes who comes in, and the socket listens on when it has gone."""
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            port, accepted = await self.lend(listening)
            with socket.create_connection(listening.getsockname()):
                await accepted
            port.stopReading()
            port.socket.close()
            with socket.create_connection(listening.getsockname()):
                listening.accept()[0].close()

    async def test_lent_unix(self) -> None:
        """A Unix socket's file keeps its mode."""
        path = f"/tmp/ctsd-test-{os.getpid()}-lent"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            self.addCleanup(os.unlink, path)
            os.chmod(path, 0o600)
            listening.listen()
            port, accepted = await self.lend(listening)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                await accepted
            port.stopReading()
            port.socket.close()
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)

    async def test_lent_nothing(self) -> None:
        """What is no socket fails."""
        reads, writes = os.pipe()
        self.addCleanup(os.close, writes)
        self.addCleanup(os.close, reads)
        listening = serverFromString(reactor, f"ctsd-lent:{reads}").listen(Factory())
        await self.assertFailure(listening, OSError)
