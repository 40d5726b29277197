"""How the worker makes a prediction: once, also when several jobs want it; and to be looked at while it is made."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from svac_backend.jobs.engine import JobContext, JobState
from svac_backend.jobs.label_studio import LabelStudioAccess
from svac_backend.jobs.payloads import TaskPayload
from svac_backend.jobs.rendering import check_frames
from svac_backend.masks.tracks import Track
from svac_backend.pipeline import Progress, Ready
from svac_backend.settings import Settings
from svac_backend.store.database import StoreError
from svac_backend.store.jobs import JobStore
from svac_backend.store.parts import PartStore
from svac_backend.store.predictions import Prediction, PredictionStore
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
        path = self.label_studio.fetch_video(payload)
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
                    log.warning("job %s: how far it is is not stored: %s", context.job.id, error)
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
            twins = [job for job in running if key[:32] in job.key and (job.started or 0.0, job.id) < mine]
            found = self.predictions.get(key) if twins or running else None
            if found is not None or not twins:
                return found
            context.progress(0.0, "Waiting for another job with the same video")
            time.sleep(TWIN_POLL_S)
