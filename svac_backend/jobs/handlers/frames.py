"""The job `frames`: give a task that has only a video the frames that masks are drawn on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import JobContext
from svac_backend.jobs.frame_places import frame_place
from svac_backend.jobs.label_studio import LabelStudioAccess, task_number
from svac_backend.jobs.payloads import FramesPayload
from svac_backend.jobs.rendering import cached_config
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.windows import window_of
from svac_backend.settings import Settings
from svac_backend.video.frames import write_frames
from svac_backend.video.reader import VideoReader


@dataclass
class FramesHandler:
    """Does `frames` jobs.

    Attributes:
        settings: where the frames go, how the editor gets them, and their JPEG quality.
        label_studio: media and the task.
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
            config.mask_control()  # says what the config lacks
            raise SvacError("The config has no frames.", 'Add <Image name="frames" valueList="$frames"/>.')
        client, task = self.label_studio.client(payload.project_id), task_number(payload.task_id)
        data = client.get_task(task)["data"]  # as it is now; the payload may be hours old
        if data.get(config.frames.key):
            return {"message": "The task has frames already", "frames": len(data[config.frames.key])}
        window = window_of(data)

        context.progress(0.0, "Fetching the video")
        path = self.label_studio.fetch_video(payload)
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
    """The video's true rate, where the config reads one and the task has none: Label Studio would assume 24."""
    key = config.video.fps_key if config.video else None
    return {key: fps} if key and not data.get(key) else {}
