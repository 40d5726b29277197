"""Predictions as Label Studio results for a project's config, made once. Torch-free: both processes do it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import LabelConfig, MaskControl, parse_config
from svac_backend.labelstudio.results import tracks_to_results, validate_results
from svac_backend.masks.tracks import Track, frames_with_masks
from svac_backend.settings import Settings
from svac_backend.store.predictions import Prediction, PredictionStore

# Submitting a brush mask costs the editor 0.11 s, a polygon 0.007 s: beyond this it would hang for long.
BRUSH_FRAMES = 100

log = logging.getLogger(__name__)


@lru_cache(maxsize=64)
def cached_config(label_config: str) -> LabelConfig:
    """Return `parse_config` of it, remembered: every /predict carries the config."""
    return parse_config(label_config)


def config_key(label_config: str, settings: Settings) -> str:
    """Return what names a way to show predictions, 64 hex digits."""
    options = [settings.polygon_tolerance_px, settings.polygon_iou_floor, settings.min_area_px, BRUSH_FRAMES]
    return hashlib.sha256(json.dumps([label_config, options]).encode()).hexdigest()


def choose_control(config: LabelConfig, tracks: Sequence[Track]) -> MaskControl:
    """Return the control to show tracks with: brush, but polygons for a long video where the config has both.

    Raises:
        SvacError: the config can show no masks.
    """
    control = config.mask_control()
    if control.kind != "brush" or len(frames_with_masks(tracks)) <= BRUSH_FRAMES:
        return control
    try:
        polygons = config.mask_control("polygon")
    except SvacError:
        log.warning(
            "%d frames of brush masks: the editor will be slow; add <PolygonLabels> to the config",
            len(frames_with_masks(tracks)),
        )
        return control
    return polygons if all(track.label in polygons.labels for track in tracks) else control


def check_frames(task_data: Mapping[str, Any], label_config: str, frame_count: int) -> None:
    """Check that a task's frames are those of its video.

    Masks for frames that the task does not have are worse than none: the editor can then never submit the task. A task
    without frames passes: they will be cut from the video.

    Raises:
        SvacError: there are more or fewer.
    """
    tag = cached_config(label_config).frames
    frames = task_data.get(tag.key) if tag else None
    if tag is None or not frames:
        return
    count = len(frames) if isinstance(frames, list) else 1
    if count != frame_count:
        raise SvacError(
            f"The task has {count} frames under '{tag.key}', its video has {frame_count}.",
            f"Remove '{tag.key}' from the task's data, and the frames are made from the video; or make the task with "
            "`svac-backend import`.",
        )


def render(prediction: Prediction, label_config: str, settings: Settings) -> list[dict[str, Any]]:
    """Return a prediction's results, checked against the config.

    Raises:
        SvacError: the config can't show them.
    """
    config = cached_config(label_config)
    results = tracks_to_results(
        prediction.tracks,
        choose_control(config, prediction.tracks),
        width=prediction.width,
        height=prediction.height,
        tolerance_px=settings.polygon_tolerance_px,
        iou_floor=settings.polygon_iou_floor,
        min_area_px=settings.min_area_px,
    )
    validate_results(results, config, frame_count=prediction.frame_count)
    return results


def rendered(
    store: PredictionStore, key: str, label_config: str, settings: Settings, task_data: Mapping[str, Any]
) -> tuple[bytes, float] | None:
    """Return a cached prediction's results as JSON text and its score; None when there is no such prediction.

    Raises:
        SvacError: the config can't show them, or the task has other frames than the video.
    """
    summary = store.summary(key)
    if summary is None:
        return None
    score, frame_count = summary
    check_frames(task_data, label_config, frame_count)
    name = config_key(label_config, settings)
    text = store.rendering(key, name)
    if text is None:
        prediction = store.get(key)
        if prediction is None:
            return None
        results = render(prediction, label_config, settings)
        store.put_rendering(key, name, results)
        text = json.dumps(results, separators=(",", ":")).encode()
    return text, score
