"""Request bodies as Label Studio 1.23.2 sends them, and a prediction to put into the cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from svac_backend.jobs.payloads import PrelabelPayload
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track
from svac_backend.store.predictions import Prediction

CONFIG = """<View>
  <TextArea name="prompt" toName="frames" smart="true"/>
  <Image name="frames" valueList="$frames"/>
  <BrushLabels name="mask" toName="frames"><Label value="dog"/><Label value="cat"/></BrushLabels>
  <Video name="video" value="$video" framerate="$fps"/>
</View>"""


def task(number: int = 7, **data: Any) -> dict[str, Any]:
    """A task as Label Studio sends it."""
    own = {
        "video": f"/data/upload/{number}.mp4",
        "frames": ["/f/0.jpg", "/f/1.jpg"],
        "prompt": "the dog",
        **data,
    }
    return {"id": number, "data": own, "annotations": [], "predictions": []}


def predict_body(*tasks: dict[str, Any], text: str | None = None) -> dict[str, Any]:
    """A /predict body as Label Studio 1.23.2 sends it; with `text` that of a submitted prompt."""
    context: dict[str, Any] | None = None
    if text is not None:
        region = {"value": {"text": [text]}, "from_name": "prompt", "to_name": "frames", "type": "textarea"}
        context = {"result": [{"id": "abc", **region}], "login": None, "password": None}
    return {
        "tasks": list(tasks),
        "project": "38.1795331614",
        "label_config": CONFIG,
        "params": {"login": None, "password": None, "context": context},
    }


def prediction(payload: PrelabelPayload, version: str) -> Prediction:
    """A prediction of two frames, a square for each prompt."""
    mask = np.zeros((24, 32), np.bool_)
    mask[4:16, 6:20] = True
    rle = to_coco(mask)
    tracks = [
        Track(p.object_id, p.label, p.expression, {0: rle, 1: rle}, {0: 0.5, 1: 0.75})
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
