"""GET /media/<file>: the frames that the backend has cut, for browsers that hold a signed link.

The link is the only proof: browsers send no password for pictures that belong to a page from another address.
"""

from __future__ import annotations

import logging
import time
from pathlib import PurePosixPath

from flask import Blueprint, Response, request, send_from_directory
from werkzeug.exceptions import NotFound as NoFile
from werkzeug.exceptions import RequestedRangeNotSatisfiable

from svac_backend.errors import split_address
from svac_backend.jobs.services import Services
from svac_backend.server.jobs_api import NotFound
from svac_backend.settings import Settings
from svac_backend.storage.folder import Kind, NotStored
from svac_backend.storage.published import open_storage
from svac_backend.store.events import ConnectionStore
from svac_backend.store.links import PARAMETER, ROUTE, MediaLinks

# Named here, since what `mimetypes` guesses depends on the machine.
TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".webm": "video/webm",
    ".mov": "video/quicktime",
}
# A frame that was cut again, from another video, must reach browsers within this time.
CACHE_S = 3600
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# What scripts of other origins may read of an answer, besides the simple headers.
EXPOSED = "Accept-Ranges, Content-Length, Content-Range, ETag"
REFRESH_S, MAX_TOLD = 10.0, 100

log = logging.getLogger(__name__)


def create_blueprint(backend: Services) -> Blueprint:
    """Return the route /media/<file>.

    Raises:
        SvacError: the key that signs the links cannot be used.
    """
    routes = Blueprint("media", __name__)
    links, storage = MediaLinks.from_settings(backend.settings), open_storage(backend.settings)
    origins = Origins(backend.settings, backend.connections)

    @routes.get(f"{ROUTE}<path:name>")
    def media(name: str) -> Response:
        lives_s = links.check(name, request.args.get(PARAMETER, ""))
        kind = TYPES.get(PurePosixPath(name).suffix.lower())
        if kind is None:
            raise _gone()
        if storage.remote:
            project, _, rest = name.partition("/")
            task, _, file = rest.partition("/")
            try:
                storage.fetch_file(Kind.FRAMES, f"{project}/{task}", file)
            except NotStored as error:
                raise _gone() from error
        try:
            # It honours ranges and validators, and never leaves the folder.
            response = send_from_directory(links.root, name, mimetype=kind, conditional=True)
        except NoFile as error:
            raise _gone() from error
        except RequestedRangeNotSatisfiable as error:
            return Response(status=416, headers={"Content-Range": f"bytes */{error.length}"})
        response.cache_control.no_cache = None
        response.cache_control.private = True
        response.cache_control.max_age = int(min(CACHE_S, lives_s))
        return response

    @routes.after_request
    def share(response: Response) -> Response:
        """Let Label Studio's pages read every answer, even a refusal: the editor shows pixels and also reads them."""
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        if origins.any:
            response.headers["Access-Control-Allow-Origin"] = "*"
        else:
            response.vary.add("Origin")
            origin = request.headers.get("Origin")
            if origin is None or not origins.allows(origin):
                return response
            response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = EXPOSED
        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Headers"] = "Range"
            response.headers["Access-Control-Max-Age"] = str(CACHE_S)
        return response

    return routes


class Origins:
    """The addresses under which browsers open Label Studio, as far as they are known.

    Args:
        settings: `media_origins`; when empty, `label_studio_url`.
        connections: hold the address that Label Studio sends with /setup; it counts when `media_origins` is empty.

    Attributes:
        any: whether pages of any origin may have the frames.
    """

    def __init__(self, settings: Settings, connections: ConnectionStore) -> None:
        named = [part.strip() for part in settings.media_origins.split(",") if part.strip()]
        self.any = "*" in named
        self._fixed = bool(named)
        self._known = _variants(named or [settings.label_studio_url])
        self._connections = connections
        self._refreshed = -REFRESH_S
        self._told: set[str] = set()

    def allows(self, origin: str) -> bool:
        """Return whether a page of this origin, as browsers send it, may read the frames."""
        wanted = _normal(origin)
        if wanted in self._known:
            return True
        now = time.monotonic()
        if not self._fixed and now - self._refreshed >= REFRESH_S:
            self._refreshed = now
            self._known = self._known | _variants([one.hostname for one in self._connections.all()])
            if wanted in self._known:
                return True
        if len(self._told) < MAX_TOLD and origin not in self._told:
            self._told.add(origin)
            log.warning(
                "pages of %.200r may not show frames; if that is your Label Studio, add it to SVAC_MEDIA_ORIGINS",
                origin,
            )
        return False


def _normal(address: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port of an address; None for `null` and for what is not an address."""
    parts = split_address(address.strip())
    if parts is None:
        return None
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return (parts.scheme, parts.hostname, port) if parts.scheme and parts.hostname else None


def _variants(addresses: list[str]) -> frozenset[tuple[str, str, int | None]]:
    """Return the origins of addresses. localhost and 127.0.0.1 are the same place: people open either."""
    found = {origin for origin in map(_normal, addresses) if origin is not None}
    more = {(scheme, name, port) for scheme, host, port in found if host in LOOPBACK for name in LOOPBACK}
    return frozenset(found | more)


def _gone() -> NotFound:
    return NotFound(
        "This frame is gone.",
        "Restore 'served' in SVAC_DATA_DIR, or remove the task's frames and prediction: they are made again.",
    )
