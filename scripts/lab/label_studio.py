"""What benchmarks and tests ask of Label Studio, and the backend never does. Errors are those of the client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient

_UPLOAD_TIMEOUT_S = 600.0
# Label Studio itself waits 100 s for one /predict.
_PREDICT_TIMEOUT_S = 120.0


def create_tasks(client: LabelStudioClient, project: int, data: Sequence[Mapping[str, Any]]) -> list[int]:
    """Create several tasks in one call and return their ids in order."""
    tasks: Any = [{"data": dict(item)} for item in data]
    with client._doing(f"create {len(tasks)} tasks in project {project}"):
        created = client._sdk.projects.import_tasks(project, request=tasks, return_task_ids=True)
        return [int(task) for task in created.dict()["task_ids"]]


def upload_file(client: LabelStudioClient, project: int, path: Path) -> str:
    """Upload a file and return its address `/data/upload/...`, without making a task of it."""
    what = f"upload {path.name}"
    with path.open("rb") as stream:
        answer = client._post(
            what,
            f"api/projects/{project}/import",
            params={"commit_to_project": "false"},
            files={"file": (path.name, stream)},
            timeout=_UPLOAD_TIMEOUT_S,
        )
    if not answer.get("file_upload_ids"):
        raise SvacError(f"Label Studio kept nothing of {path.name}.", "Look into Label Studio's log.")
    with client._doing(what):
        return f"/data/{client._sdk.files.get(answer['file_upload_ids'][0]).dict()['file']}"


def retrieve_predictions(client: LabelStudioClient, project: int, tasks: Sequence[int] | None = None) -> None:
    """Have Label Studio ask the backend for predictions of some tasks, or of all, in one `/predict`."""
    selected: Any = {"all": True, "excluded": []}
    if tasks is not None:
        selected = {"all": False, "included": list(tasks)}
    timeout = max(client.timeout, _PREDICT_TIMEOUT_S)
    with client._doing(f"retrieve predictions for project {project}", timeout):
        client._sdk.actions.create(
            id="retrieve_tasks_predictions",
            project=project,
            selected_items=selected,
            request_options={"timeout": timeout},
        )


def create_personal_access_token(client: LabelStudioClient) -> str:
    """Create a personal access token of the user; Label Studio gives one only, and shows it this once."""
    with client._doing("create a personal access token"):
        return str(client._sdk.tokens.create().dict()["token"])
