"""The job `prelabel`: segment a task's video, keep the tracks, send them to the task.

`PredictionMaker` makes a prediction once, also when several jobs want it, and lets it be looked at while it is made.
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

# Shares of the progress bar.
FETCHED, SEGMENTED = 0.05, 0.95
# Tracks that are being made are stored for those who wait this often, in seconds, and in this share of the time.
PART_INTERVAL_S, PART_SHARE = 1.0, 0.05
# How often a job looks whether another one has made what it wants, in seconds.
TWIN_POLL_S = 0.3

# What makes the tracks: (model, video, progress, ready) -> tracks.
Work = Callable[[Svac, VideoReader, Progress, Ready], list[Track]]

log = logging.getLogger(__name__)


@dataclass
class PredictionMaker:
    """Makes what is not in the cache.

    Attributes:
        settings: limits of videos.
        model: returns the loaded model.
        version: returns the version that it serves with from now on; a job asks once, before anything else.
        predictions: the cache.
        parts: predictions while they are made.
        jobs: to see whether another job makes the same.
        label_studio: media.
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
        """Return the prediction of a key, and whether it was there already.

        Args:
            context: of the job; its key must hold the first 32 digits of `key`.
            payload: whose video it is.
            key: of the cache.
            model_version: of the model.
            work: makes the tracks.

        Raises:
            SvacError: the video, or the model, is not as it should be.
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
            check_frames(payload.task_data, payload.label_config, info.frame_count)  # before all the work
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
        """Wait for a job that began earlier to make the same, as for another window of this video; None without one."""
        mine = (context.job.started or 0.0, context.job.id)
        while True:
            running = self.jobs.find(states=(JobState.RUNNING,), limit=1000)
            twins = [
                job
                for job in running
                if key[:32] in job.key
                and (job.started or 0.0, job.id) < mine
                # One of this worker stands aside for this job: it would be waited for without end.
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
        maker: makes the predictions, with what it is made of.
        sent: keeps what a prediction showed that is replaced.
        tasks: what each task was given.
    """

    maker: PredictionMaker
    sent: SentStore
    tasks: TaskStore

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
            labels, specks = cached_config(payload.label_config).mask_control().labels, settings.speck_share
            return prelabel(
                model, video, payload.prompts, labels=labels, specks=specks, progress=progress, ready=ready
            )

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
