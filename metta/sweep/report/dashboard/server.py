"""The dashboard's server: a page that shows the sweeps of a store while they run.

It only reads: no request changes a sweep or runs anything. On loopback everyone on this machine has access; any other
address needs a token.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metta.common.errors import UserError
from metta.sweep.report import plots
from metta.sweep.report.dashboard.live import LiveStore, overview
from metta.sweep.report.html import page
from metta.sweep.store.protocol import Store, SweepNotFoundError

COOKIE = "metta_sweep_token_"
"""Prefix of the cookie's name. The port follows, because a host's cookies are sent to all of its ports."""

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
ASSETS = {"style.css": "text/css", "page.js": "text/javascript", "dashboard.js": "text/javascript"}

# plotly writes style attributes, so styles may be inline; scripts may not
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}

log = logging.getLogger(__name__)


def make_app(store: Store, token: str | None, name: str | None = None) -> Starlette:
    """The dashboard as an ASGI application; it closes `store` when it ends.

    Args:
        token: what a visitor must present: once as ``?token=``, then in a cookie, or as a bearer token. None admits
            everyone who requests this machine by a name of loopback.
        name: of the sweep to read in advance; the latest if left out.

    Raises:
        SweepNotFoundError: there is no sweep of that name.
        StoreError: the store cannot be read.
    """
    live = LiveStore(store)
    live.warm_up(name)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        live.close()

    return Starlette(
        routes=[
            Route("/", _page, methods=["GET"]),
            Route("/assets/plotly.js", _plotly, methods=["GET"]),
            Route("/assets/{name}", _asset, methods=["GET"]),
            Route("/api/sweeps", _json(live, _sweeps), methods=["GET"]),
            Route("/api/overview", _json(live, _overview), methods=["GET"]),
            Route("/api/version", _json(live, _version), methods=["GET"]),
            Route("/api/rows", _json(live, _rows), methods=["GET"]),
            Route("/api/figure", _json(live, _figure), methods=["GET"]),
            Route("/api/trial", _json(live, _trial), methods=["GET"]),
        ],
        middleware=[Middleware(Guard, token=token), Middleware(GZipMiddleware, minimum_size=2000, compresslevel=3)],
        lifespan=lifespan,
    )


class Guard:
    """Admits authorised visitors, and adds headers to every answer that isolate the page from other sites.

    A foreign page whose name resolves to this machine (DNS rebinding) sends that name as its Host. Therefore, without a
    token, only the names of loopback are answered.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in present)]
            await send(message)

        answer = self._early_response(Request(scope))
        await (answer or self._app)(scope, receive, send_with_headers)

    def _early_response(self, request: Request) -> Response | None:
        """An answer instead of the application's, or None where the application should answer."""
        if self._token is None:
            name, _ = _host(request.headers)
            if name not in LOOPBACK_NAMES:
                return PlainTextResponse(f"this dashboard is not {name!r}\n", status_code=421)
            return None
        cookie = COOKIE + _host(request.headers)[1]
        given = request.query_params.get("token")
        if given is not None and request.url.path == "/" and self._is_right(given):
            kept = QueryParams([(key, value) for key, value in request.query_params.multi_items() if key != "token"])
            answer = RedirectResponse(f"/?{kept}" if kept else "/", status_code=303)
            answer.set_cookie(cookie, self._token, httponly=True, samesite="strict")
            return answer
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if self._is_right(request.cookies.get(cookie, "")) or (scheme.lower() == "bearer" and self._is_right(bearer)):
            return None
        return PlainTextResponse("open the address, with its token, that the dashboard printed\n", status_code=401)

    def _is_right(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())


def _host(headers: Headers) -> tuple[str, str]:
    """The name and the port of the Host header, as the visitor's browser sees them; "" for no port."""
    host = headers.get("host", "").lower()
    name, colon, port = host.rpartition(":")
    return (name, port) if colon and port.isdigit() else (host, "")


def _page(request: Request) -> Response:
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Metta Sweep</title>\n'
        '<link rel="icon" href="data:,">\n'
        '<link rel="stylesheet" href="/assets/style.css">\n'
        '<script src="/assets/page.js" defer></script>\n<script src="/assets/dashboard.js" defer></script>\n'
        '<link rel="preload" href="/assets/plotly.js" as="script">\n</head>\n<body>'
    )
    chooser = '<select id="sweeps" aria-label="sweep" hidden></select>'
    state = '<span class="live" id="live" role="status">connecting</span>'
    body = page.body("Metta Sweep", chooser + state, "", "", '<span id="store"></span>')
    return Response(f"{head}{body}</body>\n</html>\n", media_type="text/html")


def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in ASSETS:
        raise HTTPException(404)
    return Response(page.asset(name), media_type=ASSETS[name])


def _plotly(request: Request) -> Response:
    headers = {"content-encoding": "gzip", "cache-control": "private, max-age=86400"}
    return Response(page.plotly_js(), media_type="text/javascript", headers=headers)


def _json(live: LiveStore, answer: Callable[[LiveStore, QueryParams], Any]) -> Callable[[Request], Response]:
    """A route that answers with JSON. It is not a coroutine, so that Starlette runs it in a thread."""

    def respond(request: Request) -> Response:
        try:
            content, status = answer(live, request.query_params), 200
        except SweepNotFoundError as error:
            content, status = {"error": str(error)}, 404
        except UserError as error:
            content, status = {"error": str(error)}, 503
        text = json.dumps(content, allow_nan=False, separators=(",", ":"))
        return Response(text, status_code=status, media_type="application/json")

    return respond


def _sweeps(live: LiveStore, query: QueryParams) -> Any:
    return {"store": live.url, "sweeps": live.names()}


def _overview(live: LiveStore, query: QueryParams) -> Any:
    return overview(live.sweep(query.get("name", "")))


def _version(live: LiveStore, query: QueryParams) -> Any:
    sweep = live.sweep(query.get("name", ""))
    running = sweep.running()
    return {"version": sweep.version, "running": running}


def _rows(live: LiveStore, query: QueryParams) -> Any:
    return live.sweep(query.get("name", "")).rows(_whole_number(query, "since"))


def _figure(live: LiveStore, query: QueryParams) -> Any:
    sweep, name = live.sweep(query.get("name", "")), query.get("figure", "")
    if name == "learning_curves":
        return plots.learning_curves.build(sweep.with_curves())

    def build(snapshot: Any) -> Any:
        known = plots.all_plots(snapshot)
        if name not in known:
            raise HTTPException(404)
        return known[name].build(snapshot)

    return sweep.built(f"figure {name}", build)


def _trial(live: LiveStore, query: QueryParams) -> Any:
    sweep, number = live.sweep(query.get("name", "")), _whole_number(query, "number")
    trial = sweep.trial(number)
    if trial is None:
        raise HTTPException(404)
    snapshot = sweep.with_curves(only=number)
    return page.detail(snapshot, trial, page.ranking(snapshot))


def _whole_number(query: QueryParams, name: str) -> int:
    text = query.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise HTTPException(400, f"{name} must be a whole number")
    return int(text)


def is_loopback(host: str) -> bool:
    """Whether an address to bind to can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Raises:
        UserError: it is in use, or does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # requests before the server is up wait, and are not refused
    except OSError as error:
        listening.close()
        hint = "; --port 0 takes any that is free" if port else ""
        raise UserError(f"cannot listen on {host} port {port}: {error.strerror or error}{hint}") from None
    return listening


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(24)


def serve(app: Starlette, listening: socket.socket) -> None:
    """Serve the dashboard until Ctrl-C."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[listening])
