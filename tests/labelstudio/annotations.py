"""What the tests of regions and corrections share: a config of every kind, masks, tracks, and regions of persons."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.labelstudio.regions.region import Canvas, RegionOptions
from svac_backend.labelstudio.regions.written import tracks_to_results
from svac_backend.masks.rle import encode_brush, from_coco, to_coco
from svac_backend.masks.tracks import Track

WIDTH, HEIGHT = 64, 48
LABELS = '<Label value="dog" prompt="the white dog"/><Label value="cat"/>'
FRAMES = '<Image name="frames" valueList="$frames"/>'
TEXT = '<TextArea name="prompt" toName="frames"/><Choices name="done" toName="frames"><Choice value="yes"/></Choices>'
VIDEO = '<Video name="video" value="$video" framerate="$fps"/>'
BOXES = (
    '<VideoRectangle name="box" toName="video" svac="boxes"/>'
    f'<Labels name="boxlabel" toName="video">{LABELS}</Labels>'
)


def tag(kind: str, name: str = "mask") -> str:
    return f'<{kind}Labels name="{name}" toName="frames">{LABELS}</{kind}Labels>'


def xml_of(*tags: str) -> str:
    return f"<View>{FRAMES}{TEXT}{''.join(tags)}</View>"


def config_of(*tags: str) -> LabelConfig:
    return parse_config(xml_of(*tags))


BRUSH, POLYGON = config_of(tag("Brush")), config_of(tag("Polygon"))
PAIR = config_of(
    '<Brush name="mask" toName="frames"/>', f'<Labels name="its" toName="frames">{LABELS}</Labels>'
)
ALL = config_of(
    tag("Brush"),
    tag("Polygon", "poly"),
    tag("Vector", "vec"),
    tag("Rectangle", "rect"),
    tag("Bitmask", "bit"),
)


def mask_of(*boxes: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Boxes as top, bottom, left, right."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def track_of(
    masks: dict[int, NDArray[np.bool_]], object_id: str = "obj1", label: str = "dog", score: float = 0.5
) -> Track:
    return Track(
        object_id,
        label,
        f"the {label} {object_id}",
        {frame: to_coco(mask) for frame, mask in masks.items()},
        dict.fromkeys(masks, score),
    )


def sent_of(config: LabelConfig, *tracks: Track, **options: Any) -> list[dict[str, Any]]:
    canvas = options.pop("canvas", Canvas(WIDTH, HEIGHT, options.pop("window", None)))
    return tracks_to_results(tracks, config.mask_control(), canvas, RegionOptions(min_area_px=0, **options))


def drawn(
    item: int, value: dict[str, Any], id_: str, kind: str, name: str = "mask", label: str | None = "dog"
) -> dict[str, Any]:
    """A region as the editor makes it when a person draws."""
    labels = {f"{kind}labels": [label]} if label else {}
    return {
        "id": id_,
        "from_name": name,
        "to_name": "frames",
        "type": f"{kind}labels",
        "origin": "manual",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "item_index": item,
        "value": {**value, **labels},
    }


def brushed(
    item: int, mask: NDArray[np.bool_], id_: str = "aB3dE_9-xY", label: str | None = "dog"
) -> dict[str, Any]:
    return drawn(item, {"format": "rle", "rle": encode_brush(mask)}, id_, "brush", label=label)


def masks_of(track: Track) -> dict[int, NDArray[np.bool_]]:
    return {frame: from_coco(rle) for frame, rle in track.masks.items()}


@st.composite
def track_sets(
    draw: Any, largest: int = 12, scales: tuple[int, int] = (1, 3)
) -> tuple[list[Track], int, int]:
    """Tracks with masks of any form, none of them empty; and the video's width and height."""
    height, width = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    scale = draw(st.integers(*scales))
    tracks = []
    for number in range(1, draw(st.integers(1, 3)) + 1):
        masks = {}
        for frame in draw(st.sets(st.integers(0, 6), max_size=3)):
            mask = draw(arrays(np.bool_, (height, width)))
            if mask.any():
                masks[frame] = mask.repeat(scale, axis=0).repeat(scale, axis=1)
        tracks.append(track_of(masks, f"obj{number}", draw(st.sampled_from(["dog", "cat"]))))
    return tracks, width * scale, height * scale
