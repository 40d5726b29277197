"""Label Studio's regions as tracks: what was drawn on which frame, and which object it belongs to.

Regions of this backend say their object in their id, `obj1-f00004`. A region that a person drew has a random id,
and joins an object of its label: see `ownership.assign_objects`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from svac_backend.labelstudio.config import LabelConfig, MaskControl
from svac_backend.labelstudio.drawings import Drawing, read_drawings
from svac_backend.labelstudio.ownership import assign_objects, free_id
from svac_backend.labelstudio.rectangles import box_tracks
from svac_backend.labelstudio.windows import Window
from svac_backend.masks.prompts import Prompts
from svac_backend.masks.rle import area, union
from svac_backend.masks.tracks import ObjectPrompt, Track

Region = dict[str, Any]

# What a region without a score of its own is worth: a person drew it.
DRAWN_SCORE = 1.0


@dataclass
class Drawn:
    """All regions of an annotation that are masks, each with its object.

    Attributes:
        drawings: in the order of the results.
        objects: every known object, those of `tracks` first; also those of which nothing is left.
    """

    drawings: list[Drawing] = field(default_factory=list)
    objects: dict[str, ObjectPrompt] = field(default_factory=dict)

    def by_place(self) -> dict[tuple[str, int], list[Drawing]]:
        """Return the drawings by object and frame."""
        found: dict[tuple[str, int], list[Drawing]] = defaultdict(list)
        for drawing in self.drawings:
            found[str(drawing.object_id), drawing.frame].append(drawing)
        return dict(found)


def results_to_tracks(
    results: Sequence[Mapping[str, Any]],
    config: LabelConfig,
    *,
    width: int,
    height: int,
    window: Window | None = None,
    tracks: Sequence[Track] = (),
    certain: Prompts | None = None,
) -> list[Track]:
    """Return the masks of an annotation or a prediction.

    Brush masks, polygons, closed vectors, bitmasks and boxes on the frames count; what an object has on one frame is
    united. `VideoRectangle` tracks count as filled boxes where the config has no masks on frames, or nothing of their
    label is drawn there. All other results are left out.

    Args:
        results: the annotation's `result`.
        config: the project's labelling config.
        width, height: the video's display size in pixels.
        window: which frames the task shows; None for all.
        tracks: the objects that are known, with expressions; their masks help to tell whose a person's region is.
        certain: masks that persons made before, for the same purpose.

    Returns:
        The known objects in their order, even those of which nothing is left, then new ones. Frames are the video's. A
        region without a score scores 1.0; of several regions of an object on a frame, the lowest score counts.

    Raises:
        SvacError: a region is malformed, or lies on a frame that the task does not have.
    """
    drawn = read_drawn(
        results, config, width=width, height=height, window=window, tracks=tracks, certain=certain
    )
    found = {prompt.object_id: Track(**vars(prompt)) for prompt in drawn.objects.values()}
    for (object_id, frame), drawings in drawn.by_place().items():
        mask = union([drawing.mask for drawing in drawings])
        if area(mask):
            found[object_id].masks[frame] = mask
            found[object_id].scores[frame] = min(_score(drawing) for drawing in drawings)
    drawn_labels = {drawing.label for drawing in drawn.drawings}
    for boxes in box_tracks(results, config, width=width, height=height, window=window):
        if boxes.object_id is not None and config.drawing_controls():
            continue  # the overview that this backend made of the masks
        if boxes.label in drawn_labels:
            continue
        object_id = boxes.object_id or free_id(found)
        known = found.get(object_id)
        if known is None or known.masks:
            object_id = object_id if known is None else free_id(found)
            label = boxes.label or next(iter(_labels(config)), object_id)
            known = found[object_id] = Track(object_id, label, _expression(label, config))
        known.masks.update(boxes.masks)
        known.scores.update(dict.fromkeys(boxes.masks, DRAWN_SCORE))
    return list(found.values())


def drawn_objects(
    results: Sequence[Mapping[str, Any]],
    config: LabelConfig,
    *,
    width: int,
    height: int,
    window: Window | None = None,
    tracks: Sequence[Track] = (),
    certain: Prompts | None = None,
) -> list[ObjectPrompt]:
    """Return the objects on the frames, known and new, and decode no more masks than that needs.

    Args and errors as in `results_to_tracks`.
    """
    drawn = read_drawn(
        results, config, width=width, height=height, window=window, tracks=tracks, certain=certain
    )
    return list(drawn.objects.values())


def read_drawn(
    results: Sequence[Mapping[str, Any]],
    config: LabelConfig,
    *,
    width: int,
    height: int,
    window: Window | None = None,
    tracks: Sequence[Track] = (),
    certain: Prompts | None = None,
    owners: Mapping[str, str] | None = None,
) -> Drawn:
    """Return what is drawn on the frames, and whose it is.

    Args:
        owners: region id -> object id, where that is known from an earlier state of the annotation.

    The others, and the errors, as in `results_to_tracks`.
    """
    drawings = read_drawings(results, config, (width, height), window)
    for drawing in drawings:
        drawing.object_id = drawing.object_id or (owners or {}).get(drawing.id)
    default = next(iter(_labels(config)), "object")
    labels = assign_objects(drawings, tracks, certain or {}, default)
    expressions = {track.object_id: track.expression for track in tracks}
    objects = {
        object_id: ObjectPrompt(object_id, label, expressions.get(object_id) or _expression(label, config))
        for object_id, label in labels.items()
    }
    return Drawn([drawing for drawing in drawings if drawing.object_id], objects)


def _labels(config: LabelConfig) -> Mapping[str, str | None]:
    """The labels of the config's masks, of the first control that has some."""
    controls: tuple[MaskControl, ...] = config.drawing_controls()
    return next((control.labels for control in controls if control.labels), {})


def _expression(label: str, config: LabelConfig) -> str:
    """What a new object of a label is called: the label's prompt, or its name."""
    prompts = (control.labels.get(label) for control in config.drawing_controls())
    return next((prompt for prompt in prompts if prompt), label)


def _score(drawing: Drawing) -> float:
    score = drawing.results[0].get("score")
    return float(score) if isinstance(score, int | float) else DRAWN_SCORE
