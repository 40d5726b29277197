"""`svac-backend serve`: the app under gunicorn, one process with threads."""

from __future__ import annotations

import errno
import logging
import socket
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from svac_backend.errors import SvacError
from svac_backend.server.app import create_app
from svac_backend.server.backend import open_backend
from svac_backend.server.security import Gate
from svac_backend.settings import Settings

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
    open_backend(settings).database.close()
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
