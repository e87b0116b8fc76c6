"""The supervisor of workers, with processes that are made up."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from twisted.internet.defer import succeed
from twisted.internet.error import (
    ProcessDone,
    ProcessExitedAlready,
    ProcessTerminated,
    ReactorNotRunning,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ctsd.configuration import Configuration
from ctsd.workers import supervisor
from ctsd.workers.messages import LENT_FROM, SPEAKS, line
from ctsd.workers.messages import Lines as Said
from ctsd.workers.seat import WorkerProcess
from ctsd.workers.supervisor import Supervisor

TEXT = """
state_dir = "var"
workers = 2
listen = ["tcp:0:interface=127.0.0.1", "tcp:1:interface=127.0.0.1"]
"""


class Process:
    """
    A worker's process.

    :ivar heard: what it was told.
    """

    def __init__(self, protocol: WorkerProcess, given: dict[str, Any], pid: int) -> None:
        self.protocol = protocol
        self.given = given
        self.pid: int | None = pid
        self.heard: list[dict[str, Any]] = []
        self.signals: list[str] = []
        self._lines = Said()

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        """Hear something."""
        self.heard += self._lines.feed(data)

    def signalProcess(self, name: str) -> None:
        """Get a signal."""
        if self.pid is None:
            raise ProcessExitedAlready
        self.signals.append(name)

    def say(self, **said: Any) -> None:
        """Say something."""
        self.protocol.childDataReceived(SPEAKS, line(**said))

    def end(self, status: int = 0) -> None:
        """Be no more."""
        self.pid = None
        reason = ProcessTerminated(status) if status else ProcessDone(0)
        self.protocol.processExited(Failure(reason))


class Reactor(MemoryReactorClock):
    """Starts processes that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []

    def spawnProcess(self, protocol: Any, *args: Any, **kwargs: Any) -> Any:
        """Start one."""
        process = Process(protocol, kwargs, 100 + len(self.processes))
        self.processes.append(process)
        protocol.makeConnection(process)
        return process

    def callFromThread(self, act: Any) -> None:
        """Do it at once."""
        act()

    def stop(self) -> None:
        """Stop; once."""
        if self.hasStopped:
            raise ReactorNotRunning
        super().stop()


class Told:
    """
    A notifier.

    :ivar said: what it was told.
    """

    def __init__(self, alive: Any) -> None:
        self.alive = alive
        self.said: list[str] = []

    def startService(self) -> None:
        """Begin."""

    def stopService(self) -> None:
        """End."""
        self.said.append("end")

    def ready(self, status: str = "") -> None:
        """All work."""
        self.said.append(f"ready {status}")

    def reloading(self) -> None:
        """Something changes."""
        self.said.append("reloading")

    def stopping(self, secs: float = 0.0) -> None:
        """The end begins."""
        self.said.append(f"stopping {secs:g}")


class Sockets:
    """Stands for the sockets of all workers."""

    closed = False

    def __init__(self) -> None:
        self.paused: list[int] = []

    def pause(self, number: int) -> None:
        """Let nobody in."""
        self.paused.append(number)

    def resume(self, number: int) -> None:
        """Let everybody in."""
        if number in self.paused:
            self.paused.remove(number)

    def of(self, number: int) -> tuple[int, ...]:
        """Two."""
        return (10 + number, 20 + number)

    def close(self) -> Any:
        """Close them."""
        self.closed = True
        return succeed(None)


class SupervisorTests(SynchronousTestCase):
    """What it does when something happens."""

    def setUp(self) -> None:
        """One that has started its workers."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.path = directory / "ctsd.toml"
        self.path.write_text(TEXT)
        self.reactor = Reactor()
        self.environ = {"NOTIFY_SOCKET": "/run/notify", "SECRET": "hunter2", "PATH": "/bin"}
        self.supervisor = Supervisor(
            Configuration.read(self.path, self.environ),
            reactor=self.reactor,
            make_notifier=self.make_notifier,
        )
        del self.reactor.seconds  # the real clock, that real reactors have to have
        self.sockets = self.supervisor._sockets = Sockets()  # type: ignore[assignment]
        self.supervisor._lock = os.open(directory, os.O_RDONLY)
        self.patch(supervisor.signal, "signal", lambda number, act: None)
        self.patch(supervisor.signal, "pthread_sigmask", lambda how, numbers: None)
        self.supervisor.startService()
        self.supervisor._running()

    def make_notifier(self, alive: Any) -> Told:
        """See L{Told}."""
        self.told = Told(alive)
        return self.told

    @property
    def processes(self) -> list[Process]:
        """All that were started."""
        return self.reactor.processes

    def open(self) -> None:
        """All workers are ready."""
        for process in self.processes[:2]:
            process.say(ready="fine")

    def stop(self) -> Any:
        """What the reactor does at its end."""
        return self.supervisor.stopService()

    def test_started(self) -> None:
        """Each gets its sockets, the lock, and an environment without what is the supervisor's."""
        first, second = self.processes
        self.assertEqual((first.heard[0]["number"], second.heard[0]["number"]), (1, 2))
        self.assertEqual(first.heard[0]["lent"], [LENT_FROM, LENT_FROM + 1])
        descriptors = second.given["childFDs"]
        lock = self.supervisor._lock
        self.assertEqual([descriptors[LENT_FROM + n] for n in range(3)], [12, 22, lock])
        environment = second.given["env"]
        self.assertEqual(environment["SECRET"], "hunter2")
        self.assertNotIn("NOTIFY_SOCKET", environment)

    def test_ready(self) -> None:
        """It is ready when all are, and that is said once."""
        self.processes[0].say(ready="fine")
        self.assertEqual(self.told.said, [])
        self.processes[1].say(ready="fine")
        self.assertEqual(self.told.said, ["ready 2 of 2 workers; fine"])
        self.processes[1].end(1)
        self.reactor.advance(1)
        self.processes[2].say(ready="fine")
        self.assertEqual(len(self.told.said), 1)

    def test_one_can_not_start(self) -> None:
        """Before all were ready, the end of one is the end of all, with status 1."""
        triggers: list[Any] = []
        self.reactor.addSystemEventTrigger = (  # type: ignore[method-assign, assignment]
            lambda *trigger: triggers.append(trigger)
        )
        self.processes[0].say(ready="fine")
        self.processes[1].end(1)
        self.assertEqual(triggers, [("after", "shutdown", os._exit, 1)])
        self.assertTrue(self.reactor.hasStopped)
        self.assertEqual(self.processes[0].signals, ["TERM"])
        self.reactor.advance(100)
        self.assertEqual(len(self.processes), 2)

    def test_pause(self) -> None:
        """Nobody waits for a worker that stays away, but for the last one all do."""
        self.open()
        self.processes[0].end(1)
        self.reactor.advance(1)
        self.processes[2].end(1)
        self.assertEqual(self.sockets.paused, [1])
        self.processes[1].end(1)
        self.reactor.advance(1)
        self.processes[3].end(1)
        self.assertEqual(self.sockets.paused, [1])
        self.reactor.advance(1)
        self.assertEqual((self.sockets.paused, len(self.processes)), ([], 5))

    def test_reload(self) -> None:
        """All are told the new text, whatever becomes of the file; it is over when all are done."""
        self.open()
        self.path.write_text(TEXT + "max_scans = 7\n")
        done = self.supervisor.reload()
        self.assertEqual(self.told.said[-1], "reloading")
        for process in self.processes:
            self.assertIn("max_scans = 7", process.heard[-1]["reload"]["text"])
        self.processes[0].say(ready="finer")
        self.assertNoResult(done)
        self.processes[1].say(ready="finer")
        self.successResultOf(done)
        self.assertEqual(self.told.said[-1], "ready 2 of 2 workers; finer")
        self.path.write_text("nonsense")
        self.processes[0].end(1)
        self.reactor.advance(1)
        self.assertIn("max_scans = 7", self.processes[2].heard[0]["current"]["text"])

    def test_reload_is_refused(self) -> None:
        """A wrong one is told to nobody."""
        self.open()
        self.path.write_text("nonsense")
        self.successResultOf(self.supervisor.reload())
        for process in self.processes:
            self.assertEqual(len(process.heard), 1)

    def test_reload_hangs(self) -> None:
        """One that does not get on holds nobody for ever."""
        self.open()
        done = self.supervisor.reload()
        self.processes[0].say(ready="fine")
        self.reactor.advance(supervisor.RELOAD_SECS)
        self.successResultOf(done)

    def test_replace(self) -> None:
        """One after the other; the next one's turn comes when the old one has gone."""
        self.open()
        done = self.supervisor.replace()
        self.assertEqual(len(self.processes), 3)
        self.assertEqual(self.processes[0].heard[1:], [])
        self.processes[2].say(ready="fine")
        self.assertEqual(self.processes[0].heard[1:], [{"leave": True}])
        self.assertEqual(len(self.processes), 3)
        self.processes[0].end()
        self.assertEqual(len(self.processes), 4)
        self.processes[3].say(ready="fine")
        self.assertNoResult(done)
        self.processes[1].end()
        self.successResultOf(done)
        self.assertEqual(self.told.said[-1], "ready 2 of 2 workers; fine")

    def test_replace_fails(self) -> None:
        """When the first new one can't start, the old ones all stay."""
        self.open()
        done = self.supervisor.replace()
        self.processes[2].end(1)
        self.successResultOf(done)
        self.assertEqual([len(process.heard) for process in self.processes[:2]], [1, 1])
        self.assertEqual(len(self.processes), 3)

    def test_replaced_one_stays(self) -> None:
        """One that does not go is killed, and the next one's turn comes."""
        self.open()
        self.supervisor.replace()
        self.processes[2].say(ready="fine")
        self.reactor.advance(supervisor.REPLACED_DRAIN_SECS + supervisor.END_SECS)
        self.assertEqual(self.processes[0].signals, ["KILL"])
        self.processes[0].end(1)
        self.assertEqual(len(self.processes), 4)

    def test_before_it_is_open(self) -> None:
        """What comes too early changes nothing."""
        for act in (self.supervisor.reload, self.supervisor.replace):
            act()
        self.assertEqual(len(self.processes), 2)
        self.assertEqual(self.told.said, [])

    def test_end(self) -> None:
        """All are told, and the sockets are closed when they have gone."""
        self.open()
        done = self.stop()
        self.assertEqual(self.told.said[-1], "stopping 0")
        for process in self.processes:
            self.assertEqual(process.signals, ["TERM"])
        self.processes[0].end()
        self.assertNoResult(done)
        self.assertFalse(self.sockets.closed)
        self.processes[1].end()
        self.successResultOf(done)
        self.assertTrue(self.sockets.closed)
        self.assertEqual(len(self.processes), 2)
        self.assertEqual(self.told.said[-1], "end")

    def test_end_at_once(self) -> None:
        """
        Whoever says it twice waits for no leave_secs. The workers hear it as a line: of two signals
        that come before the first was seen, one is lost.
        """
        self.open()
        self.reactor.sigTerm(signal.SIGTERM, None)
        self.stop()
        self.reactor.sigTerm(signal.SIGTERM, None)
        for process in self.processes:
            self.assertEqual(process.signals, ["TERM"])
            self.assertEqual(process.heard[-1], {"hurry": True})

    def test_end_hangs(self) -> None:
        """One that does not end is killed; one that can't be is left behind."""
        self.open()
        done = self.stop()
        self.reactor.advance(supervisor.END_SECS)
        self.assertEqual(self.processes[0].signals, ["TERM", "KILL"])
        self.processes[0].end(1)
        self.assertNoResult(done)
        self.reactor.advance(supervisor.END_SECS)
        self.successResultOf(done)

    def test_end_while_replacing(self) -> None:
        """New ones and old ones end alike, and no further one is started."""
        self.open()
        replaced = self.supervisor.replace()
        done = self.stop()
        for process in list(self.processes):
            self.assertEqual(process.signals, ["TERM"])
            process.end()
        self.successResultOf(done)
        self.successResultOf(replaced)
        self.assertEqual(len(self.processes), 3)

    def test_alive(self) -> None:
        """As long as those that are stuck could be killed."""
        self.open()
        self.assertTrue(self.told.alive())
        for _ in range(25):
            self.processes[0].say(beat=True)
            self.reactor.advance(1)
        self.assertEqual([process.signals != [] for process in self.processes], [False, True])
        self.assertTrue(self.told.alive())
        for _ in range(10):
            self.processes[0].say(beat=True)
            self.reactor.advance(1)
        self.assertFalse(self.told.alive())
        self.processes[1].end(1)
        self.assertTrue(self.told.alive())
