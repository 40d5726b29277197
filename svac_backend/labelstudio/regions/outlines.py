"""Outlines that follow an object through the video: tracks as `VideoVectorLabels` results, and back.

Only Label Studio Enterprise has the tag; the open-source editor (1.23.2) does not know it. So these results follow the
model in label-studio-sdk 2.1.2, and are checked with it, but have never been seen in an editor. Every frame gets a
keyframe, so that nothing depends on how an editor interpolates. Where a person left some out, points move linearly if
two neighbouring keyframes have the same number of them; otherwise the earlier outline stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import BoxTracks, LabelConfig
from svac_backend.labelstudio.regions.rectangles import (
    OUTLINE_KIND,
    OUTLINE_SUFFIX,
    BoxTrack,
    between_keyframes,
    frame_times,
    frames_problem,
    runs_of,
)
from svac_backend.labelstudio.regions.region import DEFAULT_OPTIONS, Canvas, Region, RegionOptions, region_id
from svac_backend.labelstudio.tasks import Window
from svac_backend.masks.limits import MAX_POINTS, MaskRoom
from svac_backend.masks.polygons import mask_to_polygons, one_ring, polygons_to_mask
from svac_backend.masks.rle import area, from_coco, to_coco
from svac_backend.masks.tracks import Track

Vertices = NDArray[np.float64]


def tracks_to_outlines(
    tracks: Iterable[Track],
    control: BoxTracks,
    canvas: Canvas,
    options: RegionOptions = DEFAULT_OPTIONS,
    *,
    fps: float,
    frame_count: int,
) -> list[Region]:
    """Return one `VideoVectorLabels` result for each track that has masks, id `<object_id>-outline`.

    A mask in parts, or with holes, becomes one outline: its rings are joined by bridges of zero width.

    Args:
        tracks: masks of the canvas's size, on frames of the whole video.
        control: see `LabelConfig.outlines`; tracks whose label it lacks get no outline.
        canvas: only its size is used, not its window.
        options: masks of fewer pixels than `min_area_px` count as absent; also tolerance and IoU floor of the polygons.
        fps: frames per second, as in the config's `<Video framerate>`.
        frame_count: frames of the video.
    """
    times = frame_times(frame_count, fps)
    least = max(options.min_area_px, 1)
    results = []
    for track in tracks:
        masks = {frame: rle for frame, rle in sorted(track.masks.items()) if area(rle) >= least}
        if not masks or track.label not in control.labels:
            continue
        sequence: list[Region] = []
        for run in runs_of(list(masks)):
            for frame in run:
                rings = mask_to_polygons(
                    from_coco(masks[frame]), tolerance_px=options.tolerance_px, iou_floor=options.iou_floor
                )
                number, time = times.to_label_studio(frame, fps)
                points = np.round(one_ring(rings) / canvas.size * 100, 4).tolist()
                sequence.append(
                    {
                        "frame": number,
                        "time": time,
                        # As for a box, the last frame of a run is the last that shows it.
                        "enabled": frame != run[-1] or frame == frame_count - 1,
                        "closed": True,
                        "vertices": [
                            {"id": f"{frame}-{n}", "x": x, "y": y} for n, (x, y) in enumerate(points)
                        ],
                    }
                )
        results.append(
            {
                "id": f"{track.object_id}{OUTLINE_SUFFIX}",
                "from_name": control.name,
                "to_name": control.to_name,
                "type": OUTLINE_KIND,
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


def outline_tracks(
    results: Iterable[Mapping[str, Any]], config: LabelConfig, canvas: Canvas
) -> list[BoxTrack]:
    """Return the outlines of an annotation, on every frame of the task that shows them.

    Raises:
        SvacError: a region is malformed.
    """
    outlines = [one for one in config.box_tracks if one.outlines]
    controls = {(name, one.to_name) for one in outlines for name in (one.name, one.labels_name)}
    found = []
    room = MaskRoom()
    for region in results:
        if (region.get("from_name"), region.get("to_name")) not in controls or not _is_outline(region):
            continue
        try:
            id_ = region_id(region)
            ours = id_.removesuffix(OUTLINE_SUFFIX) if id_.endswith(OUTLINE_SUFFIX) else None
            track = BoxTrack(ours, _label(region))
            for frame, vertices in _shown(region["value"], canvas.window):
                mask = to_coco(polygons_to_mask([vertices / 100 * canvas.size], canvas.height, canvas.width))
                track.masks[frame] = mask
                room.take(len(mask["counts"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SvacError(
                f"The outline '{region.get('id')}' is malformed ({type(error).__name__}).",
                "Draw it again in the editor, or take the result unchanged from Label Studio.",
            ) from error
        found.append(track)
    return found


def outline_problem(region: Mapping[str, Any], control: BoxTracks, frame_count: int | None) -> str | None:
    """Say why an editor would not show an outline; None if it would, as far as label-studio-sdk knows."""
    value = region.get("value")
    if region.get("type") != OUTLINE_KIND or region.get("to_name") != control.to_name:
        return f"it is not a {OUTLINE_KIND} on '{control.to_name}'"
    if not isinstance(value, Mapping) or not value.get("sequence"):
        return "its sequence has no keyframe"
    if _label(region) not in control.labels:
        return f"its labels are not among {', '.join(control.labels)}"
    return frames_problem(_shown(value, None), frame_count)


def _is_outline(region: Mapping[str, Any]) -> bool:
    return region.get("type") in (OUTLINE_KIND, OUTLINE_KIND.removesuffix("labels"))


def _label(region: Mapping[str, Any]) -> str | None:
    """Return a region's label; with a <Labels> beside the tag, its key is the region's type."""
    value = region["value"]
    labels = value.get(str(region.get("type"))) or value.get("labels")
    return str(labels[0]) if isinstance(labels, list) and labels else None


def _shown(value: Mapping[str, Any], window: Window | None) -> Iterator[tuple[int, Vertices]]:
    """Yield the 0-based frames that show an outline, and its points there, [N, 2] in percent; skip open lines."""
    for frame, keyframe, points, following, share in between_keyframes(value, window, _vertices):
        # An open outline is a line and covers nothing.
        if not keyframe.get("closed", False) or len(points) < 3:
            continue
        if following is not None and len(following) == len(points):
            points = points + share * (following - points)
        yield frame, points


def _vertices(keyframe: Mapping[str, Any]) -> Vertices:
    vertices = keyframe["vertices"]
    if len(vertices) > MAX_POINTS:
        raise ValueError("too many points")
    return np.array([[float(point["x"]), float(point["y"])] for point in vertices]).reshape(-1, 2)
