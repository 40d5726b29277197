"""The job `prelabel`: segment a task's video, keep the tracks, send them to the task."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import JobContext
from svac_backend.jobs.label_studio import LabelStudioAccess
from svac_backend.jobs.payloads import PrelabelPayload
from svac_backend.jobs.rendering import check_frames, rendered
from svac_backend.labelstudio.results import to_prediction
from svac_backend.masks.tracks import frames_with_masks
from svac_backend.pipeline import prelabel
from svac_backend.settings import Settings
from svac_backend.store.predictions import Prediction, PredictionStore
from svac_backend.svac.model import Svac
from svac_backend.svac.weights import model_version
from svac_backend.video.reader import VideoReader

# Shares of the progress bar.
FETCHED, SEGMENTED = 0.05, 0.95


@dataclass
class PrelabelHandler:
    """Does `prelabel` jobs.

    Attributes:
        settings: limits and what is sent to the editor.
        model: returns the loaded model.
        predictions: the cache.
        label_studio: media and pushing.
    """

    settings: Settings
    model: Callable[[], Svac]
    predictions: PredictionStore
    label_studio: LabelStudioAccess

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """See `jobs.engine.Handler`.

        Raises:
            SvacError: the video, the model, the config or Label Studio is not as it should be.
        """
        payload = PrelabelPayload.from_json(context.payload)
        version = model_version(self.settings.model)
        key = payload.cache_key(version)
        begun = time.monotonic()
        prediction = self.predictions.get(key)
        cached = prediction is not None
        if prediction is None:
            prediction = self._predict(context, payload, key, version)
            self.predictions.put(prediction)
        # Rendered also when nothing is pushed: the web process then only has to pass it on.
        context.progress(SEGMENTED, "Making regions")
        found = rendered(self.predictions, key, payload.label_config, self.settings, payload.task_data)
        if found is None:
            raise SvacError(
                "The prediction vanished from the database.",
                "Send the task again; do not empty the database.",
            )
        result: dict[str, Any] = {
            "prediction": key,
            "model_version": version,
            "cached": cached,
            "frames": prediction.frame_count,
            "frames_with_masks": len(frames_with_masks(prediction.tracks)),
            "score": round(prediction.score, 4),
        }
        if payload.push:
            context.progress(SEGMENTED, "Sending the regions to Label Studio")
            sent = to_prediction(json.loads(found[0]), version)
            result["label_studio_prediction"], result["pushed"] = self.label_studio.push(payload, sent)
        result["seconds"] = round(time.monotonic() - begun, 3)
        result["message"] = _summary(result)
        return result

    def _predict(self, context: JobContext, payload: PrelabelPayload, key: str, version: str) -> Prediction:
        context.progress(0.0, "Fetching the video")
        path = self.label_studio.fetch_video(payload)
        limits = {"max_side": self.settings.max_video_side, "max_frames": self.settings.max_frames}
        with VideoReader(path, **limits) as video:
            info = video.info
            check_frames(payload.task_data, payload.label_config, info.frame_count)  # before all the work
            context.progress(FETCHED, "Loading the model")
            model = self.model()

            def progress(fraction: float, message: str) -> None:
                context.progress(FETCHED + (SEGMENTED - FETCHED) * fraction, message)

            tracks = prelabel(model, video, payload.prompts, progress=progress)
        return payload.prediction(key, version, tracks, info)


def _summary(result: dict[str, Any]) -> str:
    if not result["frames_with_masks"]:
        return f"Nothing was found on any of the {result['frames']} frames"
    source = ", from the cache" if result["cached"] else ""
    return f"Masks on {result['frames_with_masks']} of {result['frames']} frames{source}"
