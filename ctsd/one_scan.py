"""C{ctsd scan}: asks searchers about one artifact, once, without a daemon and without a trace."""

from __future__ import annotations

import os
import sys
import uuid
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from ctsd.artifacts import digest
from ctsd.blocking import DaemonThreads
from ctsd.catalogue import Catalogue
from ctsd.config.environment import child_environment
from ctsd.config.settings import Settings
from ctsd.discovery import discover
from ctsd.errors import CTSDError
from ctsd.model import ROOT_SERVICE, Artifact, Ended, Outcome
from ctsd.scanning.asking import ask_local
from ctsd.scanning.isolation import ChildSearches
from ctsd.scanning.live import questions_for
from ctsd.scanning.running import Runner
from ctsd.scanning.source import Answered, Ask, Source
from ctsd.sources import Sources, child_variables, make_store, start_sources

#: How long an index that is loading is waited for, looked at so often.
LOADING_SECS = 120.0
LOOK_SECS = 0.05


def run_scan(
    *, reactor: Any, settings: Settings, artifact: Artifact, searcher: str | None
) -> Deferred[list[tuple[str, Outcome]]]:
    """
    Ask searchers about an artifact.

    :param searcher: this one alone; it need not be listed in the configuration.
    :return: fires with the outcome of everyone who supports the artifact, in order. Nothing is
        written to the local database.
    :raises CTSDError: (in the Deferred) there is no such searcher, or it is off.
    """
    return Deferred.fromCoroutine(_run_scan(reactor, settings, artifact, searcher))


async def _run_scan(
    reactor: Any, settings: Settings, artifact: Artifact, searcher: str | None
) -> list[tuple[str, Outcome]]:
    catalogue = discover(settings)
    if searcher is not None:
        catalogue = _alone(catalogue, searcher)
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = make_store(settings, reactor=reactor)
    store.open()
    environment = child_variables(child_environment(os.environ, settings), sys.path)
    runner = Runner(
        clock=reactor,
        threads=DaemonThreads(reactor=reactor, max_threads=settings.blocking_threads),
        run_alone=ChildSearches(reactor=reactor, environment=environment),
    )
    sources = start_sources(
        settings,
        catalogue,
        reactor=reactor,
        store=store,
        environment=environment,
        updating=False,
    )
    store.startService()
    sources.indexes.startService()
    try:
        if searcher is not None and not sources.services[ROOT_SERVICE]:
            raise CTSDError(f"{searcher} is off: {sources.off[0].why_off}")
        return await _ask_all(reactor, runner, sources, artifact)
    finally:
        await sources.indexes.stopService()
        sources.stop()
        runner.stop()
        await store.stopService()


def _alone(catalogue: Catalogue, name: str) -> Catalogue:
    for found in catalogue.found:
        if found.name == name:
            if found.broken:
                raise CTSDError(f"{name} is off: {found.why_off}")
            on = evolve(found, mode=found.mode or "sync", why_off="")
            return Catalogue(found=(on,), services={ROOT_SERVICE: (name,)})
    known = ", ".join(sorted(found.name for found in catalogue.found))
    raise CTSDError(f"{name}: no such searcher; known: {known}")


async def _ask_all(
    reactor: Any, runner: Runner, sources: Sources, artifact: Artifact
) -> list[tuple[str, Outcome]]:
    ours = sources.services[ROOT_SERVICE]
    questions = questions_for(artifact, digest(artifact.type, artifact.value, artifact.file), ours)
    scan_id = uuid.uuid4().hex
    asking = []
    for source in ours:
        if source.name in questions:
            ask = Ask(scan_id=scan_id, questions=questions[source.name], asked=frozenset(questions))
            asking.append(Deferred.fromCoroutine(_ask(reactor, runner, source, ask)))
    outcomes = await gatherResults(asking)
    return [(name, answered.outcome) for name, answered in outcomes]


async def _ask(reactor: Any, runner: Runner, source: Source, ask: Ask) -> tuple[str, Answered]:
    deadline = reactor.seconds() + LOADING_SECS
    while True:
        answered = ask_local(source, ask) if source.local else await runner.ask(source, ask)
        later = answered.outcome.ended is Ended.LATER and source.loading()
        if not later or reactor.seconds() >= deadline:
            return source.name, answered
        await deferLater(reactor, LOOK_SECS)
