"""Predictions as Label Studio results for a project's config, made once. Free of torch: both processes use it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import SHOWN_KINDS, BoxTracks, LabelConfig, MaskControl, cached_config
from svac_backend.labelstudio.regions.merge import merge_results
from svac_backend.labelstudio.regions.outlines import tracks_to_outlines
from svac_backend.labelstudio.regions.rectangles import tracks_to_boxes
from svac_backend.labelstudio.regions.region import Canvas, Region, RegionOptions, Results
from svac_backend.labelstudio.regions.written import tracks_to_results, validate_results
from svac_backend.labelstudio.tasks import WINDOW_KEY, Window, shown_frames, window_of
from svac_backend.masks.flags import frame_certainty, worst_stretch
from svac_backend.masks.hints import FrameHints
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.store.predictions import Prediction, PredictionStore

# The frame rate that the editor assumes if the config names none.
EDITOR_FPS = 24.0

# Before each request, and on Submit, the editor encodes all brush masks again: 0.11 s for one of 1280x720 pixels, 0.04
# s for a small one. Beyond these numbers the page would freeze for more than 5 s; a polygon takes 0.007 s.
BRUSH_MASKS, BRUSH_PIXELS = 100, 40e6

log = logging.getLogger(__name__)


def config_key(label_config: str, settings: Settings, window: Window | None = None) -> str:
    """Return the key of a way to show predictions, 64 hex digits."""
    options = [
        settings.polygon_tolerance_px,
        settings.polygon_iou_floor,
        settings.min_area_px,
        settings.send_every,
        settings.send_below_score,
        BRUSH_MASKS,
        BRUSH_PIXELS,
        window and window.to_json(),
    ]
    return hashlib.sha256(json.dumps([label_config, options]).encode()).hexdigest()


def task_score(tracks: Sequence[Track], frame_count: int, window: Window | None = None) -> float:
    """Return a task's score, 0..1, for the Data Manager: low if any stretch of its frames needs a look.

    It is the lowest mean over 10 neighbouring frames that the task shows; a frame scores as its most doubtful object,
    see `masks.flags`. 0.0 if there was nothing to score.
    """
    shown = shown_frames(frame_count, window)
    return worst_stretch(list(frame_certainty(tracks, shown).values()))


def frames_to_send(
    tracks: Sequence[Track], frame_count: int, settings: Settings, window: Window | None = None
) -> set[int] | None:
    """Return the video's frames whose regions the settings want sent; None for all.

    Key frames (`send_every`) and frames below the score (`send_below_score`) add up. With either, the first frame on
    which the task shows an object is sent, too, so that an annotator has every object to work with.
    """
    if settings.send_every == 1 and settings.send_below_score is None:
        return None
    shown = shown_frames(frame_count, window)
    frames = {next((frame for frame in shown if frame in track.masks), -1) for track in tracks} - {-1}
    if settings.send_every > 1:
        frames.update(shown[:: settings.send_every])
    if settings.send_below_score is not None:
        certainty = frame_certainty(tracks, shown)
        frames.update(frame for frame, value in certainty.items() if value < settings.send_below_score)
    return frames


def brush_masks(width: int, height: int) -> int:
    """Return how many brush masks of that size, in pixels, a task may have before its page freezes."""
    return max(1, min(BRUSH_MASKS, int(BRUSH_PIXELS / (width * height))))


def choose_control(
    config: LabelConfig,
    tracks: Sequence[Track],
    window: Window | None = None,
    frames: set[int] | None = None,
    *,
    others: int = 0,
) -> MaskControl:
    """Return the control to show tracks with: brush, but polygons for many masks if the config has both.

    Args:
        config: the project's labelling config.
        tracks: what is shown.
        window: which of the video's frames the task shows; None for all.
        frames: which of these frames are sent; None for all.
        others: how many other brush masks the task shows.

    Raises:
        SvacError: the config cannot show masks.
    """
    control = config.mask_control()
    shown = [
        mask["size"]
        for track in tracks
        for frame, mask in track.masks.items()
        if (window is None or window.item(frame) is not None) and (frames is None or frame in frames)
    ]
    count = others + len(shown)
    if control.kind != "brush" or not shown or count <= brush_masks(shown[0][1], shown[0][0]):
        return control
    try:
        polygons = config.mask_control("polygon")
    except SvacError:
        log.warning("%d brush masks: the editor will be slow; add <PolygonLabels> to the config", count)
        return control
    return polygons if all(track.label in polygons.labels for track in tracks) else control


def check_frames(task_data: Mapping[str, Any], label_config: str, frame_count: int) -> None:
    """Check that a task's frames match its video, or its window of the video.

    Masks on frames that the task does not have are worse than none: the editor could never submit the task. A task
    without frames passes: they will be cut from the video.

    Raises:
        SvacError: there are too many or too few frames, or the window reaches beyond the video.
    """
    window = window_of(task_data)
    if window is not None and window.frame(window.count - 1) >= frame_count:
        raise SvacError(
            f"The task shows frames up to {window.frame(window.count - 1)}, but its video has {frame_count}.",
            f"Correct '{WINDOW_KEY}' in the task's data, or import the video again.",
        )
    tag = cached_config(label_config).frames
    frames = task_data.get(tag.key) if tag else None
    if tag is None or not frames:
        return
    count = len(frames) if isinstance(frames, list) else 1
    expected = frame_count if window is None else window.count
    if count != expected:
        its = "its video has" if window is None else f"its '{WINDOW_KEY}' says"
        raise SvacError(
            f"The task has {count} frames under '{tag.key}', but {its} {expected}.",
            f"Remove '{tag.key}' from the task's data to have the frames made from the video, or make the task with "
            "`svac-backend import`.",
        )


def render(
    prediction: Prediction, label_config: str, settings: Settings, *, window: Window | None = None
) -> list[Region]:
    """Return a prediction's results, checked against the config.

    Args:
        prediction: the prediction for the whole video.
        label_config: the project's labelling config; if it has an overview (`LabelConfig.overview`), boxes are added.
        settings: how polygons are made, and which frames are sent.
        window: which frames the task shows; None for all.

    Raises:
        SvacError: the config cannot show the tracks.
    """
    config = cached_config(label_config)
    frames = frames_to_send(prediction.tracks, prediction.frame_count, settings, window)
    results = tracks_to_results(
        prediction.tracks,
        choose_control(config, prediction.tracks, window, frames),
        Canvas(prediction.width, prediction.height, window),
        RegionOptions.of(settings, frames),
    )
    results += _overview(prediction, config, settings)
    shown = prediction.frame_count if window is None else window.count
    validate_results(results, config, frame_count=shown, video_frames=prediction.frame_count)
    return results


def merge(
    prediction: Prediction,
    label_config: str,
    settings: Settings,
    now: Results,
    corrected: FrameHints,
    *,
    sent: Results = (),
    window: Window | None = None,
) -> list[Region]:
    """Return an annotation's results with everything predicted again except what a person made.

    Args:
        prediction: made with the corrections.
        label_config, settings, window: as in `render`. Masks use the same control as the ones sent before.
        now: what the annotation holds.
        corrected: see `regions.merge.corrected_hints`.
        sent: what the editor was sent last.

    Raises:
        SvacError: the config cannot show a track, or a region is malformed.
    """
    config = cached_config(label_config)
    frames = frames_to_send(prediction.tracks, prediction.frame_count, settings, window)
    control = control_of(sent or now, config) or choose_control(config, prediction.tracks, window, frames)
    return merge_results(
        now,
        prediction.tracks,
        corrected,
        config,
        Canvas(prediction.width, prediction.height, window),
        control=control,
        sent=sent,
        boxes=_overview(prediction, config, settings),
        options=RegionOptions.of(settings, frames),
    )


def rendered(
    store: PredictionStore, key: str, label_config: str, settings: Settings, task_data: Mapping[str, Any]
) -> tuple[bytes, float] | None:
    """Return a cached prediction's results for a task as JSON text, and the task's score; None if not cached.

    Raises:
        SvacError: the config cannot show them, or the task's frames do not match the video.
    """
    summary = store.summary(key)
    if summary is None:
        return None
    check_frames(task_data, label_config, summary[1])
    window = window_of(task_data)
    name, score_name = config_key(label_config, settings, window), _score_key(window)
    text, score = store.rendering(key, name), store.rendering(key, score_name)
    if text is not None and score is not None:
        return text, float(json.loads(score)[0]["score"])
    prediction = store.get(key)
    if prediction is None:
        return None
    if text is None:
        results = render(prediction, label_config, settings, window=window)
        store.put_rendering(key, name, results)
        text = json.dumps(results, separators=(",", ":")).encode()
    value = task_score(prediction.tracks, prediction.frame_count, window)
    store.put_rendering(key, score_name, [{"score": value}])
    return text, value


def _score_key(window: Window | None) -> str:
    """Return the key of a task's score, kept beside its results: reading the tracks for it would take too long."""
    return hashlib.sha256(json.dumps(["score", window and window.to_json()]).encode()).hexdigest()


def _overview(prediction: Prediction, config: LabelConfig, settings: Settings) -> list[Region]:
    """Return boxes around the masks, and their outlines, over the whole video, if the config asks for them."""
    canvas, options = Canvas(prediction.width, prediction.height), RegionOptions.of(settings)
    fps, count = prediction.fps, prediction.frame_count
    found: list[Region] = []
    if config.overview is not None and _plays_right(prediction, config, config.overview):
        found += tracks_to_boxes(
            prediction.tracks, config.overview, canvas, options, fps=fps, frame_count=count
        )
    if config.outlines is not None and _plays_right(prediction, config, config.outlines):
        found += tracks_to_outlines(
            prediction.tracks, config.outlines, canvas, options, fps=fps, frame_count=count
        )
    return found


def _plays_right(prediction: Prediction, config: LabelConfig, control: BoxTracks) -> bool:
    """Whether the config plays the video at its frame rate; otherwise boxes would lie on the wrong frames."""
    video = next((video for video in config.videos if video.name == control.to_name), None)
    fps = prediction.fps
    if video is not None and video.fps_key is None:
        fps = _number(video.framerate)
    if abs(fps - prediction.fps) > 0.01 * prediction.fps:
        log.warning(
            'no boxes on the video: the config plays it at %g frames per second, it has %g; write framerate="$fps"',
            fps,
            prediction.fps,
        )
        return False
    return True


def _number(framerate: str | None) -> float:
    try:
        return float(framerate) if framerate else EDITOR_FPS
    except ValueError:
        return EDITOR_FPS


def control_of(results: Results, config: LabelConfig, labels: Collection[str] = ()) -> MaskControl | None:
    """Return the control that drew most regions, among those that this backend writes and that have these labels.

    It is used again, so that a mask does not change from brush to polygon while somebody works on it.
    """
    controls = {
        control.name: control
        for control in config.drawing_controls()
        if control.kind in SHOWN_KINDS and control.labels.keys() >= set(labels)
    }
    used = Counter(name for region in results if (name := region.get("from_name")) in controls)
    return controls[used.most_common(1)[0][0]] if used else None
