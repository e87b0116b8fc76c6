"""The searches that this process runs, and what is learned from them."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ctsd.scanning.asking import ask_local
from ctsd.scanning.flight import Flight
from ctsd.scanning.reliability import Reliability
from ctsd.scanning.running import Runner
from ctsd.scanning.source import Answered, Ask, Source


class Searches:
    """Asks searchers, and learns how well each of them does."""

    def __init__(
        self, *, clock: IReactorTime, runner: Runner, reliability: Reliability, flight: Flight
    ) -> None:
        self._clock = clock
        self._runner = runner
        self._reliability = reliability
        self._flight = flight

    def run(self, source: Source, ask: Ask, *, alone: bool = False) -> Deferred[Answered]:
        """
        Ask a searcher, and learn how long that usually takes.

        :param alone: in a child process.
        """
        started = self._clock.seconds()

        def learn(answered: Answered) -> Answered:
            # What is given up because we end says nothing about the source.
            if not self._flight.stopping:
                self._reliability.took(source.name, self._clock.seconds() - started)
                self._reliability.note(source.name, answered.outcome)
            return answered

        return self._runner.ask(source, ask, alone=alone).addCallback(learn)

    def run_now(self, source: Source, ask: Ask) -> Answered:
        """Ask a searcher that answers from memory."""
        answered = ask_local(source, ask)
        self._reliability.note(source.name, answered.outcome)
        return answered

    def stop(self) -> None:
        """Give up everything that runs."""
        self._runner.stop()
