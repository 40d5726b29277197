"""Access to the Label Studio of a project: which address and token, media, and pushing a prediction once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

from svac_backend.errors import SvacError, split_address
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.api.errors import ApiRefusal
from svac_backend.labelstudio.api.media import MediaFetcher
from svac_backend.labelstudio.regions.region import regions_of
from svac_backend.labelstudio.regions.sent import geometry
from svac_backend.settings import Settings
from svac_backend.store.events import ConnectionStore, ProjectConnection
from svac_backend.store.objects import Replaced

# The keys under which a prediction says which job sent it, and of which kind that job was.
KEY, KIND = "svac_job", "svac_kind"

log = logging.getLogger(__name__)


@lru_cache(maxsize=8)
def _client(url: str, api_key: str, timeout: float) -> LabelStudioClient:
    return LabelStudioClient(url, api_key, timeout)


class LabelStudioAccess:
    """Reaches the Label Studio of a project.

    If the settings have a token, it is used at the settings' address. If not, the token that the project's /setup
    handed over is used, at the settings' address if that was set, else at the one that /setup named.

    Args:
        settings: address, token, cache folder, limits.
        connections: what /setup said.
    """

    def __init__(self, settings: Settings, connections: ConnectionStore) -> None:
        self.settings = settings
        self.connections = connections

    def client(self, project_id: str) -> LabelStudioClient:
        """Return a client for a project's Label Studio.

        Raises:
            SvacError: no token is known, or it is malformed.
        """
        settings = self.settings
        if settings.label_studio_api_key is not None:
            key = settings.label_studio_api_key.get_secret_value()
            return _client(settings.label_studio_url, key, settings.label_studio_timeout_s)
        connection = self.connections.get(project_id)
        if connection is None or not connection.access_token:
            # Raises the error that says how to get a token.
            return LabelStudioClient.from_settings(settings)
        url = settings.label_studio_url
        if "label_studio_url" not in settings.model_fields_set and connection.hostname:
            url = connection.hostname
        return _client(url, connection.access_token, settings.label_studio_timeout_s)

    def fetch(
        self,
        project_id: str,
        hostname: str,
        url: str,
        task_id: str,
        check: Callable[[], None] = lambda: None,
    ) -> Path:
        """Return a video that a task of a project names as a local file.

        Args:
            project_id: the project.
            hostname: the Label Studio that a relative address belongs to; empty if unknown.
            url: the address.
            task_id: the task through which Label Studio resolves it.
            check: called several times a second during a download; raises if the job should end.

        Raises:
            SvacError: it cannot be read.
            Exception: what `check` raises.
        """
        connection = self.connections.get(project_id)
        client = self.client(project_id) if self._has_token(connection) else None
        hosts = {hostname, *([connection.hostname] if connection else [])} - {""}
        fetcher = MediaFetcher.from_settings(self.settings, client, sorted(hosts))
        return fetcher.fetch(url, task=task_number(task_id), check=check)

    def accepts(self, url: str, token: str, project_id: str, timeout: float) -> bool:
        """Return whether a Label Studio lets a token read a project."""
        try:
            client = LabelStudioClient(url, token, timeout)
            return str(client.get_project(task_number(project_id)).get("id")) == project_id
        except SvacError as error:
            log.warning("a token for project %s is not accepted: %s", project_id, error)
            return False

    def guard_webhooks(self, project_id: str, address: str, header: str, value: str) -> int:
        """Make a project's webhooks to this backend carry a header; return how many there are.

        Args:
            project_id: the project.
            address: `host:port` of the backend, as Label Studio calls it.
            header: the header's name.
            value: its value; other headers stay.

        Raises:
            SvacError: no token is known, or Label Studio refuses or cannot be reached.
        """
        client, count = self.client(project_id), 0
        for hook in client.list_webhooks(task_number(project_id)):
            if not _leads_to(str(hook.get("url")), address):
                continue
            count += 1
            headers = hook.get("headers") or {}
            if headers.get(header) != value:
                client.set_webhook_headers(int(hook["id"]), {**headers, header: value})
        return count

    def follow(self, project_id: str, versions: Collection[str]) -> bool:
        """Make a project that shows one of `versions` show its connected model's answers; return whether it does now.

        In Label Studio, the connected model's title stands for its newest version. A version's name stands for that
        version alone, so a promotion would never reach the project.

        Raises:
            SvacError: no token is known, or Label Studio refuses or cannot be reached.
        """
        client, project = self.client(project_id), task_number(project_id)
        if (client.get_project(project).get("model_version") or "") not in versions:
            return False
        titles = [str(one["title"]) for one in client.list_ml_backends(project) if one.get("state") == "CO"]
        if not titles:
            return False
        client.set_model_version(project, titles[0])
        return True

    def follow_all(self, versions: Collection[str]) -> tuple[list[str], SvacError | None]:
        """Apply `follow` to all connected projects.

        Returns:
            The projects that show the newest version from now on, and the error that kept others from it, if any.
        """
        moved: list[str] = []
        failure: SvacError | None = None
        for connection in self.connections.all():
            try:
                if self.follow(connection.project_id, versions):
                    moved.append(connection.project_id)
            except ApiRefusal as error:
                # The project was deleted, or belongs to another Label Studio.
                log.warning("project %s: %s", connection.project_id, error)
                failure = error
            except SvacError as error:
                return moved, error
        return moved, failure

    def push(
        self,
        project_id: str,
        task_id: str,
        prediction: Mapping[str, Any],
        key: str,
        *,
        kind: str,
        keep: Callable[[Replaced], None],
    ) -> tuple[int, bool]:
        """Attach a prediction to its task unless it is there; return its id, and whether it is new.

        It replaces, under the same id, the prediction that a job of the same kind sent with the same model version:
        otherwise tabs would pile up, and an annotation whose prediction is deleted cannot be submitted. Each prediction
        carries the key of its job: if a worker froze on the way here and another took its job over, only one of their
        predictions stays.

        Args:
            project_id, task_id: the task.
            prediction: `result`, `score`, `model_version`.
            key: the key of the job that sends it, which stays the same when the job runs again.
            kind: the kind of that job.
            keep: called with what a prediction showed before it is replaced.

        Raises:
            SvacError: Label Studio refuses it or cannot be reached.
        """
        client, task = self.client(project_id), task_number(task_id)
        wanted = _shown(prediction["result"])
        older: list[Replaced] = []
        for found in client.list_predictions(task):
            same_version = found.get("model_version") == prediction["model_version"]
            regions = regions_of(found.get("result"), foreign=True) if same_version else []
            if _sent_by(found) == key or (same_version and _shown(regions) == wanted):
                log.info("task %d has this prediction already (%s)", task, found["id"])
                return int(found["id"]), False
            if same_version and _sent_by(found, KIND) == kind:
                older.append(Replaced(int(found["id"]), _sent_at(found), _plain(regions)))
        # Label Studio's only field that takes any JSON, keeps it, and is shown nowhere.
        sent = {**prediction, "neighbors": {KEY: key, KIND: kind}}
        if older:
            newest = max(older, key=lambda one: one.prediction)
            keep(newest)
            client.update_prediction(newest.prediction, sent)
            return newest.prediction, True
        made = client.create_prediction(task, sent)
        # Whoever looks last sees all predictions, and everybody keeps the same one.
        mine = {int(one["id"]) for one in client.list_predictions(task) if _sent_by(one) == key}
        # A prediction that is not listed, or has lost its key, was sent nevertheless.
        first, *others = sorted(mine or {made})
        for other in others:
            log.warning("task %d: prediction %d of the same job is deleted", task, other)
            try:
                client.delete_prediction(other)
            except ApiRefusal as error:
                if error.status != 404:  # the other worker was faster
                    raise
        return first, first == made

    def _has_token(self, connection: ProjectConnection | None) -> bool:
        return self.settings.label_studio_api_key is not None or bool(connection and connection.access_token)


def _sent_by(prediction: Mapping[str, Any], what: str = KEY) -> str | None:
    """Return the key, or the kind, of the job that sent a prediction; None if it came from elsewhere or is too old."""
    about = prediction.get("neighbors")
    return about.get(what) if isinstance(about, Mapping) else None


def _leads_to(url: str, address: str) -> bool:
    parts = split_address(url)
    return (
        parts is not None
        and parts.netloc.lower().rpartition("@")[2] == address.lower()
        and parts.path.endswith("/webhook")
    )


def task_number(task_id: str) -> int:
    """Return a task's id as a number.

    Raises:
        SvacError: it is not a number.
    """
    if not task_id.isascii() or not task_id.isdigit():
        raise SvacError(
            f"'{task_id[:40]}' is not the id of a task.", "Send the task from Label Studio again."
        )
    return int(task_id)


def predictions_before(
    client: LabelStudioClient, task_id: str, annotation: Mapping[str, Any], replaced: Sequence[Replaced]
) -> list[dict[str, Any]]:
    """Return the predictions that an annotation may have been made from, the oldest first.

    A later prediction was never in its editor, even if it holds the annotation's own masks: a submitted correction that
    was propagated comes back as a prediction.

    Args:
        replaced: what the task's predictions showed before; each is an item of its own, with the prediction's id.
    """
    begun, parent = moment(annotation.get("created_at")), annotation.get("parent_prediction")
    found: list[tuple[float, dict[str, Any]]] = []
    known = client.list_predictions(task_number(task_id))
    for item in known:
        before = [one for one in replaced if one.prediction == item["id"]]
        for one in before:
            if not begun or one.since <= begun:
                found.append((one.since, {**item, "result": one.regions}))
        at = _sent_at(item)
        if not begun or at <= begun or (item["id"] == parent and not before):
            found.append((at, {**item, "result": regions_of(_plain(item.get("result") or []), foreign=True)}))
    return [item for _, item in sorted(found, key=lambda pair: (pair[0], int(pair[1]["id"])))]


def parent_of(
    annotation: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """Return the one of `predictions_before` that an annotation names as its parent, as it was then, or None."""
    parent = annotation.get("parent_prediction")
    states = [item for item in predictions if parent is not None and item["id"] == parent]
    if len(states) < 2:
        return next(iter(states), None)
    now = {
        (region.get("id"), geometry(region)) for region in regions_of(annotation.get("result"), foreign=True)
    }
    same = [sum((region.get("id"), geometry(region)) in now for region in item["result"]) for item in states]
    return states[same.index(max(same))]


def _sent_at(prediction: Mapping[str, Any]) -> float:
    """Return when a prediction got its present content: a job may have replaced the content since it was made."""
    ours = _sent_by(prediction, KIND) is not None
    return moment((prediction.get("updated_at") if ours else None) or prediction.get("created_at"))


def _plain(result: Any) -> Any:
    """Return a result as plain JSON: the SDK turns values into its own types."""
    return json.loads(json.dumps(result))


def _shown(result: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the editor shows of a result, in a comparable form."""
    keys = ("id", "from_name", "to_name", "item_index", "value")
    return sorted(json.dumps([region.get(key) for key in keys], sort_keys=True) for region in result)


def label_studio_name(settings: Settings, connection: ProjectConnection | None) -> str:
    """Return the name of a project's Label Studio in payloads and cache keys.

    With a token in the settings it is the address that we call, whatever Label Studio calls itself in /setup, so that a
    video imported before the backend was connected remains the same video.
    """
    if settings.label_studio_api_key is None and connection is not None and connection.hostname:
        return connection.hostname
    return settings.label_studio_url


def moment(value: Any) -> float:
    """Return a time from Label Studio, text or not, in seconds since the epoch; 0.0 if it is not a time."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return 0.0
    if not isinstance(found, datetime):
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()
