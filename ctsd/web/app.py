"""The Klein application: everything is routed here, and a page can be added beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from ctsd.web.request import Request


def make_app() -> Klein:
    """
    Routes for all paths and methods.

    L{Request} has normalised the path and found what it means before Klein sees it; no route
    here ever redirects.
    """
    app = Klein()

    # A route without methods takes them all: which are allowed depends on the target.
    @app.route("/")
    @app.route("/<path:path>")
    def serve(request: Any, path: str = "") -> Deferred[None]:
        """Answer as the short path does."""
        return _served(request)

    @app.handle_errors(Exception)
    def failed(request: Any, failure: Failure) -> None:
        """Whatever goes wrong in routing is ours, and shows no page of werkzeug's."""
        ours: Request = request
        ours.processingFailed(failure)

    return app


def _served(request: Request) -> Deferred[None]:
    # Klein cancels what a route returns when the client leaves. This is not the scan's own.
    done: Deferred[None] = Deferred()
    request.serve(done.callback)
    return done
