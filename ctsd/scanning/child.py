"""
The inside of a search in a child process: C{python -m ctsd.scanning.child}.

Reads one L{ChildRequest} from standard input and writes its answer to standard output. It ends
when its standard input does: when the daemon gave it up, or died.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
import threading
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import STDLibLogObserver, globalLogBeginner

from ctsd.errors import NotConfigured, SearchFailed
from ctsd.interfaces.feeds import IRecords, IThreats
from ctsd.model import Ended, Outcome
from ctsd.scanning.asking import ask_blocking, ask_waiting
from ctsd.scanning.isolation import ChildRequest, encode_answered
from ctsd.scanning.source import Answered, Source
from ctsd.searcher import BaseArtifactSearch
from ctsd.searcher_setup import SearcherSetup


def read_request(stdin: BinaryIO) -> ChildRequest:
    """
    The request.

    :raises EOFError: it is not whole.
    """
    size = int.from_bytes(_exactly(stdin, 8), "big")
    request = pickle.loads(_exactly(stdin, size))  # our own daemon wrote it, into this pipe
    assert isinstance(request, ChildRequest)
    return request


def _exactly(stdin: BinaryIO, size: int) -> bytes:
    data = stdin.read(size)
    if len(data) < size:
        raise EOFError("the request is cut")
    return data


def load_searcher(request: ChildRequest) -> BaseArtifactSearch:
    """The searcher that is asked for, from its own file."""
    module = sys.modules.get(request.module)
    if module is None:
        spec = importlib.util.spec_from_file_location(request.module, request.file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{request.file} is no Python module")
        module = importlib.util.module_from_spec(spec)
        sys.modules[request.module] = module
        spec.loader.exec_module(module)
    searcher = getattr(module, request.cls)()
    assert isinstance(searcher, BaseArtifactSearch)
    return searcher


def _no_records(path: Path, parse: Any, keep: str) -> IRecords:
    raise NotConfigured("indexes are not built in the child process of a search")


def _no_threats() -> IThreats:
    raise NotConfigured("the local database is not open in the child process of a search")


async def search(request: ChildRequest, clock: Any) -> Answered:
    """Run it; a searcher that can't be started is a failure, too."""
    setup = SearcherSetup(
        settings=request.settings,
        data_dir=request.data_dir,
        base_dir=request.base_dir,
        clock=clock,
        records=_no_records,
        threats=_no_threats,
    )
    try:
        searcher = load_searcher(request)
        searcher.start(setup)
        source = Source(
            searcher=searcher,
            setup=setup,
            name=request.name,
            timeout_secs=request.timeout_secs,
            scope=request.scope,
        )
        if iscoroutinefunction(searcher.search):
            return await ask_waiting(source, request.ask)
        return ask_blocking(source, request.ask)
    except (NotConfigured, SearchFailed) as error:
        return Answered(Outcome(Ended.FAILED, reason=str(error)))


def _die_with(stdin: BinaryIO) -> None:
    stdin.read()
    os._exit(0)


def main() -> None:
    """Run one search, from standard input to standard output."""
    # What a searcher prints must not end up in the answer.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    globalLogBeginner.beginLoggingTo([STDLibLogObserver()], redirectStandardIO=False)
    request = read_request(sys.stdin.buffer)
    threading.Thread(target=_die_with, args=(sys.stdin.buffer,), daemon=True).start()

    async def run(reactor: Any) -> None:
        answered = await search(request, reactor)
        answer.write(encode_answered(answered))
        answer.flush()
        # A thread that a searcher has left behind must not keep the answer from being whole.
        answer.close()
        os._exit(0)

    react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
