"""The web process: Label Studio's routes and the job list as a Flask app, and `svac-backend serve`, which runs it.

It runs under gunicorn, one process with threads, and is free of torch.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from typing import Any

from flask import Flask, Response, g, jsonify, request
from gunicorn.app.base import BaseApplication
from werkzeug.exceptions import HTTPException

from svac_backend.errors import SvacError
from svac_backend.jobs.services import Metrics, open_services
from svac_backend.server import jobs_api, media, protocol
from svac_backend.server.bodies import BadRequest
from svac_backend.server.jobs_api import NotFound
from svac_backend.server.predicting import Predictor
from svac_backend.server.security import Forbidden, Gate, Unauthorized, WrongType
from svac_backend.settings import Settings
from svac_backend.store.links import LinkRefused

# Called at many moments, by Label Studio and by health checks, or for each frame: not worth a line each.
QUIET = frozenset({"/", "/health", "/ready", "/metrics", "/media/<path:name>"})

STATUS = {
    BadRequest: 400,
    Unauthorized: 401,
    LinkRefused: 403,
    Forbidden: 403,
    NotFound: 404,
    WrongType: 415,
}

log = logging.getLogger(__name__)


def create_app(settings: Settings) -> Flask:
    """Return the app; its state is in `settings.data_dir`, as `app.extensions["svac"]` (a `Services`).

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
    _watch(app, metrics)
    app.before_request(lambda: gate.check_way(request))
    _answer_errors(app, settings)
    return app


def _watch(app: Flask, metrics: Metrics) -> None:
    """Time and log every request: method, route, status, milliseconds. Never a body, a query or a header."""

    @app.before_request
    def begin() -> None:
        g.begun = time.monotonic()

    @app.after_request
    def end(response: Response) -> Response:
        # The rule, not the path: a path is the caller's text, and each one would be a metric of its own.
        route = request.url_rule.rule if request.url_rule else "(unknown)"
        seconds = time.monotonic() - g.get("begun", time.monotonic())
        metrics.requests.labels(route, str(response.status_code)).inc()
        metrics.seconds.labels(route).observe(seconds)
        level = logging.DEBUG if route in QUIET and response.status_code < 400 else logging.INFO
        log.log(level, "%s %s %d %.0f ms", request.method, route, response.status_code, seconds * 1000)
        return response


def _answer_errors(app: Flask, settings: Settings) -> None:
    """Have every error answered as {"error": what is wrong, "hint": what to do}."""

    @app.errorhandler(SvacError)
    def known(error: SvacError) -> tuple[Response, int]:
        status = STATUS.get(type(error), 503)
        log.log(logging.ERROR if status >= 500 else logging.WARNING, "%s", error)
        response = _error(error.message, error.hint)
        if status == 401:
            response.headers["WWW-Authenticate"] = 'Basic realm="svac-backend"'
        return response, status

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> tuple[Response, int]:
        if error.code == 413:
            text = f"The body is larger than {settings.max_body_mb} MB."
            return _error(text, "Send fewer tasks at a time, or raise SVAC_MAX_BODY_MB."), 413
        return _error(
            f"{error.name}.", "GET /health says whether this is the right address."
        ), error.code or 500

    @app.errorhandler(UnicodeEncodeError)
    def surrogate(_: UnicodeEncodeError) -> tuple[Response, int]:
        return _error("The body holds characters that are no Unicode text.", "Send valid UTF-8."), 400

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> tuple[Response, int]:
        log.exception("unexpected %s", type(error).__name__)
        return _error("Unexpected error.", "The web process's log has the full report."), 500


def _error(message: str, hint: str) -> Response:
    return jsonify({"error": message, "hint": hint})


LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Server(BaseApplication):
    """Gunicorn with the settings' address and threads.

    One process: it waits for the database far more than it computes, and figures and waiting calls are
    counted in one place. The app is made in the process that serves, after the fork, so that no connection to
    the database is shared.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        super().__init__()

    def load_config(self) -> None:
        """See gunicorn: fill `self.cfg`."""
        options: dict[str, Any] = {
            "bind": f"{self.settings.host}:{self.settings.port}",
            "worker_class": "gthread",
            "workers": 1,
            "threads": self.settings.server_threads,
            "timeout": 120,
            "graceful_timeout": 10,
            "keepalive": 5,
            "proc_name": "svac-backend",
            "loglevel": self.settings.log_level.lower(),
            # Its command socket is not used here, and would sit in a folder that all servers of a user share.
            "control_socket_disable": True,
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Flask:
        """See gunicorn: return the app."""
        return create_app(self.settings)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        SvacError: the data folder or the address cannot be used, or the settings disagree; said before anything is
            started.
    """
    logging.basicConfig(level=settings.log_level, format=LOG_FORMAT)
    Gate(settings)
    open_services(settings).database.close()
    _check_address(settings.host, settings.port)
    Server(settings).run()


def _check_address(host: str, port: int) -> None:
    """Raise when nobody can listen there: gunicorn would try five times, and tell no way out."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = "Stop what listens there, perhaps another svac-backend serve, or set SVAC_PORT to another port."
        else:
            hint = "Set SVAC_HOST to an address of this machine, e.g. 127.0.0.1, and SVAC_PORT to a port above 1023."
        raise SvacError(f"{host}:{port} cannot be listened on: {error.strerror}.", hint) from error
