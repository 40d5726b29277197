"""Sending a prediction together with what an annotator had: other objects, and the frames that he corrected."""

from __future__ import annotations

from collections.abc import Sequence

from svac_backend.errors import SvacError
from svac_backend.jobs.label_studio import LabelStudioAccess
from svac_backend.jobs.payloads import TaskPayload
from svac_backend.jobs.rendering import cached_config, merge, task_score
from svac_backend.labelstudio.results import to_prediction, validate_results
from svac_backend.labelstudio.sending import Region
from svac_backend.labelstudio.windows import window_of
from svac_backend.masks.prompts import Prompts
from svac_backend.settings import Settings
from svac_backend.store.predictions import Prediction
from svac_backend.store.sent import SentStore


def push_merged(
    label_studio: LabelStudioAccess,
    settings: Settings,
    payload: TaskPayload,
    prediction: Prediction,
    now: Sequence[Region],
    corrected: Prompts,
    sent: Sequence[Region] = (),
) -> tuple[int, bool]:
    """Attach a prediction to its task that holds what the annotator had, but for the objects that were predicted anew.

    Returns:
        The prediction's id, and whether it is new.

    Raises:
        SvacError: the config can't show it, or Label Studio refuses.
    """
    config, window = cached_config(payload.label_config), window_of(payload.task_data)
    controls = {name for one in config.drawing_controls() for name in (one.name, one.labels_name)}
    # What else is there steers the model, or is text: no part of a prediction.
    masks = [region for region in now if region.get("from_name") in controls]
    results = merge(prediction, payload.label_config, settings, masks, corrected, sent=sent, window=window)
    shown = prediction.frame_count if window is None else window.count
    had = {(region.get("id"), region.get("from_name")): region for region in masks}
    made = [region for region in results if had.get((region.get("id"), region.get("from_name"))) != region]
    validate_results(made, config, frame_count=shown, video_frames=prediction.frame_count)
    score = task_score(prediction.tracks, prediction.frame_count, window)
    return label_studio.push(payload, to_prediction(results, prediction.model_version, score))


def snapshot_of(store: SentStore, number: int) -> list[Region]:
    """Return what an annotator had when he asked.

    Raises:
        SvacError: he asked so often since that it is not kept any more.
    """
    found = store.snapshot(number)
    if found is None:
        raise SvacError(
            "The annotator asked several times since, so this result is out of date.",
            "Open the task: the latest one is there.",
        )
    return found
