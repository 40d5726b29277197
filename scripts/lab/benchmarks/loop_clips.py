"""Clips of the concept in Label Studio: what a person submits who corrects every frame, and how good masks are."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

from lab.benchmarks.concepts import ZORBO
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.regions.read import results_to_tracks
from svac_backend.labelstudio.regions.region import Canvas
from svac_backend.labelstudio.regions.written import tracks_to_results, validate_results
from svac_backend.masks.metrics import j_and_f
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import Track
from svac_backend.synthetic.scene import Scene

# What the backend calls the first object of a task.
OBJECT = "obj1"
Region = dict[str, Any]


def as_submitted(
    clip: Scene, sent: Sequence[Region], config: LabelConfig
) -> tuple[list[Region], dict[str, int]]:
    """Return the regions that the editor submits, and how many were changed, drawn anew and removed.

    A region that is changed keeps its id, its score and its place; one that is drawn has an id of the editor's making.

    Args:
        clip: its last object is the concept.
        sent: what the editor showed, a prediction's regions.
        config: the project's labelling config.
    """
    masks, control = clip.masks[-1], config.mask_control()
    truth = _named(config)
    truth.masks = {i: to_coco(mask) for i, mask in enumerate(masks) if mask.any()}
    height, width = masks.shape[1:]
    before = {region["id"]: region for region in sent}
    results: list[Region] = []
    changed = 0
    for region in tracks_to_results([truth], control, canvas=Canvas(width, height)):
        del region["score"]
        old = before.pop(region["id"], None)
        changed += old is not None
        if old is not None:
            results.append({**old, "value": region["value"], "origin": "prediction-changed"})
        else:
            results.append({**region, "id": secrets.token_urlsafe(8)[:10], "origin": "manual"})
    validate_results(results, config, frame_count=len(masks))
    return results, {"changed": changed, "drawn anew": len(results) - changed, "removed": len(before)}


def score(clip: Scene, results: Sequence[Region], config: LabelConfig) -> float:
    """Return J&F of regions against the concept's true masks, 0..100, over all frames."""
    truth = clip.masks[-1]
    height, width = truth.shape[1:]
    tracks = results_to_tracks(results, config, canvas=Canvas(width, height), tracks=[_named(config)])
    masks = next(track.masks for track in tracks if track.object_id == OBJECT)
    shown = [from_coco(masks[i]) if i in masks else np.zeros_like(truth[i]) for i in range(len(truth))]
    found = j_and_f(shown, truth)
    return 100 * (found.j + found.f) / 2


def _named(config: LabelConfig) -> Track:
    return Track(OBJECT, next(iter(config.mask_control().labels)), ZORBO.expression)
