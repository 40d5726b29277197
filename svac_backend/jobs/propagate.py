"""The job `propagate`: carry a person's corrections from some frames to the others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import JobContext
from svac_backend.jobs.payloads import PROPAGATE, PropagatePayload
from svac_backend.jobs.prelabel import SEGMENTED, PredictionMaker
from svac_backend.jobs.rendering import merge, rendered, task_score
from svac_backend.labelstudio.api.access import parent_of, predictions_before
from svac_backend.labelstudio.config import cached_config
from svac_backend.labelstudio.corrections import person_of, read_annotation
from svac_backend.labelstudio.regions.region import Region, regions_of
from svac_backend.labelstudio.regions.written import to_prediction, validate_results
from svac_backend.labelstudio.tasks import window_of
from svac_backend.masks.hints import Click, FrameHint, FrameHints
from svac_backend.masks.tracks import Track, frames_with_masks
from svac_backend.pipeline import Progress, Ready, propagate
from svac_backend.store.events import EventStore
from svac_backend.store.objects import NOBODY, ObjectStore, SentStore, video_name
from svac_backend.store.predictions import Prediction
from svac_backend.svac.model import Svac
from svac_backend.video.reader import VideoReader
from svac_backend.video.source import VideoInfo


@dataclass
class PropagateHandler:
    """Does `propagate` jobs.

    Attributes:
        maker: makes the predictions.
        sent: what editors were sent and showed.
        objects: the objects' names.
        events: the webhooks.
    """

    maker: PredictionMaker
    sent: SentStore
    objects: ObjectStore
    events: EventStore

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """See `jobs.engine.Handler`.

        Raises:
            SvacError: the video, the model, the config, the annotation or Label Studio cannot be used.
        """
        payload = PropagatePayload.from_json(context.payload)
        version = self.maker.version()
        begun = time.monotonic()
        now: Sequence[Region] = []
        sent: Sequence[Region] = []
        by = NOBODY
        if payload.event is not None:
            context.progress(0.0, "Looking for corrections")
            payload, now, sent, by = self._from_event(payload)
            if not payload.hints:
                return {"message": "Nothing to propagate: no correction shows an object", "corrected": 0}

        def work(model: Svac, video: VideoReader, progress: Progress, ready: Ready) -> list[Track]:
            tracks = [Track(**vars(one)) for one in payload.objects]
            frames = None if payload.frames is None else range(payload.frames[0], payload.frames[1])
            shown = scaled(payload.hints, payload.size, video.info)
            specks = self.maker.settings.speck_share
            return propagate(
                model, video, tracks, shown, frames=frames, specks=specks, progress=progress, ready=ready
            )

        key = payload.cache_key(version)
        prediction, cached = self.maker.make(context, payload, key, version, work)
        # Rendered here, so that the web process only has to pass them on.
        context.progress(SEGMENTED, "Making regions")
        rendered(self.maker.predictions, key, payload.label_config, self.maker.settings, payload.task_data)
        result: dict[str, Any] = {
            "prediction": key,
            "model_version": version,
            "cached": cached,
            "corrected": sum(len(shown) for shown in payload.hints.values()),
            "frames": prediction.frame_count,
            "frames_with_masks": len(frames_with_masks(prediction.tracks)),
            "score": round(prediction.score, 4),
        }
        if payload.event is not None:
            context.progress(SEGMENTED, "Sending the regions to Label Studio")
            pushed = self._push(payload, prediction, now, sent, context.job.id)
            result["label_studio_prediction"], result["pushed"] = pushed
            # They come back just as they are sent now: only this record tells that a person made them.
            for person in dict.fromkeys((NOBODY, by)):
                self.sent.record(payload.project_id, payload.task_id, {}, payload.hints, person=person)
        result["seconds"] = round(time.monotonic() - begun, 3)
        result["message"] = _summary(len(payload.hints), result["corrected"])
        return result

    def _push(
        self,
        payload: PropagatePayload,
        prediction: Prediction,
        now: Sequence[Region],
        sent: Sequence[Region],
        key: str,
    ) -> tuple[int, bool]:
        """Attach a prediction: what was submitted, with the corrected objects predicted again on all other frames."""
        settings, window = self.maker.settings, window_of(payload.task_data)
        config = cached_config(payload.label_config)
        # Other regions steer the model or are text, so they are not part of a prediction.
        masks = [region for region in now if region.get("from_name") in config.drawing_names]
        results = merge(
            prediction, payload.label_config, settings, masks, payload.hints, sent=sent, window=window
        )
        shown = prediction.frame_count if window is None else window.count
        had = {(region.get("id"), region.get("from_name")): region for region in masks}
        made = [
            region for region in results if had.get((region.get("id"), region.get("from_name"))) != region
        ]
        validate_results(made, config, frame_count=shown, video_frames=prediction.frame_count)
        score = task_score(prediction.tracks, prediction.frame_count, window)
        new = to_prediction(results, prediction.model_version, score)
        keep = partial(self.sent.keep_replaced, payload.project_id, payload.task_id)
        return self.maker.label_studio.push(
            payload.project_id, payload.task_id, new, key, kind=PROPAGATE, keep=keep
        )

    def _from_event(
        self, payload: PropagatePayload
    ) -> tuple[PropagatePayload, list[Region], list[Region], str]:
        """Return what to propagate from a submitted annotation, its regions, those it came from, and its annotator."""
        found = self.events.find(after=(payload.event or 0) - 1, limit=1)
        if not found or found[0].id != payload.event:
            raise SvacError("The webhook of this job is not in the database.", "Submit the annotation again.")
        annotation = found[0].body.get("annotation")
        now = annotation.get("result") if isinstance(annotation, Mapping) else None
        if not isinstance(annotation, Mapping) or not isinstance(now, list):
            raise SvacError("The webhook has no annotation.", "Submit the annotation again.")
        if annotation.get("was_cancelled"):
            return payload, now, [], NOBODY  # the task was skipped: its regions do not count
        now = regions_of(now)
        client = self.maker.label_studio.client(payload.project_id)
        replaced = self.sent.replaced(payload.project_id, payload.task_id)
        predictions = predictions_before(client, payload.task_id, annotation, replaced)
        results = [item["result"] for item in predictions]
        parent = parent_of(annotation, predictions)
        read = read_annotation(
            now,
            results,
            self.sent.find(payload.project_id, payload.task_id, person_of(annotation)),
            self.objects.find(payload.project_id, video_name(payload.video)),
            payload.task_data,
            cached_config(payload.label_config),
            parent=None if parent is None else parent["result"],
        )
        read.check_size(now)
        if read.canvas is None:
            return payload, now, [], NOBODY
        hints = read.corrections.to_propagate()
        objects = tuple(one for one in read.corrections.objects if one.object_id in hints)
        payload = replace(payload, objects=objects, hints=hints, size=read.canvas.size)
        return payload, now, read.corrections.sent, person_of(annotation)


def _summary(objects: int, frames: int) -> str:
    plural = "" if objects == 1 else "s", "" if frames == 1 else "s"
    return f"{objects} object{plural[0]} from what was shown on {frames} frame{plural[1]}"


def scaled(hints: FrameHints, size: tuple[int, int], info: VideoInfo) -> FrameHints:
    """Return frame hints in pixels of the video: the editor's frames may be smaller.

    Raises:
        SvacError: a mask was drawn on frames of another size.
    """
    if size == (info.width, info.height):
        return hints
    return {
        object_id: {frame: _scaled(hint, size, info) for frame, hint in shown.items()}
        for object_id, shown in hints.items()
    }


def _scaled(hint: FrameHint, size: tuple[int, int], info: VideoInfo) -> FrameHint:
    if hint.mask is not None:
        raise SvacError(
            f"The editor's frames have {size[0]}x{size[1]} pixels, but the video {info.width}x{info.height}.",
            "Make the task's frames from the video, as `svac-backend import` does.",
        )
    x, y = info.width / size[0], info.height / size[1]
    clicks = tuple(Click(click.x * x, click.y * y, click.positive) for click in hint.clicks)
    box = hint.box
    return FrameHint(
        clicks=clicks, box=None if box is None else (box[0] * x, box[1] * y, box[2] * x, box[3] * y)
    )
