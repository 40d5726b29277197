"""Checks of Label Studio from here: the server, the token, the files that it serves.

Also of the frames that the backend serves itself: do browsers get them, and may Label Studio's page read them?
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress

import httpx

from svac_backend.cli.doctor.backend import LOOPBACK
from svac_backend.cli.doctor.finding import DoctorClient, DoctorWarning, Finding, Status, check, failed
from svac_backend.cli.doctor.machine import with_space
from svac_backend.cli.projects import FOLDER, files_root, grant
from svac_backend.errors import SvacError, split_address
from svac_backend.jobs.frames import frames_way
from svac_backend.labelstudio.api.connection import plain_http_client
from svac_backend.labelstudio.api.errors import refusal, translated
from svac_backend.settings import Settings
from svac_backend.storage.folder import Kind
from svac_backend.storage.published import open_storage
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore
from svac_backend.store.links import MediaLinks

TESTED = "1.23"
KINDS = {"personal": "personal access token", "legacy": "legacy token"}


@check("Label Studio")
def check_server(settings: Settings) -> str:
    """Check that a Label Studio answers, which needs no token."""
    url = settings.label_studio_url.strip().rstrip("/")
    what, timeout = "ask for the version", settings.label_studio_timeout_s
    try:
        with translated(url, what, "legacy", timeout), plain_http_client(timeout) as http:
            answer = http.get(f"{url}/api/version/")
            if not answer.is_success:
                raise refusal(answer.status_code, answer.text, url, what, "legacy", answer.headers)
            found = answer.json()
    except (httpx.InvalidURL, ValueError) as error:
        raise SvacError(
            f"'{url}' is not an address ({error}).",
            "Set SVAC_LABEL_STUDIO_URL to something like http://localhost:8080.",
        ) from error
    release = found.get("release") if isinstance(found, dict) else None
    if not release:
        raise SvacError(
            f"What answers at {url} is not Label Studio.",
            "Set SVAC_LABEL_STUDIO_URL to the address that you open in the browser, without a page's path.",
        )
    tested = "" if str(release).startswith(f"{TESTED}.") else f" (tested with {TESTED})"
    return f"{release} at {url}{tested}"


def check_token(settings: Settings) -> tuple[Finding, DoctorClient | None]:
    """Check that the token is accepted; return the client for the checks that need one."""
    try:
        client = DoctorClient.from_settings(settings)
        user = client.whoami()
    except SvacError as error:
        return failed("token", error), None
    whose = f"{KINDS[client.kind]} of {user.get('email') or user.get('username')}"
    return Finding("token", Status.OK, whose), client


@check("local files")
def check_files(settings: Settings, client: DoctorClient, project: int) -> str:
    """Check that Label Studio serves files below the files root: write a file, ask for it, and delete it."""
    if settings.label_studio_files_root is None:
        if settings.media_url is not None:
            return "none: frames come from SVAC_MEDIA_URL, and `import` does not work"
        raise DoctorWarning(
            "SVAC_LABEL_STUDIO_FILES_ROOT is not set: frames cannot be made, and `import` does not work.",
            "Set it to the folder that is Label Studio's LOCAL_FILES_DOCUMENT_ROOT, or set SVAC_MEDIA_URL.",
        )
    name = f"doctor-{secrets.token_hex(4)}"
    root = files_root(settings)
    try:
        grant(client, project, root, name)
    finally:
        with suppress(FileNotFoundError):
            (root / FOLDER / name).rmdir()
    return f"Label Studio serves {with_space(root, 'SVAC_LABEL_STUDIO_FILES_ROOT')}"


# The smallest content that passes for a picture.
PICTURE = b"\xff\xd8\xff\xd9"


def check_media(settings: Settings, database: Database | None) -> Iterator[Finding]:
    """Check that browsers get frames from the backend, if the settings say that it serves them.

    Args:
        settings: SVAC_MEDIA_URL, and how frames are served.
        database: knows what Label Studio calls itself.
    """
    if settings.media_url is not None or settings.frames_via == "backend":
        yield _check_media(settings, database)


@check("own media")
def _check_media(settings: Settings, database: Database | None) -> str:
    """Check that a frame can be had by its link: write one, ask for it, and delete it.

    It is asked for from here; annotators' browsers are elsewhere, so only what is known about them is reported.
    """
    if settings.media_url is None:
        frames_way(settings)  # raises an error that says what is missing
    url, page = settings.media_url or "", _page(settings, database)
    host = _host(url)
    if page.startswith("https://") and url.startswith("http://") and host not in LOOPBACK:
        raise SvacError(
            f"Label Studio is opened over https ({page}), and browsers show no http frames in such a page.",
            "Put the web process behind https, too, and set SVAC_MEDIA_URL to that address.",
        )
    reach = "Set SVAC_MEDIA_URL to the address at which browsers reach the web process; a proxy must pass /media on."
    try:
        answer = _ask(settings, page)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        if host in LOOPBACK and settings.host not in LOOPBACK:
            # In a container, localhost is the container itself, not the browser's machine.
            raise DoctorWarning(
                f"Nothing answers at {url} from here ({error}).", f"Open {url}/health in a browser."
            ) from error
        raise SvacError(f"Nothing answers at {url} ({error}).", reach) from error
    if answer.status_code in (403, 404) and _ours(answer):
        raise SvacError(
            f"The web process at {url} does not know the links of {settings.data_dir.absolute()}.",
            "Run web process, worker and this with the same SVAC_DATA_DIR, and restart the web process.",
        )
    if answer.status_code != 200 or answer.content != PICTURE:
        raise SvacError(f"What answers at {url} is not a frame (status {answer.status_code}).", reach)
    if answer.headers.get("access-control-allow-origin") not in ("*", page):
        raise SvacError(
            f"Frames come from {url}, but pages of {page} may not read them.",
            "Set SVAC_MEDIA_ORIGINS to the address at which Label Studio is opened; a proxy must not drop that header.",
        )
    if host in LOOPBACK and _host(page) not in LOOPBACK:
        raise DoctorWarning(
            f"Frames come from {url}, which only browsers on this machine can reach.",
            "Set SVAC_MEDIA_URL to an address that the annotators' machines reach.",
        )
    days = f"{settings.media_link_days:g} day{'' if settings.media_link_days == 1 else 's'}"
    return f"{url} gives frames to pages of {page}; a link lives {days}"


def _ask(settings: Settings, page: str) -> httpx.Response:
    links, storage = MediaLinks.from_settings(settings), open_storage(settings)
    name = f"doctor/probe-{secrets.token_hex(4)}"
    folder = links.root / (name if storage.remote else name.replace("/probe", ""))
    try:
        folder.mkdir(parents=True)
        (folder / "frame.jpg").write_bytes(PICTURE)
        if storage.remote:
            storage.publish(Kind.FRAMES, name)
        with plain_http_client(10) as http:
            return http.get(links.url(folder / "frame.jpg"), headers={"Origin": page})
    except OSError as error:
        raise SvacError(
            f"{folder} cannot be written ({error.strerror}).", "Let this user write to SVAC_DATA_DIR."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if storage.remote:
            storage.delete(Kind.FRAMES, name)


def _page(settings: Settings, database: Database | None) -> str:
    """Return the origin of Label Studio's pages as far as it is known, preferring what Label Studio calls itself."""
    named = [part.strip() for part in settings.media_origins.split(",") if part.strip() not in ("", "*")]
    told = [one.hostname for one in ConnectionStore(database).all() if one.hostname] if database else []
    parts = split_address([*named, *told, settings.label_studio_url][0].strip())
    return f"{parts.scheme}://{parts.netloc}".lower() if parts else ""


def _host(url: str) -> str:
    parts = split_address(url)
    return (parts.hostname if parts else "") or ""


def _ours(answer: httpx.Response) -> bool:
    try:
        return "error" in answer.json()
    except ValueError:
        return False
