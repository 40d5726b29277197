"""Draws a data set's masks in tasks, as predictions or as annotations.

Pictures as a video: what Label Studio's player and the model need of a data set that has frames only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.stream import VideoStream

from svac_backend.cli.inputs import SourceVideo
from svac_backend.cli.projects import Project
from svac_backend.datasets.dataset import VideoTracks
from svac_backend.errors import SvacError
from svac_backend.jobs.rendering import render
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.regions.written import to_prediction
from svac_backend.labelstudio.tasks import Window, task_prompts
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.store.predictions import Prediction
from svac_backend.video.source import VideoSource

Region = dict[str, Any]


class MaskFiller:
    """Draws a data set's masks in tasks; the `Filler` of an import.

    Args:
        settings: how masks are drawn.
        client: of a user who may change the project.
        project: whose tasks.
        videos: a source's path -> its masks, by the source's frames.
        version: model version of the predictions.
        annotations: make annotations instead.
    """

    def __init__(
        self,
        settings: Settings,
        client: LabelStudioClient,
        project: Project,
        videos: Mapping[Path, VideoTracks],
        version: str,
        *,
        annotations: bool,
    ) -> None:
        # What people drew is drawn, however small, and on every frame.
        self.settings = settings.model_copy(
            update={"min_area_px": 1, "send_every": 1, "send_below_score": None}
        )
        self.client = client
        self.project = project
        self.videos = videos
        self.version = version
        self.annotations = annotations
        self._shown = project.model_version

    def has_filled(self, task: int) -> bool:
        """Tell whether a task has masks of this data set already: an annotation, or a prediction."""
        if self.annotations:
            return bool(self.client.list_annotations(task))
        return any(p.get("model_version") == self.version for p in self.client.list_predictions(task))

    def predict(
        self,
        source: SourceVideo,
        video: VideoSource,
        data: dict[str, Any],
        url: str,
        progress: Callable[[float], None],
    ) -> Prediction:
        """Return a video's masks in the form of a prediction; see `Filler.predict`."""
        info = video.info
        return Prediction(
            key="",
            model_version=self.version,
            project_id=str(self.project.id),
            task_id="",
            tracks=numbered(self.videos[source.path], self.project.config),
            width=info.width,
            height=info.height,
            fps=info.fps,
            frame_count=info.frame_count,
            score=1.0,
        )

    def results(self, prediction: Prediction, window: Window | None) -> list[Region]:
        """Return the regions of one task. Raises `SvacError` where the project's config can't show them."""
        return render(prediction, self.project.xml, self.settings, window=window)

    def attach(self, task: int, prediction: Prediction, results: list[Region], window: Window | None) -> None:
        """Put the regions into a task."""
        if self.annotations:
            self.client.create_annotation(task, [drawn(region) for region in results])
            return
        self.client.create_prediction(task, to_prediction(results, self.version))
        if not self._shown:
            # Without a version the editor shows no prediction.
            self.client.set_model_version(self.project.id, self.version)
            self._shown = self.version

    def shown_instead(self) -> str | None:
        """Return the version that the editor shows first, where that is another one."""
        return None if self.annotations or self._shown in ("", self.version) else self._shown


def drawn(region: Region) -> Region:
    """Return a region as the editor makes it when a person draws: without a score."""
    return {key: value for key, value in region.items() if key != "score"} | {"origin": "manual"}


def numbered(video: VideoTracks, config: LabelConfig) -> list[Track]:
    """Return a video's tracks with the ids under which the backend knows what `prompt_lines` asks for.

    Objects of the same label and sentence cannot be told apart by these: all but the first get the ids that follow.

    Raises:
        SvacError: a label is not in the config.
    """
    wishes = [_wish(track, config) for track in video.tracks]
    ids = {wish: f"obj{number}" for number, wish in enumerate(dict.fromkeys(wishes), start=1)}
    found, further = [], len(ids)
    for track, wish in zip(video.tracks, wishes, strict=True):
        object_id = ids.pop(wish, None)
        if object_id is None:
            further += 1
            object_id = f"obj{further}"
        found.append(replace(track, object_id=object_id, label=wish[0], expression=wish[1]))
    return found


def prompt_lines(video: VideoTracks, config: LabelConfig) -> list[str]:
    """Return the prompt of a video's tasks: `label: sentence` for each object, each once.

    Raises:
        SvacError: a label is not in the config.
    """
    wishes = dict.fromkeys(_wish(track, config) for track in video.tracks)
    return [f"{label}: {expression}" for label, expression in wishes]


def check_masks(video: VideoTracks, config: LabelConfig, settings: Settings) -> None:
    """Check that a project can show a video's objects.

    Raises:
        SvacError: it has no mask control, a label is missing, or a sentence is too long or there are too many.
    """
    lines = prompt_lines(video, config)
    if lines:
        task_prompts({"prompt": lines}, config, max_chars=settings.max_prompt_chars)


def _wish(track: Track, config: LabelConfig) -> tuple[str, str]:
    """Return an object's label in the config and its sentence; the first label where the data set knows none."""
    control = config.mask_control()
    label = control.find_label(track.label) if track.label else next(iter(control.labels))
    if label is None:
        raise SvacError(
            f"The labelling config has no label '{track.label}', which the data set has.",
            f"Add it to '{control.name}' in the project's settings, or import with --create.",
        )
    return label, " ".join(track.expression.split()) or label


def encode_pictures(
    pictures: VideoSource, folder: Path, name: str, progress: Callable[[float], None] | None = None
) -> Path:
    """Write `<name>.mp4` (H.264), or `<name>.webm` (VP9) for a side of odd length, which H.264 cannot have.

    The same pictures always make the same file.

    Args:
        pictures: the frames.
        folder: where to.
        name: of the file, without suffix.
        progress: called with 0..1.

    Returns:
        The file.

    Raises:
        SvacError: a picture is damaged, or the disk is full.
    """
    info = pictures.info
    odd = info.width % 2 or info.height % 2
    path = folder / f"{name}.{'webm' if odd else 'mp4'}"
    codec = "libvpx-vp9" if odd else "libx264"
    # Near what can't be told from the pictures; one thread, so that the file does not depend on the machine.
    options = {"crf": "20", "b": "0", "cpu-used": "5", "deadline": "good"} if odd else {"crf": "18"}
    rate = Fraction(info.fps).limit_denominator(1001)
    try:
        with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
            stream = cast(
                VideoStream, container.add_stream(codec, rate=rate, options={**options, "threads": "1"})
            )
            stream.width, stream.height, stream.pix_fmt = info.width, info.height, "yuv420p"
            for i, picture in pictures.frames(range(len(pictures))):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = i, 1 / rate
                container.mux(stream.encode(frame))
                if progress:
                    progress((i + 1) / len(pictures))
            container.mux(stream.encode())
    except (OSError, av.FFmpegError) as error:
        raise SvacError(
            f"No video can be made of the pictures of {name}: {error}.",
            "Look whether the disk for temporary files has space (TMPDIR).",
        ) from error
    return path
