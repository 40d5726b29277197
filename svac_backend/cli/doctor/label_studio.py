"""Checks of the way from here to Label Studio: the server, the token, the files that it serves.

And of frames that the backend serves itself: do browsers get them, and may Label Studio's page read them?
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from svac_backend.cli.doctor.backend import LOOPBACK
from svac_backend.cli.doctor.finding import DoctorClient, Finding, Status, failed, failure, ok, warning
from svac_backend.cli.doctor.machine import with_space
from svac_backend.cli.projects import FOLDER, files_root, grant
from svac_backend.errors import SvacError
from svac_backend.jobs.frames import frames_way
from svac_backend.labelstudio.api.connection import plain_http_client
from svac_backend.labelstudio.api.errors import refusal, translated
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore
from svac_backend.store.links import MediaLinks

TESTED = "1.23"
KINDS = {"personal": "personal access token", "legacy": "legacy token"}


def check_server(settings: Settings) -> Finding:
    """That a Label Studio answers; no token is needed for that."""
    check, url = "Label Studio", settings.label_studio_url.strip().rstrip("/")
    what, timeout = "ask for the version", settings.label_studio_timeout_s
    try:
        with translated(url, what, "legacy", timeout), plain_http_client(timeout) as http:
            answer = http.get(f"{url}/api/version/")
            if not answer.is_success:
                raise refusal(answer.status_code, answer.text, url, what, "legacy", answer.headers)
            found = answer.json()
    except (httpx.InvalidURL, ValueError) as error:
        return failure(
            check,
            f"'{url}' is not an address ({error}).",
            "Set SVAC_LABEL_STUDIO_URL to something like http://localhost:8080.",
        )
    except SvacError as error:
        return failed(check, error)
    release = found.get("release") if isinstance(found, dict) else None
    if not release:
        return failure(
            check,
            f"What answers at {url} is not Label Studio.",
            "Set SVAC_LABEL_STUDIO_URL to the address that you open in the browser, without a page's path.",
        )
    tested = "" if str(release).startswith(f"{TESTED}.") else f" (tested with {TESTED})"
    return ok(check, f"{release} at {url}{tested}")


def check_token(settings: Settings) -> tuple[Finding, DoctorClient | None]:
    """That it is accepted; the client is returned for the checks that need one."""
    check = "token"
    try:
        client = DoctorClient.from_settings(settings)
        user = client.whoami()
    except SvacError as error:
        return failed(check, error), None
    return ok(check, f"{KINDS[client.kind]} of {user.get('email') or user.get('username')}"), client


def check_files(settings: Settings, client: DoctorClient, project: int) -> Finding:
    """That Label Studio serves what is written below the files root: a file is written, asked for, and deleted."""
    check = "local files"
    if settings.label_studio_files_root is None:
        if settings.media_url is not None:
            return ok(check, "none: frames come from SVAC_MEDIA_URL, and `import` does not work")
        return warning(
            check,
            "SVAC_LABEL_STUDIO_FILES_ROOT is not set: frames cannot be made, and `import` does not work.",
            "Set it to the folder that is Label Studio's LOCAL_FILES_DOCUMENT_ROOT, or set SVAC_MEDIA_URL.",
        )
    name = f"doctor-{secrets.token_hex(4)}"
    root: Path | None = None
    try:
        root = files_root(settings)
        grant(client, project, root, name)
    except SvacError as error:
        return failed(check, error)
    finally:
        if root is not None:
            with suppress(FileNotFoundError):
                (root / FOLDER / name).rmdir()
    space = with_space(check, root, "SVAC_LABEL_STUDIO_FILES_ROOT")
    return ok(check, f"Label Studio serves {space.detail}") if space.status is Status.OK else space


CHECK = "own media"
# The smallest thing that a server may take for a picture.
PICTURE = b"\xff\xd8\xff\xd9"


def check_media(settings: Settings, database: Database | None) -> Iterator[Finding]:
    """Look whether a frame comes to a browser by its link: one is written, asked for, and deleted.

    It is asked for from here, which is not where the annotators' browsers are; what can be told of them is said.

    Args:
        settings: nothing is found where they do not name SVAC_MEDIA_URL, nor the backend as the way for frames.
        database: what Label Studio calls itself.
    """
    if settings.media_url is None and settings.frames_via != "backend":
        return
    try:
        if settings.media_url is None:
            frames_way(settings)  # says what is missing
        yield _check(settings, settings.media_url or "", _page(settings, database))
    except SvacError as error:
        yield failed(CHECK, error)


def _check(settings: Settings, url: str, page: str) -> Finding:
    host, page_host = urlsplit(url).hostname or "", urlsplit(page).hostname or ""
    if page.startswith("https://") and url.startswith("http://") and host not in LOOPBACK:
        return failure(
            CHECK,
            f"Label Studio is opened by https ({page}), and browsers show no frames by http in such a page.",
            "Put the web process behind https, too, and set SVAC_MEDIA_URL to that address.",
        )
    reach = "Set SVAC_MEDIA_URL to the address at which browsers reach the web process; a proxy must pass /media on."
    try:
        answer = _ask(settings, page)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        if host in LOOPBACK and settings.host not in LOOPBACK:
            # In a container, localhost is the container; the browser's is another one.
            return warning(
                CHECK, f"Nothing answers at {url} from here ({error}).", f"Open {url}/health in a browser."
            )
        return failure(CHECK, f"Nothing answers at {url} ({error}).", reach)
    if answer.status_code in (403, 404) and _ours(answer):
        return failure(
            CHECK,
            f"The web process at {url} does not know the links of {settings.data_dir.absolute()}.",
            "Run web process, worker and this with the same SVAC_DATA_DIR, and start the web process again.",
        )
    if answer.status_code != 200 or answer.content != PICTURE:
        return failure(CHECK, f"What answers at {url} is not a frame (status {answer.status_code}).", reach)
    if answer.headers.get("access-control-allow-origin") not in ("*", page):
        return failure(
            CHECK,
            f"Frames come from {url}, but pages of {page} may not read them.",
            "Set SVAC_MEDIA_ORIGINS to the address at which Label Studio is opened; a proxy must not drop that header.",
        )
    if host in LOOPBACK and page_host not in LOOPBACK:
        return warning(
            CHECK,
            f"Frames come from {url}, which only browsers on this machine reach.",
            "Set SVAC_MEDIA_URL to an address that the annotators' machines reach.",
        )
    days = f"{settings.media_link_days:g} day{'' if settings.media_link_days == 1 else 's'}"
    return ok(CHECK, f"{url} gives frames to pages of {page}; a link lives {days}")


def _ask(settings: Settings, page: str) -> httpx.Response:
    links = MediaLinks.from_settings(settings)
    folder = links.root / f"doctor-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True)
        (folder / "frame.jpg").write_bytes(PICTURE)
        with plain_http_client(10) as http:
            return http.get(links.url(folder / "frame.jpg"), headers={"Origin": page})
    except OSError as error:
        raise SvacError(
            f"{folder} cannot be written ({error.strerror}).", "Let this user write to SVAC_DATA_DIR."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _page(settings: Settings, database: Database | None) -> str:
    """Return the origin of Label Studio's pages, as far as it is known: what it calls itself goes first."""
    named = [part.strip() for part in settings.media_origins.split(",") if part.strip() not in ("", "*")]
    told = [one.hostname for one in ConnectionStore(database).all() if one.hostname] if database else []
    parts = urlsplit([*named, *told, settings.label_studio_url][0].strip())
    return f"{parts.scheme}://{parts.netloc}".lower()


def _ours(answer: httpx.Response) -> bool:
    try:
        return "error" in answer.json()
    except ValueError:
        return False
