"""The job `frames`: give a task that has only a video the frames that masks are drawn on.

A `FramePlace` is where frames are put and how the editor gets them: Label Studio's local files, or our own /media.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import BATCH, JobContext, JobEngine, Work
from svac_backend.jobs.payloads import FRAMES, FramesPayload, TaskPayload, no_files_root
from svac_backend.jobs.renew import LinkedTask, remember
from svac_backend.labelstudio.api.access import LabelStudioAccess, task_number
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.config import LabelConfig, cached_config
from svac_backend.labelstudio.tasks import local_files_url, window_of
from svac_backend.settings import Settings
from svac_backend.storage.folder import Kind, Storage
from svac_backend.storage.published import open_storage
from svac_backend.store.links import MediaLinks, links_from_store
from svac_backend.video.frames import write_frames
from svac_backend.video.reader import VideoReader

# Below the local files root. Each project has a folder, which Label Studio lets its members read.
FOLDER = "svac-frames"

log = logging.getLogger(__name__)


class FramePlace(Protocol):
    """A folder for each task's frames, and how the editor gets them from there."""

    def folder(self, project_id: str, task: int) -> Path:
        """Return the folder of a task's frames; it need not exist yet."""
        ...

    def add(
        self,
        client: LabelStudioClient,
        project_id: str,
        task: int,
        key: str,
        files: Sequence[Path],
        further: dict[str, Any],
    ) -> None:
        """Write the addresses of frames into a task's data.

        Args:
            client: the task's Label Studio.
            project_id: the task's project; empty if unknown.
            task: the task's id.
            key: where in the data the addresses belong.
            files: the frames, in order, in the task's folder.
            further: other data to write in the same call.

        Raises:
            SvacError: Label Studio refuses.
        """
        ...


@dataclass(frozen=True)
class LocalFiles:
    """Frames below Label Studio's local files root; it serves them to members of the project."""

    root: Path

    def folder(self, project_id: str, task: int) -> Path:
        """See `FramePlace.folder`."""
        return self.root / FOLDER / _project(project_id) / f"task-{task}"

    def add(
        self,
        client: LabelStudioClient,
        project_id: str,
        task: int,
        key: str,
        files: Sequence[Path],
        further: dict[str, Any],
    ) -> None:
        """See `FramePlace.add`. It also lets the project read its folder."""
        if project_id:
            client.allow_local_files(int(project_id), str(self.folder(project_id, task).parent))
        urls = [local_files_url(file, self.root, client.url) for file in files]
        client.update_task_data(task, {key: urls, **further})


@dataclass(frozen=True)
class OwnMedia:
    """Frames in the storage; the web process or the bucket serves them to whoever has a valid link."""

    links: MediaLinks
    storage: Storage

    def folder(self, project_id: str, task: int) -> Path:
        """See `FramePlace.folder`."""
        return self.links.root / stored_name(project_id, task)

    def add(
        self,
        client: LabelStudioClient,
        project_id: str,
        task: int,
        key: str,
        files: Sequence[Path],
        further: dict[str, Any],
    ) -> None:
        """See `FramePlace.add`. It also records the links, so that they can be renewed."""
        if not project_id.isdigit():
            # Without its project, the task would not be found when its links have to be renewed.
            raise SvacError(
                f"Task {task} came without its project.", "Send the task from Label Studio again."
            )
        linked = LinkedTask(self.folder(project_id, task), project_id, task, key)
        self.storage.publish(Kind.FRAMES, stored_name(project_id, task))
        # Recorded before the task gets them: nobody would ever renew links that are out but not recorded.
        remember(linked, storage=self.storage)
        made = self.links.clock()
        client.update_task_data(task, {key: [self.links.url(file) for file in files], **further})
        remember(linked, made, self.links.identity, storage=self.storage)


def frames_way(settings: Settings) -> Literal["local-files", "store", "backend"]:
    """Return how frames reach the editor.

    Raises:
        SvacError: a setting that this way needs is missing.
    """
    root, way = settings.label_studio_files_root, settings.frames_via
    if links_from_store(settings):
        return "store"
    if way == "store":
        raise SvacError(
            "SVAC_FRAMES_VIA is store, but SVAC_STORAGE_URL names no bucket.",
            "Set it to s3://bucket/prefix or the like, or choose another way.",
        )
    if way == "auto":
        way = "local-files" if root is not None else "backend"
        if way == "backend" and settings.media_url is None:
            raise no_files_root()
    if way == "local-files" and root is None:
        raise SvacError(
            "SVAC_FRAMES_VIA is local-files, but SVAC_LABEL_STUDIO_FILES_ROOT is not set.",
            "Set it to the folder that is Label Studio's LOCAL_FILES_DOCUMENT_ROOT.",
        )
    if way == "backend" and settings.media_url is None:
        raise SvacError(
            "SVAC_FRAMES_VIA is backend, but SVAC_MEDIA_URL is not set.",
            "Set it to the address at which the annotators' browsers reach `svac-backend serve`.",
        )
    return way


def frame_place(settings: Settings) -> FramePlace:
    """Return where frames are put.

    Raises:
        SvacError: as for `frames_way`, or the data folder cannot be used.
    """
    root = settings.label_studio_files_root
    if frames_way(settings) == "local-files" and root is not None:
        return LocalFiles(root)
    return OwnMedia(MediaLinks.of_frames(settings), open_storage(settings))


def order_frames(
    payload: TaskPayload, settings: Settings, engine: JobEngine, works: list[Work], priority: int = BATCH
) -> None:
    """Add to `works` the job that cuts the frames a task's masks will be drawn on, if it has only the video.

    Where there is no place for them that is recorded as a failed job.
    """
    config = cached_config(payload.label_config)
    if config.frames is None or payload.task_data.get(config.frames.key):
        return
    frames = FramesPayload(**vars(payload))
    try:
        frames_way(settings)
    except SvacError as error:
        engine.reject(FRAMES, frames.to_json(), frames.job_key(), error.message, error.hint)
        log.warning("task %s: %s", payload.task_id, error)
    else:
        works.append(Work(FRAMES, frames.to_json(), frames.job_key(), priority))


def stored_name(project_id: str, task: int) -> str:
    """Return the name under which a task's frames are stored."""
    return f"{_project(project_id)}/task-{task}"


def _project(project_id: str) -> str:
    return f"project-{project_id or 'none'}"


@dataclass
class FramesHandler:
    """Does `frames` jobs.

    Attributes:
        settings: where the frames go, how the editor gets them, and their JPEG quality.
        label_studio: access to the video and the task.
    """

    settings: Settings
    label_studio: LabelStudioAccess

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """See `jobs.engine.Handler`.

        Raises:
            SvacError: a setting is missing, the config shows no frames, the video cannot be read, or Label Studio
                refuses.
        """
        payload = FramesPayload.from_json(context.payload)
        place = frame_place(self.settings)
        config = cached_config(payload.label_config)
        if config.frames is None:
            config.mask_control()  # raises an error that says what the config lacks
            raise SvacError("The config has no frames.", 'Add <Image name="frames" valueList="$frames"/>.')
        client, task = self.label_studio.client(payload.project_id), task_number(payload.task_id)
        data = client.get_task(task)["data"]  # read now, since the payload may be hours old
        if data.get(config.frames.key):
            return {"message": "The task has frames already", "frames": len(data[config.frames.key])}
        window = window_of(data)

        context.progress(0.0, "Fetching the video")
        path = self.label_studio.fetch(
            payload.project_id,
            payload.hostname,
            payload.video_url,
            payload.task_id,
            check=lambda: context.progress(0.0, "Fetching the video"),
        )
        limits = {"max_side": self.settings.max_video_side, "max_frames": self.settings.max_frames}
        with VideoReader(path, **limits) as video:
            files = write_frames(
                video,
                place.folder(payload.project_id, task),
                quality=self.settings.frame_quality,
                indices=None if window is None else [window.frame(item) for item in range(window.count)],
                progress=lambda fraction, message: context.progress(0.05 + 0.9 * fraction, message),
            )
            fps = video.info.fps
        context.progress(0.95, "Adding the frames to the task")
        further = _frame_rate(data, config, fps)
        place.add(client, payload.project_id, task, config.frames.key, files, further)
        return {"message": f"{len(files)} frames added to the task", "frames": len(files)}


def _frame_rate(data: dict[str, Any], config: LabelConfig, fps: float) -> dict[str, float]:
    """Return the video's true frame rate if the config reads it and the task lacks it: Label Studio would assume 24."""
    key = config.video.fps_key if config.video else None
    return {key: fps} if key and not data.get(key) else {}
