"""The Klein application: everything is routed here, the page beside the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ctsd.web.targets import CONSOLE

if TYPE_CHECKING:
    from ctsd.web.request import Request


def make_app() -> Klein:
    """
    Routes for all paths and methods.

    L{Request} has normalised the path and found what it means before Klein sees it; no route
    here ever redirects.
    """
    app = Klein()

    @app.route("/", methods=["GET"])
    @app.route(f"/{CONSOLE}/<path:path>", methods=["GET"])
    def page(request: Any, path: str = "") -> Deferred[None]:
        """The page and its parts, for who may have them; for others as if there were none."""
        return _shown(request) if request.for_page else _served(request)

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


def _shown(request: Request) -> Deferred[None]:
    site = request.site
    assert site.page is not None
    answering = Deferred.fromCoroutine(site.page.answer(request.target))
    done: Deferred[None] = Deferred()
    answering.addErrback(site.cts.failed).addCallback(request.send).addCallback(done.callback)
    return done


def _served(request: Request) -> Deferred[None]:
    # Klein cancels what a route returns when the client leaves. This is not the scan's own.
    done: Deferred[None] = Deferred()
    request.serve(done.callback)
    return done
