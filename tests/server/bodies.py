"""Request bodies as Label Studio 1.23.2 sends them, and a prediction to put into the cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from svac_backend.jobs.payloads import PrelabelPayload, PropagatePayload
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import CocoRle, Track
from svac_backend.store.predictions import Prediction
from svac_backend.video.source import VideoInfo

CONFIG = """<View>
  <TextArea name="prompt" toName="frames" smart="true"/>
  <Image name="frames" valueList="$frames"/>
  <BrushLabels name="mask" toName="frames"><Label value="dog"/><Label value="cat"/></BrushLabels>
  <Video name="video" value="$video" framerate="$fps"/>
</View>"""


INFO = VideoInfo(
    width=32,
    height=24,
    frame_count=2,
    fps=25.0,
    duration=0.08,
    rotation=0,
    variable_frame_rate=False,
    codec="h264",
)


def task(number: int = 7, **data: Any) -> dict[str, Any]:
    """A task as Label Studio sends it."""
    own = {
        "video": f"/data/upload/{number}.mp4",
        "frames": ["/f/0.jpg", "/f/1.jpg"],
        "prompt": "the dog",
        **data,
    }
    return {"id": number, "data": own, "annotations": [], "predictions": []}


def click(x: float, y: float, *, item: int = 0, label: str = "positive") -> dict[str, Any]:
    """A key point, in percent of a frame of 32x24 pixels."""
    return {
        "original_width": 32,
        "original_height": 24,
        "image_rotation": 0,
        "item_index": item,
        "value": {"x": x, "y": y, "width": 0.26, "labels": [label], "keypointlabels": [label]},
        "is_positive": True,
        "id": "rwhTmhnW9C",
        "from_name": "kp",
        "to_name": "frames",
        "type": "keypointlabels",
        "origin": "manual",
    }


def command() -> dict[str, Any]:
    """The key point that asks for propagation."""
    return click(5, 5, label="propagate")


def predict_body(
    *tasks: dict[str, Any], text: str | None = None, region: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A /predict body as Label Studio 1.23.2 sends it; with `text` a submitted prompt, with `region` a click or box."""
    context: dict[str, Any] | None = None if region is None else {"result": [region]}
    if text is not None:
        region = {"value": {"text": [text]}, "from_name": "prompt", "to_name": "frames", "type": "textarea"}
        context = {"result": [{"id": "abc", **region}], "login": None, "password": None}
    return {
        "tasks": list(tasks),
        "project": "38.1795331614",
        "label_config": CONFIG,
        "params": {"login": None, "password": None, "context": context},
    }


def square(left: int, top: int, right: int, bottom: int) -> CocoRle:
    """A mask of 32x24 pixels."""
    mask = np.zeros((24, 32), np.bool_)
    mask[top:bottom, left:right] = True
    return to_coco(mask)


SQUARE, MOVED = square(6, 4, 20, 16), square(8, 6, 22, 18)


def propagated(payload: PropagatePayload, version: str) -> Prediction:
    """A prediction of two frames: the mask that was given, elsewhere a square that is not where the first one is."""
    tracks = []
    for one in payload.objects:
        masks = {
            frame: prompt.mask
            for frame, prompt in payload.hints[one.object_id].items()
            if prompt.mask is not None
        }
        track = Track(**vars(one), masks={0: MOVED, 1: MOVED, **masks}, scores={0: 0.5, 1: 0.5})
        tracks.append(track)
    return payload.prediction(payload.cache_key(version), version, tracks, INFO)


def prediction(payload: PrelabelPayload, version: str) -> Prediction:
    """A prediction of two frames, a square for each prompt."""
    tracks = [
        Track(p.object_id, p.label, p.expression, {0: SQUARE, 1: SQUARE}, {0: 0.5, 1: 0.75})
        for p in payload.prompts
    ]
    return Prediction(
        payload.cache_key(version),
        version,
        payload.project_id,
        payload.task_id,
        tracks,
        32,
        24,
        25.0,
        2,
        0.625,
    )
