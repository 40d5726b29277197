"""The payloads of jobs: the web process and the command line write them, the worker reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import cached_config
from svac_backend.labelstudio.tasks import video_url
from svac_backend.masks.hints import FrameHint, FrameHints
from svac_backend.masks.tracks import ObjectPrompt, Track
from svac_backend.store.predictions import Prediction, correction_key, prediction_key, video_identity
from svac_backend.video.source import VideoInfo

PRELABEL, FRAMES, PROPAGATE = "prelabel", "frames", "propagate"
# The fields that payloads of earlier versions have, too.
_OLDER = ("snapshot", "corrected")


@dataclass(frozen=True)
class TaskPayload:
    """What a job knows about its task.

    Attributes:
        task_data: the task's `data`; never its annotations, which can be megabytes.
        label_config: the project's labelling config.
        hostname: the Label Studio of the task, see `label_studio_name`.
        video_url: the address, in `task_data`, of the video to segment.
    """

    project_id: str
    task_id: str
    task_data: dict[str, Any]
    label_config: str
    hostname: str
    video_url: str

    @property
    def video(self) -> str:
        """The identity of the video, see `store.predictions.video_identity`."""
        return video_identity(self.hostname, self.video_url)

    def prediction(
        self, key: str, model_version: str, tracks: Sequence[Track], info: VideoInfo
    ) -> Prediction:
        """Return the prediction to keep for a model's tracks; its score is the mean of those with masks."""
        scores = [track.score for track in tracks if track.masks]
        return Prediction(
            key=key,
            model_version=model_version,
            project_id=self.project_id,
            task_id=self.task_id,
            tracks=list(tracks),
            width=info.width,
            height=info.height,
            fps=info.fps,
            frame_count=info.frame_count,
            score=sum(scores) / len(scores) if scores else 0.0,
        )


def task_payload(task: Mapping[str, Any], label_config: str, project_id: str, hostname: str) -> TaskPayload:
    """Return a task as jobs know it.

    Args:
        task: Label Studio's, of which `id` and `data` are used.
        label_config: the project's labelling config.
        project_id: the project.
        hostname: its Label Studio, see `label_studio_name`.

    Raises:
        SvacError: it has no id, no data or no video.
    """
    if task.get("id") in (None, ""):
        raise SvacError("The task has no id.", "Send tasks as Label Studio does.")
    data = task.get("data")
    if not isinstance(data, dict):
        raise SvacError("The task has no data.", "Send tasks as Label Studio does.")
    url = video_url(data, cached_config(label_config))
    return TaskPayload(project_id, str(task["id"])[:32], data, label_config, hostname, url)


@dataclass(frozen=True)
class PrelabelPayload(TaskPayload):
    """Segment a task's video.

    Attributes:
        prompts: what to segment.
        push: send the result to the task through the API.
    """

    prompts: tuple[ObjectPrompt, ...]
    push: bool

    def cache_key(self, model_version: str) -> str:
        """Return the cache key of the prediction that this job makes with a model version."""
        return prediction_key(self.video, self.prompts, model_version)

    def job_key(self, model_version: str) -> str:
        """Return the job's idempotent key. A job that pushes is not the same work as one that only computes."""
        return (
            f"prelabel:{self.project_id}:{self.task_id}:{self.cache_key(model_version)[:32]}:{int(self.push)}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict; it shares the task's data, which `asdict` would copy value by value."""
        prompts = [vars(prompt) for prompt in self.prompts]
        return {**vars(self), "prompts": prompts}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PrelabelPayload:
        """Read what `to_json` wrote."""
        prompts = tuple(ObjectPrompt(**prompt) for prompt in data["prompts"])
        # A job of an earlier version that was to send an annotator's draft along only makes the prediction.
        push = data["push"] and data.get("snapshot") is None
        return cls(**{**{k: v for k, v in data.items() if k not in _OLDER}, "prompts": prompts, "push": push})


@dataclass(frozen=True)
class PropagatePayload(TaskPayload):
    """Predict objects again from frame hints.

    Attributes:
        objects: the objects to predict.
        hints: frame hints by object id and 0-based frame of the video, in pixels of `size`.
        size: (width, height) in pixels of the frames that the hints were given on.
        frames: (first, end) of the video's frames to predict; all if None.
        event: instead of all the above: number of the webhook whose annotation is read for corrections. The result is
            sent to the task as a prediction, together with everything else that was submitted.
    """

    objects: tuple[ObjectPrompt, ...] = ()
    hints: FrameHints = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)
    frames: tuple[int, int] | None = None
    event: int | None = None

    def cache_key(self, model_version: str) -> str:
        """Return the cache key of the prediction that this job makes with a model version."""
        shown = [
            [vars(one), sorted((frame, hint.to_json()) for frame, hint in hints.items())]
            for one in self.objects
            if (hints := self.hints.get(one.object_id))
        ]
        return correction_key(self.video, [shown, self.size, self.frames], model_version)

    def job_key(self, model_version: str) -> str:
        """Return the job's idempotent key."""
        start = f"{PROPAGATE}:{self.project_id}:{self.task_id}"
        if self.event is not None:
            return f"{start}:event-{self.event}"
        return f"{start}:{self.cache_key(model_version)[:32]}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict; it shares the task's data."""
        objects = [vars(one) for one in self.objects]
        content = {**vars(self), "objects": objects, "prompts": _to_json(self.hints)}
        del content["hints"]  # jobs of earlier versions know it as `prompts`
        return content

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PropagatePayload:
        """Read what `to_json` wrote."""
        objects = tuple(ObjectPrompt(**one) for one in data["objects"])
        size, frames = data["size"], data["frames"]
        return cls(
            **{
                **{name: value for name, value in data.items() if name not in ("prompts", "push", *_OLDER)},
                "objects": objects,
                "hints": _from_json(data["prompts"]),
                "size": (size[0], size[1]),
                "frames": None if frames is None else (frames[0], frames[1]),
            }
        )


@dataclass(frozen=True)
class FramesPayload(TaskPayload):
    """Cut a task's video into the frames that the editor shows, and add them to the task."""

    def job_key(self) -> str:
        """Return the job's idempotent key."""
        return f"frames:{self.project_id}:{self.task_id}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict; it shares the task's data."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FramesPayload:
        """Read what `to_json` wrote."""
        return cls(**data)


def _to_json(hints: FrameHints) -> dict[str, Any]:
    return {
        object_id: {str(frame): hint.to_json() for frame, hint in shown.items()}
        for object_id, shown in hints.items()
    }


def _from_json(data: Mapping[str, Any]) -> dict[str, dict[int, FrameHint]]:
    return {
        object_id: {int(frame): FrameHint.from_json(hint) for frame, hint in shown.items()}
        for object_id, shown in data.items()
    }


def no_files_root() -> SvacError:
    """Return the error for a task whose frames cannot be stored."""
    return SvacError(
        "The task has no frames to draw masks on, and there is no place to put them.",
        "Set SVAC_LABEL_STUDIO_FILES_ROOT to the folder that is Label Studio's LOCAL_FILES_DOCUMENT_ROOT, or "
        "SVAC_MEDIA_URL to the address of `svac-backend serve` in the annotators' browsers.",
    )


def describe(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a payload that people may see; the task data may hold signed links, so it is left out."""
    # A prelabel job has a list of prompts, a propagate job its objects.
    prompts: Sequence[Mapping[str, str]] = payload.get("objects") or payload.get("prompts") or ()
    return {
        "project_id": payload.get("project_id"),
        "task_id": payload.get("task_id"),
        "prompts": [{"label": p["label"], "expression": p["expression"]} for p in prompts],
    }
