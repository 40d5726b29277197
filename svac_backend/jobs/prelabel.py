"""The job `prelabel`: segment a task's video, keep the tracks, send them to the task.

`PredictionMaker` makes a prediction once, even if several jobs want it, and shows the part that is ready meanwhile.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from svac_backend.errors import StoreError, SvacError
from svac_backend.jobs.engine import JobContext, JobState
from svac_backend.jobs.payloads import PRELABEL, PrelabelPayload, TaskPayload
from svac_backend.jobs.rendering import check_frames, rendered
from svac_backend.labelstudio.api.access import LabelStudioAccess
from svac_backend.labelstudio.config import cached_config
from svac_backend.labelstudio.regions.written import to_prediction
from svac_backend.masks.tracks import Track, frames_with_masks
from svac_backend.pipeline import Progress, Ready, prelabel
from svac_backend.settings import Settings
from svac_backend.store.jobs import JobStore
from svac_backend.store.objects import SentStore
from svac_backend.store.predictions import PartStore, Prediction, PredictionStore
from svac_backend.store.tasks import PredictedTask, TaskStore
from svac_backend.svac.model import Svac
from svac_backend.video.reader import VideoReader

# Progress, 0..1, after each stage.
FETCHED, SEGMENTED = 0.05, 0.95
# Unfinished tracks are stored at most every so many seconds, and in at most this share of the time.
PART_INTERVAL_S, PART_SHARE = 1.0, 0.05
# Seconds between two checks whether another job has made what this one wants.
TWIN_POLL_S = 0.3

# What makes the tracks: (model, video, progress, ready) -> tracks.
Work = Callable[[Svac, VideoReader, Progress, Ready], list[Track]]

log = logging.getLogger(__name__)


@dataclass
class PredictionMaker:
    """Makes the predictions that are not in the cache.

    Attributes:
        settings: limits for videos.
        model: returns the loaded model.
        version: returns the version that the model serves as from now on; a job asks once, before anything else.
        predictions: the cache.
        parts: unfinished predictions.
        jobs: shows whether another job makes the same prediction.
        label_studio: access to the videos.
    """

    settings: Settings
    model: Callable[[], Svac]
    version: Callable[[], str]
    predictions: PredictionStore
    parts: PartStore
    jobs: JobStore
    label_studio: LabelStudioAccess

    def make(
        self, context: JobContext, payload: TaskPayload, key: str, model_version: str, work: Work
    ) -> tuple[Prediction, bool]:
        """Return the prediction with a key, and whether it was in the cache already.

        Args:
            context: the job; its key must contain the first 32 digits of `key`.
            payload: names the video.
            key: the cache key.
            model_version: the version of the model.
            work: makes the tracks.

        Raises:
            SvacError: the video or the model cannot be used.
        """
        found = self.predictions.get(key) or self._twin(context, key)
        if found is not None:
            return found, True
        try:
            prediction = self._make(context, payload, key, model_version, work)
            self.predictions.put(prediction)
        finally:
            self.parts.drop(key)
        return prediction, False

    def _make(
        self, context: JobContext, payload: TaskPayload, key: str, model_version: str, work: Work
    ) -> Prediction:
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
            info = video.info
            check_frames(payload.task_data, payload.label_config, info.frame_count)  # before the long work
            context.progress(FETCHED, "Loading the model")
            model = self.model()
            due, pause = time.monotonic() + PART_INTERVAL_S, PART_INTERVAL_S

            def progress(fraction: float, message: str) -> None:
                context.progress(FETCHED + (SEGMENTED - FETCHED) * fraction, message)

            def ready(tracks: Sequence[Track]) -> None:
                nonlocal due, pause
                begun = time.monotonic()
                if begun < due:
                    return
                try:
                    self.parts.put(payload.prediction(key, model_version, tracks, info))
                except StoreError as error:
                    log.warning("job %s: its progress is not stored: %s", context.job.id, error)
                now = time.monotonic()
                pause = max(PART_INTERVAL_S, (now - begun) / PART_SHARE)
                due = now + pause

            tracks = work(model, video, progress, ready)
        return payload.prediction(key, model_version, tracks, info)

    def _twin(self, context: JobContext, key: str) -> Prediction | None:
        """Wait for an earlier job that makes the same, e.g. for another window of this video; None without one."""
        mine = (context.job.started or 0.0, context.job.id)
        while True:
            running = self.jobs.find(states=(JobState.RUNNING,), limit=1000)
            twins = [
                job
                for job in running
                if key[:32] in job.key
                and (job.started or 0.0, job.id) < mine
                # A job of this worker stands aside for this one: waiting for it would never end.
                and job.worker_id != context.job.worker_id
            ]
            found = self.predictions.get(key) if twins or running else None
            if found is not None or not twins:
                return found
            context.progress(0.0, "Waiting for another job with the same video")
            time.sleep(TWIN_POLL_S)


@dataclass
class PrelabelHandler:
    """Does `prelabel` jobs.

    Attributes:
        maker: makes the predictions.
        sent: keeps what a replaced prediction showed.
        tasks: the latest prediction of each task.
    """

    maker: PredictionMaker
    sent: SentStore
    tasks: TaskStore

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """See `jobs.engine.Handler`.

        Raises:
            SvacError: the video, the model, the config or Label Studio cannot be used.
        """
        payload = PrelabelPayload.from_json(context.payload)
        settings, predictions = self.maker.settings, self.maker.predictions
        version = self.maker.version()
        key = payload.cache_key(version)
        begun = time.monotonic()

        def work(model: Svac, video: VideoReader, progress: Progress, ready: Ready) -> list[Track]:
            labels, specks = cached_config(payload.label_config).mask_control().labels, settings.speck_share
            return prelabel(
                model, video, payload.prompts, labels=labels, specks=specks, progress=progress, ready=ready
            )

        prediction, cached = self.maker.make(context, payload, key, version, work)
        # Rendered even if nothing is pushed, so that the web process only has to pass it on.
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
            result["label_studio_prediction"], result["pushed"] = self._push(
                payload, prediction, found, context.job.id
            )
            self.tasks.put([PredictedTask(payload.project_id, payload.task_id, key, version, found[1])])
        result["seconds"] = round(time.monotonic() - begun, 3)
        result["message"] = _summary(result)
        return result

    def _push(
        self, payload: PrelabelPayload, prediction: Prediction, found: tuple[bytes, float], key: str
    ) -> tuple[int, bool]:
        new = to_prediction(json.loads(found[0]), prediction.model_version, found[1])
        keep = partial(self.sent.keep_replaced, payload.project_id, payload.task_id)
        return self.maker.label_studio.push(
            payload.project_id, payload.task_id, new, key, kind=PRELABEL, keep=keep
        )


def _summary(result: dict[str, Any]) -> str:
    if not result["frames_with_masks"]:
        return f"Nothing was found on any of the {result['frames']} frames"
    source = ", from the cache" if result["cached"] else ""
    return f"Masks on {result['frames_with_masks']} of {result['frames']} frames{source}"
