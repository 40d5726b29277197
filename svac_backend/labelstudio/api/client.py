"""The part of Label Studio's API that the backend needs, through the SDK. Every failure is a `SvacError`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.connection import Connection
from svac_backend.labelstudio.api.errors import ApiRefusal

Json = dict[str, Any]

# Only reading is tried again, since it is harmless to repeat.
_READ: Any = {"max_retries": 1}
# The field in which this backend marks its predictions.
_PREDICTION = ("result", "score", "model_version", "neighbors")
# Seconds: an annotator waits while the web process reads drafts.
_DRAFTS_TIMEOUT_S = 5.0


class LabelStudioClient(Connection):
    """The calls that the backend makes. Objects come back as dicts, with dates as datetimes."""

    # Who and what

    def whoami(self) -> Json:
        """Return the token's user: `id`, `email`, `username`, ..."""
        with self._doing("ask whose token this is"):
            return self._sdk.users.whoami(request_options=_READ).dict()

    def version(self) -> str:
        """Return Label Studio's version, e.g. `1.23.2`."""
        with self._doing("ask for the version"):
            version = self._sdk.versions.get(request_options=_READ).dict().get("release")
        if not version:
            raise SvacError(
                f"What answers at {self.url} is not Label Studio.",
                "Set SVAC_LABEL_STUDIO_URL to its address.",
            )
        return str(version)

    # Projects

    def create_project(self, title: str, label_config: str) -> int:
        """Create a project and return its id."""
        with self._doing(f"create the project '{title}'"):
            return int(self._sdk.projects.create(title=title, label_config=label_config).dict()["id"])

    def get_project(self, project: int) -> Json:
        """Return a project, among others `title`, `label_config`, `model_version`, `task_number`."""
        with self._doing(f"read project {project}"):
            return self._sdk.projects.get(project, request_options=_READ).dict()

    def list_projects(self) -> list[Json]:
        """Return the projects that the user sees."""
        with self._doing("list the projects"):
            projects: Any = self._sdk.projects.list(request_options=_READ)
            return [project.dict() for project in projects]

    def set_model_version(self, project: int, model_version: str) -> None:
        """Choose the model version whose predictions the editor shows first."""
        with self._doing(f"set the model version of project {project}"):
            self._sdk.projects.update(project, model_version=model_version)

    def list_columns(self, project: int) -> list[str]:
        """Return the columns of a project's Data Manager, e.g. `tasks:id`, `tasks:data.video`."""
        # Not through the SDK, which lacks this route.
        what = f"list the columns of project {project}"
        found = self._request("GET", what, "api/dm/columns/", params={"project": project})
        columns = [column for column in found["columns"] if column["id"] != "data"]
        below = {"data": "data."}
        return [f"tasks:{below.get(column.get('parent'), '')}{column['id']}" for column in columns]

    def create_tab(
        self, project: int, title: str, *, hidden: Sequence[str], compact: Sequence[str], ordering: str
    ) -> int:
        """Add a tab to a project's Data Manager and return its id; people see the first tab first.

        Args:
            project: its id.
            title: the tab's title.
            hidden: columns that it hides, as `list_columns` names them.
            compact: columns that it hides beside an open task.
            ordering: the column to order by; with `-` before it, the largest first.
        """
        view = {
            "title": title,
            "type": "list",
            "target": "tasks",
            "hiddenColumns": {"explore": list(hidden), "labeling": list(compact)},
            "ordering": [ordering],
        }
        body = {"project": project, "data": view}
        return int(self._post(f"add a tab to project {project}", "api/dm/views/", json=body)["id"])

    def delete_project(self, project: int) -> None:
        """Delete a project with its tasks, predictions and annotations."""
        with self._doing(f"delete project {project}"):
            self._sdk.projects.delete(project)

    # Media

    def allow_local_files(self, project: int, path: str, title: str = "svac frames") -> int:
        """Let a project's members read the files below a folder; return the id of the storage that grants it.

        Args:
            project: its id.
            path: absolute path as Label Studio sees it, a folder below its LOCAL_FILES_DOCUMENT_ROOT. Nothing is added
                if a storage of the project already covers it.
            title: name of a new storage in the project's settings.
        """
        local = self._sdk.import_storage.local
        wanted = PurePosixPath(path)
        with self._doing(f"list the storages of project {project}"):
            storages = [storage.dict() for storage in local.list(project=project, request_options=_READ)]
        for storage in storages:
            covered = PurePosixPath(storage.get("path") or "/nowhere")
            if wanted == covered or covered in wanted.parents:
                return int(storage["id"])
        with self._doing(f"let project {project} read {path}"):
            # Nobody should sync this storage; a filter that matches nothing makes syncing harmless.
            created = local.create(
                project=project, path=path, title=title, use_blob_urls=True, regex_filter="nomatch"
            )
            return int(created.dict()["id"])

    # Tasks, predictions, annotations

    def create_task(self, project: int, data: Mapping[str, Any]) -> int:
        """Create a task and return its id."""
        with self._doing(f"create a task in project {project}"):
            return int(self._sdk.tasks.create(project=project, data=dict(data)).dict()["id"])

    def list_tasks(self, project: int, tasks: Sequence[int] | None = None) -> Iterator[Json]:
        """Yield a project's tasks without annotations and predictions; storage addresses stay as they are.

        Unlike `get_task` this does not make Label Studio ask for a prediction.

        Args:
            project: its id.
            tasks: ids of the tasks to yield; None: all. Tasks of other projects are left out.
        """
        query: Any = {"fields": "task_only", "resolve_uri": False, "page_size": 100}
        if tasks is not None:
            query["query"] = json.dumps({"selectedItems": {"all": False, "included": list(tasks)}})
        with self._doing(f"list the tasks of project {project}"):
            found: Any = self._sdk.tasks.list(project=project, request_options=_READ, **query)
            for task in found:
                yield task.dict()

    def get_task(self, task: int) -> Json:
        """Return a task with its annotations, drafts, predictions; storage addresses stay as they are."""
        # Resolved addresses would lead into Label Studio, and replace the originals when `data` is written back.
        options: Any = {**_READ, "additional_query_parameters": {"resolve_uri": "false"}}
        with self._doing(f"read task {task}"):
            return self._sdk.tasks.get(str(task), request_options=options).dict()

    def update_task_data(self, task: int, changes: Mapping[str, Any]) -> Json:
        """Set some keys of a task's data, keep the others, and return the data."""
        data = {**self.get_task(task)["data"], **changes}
        self.set_task_data(task, data)
        return data

    def set_task_data(self, task: int, data: Mapping[str, Any]) -> None:
        """Replace a task's data; annotations and predictions stay."""
        with self._doing(f"change the data of task {task}"):
            self._sdk.tasks.update(str(task), data=dict(data))

    def create_prediction(self, task: int, prediction: Mapping[str, Any]) -> int:
        """Attach a prediction (see `regions.written.to_prediction`) to a task and return its id."""
        # Not through the SDK, which walks through every byte of every mask in Python: a second for 300 masks.
        body = {"task": task, **{key: prediction[key] for key in _PREDICTION if key in prediction}}
        return int(self._post(f"attach a prediction to task {task}", "api/predictions/", json=body)["id"])

    def update_prediction(self, number: int, prediction: Mapping[str, Any]) -> None:
        """Replace a prediction's content; annotations that were begun from it keep it as their parent."""
        body = {key: prediction[key] for key in _PREDICTION if key in prediction}
        self._request("PATCH", f"replace prediction {number}", f"api/predictions/{number}/", json=body)

    def list_predictions(self, task: int) -> list[Json]:
        """Return a task's predictions with their results."""
        with self._doing(f"list the predictions of task {task}"):
            return [item.dict() for item in self._sdk.predictions.list(task=task, request_options=_READ)]

    def delete_prediction(self, prediction: int) -> None:
        """Delete a prediction."""
        with self._doing(f"delete prediction {prediction}"):
            self._sdk.predictions.delete(prediction)

    def list_annotations(self, task: int) -> list[Json]:
        """Return a task's annotations with their results."""
        with self._doing(f"list the annotations of task {task}"):
            return [item.dict() for item in self._sdk.annotations.list(task, request_options=_READ)]

    def list_drafts(self, task: int) -> list[Json]:
        """Return the drafts of all annotators of a task, with their results."""
        # Not through the SDK, which lacks this route.
        what, path = f"list the drafts of task {task}", f"api/tasks/{task}/drafts"
        return self._get_list(what, path, timeout=_DRAFTS_TIMEOUT_S)

    def create_annotation(self, task: int, results: Sequence[Mapping[str, Any]]) -> int:
        """Make an annotation of a task, submitted by the token's user, and return its id."""
        what = f"make an annotation of task {task}"
        return int(self._post(what, f"api/tasks/{task}/annotations/", json={"result": list(results)})["id"])

    def read_results(self, task: int) -> Json:
        """Return a task's `annotations`, `predictions` and `drafts` as an export of the project has them.

        Unlike `get_task` this does not make Label Studio ask for a prediction.
        """
        # Not through the SDK, which walks through every byte of every mask in Python: a second for 300 masks.
        what = f"read the results of task {task}"
        return {
            "annotations": self._get_list(what, f"api/tasks/{task}/annotations/"),
            "predictions": self._get_list(what, "api/predictions/", task=task),
            "drafts": self._get_list(what, f"api/tasks/{task}/drafts"),
        }

    # ML backends

    def connect_ml_backend(
        self,
        project: int,
        backend_url: str,
        *,
        title: str = "SVAC",
        interactive: bool = True,
        basic_auth: tuple[str, str] | None = None,
    ) -> int:
        """Connect an ML backend to a project, or update the one with this address; return its id."""
        options: Json = {
            "url": backend_url,
            "title": title,
            "is_interactive": interactive,
            "project": project,
            "description": f"Jobs, masks, corrections, training and versions: {backend_url.rstrip('/')}/ui/",
        }
        if basic_auth is not None:
            user, password = basic_auth
            options |= {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}
        what = f"connect the backend {backend_url} to project {project}"
        known = self._ml_backends_at(project, backend_url)
        if known:
            with self._doing(what):
                self._sdk.ml.update(known[0], **options)
            return known[0]
        try:
            with self._doing(what):
                return int(self._sdk.ml.create(**options).dict()["id"])
        except ApiRefusal:
            # If one of its two settings is missing, Label Studio keeps a backend that seems to work but has no webhook.
            for half_made in self._ml_backends_at(project, backend_url):
                self.delete_ml_backend(half_made)
            raise

    def list_ml_backends(self, project: int) -> list[Json]:
        """Return a project's ML backends: `id`, `url`, `state` (`CO` is connected), `is_interactive`, ..."""
        with self._doing(f"list the ML backends of project {project}"):
            return [item.dict() for item in self._sdk.ml.list(project=project, request_options=_READ)]

    def _ml_backends_at(self, project: int, backend_url: str) -> list[int]:
        return [
            int(backend["id"])
            for backend in self.list_ml_backends(project)
            if str(backend.get("url")).rstrip("/") == backend_url.rstrip("/")
        ]

    def delete_ml_backend(self, backend: int) -> None:
        """Disconnect an ML backend. Label Studio leaves its webhook behind."""
        with self._doing(f"disconnect ML backend {backend}"):
            self._sdk.ml.delete(backend)

    def list_webhooks(self, project: int) -> list[Json]:
        """Return the webhooks of a project and of its organization: `id`, `url`, `is_active`, `headers`, ..."""
        with self._doing(f"list the webhooks of project {project}"):
            return [item.dict() for item in self._sdk.webhooks.list(project=str(project))]

    def set_webhook_headers(self, webhook: int, headers: Mapping[str, str]) -> None:
        """Replace the headers that a webhook carries."""
        what = f"set the headers of webhook {webhook}"
        self._request("PATCH", what, f"api/webhooks/{webhook}/", json={"headers": dict(headers)})
