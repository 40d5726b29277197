"""Checks of one Label Studio project: can it show masks, do its prompts apply, is the backend connected?

Also whether annotations reach the backend, by webhooks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from sqlalchemy import func, select

from svac_backend.cli.doctor.finding import DoctorClient, DoctorWarning, Finding, check, failed
from svac_backend.errors import SvacError, split_address
from svac_backend.jobs.frames import frames_way
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.labelstudio.tasks import task_prompts
from svac_backend.server.security import TOKEN_HEADER, webhook_secret
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.links import MediaLinks
from svac_backend.store.tables import EventRow
from svac_backend.versions import served_version

# Seconds: Label Studio sends webhooks while it answers the call that causes them, and gives each 1 s.
ARRIVES_S = 3.0
# Checking this many tasks shows what is wrong with all.
SAMPLE = 50


def check_project(settings: Settings, client: DoctorClient, number: int, url: str) -> Iterator[Finding]:
    """Check a project without changing anything in it.

    Args:
        settings: limits and model.
        client: a client whose user may see the project.
        number: the project's id.
        url: the backend's address for Label Studio.
    """
    name = f"project {number}"
    try:
        project = client.get_project(number)
        config = parse_config(project.get("label_config") or "")
        config.mask_control()
        backends = client.list_ml_backends(number)
    except SvacError as error:
        yield failed(name, error)
        return
    yield check(name)(_shows)(str(project.get("title")), config)
    yield _check_prompts(settings, client, number, config)
    yield _check_model(backends, number, url)
    yield _check_shown(settings, project, backends)
    connected = [str(one["url"]) for one in backends if one.get("state") == "CO"]
    if connected:
        known = url if url in connected else connected[0]
        yield check("webhooks")(webhook_of)(settings, client, number, known)


def _shows(title: str, config: LabelConfig) -> str:
    if config.video is not None and config.video.framerate is None:
        raise DoctorWarning(
            f"Its <Video> tag '{config.video.name}' has no framerate, so Label Studio assumes 24.",
            'Write framerate="$fps" into it; `svac-backend import` gives tasks their true rate.',
        )
    control = config.mask_control()
    return f"'{title}' shows {control.kind} masks: {', '.join(control.labels)}"


@check("prompts")
def _check_prompts(settings: Settings, client: DoctorClient, number: int, config: LabelConfig) -> str:
    tasks = list(islice(client.list_tasks(number), SAMPLE))
    if not tasks:
        return "there are no tasks yet"
    problems: list[tuple[int, SvacError]] = []
    for task in tasks:
        try:
            task_prompts(task["data"], config, max_chars=settings.max_prompt_chars)
        except SvacError as error:
            problems.append((task["id"], error))
    if problems:
        task_id, first = problems[0]
        raise SvacError(
            f"{len(problems)} of {len(tasks)} tasks cannot be segmented, e.g. {task_id}: {first.message}",
            first.hint,
        )
    frames = config.frames.key if config.frames else "frames"
    bare = [task["id"] for task in tasks if not task["data"].get(frames)]
    try:
        if bare:
            frames_way(settings)
    except SvacError as error:
        told = f"{len(bare)} of {len(tasks)} tasks have no frames to draw masks on, e.g. {bare[0]}."
        raise DoctorWarning(told, error.hint) from error
    return f"those of {len(tasks)} task{'s' if len(tasks) > 1 else ''} apply"


@check("connected model")
def _check_model(backends: list[dict[str, Any]], number: int, url: str) -> str:
    connected = [one for one in backends if one.get("state") == "CO"]
    if not backends:
        raise SvacError(
            "No model is connected to the project.",
            f"In its Settings > Model, connect {url} with interactive on.",
        )
    if not connected:
        lost = backends[0]
        raise SvacError(
            f"{lost.get('url')} is no longer connected ({lost.get('error_message') or 'it does not answer'}).",
            f"Start the backend, or change the address to {url} in the project's Settings > Model.",
        )
    model = next((one for one in connected if str(one.get("url")).rstrip("/") == url), connected[0])
    if not model.get("is_interactive"):
        raise DoctorWarning(
            f"{model.get('url')} is connected without interactive preannotations: typing a prompt does nothing.",
            "Switch them on in the project's Settings > Model.",
        )
    return f"{model.get('url')} (number {model.get('id')})"


@check("shown predictions")
def _check_shown(settings: Settings, project: dict[str, Any], backends: list[dict[str, Any]]) -> str:
    shown, version = project.get("model_version") or "", served_version(settings)
    if project.get("show_collab_predictions") is False:
        raise DoctorWarning(
            "The project does not show predictions to annotators.",
            "Switch on 'Use predictions to prelabel tasks' in its Settings > Annotation.",
        )
    if shown in (version, *(str(one.get("title")) for one in backends)):
        return f"those of {shown}"
    raise DoctorWarning(
        f"The editor shows those of '{shown}', not of {version}." if shown else "The editor shows none.",
        "Choose the model in the project's Settings > Annotation.",
    )


def webhook_of(settings: Settings, client: DoctorClient, project: int, url: str) -> str:
    """Check that a project's webhook to the backend exists, is on, and carries the secret.

    Raises:
        SvacError: Label Studio does not list its webhooks, or the webhook is missing, off, or without the secret.
    """
    wanted = f"{url.rstrip('/')}/webhook"
    hooks = [hook for hook in client.list_webhooks(project) if str(hook.get("url")).rstrip("/") == wanted]
    parts = split_address(url)
    host = (parts.hostname if parts else "") or ""
    if not hooks and host != "localhost" and not set(host) & {".", ":"}:
        raise DoctorWarning(
            f"Label Studio made no webhook to {wanted}: its webhooks need a host name with a dot.",
            f"Connect the backend by a name with a dot, in docker compose a network alias such as {host}.internal.",
        )
    if not hooks:
        raise DoctorWarning(
            f"There is no webhook to {wanted}, so corrections do not reach the backend.",
            "Add it in the project's Settings > Webhooks, or disconnect the model and connect it again.",
        )
    if not any(hook.get("is_active") for hook in hooks):
        raise DoctorWarning(
            f"The webhook to {wanted} is off.", "Switch it on in the project's Settings > Webhooks."
        )
    token = settings.webhook_token.get_secret_value() if settings.webhook_token else ""
    if not token and settings.basic_auth_user:
        token = webhook_secret(MediaLinks.from_settings(settings).key, str(project))
    if token and not any((hook.get("headers") or {}).get(TOKEN_HEADER) == token for hook in hooks):
        raise DoctorWarning(
            f"The webhook to {wanted} does not carry the secret, so the backend refuses it.",
            f"Open its Settings > Model: the backend then adds {TOKEN_HEADER}; or set SVAC_WEBHOOK_TOKEN, and "
            "add the header with that value in Settings > Webhooks.",
        )
    return f"to {wanted}"


@check("webhooks")
def check_arrival(
    settings: Settings, client: DoctorClient, project: int, url: str, database: Database
) -> str:
    """Check that webhooks arrive: make a task, so that Label Studio sends one, and look for it in the database.

    Args:
        settings: have the token that webhooks must carry.
        client: makes the task.
        project: a temporary project with the backend connected.
        url: the backend's address for Label Studio.
        database: the web process's database.
    """
    if settings.basic_auth_user or (settings.webhook_token and settings.webhook_token.get_secret_value()):
        return f"each project's must carry {TOKEN_HEADER}; --project ID checks that"
    webhook_of(settings, client, project, url)
    client.create_task(project, {"video": "/nowhere.mp4", "frames": ["/nowhere.jpg"], "fps": 24})
    deadline = time.monotonic() + ARRIVES_S
    while not _arrived(database, project):
        if time.monotonic() > deadline:
            raise DoctorWarning(
                f"Label Studio's webhook to {url} does not arrive, so corrections do not reach the backend.",
                "Start Label Studio with SSRF_PROTECTION_ENABLED=false, and check its log.",
            )
        time.sleep(0.1)
    return "a webhook from Label Studio has arrived"


def _arrived(database: Database, project: int) -> bool:
    query = select(func.count()).select_from(EventRow).where(EventRow.project_id == str(project))
    with database.read() as session:
        return bool(session.scalar(query))
