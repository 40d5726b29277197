"""The job `prelabel`: segment a task's video, keep the tracks, send them to the task."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import JobContext
from svac_backend.jobs.handlers.making import SEGMENTED, PredictionMaker
from svac_backend.jobs.handlers.merging import push_merged, snapshot_of
from svac_backend.jobs.payloads import PrelabelPayload
from svac_backend.jobs.rendering import rendered
from svac_backend.labelstudio.results import to_prediction
from svac_backend.masks.tracks import Track, frames_with_masks
from svac_backend.pipeline import Progress, Ready, prelabel
from svac_backend.store.predictions import Prediction
from svac_backend.store.sent import SentStore
from svac_backend.svac.model import Svac
from svac_backend.video.reader import VideoReader


@dataclass
class PrelabelHandler:
    """Does `prelabel` jobs.

    Attributes:
        maker: makes the predictions, with what it is made of.
        sent: what annotators had.
    """

    maker: PredictionMaker
    sent: SentStore

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """See `jobs.engine.Handler`.

        Raises:
            SvacError: the video, the model, the config or Label Studio is not as it should be.
        """
        payload = PrelabelPayload.from_json(context.payload)
        settings, predictions = self.maker.settings, self.maker.predictions
        version = self.maker.version()
        key = payload.cache_key(version)
        begun = time.monotonic()

        def work(model: Svac, video: VideoReader, progress: Progress, ready: Ready) -> list[Track]:
            return prelabel(model, video, payload.prompts, progress=progress, ready=ready)

        prediction, cached = self.maker.make(context, payload, key, version, work)
        # Rendered also when nothing is pushed: the web process then only has to pass it on.
        context.progress(SEGMENTED, "Making regions")
        found = rendered(predictions, key, payload.label_config, settings, payload.task_data)
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
            result["label_studio_prediction"], result["pushed"] = self._push(payload, prediction, found)
        result["seconds"] = round(time.monotonic() - begun, 3)
        result["message"] = _summary(result)
        return result

    def _push(
        self, payload: PrelabelPayload, prediction: Prediction, found: tuple[bytes, float]
    ) -> tuple[int, bool]:
        label_studio = self.maker.label_studio
        if payload.snapshot is None:
            new = to_prediction(json.loads(found[0]), prediction.model_version, found[1])
            return label_studio.push(payload, new)
        now = snapshot_of(self.sent, payload.snapshot)
        return push_merged(label_studio, self.maker.settings, payload, prediction, now, payload.corrected)


def _summary(result: dict[str, Any]) -> str:
    if not result["frames_with_masks"]:
        return f"Nothing was found on any of the {result['frames']} frames"
    source = ", from the cache" if result["cached"] else ""
    return f"Masks on {result['frames_with_masks']} of {result['frames']} frames{source}"
