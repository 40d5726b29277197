"""Annotators' requests, and the Label Studio that keeps their drafts."""

from __future__ import annotations

import json
from typing import Any

from flask.testing import FlaskClient

from svac_backend.jobs.engine import Job
from svac_backend.jobs.services import Services
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions.read import results_to_tracks
from svac_backend.labelstudio.regions.region import Canvas
from svac_backend.labelstudio.regions.written import tracks_to_results
from svac_backend.masks.tracks import CocoRle, Track
from tests.server.bodies import CONFIG, SQUARE, task

PARSED = parse_config(CONFIG)
Region = dict[str, Any]


def ask(client: FlaskClient, body: dict[str, Any]) -> list[Region]:
    """Return the regions of the answer."""
    answer = client.post("/predict", data=json.dumps(body), content_type="application/json")
    assert answer.status_code == 200, answer.data
    (item,) = json.loads(answer.data)["results"]
    return [] if item == [] else list(item["result"])


def regions(object_id: str, masks: dict[int, CocoRle], label: str = "dog") -> list[Region]:
    track = Track(object_id, label, "", masks, dict.fromkeys(masks, 0.5))
    return tracks_to_results([track], PARSED.mask_control(), Canvas(32, 24))


def masks_of(found: list[Region], object_id: str) -> dict[int, CocoRle]:
    tracks = results_to_tracks(found, PARSED, Canvas(32, 24))
    return next((track.masks for track in tracks if track.object_id == object_id), {})


def with_draft(drafts: list[dict[str, Any]], body: dict[str, Any], *shown: Region) -> dict[str, Any]:
    """Have Label Studio save a draft with some regions and the request itself."""
    drafts[:] = [{"id": 5, "updated_at": "T9", "result": [*shown, *body["params"]["context"]["result"]]}]
    return body


def jobs(backend: Services, kind: str = "propagate") -> list[Job]:
    return backend.engine.find(kind=kind)


FIRST = regions("obj1", {0: SQUARE, 1: SQUARE})
PREDICTED = {
    **task(),
    "predictions": [{"id": 3, "result": FIRST, "model_version": "standin-1", "score": 0.5}],
}
