"""Boxes that follow an object through the video: tracks as `VideoRectangle` results, and back.

Label Studio's editor shows such a region from its first keyframe on. Between two keyframes x, y, width and height
change linearly. A keyframe with `enabled: false` is the last frame that shows the region, until the next keyframe.
(From the source of the editor 1.23.2, `isInLifespan` and `getShape` of its video regions.)
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import BoxTracks, LabelConfig
from svac_backend.labelstudio.regions.region import DEFAULT_OPTIONS, Canvas, Region, RegionOptions, region_id
from svac_backend.labelstudio.regions.shapes import box_corners, close
from svac_backend.labelstudio.tasks import Window
from svac_backend.masks.limits import MAX_FRAMES, MaskRoom
from svac_backend.masks.polygons import polygons_to_mask
from svac_backend.masks.rle import area, bounding_box, box_mask, to_coco
from svac_backend.masks.tracks import CocoRle, Track
from svac_backend.video.source import FrameIndex

KIND = "videorectangle"
_SUFFIX = "-boxes"
# The type of outlines on the video, see `outlines`.
OUTLINE_KIND, OUTLINE_SUFFIX = "videovectorlabels", "-outline"
_SHAPE = ("x", "y", "width", "height", "rotation")
# The fields of a keyframe that say where the object is.
Shape = TypeVar("Shape")


@dataclass
class BoxTrack:
    """A `VideoRectangle` region.

    Attributes:
        object_id: the object whose masks this backend made it from; None if a person drew it.
        label: its label, or None.
        masks: the video's 0-based frame -> the filled box.
    """

    object_id: str | None
    label: str | None
    masks: dict[int, CocoRle] = field(default_factory=dict)


def tracks_to_boxes(
    tracks: Iterable[Track],
    control: BoxTracks,
    canvas: Canvas,
    options: RegionOptions = DEFAULT_OPTIONS,
    *,
    fps: float,
    frame_count: int,
    tolerance_px: float = 2.0,
) -> list[Region]:
    """Return one `VideoRectangle` result for each track that has masks, id `<object_id>-boxes`.

    Args:
        tracks: masks of the canvas's size, on frames of the whole video.
        control: the overview, see `LabelConfig.overview`; tracks whose label it lacks get no boxes.
        canvas: only its size is used, not its window.
        options: masks of fewer pixels than `min_area_px` count as absent.
        fps: frames per second, as in the config's `<Video framerate>`.
        frame_count: frames of the video.
        tolerance_px: how far an edge of a box between two keyframes may be off.

    Raises:
        SvacError: a track has a mask beyond the video's last frame.
    """
    times = frame_times(frame_count, fps)
    least = max(options.min_area_px, 1)
    results = []
    for track in tracks:
        masks = {frame: rle for frame, rle in sorted(track.masks.items()) if area(rle) >= least}
        if not masks or track.label not in control.labels:
            continue
        sequence = []
        for run in runs_of(list(masks)):
            boxes = np.array([bounding_box(masks[frame]) for frame in run], dtype=np.float64)
            for at in _keyframes(boxes, tolerance_px):
                number, time = times.to_label_studio(run[at], fps)
                percent = boxes[at] / (canvas.size * 2) * 100
                box = dict(zip(_SHAPE, [*np.round(percent, 4).tolist(), 0], strict=True))
                enabled = at < len(run) - 1 or run[at] == frame_count - 1
                sequence.append({"frame": number, "enabled": enabled, **box, "time": time})
        results.append(
            {
                "id": f"{track.object_id}{_SUFFIX}",
                "from_name": control.name,
                "to_name": control.to_name,
                "type": KIND,
                "origin": "prediction",
                "score": round(track.score, 4),
                "value": {
                    "framesCount": frame_count,
                    "duration": frame_count / fps,
                    "labels": [track.label],
                    "sequence": sequence,
                },
            }
        )
    return results


def is_overview(region: Mapping[str, Any]) -> bool:
    """Return whether a result is a `VideoRectangle`, or an outline on the video, that this backend made from masks."""
    suffix = {KIND: _SUFFIX, OUTLINE_KIND: OUTLINE_SUFFIX}.get(str(region.get("type")))
    return suffix is not None and str(region.get("id", "")).endswith(suffix)


def same_boxes(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two states of a region that follows an object have the same keyframes and shapes."""
    first, second = _keyframes_of(one), _keyframes_of(other)
    return len(first) == len(second) and all(
        a[:2] == b[:2] and len(a) == len(b) and close(a[2:], b[2:])
        for a, b in zip(first, second, strict=True)
    )


def box_tracks(results: Iterable[Mapping[str, Any]], config: LabelConfig, canvas: Canvas) -> list[BoxTrack]:
    """Return the `VideoRectangle` regions of an annotation, on every frame of the task where the editor shows them.

    A region's own count of the video's frames is only the editor's estimate.

    Raises:
        SvacError: a region is malformed.
    """
    controls = {(boxes.name, boxes.to_name) for boxes in config.box_tracks if not boxes.outlines}
    found = []
    room = MaskRoom()
    for region in results:
        if (region.get("from_name"), region.get("to_name")) not in controls or region.get("type") != KIND:
            continue
        try:
            track = _box_track(region)
            for frame, box in _shown(region["value"], canvas.window):
                track.masks[frame] = _filled(box, *canvas.size)
                room.take(len(track.masks[frame]["counts"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SvacError(
                f"The boxes '{region.get('id')}' are malformed ({type(error).__name__}).",
                "Draw them again in the editor, or take the result unchanged from Label Studio.",
            ) from error
        found.append(track)
    return found


def boxes_problem(region: Mapping[str, Any], control: BoxTracks, frame_count: int | None) -> str | None:
    """Say why the editor would not show a `VideoRectangle` region; None if it would."""
    value = region.get("value")
    if region.get("type") != KIND or region.get("to_name") != control.to_name:
        return f"it is not a {KIND} on '{control.to_name}'"
    if not isinstance(value, Mapping) or not value.get("sequence"):
        return "its sequence has no keyframe"
    labels = value.get("labels")
    if not isinstance(labels, list) or not labels or any(label not in control.labels for label in labels):
        return f"its labels are not among {', '.join(control.labels)}"
    return frames_problem(_shown(value, None), frame_count)


def frames_problem(shown: Iterator[tuple[int, Any]], frame_count: int | None) -> str | None:
    """Say what is wrong with the frames that a region is shown on; None if nothing is."""
    try:
        frames = [frame for frame, _ in shown]
    except (KeyError, TypeError, ValueError, OverflowError, SvacError):
        return "its sequence is malformed"
    if frame_count is not None and max(frames, default=0) >= frame_count:
        return f"it is shown beyond the last frame {frame_count - 1}"
    return None


def _keyframes_of(region: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    value = region.get("value")
    sequence = value.get("sequence", []) if isinstance(value, Mapping) else []
    return [
        (
            keyframe.get("frame"),
            keyframe.get("enabled", True),
            *(float(keyframe.get(key) or 0.0) for key in _SHAPE),
            *(float(point.get(key) or 0.0) for point in keyframe.get("vertices", ()) for key in "xy"),
        )
        for keyframe in sequence
    ]


def frame_times(frame_count: int, fps: float) -> FrameIndex:
    """Return the index of a video with evenly spaced frames, as the editor assumes."""
    return FrameIndex(tuple(range(frame_count)), 1 / Fraction(fps))


def runs_of(frames: Sequence[int]) -> list[list[int]]:
    """Split ascending frames into runs without gaps."""
    runs = [[frames[0]]]
    for before, frame in pairwise(frames):
        if frame == before + 1:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    return runs


def _keyframes(boxes: NDArray[np.float64], tolerance_px: float) -> list[int]:
    """Return those rows of x, y, width, height [N, 4] that the others lie on lines between, within the tolerance.

    A line is split where it is farthest off, as in Douglas and Peucker (1973).
    """
    edges = np.column_stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    kept = {0, len(edges) - 1}
    open_ = [(0, len(edges) - 1)]
    while open_:
        first, last = open_.pop()
        if last - first < 2:
            continue
        share = np.arange(1, last - first)[:, None] / (last - first)
        line = edges[first] + share * (edges[last] - edges[first])
        off = np.abs(edges[first + 1 : last] - line).max(axis=1)
        if off.max() > tolerance_px:
            middle = first + 1 + int(off.argmax())
            kept.add(middle)
            open_ += [(first, middle), (middle, last)]
    return sorted(kept)


def _box_track(region: Mapping[str, Any]) -> BoxTrack:
    id_, labels = region_id(region), region["value"].get("labels")
    label = str(labels[0]) if isinstance(labels, list) and labels else None
    return BoxTrack(id_.removesuffix(_SUFFIX) if id_.endswith(_SUFFIX) else None, label)


def between_keyframes(
    value: Mapping[str, Any], window: Window | None, shape_of: Callable[[Mapping[str, Any]], Shape]
) -> Iterator[tuple[int, Mapping[str, Any], Shape, Shape | None, float]]:
    """Yield the 0-based frames on which the editor shows a region, within the task's window.

    With each frame come the keyframe that holds there, its shape, the next keyframe's shape (None if nothing moves),
    and how far the frame is on the way there, 0..1.
    """
    last = max(int(keyframe["frame"]) for keyframe in value["sequence"])
    count = max(int(value.get("framesCount") or 0), last)
    if count > MAX_FRAMES:
        raise ValueError("too many frames")
    times = frame_times(max(count, 1), 1)
    keyframes = sorted(value["sequence"], key=lambda keyframe: int(keyframe["frame"]))
    numbers = [int(keyframe["frame"]) for keyframe in keyframes]
    shapes = [shape_of(keyframe) for keyframe in keyframes]
    for number in range(numbers[0], count + 1):
        frame = times.from_label_studio(number)
        at = bisect_right(numbers, number) - 1
        visible = number == numbers[at] or keyframes[at].get("enabled", True)
        if not visible or (window is not None and window.item(frame) is None):
            continue
        moves = number > numbers[at] and at + 1 < len(numbers)
        share = (number - numbers[at]) / (numbers[at + 1] - numbers[at]) if moves else 0.0
        yield frame, keyframes[at], shapes[at], shapes[at + 1] if moves else None, share


def _shown(value: Mapping[str, Any], window: Window | None) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the 0-based frames on which the editor shows a region, and its box there."""
    for frame, _, box, following, share in between_keyframes(
        value, window, lambda keyframe: {key: float(keyframe.get(key) or 0.0) for key in _SHAPE}
    ):
        if following is not None:
            box = {key: box[key] + share * (following[key] - box[key]) for key in _SHAPE}
        yield frame, box


def _filled(box: Mapping[str, float], width: int, height: int) -> CocoRle:
    """Return the mask of the pixels whose centre lies in a box."""
    corners = box_corners(box, width, height)
    if box["rotation"]:
        return to_coco(polygons_to_mask([corners], height, width))
    # Percentages have four digits: without rounding, an edge between two pixels could fall to either.
    (left, top), (right, bottom) = np.round(corners[0], 2).tolist(), np.round(corners[2], 2).tolist()
    left, top, right, bottom = (math.ceil(side - 0.5) for side in (left, top, right, bottom))
    return box_mask(left, top, right, bottom, height, width)
