"""Tracks as Label Studio regions, and the check that the editor will show them.

Label Studio stores whatever it gets, and its editor silently drops what it cannot show. So every region is checked
against the labelling config before it is sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import SHOWN_KINDS, LabelConfig, MaskControl, says_something
from svac_backend.labelstudio.regions.outlines import outline_problem
from svac_backend.labelstudio.regions.rectangles import boxes_problem
from svac_backend.labelstudio.regions.region import DEFAULT_OPTIONS, Canvas, Region, RegionName, RegionOptions
from svac_backend.masks.polygons import mask_to_polygons, polygons_to_mask
from svac_backend.masks.rle import area, encode_brush, from_coco
from svac_backend.masks.tracks import Track


def tracks_to_results(
    tracks: Iterable[Track],
    control: MaskControl,
    canvas: Canvas,
    options: RegionOptions = DEFAULT_OPTIONS,
) -> list[Region]:
    """Return one region for each mask (for a polygon control: for each part of it), by frame, then by track.

    Args:
        tracks: masks of the canvas's size.
        control: a brush or polygon control, see `LabelConfig.mask_control`.
        canvas: the task's frames.
        options: which masks get regions, and how polygons are made.

    Returns:
        Label Studio results. The id holds the video's 0-based frame, `item_index` is the frame's place in the task,
        `score` is the frame's score, and `meta` holds the object's expression.

    Raises:
        SvacError: a track's label is not in the control, or a mask has another size.
    """
    if control.kind not in SHOWN_KINDS:
        raise SvacError(
            f"Masks cannot be written for a {control.kind} control.", "Use BrushLabels or PolygonLabels."
        )
    tracks = list(tracks)
    for track in tracks:
        if track.label not in control.labels:
            raise SvacError(
                f"The label '{track.label}' of {track.object_id} is not in the control '{control.name}'.",
                f"Use one of {', '.join(control.labels)}.",
            )
    results: list[Region] = []
    for frame in sorted({frame for track in tracks for frame in track.masks}):
        item = canvas.item(frame)
        if item is None or (options.frames is not None and frame not in options.frames):
            continue
        for track in tracks:
            rle = track.masks.get(frame)
            if rle is None:
                continue
            if list(rle["size"]) != [canvas.height, canvas.width]:
                raise SvacError(
                    f"The mask of {track.object_id} on frame {frame} has {rle['size'][1]}x{rle['size'][0]} pixels, "
                    f"but the video {canvas.width}x{canvas.height}.",
                    "Segment the video again; its masks belong to another file.",
                )
            if area(rle) < max(options.min_area_px, 1):
                continue
            base = {
                "to_name": control.to_name,
                "origin": "prediction",
                # Without these sizes, Submit on brush masks silently does nothing.
                "original_width": canvas.width,
                "original_height": canvas.height,
                "image_rotation": 0,
                "item_index": item,
                "score": round(float(track.scores.get(frame, 0.0)), 4),
            }
            if says_something(track.expression):
                # The editor shows it beside the selected region.
                base["meta"] = {"text": [track.expression]}
            for part, value in enumerate(_values(from_coco(rle), control.kind, options), start=1):
                name = RegionName(track.object_id, frame, part=part)
                results.extend(_regions(base, control, str(name), value, track.label))
    return results


def to_prediction(
    results: Sequence[Region], model_version: str, score: float | None = None
) -> dict[str, Any]:
    """Return a prediction: its regions, its score, the model version.

    Args:
        score: the task's score, 0..1; the Data Manager sorts by it. By default the mean of the regions' scores, 0.0
            without regions.
    """
    if score is None:
        scores = [float(region["score"]) for region in results if region.get("score") is not None]
        score = math.fsum(scores) / len(scores) if scores else 0.0
    return {"result": list(results), "score": round(score, 4), "model_version": model_version}


def validate_results(
    results: Any,
    config: LabelConfig,
    *,
    frame_count: int | None = None,
    video_frames: int | None = None,
) -> None:
    """Check that the editor of a project with this config shows every region.

    Args:
        results: a prediction's `result`.
        config: the project's labelling config.
        frame_count: frames of the task, to check `item_index` against; not checked if None.
        video_frames: frames of the video, to check `VideoRectangle` regions against; not checked if None.

    Raises:
        SvacError: names the first region that would not be shown, and why.
    """
    if not isinstance(results, list):
        raise SvacError("A prediction's result is not a list.", "Send a list of regions.")
    controls = {control.name: control for control in config.controls}
    controls |= {control.labels_name: control for control in config.controls if control.labels_name}
    boxes = {control.name: control for control in config.box_tracks}
    seen: set[tuple[str, str]] = set()
    for position, region in enumerate(results):
        if not isinstance(region, Mapping):
            raise SvacError(f"Region {position} is not an object.", "Send a list of regions.")
        if region.get("from_name") in boxes and region.get("from_name") not in controls:
            control = boxes[str(region["from_name"])]
            find = outline_problem if control.outlines else boxes_problem
            problem = find(region, control, video_frames)
        else:
            problem = _problem(region, controls, config, frame_count)
        key = (str(region.get("id")), str(region.get("from_name")))
        if problem is None and key in seen:
            problem = "another region has the same id"
        seen.add(key)
        if problem is not None:
            raise SvacError(
                f"Region {position} ('{region.get('id')}') would not be shown: {problem}.",
                "Correct the prediction or the project's labelling config.",
            )


def _values(mask: NDArray[np.bool_], kind: str, options: RegionOptions) -> list[Region]:
    """Return the `value`s that draw a mask [H, W]: one for a brush, one for each ring of a polygon."""
    if kind == "brush":
        return [{"format": "rle", "rle": encode_brush(mask)}]
    height, width = mask.shape
    values: list[Region] = []
    for tolerance in (options.tolerance_px, 0.0):
        rings = mask_to_polygons(mask, tolerance_px=tolerance, iou_floor=options.iou_floor)
        values = [{"points": _percent(ring, width, height), "closed": True} for ring in rings]
        # Rounding to the digits that are sent may move an edge across a pixel's centre, unless it runs between pixels.
        drawn = polygons_to_mask(
            [np.array(value["points"]) / 100 * (width, height) for value in values], height, width
        )
        if np.count_nonzero(drawn & mask) >= options.iou_floor * np.count_nonzero(drawn | mask):
            break
    return values


def _percent(ring: NDArray[np.float64], width: int, height: int) -> list[list[float]]:
    """Convert pixels [N, 2] to percent of the frame, within 0..100."""
    points = np.clip(ring / np.array([width, height]) * 100.0, 0.0, 100.0)
    return np.round(points, 4).tolist()


def _regions(base: Region, control: MaskControl, id_: str, value: Region, label: str) -> list[Region]:
    kind = f"{control.kind}labels"
    if control.labels_name is None:
        return [
            {"id": id_, "from_name": control.name, "type": kind, "value": {**value, kind: [label]}, **base}
        ]
    # A pair <Brush/> + <Labels/> stores the drawing and its label as two results with one id.
    return [
        {"id": id_, "from_name": control.name, "type": control.kind, "value": value, **base},
        {
            "id": id_,
            "from_name": control.labels_name,
            "type": "labels",
            "value": {**value, "labels": [label]},
            **base,
        },
    ]


def _problem(
    region: Mapping[str, Any],
    controls: Mapping[str, MaskControl],
    config: LabelConfig,
    frame_count: int | None,
) -> str | None:
    """Return why the editor would not show a region, or None."""
    from_name = region.get("from_name")
    control = controls.get(str(from_name))
    if not isinstance(region.get("id"), str) or not region["id"]:
        return "it has no id"
    if control is None:
        return f"the config has no mask control '{from_name}' (from_name)"
    if control.kind not in SHOWN_KINDS:
        return f"this backend does not write {control.kind} masks"
    if (
        config.frames is None
        or region.get("to_name") != config.frames.name
        or control.to_name != config.frames.name
    ):
        return f"'{region.get('to_name')}' (to_name) is not the frames that '{from_name}' draws on"
    expected = _expected_type(control, str(from_name))
    if region.get("type") != expected:
        return f"its type is '{region.get('type')}', not '{expected}'"
    for size in ("original_width", "original_height"):
        if not _is_int(region.get(size)) or region[size] < 1:
            return f"{size} is missing or not a positive integer"
    frame = region.get("item_index")
    if not _is_int(frame) or frame < 0:  # type: ignore[operator]
        return "item_index is missing or not a frame number from 0 on"
    if frame_count is not None and frame >= frame_count:  # type: ignore[operator]
        return f"item_index {frame} is beyond the last frame {frame_count - 1}"
    score = region.get("score")
    if score is not None and not (_is_number(score) and 0 <= score <= 1):
        return "its score is not between 0 and 1"
    value = region.get("value")
    if not isinstance(value, Mapping):
        return "it has no value"
    return _label_problem(value, control, expected) or _shape_problem(value, control.kind)


def _expected_type(control: MaskControl, from_name: str) -> str:
    if control.labels_name is None:
        return f"{control.kind}labels"
    return "labels" if from_name == control.labels_name else control.kind


def _label_problem(value: Mapping[str, Any], control: MaskControl, expected: str) -> str | None:
    if not expected.endswith("labels"):
        return None
    labels = value.get(expected)
    if not isinstance(labels, list) or not labels:
        return f"it has no {expected}"
    unknown = next((label for label in map(str, labels) if label not in control.labels), None)
    if unknown is not None:
        return f"'{control.name}' has no label '{unknown}', only {', '.join(control.labels)}"
    return None


def _shape_problem(value: Mapping[str, Any], kind: str) -> str | None:
    if kind == "brush":
        rle = value.get("rle")
        if value.get("format") != "rle" or not isinstance(rle, list) or not rle:
            return "its brush mask is not in the format 'rle'"
        # A mask has thousands of bytes: one pass in C instead of a Python check for each byte.
        try:
            bytes(rle)
        except (TypeError, ValueError):
            return "its RLE holds something other than bytes"
        return None
    points = value.get("points")
    if not isinstance(points, list) or len(points) < 3:
        return "a polygon needs at least three points"
    for point in points:
        if not isinstance(point, list | tuple) or len(point) != 2 or not all(_is_number(c) for c in point):
            return "a polygon's point is not a pair of numbers"
        if not all(0 <= coordinate <= 100 for coordinate in point):
            return f"the point {list(point)} is not within 0..100 percent"
    return None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
