"""The web process: Label Studio's routes and the job list as a Flask app, and `svac-backend serve`, which runs it.

It runs under waitress: one process, with threads behind a loop that buffers. It never imports torch.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import resource
import signal
import socket
import threading
import time
import uuid
from contextlib import ExitStack
from typing import Any

import waitress
from flask import Flask, Response, g, jsonify, request
from waitress import wasyncore
from werkzeug.exceptions import HTTPException

from svac_backend.errors import SvacError, log_ids, start_logging
from svac_backend.jobs.services import Metrics, open_services
from svac_backend.server import jobs_api, media, protocol
from svac_backend.server.bodies import TOGETHER, BadRequest
from svac_backend.server.jobs_api import NotFound
from svac_backend.server.predicting import Predictor
from svac_backend.server.security import (
    CallerPace,
    Forbidden,
    Gate,
    TooMany,
    Unauthorized,
    WrongType,
)
from svac_backend.server.ui.frame import error_page, is_page
from svac_backend.server.ui.routes import add_pages
from svac_backend.settings import Settings
from svac_backend.store.links import LinkRefused

# Label Studio and health checks call these often, and players once for each frame: not worth a log line each.
QUIET = frozenset({"/", "/health", "/ready", "/metrics", "/media/<path:name>"})

STATUS = {
    BadRequest: 400,
    Unauthorized: 401,
    LinkRefused: 403,
    Forbidden: 403,
    NotFound: 404,
    WrongType: 415,
    TooMany: 429,
}

# A proxy's own request id, if it sends one, so that its log and ours can be matched.
REQUEST_ID, _ID = "X-Request-ID", re.compile(r"[\w-]{1,64}", re.ASCII)

log = logging.getLogger(__name__)


def create_app(settings: Settings) -> Flask:
    """Return the app. Its state lies in `settings.data_dir`; its `Services` are `app.extensions["svac"]`.

    Raises:
        SvacError: the data folder cannot be used, or the settings disagree.
    """
    gate = Gate(settings)
    backend = open_services(settings)
    metrics = Metrics(backend)
    app = Flask("svac_backend", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_mb * 1_000_000
    app.extensions["svac"] = backend
    app.register_blueprint(protocol.create_blueprint(backend, gate, Predictor(backend, metrics), metrics))
    app.register_blueprint(jobs_api.create_blueprint(backend, gate))
    app.register_blueprint(media.create_blueprint(backend))
    add_pages(app, backend, gate)
    _watch(app, metrics)
    pace = CallerPace(settings.rate_limit)

    @app.before_request
    def check_caller() -> None:
        pace.check(request.remote_addr or "")
        gate.check_way(request, forms=request.blueprint == "ui")

    _answer_errors(app, settings, pace)
    return app


def _watch(app: Flask, metrics: Metrics) -> None:
    """Time and log every request: method, route, status, milliseconds. Never a body, a query or a header."""

    @app.before_request
    def begin() -> None:
        g.begun = time.monotonic()
        given = request.headers.get(REQUEST_ID, "")
        g.id = given if _ID.fullmatch(given) else uuid.uuid4().hex[:16]
        g.ids = ExitStack()
        g.ids.enter_context(log_ids(request=g.id))

    @app.teardown_request
    def forget(_: BaseException | None) -> None:
        TOGETHER.give_back(g.pop("body_part", 0))
        if "ids" in g:
            g.ids.close()

    @app.after_request
    def end(response: Response) -> Response:
        # The rule, not the path: callers choose the path, and each one would become a metric of its own.
        route = request.url_rule.rule if request.url_rule else "(unknown)"
        seconds = time.monotonic() - g.get("begun", time.monotonic())
        metrics.requests.labels(route, str(response.status_code)).inc()
        metrics.seconds.labels(route).observe(seconds)
        level = logging.DEBUG if route in QUIET and response.status_code < 400 else logging.INFO
        log.log(level, "%s %s %d %.0f ms", request.method, route, response.status_code, seconds * 1000)
        response.headers[REQUEST_ID] = g.get("id", "")
        return response


def _answer_errors(app: Flask, settings: Settings, pace: CallerPace) -> None:
    """Answer every error as {"error": what is wrong, "hint": what to do}, and below /ui as a page."""

    @app.errorhandler(SvacError)
    def known(error: SvacError) -> tuple[Response, int]:
        status = STATUS.get(type(error), 503)
        log.log(logging.ERROR if status >= 500 else logging.WARNING, "%s", error)
        response = error_page(error, status) if is_page(request.path) else _error(error.message, error.hint)
        if status == 401:
            response.headers["WWW-Authenticate"] = 'Basic realm="svac-backend"'
            pace.refused(request.remote_addr or "")
        return response, status

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> tuple[Response, int]:
        if error.code == 413:
            text = f"The body is larger than {settings.max_body_mb} MB."
            return _error(text, "Send fewer tasks at a time, or raise SVAC_MAX_BODY_MB."), 413
        if is_page(request.path):
            code = error.code or 500
            return error_page(SvacError(f"{error.name}.", "Begin at the projects."), code), code
        return _error(
            f"{error.name}.", "GET /health says whether this is the right address."
        ), error.code or 500

    @app.errorhandler(UnicodeEncodeError)
    def surrogate(_: UnicodeEncodeError) -> tuple[Response, int]:
        return _error("The body holds characters that are not valid Unicode.", "Send valid UTF-8."), 400

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> tuple[Response, int]:
        log.exception("unexpected %s", type(error).__name__)
        if is_page(request.path):
            told = SvacError("Unexpected error.", "The web process's log has the full report.")
            return error_page(told, 500), 500
        return _error("Unexpected error.", "The web process's log has the full report."), 500


def _error(message: str, hint: str) -> Response:
    return jsonify({"error": message, "hint": hint})


# Connections at a time; a waiting connection holds no thread.
CONNECTIONS = 1000
# Seconds that a request may take to arrive, and that a connection may stay idle.
ARRIVAL_S, IDLE_S = 60.0, 30
# Seconds that requests have to finish after SIGTERM; less than Docker waits before it kills.
GRACE_S = 8.0


class Server:
    """Waitress with the settings' threads: a loop reads requests and writes answers, threads see whole requests only.

    One process is enough: it waits for the database far more than it computes, and it can count metrics and waiting
    calls in one place. Waitress sets no time limit on a request that trickles in, so this class does.

    Args:
        app: what answers.
        listener: a bound socket.
        settings: threads, limits.
        arrival_s: seconds that a request may take to arrive.
    """

    def __init__(
        self, app: Flask, listener: socket.socket, settings: Settings, arrival_s: float = ARRIVAL_S
    ) -> None:
        self._map: dict[int, Any] = {}
        self._server = waitress.create_server(
            app,
            map=self._map,
            sockets=[listener],
            threads=settings.server_threads,
            connection_limit=CONNECTIONS,
            asyncore_use_poll=True,  # select() cannot watch a descriptor above 1023
            backlog=CONNECTIONS,
            channel_timeout=IDLE_S,
            cleanup_interval=5,
            max_request_body_size=settings.max_body_mb * 1_000_000,
            # When a client reads slowly, the rest of its answer waits in a file, not in a thread.
            outbuf_high_watermark=1 << 40,
            ident=None,
            log_untrusted_proxy_headers=False,
        )
        self._arrival_s = arrival_s
        self._arriving: dict[int, tuple[Any, float]] = {}
        self._stop = threading.Event()

    def run(self) -> None:
        """Serve until `stop` is called, then finish the requests that have begun, for `GRACE_S` at most."""
        while not self._stop.is_set():
            self._turn()
        self._server.del_channel()
        self._server.socket.close()
        end = time.monotonic() + GRACE_S
        while time.monotonic() < end and any(map(_is_busy, self._channels())):
            self._turn()
        self._server.task_dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._map)

    def stop(self) -> None:
        """Make `run` end. A signal handler may call it."""
        self._stop.set()
        self._server.pull_trigger()

    def _turn(self) -> None:
        wasyncore.loop(timeout=0.5, use_poll=True, map=self._map, count=1)
        now = time.monotonic()
        arriving = {}
        for channel in self._channels():
            if channel.request is None:
                continue
            known, since = self._arriving.get(id(channel), (channel.request, now))
            since = since if known is channel.request else now
            arriving[id(channel)] = (channel.request, since)
            if now - since > self._arrival_s:
                channel.handle_close()
        self._arriving = arriving

    def _channels(self) -> list[Any]:
        return list(self._server.active_channels.values())


def _is_busy(channel: Any) -> bool:
    return bool(channel.requests or channel.total_outbufs_len)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        SvacError: the data folder or the address cannot be used, or the settings disagree. It is raised before
            anything starts.
    """
    start_logging(settings.log_level, settings.log_format)
    # Waitress warns whenever a request waits for a thread.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * CONNECTIONS)), hard))
    Gate(settings)
    with _listener(settings.host, settings.port) as listener:
        app = create_app(settings)
        server = Server(app, listener, settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        log.info("listening at http://%s:%d, process %d", settings.host, settings.port, os.getpid())
        server.run()
        app.extensions["svac"].database.close()
        log.info("stopped")


def _listener(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address; the SvacError says why nobody can listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(CONNECTIONS)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = "Stop what listens there (perhaps another svac-backend serve), or set SVAC_PORT to another port."
        else:
            hint = "Set SVAC_HOST to an address of this machine, e.g. 127.0.0.1, and SVAC_PORT to a port above 1023."
        raise SvacError(f"{host}:{port} cannot be listened on: {error.strerror}.", hint) from error
    return listener
