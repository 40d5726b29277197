"""Checks, through Label Studio's API, what the quickstart made: masks on the objects, and a live backend."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.regions.region import region_name
from svac_backend.masks.rle import decode_brush, iou, to_coco
from svac_backend.masks.tracks import CocoRle, Track
from svac_backend.quickstart.content import PromptedVideo

MIN_COLOR_IOU = 0.65
_LIVE_TIMEOUT_S = 120.0

Masks = dict[tuple[str, int], CocoRle]


@dataclass
class CheckReport:
    """What the check found.

    Attributes:
        frames: frames of all videos, as far as the truth says; 0 for a user's own.
        frames_with_mask: frames with at least one mask.
        masks: number of masks.
        ious: kind of expression -> one IoU for each object and frame.
        live_seconds, live_masks, live_iou: of the live prediction; the IoU is None without a truth.
        problems: why the check failed; empty when it passed.
    """

    tasks: int = 0
    frames: int = 0
    frames_with_mask: int = 0
    masks: int = 0
    ious: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    live_seconds: float = 0.0
    live_masks: int = 0
    live_iou: float | None = None
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        of = f" of {self.frames}" if self.frames else ""
        lines = [
            f"tasks: {self.tasks}",
            f"frames with a mask: {self.frames_with_mask}{of} ({self.masks} masks)",
        ]
        for kind, values in sorted(self.ious.items()):
            floor = f" (at least {MIN_COLOR_IOU} is asked)" if kind == "color" else ""
            lines.append(f"mean IoU, {kind.replace('_', ' and ')} expressions: {np.mean(values):.3f}{floor}")
        live_iou = "" if self.live_iou is None else f", mean IoU {self.live_iou:.3f}"
        lines.append(f"live prediction: {self.live_masks} masks in {self.live_seconds:.1f} s{live_iou}")
        return lines + [f"PROBLEM: {problem}" for problem in self.problems]


def region_key(region: Mapping[str, Any]) -> tuple[str, int]:
    """Return (object id, 0-based frame) of a region. Raises `SvacError` where its id is not one of ours."""
    name = region_name(region)
    if name is None:
        raise SvacError(f"The region id '{region['id']}' is not one of ours.", "Report this as a bug.")
    return name.object_id, name.frame


def brush_masks(results: Iterable[Mapping[str, Any]]) -> Masks:
    """Return the masks of brush results by (object id, frame)."""
    masks = {}
    for region in results:
        mask = decode_brush(region["value"]["rle"], region["original_height"], region["original_width"])
        masks[region_key(region)] = to_coco(mask)
    return masks


def track_ious(track: Track, frames: int, masks: Masks, object_id: str) -> list[float]:
    """Return the IoU of each frame on which the truth or the prediction has the object."""
    found = []
    for index in range(frames):
        truth, seen = track.masks.get(index), masks.get((object_id, index))
        if truth is None and seen is None:
            continue
        found.append(iou(truth, seen) if truth is not None and seen is not None else 0.0)
    return found


def read_truth(path: Path) -> tuple[list[Track], int]:
    """Return the tracks of a demo's prompts and the number of frames."""
    truth = json.loads(path.read_text())
    return [Track.from_json(track) for track in truth["tracks"]], int(truth["frames"])


def another_wording(expression: str) -> str:
    """Return a prompt that means the same in other words, so that no earlier answer fits."""
    if " object" in expression:
        return expression.replace(" object", " thing")
    return f"find {expression}"


def kind_of(expression: str) -> str:
    """Return `color` for a prompt that names a colour alone ("the red object"), `color_shape` for the others."""
    return "color" if re.fullmatch(r"the \w+ object", expression) else "color_shape"


def check_predictions(
    client: LabelStudioClient, tasks: Sequence[tuple[PromptedVideo, int]], report: CheckReport
) -> None:
    """Read every task's prediction back and compare it with the truth."""
    for clip, task in tasks:
        report.tasks += 1
        predictions = client.list_predictions(task)
        if not predictions:
            report.problems.append(f"task {task} ({clip.video.name}) has no prediction")
            continue
        newest = max(predictions, key=lambda prediction: int(prediction["id"]))
        keys = {region_key(region) for region in newest["result"]}
        report.masks += len(keys)
        report.frames_with_mask += len({frame for _, frame in keys})
        if not keys:
            report.problems.append(f"the prediction of task {task} ({clip.video.name}) has no mask")
        if clip.truth is None:
            continue
        masks = brush_masks(newest["result"])
        tracks, frames = read_truth(clip.truth)
        report.frames += frames
        for number, track in enumerate(tracks, start=1):
            ious = track_ious(track, frames, masks, f"obj{number}")
            report.ious[kind_of(track.expression)].extend(ious)
    if "color" in report.ious and np.mean(report.ious["color"]) < MIN_COLOR_IOU:
        report.problems.append(
            f"the masks of colour expressions miss their objects (IoU below {MIN_COLOR_IOU})"
        )


def check_live(
    client: LabelStudioClient,
    backend: int,
    clip: PromptedVideo,
    task: int,
    config: LabelConfig,
    report: CheckReport,
) -> None:
    """Type a prompt, through Label Studio, as an annotator does with Auto-Annotation on.

    Args:
        client: of a user who may see the project.
        backend: id of the ML backend in Label Studio.
        clip: the task's video.
        task: id of the task.
        config: the project's labelling config.
        report: the findings are added to it.

    Raises:
        SvacError: the config has no frames, or no TextArea for the prompt.
    """
    expression = another_wording(clip.prompts[0])
    if config.text is None or config.frames is None:
        raise SvacError("The labelling config has no prompt or no frames.", "Use one of labelstudio_config/.")
    region = {
        "id": "quickstart",
        "type": "textarea",
        "from_name": config.text.name,
        "to_name": config.frames.name,
        "value": {"text": [expression]},
    }
    started = time.monotonic()
    response = httpx.post(
        f"{client.url}/api/ml/{backend}/interactive-annotating",
        headers=client.authorization(),
        json={"task": task, "context": {"result": [region]}},
        timeout=_LIVE_TIMEOUT_S,
        trust_env=False,
    )
    report.live_seconds = time.monotonic() - started
    answer: dict[str, Any] = response.json() if response.is_success else {"errors": [response.text[:300]]}
    if answer.get("errors"):
        report.problems.append(f"the live prediction failed: {answer['errors']}")
        return
    results = (answer.get("data") or {}).get("result") or []
    report.live_masks = len({region_key(region) for region in results})
    if not results:
        report.problems.append(f"the live prediction of '{expression}' came back without a mask")
    elif clip.truth is not None:
        tracks, frames = read_truth(clip.truth)
        # A typed prompt makes a new object beside those of the task.
        object_id = region_key(results[0])[0]
        report.live_iou = float(np.mean(track_ious(tracks[0], frames, brush_masks(results), object_id)))
