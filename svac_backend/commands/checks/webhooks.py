"""Checks that what people annotate reaches the backend."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from sqlalchemy import func, select

from svac_backend.commands.checks.api import DoctorClient
from svac_backend.commands.checks.finding import Finding, failed, ok, warning
from svac_backend.errors import SvacError
from svac_backend.server.security import TOKEN_HEADER
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.tables import EventRow

CHECK = "webhooks"
# Label Studio sends them while it answers the call that causes them, and gives each 1 s.
ARRIVES_S = 3.0


def webhook_of(settings: Settings, client: DoctorClient, project: int, url: str) -> Finding:
    """That a project's webhook to the backend is there, on, and carries the token.

    Raises:
        SvacError: Label Studio does not list them.
    """
    wanted = f"{url.rstrip('/')}/webhook"
    hooks = [hook for hook in client.list_webhooks(project) if str(hook.get("url")).rstrip("/") == wanted]
    host = urlsplit(url).hostname or ""
    if not hooks and host != "localhost" and not set(host) & {".", ":"}:
        return warning(
            CHECK,
            f"Label Studio made no webhook to {wanted}: there it takes no host name without a dot.",
            f"Connect the backend by a name with a dot, in docker compose a network alias such as {host}.internal.",
        )
    if not hooks:
        return warning(
            CHECK,
            f"There is no webhook to {wanted}, so corrections do not reach the backend.",
            "Add it in the project's Settings > Webhooks, or disconnect the model and connect it again.",
        )
    if not any(hook.get("is_active") for hook in hooks):
        return warning(
            CHECK, f"The webhook to {wanted} is off.", "Switch it on in the project's Settings > Webhooks."
        )
    token = settings.webhook_token.get_secret_value() if settings.webhook_token else ""
    if token and not any((hook.get("headers") or {}).get(TOKEN_HEADER) == token for hook in hooks):
        return warning(
            CHECK,
            f"The webhook to {wanted} does not carry SVAC_WEBHOOK_TOKEN, so the backend refuses it.",
            f"Add the header {TOKEN_HEADER} to it in the project's Settings > Webhooks.",
        )
    return ok(CHECK, f"to {wanted}")


def check_arrival(
    settings: Settings, client: DoctorClient, project: int, url: str, database: Database
) -> Finding:
    """That a webhook arrives: make a task, of which Label Studio tells the backend, and look for it.

    Args:
        settings: with the token that webhooks must carry.
        client: who makes it.
        project: a temporary one, with the backend connected.
        url: the backend's address for Label Studio.
        database: that of the web process.
    """
    if settings.webhook_token and settings.webhook_token.get_secret_value():
        return ok(CHECK, f"each project's must carry {TOKEN_HEADER}; --project ID checks that")
    try:
        found = webhook_of(settings, client, project, url)
        if found.fix:
            return found
        client.create_task(project, {"video": "/nowhere.mp4", "frames": ["/nowhere.jpg"], "fps": 24})
    except SvacError as error:
        return failed(CHECK, error)
    deadline = time.monotonic() + ARRIVES_S
    while not _arrived(database, project):
        if time.monotonic() > deadline:
            return warning(
                CHECK,
                f"Label Studio's webhook to {url} does not arrive, so corrections do not reach the backend.",
                "Start Label Studio with SSRF_PROTECTION_ENABLED=false, and look into its log.",
            )
        time.sleep(0.1)
    return ok(CHECK, "one that Label Studio sent has arrived")


def _arrived(database: Database, project: int) -> bool:
    query = select(func.count()).select_from(EventRow).where(EventRow.project_id == str(project))
    with database.read() as session:
        return bool(session.scalar(query))
