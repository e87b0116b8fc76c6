"""What blocks for a moment (files, hashes, parsing), in the reactor's own threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from ctsd.interfaces.threads import InThread

_P = ParamSpec("_P")
_T = TypeVar("_T")


def in_pool(reactor: Any) -> InThread:
    """What runs functions in the threads of a reactor, which waits for them at its end."""

    def in_thread(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Deferred[_T]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *args, **kwargs)

    return in_thread
