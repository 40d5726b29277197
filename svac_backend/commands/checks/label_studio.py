"""Checks of the way from here to Label Studio: the server, the token, the files it serves."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

import httpx

from svac_backend.commands.checks.api import DoctorClient
from svac_backend.commands.checks.finding import Finding, Status, failed, failure, ok, warning
from svac_backend.commands.checks.machine import with_space
from svac_backend.commands.local_files import FOLDER, files_root, grant
from svac_backend.errors import SvacError
from svac_backend.labelstudio.api_errors import refusal, translated
from svac_backend.labelstudio.connection import plain_http_client
from svac_backend.settings import Settings

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
            f"'{url}' is no address ({error}).",
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
