"""What the jobs need to know, as the web process and the command line write it and the worker reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.masks.tracks import ObjectPrompt, Track
from svac_backend.settings import Settings
from svac_backend.store.connections import ProjectConnection
from svac_backend.store.predictions import Prediction, prediction_key, video_identity
from svac_backend.video.source import VideoInfo

PRELABEL, FRAMES = "prelabel", "frames"


@dataclass(frozen=True)
class PrelabelPayload:
    """Segment a task's video.

    Attributes:
        task_data: the task's `data`; never its annotations, which can be megabytes.
        hostname: the Label Studio of the task, see `label_studio_name`.
        video_url: the address in `task_data` that is segmented.
        push: send the result to the task through the API.
    """

    project_id: str
    task_id: str
    task_data: dict[str, Any]
    prompts: tuple[ObjectPrompt, ...]
    label_config: str
    hostname: str
    video_url: str
    push: bool

    def cache_key(self, model_version: str) -> str:
        """Return the key of the prediction that this makes with that model."""
        return prediction_key(video_identity(self.hostname, self.video_url), self.prompts, model_version)

    def job_key(self, model_version: str) -> str:
        """Return the job's idempotent key. A job that pushes is other work than one that only computes."""
        return (
            f"prelabel:{self.project_id}:{self.task_id}:{self.cache_key(model_version)[:32]}:{int(self.push)}"
        )

    def prediction(
        self, key: str, model_version: str, tracks: Sequence[Track], info: VideoInfo
    ) -> Prediction:
        """Return what is kept of the tracks that a model found; the score is the mean of those with masks."""
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

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict; it shares the task's data, which `asdict` would copy value by value."""
        return {**vars(self), "prompts": [vars(prompt) for prompt in self.prompts]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PrelabelPayload:
        """Read what `to_json` wrote."""
        return cls(**{**data, "prompts": tuple(ObjectPrompt(**prompt) for prompt in data["prompts"])})


@dataclass(frozen=True)
class FramesPayload:
    """Cut a task's video into the frames that the editor shows, and add them to the task.

    Attributes: as in `PrelabelPayload`.
    """

    project_id: str
    task_id: str
    task_data: dict[str, Any]
    label_config: str
    hostname: str
    video_url: str

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


def no_files_root() -> SvacError:
    """Return the error of a task whose frames cannot be stored."""
    return SvacError(
        "The task has no frames to draw masks on, and there is no place to put them.",
        "Set SVAC_LABEL_STUDIO_FILES_ROOT to the folder that is Label Studio's LOCAL_FILES_DOCUMENT_ROOT, or "
        "SVAC_MEDIA_URL to the address of `svac-backend serve` in the annotators' browsers.",
    )


def label_studio_name(settings: Settings, connection: ProjectConnection | None) -> str:
    """Return the name under which a project's Label Studio stands in payloads and cache keys.

    With a token of our own it is the address that we call, whatever Label Studio calls itself in /setup: a video that
    was imported before the backend was connected is then still the same video.
    """
    if settings.label_studio_api_key is None and connection is not None and connection.hostname:
        return connection.hostname
    return settings.label_studio_url


def describe(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a payload that people may see: not the task data, which may hold signed links."""
    prompts: Sequence[Mapping[str, str]] = payload.get("prompts") or ()
    return {
        "project_id": payload.get("project_id"),
        "task_id": payload.get("task_id"),
        "prompts": [{"label": p["label"], "expression": p["expression"]} for p in prompts],
    }
